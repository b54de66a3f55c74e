"""The Stream gateway: tickets, links, pushes and acknowledgements (reference/dingtalk.md 2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.wire import Refused, as_object

MESSAGES = "/v1.0/im/bot/messages/get"
CARD_CALLBACK = "/v1.0/card/instances/callback"


@dataclass(eq=False, slots=True)
class Link:
    """One WebSocket of a client. `muted`: the gateway believes it alive and pushes into
    the void. `leaving`: told to go, gets nothing more."""

    id: str
    ws: web.WebSocketResponse
    transport: asyncio.Transport
    topics: frozenset[tuple[str, str]]
    muted: bool = False
    leaving: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def send(self, frame: dict[str, Any]) -> None:
        if self.muted or self.ws.closed:
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self.ws.send_str(json.dumps(frame, ensure_ascii=False))

    def cut(self) -> None:
        """No close frame: the cable was pulled."""
        self.transport.abort()


@dataclass(frozen=True, slots=True)
class Ack:
    """`data` is the decoded JSON of the ack; `latency` in seconds; `key` is the msgId of
    a robot message, the eventId of an event, the outTrackId of a button."""

    message_id: str
    topic: str
    key: str
    code: int
    data: Any
    latency: float
    link: str

    @property
    def good(self) -> bool:
        later = isinstance(self.data, dict) and self.data.get("status") == "LATER"
        return self.code == 200 and not later


@dataclass(eq=False, slots=True)
class Push:
    """One frame on its way, waiting for its ack."""

    message_id: str
    link: str
    topic: str
    key: str
    sent_at: float
    deadline: float
    echo: str = ""
    done: asyncio.Future[Ack] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(slots=True)
class Refusal:
    status: int
    code: str


class Gateway:
    """`lost` holds the keys that were given up. `refusal`: what connections/open says to
    everybody while it is set."""

    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self._tickets: dict[str, tuple[float, frozenset[tuple[str, str]]]] = {}
        self._pushes: dict[str, Push] = {}
        self._ids = 0
        self.links: list[Link] = []
        self.acks: list[Ack] = []
        self.lost: list[str] = []
        self.opened = 0
        self.refusal: Refusal | None = None

    # connections/open ---------------------------------------------

    async def open(self, request: web.Request) -> web.Response:
        """A ticket for one connection within 90 s (reference 2.1)."""
        if self.refusal is not None:
            raise Refused(self.refusal.status, self.refusal.code)
        accept = request.headers.get("Accept", "")
        if self._b.policy.needs_accept and "application/json" not in accept:
            self._b.blame("connections/open: no Accept: application/json")
            return web.Response(text="<Result><endpoint/></Result>", content_type="text/xml")
        topics = self._admit(await request.read())
        ticket = f"{uuid.uuid4()}+/="  # wants percent-encoding, as the real one may
        self._tickets[ticket] = (self._b.clock.time() + self._b.policy.ticket_seconds, topics)
        endpoint = self._b.base_url.replace("http", "ws", 1) + "/connect"
        return web.json_response({"endpoint": endpoint, "ticket": ticket})

    def _admit(self, raw: bytes) -> frozenset[tuple[str, str]]:
        try:
            body = as_object(raw)
        except ValueError:
            raise Refused(400, "InvalidParameter", "body is not JSON") from None
        if (body.get("clientId"), body.get("clientSecret")) != (
            self._b.client_id,
            self._b.client_secret,
        ):
            raise Refused(401, "authFailed", "鉴权失败")
        return _topics(body.get("subscriptions"))

    # the socket ----------------------------------------------------

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """The WebSocket; a used, old or unknown ticket is refused with 401 (unsure)."""
        until, topics = self._tickets.pop(request.query.get("ticket", ""), (0.0, frozenset()))
        if until < self._b.clock.time():
            raise Refused(401, "authFailed", "ticket")
        ws = web.WebSocketResponse(timeout=1.0)
        await ws.prepare(request)
        transport = request.transport
        if transport is None:
            return ws
        link = Link(uuid.uuid4().hex, ws, transport, topics)
        self.links.append(link)
        self.opened += 1
        self._b.world.changed.set()
        link.tasks = [asyncio.create_task(beat) for beat in self._beats(link)]
        try:
            await self._greet(link)
            await self._read(link)
        finally:
            self._drop(link)
        return ws

    def _drop(self, link: Link) -> None:
        if link in self.links:
            self.links.remove(link)
        for message_id in [p.message_id for p in self._pushes.values() if p.link == link.id]:
            del self._pushes[message_id]
        for task in link.tasks:
            task.cancel()
        self._b.world.changed.set()

    async def _greet(self, link: Link) -> None:
        if self._b.policy.greet:
            await self._system(link, "CONNECTED", {})
            await self._system(link, "REGISTERED", {})

    async def _read(self, link: Link) -> None:
        async for message in link.ws:
            if message.type is not WSMsgType.TEXT:
                self._b.blame("link: a frame that is not text")
                continue
            try:
                frame = as_object(message.data)
                self._acked(link, frame)
            except (ValueError, KeyError, TypeError, AttributeError):
                self._b.blame("link: an ack that cannot be read")

    def _beats(self, link: Link) -> Iterable[Any]:
        policy = self._b.policy
        if policy.ping_every:
            yield self._beat(link, "ping", policy.ping_every)
        if policy.keepalive_every:
            yield self._beat(link, "KEEPALIVE", policy.keepalive_every)

    async def _beat(self, link: Link, topic: str, seconds: float) -> None:
        while True:
            await self._b.clock.sleep(seconds)
            await self._system(link, topic, {"opaque": uuid.uuid4().hex})

    # frames ----------------------------------------------------------

    def _headers(self, link: Link, topic: str) -> dict[str, Any]:
        self._ids += 1
        return {
            "appId": "playground",
            "connectionId": link.id,
            "contentType": "application/json",
            "messageId": f"{link.id[:7]}_{self._ids}",
            "time": str(self._b.millis()),
            "topic": topic,
        }

    async def _system(self, link: Link, topic: str, data: dict[str, Any]) -> None:
        headers, text = self._headers(link, topic), json.dumps(data)
        await self._send(link, "SYSTEM", headers, text, key="", deadline=0.0)

    async def _send(
        self,
        link: Link,
        kind: str,
        headers: dict[str, Any],
        data: str,
        *,
        key: str,
        deadline: float,
    ) -> Push:
        push = Push(
            headers["messageId"],
            link.id,
            headers["topic"],
            key,
            self._b.clock.monotonic(),
            deadline,
            echo=data if kind == "SYSTEM" else "",
        )
        self._pushes[push.message_id] = push
        frame = {"specVersion": "1.0", "type": kind, "headers": headers, "data": data}
        await link.send(frame)
        return push

    def _acked(self, link: Link, frame: dict[str, Any]) -> None:
        message_id = frame["headers"].get("messageId")
        if message_id is None:
            return  # the answer to a disconnect frame, which has no id either
        push = self._pushes.pop(message_id, None)
        if push is None:
            self._b.blame("link: an ack for an unknown messageId")
            return
        data = frame["data"]
        if not isinstance(frame["code"], int) or not isinstance(data, str):
            self._b.blame(f"link: an ack of the wrong shape for {push.topic}")
            return
        if push.echo:
            if json.loads(data) != json.loads(push.echo):
                self._b.blame("link: a ping was not echoed")
            return
        self._settle(link, push, frame["code"], json.loads(data))

    def _settle(self, link: Link, push: Push, code: int, data: Any) -> None:
        latency = self._b.clock.monotonic() - push.sent_at
        ack = Ack(push.message_id, push.topic, push.key, code, data, latency, link.id)
        self.acks.append(ack)
        if latency > push.deadline:
            self._b.blame(f"link: late ack for {push.topic} ({latency:.1f} s)")
        elif not push.done.done():
            push.done.set_result(ack)
        self._b.world.changed.set()

    # pushing ---------------------------------------------------------

    def _pick(self, kind: str, topic: str, anyone: bool) -> Link | None:
        """One random link, as the real gateway does (reference 2.7)."""
        live = [link for link in self.links if not link.leaving]
        wanted = [link for link in live if (kind, topic) in link.topics]
        choice = wanted or (live if anyone else [])
        return self._b.world.rng.choice(choice) if choice else None

    async def push(
        self,
        kind: str,
        topic: str,
        data: str,
        *,
        key: str,
        deadline: float,
        anyone: bool = False,
        **headers: str,
    ) -> Push | None:
        """Send one frame to one link now; None when nobody listens."""
        link = self._pick(kind, topic, anyone)
        if link is None:
            return None
        whole = self._headers(link, topic) | headers
        return await self._send(link, kind, whole, data, key=key, deadline=deadline)

    async def answer(self, push: Push) -> Ack | None:
        """The ack of a push, or None when its deadline passes first."""
        try:
            async with self._b.clock.timeout(push.deadline):
                return await asyncio.shield(push.done)
        except TimeoutError:
            return None

    # what goes wrong -----------------------------------------------

    async def leave(self, reason: str) -> None:
        """Tell every link to go and push nothing more to it (reference 2.4)."""
        for link in list(self.links):
            link.leaving = True
            await link.send(
                {
                    "type": "SYSTEM",
                    "headers": {"topic": "disconnect", "contentType": "application/json"},
                    "data": json.dumps({"reason": reason}),
                }
            )
            link.tasks.append(asyncio.create_task(self._close_later(link)))

    async def _close_later(self, link: Link) -> None:
        await self._b.clock.sleep(self._b.policy.leave_after)
        await link.ws.close()

    def cut(self) -> int:
        links = list(self.links)
        for link in links:
            link.cut()
        return len(links)

    async def stop(self) -> None:
        links = list(self.links)
        tasks = [task for link in links for task in link.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in links:
            link.cut()


def _topics(value: Any) -> frozenset[tuple[str, str]]:
    if not isinstance(value, list) or not value:
        raise Refused(400, "InvalidParameter", "subscriptions")
    topics = set()
    for item in value:
        if not isinstance(item, dict) or item.get("type") not in ("EVENT", "CALLBACK", "SYSTEM"):
            raise Refused(400, "InvalidParameter", "subscriptions.type")
        if item["type"] == "EVENT" and item.get("topic") != "*":
            raise Refused(400, "InvalidParameter", "EVENT supports only the topic *")
        topics.add((item["type"], str(item.get("topic", ""))))
    return frozenset(topics)
