"""Own overhead: from what arrives to what leaves, beside the floor in the same run."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.bench.house import SHOWING, Seat, seat, until
from tests.bench.source import Script

SHORT = {"feishu": Script(2, first=0.15, pace=0.12), "dingtalk": Script(2, first=0.15, pace=0.7)}
"""Two chunks: the first when the card is up, the last when the platform's own limits let a
card be written to again (reference/dingtalk.md 6.4)."""
LONG = Script(2000, first=0.05, pace=0.02)


@dataclass
class Times:
    """Seconds, one a round. `cpu`: of the whole round, where that is measured."""

    request: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    stop: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def one_round(one: Seat, times: Times, who: tuple[Any, Any] | None = None) -> None:
    """One question, by somebody new or by `who` (a chat and a person)."""
    chat, person = who or one.newcomer()
    number, before = len(one.source.streams), len(one.sim.calls)
    one.source.script = SHORT[one.platform]
    asked_at = time.time()
    await one.sim.say(chat, person, "问：鹊桥是什么？")
    stream = await one.source.stream(number)
    await stream.over.wait()

    def shown(since: float) -> float:
        calls = one.sim.calls[before:]
        return next((c.at for c in calls if c.at >= since and c.route in SHOWING), 0.0)

    await until(lambda: shown(stream.last_at))
    times.request.append(stream.asked_at - asked_at)
    times.first.append(shown(stream.first_at) - stream.first_at)
    times.final.append(shown(stream.last_at) - stream.last_at)
    await asyncio.sleep(0.05)


async def one_stop(one: Seat, times: Times) -> None:
    chat, person = one.newcomer()
    number = len(one.source.streams)
    one.source.script = LONG
    await one.sim.say(chat, person, "问：说得长一些")
    stream = await one.source.stream(number)
    await until(lambda: stream.said > 20)
    stopped_at = time.time()
    await one.sim.say(chat, person, "/stop")
    await stream.over.wait()
    times.stop.append(stream.cut_at - stopped_at)
    await asyncio.sleep(0.1)


async def measure(
    platform: str, names: tuple[str, ...], rounds: int, stops: int
) -> dict[str, Times]:
    """By name of the program; the rounds of all of them alternate."""
    times = {name: Times() for name in names}
    async with AsyncExitStack() as stack:
        seats = [await stack.enter_async_context(seat(platform, name)) for name in times]
        for one in seats:
            await one_round(one, Times())
        for _ in range(rounds):
            for one in seats:
                await one_round(one, times[one.name])
        for _ in range(stops):
            for one in seats:
                if one.name != "floor":
                    await one_stop(one, times[one.name])
    return times
