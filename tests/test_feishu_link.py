"""The long connection against a small frontier of its own, and what follows a frame."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from adapters.connection import Connection, Link
from adapters.feishu.chat import FeishuPlatform
from adapters.feishu.frames import DATA, Frame, decode, encode
from adapters.feishu.link import FeishuLink
from adapters.feishu.receive import Receiver
from adapters.feishu.settings import BotIdentity, FeishuSettings
from adapters.http import Http
from adapters.playground.clock import START, VirtualClock
from bot.contract import ActionReply, CardAction, InboundMessage, LinkStatus
from bot.errors import AuthError, PermissionDenied, StoreError, Transient

SECRET = "canary-secret-77aa"
TICKET = "canary-ticket-42bb"


class Frontier:
    """Discovery and a socket, both under the test's control."""

    def __init__(self) -> None:
        self.url = ""
        self.discovery: Any = None
        self.handshake: dict[str, str] = {}
        self.asked: list[Any] = []
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.config: dict[str, Any] = {"PingInterval": 90}
        self.answers_pings = True

    async def discover(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        if self.discovery is not None:
            status, body = self.discovery
            return web.json_response(body, status=status)
        url = f"{self.url.replace('http', 'ws')}/ws/v2?service_id=123&ticket={TICKET}"
        data = {"URL": url, "ClientConfig": self.config}
        return web.json_response({"code": 0, "msg": "", "data": data})

    async def socket(self, request: web.Request) -> web.StreamResponse:
        if self.handshake:
            return web.Response(status=403, headers=self.handshake)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self.sockets.put(socket)
        async for message in socket:
            frame = decode(message.data)
            if frame.header("type") == "ping" and self.answers_pings:
                pong = Frame(headers=(("type", "pong"),), payload=json.dumps(self.config).encode())
                with contextlib.suppress(ConnectionError):
                    await socket.send_bytes(encode(pong))
            await self.frames.put(frame)
        return socket

    async def info(self, request: web.Request) -> web.Response:
        if request.path.endswith("internal"):
            return web.json_response({"code": 0, "tenant_access_token": "t-1", "expire": 7200})
        return web.json_response({"code": 0, "bot": {"open_id": "ou_bot", "app_name": "Q"}})

    async def next(self, kind: str) -> Frame:
        while True:
            frame = await asyncio.wait_for(self.frames.get(), 5)
            if frame.header("type") == kind:
                return frame


@pytest.fixture
async def frontier() -> AsyncIterator[Frontier]:
    frontier = Frontier()
    app = web.Application()
    app.router.add_post("/callback/ws/endpoint", frontier.discover)
    app.router.add_get("/ws/v2", frontier.socket)
    app.router.add_route("*", "/open-apis/{tail:.*}", frontier.info)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    frontier.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield frontier
    await runner.cleanup()


class Rig:
    """One link session under way."""

    def __init__(self, frontier: Frontier, handler: Callable[[Any], Awaitable[Any]]) -> None:
        self.clock = VirtualClock()
        self.http = Http()
        self.status = LinkStatus("b")
        self.settings = FeishuSettings("b", "cli_1", SECRET, base_url=frontier.url)
        self.link = FeishuLink(self.settings, self.http, self.clock, handler)
        self.connected = Link(self.status, self.clock)
        self.connection = Connection(self.connected)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        self.task = asyncio.create_task(self.link.session(self.connection))
        return self.task

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.link.close()
        await self.http.close()


MakeRig = Callable[..., Rig]


@pytest.fixture
async def rig(frontier: Frontier) -> AsyncIterator[MakeRig]:
    rigs: list[Rig] = []

    async def nothing(payload: Any) -> None:
        return None

    def make(handler: Callable[[Any], Awaitable[Any]] = nothing) -> Rig:
        rigs.append(Rig(frontier, handler))
        return rigs[-1]

    yield make
    for one in rigs:
        await one.stop()


def event(payload: object, seq: int = 0, total: int = 1, key: str = "m1") -> Frame:
    headers = (
        ("type", "event"),
        ("message_id", key),
        ("sum", str(total)),
        ("seq", str(seq)),
        ("trace_id", "t1"),
        ("instance_id", "x9"),
    )
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Frame(7, 8, 123, DATA, headers, payload=raw, log_id_new="log")


async def send(frontier: Frontier, *frames: Frame) -> web.WebSocketResponse:
    socket = await asyncio.wait_for(frontier.sockets.get(), 5)
    for frame in frames:
        await socket.send_bytes(encode(frame))
    return socket


# ---------------------------------------------------------------- frames


async def test_the_ack_comes_after_the_handler_with_all_headers(
    frontier: Frontier, rig: MakeRig
) -> None:
    gate, seen = asyncio.Event(), asyncio.Event()

    async def handler(payload: Any) -> None:
        assert payload == {"n": 1}
        seen.set()
        await gate.wait()

    rig(handler).start()
    await send(frontier, event({"n": 1}))
    await asyncio.wait_for(seen.wait(), 5)
    assert (await frontier.next("ping")).service == 123
    assert frontier.frames.empty()
    gate.set()
    answer = await frontier.next("event")
    assert json.loads(answer.payload) == {"code": 200}
    assert answer.headers[:-1] == event({}).headers
    assert answer.headers[-1][0] == "biz_rt"
    assert (answer.seq_id, answer.log_id, answer.log_id_new) == (7, 8, "log")


async def test_discovery_asks_with_capital_names(frontier: Frontier, rig: MakeRig) -> None:
    rig().start()
    await frontier.next("ping")
    assert frontier.asked == [{"AppID": "cli_1", "AppSecret": SECRET}]


async def test_fragments_in_wrong_order_are_acked_once(frontier: Frontier, rig: MakeRig) -> None:
    got: list[Any] = []

    async def handler(payload: Any) -> None:
        got.append(payload)

    rig(handler).start()
    raw = json.dumps({"text": "鹊桥" * 50}, ensure_ascii=False).encode()
    pieces = [raw[:13], raw[13:100], raw[100:]]
    await send(frontier, *(event(pieces[i], i, 3) for i in (2, 0, 1)))
    answer = await frontier.next("event")
    assert answer.header("seq") == "1"
    assert got == [{"text": "鹊桥" * 50}]
    assert frontier.frames.qsize() == 0


async def test_a_card_answer_travels_as_base64(frontier: Frontier, rig: MakeRig) -> None:
    async def handler(payload: Any) -> dict[str, Any]:
        return {"toast": {"type": "info", "content": "ok"}}

    rig(handler).start()
    await send(frontier, event({"n": 1}))
    body = json.loads((await frontier.next("event")).payload)
    assert body["data"] == "eyJ0b2FzdCI6eyJ0eXBlIjoiaW5mbyIsImNvbnRlbnQiOiJvayJ9fQ=="


@pytest.mark.parametrize("raw", [b"junk", b"[1]", b"\xff\xfe", b""])
async def test_a_payload_that_is_no_object_is_refused(
    frontier: Frontier, rig: MakeRig, raw: bytes
) -> None:
    rig().start()
    await send(frontier, event(raw))
    assert json.loads((await frontier.next("event")).payload) == {"code": 500}


@pytest.mark.parametrize("error", [StoreError("disk full"), Transient("later"), KeyError("bug")])
async def test_a_failed_handler_is_not_acknowledged(
    frontier: Frontier, rig: MakeRig, error: Exception
) -> None:
    async def handler(payload: Any) -> None:
        raise error

    rig(handler).start()
    await send(frontier, event({"n": 1}))
    assert json.loads((await frontier.next("event")).payload) == {"code": 500}


async def test_junk_frames_do_not_end_the_session(frontier: Frontier, rig: MakeRig) -> None:
    rig().start()
    socket = await asyncio.wait_for(frontier.sockets.get(), 5)
    for junk in (b"", b"\xff" * 50, b"\x08", encode(event(b"x", 5, 2)), b"\x00" * 1000):
        await socket.send_bytes(junk)
    await socket.send_str("text")
    await socket.send_bytes(encode(event({"n": 1})))
    assert json.loads((await frontier.next("event")).payload) == {"code": 200}


async def test_a_slow_handler_blocks_neither_pings_nor_others(
    frontier: Frontier, rig: MakeRig
) -> None:
    gate = asyncio.Event()

    async def handler(payload: Any) -> None:
        if payload["n"] == 1:
            await gate.wait()

    one = rig(handler)
    one.start()
    await send(frontier, event({"n": 1}, key="slow"), event({"n": 2}, key="fast"))
    assert (await frontier.next("event")).header("message_id") == "fast"
    await one.clock.advance(91)
    await frontier.next("ping")
    gate.set()
    assert (await frontier.next("event")).header("message_id") == "slow"


# ---------------------------------------------------------------- liveness


async def test_the_pong_changes_the_interval(frontier: Frontier, rig: MakeRig) -> None:
    one = rig()
    frontier.config = {"PingInterval": 90}
    one.start()
    await frontier.next("ping")
    frontier.config = {"PingInterval": 10}
    await one.clock.advance(90)
    await frontier.next("ping")
    for _ in range(3):
        await one.clock.advance(10)
        await frontier.next("ping")


async def test_an_application_that_answers_no_ping_is_left(
    frontier: Frontier, rig: MakeRig
) -> None:
    """Its socket still answers the WebSocket's pings."""
    one = rig()
    task = one.start()
    await frontier.next("ping")
    frontier.answers_pings = False
    await one.clock.advance(89)
    assert one.status.hearing
    await one.clock.advance(32)
    assert one.connection.left.is_set() and not one.status.hearing
    assert "deaf" in one.status.cause and not task.done()


async def test_a_close_ends_the_session(frontier: Frontier, rig: MakeRig) -> None:
    task = rig().start()
    socket = await asyncio.wait_for(frontier.sockets.get(), 5)
    await socket.close(code=1001)
    with pytest.raises(Transient, match="1001"):
        await asyncio.wait_for(task, 5)


async def test_silence_of_events_asks_for_a_successor(frontier: Frontier, rig: MakeRig) -> None:
    one = rig()
    task = one.start()
    await frontier.next("ping")
    for _ in range(21):
        await one.clock.advance(90)
        await frontier.next("ping")
    assert one.connection.left.is_set()
    assert not task.done()
    second = asyncio.create_task(one.link.session(Connection(one.connected)))
    await asyncio.wait_for(frontier.sockets.get(), 5)
    await asyncio.wait_for(frontier.sockets.get(), 5)
    await one.clock.advance(6)
    await asyncio.wait_for(task, 5)
    assert not second.done()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_an_event_proves_the_hearing(frontier: Frontier, rig: MakeRig) -> None:
    one = rig()
    one.start()
    for _ in range(19):
        await one.clock.advance(90)
        await frontier.next("ping")
    await send(frontier, event({"n": 1}))
    await frontier.next("event")
    assert one.status.proven == one.status.last_event == one.clock.monotonic()
    await one.clock.advance(94)
    assert not one.connection.left.is_set()
    await one.clock.advance(2)
    assert one.connection.left.is_set(), "a chat in use is not left to doubt"
    assert one.status.hearing


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("discovery", "expected"),
    [
        ((200, {"code": 514, "msg": "auth"}), AuthError),
        ((200, {"code": 403, "msg": "forbidden"}), AuthError),
        ((400, {"code": 514}), AuthError),
        ((200, {"code": 1000040350}), PermissionDenied),
        ((200, {"code": 1000040345}), PermissionDenied),
        ((200, {"code": 1}), Transient),
        ((200, {"code": 1000040343}), Transient),
        ((502, "<html>"), Transient),
        ((200, {"code": 0, "data": {}}), Transient),
        ((200, {"code": 0, "data": {"URL": "ftp://x"}}), Transient),
        ((200, []), Transient),
    ],
)
async def test_refused_discovery(
    frontier: Frontier, rig: MakeRig, discovery: Any, expected: type[Exception]
) -> None:
    frontier.discovery = discovery
    with pytest.raises(expected) as caught:
        await asyncio.wait_for(rig().start(), 5)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Handshake-Status": "514", "Handshake-Autherrcode": "1000040350"}, PermissionDenied),
        ({"Handshake-Status": "403"}, AuthError),
        ({"Handshake-Status": "514"}, Transient),
        ({"Handshake-Status": "junk"}, Transient),
    ],
)
async def test_refused_handshake(
    frontier: Frontier, rig: MakeRig, headers: dict[str, str], expected: type[Exception]
) -> None:
    frontier.handshake = headers
    with pytest.raises(expected) as caught:
        await asyncio.wait_for(rig().start(), 5)
    assert TICKET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_a_hanging_discovery_ends(rig: MakeRig) -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    one = rig()
    port = server.sockets[0].getsockname()[1]
    settings = FeishuSettings("b", "c", SECRET, base_url=f"http://127.0.0.1:{port}")
    link = FeishuLink(settings, one.http, one.clock, one.link._on_payload)
    task = asyncio.create_task(link.session(one.connection))
    await one.clock.advance(11)
    with pytest.raises(Transient, match="discovery"):
        await asyncio.wait_for(task, 5)
    server.close()


