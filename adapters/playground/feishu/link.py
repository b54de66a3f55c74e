"""One WebSocket of a client, and the frames on it (reference/feishu.md 2.3 to 2.6)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from adapters.playground.feishu import codec
from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.codec import BadFrame, Frame
from adapters.playground.feishu.wire import as_object, dumps


@dataclass(eq=False, slots=True)
class Push:
    """One delivery on its way. `frames` are its fragments as sent; `answer` is the decoded
    JSON of the ack's `data`. `status` is pending, then the ack's code as text, or
    `timeout`, `lost` (the link died), `unsent` (no link), `malformed`."""

    id: str
    event_id: str
    event_type: str
    attempt: int
    link: str
    sent_at: float
    status: str = "pending"
    answer: Any = None
    seconds: float = 0.0
    frames: list[Frame] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def good(self) -> bool:
        return self.status == "200"


@dataclass(eq=False, slots=True)
class Link:
    """`muted`: believed alive, pushed into the void. `pongs`: whether a muted one still
    answers pings. `pings` holds the moments (clock.time()) of the pings that came."""

    id: str
    service: int
    ws: web.WebSocketResponse
    transport: asyncio.Transport
    muted: bool = False
    pongs: bool = True
    pings: list[float] = field(default_factory=list)
    pushes: dict[str, Push] = field(default_factory=dict)

    def remember(self, push: Push) -> None:
        """Expect the ack of a push; what was settled long ago is forgotten."""
        self.pushes[push.id] = push
        if len(self.pushes) > 2000:
            for old in [p for p in list(self.pushes.values())[:1000] if p.done.is_set()]:
                del self.pushes[old.id]

    async def send(self, frame: Frame) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self.ws.send_bytes(codec.encode(frame))

    def cut(self) -> None:
        """No close frame: the cable was pulled."""
        self.transport.abort()


class Reader:
    """What a client sends on one link: pings and acks, each checked."""

    def __init__(self, backend: Backend, link: Link) -> None:
        self._b, self._link = backend, link

    async def run(self) -> None:
        """Until the socket closes."""
        async for message in self._link.ws:
            if message.type is not WSMsgType.BINARY:
                self._b.blame("link: a message that is not binary")
                continue
            try:
                await self._take(codec.decode(message.data))
            except BadFrame as error:
                self._b.blame(f"link: {error}")
            self._b.world.changed.set()

    async def _take(self, frame: Frame) -> None:
        if frame.service != self._link.service:
            self._b.blame(f"link: service {frame.service} instead of {self._link.service}")
        if frame.method == codec.DATA:
            self._acked(frame)
        elif frame.header("type") == "ping":
            await self._pinged(frame)
        else:
            self._b.blame("link: a control frame that is no ping")

    async def _pinged(self, frame: Frame) -> None:
        if frame.seq_id or frame.log_id or frame.payload or len(frame.headers) != 1:
            self._b.blame("link: a ping with more than its type (2.4)")
        self._link.pings.append(self._b.clock.time())
        if self._link.muted and not self._link.pongs:
            return
        config = dumps(client_config(self._b)).encode() if self._b.policy.pong_config else b""
        pong = Frame(0, 0, self._link.service, codec.CONTROL, [("type", "pong")], config)
        await self._link.send(pong)

    # acknowledgements --------------------------------------------------

    def _acked(self, frame: Frame) -> None:
        push = self._link.pushes.get(frame.header("message_id"))
        if push is None:
            return  # an ack for what this link never got is ignored
        if push.done.is_set():
            if push.status != "timeout":
                self._b.blame("link: a second ack for one delivery")
            return
        push.seconds = self._b.clock.monotonic() - push.sent_at
        fault = _wrong_echo(frame, push.frames)
        if fault:
            self._b.blame(f"link: an ack {fault} (2.5)")
        push.status = "malformed" if fault else self._read(frame, push)
        push.done.set()

    def _read(self, frame: Frame, push: Push) -> str:
        try:
            body = as_object(frame.payload)
            code, data = body["code"], body.get("data")
            if not isinstance(code, int):
                raise ValueError
            push.answer = json.loads(base64.b64decode(data, validate=True)) if data else None
        except (ValueError, KeyError, TypeError, binascii.Error):
            self._b.blame("link: an ack that cannot be read (2.5)")
            return "malformed"
        return str(code)


def _wrong_echo(frame: Frame, sent: list[Frame]) -> str:
    """What an ack lacks of the frame it answers; empty when nothing."""
    echoed = [pair for pair in frame.headers if pair[0] != "biz_rt"]
    twins = [
        one
        for one in sent
        if one.headers == echoed and (one.seq_id, one.log_id) == (frame.seq_id, frame.log_id)
    ]
    if not twins:
        return "that does not repeat ids and headers"
    if twins[0].log_id_new != frame.log_id_new:
        return "without LogIDNew"
    run_time = frame.header("biz_rt").removeprefix("-")
    return "with a biz_rt that is no number" if run_time and not run_time.isdigit() else ""


def client_config(backend: Backend) -> dict[str, int]:
    """Seconds; -1 is for ever (2.1)."""
    policy = backend.policy
    return {
        "ReconnectCount": -1,
        "ReconnectInterval": policy.reconnect_interval,
        "ReconnectNonce": policy.reconnect_nonce,
        "PingInterval": policy.ping_interval,
    }
