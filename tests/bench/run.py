"""`make bench`: everything that is measured, in one run, as one table and one file.

The bot is the real process; simulators and clock are in this one, so its CPU and memory
are its own. Figures beside a floor are ratios to the least that a program would have to do
(floor.py), taken in turns in the same run. Nothing fails by its time: a figure over its
target is marked, and the next run shows the change.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import uvloop

from tests.bench import footprint, hearing, overhead, scale, stored, table
from tests.bench.hearing import Heard
from tests.bench.house import PLATFORMS
from tests.bench.overhead import Times
from tests.bench.storage import together
from tests.bench.table import Figure, at

FILE = ROOT / "data" / "bench" / "last.json"
CONVERSATIONS = "BENCH_CONVERSATIONS"
"""The environment variable for another number of stored conversations."""

MS = 1000.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    platforms: tuple[str, ...]
    names: tuple[str, ...]
    rounds: int
    stops: int
    events: float
    chats: int
    replies: int
    lengths: tuple[int, ...]
    lengths_rounds: int
    conversations: int
    waits: float
    helps: int


NAMES = ("native", "sdk", "floor")
WHOLE = Size(PLATFORMS, NAMES, 40, 10, 3.0, 500, 20, (400, 800, 1600), 3, 100_000, 20.0, 9)
QUICK = Size(
    ("feishu",), ("native", "floor"), 10, 4, 1.0, 100, 10, (200, 400, 800), 1, 2_000, 3.0, 3
)


def in_ms(values: list[float], share: float) -> float | None:
    found = at(values, share)
    return None if found is None else found * MS


# ---------------------------------------------------------------- sections


async def own_overhead(size: Size) -> list[Figure]:
    figures = []
    for name in size.platforms:
        times = await overhead.measure(name, size.names, size.rounds, size.stops)
        figures += overhead_of(name, times)
    return figures


def overhead_of(name: str, times: dict[str, Times]) -> list[Figure]:
    figures = []
    for words, part in (
        ("event to model request", "request"),
        ("first chunk to first frame", "first"),
        ("last chunk to final", "final"),
    ):
        for share, most in ((0.5, 2.0), (0.99, 3.0)):
            values = [in_ms(getattr(times.get(one, Times()), part), share) for one in NAMES]
            figures.append(Figure(f"{name}: {words}, p{share * 100:.0f}", "ms", *values, most))
    stops = [in_ms(times.get(one, Times()).stop, 1.0) for one in NAMES[:2]]
    figures.append(Figure(f"{name}: /stop to model socket closed, max", "ms", *stops, most=50.0))
    return figures


async def heard(size: Size) -> list[Figure]:
    figures = []
    for name in size.platforms:
        found = await hearing.measure(name, size.names, size.rounds, size.events)
        native, sdk, floor = (found.get(one, Heard()) for one in NAMES)
        for words, part in (("idle", "idle"), (f"{hearing.RATE:,} events/s", "busy")):
            for share in (0.5, 0.99):
                values = [in_ms(getattr(one, part), share) for one in (native, sdk, floor)]
                figures.append(Figure(f"{name}: ack, {words}, p{share * 100:.0f}", "ms", *values))
        lost = [None if not one.busy else float(one.lost) for one in (native, sdk)]
        figures.append(Figure(f"{name}: events without an ack", "", *lost))
        figures.append(Figure(f"{name}: network back to first answer", "s", native.back, sdk.back))
        over = (native.taken_over, sdk.taken_over)
        figures.append(Figure(f"{name}: kill -9 to the card going on", "s", *over))
    return figures


async def many(size: Size) -> list[Figure]:
    crowd = await scale.measure(size.chats)
    name = f"{crowd.chats} chats at once"
    figures = [
        Figure(f"{name}: incomplete", "", float(crowd.chats - crowd.complete), most=0),
        Figure(f"{name}: violations of limits", "", float(len(crowd.violations)), most=0),
        Figure(f"{name}: until all at rest", "s", crowd.seconds, None, crowd.bound, base="bound"),
        Figure(f"{name}: CPU while streaming", "cores", crowd.cores, most=1.0),
        Figure(f"{name}: resident at most", "MB", crowd.peak, most=200.0),
        Figure(f"{name}: until all models are asked", "s", crowd.asked),
        Figure(f"{name}: our source behind by", "s", crowd.behind),
    ]
    costs = await scale.by_length(size.lengths, size.replies, size.lengths_rounds)
    return figures + linear(costs)


def linear(costs: dict[int, float]) -> list[Figure]:
    """What a chunk costs in a long reply, beside one in a reply half as long. The shortest
    is seconds long, as are all: a checkpoint every other second is part of the cost."""
    few, some, most = sorted(costs)
    late = (costs[most] - costs[some]) / (most - some) * 1e6
    early = (costs[some] - costs[few]) / (some - few) * 1e6
    return [
        *(Figure(f"CPU of a reply of {n} chunks", "ms", costs[n] * MS) for n in sorted(costs)),
        Figure(
            f"a further chunk beyond {some}", "us", late, None, early, most=1.2, base=f"to {some}"
        ),
    ]


async def remembered(size: Size) -> list[Figure]:
    rounds = max(5, size.rounds // 2)
    times = await stored.histories(rounds)
    figures = [
        _beside(f"question after {stored.TURNS} others", times, "none", "long"),
        _cost_beside(f"reply after {stored.TURNS} others", times),
    ]
    found = await stored.measure(size.conversations, rounds)
    name = f"{size.conversations:,} conversations stored"
    return [
        *figures,
        _beside(name, found, "empty", "full"),
        Figure(f"{name}: filled in", "s", found["full filled"]),
        Figure(
            f"{name}: resident", "MB", found["full rss"], None, found["empty rss"], base="empty"
        ),
    ]


def _beside(name: str, times: dict[str, Times], base: str, other: str) -> Figure:
    """Medians; within a fifth is the same."""
    value, floor = (median(times[one].request) * MS for one in (other, base))
    words = f"{name}: event to model request"
    return Figure(words, "ms", value, None, floor, most=1.2, base=base)


def _cost_beside(name: str, times: dict[str, Times]) -> Figure:
    value, floor = (median(times[one].cpu) * MS for one in ("long", "none"))
    return Figure(f"{name}: CPU", "ms", value, None, floor, most=1.2, base="none")


async def footprints(size: Size) -> list[Figure]:
    native = await footprint.start("native", size.waits)
    sdk = await footprint.start("sdk", size.waits) if "sdk" in size.names else {}
    shown, bare = await asyncio.to_thread(footprint.help_times, size.helps)
    return [
        Figure("start to both links", "s", native["up"], sdk.get("up"), most=1.2),
        Figure("resident, idle", "MB", native["rss"], sdk.get("rss"), most=90.0),
        Figure("CPU, idle", "cores", native["cpu"], sdk.get("cpu"), most=0.01),
        Figure("packages installed", "", float(footprint.packages()), most=36.0),
        Figure("queqiao --help", "s", shown, most=0.3),
        Figure("queqiao --help (python)", "s", shown, None, bare, base="python -c pass"),
    ]


async def commits(size: Size) -> list[Figure]:
    alone, at_once = await together(size.rounds * 10)
    words = "claims a second, all at once"
    return [Figure(words, "1/s", at_once, None, alone, base="one by one")]


SECTIONS: dict[str, Callable[[Size], Awaitable[list[Figure]]]] = {
    "footprint": footprints,
    "overhead": own_overhead,
    "hearing": heard,
    "scale": many,
    "stored": remembered,
    "commits": commits,
}

# ---------------------------------------------------------------- the run


async def run(size: Size, names: list[str]) -> list[Figure]:
    figures: list[Figure] = []
    for name in names:
        began = time.perf_counter()
        print(f"{name} …", end=" ", flush=True, file=sys.stderr)
        figures += await SECTIONS[name](size)
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return figures


def about(options: argparse.Namespace) -> dict[str, object]:
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        "quick": options.quick,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, Feishu alone and no SDK, two minutes"
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this section alone")
    parser.add_argument("--against", type=Path, help="an earlier file; default: the last run's")
    parser.add_argument("--json", type=Path, default=FILE, help="where the figures go")
    options = parser.parse_args()
    size = _sized(QUICK if options.quick else WHOLE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(size, options.only or list(SECTIONS)))
    print(table.render(figures, table.read(options.against or options.json)))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    if options.json.exists():
        shutil.copy(options.json, options.json.with_suffix(".before.json"))
    options.json.write_text(table.as_json(figures, about(options)))
    print(f"\n{options.json}", file=sys.stderr)


def _sized(size: Size) -> Size:
    asked = os.environ.get(CONVERSATIONS, "")
    return replace(size, conversations=int(asked)) if asked else size


if __name__ == "__main__":
    main()
