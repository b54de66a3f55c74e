"""Many chats at once in one process, and what a reply costs by its length."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median

from tests.bench.house import Seat, seat, until
from tests.bench.source import Script

CARD_FINALS = 50
"""Feishu's calls a second of one kind (reference/feishu.md 5.8): a final takes one of each
of two kinds, so no more than this many replies can end in a second."""

DRAIN = 1.0


@dataclass
class Crowd:
    """What came of many at once. `seconds`: from the first question to the last card at
    rest; `bound`: the least that the platform's limits allow. `cores`: CPU seconds a second
    while the models spoke; `cpu`: CPU seconds of a reply."""

    chats: int
    complete: int
    seconds: float
    bound: float
    cores: float
    cpu: float
    peak: float
    violations: list[str]
    asked: float
    behind: float


async def crowd(one: Seat, count: int, script: Script) -> Crowd:
    """`count` people ask at once, each in a private chat of their own."""
    rooms = [one.newcomer() for _ in range(count)]
    earlier, violations = len(one.source.streams), len(one.sim.violations)
    one.source.script = script
    start, cpu = time.perf_counter(), one.program.cpu()
    began = time.time()
    for chat, person in rooms:
        await one.sim.say(chat, person, "问：说说鹊桥")
    last = await one.source.stream(earlier + count - 1)
    asked = last.asked_at - began
    streams = one.source.streams[earlier:]
    for stream in streams:
        await stream.over.wait()
    spoken = time.perf_counter() - start
    cores = (one.program.cpu() - cpu) / spoken
    behind = max(s.last_at - s.asked_at for s in streams) - script.seconds
    await until(lambda: _all_at_rest(one, rooms, script.text), 120.0, every=0.25)
    seconds = time.perf_counter() - start
    await asyncio.sleep(DRAIN)
    return Crowd(
        chats=count,
        complete=sum(_whole(one, chat, script.text) for chat, _ in rooms),
        seconds=seconds,
        bound=script.seconds + count / CARD_FINALS,
        cores=cores,
        cpu=(one.program.cpu() - cpu) / count,
        peak=one.program.peak(),
        violations=one.sim.violations[violations:],
        asked=asked,
        behind=behind,
    )


def _whole(one: Seat, chat: object, text: str) -> bool:
    bubbles = one.sim.bot_bubbles(chat)
    return bool(bubbles) and bubbles[-1].text == text and not bubbles[-1].streaming


def _all_at_rest(one: Seat, rooms: list[tuple[object, object]], text: str) -> bool:
    return all(_whole(one, chat, text) for chat, _ in rooms)


async def measure(count: int, runner: tuple[str, ...] = ()) -> Crowd:
    """400 chunks of 2 characters each at 50 a second, for everybody at once."""
    async with seat("feishu", "native", runner=runner) as one:
        return await crowd(one, count, Script(400, first=0.3, pace=0.02))


async def by_length(lengths: tuple[int, ...], replies: int, rounds: int) -> dict[int, float]:
    """CPU seconds of one reply, by its number of chunks, at the same rate of chunks: the
    medians of `rounds`, in which the lengths take turns."""
    found: dict[int, list[float]] = {chunks: [] for chunks in lengths}
    async with seat("feishu", "native") as one:
        await crowd(one, replies, Script(10, pace=0.01))
        for _ in range(rounds):
            for chunks, costs in found.items():
                costs.append((await crowd(one, replies, Script(chunks, pace=0.005))).cpu)
    return {chunks: median(costs) for chunks, costs in found.items()}
