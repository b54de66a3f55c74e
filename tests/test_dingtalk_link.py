"""The Stream connection against a small gateway of its own, and on the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
from aiohttp import WSMsgType, web

from adapters.connection import Connection, Link
from adapters.dingtalk.chat import DingTalkPlatform
from adapters.dingtalk.frames import CARD_CALLBACK, MESSAGES, TOPICS
from adapters.dingtalk.link import DingTalkLink
from adapters.dingtalk.receive import Receiver
from adapters.dingtalk.settings import DingTalkSettings
from adapters.hearing import IDLE
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import DingTalkSim
from adapters.supervisor import supervise
from bot.contract import (
    ActionReply,
    Button,
    CardAction,
    Handle,
    InboundMessage,
    LinkStatus,
    Snapshot,
)
from bot.errors import AuthError, PermissionDenied, StoreError, Transient

SECRET = "canary-secret-77aa"
TICKET = "canary/ticket+42=="


class Gateway:
    """connections/open and a socket, both under the test's control."""

    def __init__(self) -> None:
        self.url = ""
        self.refusal: Any = None
        self.handshake = 0
        self.asked: list[Any] = []
        self.tickets: list[str] = []
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.pings: asyncio.Queue[bytes] = asyncio.Queue()
        self.pongs = True

    async def open(self, request: web.Request) -> web.Response:
        self.asked.append((await request.json(), dict(request.headers)))
        if self.refusal is not None:
            status, body = self.refusal
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(status=status, text=text)
        endpoint = f"{self.url.replace('http', 'ws')}/connect"
        return web.json_response({"endpoint": endpoint, "ticket": TICKET})

    async def connect(self, request: web.Request) -> web.StreamResponse:
        self.tickets.append(request.query["ticket"])
        if self.handshake:
            return web.Response(status=self.handshake)
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await self.sockets.put(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await self.answers.put(json.loads(message.data))
            elif message.type is WSMsgType.PING:
                await self.pings.put(message.data)
                if self.pongs:
                    await socket.pong(message.data)
        return socket

    async def answer(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.answers.get(), 5)


class Intake:
    """Records; `fail` errors come first, `hold` keeps every claim waiting."""

    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []
        self.actions: list[CardAction] = []
        self.fail: list[Exception] = []
        self.tries = 0
        self.hold: asyncio.Event | None = None
        self.reply = ActionReply("done", "success")

    async def _safe(self) -> None:
        self.tries += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.fail:
            raise self.fail.pop(0)

    async def message(self, message: InboundMessage) -> None:
        await self._safe()
        self.messages.append(message)

    async def action(self, action: CardAction) -> ActionReply:
        await self._safe()
        self.actions.append(action)
        return self.reply

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        raise AssertionError("DingTalk tells of no recalls")

    def gap(self, bot: str, since: float, until: float) -> None:
        assert since <= until


class Rig:
    def __init__(self, gateway: Gateway, http: Http) -> None:
        self.gateway, self.http, self.intake = gateway, http, Intake()
        self.clock = VirtualClock(settle=0.002)
        self.status = LinkStatus("ding")
        self.connection = Connection(Link(self.status, self.clock))
        self.sorry: list[InboundMessage] = []
        self.receiver = Receiver("ding", "robot", self.intake, self.clock, self._apologise)
        settings = DingTalkSettings("ding", "client", SECRET, base_url=gateway.url)
        self.link = DingTalkLink(settings, http, self.clock, self.receiver)
        self.tasks: list[asyncio.Task[None]] = []

    async def _apologise(self, message: InboundMessage) -> None:
        self.sorry.append(message)

    async def up(self) -> web.WebSocketResponse:
        """One session, without supervision."""
        self.tasks.append(asyncio.create_task(self.link.session(self.connection)))
        return await self.next()

    async def supervised(self) -> web.WebSocketResponse:
        work = supervise(self.link.session, self.status, self.clock)
        self.tasks.append(asyncio.create_task(work))
        return await self.next()

    async def next(self) -> web.WebSocketResponse:
        return await asyncio.wait_for(self.gateway.sockets.get(), 5)

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await self.clock.advance(0.0)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    gateway, http = Gateway(), Http()
    app = web.Application()
    app.router.add_post("/v1.0/gateway/connections/open", gateway.open)
    app.router.add_get("/connect", gateway.connect)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    rig = Rig(gateway, http)
    yield rig
    await rig.close()
    await http.close()
    await runner.cleanup()


def frame(
    data: Any, topic: str = MESSAGES, kind: str = "CALLBACK", message_id: str = "frame1"
) -> str:
    headers = {"topic": topic, "messageId": message_id, "contentType": "application/json"}
    text = data if isinstance(data, str) else json.dumps(data)
    return json.dumps({"specVersion": "1.0", "type": kind, "headers": headers, "data": text})


def said(text: str = "hi", msg_id: str = "msg1") -> dict[str, Any]:
    return {
        "msgId": msg_id,
        "conversationId": "cid1",
        "conversationType": "1",
        "senderStaffId": "0123",
        "msgtype": "text",
        "text": {"content": text},
    }


def pressed() -> dict[str, Any]:
    private = {"actionIds": ["stop"], "params": {"action": "stop", "turn": "t1"}}
    content = json.dumps({"cardPrivateData": private})
    return {"outTrackId": "t1-0", "userId": "0123", "spaceType": "IM_ROBOT", "content": content}


# ---------------------------------------------------------------- connecting


async def test_the_way_in(rig: Rig) -> None:
    await rig.up()
    await rig.until(lambda: rig.status.connected)
    body, headers = rig.gateway.asked[0]
    assert (body["clientId"], body["clientSecret"]) == ("client", SECRET)
    assert body["subscriptions"] == [{"type": "CALLBACK", "topic": topic} for topic in TOPICS]
    assert headers["Accept"] == "application/json"
    assert rig.gateway.tickets == [TICKET]  # percent-encoded on its way


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ((401, {"code": "authFailed", "message": "鉴权失败"}), AuthError),
        ((400, {"code": "invalidClientIdOrSecret"}), AuthError),
        ((400, {"code": "robot.notStream"}), PermissionDenied),
        ((403, {"code": "Forbidden.AccessDenied.IpNotInWhiteList"}), PermissionDenied),
        ((503, {"code": "ServiceUnavailable"}), Transient),
        ((502, "<html>"), Transient),
        ((200, "<xml/>"), Transient),
        ((200, {"endpoint": "http://x", "ticket": "t"}), Transient),
        ((200, {"endpoint": "ws://127.0.0.1:9/x", "ticket": "t"}), Transient),
        ((200, {"endpoint": "ws://[", "ticket": "t"}), Transient),
        ((200, {"endpoint": "ws://127.0.0.1/", "ticket": ""}), Transient),
    ],
)
async def test_refused_openings(rig: Rig, refusal: Any, kind: type[Exception]) -> None:
    rig.gateway.refusal = refusal
    with pytest.raises(kind) as caught:
        await rig.link.session(rig.connection)
    assert "canary" not in str(caught.value) and not rig.status.connected


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_refused_ticket_is_no_reason_to_wait_long(rig: Rig, status: int) -> None:
    rig.gateway.handshake = status
    with pytest.raises(Transient) as caught:
        await rig.link.session(rig.connection)
    assert "canary" not in str(caught.value)