# ---------------------------------------------------------------- the receiver


class Inbox:
    """An intake whose disk fails `broken` times."""

    def __init__(self, broken: int = 0) -> None:
        self.broken, self.tries = broken, 0
        self.messages: list[InboundMessage] = []
        self.recalls: list[tuple[str, str, str]] = []
        self.gaps: list[tuple[str, float, float]] = []
        self.gate: asyncio.Event | None = None

    async def _claim(self) -> None:
        self.tries += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.tries <= self.broken:
            raise StoreError("disk full")

    async def message(self, message: InboundMessage) -> None:
        await self._claim()
        self.messages.append(message)

    async def action(self, action: CardAction) -> ActionReply:
        await self._claim()
        return ActionReply("stopped", "success") if action.action == "stop" else ActionReply()

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        await self._claim()
        self.recalls.append((bot, chat, message_id))

    def gap(self, bot: str, since: float, until: float) -> None:
        self.gaps.append((bot, since, until))


def message(chat_type: str = "p2p", text: str = "hi") -> dict[str, Any]:
    return {
        "header": {"event_id": "e1", "event_type": "im.message.receive_v1"},
        "event": {
            "sender": {"sender_id": {"open_id": "ou_a"}, "sender_type": "user"},
            "message": {
                "message_id": "om_1",
                "chat_id": "oc_1",
                "chat_type": chat_type,
                "message_type": "text",
                "content": json.dumps({"text": text}),
            },
        },
    }


