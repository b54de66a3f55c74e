"""The time of a platform, told by its answers, and the ages of messages by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from adapters.dingtalk.chat import DingTalkPlatform
from adapters.dingtalk.settings import DingTalkSettings
from adapters.http import HOSTS, Http
from adapters.playground.clock import START, VirtualClock
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from bot.contract import ActionReply, CardAction, InboundMessage


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(settle=0.002)


@pytest.fixture
async def sim(clock: VirtualClock) -> AsyncIterator[FeishuSim]:
    async with FeishuSim(clock) as sim:
        yield sim


async def test_the_machines_own_clock_does_not_matter(sim: FeishuSim) -> None:
    """The wall clock of this machine jumps; the platform's told time goes on."""
    mine = VirtualClock(START - 5_000_000)
    http = Http(clock=mine)
    await http.call("GET", sim.base_url + "/nothing")
    mine.jump(-86_400)
    assert http.now(sim.base_url) == START
    await mine.advance(30)
    assert http.now(sim.base_url + "/open-apis/x?y=1") == START + 30
    assert http.age(sim.base_url, START - 12) == 42
    await http.close()


async def test_a_servers_time_is_unknown_until_it_answers(sim: FeishuSim) -> None:
    http = Http()
    assert http.now(sim.base_url) is None
    assert http.age(sim.base_url, START) == 0.0
    await http.call("GET", sim.base_url + "/nothing")
    now = http.now(sim.base_url)
    assert now is not None and START <= now < START + 60
    assert http.now("http://127.0.0.1:9") is None
    assert http.age(sim.base_url, START + 3600) == 0.0
    assert http.age(sim.base_url, 0.0) == 0.0
    await http.close()


@contextlib.asynccontextmanager
async def server(dates: list[str]) -> AsyncIterator[int]:
    """Answers with one Date after the other, the last one for ever; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        date = dates.pop(0) if len(dates) > 1 else dates[0]
        answer = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nConnection: close\r\n"
        writer.write(f"{answer}Content-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "0.0.0.0", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


NOON = "Tue, 24 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize("date", ["", "soon", "Mon, 99 Foo 2026 00:00:00 GMT", "0"])
async def test_a_broken_date_changes_nothing(clock: VirtualClock, date: str) -> None:
    http = Http(clock=clock)
    async with server([date, NOON, date]) as port:
        url, seen = f"http://127.0.0.1:{port}/", []
        for _ in range(3):
            assert (await http.call("GET", url)).status == 200
            seen.append(http.now(url))
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
    assert seen == [None, noon, noon]
    await http.close()


async def test_the_servers_remembered_are_bounded(clock: VirtualClock) -> None:
    http = Http(clock=clock)
    async with server([NOON]) as port:
        urls = [f"http://127.0.{n // 250}.{n % 250 + 1}:{port}/" for n in range(HOSTS + 1)]
        for url in [*urls, urls[-1]]:
            await http.call("GET", url)
    assert http.now(urls[0]) is None
    assert all(http.now(url) is not None for url in urls[1:])
    await http.close()


# ---------------------------------------------------------------- DingTalk


class Inbox:
    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []

    async def message(self, message: InboundMessage) -> None:
        self.messages.append(message)

    async def action(self, action: CardAction) -> ActionReply:
        raise AssertionError("nobody presses here")

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        raise AssertionError("DingTalk tells of no recall")

    def gap(self, bot: str, since: float, until: float) -> None:
        """Not asked here."""


async def test_a_dingtalk_message_has_its_age(clock: VirtualClock) -> None:
    async with DingTalkSim(clock) as sim:
        http, inbox = Http(clock=clock), Inbox()
        bot = DingTalkSettings("d", sim.client_id, sim.client_secret, base_url=sim.base_url)
        platform = DingTalkPlatform(bot, http, clock)
        task = asyncio.create_task(platform.run(inbox))
        await sim.wait_for(lambda: platform.status.connected)
        ann = sim.add_person("Ann")
        for age in (0, 12, -5):
            created = {"createAt": int((START - age) * 1000)}
            await sim.say(sim.p2p(ann), ann, str(age), overrides=created)
        await sim.wait_for(lambda: len(inbox.messages) == 3)
        assert {m.text: m.age for m in inbox.messages} == {"0": 0.0, "12": 12.0, "-5": 0.0}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await platform.close()
        await http.close()