async def test_opening_is_bounded_in_time(rig: Rig) -> None:
    never = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1.0/gateway/connections/open", hang)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = DingTalkSettings("ding", "client", SECRET, base_url=url)
    link = DingTalkLink(settings, rig.http, rig.clock, rig.receiver)
    dialing = asyncio.create_task(link.session(rig.connection))
    await asyncio.sleep(0)
    await rig.clock.advance(11)
    with pytest.raises(Transient, match="timed out"):
        await asyncio.wait_for(dialing, 5)
    never.set()
    await runner.cleanup()


# ---------------------------------------------------------------- frames


async def test_a_message_is_acknowledged_after_it_is_safe(rig: Rig) -> None:
    rig.intake.hold = asyncio.Event()
    socket = await rig.up()
    await socket.send_str(frame(said()))
    await rig.until(lambda: rig.intake.tries)
    assert rig.gateway.answers.empty()
    rig.intake.hold.set()
    answer = await rig.gateway.answer()
    assert answer["code"] == 200 and answer["headers"]["messageId"] == "frame1"
    assert answer["data"] == '{"response":null}'
    assert [message.text for message in rig.intake.messages] == ["hi"]


async def test_a_slow_claim_blocks_no_ping(rig: Rig) -> None:
    rig.intake.hold = asyncio.Event()
    socket = await rig.up()
    await socket.send_str(frame(said()))
    await rig.until(lambda: rig.intake.tries)
    opaque = '{"opaque": "a b/+"}'
    await socket.send_str(frame(opaque, "ping", "SYSTEM", "ping1"))
    answer = await rig.gateway.answer()
    assert (answer["code"], answer["data"]) == (200, opaque)
    assert answer["headers"]["messageId"] == "ping1"