def button(action: str = "stop") -> dict[str, Any]:
    return {
        "header": {"event_id": "e2", "event_type": "card.action.trigger"},
        "event": {
            "operator": {"open_id": "ou_a"},
            "action": {"value": {"action": action, "turn": "t1"}},
            "context": {"open_chat_id": "oc_1"},
        },
    }


def receiver(inbox: Inbox, clock: VirtualClock, known: bool = True) -> Receiver:
    made = Receiver("b", inbox, clock)
    made.identity = BotIdentity("ou_bot") if known else None
    return made


async def test_a_failed_claim_is_repeated_in_memory() -> None:
    clock, inbox = VirtualClock(), Inbox(broken=3)
    task = asyncio.create_task(receiver(inbox, clock)(message()))
    await clock.advance(2)
    assert await asyncio.wait_for(task, 5) is None
    assert len(inbox.messages) == 1


async def test_a_lasting_failure_is_refused_in_time() -> None:
    clock, inbox = VirtualClock(), Inbox(broken=999)
    task = asyncio.create_task(receiver(inbox, clock)(message()))
    await clock.advance(2.5)
    assert task.done()
    with pytest.raises(StoreError):
        await task
    assert inbox.tries >= 3


async def test_a_hanging_claim_is_refused_but_not_cancelled() -> None:
    clock, inbox = VirtualClock(), Inbox()
    inbox.gate = asyncio.Event()
    handler = receiver(inbox, clock)
    task = asyncio.create_task(handler(message()))
    await clock.advance(2.5)
    with pytest.raises(StoreError):
        await task
    inbox.gate.set()
    await handler.close()
    assert len(inbox.messages) == 1


