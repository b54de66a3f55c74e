"""The official dingtalk-stream client lives on the simulator, by itself and in run_sdk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from adapters.dingtalk.sdk_link import CARD_CALLBACK, MESSAGES, run_sdk
from adapters.playground.dingtalk import DingTalkSim, wire
from adapters.supervisor import Backoff
from bot.clock import SystemClock
from bot.contract import LinkStatus

BOT = """
import asyncio, sys
import dingtalk_stream as d

class Bot(d.ChatbotHandler):
    async def process(self, callback):
        message = d.ChatbotMessage.from_dict(callback.data)
        words = message.text.content.strip()
        await asyncio.to_thread(getattr(self, "do_" + words), message)
        return d.AckMessage.STATUS_OK, "OK"

    def do_text(self, message):
        self.reply_text("got it, @" + message.sender_staff_id, message)

    def do_markdown(self, message):
        self.reply_markdown("title", "**bold**", message)

    def do_card(self, message):
        cards = d.AICardReplier(self.dingtalk_client, message)
        name = sys.argv[3]
        card = cards.start(name, {"content": ""})
        cards.streaming(card, "content", "half", append=False, finished=False, failed=False)
        import time; time.sleep(0.6)
        cards.streaming(card, "content", "half and half", append=False, finished=True, failed=False)

    def do_cry(self, message):
        raise RuntimeError("cry")