async def test_events_and_unknown_topics_are_answered(rig: Rig) -> None:
    socket = await rig.up()
    await socket.send_str(frame({"a": 1}, "*", "EVENT", "event1"))
    assert json.loads((await rig.gateway.answer())["data"])["status"] == "SUCCESS"
    await socket.send_str(frame({}, "/v1.0/graph/api/invoke"))
    assert (await rig.gateway.answer())["code"] == 404
    await socket.send_str(frame({}, MESSAGES, "HOLOGRAM"))
    assert (await rig.gateway.answer())["code"] == 404
    assert rig.intake.tries == 0


async def test_junk_costs_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    socket = await rig.up()
    for junk in ("{", "null", "canary" * 40_000, '{"type": "CALLBACK"}', "\x00\x01"):
        await socket.send_str(junk)
    await socket.send_bytes(b"\xff\xfe canary")
    await socket.send_str(frame("{ not json", message_id="broken"))
    assert (await rig.gateway.answer())["headers"]["messageId"] == "broken"
    await socket.send_str(frame(said()))
    assert (await rig.gateway.answer())["code"] == 200
    assert len(rig.intake.messages) == 1 and "canary" not in caplog.text


async def test_a_websocket_ping_is_answered(rig: Rig) -> None:
    socket = await rig.up()
    await socket.ping(b"are you there")
    await rig.until(lambda: rig.status.connected)
    await socket.send_str(frame(said()))
    assert (await rig.gateway.answer())["code"] == 200


# ---------------------------------------------------------------- a store that fails


async def test_a_failed_claim_is_repeated_in_memory(rig: Rig) -> None:
    rig.intake.fail = [StoreError("locked"), StoreError("locked")]
    socket = await rig.up()
    await socket.send_str(frame(said()))
    await rig.until(lambda: rig.intake.tries == 1)
    await rig.clock.advance(1.0)
    assert (await rig.gateway.answer())["code"] == 200
    assert rig.intake.tries == 3 and rig.sorry == []


async def test_a_message_that_cannot_be_stored_is_not_acknowledged(rig: Rig) -> None:
    rig.intake.fail = [StoreError("disk full")] * 100
    socket = await rig.up()
    for _ in range(2):  # DingTalk may deliver it again
        await socket.send_str(frame(said()))
        tries = rig.intake.tries
        await rig.until(lambda tries=tries: rig.intake.tries > tries)
        await rig.clock.advance(3.0)
        assert (await rig.gateway.answer())["code"] == 500
    assert [message.message_id for message in rig.sorry] == ["msg1"]


async def test_a_claim_that_is_only_slow_goes_on_without_an_apology(rig: Rig) -> None:
    rig.intake.hold = asyncio.Event()
    socket = await rig.up()
    await socket.send_str(frame(said()))
    await rig.until(lambda: rig.intake.tries)
    await rig.clock.advance(3.0)
    assert (await rig.gateway.answer())["code"] == 500
    rig.intake.hold.set()
    await rig.until(lambda: rig.intake.messages)
    assert rig.intake.tries == 1 and rig.sorry == []


async def test_a_bug_is_not_acknowledged_and_kills_nothing(rig: Rig) -> None:
    rig.intake.fail = [RuntimeError("bug")]
    socket = await rig.up()
    await socket.send_str(frame(said()))
    assert (await rig.gateway.answer())["code"] == 500
    await socket.send_str(frame(said()))
    assert (await rig.gateway.answer())["code"] == 200


async def test_a_button_is_answered_with_what_its_presser_sees(rig: Rig) -> None:
    socket = await rig.up()
    await socket.send_str(frame(pressed(), CARD_CALLBACK))
    response = json.loads((await rig.gateway.answer())["data"])["response"]
    assert response["userPrivateData"]["cardParamMap"] == {"toast": "done", "toastKind": "success"}
    assert response["cardUpdateOptions"]["updatePrivateDataByKey"] is True
    assert rig.intake.actions[0].action == "stop"
    rig.intake.reply = ActionReply()
    await socket.send_str(frame(pressed(), CARD_CALLBACK))
    assert json.loads((await rig.gateway.answer())["data"]) == {"response": {}}


async def test_a_button_that_fails_says_so_in_time(rig: Rig) -> None:
    rig.intake.fail = [StoreError("disk full")] * 100
    socket = await rig.up()
    await socket.send_str(frame(pressed(), CARD_CALLBACK))
    await rig.until(lambda: rig.intake.tries)
    await rig.clock.advance(1.9)
    answer = await rig.gateway.answer()
    params = json.loads(answer["data"])["response"]["userPrivateData"]["cardParamMap"]
    assert answer["code"] == 200 and params["toastKind"] == "error" and params["toast"]