async def test_a_button_gets_its_toast_or_an_apology() -> None:
    clock = VirtualClock()
    assert await receiver(Inbox(), clock)(button()) == {
        "toast": {"type": "success", "content": "stopped"}
    }
    assert await receiver(Inbox(), clock)(button("like")) == {}
    task = asyncio.create_task(receiver(Inbox(broken=999), clock)(button()))
    await clock.advance(2.5)
    answer = await asyncio.wait_for(task, 5)
    assert answer is not None
    assert answer["toast"]["type"] == "error"


async def test_group_messages_are_refused_until_the_identity_is_known() -> None:
    """One that was claimed could neither come again nor be fetched."""
    clock, inbox = VirtualClock(), Inbox()
    handler = receiver(inbox, clock, known=False)
    for _ in range(2):
        with pytest.raises(Transient):
            await handler(message("group"))
        await clock.advance(3600)
    assert handler.refused_since == START
    older = message("group")
    older["event"]["message"]["create_time"] = f"{START - 600:.0f}000"
    with pytest.raises(Transient):
        await handler(older)
    assert handler.refused_since == START - 600, "pushed again, not for the first time"
    await handler(message("p2p"))
    handler.identity = BotIdentity("ou_bot")
    await handler(message("group"))
    assert [m.ignored for m in inbox.messages] == ["", "not_mentioned"]


