"""The rules of the Feishu simulator, against reference/feishu.md."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from adapters.playground.clock import VirtualClock
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim, SimPerson, codec, tags, wire
from adapters.playground.feishu.codec import BadFrame, Frame, decode, encode
from adapters.playground.view import Bubble

TOKEN = "/open-apis/auth/v3/tenant_access_token/internal"
MESSAGES = "/open-apis/im/v1/messages"
CARDS = "/open-apis/cardkit/v1/cards"


class Socket:
    """One link of a client: collects what comes, acknowledges on order. `answer` makes the
    payload of an ack from an event; None sends none."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, service: int) -> None:
        self.ws, self.service = ws, service
        self.frames: list[Frame] = []
        self.answer: Callable[[Any], bytes | None] = lambda _: b'{"code":200}'
        self.spoil: Callable[[Frame], None] = lambda _: None
        self.closed = False
        self.task = asyncio.create_task(self.read())

    async def read(self) -> None:
        parts: dict[str, dict[int, bytes]] = {}
        async for message in self.ws:
            frame = decode(message.data)
            self.frames.append(frame)
            if frame.method == codec.CONTROL:
                continue
            mine = parts.setdefault(frame.header("message_id"), {})
            mine[int(frame.header("seq"))] = frame.payload
            if len(mine) == int(frame.header("sum")):
                whole = b"".join(mine[seq] for seq in sorted(mine))
                parts[frame.header("message_id")] = {}
                await self.ack(frame, self.answer(json.loads(whole)))
        self.closed = True

    async def ack(self, frame: Frame, payload: bytes | None) -> None:
        if payload is None:
            return
        headers = [*frame.headers, ("biz_rt", "12")]
        back = Frame(frame.seq_id, frame.log_id, self.service, frame.method, headers, payload)
        back.log_id_new = frame.log_id_new
        self.spoil(back)
        await self.ws.send_bytes(encode(back))

    async def ping(self, **changes: Any) -> None:
        frame = Frame(0, 0, self.service, codec.CONTROL, [("type", "ping")])
        for name, value in changes.items():
            setattr(frame, name, value)
        await self.ws.send_bytes(encode(frame))

    def data(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.method == codec.DATA]

    def events(self) -> list[Any]:
        return [json.loads(frame.payload) for frame in self.data()]

    def messages(self) -> list[Any]:
        return [event["event"]["message"] for event in self.events()]