# ---------------------------------------------------------------- staying alive


async def test_our_own_pings_prove_the_socket(rig: Rig) -> None:
    await rig.up()
    await rig.until(lambda: rig.status.connected)
    for _ in range(6):
        await rig.clock.advance(20.1)
        await asyncio.wait_for(rig.gateway.pings.get(), 5)
        await rig.until(lambda: rig.status.last_frame >= rig.clock.monotonic() - 1)
    assert not rig.tasks[0].done()


async def test_a_half_open_socket_is_noticed(rig: Rig) -> None:
    rig.gateway.pongs = False
    await rig.up()
    await rig.until(lambda: rig.status.connected)
    await rig.clock.advance(51)
    with pytest.raises(Transient, match="dead"):
        await asyncio.wait_for(rig.tasks[0], 5)


async def test_disconnect_opens_the_successor_first(rig: Rig) -> None:
    old = await rig.supervised()
    await rig.until(lambda: rig.status.connected)
    await old.send_str('{"type":"SYSTEM","headers":{"topic":"disconnect"},"data":"{}"}')
    new = await rig.next()
    await rig.until(lambda: rig.status.connects == 2)
    await old.send_str(frame(said("late", "m1"), message_id="old"))
    assert (await rig.gateway.answer())["headers"]["messageId"] == "old"
    await new.send_str(frame(said("new", "m2"), message_id="new"))
    assert (await rig.gateway.answer())["headers"]["messageId"] == "new"
    assert [message.text for message in rig.intake.messages] == ["late", "new"]
    await rig.clock.advance(13)
    await rig.until(lambda: old.closed)
    assert rig.status.connected and not new.closed


