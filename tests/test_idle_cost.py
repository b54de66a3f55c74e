"""What an app costs while nobody writes: at most two requests an hour besides the first ones,
none of which counts against the month, and none at all by setting (needs.md 25)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from adapters.dingtalk.chat import DingTalkPlatform, DingTalkSettings
from adapters.feishu.chat import FeishuPlatform, FeishuSettings
from adapters.hearing import IDLE, PING_EVERY
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.dingtalk import wire as dingtalk
from adapters.playground.feishu import FeishuSim
from adapters.playground.feishu import wire as feishu
from bot.contract import ActionReply, CallKind, CardAction, InboundMessage

HOURS = 2
HOUR = 3_600.0

OPENING = {
    "feishu": {feishu.DISCOVER, feishu.CONNECT},
    "dingtalk": {dingtalk.OPEN, dingtalk.CONNECT},
}


class Book:
    """A bot.contract.Meter."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, api: str, kind: CallKind = "api") -> None:
        self.counts[api] += 1

    def used_up(self, kind: CallKind = "api") -> None:
        raise AssertionError("nothing is used up")


class Deaf:
    """An intake that hears nothing."""

    async def message(self, message: InboundMessage) -> None:
        raise AssertionError("nobody writes")

    async def action(self, action: CardAction) -> ActionReply:
        raise AssertionError("nobody presses")

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        raise AssertionError("nobody recalls")

    def gap(self, bot: str, since: float, until: float) -> None:
        raise AssertionError("nothing is missed")


def platform_of(
    name: str, sim: Any, http: Http, clock: VirtualClock, book: Book, rotate: float
) -> Any:
    url = sim.base_url
    if name == "feishu":
        one = FeishuSettings("bot", sim.app_id, sim.app_secret, base_url=url, rotate=rotate)
        return FeishuPlatform(one, http, clock, book)
    two = DingTalkSettings("bot", sim.client_id, sim.client_secret, base_url=url, rotate=rotate)
    return DingTalkPlatform(two, http, clock, book)


@pytest.mark.parametrize("rotate", [IDLE, 0.0])
@pytest.mark.parametrize("name", ["feishu", "dingtalk"])
async def test_an_hour_of_silence(name: str, rotate: float, virtual: VirtualClock) -> None:
    sim: Any = FeishuSim(virtual) if name == "feishu" else DingTalkSim(virtual)
    http, book = Http(clock=virtual), Book()
    async with sim:
        platform = platform_of(name, sim, http, virtual, book, rotate)
        run = asyncio.create_task(platform.run(Deaf()))
        await until_connected(platform, virtual)
        first = {"bot_info": 1} if name == "feishu" else {}
        assert book.counts == first
        sim.calls.clear()
        for _ in range(round(HOURS * HOUR / PING_EVERY)):
            await virtual.advance(PING_EVERY)
            await answered(platform, virtual)
        made = Counter(call.route for call in sim.calls)
        assert book.counts == first and set(made) <= OPENING[name]
        assert all(count <= 2 * HOURS for count in made.values())
        assert bool(made) == bool(rotate)
        assert platform.status.hearing
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await platform.close()
    await http.close()


async def until_connected(platform: Any, clock: VirtualClock) -> None:
    async with asyncio.timeout(10):
        while not platform.status.hearing:
            await clock.advance(0.5)


async def answered(platform: Any, clock: VirtualClock) -> None:
    """The pong of the last ping is here, however slow the machine is."""
    async with asyncio.timeout(10):
        while platform.status.last_frame < clock.monotonic() - PING_EVERY - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