async def test_recalls_and_noise() -> None:
    clock, inbox = VirtualClock(), Inbox()
    handler = receiver(inbox, clock)
    body = {"chat_id": "oc_1", "message_id": "om_1"}
    await handler({"header": {"event_type": "im.message.recalled_v1"}, "event": body})
    assert await handler({"header": {"event_type": "im.chat.updated_v1"}}) is None
    assert inbox.recalls == [("b", "oc_1", "om_1")]


# ---------------------------------------------------------------- the platform


async def test_the_platform_receives_and_survives_a_lost_socket(frontier: Frontier) -> None:
    clock, http, inbox = VirtualClock(), Http(), Inbox()
    settings = FeishuSettings("b", "cli_1", SECRET, base_url=frontier.url)
    platform = FeishuPlatform(settings, http, clock)
    task = asyncio.create_task(platform.run(inbox))
    socket = await send(frontier, event(message("group", "no mention")))
    await frontier.next("event")
    assert platform.status.connected
    await socket.close(code=1011)
    while platform.status.connected:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert "1011" in platform.status.detail and "reconnecting" in platform.status.cause
    await clock.advance(2)
    await send(frontier, event(message(), key="m2"))
    await frontier.next("event")
    assert [m.ignored for m in inbox.messages] == ["not_mentioned", ""]
    assert platform.status.connects == 2
    [(bot, since, until)] = inbox.gaps
    assert bot == "b" and 0 < until - since < 1 and until <= clock.time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await http.close()


async def test_no_log_line_holds_a_secret(
    frontier: Frontier, rig: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    frontier.handshake = {"Handshake-Status": "1"}
    with pytest.raises(Transient):
        await rig().start()
    frontier.handshake = {}
    task = rig().start()
    socket = await send(frontier, event(b"junk"))
    await frontier.next("event")
    await socket.close()
    with contextlib.suppress(Transient):
        await task
    assert SECRET not in caplog.text
    assert TICKET not in caplog.text