class Client:
    """A plain client: REST with a token, and links."""

    def __init__(self, sim: FeishuSim) -> None:
        self.sim, self.token = sim, ""
        self.http = aiohttp.ClientSession()
        self.sockets: list[Socket] = []

    async def call(self, method: str, path: str, body: Any = None, **how: Any) -> tuple[int, Any]:
        """(HTTP status, JSON); a good answer is checked for its envelope."""
        if not self.token:
            self.token = (await self.new_token())["tenant_access_token"]
        headers = {"Authorization": f"Bearer {self.token}"} | how.pop("headers", {})
        url = self.sim.base_url + path
        async with self.http.request(method, url, json=body, headers=headers, **how) as answer:
            assert answer.headers["X-Tt-Logid"]
            self.headers = answer.headers
            return answer.status, await answer.json()

    async def good(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.call(method, path, body)
        assert (status, answer["code"]) == (200, 0), answer
        return answer["data"]

    async def code(self, method: str, path: str, body: Any = None) -> int:
        """The code of a refusal, which comes with HTTP 400."""
        status, answer = await self.call(method, path, body)
        assert status == 400 and answer["msg"] and answer["error"]["log_id"], answer
        return int(answer["code"])

    async def new_token(self, **changes: Any) -> Any:
        login = {"app_id": self.sim.app_id, "app_secret": self.sim.app_secret}
        async with self.http.post(self.sim.base_url + TOKEN, json=login | changes) as answer:
            assert answer.status == 200
            return await answer.json()

    async def discover(self, **changes: Any) -> Any:
        body = {"AppID": self.sim.app_id, "AppSecret": self.sim.app_secret} | changes
        url = self.sim.base_url + "/callback/ws/endpoint"
        async with self.http.post(url, json=body) as answer:
            return await answer.json() if answer.status == 200 else answer.status

    async def link(self) -> Socket:
        found = await self.discover()
        url = found["data"]["URL"]
        service = int(url.split("service_id=")[1].split("&")[0])
        before = self.sim.opened
        socket = Socket(await self.http.ws_connect(url), service)
        self.sockets.append(socket)
        await self.sim.wait_for(lambda: self.sim.opened > before)
        return socket

    async def send(self, chat: Any, kind: str, content: Any, **more: Any) -> tuple[int, Any]:
        body = {"receive_id": chat.id, "msg_type": kind, "content": json.dumps(content)} | more
        return await self.call("POST", MESSAGES + "?receive_id_type=chat_id", body)

    async def sent(self, chat: Any, kind: str, content: Any, **more: Any) -> str:
        """The id of a message that was sent."""
        _, answer = await self.send(chat, kind, content, **more)
        assert answer["code"] == 0, answer
        return str(answer["data"]["message_id"])

    async def refused(self, chat: Any, kind: str, content: Any, **more: Any) -> int:
        status, answer = await self.send(chat, kind, content, **more)
        assert status == 400, answer
        return int(answer["code"])

    def reply_to(self, message: str) -> str:
        return f"{MESSAGES}/{message}/reply"

    async def create(self, card: Any) -> str:
        body = {"type": "card_json", "data": json.dumps(card)}
        return str((await self.good("POST", CARDS, body))["card_id"])

    async def show(self, chat: Any, card: Any) -> tuple[str, str]:
        """(card id, message id) of a card created and sent."""
        card_id = await self.create(card)
        content = {"type": "card", "data": {"card_id": card_id}}
        return card_id, await self.sent(chat, "interactive", content)

    async def close(self) -> None:
        for socket in self.sockets:
            socket.task.cancel()
        await asyncio.gather(*(s.task for s in self.sockets), return_exceptions=True)
        for socket in self.sockets:
            await socket.ws.close()
        await self.http.close()


def content_path(card: str, element: str = "answer") -> str:
    return f"{CARDS}/{card}/elements/{element}/content"


def markdown(content: str, element: str = "answer", **more: Any) -> dict[str, Any]:
    return {"tag": "markdown", "element_id": element, "content": content, **more}


def button(element: str = "stop", **more: Any) -> dict[str, Any]:
    return {
        "tag": "button",
        "element_id": element,
        "text": {"tag": "plain_text", "content": element.title()},
        "behaviors": [{"type": "callback", "value": {"action": element}}],
        **more,
    }


def card_of(*elements: Any, streaming: bool = False, **config: Any) -> dict[str, Any]:
    settings = {"streaming_mode": streaming, **config}
    return {"schema": "2.0", "config": settings, "body": {"elements": list(elements)}}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(settle=0.003)


@pytest.fixture
async def sim(clock: VirtualClock) -> AsyncIterator[FeishuSim]:
    async with FeishuSim(clock) as sim:
        yield sim


@pytest.fixture
async def client(sim: FeishuSim) -> AsyncIterator[Client]:
    client = Client(sim)
    yield client
    await client.close()


@pytest.fixture
def ann(sim: FeishuSim) -> SimPerson:
    return sim.add_person("Ann")


@pytest.fixture
def bob(sim: FeishuSim) -> SimPerson:
    return sim.add_person("Bob")


@pytest.fixture
def group(sim: FeishuSim, ann: SimPerson, bob: SimPerson) -> Any:
    return sim.add_group("Team", [ann, bob])


# ---------------------------------------------------------------- frames (appendix A)

EVENT_HEADERS = [("type", "event"), ("message_id", "m1"), ("sum", "1"), ("seq", "0")]
VECTORS = {
    "08001000187b20002a0c0a0474797065120470696e67": Frame(0, 0, 123, 0, [("type", "ping")]),
    "08001000187b20002a0c0a04747970651204706f6e6742137b2250696e67496e74657276616c223a39307d": (
        Frame(0, 0, 123, 0, [("type", "pong")], b'{"PingInterval":90}')
    ),
    "080110ac02187b20012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a080a"
    "0373756d1201312a080a037365711201302a0e0a0874726163655f6964120274312a0c0a0662697a5f72741202"
    "3132420c7b22636f6465223a3230307d": (
        Frame(
            1,
            300,
            123,
            1,
            [*EVENT_HEADERS, ("trace_id", "t1"), ("biz_rt", "12")],
            b'{"code":200}',
        )
    ),
    "0800100018012000": Frame(0, 0, 1, 0),
}


@pytest.mark.parametrize("hexed", VECTORS)
def test_frames_are_those_of_the_reference(hexed: str) -> None:
    assert encode(VECTORS[hexed]).hex() == hexed
    assert decode(bytes.fromhex(hexed)) == VECTORS[hexed]


def test_a_frame_with_everything_survives() -> None:
    frame = Frame(2**64 - 1, 2**63, -1, 1, [("k", "值"), ("k", "")], b"\0\xff", "e", "t", "new")
    assert decode(encode(frame)) == frame


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    unknown = b"\x50\x07" + b"\x59" + b"12345678" + b"\x62\x01x" + b"\x6d" + b"1234"
    assert decode(unknown + encode(Frame(1, 2, 3, 1))) == Frame(1, 2, 3, 1)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        encode(Frame(0, 0, 1, 0))[:-2],  # no method: proto3 leaves a zero out
        encode(Frame(0, 0, 1, 0))[:-1],
        encode(Frame(0, 0, 1, 0)) + b"\x42\x05ab",
        encode(Frame(0, 0, 1, 0)) + b"\x2a\x02\x0a\x00",  # a header without a value
        encode(Frame(0, 0, 1, 0)) + b"\x4a\x01\xff",
        encode(Frame(0, 0, 1, 0)) + b"\x40\x01",  # the payload as a number
        encode(Frame(0, 0, 1, 0)) + b"\x53",  # a group
        b"\x08" + b"\xff" * 11,
        b"\x00\x00",
    ],
)
def test_what_is_no_frame_is_refused(junk: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(junk)


# ---------------------------------------------------------------- discovery and handshake


async def test_discovery_gives_a_url_and_the_intervals(sim: FeishuSim, client: Client) -> None:
    found = await client.discover()
    assert (found["code"], found["data"]["URL"][:5]) == (0, "ws://")
    assert found["data"]["ClientConfig"] == {
        "ReconnectCount": -1,
        "ReconnectInterval": 120,
        "ReconnectNonce": 30,
        "PingInterval": 120,
    }


async def test_discovery_wants_capital_names_and_the_right_secret(client: Client) -> None:
    assert (await client.discover(AppSecret="no"))["code"] == 514
    small = await client.discover(AppID=None, app_id=client.sim.app_id)
    assert small["code"] == 514


async def test_refusals_of_discovery(sim: FeishuSim, client: Client) -> None:
    sim.refuse_links(1000040350)
    assert "exceeded the limit" in (await client.discover())["msg"]
    sim.refuse_links(status=500)
    assert await client.discover() == 500
    sim.accept_links()
    assert (await client.discover())["code"] == 0


async def refused_dial(client: Client, url: str) -> Any:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await client.http.ws_connect(url)
    return refusal.value.headers


async def test_a_ticket_opens_one_link_within_its_time(
    sim: FeishuSim, client: Client, clock: VirtualClock
) -> None:
    url = (await client.discover())["data"]["URL"]
    socket = await client.http.ws_connect(url)
    assert (await refused_dial(client, url))["Handshake-Status"] == "514"
    await socket.close()

    late = (await client.discover())["data"]["URL"]
    await clock.advance(61)
    await refused_dial(client, late)
    assert (await refused_dial(client, sim.base_url + "/ws/v2"))["Handshake-Msg"]


async def test_more_links_than_allowed(sim: FeishuSim, client: Client) -> None:
    sim.policy.most_links = 1
    early = (await client.discover())["data"]["URL"]
    await client.link()
    assert (await client.discover())["code"] == 1000040350
    assert (await refused_dial(client, early))["Handshake-Autherrcode"] == "1000040350"
    sim.policy.most_links = 2
    sim.refuse_links(403, handshake=True)
    url = (await client.discover())["data"]["URL"]
    assert (await refused_dial(client, url))["Handshake-Status"] == "403"


# ---------------------------------------------------------------- pings


async def test_pongs_bring_the_intervals(sim: FeishuSim, client: Client) -> None:
    socket = await client.link()
    await socket.ping()
    await sim.wait_for(lambda: socket.frames)
    sim.policy.pong_config = False
    await socket.ping()
    await sim.wait_for(lambda: len(socket.frames) == 2)
    assert [frame.header("type") for frame in socket.frames] == ["pong", "pong"]
    assert json.loads(socket.frames[0].payload)["PingInterval"] == 120
    assert (socket.frames[1].payload, len(sim.links[0].pings), sim.violations) == (b"", 2, [])


@pytest.mark.parametrize(
    "change", [{"seq_id": 1}, {"service": 1}, {"payload": b"x"}, {"headers": [("type", "hi")]}]
)
async def test_a_wrong_ping_is_blamed(
    sim: FeishuSim, client: Client, change: dict[str, Any]
) -> None:
    await (await client.link()).ping(**change)
    await sim.wait_for(lambda: sim.violations)


async def test_a_link_that_never_pings_is_dropped(
    sim: FeishuSim, client: Client, clock: VirtualClock
) -> None:
    sim.policy.drop_idle_after = 240
    lazy, eager = await client.link(), await client.link()
    for _ in range(3):
        await eager.ping()
        await clock.advance(100)
    await sim.wait_for(lambda: lazy.closed)
    assert (len(sim.links), eager.closed) == (1, False)
    assert sim.violations == ["link: no ping for too long"]


async def test_junk_on_a_link_is_blamed_and_the_link_lives(sim: FeishuSim, client: Client) -> None:
    socket = await client.link()
    await socket.ws.send_bytes(b"\xff")
    await socket.ws.send_str("hello")
    await socket.ping()
    await sim.wait_for(lambda: socket.frames)
    assert len(sim.violations) == 2


# ---------------------------------------------------------------- deliveries


async def test_an_acknowledged_event_comes_once(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson
) -> None:
    socket = await client.link()
    asked = await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await sim.wait_for(lambda: sim.acks["e1"])
    await clock.advance(90_000)
    [event] = socket.events()
    assert event["schema"] == "2.0"
    assert event["header"]["event_id"] == "e1"
    assert event["header"]["create_time"] == str(int(sim.bubbles(sim.p2p(ann))[0].at * 1000))
    message = event["event"]["message"]
    assert (message["message_id"], message["chat_type"]) == (asked, "p2p")
    assert json.loads(message["content"]) == {"text": "hello"}
    headers = dict(socket.data()[0].headers)
    assert headers["type"] == "event" and headers["message_id"] != asked
    assert {"sum", "seq", "trace_id", "timestamp", "instance_id"} <= headers.keys()
    assert sim.violations == []


@pytest.mark.parametrize("answer", [None, b'{"code":500}', b"[]", b'{"code":200,"data":[1]}'])
async def test_the_schedule_of_repeats(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson, answer: bytes | None
) -> None:
    socket = await client.link()
    socket.answer = lambda _: answer
    start = clock.monotonic()
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await clock.advance(8 * 3600)
    await sim.wait_for(lambda: sim.lost)
    assert [push.sent_at - start for push in sim.pushes] == [0, 15, 315, 3915, 25515]
    assert {event["header"]["event_id"] for event in socket.events()} == {"e1"}
    assert len({frame.header("message_id") for frame in socket.data()}) == 5
    assert (sim.lost, sim.acks) == (["e1"], {"e1": None})


async def test_a_late_ack_counts_for_nothing(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson
) -> None:
    socket = await client.link()
    socket.answer = lambda _: None
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await clock.advance(4)
    assert [push.status for push in sim.pushes] == ["timeout"]
    await socket.ack(socket.data()[0], b'{"code":200}')
    await clock.advance(12)
    assert len(socket.data()) == 2
    assert sim.violations == []


async def test_an_ack_from_another_link_is_ignored(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson
) -> None:
    first, second = await client.link(), await client.link()
    for socket in (first, second):
        socket.answer = lambda _: None
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await sim.wait_for(lambda: first.data() or second.data())
    giver, other = (first, second) if first.data() else (second, first)
    await other.ack(giver.data()[0], b'{"code":200}')
    await clock.advance(4)
    assert sim.acks["e1"] is None


def forget_header(frame: Frame) -> None:
    frame.headers = [pair for pair in frame.headers if pair[0] != "instance_id"]


def other_sequence(frame: Frame) -> None:
    frame.seq_id += 1


def lost_log_id(frame: Frame) -> None:
    frame.log_id_new = "other"


def wrong_time(frame: Frame) -> None:
    frame.headers[-1] = ("biz_rt", "soon")


@pytest.mark.parametrize("spoil", [forget_header, other_sequence, lost_log_id, wrong_time])
async def test_an_ack_that_is_no_echo_counts_for_nothing(
    sim: FeishuSim, client: Client, ann: SimPerson, spoil: Callable[[Frame], None]
) -> None:
    socket = await client.link()
    socket.spoil = spoil
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await sim.wait_for(lambda: sim.pushes[0].status == "malformed")
    assert sim.acks["e1"] is None and len(sim.violations) == 1


async def test_a_second_ack_is_blamed(sim: FeishuSim, client: Client, ann: SimPerson) -> None:
    socket = await client.link()
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await sim.wait_for(lambda: sim.acks["e1"])
    await socket.ack(socket.data()[0], b'{"code":200}')
    await sim.wait_for(lambda: sim.violations)


async def test_a_cut_link_fails_what_it_had_and_the_next_one_gets_it(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson
) -> None:
    socket = await client.link()
    socket.answer = lambda _: None
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    assert sim.cut_links() == 1
    await sim.wait_for(lambda: sim.pushes[0].status == "lost")
    fresh = await client.link()
    await clock.advance(15)
    await sim.wait_for(lambda: sim.acks["e1"])
    assert len(fresh.data()) == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_without_a_link_events_wait(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson, at_once: bool
) -> None:
    sim.policy.repeat_on_connect = at_once
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    assert sim.pushes[0].status == "unsent"
    socket = await client.link()
    await clock.advance(1)
    assert len(socket.data()) == at_once
    await clock.advance(15)
    assert len(socket.data()) == 1


async def test_repeats_may_have_new_event_ids_and_old_frame_ids(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson
) -> None:
    sim.policy.new_event_id, sim.policy.new_frame_id = True, False
    socket = await client.link()
    socket.answer = lambda _: None
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await clock.advance(16)
    first, second = socket.events()
    assert first["header"]["event_id"] != second["header"]["event_id"]
    assert first["event"] == second["event"]
    assert len({frame.header("message_id") for frame in socket.data()}) == 1


async def test_duplicates_on_order(sim: FeishuSim, client: Client, ann: SimPerson) -> None:
    socket = await client.link()
    await sim.say(sim.p2p(ann), ann, "hello", times=3, event_id="e1")
    await sim.wait_for(lambda: len(socket.data()) == 3)
    assert len({json.dumps(event) for event in socket.events()}) == 1


async def test_links_share_the_load(sim: FeishuSim, client: Client, ann: SimPerson) -> None:
    sockets = [await client.link(), await client.link()]
    for number in range(30):
        await sim.say(sim.p2p(ann), ann, str(number))
    await sim.wait_for(lambda: sum(len(socket.data()) for socket in sockets) == 30)
    assert all(socket.data() for socket in sockets)


@pytest.mark.parametrize("pongs", [False, True])
async def test_a_muted_link_hears_nothing(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson, pongs: bool
) -> None:
    socket = await client.link()
    sim.mute_links(pongs=pongs)
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await socket.ping()
    await sim.wait_for(lambda: sim.links[0].pings)
    await clock.advance(4)
    assert [frame.method for frame in socket.frames] == [codec.CONTROL] * pongs
    assert sim.pushes[0].status == "timeout" and not socket.closed


async def test_a_half_open_link_reads_nothing(sim: FeishuSim, client: Client) -> None:
    socket = await client.link()
    sim.mute_links(half_open=True)
    await socket.ping()
    await asyncio.sleep(0.02)
    assert sim.links[0].pings == []


async def test_links_are_closed_with_a_code(sim: FeishuSim, client: Client) -> None:
    socket = await client.link()
    await sim.close_links(1001)
    await sim.wait_for(lambda: socket.closed and not sim.links)
    assert socket.ws.close_code == 1001


async def test_fragments_in_any_order_make_one_event(
    sim: FeishuSim, client: Client, ann: SimPerson
) -> None:
    sim.policy.fragment_bytes, sim.policy.fragment_shuffle = 7, True
    sim.policy.fragment_twice = True
    socket = await client.link()
    heard: list[Any] = []

    def hear(event: Any) -> bytes:
        heard.append(event)
        return b'{"code":200}'

    socket.answer = hear
    await sim.say(sim.p2p(ann), ann, "你好" * 20, event_id="e1")
    await sim.wait_for(lambda: sim.acks["e1"])
    assert json.loads(heard[0]["event"]["message"]["content"])["text"] == "你好" * 20
    pieces = [frame.payload for frame in socket.data()]
    assert max(map(len, pieces)) == 7 and len(pieces) == len(sim.pushes[0].frames) + 1
    assert sim.violations == []


async def test_a_lost_fragment_loses_the_delivery(
    sim: FeishuSim, client: Client, clock: VirtualClock, ann: SimPerson
) -> None:
    sim.policy.fragment_bytes, sim.policy.lose_fragments = 100, 1
    await client.link()
    await sim.say(sim.p2p(ann), ann, "hello", event_id="e1")
    await clock.advance(14)
    assert sim.acks["e1"] is None
    await clock.advance(2)
    assert sim.acks["e1"]


# ---------------------------------------------------------------- what people say


async def heard(sim: FeishuSim, socket: Socket, *say: Any, **how: Any) -> Any:
    """The event's message of one thing that is said."""
    before = len(socket.data())
    await sim.say(*say, **how)
    await sim.wait_for(lambda: len(socket.data()) > before)
    return socket.messages()[-1]


async def test_mentions_are_numbered_where_they_stand(
    sim: FeishuSim, client: Client, ann: SimPerson, bob: SimPerson, group: Any
) -> None:
    socket = await client.link()
    message = await heard(
        sim, socket, group, ann, "ask @Bob please", mention_bot=True, mentions=[bob]
    )
    assert json.loads(message["content"])["text"] == "@_user_1 ask @_user_2 please"
    first, second = message["mentions"]
    assert (first["key"], first["id"]["open_id"]) == ("@_user_1", sim.bot_open_id)
    assert (second["key"], second["name"], second["mentioned_type"]) == ("@_user_2", "Bob", "user")
    assert second["id"] == {"open_id": bob.id, "union_id": bob.union_id}
    [bubble] = sim.bubbles(group)
    assert (bubble.text, bubble.pings) == ("@鹊桥 ask @Bob please", [bob.id])


async def test_at_all_has_no_mentions(
    sim: FeishuSim, client: Client, ann: SimPerson, group: Any
) -> None:
    socket = await client.link()
    message = await heard(sim, socket, group, ann, "hi", mention_all=True)
    assert json.loads(message["content"])["text"] == "@_all hi"
    assert "mentions" not in message
    sim.policy.all_in_mentions = True
    message = await heard(sim, socket, group, ann, "hi", mention_all=True)
    assert [mention["key"] for mention in message["mentions"]] == ["@_all"]
    assert sim.bubbles(group)[0].pings == ["all"]


async def test_group_talk_reaches_the_bot_by_scope_only(
    sim: FeishuSim, client: Client, ann: SimPerson, group: Any
) -> None:
    socket = await client.link()
    await sim.say(group, ann, "among us")
    sim.policy.hears_all = True
    message = await heard(sim, socket, group, ann, "to all")
    assert [json.loads(m["content"])["text"] for m in socket.messages()] == ["to all"]
    assert message["chat_type"] == "group"
    assert len(sim.bubbles(group)) == 2


@pytest.mark.parametrize(
    ("absent", "form"), [("absent", {}), ("null", {"root_id": None}), ("empty", {"root_id": ""})]
)
async def test_optional_fields_are_left_out_in_three_ways(
    sim: FeishuSim, client: Client, ann: SimPerson, absent: Any, form: Any
) -> None:
    sim.policy.absent = absent
    socket = await client.link()
    message = await heard(sim, socket, sim.p2p(ann), ann, "hello")
    assert {key: message[key] for key in message if key == "root_id"} == form


async def test_the_user_id_needs_its_scope(sim: FeishuSim, client: Client, ann: SimPerson) -> None:
    socket = await client.link()
    await heard(sim, socket, sim.p2p(ann), ann, "hello")
    sim.policy.show_user_id = True
    await heard(sim, socket, sim.p2p(ann), ann, "hello")
    ids = [event["event"]["sender"]["sender_id"] for event in socket.events()]
    assert ids[0] == {"open_id": ann.id, "union_id": ann.union_id}
    assert ids[1] == ids[0] | {"user_id": ann.user_id}


async def test_posts_carry_paragraphs_without_a_locale(
    sim: FeishuSim, client: Client, ann: SimPerson, group: Any
) -> None:
    socket = await client.link()
    message = await heard(sim, socket, group, ann, "one\ntwo", kind="post", mention_bot=True)
    content = json.loads(message["content"])
    assert [[piece["tag"] for piece in row] for row in content["content"]] == [
        ["at", "text"],
        ["text"],
    ]
    assert content["content"][0][0]["user_id"] == "@_user_1"
    assert sim.bubbles(group)[0].text == "@鹊桥 one\ntwo"


@pytest.mark.parametrize("kind", ["image", "file", "audio", "media", "sticker", "merge_forward"])
async def test_other_kinds_have_their_content(
    sim: FeishuSim, client: Client, ann: SimPerson, kind: str
) -> None:
    socket = await client.link()
    message = await heard(sim, socket, sim.p2p(ann), ann, kind=kind)
    assert message["message_type"] == kind
    assert json.loads(message["content"])
    assert sim.bubbles(sim.p2p(ann))[0].text == f"[{kind}]"


async def test_content_may_be_anything(sim: FeishuSim, client: Client, ann: SimPerson) -> None:
    socket = await client.link()
    message = await heard(sim, socket, sim.p2p(ann), ann, kind="text", content="{broken")
    assert message["content"] == "{broken"


async def test_quotes_and_threads_have_their_ids(
    sim: FeishuSim, client: Client, ann: SimPerson
) -> None:
    socket, chat = await client.link(), sim.p2p(ann)
    first = await heard(sim, socket, chat, ann, "first")
    quote = await heard(sim, socket, chat, ann, "quote", reply_to=first["message_id"])
    assert quote["root_id"] == quote["parent_id"] == first["message_id"]
    assert "thread_id" not in quote
    deeper = await heard(sim, socket, chat, ann, "deeper", reply_to=quote["message_id"])
    assert (deeper["root_id"], deeper["parent_id"]) == (first["message_id"], quote["message_id"])

    thread = sim.open_thread(first["message_id"])
    inside = await heard(sim, socket, chat, ann, "inside", thread=thread)
    again = await heard(sim, socket, chat, ann, "again", reply_to=inside["message_id"])
    for message in (inside, again):
        assert message["thread_id"] == thread
        assert message["root_id"] == message["parent_id"] == first["message_id"]
    assert sim.world.bubbles[again["message_id"]].thread == thread


async def test_a_topic_group_opens_a_topic_for_each_message(
    sim: FeishuSim, client: Client, ann: SimPerson
) -> None:
    topics, socket = sim.add_group("Topics", [ann], topic=True), await client.link()
    first = await heard(sim, socket, topics, ann, "first", mention_bot=True)
    second = await heard(sim, socket, topics, ann, "second", mention_bot=True)
    assert first["thread_id"] != second["thread_id"]
    sim.policy.topic_root_only = True
    third = await heard(
        sim, socket, topics, ann, "third", mention_bot=True, thread=first["thread_id"]
    )
    assert (third["root_id"], "thread_id" in third) == (first["message_id"], False)


async def test_everybody_has_one_private_chat(
    sim: FeishuSim, ann: SimPerson, bob: SimPerson, group: Any
) -> None:
    assert sim.p2p(ann) is sim.p2p(ann.id)
    assert len({sim.p2p(ann).id, sim.p2p(bob).id, sim.add_group("Solo", [ann]).id}) == 3
    assert sim.p2p(ann).kind == "p2p"


async def test_ids_look_real_and_never_repeat(sim: FeishuSim, ann: SimPerson, group: Any) -> None:
    assert (ann.id[:3], ann.union_id[:3], group.id[:3]) == ("ou_", "on_", "oc_")
    said = {await sim.say(group, ann, "hello") for _ in range(50)}
    assert len(said) == 50 and all(name.startswith("om_") for name in said)


async def test_a_recall_is_an_event_and_empties_the_bubble(
    sim: FeishuSim, client: Client, ann: SimPerson, group: Any
) -> None:
    socket = await client.link()
    asked = await sim.say(group, ann, "hello", mention_bot=True)
    await sim.recall(asked)
    await sim.wait_for(lambda: len(socket.data()) == 2)
    event = socket.events()[1]
    assert event["header"]["event_type"] == "im.message.recalled_v1"
    assert event["event"]["message_id"] == asked
    [bubble] = sim.bubbles(group)
    assert bubble.recalled and bubble.blocks == []
    body = {"msg_type": "text", "content": '{"text":"a"}'}
    assert await client.code("POST", client.reply_to(asked), body) == 230011
    emoji = {"reaction_type": {"emoji_type": "DONE"}}
    assert await client.code("POST", f"{MESSAGES}/{asked}/reactions", emoji) == 231003


async def test_a_watcher_gets_copies(sim: FeishuSim, ann: SimPerson, group: Any) -> None:
    queue = sim.subscribe()
    asked = await sim.say(group, ann, "hello")
    await sim.recall(asked)
    first, second = queue.get_nowait(), queue.get_nowait()
    assert first[0] == group.id
    assert (first[1].recalled, second[1].recalled, second[1].frames) == (False, True, 2)
    sim.unsubscribe(queue)
    await sim.say(group, ann, "more")
    assert queue.empty()


# ---------------------------------------------------------------- tokens and the gateway


async def test_a_token_is_kept_until_half_an_hour_before_its_end(
    client: Client, clock: VirtualClock
) -> None:
    first = await client.new_token()
    await clock.advance(5000)
    second = await client.new_token()
    assert second["tenant_access_token"] == first["tenant_access_token"]
    assert (first["expire"], second["expire"]) == (7200, 2200)
    await clock.advance(500)
    third = await client.new_token()
    assert third["tenant_access_token"] != first["tenant_access_token"]
    for token in (first, third):
        client.token = token["tenant_access_token"]
        assert (await client.call("GET", "/open-apis/bot/v3/info"))[0] == 200
    await clock.advance(1800)
    client.token = first["tenant_access_token"]
    assert await client.code("GET", "/open-apis/bot/v3/info") == 99991663


async def test_refused_logins_come_with_status_200(client: Client) -> None:
    assert (await client.new_token(app_id="cli_other"))["code"] == 10014
    assert (await client.new_token(app_secret="no"))["code"] == 10015
    assert (await client.new_token(app_secret=""))["code"] == 10003


@pytest.mark.parametrize(
    ("header", "code"),
    [("", 99991661), ("Bearer", 99991661), ("Bearer u-1", 99991671), ("Bearer t-1", 99991663)],
)
async def test_calls_want_a_living_token(client: Client, header: str, code: int) -> None:
    await client.good("GET", f"{MESSAGES}?container_id_type=thread&container_id=omt_1")
    how = {"headers": {"Authorization": header}}
    status, answer = await client.call("GET", "/open-apis/bot/v3/info", **how)
    assert (status, answer["code"]) == (400, code)


@pytest.mark.parametrize("status", [200, 400])
async def test_revoked_tokens_are_refused(sim: FeishuSim, client: Client, status: int) -> None:
    sim.policy.stale_status = status
    await client.call("GET", "/open-apis/bot/v3/info")
    sim.revoke_tokens()
    answer = await client.call("GET", "/open-apis/bot/v3/info")
    assert (answer[0], answer[1]["code"]) == (status, 99991663)
    client.token = ""
    assert (await client.call("GET", "/open-apis/bot/v3/info"))[0] == 200


async def test_the_bot_stands_at_top_level(sim: FeishuSim, client: Client) -> None:
    _, answer = await client.call("GET", "/open-apis/bot/v3/info")
    assert answer["bot"]["open_id"] == sim.bot_open_id and "data" not in answer


async def test_an_unknown_path_is_404(sim: FeishuSim, client: Client) -> None:
    status, answer = await client.call("POST", "/open-apis/im/v2/messages", {})
    assert (status, answer["code"]) == (404, 99991201)
    assert len(sim.violations) == 1


async def test_a_body_is_a_json_object(sim: FeishuSim, client: Client, group: Any) -> None:
    assert await client.code("POST", CARDS, [1]) == 99992402
    url, headers = sim.base_url + CARDS, {"Authorization": f"Bearer {client.token}"}
    async with client.http.post(url, data=b"{}", headers=headers) as answer:
        assert (await answer.json())["code"] == 99992402
    assert len(sim.violations) == 2


async def test_the_gateway_counts_per_second_and_per_minute(
    sim: FeishuSim, client: Client, clock: VirtualClock
) -> None:
    path = f"{MESSAGES}?container_id_type=thread&container_id=omt_1"
    for _ in range(20):
        for _ in range(50):
            await client.good("GET", path)
        status, answer = await client.call("GET", path)
        assert (status, answer["code"]) == (429, 99991400)
        assert client.headers["x-ogw-ratelimit-limit"] in ("50", "1000")
        await clock.advance(1)
    status, answer = await client.call("GET", path)
    assert (status, answer["code"]) == (429, 99991400)
    assert client.headers["x-ogw-ratelimit-reset"] == "40"
    assert (await client.call("GET", "/open-apis/bot/v3/info"))[0] == 200
    assert len(sim.violations) == 21
    await clock.advance(40)
    await client.good("GET", path)


async def test_limits_can_be_off(clock: VirtualClock) -> None:
    async with FeishuSim(clock, strict_limits=False) as sim:
        client = Client(sim)
        chat = sim.p2p(sim.add_person("Ann"))
        for _ in range(60):
            await client.sent(chat, "text", {"text": "a"})
        card, _ = await client.show(chat, card_of(markdown("a"), streaming=True))
        for sequence in range(1, 20):
            body = {"content": "a", "sequence": sequence}
            await client.good("PUT", content_path(card), body)
        assert sim.violations == []
        await client.close()


async def test_missing_scopes_are_named(sim: FeishuSim, client: Client) -> None:
    sim.policy.missing_scopes = {"cardkit:card:write", "im:message"}
    body = {"type": "card_json", "data": json.dumps(card_of(markdown("a")))}
    _, answer = await client.call("POST", CARDS, body)
    assert answer["code"] == 99991672
    assert answer["error"]["permission_violations"][0]["subject"] == "cardkit:card:write"
    assert sim.app_id in answer["error"]["helps"][0]["url"]
    await client.good("GET", f"{MESSAGES}?container_id_type=thread&container_id=omt_1")


async def test_the_month_runs_out(sim: FeishuSim, client: Client) -> None:
    path = f"{MESSAGES}?container_id_type=thread&container_id=omt_1"
    sim.policy.quota = 1
    await client.good("GET", path)
    assert await client.code("GET", path) == 99991403


# ---------------------------------------------------------------- faults


async def test_faults_by_route(
    sim: FeishuSim, client: Client, clock: VirtualClock, group: Any
) -> None:
    body = {"code": 230020, "msg": "x", "error": {"log_id": "1"}}
    sim.faults.order(wire.SEND, Fault("status", status=400, body=body))
    url = f"{sim.base_url}{MESSAGES}?receive_id_type=chat_id"
    send = {"receive_id": group.id, "msg_type": "text", "content": '{"text":"a"}', "uuid": "u"}
    await client.call("GET", "/open-apis/bot/v3/info")
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.http.post(url, json=send, headers=headers) as answer:
        assert (await answer.json())["code"] == 230020
    for kind, effect in (("drop", 0), ("lose", 1)):
        sim.faults.order(wire.SEND, Fault(kind))  # type: ignore[arg-type]
        with pytest.raises(aiohttp.ClientError):
            await client.http.post(url, json=send, headers=headers)
        assert len(sim.bot_bubbles(group)) == effect
    assert (await client.sent(group, "text", {"text": "a"}, uuid="u")) in sim.world.messages
    assert len(sim.bot_bubbles(group)) == 1
    assert [call.status for call in sim.calls_of(wire.SEND)] == [400, 0, 0, 200]
    sim.faults.order(wire.DISCOVER, Fault("html"))
    assert await client.discover() == 502


async def test_latency_is_on_the_clock(sim: FeishuSim, client: Client, clock: VirtualClock) -> None:
    await client.call("GET", "/open-apis/bot/v3/info")
    sim.policy.latency = 5
    call = asyncio.create_task(client.call("GET", "/open-apis/bot/v3/info"))
    await clock.advance(4.9)
    assert not call.done()
    await clock.advance(0.2)
    assert (await call)[0] == 200


# ---------------------------------------------------------------- sending


async def test_a_text_is_seen_and_pings_whom_it_names(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    words = f'hi <at user_id="{ann.id}">x</at> <b>bold</b> &lt; <at user_id="all"></at>'
    message = await client.sent(group, "text", {"text": words})
    [bubble] = sim.bubbles(group)
    assert (bubble.id, bubble.author) == (message, f"bot:{sim.app_id}")
    assert bubble.text == "hi @Ann bold &lt; @所有人"
    assert bubble.pings == [ann.id, "all"]


async def test_the_answer_of_a_send(client: Client, sim: FeishuSim, group: Any) -> None:
    _, answer = await client.send(group, "text", {"text": "a"})
    data = answer["data"]
    assert data["sender"]["id"] == sim.app_id
    assert (data["chat_id"], data["msg_type"]) == (group.id, "text")
    assert data["body"] == {"content": '{"text": "a"}'}
    assert "root_id" not in data


async def test_one_message_per_uuid_and_hour(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    first = await client.sent(group, "text", {"text": "a"}, uuid="u")
    assert await client.sent(group, "text", {"text": "other"}, uuid="u") == first
    await clock.advance(3599)
    assert await client.sent(group, "text", {"text": "a"}, uuid="u") == first
    await clock.advance(2)
    assert await client.sent(group, "text", {"text": "a"}, uuid="u") != first
    assert await client.sent(group, "text", {"text": "a"}) != first
    assert [bubble.text for bubble in sim.bubbles(group)] == ["a", "a", "a"]
    assert await client.refused(group, "text", {"text": "a"}, uuid="u" * 51) == 99992402


async def test_a_refused_send_leaves_its_uuid_free(
    client: Client, sim: FeishuSim, group: Any
) -> None:
    sim.refuse_in(group, 230035)
    assert await client.refused(group, "text", {"text": "a"}, uuid="u") == 230035
    sim.refuse_in(group, 0)
    await client.sent(group, "text", {"text": "a"}, uuid="u")


async def test_a_uuid_in_flight(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    await client.call("GET", "/open-apis/bot/v3/info")
    sim.policy.send_seconds = 1
    first = asyncio.create_task(client.sent(group, "text", {"text": "a"}, uuid="u"))
    await sim.wait_for(lambda: sim.calls_of(wire.SEND))
    await asyncio.sleep(0.01)
    assert await client.refused(group, "text", {"text": "a"}, uuid="u") == 230049
    await clock.advance(1)
    assert await first


async def test_receivers_of_every_kind(client: Client, sim: FeishuSim, ann: SimPerson) -> None:
    body = {"msg_type": "text", "content": '{"text":"a"}'}
    for kind, receiver in (("open_id", ann.id), ("union_id", ann.union_id), ("user_id", "x")):
        path = f"{MESSAGES}?receive_id_type={kind}"
        _status, answer = await client.call("POST", path, body | {"receive_id": receiver})
        assert answer["code"] == (0 if receiver != "x" else 230034)
    assert len(sim.bubbles(sim.p2p(ann))) == 2
    other = {**body, "receive_id": "ou_other"}
    assert await client.code("POST", MESSAGES + "?receive_id_type=open_id", other) == 99992361
    gone = {**body, "receive_id": "oc_other"}
    assert await client.code("POST", MESSAGES + "?receive_id_type=chat_id", gone) == 230002
    assert await client.code("POST", MESSAGES, gone) == 99992402


async def test_five_messages_a_second_and_chat(
    client: Client, sim: FeishuSim, clock: VirtualClock, ann: SimPerson, group: Any
) -> None:
    for _ in range(5):
        await client.sent(group, "text", {"text": "a"})
    assert await client.refused(group, "text", {"text": "a"}) == 230020
    assert "x-ogw-ratelimit-reset" not in client.headers
    await client.sent(sim.p2p(ann), "text", {"text": "a"})
    await clock.advance(1)
    await client.sent(group, "text", {"text": "a"})
    assert len(sim.violations) == 1


@pytest.mark.parametrize(
    ("kind", "content", "code"),
    [
        ("text", {"text": ""}, 230001),
        ("text", {"text": 1}, 230001),
        ("text", [1], 230001),
        ("poem", {"text": "a"}, 230001),
        ("text", {"text": "x" * 151 * 1024}, 230025),
        ("post", {"zh_cn": {"content": [[{"tag": "text", "text": "x" * 31_000}]]}}, 230025),
        ("post", {"post": {"zh_cn": {"content": [[]]}}}, 230001),
        ("post", {"zh_cn": {"content": []}}, 230001),
        ("post", {"zh_cn": {"content": [[{"tag": "b"}]]}}, 230001),
        ("post", {"zh_cn": {"content": [[{"tag": "a", "text": "x", "href": "x"}]]}}, 230001),
        (
            "post",
            {"zh_cn": {"content": [[{"tag": "md", "text": "x"}, {"tag": "text", "text": "y"}]]}},
            230001,
        ),
        ("image", {"image_key": "https://x"}, 230001),
        ("text", {"text": "forbidden word"}, 230028),
    ],
)
async def test_contents_that_are_refused(
    client: Client, sim: FeishuSim, group: Any, kind: str, content: Any, code: int
) -> None:
    sim.policy.unsafe_words = {"forbidden"}
    assert await client.refused(group, kind, content) == code
    assert sim.bubbles(group) == []
    assert bool(sim.violations) == (code != 230028)


async def test_content_travels_as_a_string(client: Client, group: Any) -> None:
    body = {"receive_id": group.id, "msg_type": "text", "content": {"text": "a"}}
    assert await client.code("POST", MESSAGES + "?receive_id_type=chat_id", body) == 99992402


async def test_a_post_is_seen(client: Client, sim: FeishuSim, ann: SimPerson, group: Any) -> None:
    rows = [
        [{"tag": "text", "text": "a"}, {"tag": "at", "user_id": ann.id}],
        [{"tag": "md", "text": "**b** &lt;at id=all&gt; <at id=all></at>"}],
        [{"tag": "a", "text": "l", "href": "https://x.y/z"}],
    ]
    await client.sent(group, "post", {"zh_cn": {"title": "T", "content": rows}})
    [bubble] = sim.bubbles(group)
    assert bubble.text == "T\na@Ann\n**b** <at id=all> @所有人\n[l](https://x.y/z)"
    assert bubble.pings == [ann.id, "all"]


@pytest.mark.parametrize("code", [230002, 232009, 230035])
async def test_chats_that_refuse(client: Client, sim: FeishuSim, group: Any, code: int) -> None:
    sim.refuse_in(group, code)
    assert await client.refused(group, "text", {"text": "a"}) == code


async def test_replies_stand_where_they_belong(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    asked = await sim.say(group, ann, "hello", mention_bot=True)
    body = {"msg_type": "text", "content": '{"text":"a"}'}
    plain = await client.good("POST", client.reply_to(asked), body)
    assert (plain["root_id"], plain["parent_id"]) == (asked, asked)
    assert "thread_id" not in plain
    assert sim.world.bubbles[plain["message_id"]].reply_to == asked

    opened = await client.good("POST", client.reply_to(asked), body | {"reply_in_thread": True})
    inside = await client.good("POST", client.reply_to(opened["message_id"]), body)
    assert inside["thread_id"] == opened["thread_id"] == sim.world.messages[asked].thread
    assert inside["root_id"] == inside["parent_id"] == asked
    assert sim.world.bubbles[asked].thread == opened["thread_id"]

    assert await client.code("POST", client.reply_to("om_other"), body) == 99992354
    group.threads = False
    fresh = await sim.say(group, ann, "hello", mention_bot=True)
    in_thread = body | {"reply_in_thread": True}
    assert await client.code("POST", client.reply_to(fresh), in_thread) == 230071
    wrong = body | {"reply_in_thread": "yes"}
    assert await client.code("POST", client.reply_to(fresh), wrong) == 99992402


async def test_a_send_into_a_topic_group_opens_a_topic(
    client: Client, sim: FeishuSim, ann: SimPerson
) -> None:
    topics = sim.add_group("Topics", [ann], topic=True)
    asked = await sim.say(topics, ann, "hello", mention_bot=True)
    body = {"msg_type": "text", "content": '{"text":"a"}'}
    reply = await client.good("POST", client.reply_to(asked), body)
    assert reply["thread_id"] == sim.world.messages[asked].thread
    message = await client.sent(topics, "text", {"text": "b"})
    assert sim.world.messages[message].thread not in ("", reply["thread_id"])


# ---------------------------------------------------------------- changing and reading


async def test_a_card_is_patched(
    client: Client, sim: FeishuSim, clock: VirtualClock, ann: SimPerson, group: Any
) -> None:
    message = await client.sent(group, "interactive", card_of(markdown("a")))
    path, fresh = f"{MESSAGES}/{message}", {"content": json.dumps(card_of(markdown("b")))}
    for _ in range(5):
        await client.good("PATCH", path, fresh)
    assert await client.code("PATCH", path, fresh) == 230020
    [bubble] = sim.bot_bubbles(group)
    assert (bubble.text, bubble.frames) == ("b", 2)

    alone = card_of(markdown("b"), update_multi=False)
    assert await client.code("PATCH", path, {"content": json.dumps(alone)}) == 230001
    await clock.advance(14 * 86400 + 1)
    client.token = ""
    assert await client.code("PATCH", path, fresh) == 230031


async def test_a_patch_is_checked_and_its_pace_kept(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    message = await client.sent(group, "interactive", card_of(markdown("a")))
    path, fresh = f"{MESSAGES}/{message}", {"content": json.dumps(card_of(markdown("b")))}
    bad = {"content": json.dumps(card_of({"tag": "note"}))}
    assert await client.code("PATCH", path, bad) == 230099
    big = {"content": json.dumps(card_of(markdown("x" * 31_000)))}
    assert await client.code("PATCH", path, big) == 230025
    await clock.advance(1)
    for _ in range(5):
        await client.good("PATCH", path, fresh)
    await clock.advance(1)
    await client.good("PATCH", path, fresh)
    assert sim.card(message).card["body"]["elements"][0]["content"] == "b"


async def test_what_cannot_be_patched(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    fresh = {"content": json.dumps(card_of(markdown("b")))}
    text = await client.sent(group, "text", {"text": "a"})
    assert await client.code("PATCH", f"{MESSAGES}/{text}", fresh) == 230054
    theirs = await sim.say(group, ann, "a")
    assert await client.code("PATCH", f"{MESSAGES}/{theirs}", fresh) == 230027
    mine = await client.sent(group, "interactive", card_of(markdown("a")))
    await client.good("DELETE", f"{MESSAGES}/{mine}")
    assert await client.code("PATCH", f"{MESSAGES}/{mine}", fresh) == 230110
    assert await client.code("DELETE", f"{MESSAGES}/{theirs}") == 230026


async def test_a_text_is_edited_twenty_times(client: Client, sim: FeishuSim, group: Any) -> None:
    message = await client.sent(group, "text", {"text": "0"})
    path = f"{MESSAGES}/{message}"
    for number in range(1, 21):
        body = {"msg_type": "text", "content": json.dumps({"text": str(number)})}
        await client.good("PUT", path, body)
    assert await client.code("PUT", path, body) == 230072
    assert sim.bot_bubbles(group)[0].text == "20"


async def test_messages_are_read_back(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    asked = await sim.say(group, ann, "hello", mention_bot=True)
    [item] = (await client.good("GET", f"{MESSAGES}/{asked}"))["items"]
    assert item["sender"]["id"] == ann.id
    assert item["mentions"][0]["id"] == sim.bot_open_id
    assert json.loads(item["body"]["content"]) == {"text": "@_user_1 hello"}
    await sim.recall(asked)
    [item] = (await client.good("GET", f"{MESSAGES}/{asked}"))["items"]
    assert item["deleted"] and "recalled" in item["body"]["content"]


async def test_history_comes_in_pages(
    client: Client, sim: FeishuSim, clock: VirtualClock, ann: SimPerson, group: Any
) -> None:
    said = []
    for number in range(5):
        said.append(await sim.say(group, ann, str(number)))
        await clock.advance(10)
    thread = sim.open_thread(said[0])
    inside = await sim.say(group, ann, "inside", thread=thread)
    path = f"{MESSAGES}?container_id_type=chat&container_id={group.id}&page_size=2"
    found, token = [], "0"
    while token:
        page = await client.good("GET", f"{path}&page_token={token}")
        found += [item["message_id"] for item in page["items"]]
        token = page["page_token"] if page["has_more"] else ""
    assert found == said
    since = int(sim.world.messages[said[3]].at)
    page = await client.good("GET", f"{path}&start_time={since}&sort_type=ByCreateTimeDesc")
    assert [item["message_id"] for item in page["items"]] == [said[4], said[3]]
    path = f"{MESSAGES}?container_id_type=thread&container_id={thread}"
    page = await client.good("GET", path)
    assert [item["message_id"] for item in page["items"]] == [said[0], inside]
    for wrong in ("page_size=51", "page_size=0", "page_size=x", "start_time=x"):
        assert await client.code("GET", f"{path}&{wrong}") == 99992402


async def test_reactions(client: Client, sim: FeishuSim, ann: SimPerson, group: Any) -> None:
    asked = await sim.say(group, ann, "hello")
    path = f"{MESSAGES}/{asked}/reactions"
    body = {"reaction_type": {"emoji_type": "Typing"}}
    first = await client.good("POST", path, body)
    assert (await client.good("POST", path, body))["reaction_id"] == first["reaction_id"]
    await sim.react(asked, ann, "OK")
    assert sim.bubbles(group)[0].reactions == ["Typing", "OK"]
    theirs = (await client.good("GET", path + "?reaction_type=OK"))["items"][0]["reaction_id"]
    assert await client.code("DELETE", f"{path}/{theirs}") == 231007
    await client.good("DELETE", f"{path}/{first['reaction_id']}")
    assert await client.code("DELETE", f"{path}/{first['reaction_id']}") == 231010
    assert sim.bubbles(group)[0].reactions == ["OK"]
    wrong = {"reaction_type": {"emoji_type": "typing"}}
    assert await client.code("POST", path, wrong) == 231001


async def test_chats_and_members(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    info = await client.good("GET", f"/open-apis/im/v1/chats/{group.id}")
    assert (info["name"], info["user_count"], info["chat_mode"]) == ("Team", "2", "group")
    members = await client.good("GET", f"/open-apis/im/v1/chats/{group.id}/members")
    assert [item["name"] for item in members["items"]] == ["Ann", "Bob"]
    assert await client.code("GET", "/open-apis/im/v1/chats/oc_other") == 232006


# ---------------------------------------------------------------- streaming cards


async def test_a_card_grows_and_closes(client: Client, sim: FeishuSim, group: Any) -> None:
    card = card_of(markdown(""), button(), streaming=True, summary={"content": "thinking"})
    card_id, message = await client.show(group, card)
    assert card_id.isdigit() and len(card_id) <= 20
    assert sim.open_cards() == [message]
    assert sim.preview(message) == "thinking"
    for sequence, words in enumerate(["Hel", "Hello", "Help"], 1):
        body = {"content": words, "sequence": sequence * 10, "uuid": f"u{sequence}"}
        await client.good("PUT", content_path(card_id), body)
    assert [(p.text, p.typed) for p in sim.paints] == [
        ("Hel", True),
        ("Hello", True),
        ("Help", False),
    ]
    settings = {"config": {"streaming_mode": False, "summary": {"content": "done"}}}
    body = {"settings": json.dumps(settings), "sequence": 31}
    await client.good("PATCH", f"{CARDS}/{card_id}/settings", body)
    [bubble] = sim.bubbles(group)
    assert (bubble.text, bubble.streaming, bubble.kind) == ("Help", False, "card")
    assert (sim.open_cards(), sim.preview(message)) == ([], "done")
    full = {"type": "card_json", "data": json.dumps(card_of(markdown("Helpful")))}
    await client.good("PUT", f"{CARDS}/{card_id}", {"card": full, "sequence": 32})
    assert sim.bubbles(group)[0].text == "Helpful"
    assert sim.bubbles(group)[0].buttons() == []
    assert sim.violations == []


async def test_sequences_rise_over_all_calls(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    card, _ = await client.show(group, card_of(markdown(""), streaming=True))
    path = content_path(card)
    await client.good("PUT", path, {"content": "a", "sequence": 5})
    for sequence in (0, 4, 5):
        assert await client.code("PUT", path, {"content": "b", "sequence": sequence}) == 300317
    settings = {"settings": '{"config":{"streaming_mode":true}}', "sequence": 5}
    assert await client.code("PATCH", f"{CARDS}/{card}/settings", settings) == 300317
    await client.good("PATCH", f"{CARDS}/{card}/settings", settings | {"sequence": 6})
    await clock.advance(1)
    for odd in (None, "7", 7.5, True, -1):
        assert await client.code("PUT", path, {"content": "b", "sequence": odd}) == 99992402
    assert await client.code("PUT", path, {"content": "b", "sequence": 2**31}) == 300317
    assert sim.bubbles(group)[0].text == "a"
    assert len(sim.violations) == 5, "only what no careful client would send"


@pytest.mark.parametrize("takes", [False, True])
async def test_whether_a_refused_call_uses_its_sequence(
    client: Client, sim: FeishuSim, group: Any, takes: bool
) -> None:
    sim.policy.refused_takes_sequence = takes
    card, _ = await client.show(group, card_of(markdown(""), streaming=True))
    body = {"content": "a", "sequence": 1}
    assert await client.code("PUT", content_path(card, "nobody"), body) == 300313
    _status, answer = await client.call("PUT", content_path(card), body)
    assert answer["code"] == (300317 if takes else 0)


async def test_a_repeated_uuid_is_served_once(client: Client, sim: FeishuSim, group: Any) -> None:
    card, _ = await client.show(group, card_of(markdown(""), streaming=True))
    body = {"content": "a", "sequence": 1, "uuid": "u"}
    await client.good("PUT", content_path(card), body)
    await client.good("PUT", content_path(card), body)
    other = body | {"content": "b", "sequence": 2}
    assert await client.code("PUT", content_path(card), other) == 200770
    assert len(sim.paints) == 1
    long = body | {"uuid": "u" * 65}
    assert await client.code("PUT", content_path(card), long) == 99992402


async def test_what_the_content_call_refuses(client: Client, sim: FeishuSim, group: Any) -> None:
    card, _ = await client.show(group, card_of(markdown(""), button(), streaming=True))
    for content in ("", None, 1, "x" * 100_001):
        body = {"content": content, "sequence": 1}
        assert await client.code("PUT", content_path(card), body) == 99992402
    for element, code in (("stop", 300310), ("nobody", 300313), ("not-good", 300301)):
        body = {"content": "a", "sequence": 1}
        assert await client.code("PUT", content_path(card, element), body) == code
    huge = {"content": "字" * 11_000, "sequence": 1}
    assert await client.code("PUT", content_path(card), huge) == 200860
    assert await client.code("PUT", content_path("123"), huge) == 200740
    await client.good("PUT", content_path(card), {"content": "ok", "sequence": 1})
    assert sim.bubbles(group)[0].text == "ok"


async def test_streaming_ends_after_ten_minutes_and_is_reopened(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    card, message = await client.show(group, card_of(markdown(""), streaming=True))
    path = content_path(card)
    await clock.advance(590)
    await client.good("PUT", path, {"content": "a", "sequence": 1})
    await clock.advance(10)
    assert sim.open_cards() == []
    codes = [await client.code("PUT", path, {"content": "ab", "sequence": 2}) for _ in range(3)]
    assert codes == [200850, 300309, 300309]

    reopen = {"settings": '{"config":{"streaming_mode":true}}', "sequence": 3}
    await client.good("PATCH", f"{CARDS}/{card}/settings", reopen)
    assert sim.open_cards() == [message]
    await clock.advance(400)
    again = {"settings": '{"streaming_mode":true}', "sequence": 4}
    await client.good("PATCH", f"{CARDS}/{card}/settings", again)
    await clock.advance(400)
    await client.good("PUT", path, {"content": "ab", "sequence": 5})
    await clock.advance(200)
    assert await client.code("PUT", path, {"content": "abc", "sequence": 6}) == 200850
    full = {"type": "card_json", "data": json.dumps(card_of(markdown("whole")))}
    await client.good("PUT", f"{CARDS}/{card}", {"card": full, "sequence": 7})
    assert sim.bubbles(group)[0].text == "whole"


async def test_a_card_that_never_streamed_takes_no_content(client: Client, group: Any) -> None:
    card, _ = await client.show(group, card_of(markdown("")))
    body = {"content": "a", "sequence": 1}
    assert await client.code("PUT", content_path(card), body) == 300309


async def test_settings_know_their_names(client: Client, group: Any) -> None:
    card, _ = await client.show(group, card_of(markdown("")))
    path = f"{CARDS}/{card}/settings"
    body = {"settings": '{"config":{"colour":"red"}}', "sequence": 1}
    assert await client.code("PATCH", path, body) == 300122
    as_object = {"settings": {"config": {"streaming_mode": False}}, "sequence": 1}
    assert await client.code("PATCH", path, as_object) == 99992402


async def test_an_entity_is_sent_once(client: Client, sim: FeishuSim, group: Any) -> None:
    card, _ = await client.show(group, card_of(markdown("a")))
    content = {"type": "card", "data": {"card_id": card}}
    assert await client.refused(group, "interactive", content) == 230099
    content["data"] = {"card_id": "123"}
    _, answer = await client.send(group, "interactive", content)
    assert answer["code"] == 230099 and "cardid is invalid" in answer["msg"]
    assert len(sim.violations) == 2
    template = {"type": "template", "data": {"template_id": "x"}}
    _, answer = await client.send(group, "interactive", template)
    assert "ErrCode: 200380" in answer["msg"]


async def test_a_young_entity_is_invisible(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    sim.policy.card_ready_after = 0.5
    card = await client.create(card_of(markdown("a")))
    content = {"type": "card", "data": {"card_id": card}}
    _, answer = await client.send(group, "interactive", content, uuid="u")
    assert "ErrCode: 11310" in answer["msg"] and "cardid is invalid" in answer["msg"]
    await clock.advance(0.5)
    message = await client.sent(group, "interactive", content, uuid="u")
    body = {"message_id": message}
    assert await client.good("POST", f"{CARDS}/id_convert", body) == {"card_id": card}
    text = await client.sent(group, "text", {"text": "a"})
    assert await client.code("POST", f"{CARDS}/id_convert", {"message_id": text}) == 200740
    assert sim.violations == []


async def test_cards_grow_old(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    card, _ = await client.show(group, card_of(markdown("a")))
    await clock.advance(14 * 86400 + 1)
    client.token = ""
    full = {"type": "card_json", "data": json.dumps(card_of(markdown("b")))}
    body = {"card": full, "sequence": 1}
    assert await client.code("PUT", f"{CARDS}/{card}", body) == 200750


@pytest.mark.parametrize("code", [99991400, 230020])
async def test_ten_operations_a_second_and_card(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any, code: int
) -> None:
    sim.policy.card_limit_code = code
    card, _ = await client.show(group, card_of(markdown(""), streaming=True))
    other, _ = await client.show(group, card_of(markdown(""), streaming=True))
    for sequence in range(1, 11):
        await client.good("PUT", content_path(card), {"content": "a", "sequence": sequence})
    status, answer = await client.call("PUT", content_path(card), {"content": "b", "sequence": 11})
    assert (status, answer["code"]) == (429 if code == 99991400 else 400, code)
    await client.good("PUT", content_path(other), {"content": "a", "sequence": 1})
    await clock.advance(1)
    await client.good("PUT", content_path(card), {"content": "b", "sequence": 11})
    assert len(sim.violations) == 1


async def test_two_operations_at_the_same_time_are_blamed(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    card, _ = await client.show(group, card_of(markdown(""), streaming=True))
    sim.faults.order(wire.CARD_CONTENT, Fault("delay", seconds=1))
    first = asyncio.create_task(
        client.good("PUT", content_path(card), {"content": "a", "sequence": 1})
    )
    await sim.wait_for(lambda: sim.calls_of(wire.CARD_CONTENT))
    await client.good("PUT", content_path(card), {"content": "ab", "sequence": 2})
    await clock.advance(1)
    with pytest.raises(AssertionError, match="300317"):
        await first
    assert sim.violations == [f"card {card}: two operations at the same time"]


async def test_a_call_that_was_given_up_overlaps_with_nothing(
    client: Client, sim: FeishuSim, clock: VirtualClock, group: Any
) -> None:
    card, _ = await client.show(group, card_of(markdown(""), streaming=True))
    sim.faults.order(wire.CARD_CONTENT, Fault("hang", seconds=60))
    first = asyncio.create_task(
        client.good("PUT", content_path(card), {"content": "a", "sequence": 1})
    )
    await sim.wait_for(lambda: sim.calls_of(wire.CARD_CONTENT))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.sleep(0.02)
    await client.good("PUT", content_path(card), {"content": "a", "sequence": 1})
    assert sim.violations == []
    await clock.advance(60)


TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n"
BAD_CARDS = {
    "no json": ("{", 200220),
    "schema": ({"elements": []}, 300303),
    "no body": ({"schema": "2.0"}, 300307),
    "property": (card_of() | {"color": 1}, 200220),
    "config": (card_of(colour=1), 200220),
    "multi": (card_of(update_multi=False), 300302),
    "note": (card_of({"tag": "note", "elements": []}), 200220),
    "action": (card_of({"tag": "action", "actions": []}), 200220),
    "element property": (card_of(markdown("a", color="red")), 200220),
    "content": (card_of({"tag": "markdown", "content": None}), 200220),
    "twice": (card_of(markdown("a"), markdown("b")), 300301),
    "hyphen": (card_of(markdown("a", "a-b")), 300301),
    "long id": (card_of(markdown("a", "a" * 21)), 300301),
    "many": (card_of(*(markdown("a", f"e{n}") for n in range(201))), 300305),
    "big": (card_of(markdown("字" * 10_300)), 200860),
    "four tables": (card_of(markdown(("x\n\n" + TABLE) * 4)), 230099),
    "image": (card_of(markdown("![a](https://x.y/z.png)")), 200220),
    "nobody": (card_of(markdown("<at id=ou_nobody></at>")), 200220),
    "unsafe": (card_of(markdown("forbidden")), 230028),
}


@pytest.mark.parametrize("name", BAD_CARDS)
async def test_cards_that_are_refused(
    client: Client, sim: FeishuSim, group: Any, name: str
) -> None:
    sim.policy.unsafe_words = {"forbidden"}
    card, code = BAD_CARDS[name]
    data = card if isinstance(card, str) else json.dumps(card, ensure_ascii=False)
    assert await client.code("POST", CARDS, {"type": "card_json", "data": data}) == code
    if name not in ("no json", "schema"):
        _status, answer = await client.send(group, "interactive", card)
        assert answer["code"] in ((230025, 230099) if name == "big" else (230099, 230028))
    assert sim.bubbles(group) == []


@pytest.mark.parametrize(
    ("name", "sub"),
    [
        ("note", 200861),
        ("many", 11310),
        ("four tables", 11310),
        ("image", 200570),
        ("nobody", 100290),
        ("property", 200621),
    ],
)
async def test_the_code_inside_the_code(client: Client, group: Any, name: str, sub: int) -> None:
    _, answer = await client.send(group, "interactive", BAD_CARDS[name][0])
    assert f"ext=ErrCode: {sub};" in answer["msg"]


async def test_a_card_at_its_limits_is_taken(client: Client, sim: FeishuSim, group: Any) -> None:
    fences = "```\n" + TABLE * 4 + "```\n"
    await client.create(card_of(markdown(("x\n\n" + TABLE) * 3 + fences)))
    await client.create(card_of(*(markdown("a", f"e{n}") for n in range(200))))
    await client.create(card_of(markdown("字" * 10_000)))
    sim.policy.table_code = 300305
    body = {"type": "card_json", "data": json.dumps(card_of(markdown(("x\n\n" + TABLE) * 4)))}
    assert await client.code("POST", CARDS, body) == 300305


async def test_the_refusal_of_a_card_names_its_place(client: Client, group: Any) -> None:
    bad = card_of(markdown("a"), {"tag": "note"})
    _, answer = await client.send(group, "interactive", bad)
    assert "ErrCode: 200861; ErrPath: ROOT -> body -> elements -> [1](tag: note)" in answer["msg"]


# ---------------------------------------------------------------- what is seen


async def seen(client: Client, chat: Any, *elements: Any) -> Bubble:
    message = await client.sent(chat, "interactive", card_of(*elements))
    return client.sim.world.bubbles[message]


async def test_elements_become_blocks(client: Client, group: Any) -> None:
    panel = {
        "tag": "collapsible_panel",
        "header": {"title": {"tag": "plain_text", "content": "Why"}},
        "elements": [markdown("because", "r", text_size="notation"), button("inner")],
    }
    row = {
        "tag": "column_set",
        "columns": [{"tag": "column", "elements": [button("one")]}],
    }
    small = {"tag": "plain_text", "content": "<b>", "text_size": "notation"}
    div = {"tag": "div", "text": small, "fields": [{"text": {**small, "content": "field"}}]}
    bubble = await seen(
        client,
        group,
        panel,
        markdown("**a**"),
        {"tag": "hr"},
        markdown(" ", "s"),
        markdown("note", "n", text_size="notation"),
        div,
        row,
    )
    assert [(b.kind, b.text, b.title, b.id) for b in bubble.blocks] == [
        ("panel", "because", "Why", ""),
        ("button", "Inner", "", "inner"),
        ("markdown", "**a**", "", ""),
        ("divider", "", "", ""),
        ("small", "note", "", ""),
        ("small", "<b>", "", ""),
        ("small", "field", "", ""),
        ("button", "One", "", "one"),
    ]
    assert (bubble.text, bubble.small) == ("**a**", "note\n<b>\nfield")


async def test_an_old_card_is_seen_too(client: Client, sim: FeishuSim, group: Any) -> None:
    old = {
        "header": {"title": {"tag": "plain_text", "content": "Old"}},
        "elements": [
            {"tag": "div", "text": {"tag": "lark_md", "content": "a <at id=all></at>"}},
            {"tag": "action", "actions": [{"tag": "button", "name": "b", "value": {"k": 1}}]},
            {"tag": "note", "elements": [{"tag": "plain_text", "content": "small"}]},
        ],
    }
    await client.sent(group, "interactive", old)
    [bubble] = sim.bubbles(group)
    assert (bubble.text, bubble.small, bubble.pings) == ("a @所有人", "Old\nsmall", ["all"])
    assert [block.id for block in bubble.buttons()] == ["b"]


@pytest.mark.parametrize(
    "hostile",
    [
        "<at id=all></at>",
        "<at id='all'/>",
        '<AT ID="all">x</AT>',
        "<at id = all >",
        "<at\nid=all></at>",
        "<at user_id=all></at>",
        "`<at id=all></at>`",
        "```\n<at id=all></at>\n```",
        "<at ids=all></at>",
    ],
)
async def test_a_tag_that_pings_is_noticed(client: Client, group: Any, hostile: str) -> None:
    bubble = await seen(client, group, markdown(f"a {hostile} b"))
    assert bubble.pings == ["all"]
    assert "@所有人" in bubble.text


@pytest.mark.parametrize(
    "harmless",
    [
        "&lt;at id=all&gt;&lt;/at&gt;",
        "&#60;at id=all>",
        "<\u200bat id=all>",
        "at id=all",
        "a < at b",
        "&amp;lt;at id=all&gt;",
    ],
)
async def test_what_is_escaped_pings_nobody(client: Client, group: Any, harmless: str) -> None:
    bubble = await seen(client, group, markdown(harmless))
    assert bubble.pings == []
    assert "@" not in bubble.text


async def test_pings_stay_when_the_text_goes_on(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    card, _ = await client.show(group, card_of(markdown(""), streaming=True))
    words = {"content": f"<at id={ann.id}></at>", "sequence": 1}
    await client.good("PUT", content_path(card), words)
    await client.good("PUT", content_path(card), {"content": "nothing", "sequence": 2})
    assert sim.bubbles(group)[0].pings == [ann.id]


@pytest.mark.parametrize(
    ("source", "visible"),
    [
        ("a &lt;b&gt; &amp;amp; &#42;", "a <b> &amp; *"),
        ("<font color='red'>red</font><br>next", "red\nnext"),
        ("`<font>` <font>x</font>", "`<font>` x"),
        ("```html\n<b>x</b> &lt;\n```\n<b>y</b>", "```html\n<b>x</b> <\n```\ny"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("vector<int> x", "vector<int> x"),
        ("````\n```\n<b>\n````\n<b>", "````\n```\n<b>\n````\n"),
    ],
)
def test_markdown_as_it_is_seen(source: str, visible: str) -> None:
    assert tags.seen_markdown(source, lambda _: "") == visible


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (TABLE, 1),
        (TABLE + "\n" + TABLE, 2),
        ("a | b\n--- | ---\n", 1),
        ("a | b\nno table\n", 0),
        ("a\n---\n", 0),
        ("```\n" + TABLE + "```", 0),
    ],
)
def test_tables_are_counted(source: str, count: int) -> None:
    assert tags.tables(source) == count


@pytest.mark.parametrize("junk", ["<at ", "`", "``` \n", "|-", "<", "![", "<at id=", "`a``b```"])
def test_junk_does_not_explode(junk: str) -> None:
    """Twice the text costs at most a few times more: no catastrophic patterns."""

    def cost(size: int) -> float:
        text = (junk * size)[: size * 4]
        start = time.process_time()
        tags.seen_markdown(text, lambda _: "")
        tags.tables(text)
        tags.image_keys(text)
        return time.process_time() - start

    cost(100)
    assert cost(16_000) < 40 * cost(4_000) + 0.5


# ---------------------------------------------------------------- buttons


def answering(answer: Any, code: int = 200) -> Callable[[Any], bytes]:
    data = base64.b64encode(json.dumps(answer).encode()).decode()
    return lambda _: json.dumps({"code": code, "data": data}).encode()


async def test_a_press_and_its_toast(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    socket = await client.link()
    bubble = await seen(client, group, markdown("a"), button())
    socket.answer = answering({"toast": {"type": "info", "content": "ok"}})
    assert await sim.press(bubble.id, "stop", ann) == {"type": "info", "content": "ok"}
    [event] = socket.events()
    assert event["header"]["event_type"] == "card.action.trigger"
    assert len(event["header"]["create_time"]) == 16
    pressed = event["event"]
    assert pressed["action"]["value"] == {"action": "stop"}
    assert pressed["operator"]["open_id"] == ann.id
    assert pressed["context"] == {"open_message_id": bubble.id, "open_chat_id": group.id}
    assert pressed["token"].startswith("c-")
    socket.answer = lambda _: b'{"code":200}'
    assert await sim.press(bubble.id, "stop", ann) == {}
    assert sim.violations == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answering({}, 500), 200671),
        (answering({"toast": {"type": "loud", "content": "x"}}), 200672),
        (answering([1]), 200672),
        (lambda _: b'{"code":200,"data":"%%%"}', 200672),
        (answering({"card": {"type": "raw", "data": {"schema": "1.0"}}}), 200673),
        (answering({"card": {"type": "poem", "data": card_of(markdown("a"))}}), 200673),
        (answering({"card": {"type": "raw", "data": "a"}}), 200673),
        (answering({"card": {"type": "raw", "data": card_of({"tag": "note"})}}), 200673),
    ],
)
async def test_answers_that_show_an_error(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any, answer: Any, error: int
) -> None:
    socket = await client.link()
    bubble = await seen(client, group, button())
    socket.answer = answer
    assert await sim.press(bubble.id, "stop", ann) == {"error": error}


async def test_an_unanswered_press_is_never_repeated(
    client: Client, sim: FeishuSim, clock: VirtualClock, ann: SimPerson, group: Any
) -> None:
    bubble = await seen(client, group, button())
    assert await sim.press(bubble.id, "stop", ann) == {"error": 200341}
    socket = await client.link()
    socket.answer = lambda _: None
    press = asyncio.create_task(sim.press(bubble.id, "stop", ann))
    await clock.advance(3.1)
    assert await press == {"error": 200341}
    await clock.advance(30_000)
    assert len(socket.data()) == 1


async def test_a_card_in_the_answer_replaces_one_that_does_not_stream(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    socket = await client.link()
    fresh = {"type": "raw", "data": card_of(markdown("new"))}
    socket.answer = answering({"card": fresh})
    still = await seen(client, group, markdown("old"), button())
    _, growing = await client.show(group, card_of(markdown("old"), button(), streaming=True))
    for message in (still.id, growing):
        assert await sim.press(message, "stop", ann) == {}
    assert [bubble.text for bubble in sim.bubbles(group)] == ["new", "old"]


async def test_the_frame_of_a_press_may_be_of_type_card(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    sim.policy.action_frame = "card"
    socket = await client.link()
    bubble = await seen(client, group, button())
    await sim.press(bubble.id, "stop", ann)
    assert socket.data()[0].header("type") == "card"


async def test_buttons_that_cannot_be_pressed(
    client: Client, sim: FeishuSim, ann: SimPerson, group: Any
) -> None:
    link = [{"type": "open_url", "default_url": "https://x.y"}]
    bubble = await seen(client, group, button("off", disabled=True), button("link", behaviors=link))
    for block in ("off", "link", "nobody"):
        with pytest.raises(ValueError, match="button"):
            await sim.press(bubble.id, block, ann)
    with pytest.raises(KeyError):
        await sim.press("om_nobody", "off", ann)
