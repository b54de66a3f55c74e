"""The official lark-oapi client lives on the simulator, by itself and in run_sdk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.feishu import sdk_link
from adapters.feishu.sdk_link import run_sdk
from adapters.hearing import IDLE
from adapters.playground.feishu import FeishuSim, wire
from adapters.playground.feishu.codec import Frame, decode, encode
from adapters.sdk_thread import SdkThread
from adapters.supervisor import Backoff
from bot.clock import SystemClock
from bot.contract import LinkStatus
from bot.errors import StoreError

BOT = """
import json, sys, threading, traceback
import lark_oapi as lark
from lark_oapi.api.im.v1 import *
from lark_oapi.api.cardkit.v1 import *
from lark_oapi.event.callback.model.p2_card_action_trigger import P2CardActionTriggerResponse

app_id, secret, domain = sys.argv[1:]
api = lark.Client.builder().app_id(app_id).app_secret(secret).domain(domain).build()

def good(answer):
    assert answer.success(), (answer.code, answer.msg, answer.get_log_id())
    return getattr(answer, "data", None)

def reply(message_id, kind, content, uuid):
    body = ReplyMessageRequestBody.builder().msg_type(kind).content(json.dumps(content))
    request = ReplyMessageRequest.builder().message_id(message_id)
    request = request.request_body(body.uuid(uuid).reply_in_thread(False).build()).build()
    return good(api.im.v1.message.reply(request)).message_id

def text(message):
    reply(message.message_id, "text", {"text": "got it"}, "u1")
    assert reply(message.message_id, "text", {"text": "again"}, "u1")
    body = CreateMessageRequestBody.builder().receive_id(message.chat_id).msg_type("post")
    post = {"zh_cn": {"title": "T", "content": [[{"tag": "md", "text": "**bold**"}]]}}
    body = body.content(json.dumps(post)).build()
    request = CreateMessageRequest.builder().receive_id_type("chat_id").request_body(body).build()
    sent = good(api.im.v1.message.create(request)).message_id
    got = GetMessageRequest.builder().message_id(sent).build()
    assert good(api.im.v1.message.get(got)).items[0].msg_type == "post"
    emoji = Emoji.builder().emoji_type("DONE").build()
    body = CreateMessageReactionRequestBody.builder().reaction_type(emoji).build()
    request = CreateMessageReactionRequest.builder().message_id(message.message_id)
    mark = good(api.im.v1.message_reaction.create(request.request_body(body).build())).reaction_id
    request = DeleteMessageReactionRequest.builder().message_id(message.message_id)
    good(api.im.v1.message_reaction.delete(request.reaction_id(mark).build()))
    good(api.im.v1.message.delete(DeleteMessageRequest.builder().message_id(sent).build()))

def card(message):
    face = {
        "schema": "2.0",
        "config": {"streaming_mode": True, "summary": {"content": "thinking"}},
        "body": {"elements": [
            {"tag": "markdown", "element_id": "answer", "content": ""},
            {"tag": "button", "element_id": "stop",
             "text": {"tag": "plain_text", "content": "Stop"},
             "behaviors": [{"type": "callback", "value": {"action": "stop"}}]},
        ]},
    }
    body = CreateCardRequestBody.builder().type("card_json").data(json.dumps(face)).build()
    request = CreateCardRequest.builder().request_body(body).build()
    card_id = good(api.cardkit.v1.card.create(request)).card_id
    content = {"type": "card", "data": {"card_id": card_id}}
    sent = reply(message.message_id, "interactive", content, "u2")
    for sequence, words in enumerate(["half", "half and half"], 1):
        body = ContentCardElementRequestBody.builder().content(words).sequence(sequence)
        request = ContentCardElementRequest.builder().card_id(card_id).element_id("answer")
        good(api.cardkit.v1.card_element.content(request.request_body(body.build()).build()))
    settings = json.dumps({"config": {"streaming_mode": False}})
    body = SettingsCardRequestBody.builder().settings(settings).sequence(3).build()
    request = SettingsCardRequest.builder().card_id(card_id).request_body(body).build()
    good(api.cardkit.v1.card.settings(request))
    body = IdConvertCardRequestBody.builder().message_id(sent).build()
    request = IdConvertCardRequest.builder().request_body(body).build()
    assert good(api.cardkit.v1.card.id_convert(request)).card_id == card_id

