"""Fuzz of the invariants: `python tests/fuzz/run.py --seed 1 --runs 1000`.

Each seed is a schedule of questions and misfortunes, played against the real bot between
simulated services, hours in seconds; with --real against `python -m bot run`, in real time
and killed with SIGKILL. Prints the story of each seed that breaks a promise, and ends with
1 then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import plan as plans
from plan import Plan
from story import Story, tell, tell_real

TOGETHER = 20
"""Seeds of one process: what was killed in it is never forgotten (looping.py)."""

SHRINKING = 80
"""Runs after which a story is short enough."""


def main() -> int:
    options = _options()
    return _play(options) if options.here else _spread(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="a real process, in real time")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--most", type=int, default=3, help="failing seeds after which it ends")
    parser.add_argument("--shrink", action="store_true", help="leave out what is not needed")
    parser.add_argument("--quiet", action="store_true", help="no stories")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---------------------------------------------------------------- many processes


def _spread(options: argparse.Namespace) -> int:
    """In pieces, each in a process of its own, whose hashes are no surprise."""
    began, failed = time.monotonic(), 0
    end = options.seed + options.runs
    size = min(TOGETHER, -(-options.runs // options.jobs))
    pieces = [(at, min(size, end - at)) for at in range(options.seed, end, size)]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda piece: _piece(options, *piece), pieces)
        for first, done in zip(pieces, results, strict=True):
            failed += done.returncode
            words = "all is well" if done.returncode == 0 else "A PROMISE IS BROKEN"
            spent = time.monotonic() - began
            print(done.stdout if done.returncode else "", end="")
            print(f"seeds {first[0]}-{sum(first) - 1}: {words}, {spent:.0f} s")
            sys.stdout.flush()
            if failed >= options.most:
                pool.shutdown(cancel_futures=True)
                break
    print(f"seed {options.seed}, {options.runs} runs: {failed or 'none'} failed")
    return 1 if failed else 0


def _piece(options: argparse.Namespace, seed: int, runs: int) -> subprocess.CompletedProcess[str]:
    """Its return code is how many seeds failed."""
    command = [sys.executable, __file__, "--here", "--seed", str(seed), "--runs", str(runs)]
    flags = ("real", "shrink", "quiet")
    command += [f"--{flag}" for flag in flags if getattr(options, flag)]
    command += ["--most", str(options.most)]
    environ = os.environ | {"PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


# ---------------------------------------------------------------- in this process


def _play(options: argparse.Namespace) -> int:
    failed = 0
    for seed in range(options.seed, options.seed + options.runs):
        story = tell_real(plans.make_short(seed)) if options.real else tell(plans.make(seed))
        if not story.wrong:
            continue
        failed += 1
        if options.shrink and not options.real:
            story = _shrunk(story)
        print("\n".join(_told(story, options)))
        if failed >= options.most:
            break
    return failed


def _shrunk(story: Story) -> Story:
    """The same seed without the actions that are not needed for it to fail."""
    left = SHRINKING
    again = True
    while again and left > 0:
        again = False
        for action in reversed(story.plan.actions):
            shorter = tell(story.plan.without(action))
            left -= 1
            if shorter.wrong:
                story, again = shorter, True
            if left <= 0:
                break
    return story


def _told(story: Story, options: argparse.Namespace) -> Iterator[str]:
    seed = story.plan.seed
    flags = "".join(f" --{flag}" for flag in ("real", "shrink") if getattr(options, flag))
    if not options.quiet:
        yield f"\n==== seed {seed} ====\n{_knobs(story.plan)}"
        yield from story.lines
    yield f"\nseed {seed} breaks a promise:"
    yield from (f"  - {words}" for words in story.wrong)
    yield f"again: python tests/fuzz/run.py --seed {seed}{flags}\n"


def _knobs(plan: Plan) -> str:
    return " ".join(f"{name}={value}" for name, value in plan.knobs.items())


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