async def test_a_silent_connection_is_replaced_before_it_is_given_up(rig: Rig) -> None:
    old = await rig.supervised()
    await rig.until(lambda: rig.status.connected)
    for _ in range(int(IDLE // 20) + 2):
        await rig.clock.advance(20)
        await asyncio.wait_for(rig.gateway.pings.get(), 5)
        await rig.until(lambda: rig.status.last_frame >= rig.clock.monotonic() - 5)
    await rig.next()
    await rig.until(lambda: rig.status.connects == 2)
    await rig.clock.advance(13)
    await rig.until(lambda: old.closed)


async def test_pings_that_stop_make_a_connection_suspect(rig: Rig) -> None:
    old = await rig.supervised()
    await rig.until(lambda: rig.status.connected)
    for number in range(3):
        await old.send_str(frame("{}", "ping", "SYSTEM", f"p{number}"))
        await rig.gateway.answer()
    await rig.clock.advance(89)
    assert rig.status.hearing and rig.status.connects == 1
    await rig.clock.advance(2)
    await rig.next()
    await rig.until(lambda: rig.status.connects == 2)
    assert rig.status.hearing and rig.status.reconnects == 1


async def test_a_cut_socket_is_dialled_again(rig: Rig) -> None:
    old = await rig.supervised()
    await rig.until(lambda: rig.status.connected)
    await old.close()
    await rig.until(lambda: not rig.status.connected)
    assert rig.status.cause
    await rig.clock.advance(1)
    new = await rig.next()
    await new.send_str(frame(said()))
    assert (await rig.gateway.answer())["code"] == 200


async def test_cancelling_ends_at_once(rig: Rig) -> None:
    await rig.supervised()
    await rig.until(lambda: rig.status.connected)
    rig.tasks[0].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(rig.tasks[0], 5)
    assert rig.tasks[0].cancelled()


async def test_no_secret_is_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    socket = await rig.supervised()
    await socket.send_str(frame(said()))
    await rig.gateway.answer()
    await socket.close()
    rig.gateway.refusal = (401, {"code": "authFailed"})
    await rig.until(lambda: not rig.status.connected)
    await rig.clock.advance(1)
    await rig.until(lambda: "refused" in rig.status.cause)
    assert "canary" not in caplog.text


# ---------------------------------------------------------------- on the simulator


class Stage:
    """A platform that runs on the simulator."""

    def __init__(self, sim: DingTalkSim, clock: VirtualClock, http: Http) -> None:
        self.sim, self.clock, self.intake = sim, clock, Intake()
        self.settings = DingTalkSettings(
            "ding",
            sim.client_id,
            sim.client_secret,
            base_url=sim.base_url,
            oapi_base_url=sim.base_url,
            card_template_id=sim.card_template_id,
            card_state_key="state",
        )
        self.platform = DingTalkPlatform(self.settings, http, clock)
        self.alice = sim.add_person("Alice")
        self.group = sim.add_group("Devs", [self.alice])

    async def until(self, true: Callable[[], Any], step: float = 0.1) -> None:
        async with asyncio.timeout(10):
            while not true():
                await self.clock.advance(step)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    clock, http = VirtualClock(settle=0.002), Http()
    async with DingTalkSim(clock) as sim:
        stage = Stage(sim, clock, http)
        run = asyncio.create_task(stage.platform.run(stage.intake))
        await stage.until(lambda: sim.links)
        yield stage
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await http.close()


Break = Callable[[DingTalkSim], Awaitable[object] | object]


@pytest.mark.parametrize(
    "trouble",
    [
        lambda sim: sim.cut_links(),
        lambda sim: sim.close_links(),
        lambda sim: sim.leave_links(),
        lambda sim: sim.send_garbage("{" * 200_000),
        lambda sim: sim.mute_links(half_open=True),
    ],
    ids=["cut", "closed", "disconnect", "garbage", "half-open"],
)
async def test_messages_are_heard_after_any_trouble(stage: Stage, trouble: Break) -> None:
    await stage.sim.say(stage.group, stage.alice, "before", mention_bot=True)
    await stage.until(lambda: len(stage.intake.messages) == 1)
    done = trouble(stage.sim)
    if asyncio.iscoroutine(done):
        await done
    await stage.until(lambda: stage.clock.monotonic() > 90, step=1.0)
    await stage.sim.say(stage.group, stage.alice, "after", mention_bot=True)
    await stage.until(lambda: [m.text for m in stage.intake.messages] == ["before", "after"])
    assert stage.platform.status.connected and stage.sim.violations == []
    assert stage.sim.lost == []


async def test_a_zombie_that_answers_pings_is_left(stage: Stage) -> None:
    await stage.until(lambda: stage.clock.monotonic() > 100, step=1.0)
    stage.sim.mute_links()
    await stage.until(lambda: stage.sim.opened > 1, step=1.0)
    assert stage.clock.monotonic() < 400
    await stage.sim.say(stage.group, stage.alice, "hi", mention_bot=True)
    await stage.until(lambda: stage.intake.messages, step=1.0)


async def test_a_redelivery_has_the_same_message_id(stage: Stage) -> None:
    stage.intake.fail = [StoreError("disk full")] * 6
    await stage.sim.say(stage.group, stage.alice, "hi", mention_bot=True)
    await stage.until(lambda: stage.intake.messages, step=0.2)
    await stage.until(lambda: stage.sim.bot_bubbles(stage.group))
    assert len(stage.sim.bot_bubbles(stage.group)) == 1  # the apology, once
    assert (stage.sim.acks[0].code, stage.sim.acks[-1].code) == (500, 200)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("space", ["user", "chat", "none"])
async def test_a_button_names_the_chat_of_its_question(
    stage: Stage, private: bool, space: Literal["user", "chat", "none"]
) -> None:
    stage.sim.policy.private_space = space
    chat = stage.sim.p2p(stage.alice) if private else stage.group
    await stage.sim.say(chat, stage.alice, "hi", mention_bot=not private)
    await stage.until(lambda: stage.intake.messages)
    [asked] = stage.intake.messages

    async def save(handle: Handle) -> None:
        assert handle.key == "turn1-0"

    sink = stage.platform.sink(asked.address, Handle("turn1-0"), save, 1)
    stop = Button("stop", "Stop", "turn1")
    await sink.open(Snapshot(status="thinking", buttons=(stop,)))
    response = await stage.sim.press("turn1-0", "stop", stage.alice)
    assert response["userPrivateData"]["cardParamMap"]["toast"] == "done"
    [action] = stage.intake.actions
    assert (action.chat, action.turn, action.action) == (asked.chat, "turn1", "stop")
    assert action.operator.id == asked.sender.id


async def test_the_official_client_can_carry_the_frames(stage: Stage) -> None:
    settings = replace(stage.settings, transport="sdk", bot="sdk")
    intake, http = Intake(), Http()
    sdk = DingTalkPlatform(settings, http, stage.clock)
    links = len(stage.sim.links)
    run = asyncio.create_task(sdk.run(intake))
    await stage.until(lambda: len(stage.sim.links) > links, step=0.0)
    for number in range(40):  # each goes to one link at random
        await stage.sim.say(stage.group, stage.alice, str(number), mention_bot=True)
    await stage.until(lambda: len(stage.intake.messages) + len(intake.messages) == 40, step=0.0)
    heard = intake.messages
    assert heard and all(m.bot == "sdk" and m.chat == stage.group.id for m in heard)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await http.close()
