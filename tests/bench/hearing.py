"""How fast it hears, and how fast it is back: acknowledgements after the durable claim, the
network's return, a killed process."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.bench.house import Seat, seat, until
from tests.bench.source import Script

RATE = 1000
AWAY = 2.0
LATEST = 15.0
"""Seconds after the last event in which an acknowledgement still counts."""


@dataclass
class Heard:
    """Seconds. `sent`: events a second that were really sent."""

    idle: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    lost: int = 0
    sent: float = 0.0
    back: float | None = None
    taken_over: float | None = None


async def idle(one: Seat, count: int, room: tuple[Any, Any]) -> list[float]:
    chat, person = room
    before = len(one.acks())
    for _ in range(count):
        await one.sim.say(chat, person, "/whoami")
        await asyncio.sleep(0.05)
    await until(lambda: len(one.acks()) >= before + count)
    return one.acks()[before : before + count]


async def busy(one: Seat, seconds: float, heard: Heard) -> None:
    """Group messages that nobody answers: each is claimed on disk all the same. DingTalk
    delivers no such message, so there it is one that lacks its mention."""
    people = [one.newcomer()[1] for _ in range(2)]
    group = one.sim.add_group("g", people)
    before, total = len(one.acks()), int(RATE * seconds)
    feishu = one.platform == "feishu"
    more: dict[str, Any] = {} if feishu else {"overrides": {"isInAtList": False, "atUsers": []}}
    start = time.perf_counter()
    for number in range(total):
        await one.sim.say(group, people[number % 2], f"n{number}", mention_bot=not feishu, **more)
        ahead = start + number / RATE - time.perf_counter()
        await asyncio.sleep(max(0.0, ahead))
    heard.sent = total / (time.perf_counter() - start)
    with suppress(TimeoutError):
        await until(lambda: len(one.acks()) >= before + total, LATEST, every=0.02)
    heard.busy = one.acks()[before:]
    heard.lost = total - len(heard.busy)


async def back(one: Seat, room: tuple[Any, Any]) -> float:
    """From the network's return to the first words of the answer to what is said as soon as
    the link is up. What was said before that comes by the platform's own schedule."""
    chat, person = room
    one.source.script = Script(2)
    await one.sim.go_away()
    await asyncio.sleep(AWAY)
    seen = len(one.sim.bot_bubbles(chat))
    await one.sim.come_back()
    start = time.perf_counter()
    await until(lambda: one.sim.links)
    await one.sim.say(chat, person, "问：回来了吗")
    await until(lambda: len(one.sim.bot_bubbles(chat)) > seen)
    return time.perf_counter() - start


async def taken_over(one: Seat) -> float:
    """From the start after a kill to the text that goes on in the same card."""
    chat, person = one.newcomer()
    one.source.script = Script(400, first=0.1, pace=0.05)
    await one.sim.say(chat, person, "问：长文")

    def text() -> str:
        found = [bubble for bubble in one.sim.bot_bubbles(chat) if "鹊桥" in bubble.text]
        return found[-1].text if found else ""

    await until(lambda: len(text()) > 20)
    await one.program.kill()
    before = text()
    start = time.perf_counter()
    await one.program.start()
    await until(lambda: len(text()) > len(before))
    return time.perf_counter() - start


async def measure(
    platform: str, names: tuple[str, ...], count: int, seconds: float
) -> dict[str, Heard]:
    """By name of the program. They take turns; the floor only hears."""
    found = {name: Heard() for name in names}
    rooms: dict[str, tuple[Any, Any]] = {}
    async with AsyncExitStack() as stack:
        seats = [await stack.enter_async_context(seat(platform, name)) for name in found]
        for one in seats:
            if platform == "feishu":
                one.sim.policy.hears_all = True
            rooms[one.name] = one.newcomer()
            found[one.name].idle = await idle(one, count, rooms[one.name])
        for one in seats:
            await busy(one, seconds, found[one.name])
        for one in seats:
            if one.name == "floor":
                continue
            found[one.name].back = await back(one, rooms[one.name])
            found[one.name].taken_over = await taken_over(one)
    return found