def received(data):
    message = data.event.message
    words = json.loads(message.content)["text"].split()[-1]
    if words == "cry":
        raise RuntimeError("cry")
    def work():
        try:
            {"text": text, "card": card}[words](message)
        except BaseException as error:
            traceback.print_exc()
            reply(message.message_id, "text", {"text": "FAILED " + repr(error)}, None)
    threading.Thread(target=work).start()

def pressed(data):
    return P2CardActionTriggerResponse({
        "toast": {"type": "success", "content": data.event.action.value["action"]}
    })

handler = (lark.EventDispatcherHandler.builder("", "")
    .register_p2_im_message_receive_v1(received)
    .register_p2_card_action_trigger(pressed)
    .build())
lark.ws.Client(app_id, secret, event_handler=handler, domain=domain).start()
"""


@pytest.fixture
async def sim() -> AsyncIterator[FeishuSim]:
    async with FeishuSim(SystemClock()) as sim:
        sim.policy.reconnect_nonce, sim.policy.reconnect_interval = 0, 1
        yield sim


@contextlib.asynccontextmanager
async def official_bot(sim: FeishuSim) -> AsyncIterator[None]:
    """The client untouched, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BOT,
        sim.app_id,
        sim.app_secret,
        sim.base_url,
        env=os.environ | {"NO_PROXY": "*"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await sim.wait_for(lambda: sim.links, 60)
        yield
    finally:
        process.kill()
        await process.wait()


async def test_the_official_client_receives_replies_and_streams(sim: FeishuSim) -> None:
    ann = sim.add_person("Ann")
    group = sim.add_group("Team", [ann])
    async with official_bot(sim):
        asked = await sim.say(group, ann, "text", mention_bot=True, event_id="e1")
        await sim.wait_for(lambda: sim.calls_of(wire.RECALL) and sim.bot_bubbles(group), 20)
        await sim.wait_for(lambda: len(sim.bot_bubbles(group)) == 1)
        [reply] = sim.bot_bubbles(group)
        assert (reply.text, reply.reply_to) == ("got it", asked)
        assert sim.acks["e1"] is not None
        assert len(sim.calls_of(wire.REPLY)) == 2, "the uuid made one message of two calls"
        assert sim.world.bubbles[asked].reactions == []

        sim.policy.fragment_bytes = 100
        await sim.say(group, ann, "card", mention_bot=True, event_id="e2")
        await sim.wait_for(lambda: sim.calls_of(wire.ID_CONVERT), 20)
        [card] = sim.bot_bubbles(group)[1:]
        assert (card.kind, card.text, card.streaming) == ("card", "half and half", False)
        assert [paint.typed for paint in sim.paints] == [True, True]
        assert len(sim.pushes[-1].frames) > 3

        toast = await sim.press(card.id, "stop", ann)
        assert toast == {"type": "success", "content": "stop"}

        sim.cut_links()
        await sim.wait_for(lambda: sim.opened == 2 and sim.links, 20)
    assert sim.violations == []


async def test_a_handler_that_raises_acknowledges_500_and_the_event_comes_again(
    sim: FeishuSim,
) -> None:
    sim.policy.redeliver_after = (0.2, 0.2)
    ann = sim.add_person("Ann")
    async with official_bot(sim):
        await sim.say(sim.p2p(ann), ann, "cry", event_id="e1")
        await sim.wait_for(lambda: sim.lost, 20)
    assert (sim.lost, sim.acks) == (["e1"], {"e1": None})
    assert [push.status for push in sim.pushes] == ["500", "500", "500"]
    assert sim.violations == []


async def test_frames_agree_with_the_official_protobuf() -> None:
    """Async, because the import makes an event loop where there is none."""
    from lark_oapi.ws.pb.pbbp2_pb2 import Frame as Official

    chance = random.Random(7)
    for _ in range(300):
        frame = Frame(
            chance.getrandbits(chance.choice([1, 32, 64])),
            chance.getrandbits(64),
            chance.randrange(-(2**31), 2**31),
            chance.randrange(2),
            [(f"键{n}", "v" * chance.randrange(300)) for n in range(chance.randrange(4))],
            chance.randbytes(chance.randrange(400)),
            chance.choice(["", "gzip"]),
            chance.choice(["", "json"]),
            chance.choice(["", "trace"]),
        )
        theirs = Official()
        theirs.ParseFromString(encode(frame))
        assert (theirs.SeqID, theirs.LogID) == (frame.seq_id, frame.log_id)
        assert (theirs.service, theirs.method) == (frame.service, frame.method)
        assert [(h.key, h.value) for h in theirs.headers] == frame.headers
        assert (theirs.payload, theirs.LogIDNew) == (frame.payload, frame.log_id_new)
        assert decode(theirs.SerializeToString()) == frame


# ---------------------------------------------------------------- run_sdk


@dataclass
class Settings:
    app_id: str
    app_secret: str
    base_url: str


@dataclass
class Hearing:
    """run_sdk at work: what it handed over, and how to answer."""

    status: LinkStatus
    task: asyncio.Task[None]
    got: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    answer: Any = None
    error: Exception | None = None

    def texts(self) -> list[str]:
        return [
            json.loads(payload["event"]["message"]["content"])["text"]
            for payload in self.got
            if "message" in payload["event"]
        ]


@contextlib.asynccontextmanager
async def hearing(
    sim: FeishuSim, *, secret: str = "", up: bool = True, idle: float = IDLE
) -> AsyncIterator[Hearing]:
    async def on_payload(payload: dict[str, Any]) -> dict[str, Any] | None:
        heard.got.append(payload)
        if heard.error is not None:
            raise heard.error
        return heard.answer

    status = LinkStatus("feishu")
    settings = Settings(sim.app_id, secret or sim.app_secret, sim.base_url + "/")
    backoff = Backoff(first=0.05, cap=0.05, slow=0.05)

    def gap(since: float, until: float) -> None:
        heard.gaps.append((since, until))

    work = run_sdk(settings, on_payload, status, SystemClock(), backoff, gap=gap, idle=idle)
    heard = Hearing(status, asyncio.create_task(work))
    try:
        if up:
            await sim.wait_for(lambda: status.connected, 60)
        yield heard
    finally:
        heard.task.cancel()
        await asyncio.gather(heard.task, return_exceptions=True)
        await sim.wait_for(lambda: not sim.links)


async def test_run_sdk_hands_over_messages_recalls_and_presses(sim: FeishuSim) -> None:
    ann = sim.add_person("Ann")
    chat = sim.p2p(ann)
    async with hearing(sim) as heard:
        asked = await sim.say(chat, ann, "hello", event_id="e1")
        await sim.wait_for(lambda: sim.acks["e1"])
        assert heard.texts() == ["hello"]
        assert heard.got[0]["event"]["sender"]["sender_id"]["open_id"] == ann.id
        assert heard.status.last_event > 0

        await sim.recall(asked)
        await sim.wait_for(lambda: len(heard.got) == 2)
        assert heard.got[1]["event"]["message_id"] == asked

        heard.answer = {"toast": {"type": "info", "content": "好的"}}
        card = {
            "schema": "2.0",
            "body": {
                "elements": [
                    {
                        "tag": "button",
                        "element_id": "b",
                        "text": {"tag": "plain_text", "content": "B"},
                        "behaviors": [{"type": "callback", "value": "a string"}],
                    }
                ]
            },
        }
        message = await send_as_bot(sim, chat.id, card)
        assert await sim.press(message, "b", ann) == {"type": "info", "content": "好的"}
        assert heard.got[2]["event"]["action"]["value"] == "a string"
    assert not heard.status.connected and "stopped" in heard.status.cause
    assert sim.violations == []


async def send_as_bot(sim: FeishuSim, chat: str, card: dict[str, Any]) -> str:
    """One interactive message, through REST like every other."""
    import aiohttp

    async with aiohttp.ClientSession(sim.base_url) as session:
        auth = {"app_id": sim.app_id, "app_secret": sim.app_secret}
        path = "/open-apis/auth/v3/tenant_access_token/internal"
        token = (await (await session.post(path, json=auth)).json())["tenant_access_token"]
        body = {"receive_id": chat, "msg_type": "interactive", "content": json.dumps(card)}
        answer = await session.post(
            "/open-apis/im/v1/messages?receive_id_type=chat_id",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
        )
        return str((await answer.json())["data"]["message_id"])


async def test_what_is_not_safe_is_not_acknowledged(sim: FeishuSim) -> None:
    sim.policy.redeliver_after = (0.3,)
    ann = sim.add_person("Ann")
    async with hearing(sim) as heard:
        heard.error = StoreError("disk full")
        await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
        await sim.wait_for(lambda: heard.got)
        heard.error = None
        await sim.wait_for(lambda: sim.acks["e1"])
    assert [push.status for push in sim.pushes] == ["500", "200"]
    assert heard.texts() == ["hello", "hello"]


async def test_an_event_is_acknowledged_only_after_it_was_handed_over(sim: FeishuSim) -> None:
    ann = sim.add_person("Ann")
    gate = asyncio.Event()

    async def on_payload(payload: dict[str, Any]) -> None:
        await gate.wait()

    settings = Settings(sim.app_id, sim.app_secret, sim.base_url)
    status = LinkStatus("feishu")
    task = asyncio.create_task(run_sdk(settings, on_payload, status, SystemClock()))
    await sim.wait_for(lambda: status.connected, 60)
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await sim.wait_for(lambda: status.last_event)
    assert sim.acks == {"e1": None}
    gate.set()
    await sim.wait_for(lambda: sim.acks["e1"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_other_events_are_acknowledged_and_forgotten(sim: FeishuSim) -> None:
    async with hearing(sim) as heard:
        event = await sim.deliver_event("im.chat.updated_v1", {"chat_id": "oc_1", "odd": [1]})
        await sim.wait_for(lambda: sim.acks[event])
    assert heard.got == []


async def test_junk_is_refused_and_the_link_lives_on(sim: FeishuSim) -> None:
    ann = sim.add_person("Ann")
    sim.policy.redeliver_after = ()
    async with hearing(sim) as heard:
        await sim.send_garbage(b"\xff\xfe junk")
        await sim.deliver_raw({"junk": "x" * 200_000})
        await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
        await sim.wait_for(lambda: sim.acks["e1"])
        assert heard.texts() == ["hello"]
        assert sim.opened == 1


async def test_two_bots_hear_side_by_side_and_survive_cuts() -> None:
    async with FeishuSim(SystemClock()) as one, FeishuSim(SystemClock(), seed=1) as two:
        people = [(sim, sim.add_person("Ann")) for sim in (one, two)]
        async with hearing(one) as first, hearing(two) as second:
            for round_ in range(2):
                for sim, ann in people:
                    await sim.say(sim.p2p(ann), ann, f"{sim is one} {round_}", event_id=str(round_))
                    await sim.wait_for(lambda s=sim, r=str(round_): s.acks[r])
                for sim, heard in ((one, first), (two, second)):
                    sim.cut_links()
                    await sim.wait_for(lambda h=heard, r=round_: h.status.connects == r + 2, 20)
        assert first.texts() == ["True 0", "True 1"]
        assert second.texts() == ["False 0", "False 1"]
        assert one.violations + two.violations == []


@pytest.mark.parametrize("code", [514, 1000040350, 1, 1000040345])
@pytest.mark.parametrize("handshake", [False, True])
async def test_no_refusal_ends_the_dialling(sim: FeishuSim, code: int, handshake: bool) -> None:
    """Codes that leave the official client deaf for ever when it reconnects (1.4)."""
    async with hearing(sim) as heard:
        sim.refuse_links(code, handshake=handshake)
        sim.cut_links()
        await sim.wait_for(lambda: heard.status.detail.startswith("lark-oapi: code"), 20)
        assert not heard.status.connected
        sim.accept_links()
        await sim.wait_for(lambda: heard.status.connected, 20)


async def test_wrong_credentials_are_said_and_retried_without_the_secret(
    sim: FeishuSim, caplog: pytest.LogCaptureFixture
) -> None:
    async with hearing(sim, secret="wrong-canary", up=False) as heard:
        await sim.wait_for(lambda: len(sim.calls_of(wire.DISCOVER)) > 1, 60)
        assert heard.status.detail == "lark-oapi: code 514"
        assert heard.status.auth_failed and "credentials refused" in heard.status.cause
    assert "wrong-canary" not in caplog.text


async def test_secrets_stay_out_of_the_log(
    sim: FeishuSim, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    ann = sim.add_person("Ann")
    async with hearing(sim):
        await sim.say(sim.p2p(ann), ann, "canary-words", event_id="e1")
        await sim.wait_for(lambda: sim.acks["e1"])
        sim.cut_links()
        await sim.wait_for(lambda: sim.opened == 2, 20)
    out, err = capfd.readouterr()
    for secret in ("access_key", "ticket=", sim.app_secret, "canary-words"):
        assert secret not in caplog.text + out + err


async def test_a_silent_server_is_left_for_a_fresh_connection(
    sim: FeishuSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pongs stop and nothing else shows it: the watch on frames does."""
    monkeypatch.setattr(sdk_link, "PONG_SLACK", 0.5)
    sim.policy.ping_interval = 1
    async with hearing(sim) as heard:
        await sim.wait_for(lambda: heard.status.last_frame > heard.status.since)
        sim.mute_links()
        await sim.wait_for(lambda: heard.status.connects == 2, 20)
        assert heard.status.reconnects == len(heard.gaps) == 1


async def test_long_silence_brings_a_successor_before_the_old_one_ends(
    sim: FeishuSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.connection.LINGER", 0.3)
    async with hearing(sim, idle=1.0) as heard:
        await sim.wait_for(lambda: len(sim.links) == 2, 20)
        await sim.wait_for(lambda: len(sim.links) == 1, 20)
        assert heard.status.hearing
        assert (heard.status.reconnects, heard.gaps) == (0, [])


async def test_a_stuck_thread_is_replaced(sim: FeishuSim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.sdk_session.BEAT_SECONDS", 0.05)
    monkeypatch.setattr("adapters.sdk_session.STUCK_SECONDS", 1.0)
    monkeypatch.setattr("adapters.sdk_thread.STOP_SECONDS", 0.05)
    gate = threading.Event()
    ann = sim.add_person("Ann")
    async with hearing(sim) as heard:
        with monkeypatch.context() as patch:
            patch.setattr(SdkThread, "hand_over", lambda *_: gate.wait(60))
            await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
            await sim.wait_for(lambda: heard.status.connects == 2, 20)
        assert heard.status.hearing and len(heard.gaps) == 1
        gate.set()
        await sim.wait_for(lambda: len(sim.links) == 1, 20)
        await sim.say(sim.p2p(ann), ann, "again", event_id="e2")
        await sim.wait_for(lambda: "again" in heard.texts())


# ---------------------------------------------------------------- the thread itself


async def test_a_thread_that_blocks_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.sdk_thread.STOP_SECONDS", 0.05)
    gate, inside = threading.Event(), threading.Event()

    async def live() -> None:
        inside.set()
        gate.wait(30)

    task = asyncio.create_task(SdkThread("blocked").run(live))
    await asyncio.to_thread(inside.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()


async def test_what_the_thread_raises_is_raised() -> None:
    async def live() -> None:
        raise ValueError("in there")

    with pytest.raises(ValueError, match="in there"):
        await SdkThread("raising").run(live)


async def test_a_hand_over_is_bounded_and_cancelled() -> None:
    thread, cancelled = SdkThread("bounded"), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def live() -> None:
        thread.hand_over(work, 0.05)

    with pytest.raises(TimeoutError):
        await thread.run(live)
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_cancelled_thread_cleans_up_before_run_returns() -> None:
    seen: list[str] = []
    up = threading.Event()

    async def live() -> None:
        try:
            seen.append("up")
            up.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            seen.append("down")

    task = asyncio.create_task(SdkThread("clean").run(live))
    await asyncio.to_thread(up.wait, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == ["up", "down"]
