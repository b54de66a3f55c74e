"""Fuzz of the invariants: `python tests/fuzz/run.py --seed 1 --runs 1000`.

Each seed is a schedule of questions and misfortunes, played against the real bot between
simulated services, hours in seconds. Prints the seed and the story of each one that breaks a
promise, and ends with 1 then.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import plan as plans
from story import Story, tell, tell_real


def main() -> int:
    options = _options()
    began, bad = time.monotonic(), []
    gc.disable()
    for seed in range(options.seed, options.seed + options.runs):
        began_cpu = time.process_time()
        story = tell_real(plans.make_short(seed)) if options.real else tell(plans.make(seed))
        if story.wrong:
            bad.append(seed)
            _print(story, options.trace)
        if options.verbose:
            used = time.process_time() - began_cpu
            words = f"seed {seed}: {story.seconds:.0f} s in {used:.1f} s, {len(story.wrong)} wrong"
            print(words, flush=True)
        if len(bad) >= options.most:
            break
    spent = time.monotonic() - began
    print(f"{seed - options.seed + 1} runs in {spent:.0f} s, failing seeds: {bad or 'none'}")
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--most", type=int, default=3, help="failing seeds after which it ends")
    parser.add_argument("--trace", type=int, default=100_000, help="lines of a story")
    parser.add_argument("--real", action="store_true", help="a real process, in real time")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def _print(story: Story, most: int) -> None:
    seed = story.plan.seed
    print(f"\n==== seed {seed} ====")
    knobs = [f"{name}={value}" for name, value in story.plan.knobs.items()]
    told = story.lines[-most:] if most else []
    print("\n".join([" ".join(knobs), *told]))
    print(f"\nseed {seed} breaks a promise:")
    print("\n".join(f"  - {words}" for words in story.wrong))
    print(f"again: python tests/fuzz/run.py --seed {seed}", flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
