"""Long connections: discovery, handshake, pushes (reference/feishu.md 2)."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from adapters.playground.feishu import codec
from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.codec import Frame
from adapters.playground.feishu.link import Link, Push, Reader, client_config
from adapters.playground.feishu.wire import as_object, dumps

FORBIDDEN, AUTH_FAILED, TOO_MANY = 403, 514, 1000040350
NAMES = {
    1: "system busy",
    FORBIDDEN: "forbidden",
    AUTH_FAILED: "app_id or app_secret is invalid",
    1000040343: "internal error",
    1000040345: "system busy",
    TOO_MANY: "the number of connections exceeded the limit",
}
"""Codes of discovery (2.1)."""

PUSHES_KEPT = 50_000
"""A demo may run for weeks."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What discovery says to everybody: a `code` in a good HTTP answer, or only a `status`
    that is not 200. `handshake`: discovery is fine, the upgrade is refused (2.2)."""

    code: int = 0
    status: int = 200
    handshake: bool = False


class Gateway:
    """`links` are the live ones, oldest first; `pushes` the log of deliveries, as the
    developer console shows it."""

    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self._tickets: dict[str, float] = {}
        self._devices = 0
        self._sequence = 0
        self.service = 33554678
        self.links: list[Link] = []
        self.pushes: list[Push] = []
        self.opened = 0
        self.refusal: Refusal | None = None
        self.connected = asyncio.Event()

    # discovery -----------------------------------------------------

    async def discover(self, request: web.Request) -> web.Response:
        refusal = self.refusal
        if refusal is not None and not refusal.handshake:
            if refusal.status != 200:
                return web.Response(status=refusal.status, text="refused")
            return _said(refusal.code)
        code = self._admit(await request.read())
        if code:
            return _said(code)
        data = {"URL": self._url(), "ClientConfig": client_config(self._b)}
        return web.json_response({"code": 0, "msg": "", "data": data})

    def _admit(self, raw: bytes) -> int:
        """0, or the code of the refusal; the names are capitalised."""
        try:
            body = as_object(raw)
        except ValueError:
            return AUTH_FAILED
        if (body.get("AppID"), body.get("AppSecret")) != (self._b.app_id, self._b.app_secret):
            return AUTH_FAILED
        return TOO_MANY if len(self.links) >= self._b.policy.most_links else 0

    def _url(self) -> str:
        ticket = str(uuid.uuid4())
        self._tickets[ticket] = self._b.clock.time() + self._b.policy.ticket_seconds
        self._devices += 1
        origin = self._b.base_url.replace("http", "ws", 1)
        return (
            f"{origin}/ws/v2?fpid=493&aid=552564&device_id={7630000000000000000 + self._devices}"
            f"&access_key={uuid.uuid4().hex}&service_id={self.service}&ticket={ticket}"
        )

    # the socket ----------------------------------------------------

    async def connect(self, request: web.Request) -> web.StreamResponse:
        refused = self._refused(request)
        if refused is not None:
            return refused
        ws = web.WebSocketResponse(timeout=1.0, max_msg_size=1 << 20)
        await ws.prepare(request)
        transport = request.transport
        if transport is None:
            return ws
        link = Link(request.query["device_id"], self.service, ws, transport)
        self._up(link)
        watch = self._b.spawn(self._drop_when_idle(link))
        try:
            await Reader(self._b, link).run()
        finally:
            watch.cancel()
            self._down(link)
        return ws

    def _refused(self, request: web.Request) -> web.Response | None:
        """An HTTP answer with the reason in its headers (2.2)."""
        ticket = request.query.get("ticket", "")
        end = self._tickets.get(ticket, 0.0)
        if self._b.policy.single_use_tickets:
            self._tickets.pop(ticket, None)
        if self.refusal is not None and self.refusal.handshake:
            code = self.refusal.code
        elif end <= self._b.clock.time():
            code = AUTH_FAILED
        elif len(self.links) >= self._b.policy.most_links:
            code = TOO_MANY
        else:
            return None
        status = FORBIDDEN if code == FORBIDDEN else AUTH_FAILED
        headers = {
            "Handshake-Status": str(status),
            "Handshake-Msg": NAMES.get(code, "refused"),
            "Handshake-Autherrcode": str(code),
        }
        return web.Response(status=403 if code == FORBIDDEN else 400, headers=headers)

    def _up(self, link: Link) -> None:
        self.links.append(link)
        self.opened += 1
        self.connected.set()
        self.connected = asyncio.Event()
        self._b.world.changed.set()

    def _down(self, link: Link) -> None:
        """Whatever waits for an ack of this link has failed."""
        self.links.remove(link)
        for push in link.pushes.values():
            if not push.done.is_set():
                push.status = "lost"
                push.done.set()
        self._b.world.changed.set()

    async def _drop_when_idle(self, link: Link) -> None:
        limit = self._b.policy.drop_idle_after
        start = self._b.clock.time()
        while limit:
            last = link.pings[-1] if link.pings else start
            left = last + limit - self._b.clock.time()
            if left <= 0:
                self._b.blame("link: no ping for too long")
                link.cut()
                return
            await self._b.clock.sleep(left)

    # pushing ---------------------------------------------------------

    async def push(
        self, payload: Any, *, event_id: str, event_type: str, attempt: int, frame_id: str
    ) -> Push:
        """One delivery to one random link; its `status` tells when there is none."""
        link = self._b.world.rng.choice(self.links) if self.links else None
        now = self._b.clock.monotonic()
        push = Push(frame_id, event_id, event_type, attempt, link.id if link else "", now)
        self.pushes.append(push)
        if len(self.pushes) > PUSHES_KEPT:
            del self.pushes[: PUSHES_KEPT // 2]
        if link is None:
            push.status = "unsent"
            push.done.set()
            return push
        raw = payload if isinstance(payload, bytes) else dumps(payload).encode()
        push.frames = self._fragments(push, raw)
        link.remember(push)
        if not link.muted:
            for frame in self._order(push.frames):
                await link.send(frame)
        return push

    async def settled(self, push: Push) -> Push:
        """When it was acknowledged, or can no longer be."""
        try:
            async with self._b.clock.timeout(self._b.policy.ack_deadline):
                await push.done.wait()
        except TimeoutError:
            if not push.done.is_set():
                push.status = "timeout"
                push.seconds = self._b.policy.ack_deadline
                push.done.set()
        self._b.world.changed.set()
        return push

    def _fragments(self, push: Push, raw: bytes) -> list[Frame]:
        size = self._b.policy.fragment_bytes or len(raw) or 1
        pieces = [raw[at : at + size] for at in range(0, len(raw), size)] or [b""]
        trace, instance = uuid.uuid4().hex, uuid.uuid4().hex
        return [
            self._frame(
                piece,
                [
                    ("type", self._type(push.event_type)),
                    ("message_id", push.id),
                    ("sum", str(len(pieces))),
                    ("seq", str(number)),
                    ("trace_id", trace),
                    ("timestamp", str(self._b.millis())),
                    ("instance_id", instance),
                ],
            )
            for number, piece in enumerate(pieces)
        ]

    def _type(self, event_type: str) -> str:
        return self._b.policy.action_frame if event_type == "card.action.trigger" else "event"

    def _frame(self, piece: bytes, headers: list[tuple[str, str]]) -> Frame:
        self._sequence += 1
        log_id = 7_000_000_000_000_000_000 + self._sequence
        frame = Frame(self._sequence, log_id, self.service, codec.DATA, headers, piece)
        if self._b.policy.log_id_new and self._sequence % 2:
            frame.log_id_new = f"{log_id:x}"
        return frame

    def _order(self, frames: list[Frame]) -> list[Frame]:
        """The fragments as they travel."""
        policy, out = self._b.policy, list(frames)
        if policy.fragment_twice:
            out += frames[:1]
        if policy.fragment_shuffle:
            self._b.world.rng.shuffle(out)
        if policy.lose_fragments and len(frames) > 1:
            policy.lose_fragments -= 1
            lost = frames[-1]
            out = [frame for frame in out if frame is not lost]
        return out

    async def stop(self) -> None:
        for link in list(self.links):
            link.cut()


def _said(code: int) -> web.Response:
    return web.json_response({"code": code, "msg": NAMES.get(code, "refused"), "data": {}})