client = d.DingTalkStreamClient(d.Credential(sys.argv[1], sys.argv[2]))
client.register_callback_handler(d.ChatbotMessage.TOPIC, Bot())
client.start_forever()
"""


@pytest.fixture
async def sim() -> AsyncIterator[DingTalkSim]:
    async with DingTalkSim(SystemClock()) as sim:
        yield sim


@contextlib.asynccontextmanager
async def official_bot(sim: DingTalkSim) -> AsyncIterator[None]:
    """The client untouched, in a process of its own, with its own endpoint variable."""
    environment = os.environ | {"DINGTALK_OPENAPI_ENDPOINT": sim.base_url, "NO_PROXY": "*"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BOT,
        sim.client_id,
        sim.client_secret,
        sim.plain_template_id,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await sim.wait_for(lambda: sim.links, 30)
        yield
    finally:
        process.kill()
        await process.wait()


async def test_the_official_client_receives_acknowledges_and_replies(sim: DingTalkSim) -> None:
    ann = sim.add_person("Ann")
    group = sim.add_group("Team", [ann])
    async with official_bot(sim):
        asked = await sim.say(group, ann, "text", mention_bot=True)
        [reply] = await sim.wait_for(lambda: sim.bot_bubbles(group))
        assert (reply.text, reply.pings) == (f"got it, @{ann.staff_id}", [ann.staff_id])
        await sim.wait_for(lambda: sim.acks)
        assert [(ack.key, ack.good) for ack in sim.acks] == [(asked, True)]

        await sim.say(sim.p2p(ann), ann, "markdown")
        [reply] = await sim.wait_for(lambda: sim.bot_bubbles(sim.p2p(ann)))
        assert (reply.text, reply.blocks[0].title) == ("**bold**", "title")

        await sim.say(group, ann, "card", mention_bot=True)
        await sim.wait_for(lambda: len(sim.bot_bubbles(group)) == 2 and not sim.open_cards(), 15)
        card = sim.bot_bubbles(group)[1]
        assert (card.kind, card.text, card.frames) == ("card", "half and half", 3)
        assert len(sim.calls_of(wire.TOKEN)) == 1
        await sim.wait_for(lambda: len(sim.acks) == 3)
    assert sim.violations == []


async def test_a_handler_that_raises_is_not_acknowledged_and_the_message_comes_again(
    sim: DingTalkSim,
) -> None:
    sim.policy.ack_deadline, sim.policy.redeliver_after = 0.2, (0.3,)
    ann = sim.add_person("Ann")
    async with official_bot(sim):
        asked = await sim.say(sim.p2p(ann), ann, "cry")
        await sim.wait_for(lambda: sim.lost)
    assert (sim.lost, sim.acks) == ([asked], [])


# ---------------------------------------------------------------- run_sdk


@dataclass(frozen=True)
class Settings:
    client_id: str
    client_secret: str
    base_url: str
    deaf_after: float = 90.0


class Receiver:
    """run_sdk with a list of what arrived; `fail` makes the next frames raise."""

    def __init__(self, sim: DingTalkSim, secret: str = "", deaf_after: float = 90.0) -> None:
        self.frames: list[tuple[str, dict[str, Any]]] = []
        self.fail = 0
        self.gate: asyncio.Event | None = None
        self.answer: dict[str, Any] | None = None
        self.status = LinkStatus("sdk")
        secret = secret or sim.client_secret
        settings = Settings(sim.client_id, secret, sim.base_url, deaf_after)
        self.gaps: list[tuple[float, float]] = []
        clock, backoff = SystemClock(), Backoff(first=0.05, cap=0.05, slow=0.05)
        self._run = run_sdk(settings, self.on_frame, self.status, clock, backoff, gap=self.gap)

    def gap(self, since: float, until: float) -> None:
        self.gaps.append((since, until))

    async def on_frame(self, topic: str, data: dict[str, Any]) -> dict[str, Any] | None:
        assert asyncio.current_task() is not None
        self.frames.append((topic, data))
        if self.gate is not None:
            await self.gate.wait()
        if self.fail:
            self.fail -= 1
            raise RuntimeError("the disk is full")
        return self.answer

    async def __aenter__(self) -> Receiver:
        self.task = asyncio.create_task(self._run)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_run_sdk_hands_over_messages_and_buttons(sim: DingTalkSim) -> None:
    ann = sim.add_person("Ann")
    async with Receiver(sim) as receiver:
        await sim.wait_for(lambda: sim.links, 30)
        asked = await sim.say(sim.p2p(ann), ann, "hello")
        await sim.wait_for(lambda: sim.acks)
        [(topic, data)] = receiver.frames
        assert (topic, data["msgId"], data["text"]) == (MESSAGES, asked, {"content": "hello"})
        assert receiver.status.connected
        assert (receiver.status.connects, receiver.status.cause) == (1, "")

        receiver.answer = {"cardData": {"cardParamMap": {"note": "stopped"}}}
        await sim.deliver_raw(CARD_CALLBACK, {"outTrackId": "card"}, key="card")
        await sim.wait_for(lambda: len(sim.acks) == 2)
        assert receiver.frames[1] == (CARD_CALLBACK, {"outTrackId": "card"})
        assert sim.acks[1].data == {"response": receiver.answer}
    assert sim.violations == []


async def test_run_sdk_acknowledges_only_after_the_frame_is_safe(sim: DingTalkSim) -> None:
    ann = sim.add_person("Ann")
    async with Receiver(sim) as receiver:
        await sim.wait_for(lambda: sim.links, 30)
        receiver.gate = asyncio.Event()
        await sim.say(sim.p2p(ann), ann, "hello")
        await sim.wait_for(lambda: receiver.frames)
        assert sim.acks == []
        receiver.gate.set()
        await sim.wait_for(lambda: sim.acks)


async def test_run_sdk_does_not_acknowledge_what_could_not_be_kept(sim: DingTalkSim) -> None:
    sim.policy.ack_deadline, sim.policy.redeliver_after = 0.3, (0.5,)
    ann = sim.add_person("Ann")
    async with Receiver(sim) as receiver:
        await sim.wait_for(lambda: sim.links, 30)
        receiver.fail = 1
        asked = await sim.say(sim.p2p(ann), ann, "hello")
        await sim.wait_for(lambda: sim.acks)
        assert [data["msgId"] for _, data in receiver.frames] == [asked, asked]
        assert [ack.key for ack in sim.acks] == [asked]


async def test_run_sdk_opens_the_successor_before_it_leaves(sim: DingTalkSim) -> None:
    sim.policy.leave_after = 0.5
    ann = sim.add_person("Ann")
    async with Receiver(sim) as receiver:
        await sim.wait_for(lambda: sim.links, 30)
        await sim.leave_links()
        await sim.wait_for(lambda: len(sim.links) == 2)
        await sim.wait_for(lambda: receiver.status.connects == 2)
        await sim.wait_for(lambda: len(sim.links) == 1)
        await sim.say(sim.p2p(ann), ann, "hello")
        await sim.wait_for(lambda: sim.acks)
        assert receiver.status.hearing
        assert (receiver.status.reconnects, receiver.gaps) == (0, [])


@pytest.mark.parametrize("how", ["cut", "closed", "refused"])
async def test_run_sdk_comes_back(sim: DingTalkSim, how: str) -> None:
    ann = sim.add_person("Ann")
    async with Receiver(sim) as receiver:
        await sim.wait_for(lambda: receiver.status.connected, 30)
        if how == "refused":
            sim.refuse_links()
        if how == "closed":
            await sim.close_links()
        else:
            sim.cut_links()
        if how == "refused":
            await sim.wait_for(lambda: "503" in receiver.status.detail)
            assert not receiver.status.hearing and "refuses" in receiver.status.cause
            sim.accept_links()
        await sim.wait_for(lambda: receiver.status.connects == 2)
        assert len(receiver.gaps) == 1
        await sim.say(sim.p2p(ann), ann, "hello")
        await sim.wait_for(lambda: sim.acks)


async def test_run_sdk_leaves_a_link_whose_pings_stop(sim: DingTalkSim) -> None:
    """The client itself would stay deaf: its own pongs go on."""
    sim.policy.ping_every = 0.1
    async with Receiver(sim, deaf_after=1.0) as receiver:
        await sim.wait_for(lambda: receiver.status.proven > receiver.status.since + 0.5, 30)
        sim.mute_links()
        await sim.wait_for(lambda: receiver.status.connects == 2)
        assert len(receiver.gaps) == 1


async def test_run_sdk_says_why_it_is_refused_and_ends_when_cancelled(sim: DingTalkSim) -> None:
    async with Receiver(sim, secret="wrong") as receiver:
        await sim.wait_for(lambda: "401" in receiver.status.detail, 30)
        assert not receiver.status.connected and receiver.status.auth_failed
        assert "credentials refused" in receiver.status.cause
        receiver.task.cancel()
        done, _ = await asyncio.wait({receiver.task}, timeout=5)
        assert done
        assert receiver.task.cancelled()


async def test_run_sdk_logs_neither_secrets_nor_messages(
    sim: DingTalkSim, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ann = sim.add_person("Ann")
    async with Receiver(sim) as receiver:
        await sim.wait_for(lambda: sim.links, 30)
        receiver.fail = 1
        await sim.deliver_raw("/unknown", {"text": "canary-words"})
        await sim.say(sim.p2p(ann), ann, "canary-words")
        await sim.wait_for(lambda: receiver.fail == 0)
    written = caplog.text
    assert "ticket" not in written
    assert "canary-words" not in written and sim.client_secret not in written
    assert "error processing message" in written


async def test_run_sdk_leaves_no_link_behind(sim: DingTalkSim) -> None:
    async with Receiver(sim):
        await sim.wait_for(lambda: sim.links, 30)
    await sim.wait_for(lambda: not sim.links)
