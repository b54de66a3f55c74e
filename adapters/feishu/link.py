"""Feishu's long connection on aiohttp: discovery, frames, pings, acknowledgements
(reference/feishu.md 2). One `session` is one connection; adapters.supervisor repeats it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import orjson

from adapters.connection import Connection
from adapters.feishu.codes import code_of
from adapters.feishu.frames import CONTROL, DATA, Fragments, Frame, ack, decode, encode, ping
from adapters.feishu.receive import OnPayload
from adapters.feishu.settings import FeishuSettings
from adapters.foreign import at, loads, text_at
from adapters.hearing import SILENCE
from adapters.http import Answer, Http
from adapters.supervisor import Crowded, first_of
from bot.contract import Clock
from bot.errors import AuthError, BorderError, PermissionDenied, QueqiaoError, Transient

log = logging.getLogger(__name__)

STEP_SECONDS = 10.0
"""The bound of discovery and of the handshake, each (reference/feishu.md 2.9)."""

CLOSE_SECONDS = 5.0
SEND_SECONDS = 5.0
PONG_SECONDS = 30.0
"""How long the answer to a ping may take (2.9): 3 s killed good links."""

FRAME_BYTES = 16 << 20

_FORBIDDEN = 403
_AUTH_CODES = {_FORBIDDEN, 514, 1000040344}
_BUSY, _CROWDED = 1000040345, 1000040350

_CLOSED = frozenset(
    {
        aiohttp.WSMsgType.CLOSE,
        aiohttp.WSMsgType.CLOSING,
        aiohttp.WSMsgType.CLOSED,
        aiohttp.WSMsgType.ERROR,
    }
)
_SEND_ERRORS = (TimeoutError, OSError, aiohttp.ClientError)


@dataclass(slots=True)
class _Line:
    """One open connection. `interval`: seconds between two pings of the application.
    `ponged`: its WebSocket answers pings too."""

    socket: aiohttp.ClientWebSocketResponse
    service: int
    interval: float
    connection: Connection
    ponged: bool = False
    retimed: asyncio.Event = field(default_factory=asyncio.Event)


class FeishuLink:
    """The long connection of one app. `on_payload` gets each decoded event and returns the
    answer of a card action, or None; what it raises is not acknowledged as handled."""

    def __init__(
        self, settings: FeishuSettings, http: Http, clock: Clock, on_payload: OnPayload
    ) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._on_payload = on_payload
        self._handlers: set[asyncio.Task[None]] = set()

    async def session(self, connection: Connection) -> None:
        """From discovery to the death of the socket. Raises AuthError or PermissionDenied
        when the app may not connect, Transient for everything else."""
        url, config = await self._discover()
        socket = await self._dial(url)
        line = _Line(socket, _service_of(url), _interval(config, 120.0), connection)
        try:
            connection.up()
            watch = connection.watch(lambda: self._probe(line))
            await first_of(self._read(line), self._ping(line), watch)
        finally:
            await self._hang_up(socket)

    async def close(self) -> None:
        """Let the handlers under way send their acknowledgements, for a moment."""
        try:
            async with self._clock.timeout(CLOSE_SECONDS):
                await asyncio.gather(*self._handlers, return_exceptions=True)
        except TimeoutError:
            log.warning("handlers cut off at shutdown")

    # ------------------------------------------------------------ connecting

    async def _discover(self) -> tuple[str, object]:
        """A fresh URL for one connection (reference/feishu.md 2.1)."""
        body = {"AppID": self._settings.app_id, "AppSecret": self._settings.app_secret}
        url = f"{self._settings.base_url.rstrip('/')}/callback/ws/endpoint"
        try:
            async with self._clock.timeout(STEP_SECONDS):
                answer = await self._http.call(
                    "POST", url, json=body, headers={"locale": "zh"}, timeout=STEP_SECONDS
                )
        except TimeoutError:
            raise _unreachable("discovery timed out") from None
        except BorderError as error:
            raise _unreachable(f"discovery: {error.cause}") from None
        address = text_at(answer.body, "data", "URL")
        if code_of(answer) != 0 or not address.startswith(("ws://", "wss://")):
            raise _refused("discovery", code_of(answer), answer)
        return address, at(answer.body, "data", "ClientConfig")

    async def _dial(self, url: str) -> aiohttp.ClientWebSocketResponse:
        """The handshake; errors never carry the URL, which holds a ticket (2.2)."""
        try:
            async with self._clock.timeout(STEP_SECONDS):
                return await self._http.session.ws_connect(
                    url,
                    max_msg_size=FRAME_BYTES,
                    autoping=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise _handshake_refused(error) from None
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            raise _unreachable(f"dial: {type(error).__name__}") from None

    async def _hang_up(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async with self._clock.timeout(CLOSE_SECONDS):
                await socket.close()
        except (TimeoutError, aiohttp.ClientError, OSError):
            log.debug("socket did not close in time")

    # ------------------------------------------------------------ running

    async def _ping(self, line: _Line) -> None:
        """The application's own pings: the first at once, then one an interval (2.4)."""
        while True:
            try:
                await self._send(line, ping(line.service))
            except _SEND_ERRORS as error:
                raise _lost(f"ping: {type(error).__name__}") from None
            line.connection.expect(PONG_SECONDS)
            await self._rest(line)

    async def _rest(self, line: _Line) -> None:
        """One interval; a pong that changes it counts at once."""
        start = self._clock.monotonic()
        while (left := start + line.interval - self._clock.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(left):
                    await line.retimed.wait()
            line.retimed.clear()

    async def _probe(self, line: _Line) -> None:
        """A ping of the WebSocket, which shows much sooner whether the socket lives."""
        try:
            async with self._clock.timeout(SEND_SECONDS):
                await line.socket.ping()
        except _SEND_ERRORS as error:
            raise _lost(f"ping: {type(error).__name__}") from None

    async def _read(self, line: _Line) -> None:
        fragments = Fragments()
        while True:
            message = await line.socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                line.connection.frame()  # a goodbye; what was pushed before it has come
            if message.type in _CLOSED:
                if line.connection.left.is_set():
                    return
                raise _lost(f"socket closed, code {line.socket.close_code}")
            line.connection.frame()
            if message.type is aiohttp.WSMsgType.BINARY:
                self._take(line, fragments, message.data)
            elif message.type is aiohttp.WSMsgType.PING:
                self._spawn(self._pong(line, message.data))
            elif message.type is aiohttp.WSMsgType.PONG:
                line.ponged, line.connection.patience = True, SILENCE

    def _take(self, line: _Line, fragments: Fragments, data: bytes) -> None:
        """One binary message; junk is dropped with a word in the log."""
        try:
            frame = decode(data)
            if frame.method == CONTROL:
                self._control(line, frame)
                return
            whole = fragments.add(frame, self._clock.monotonic())
        except ValueError as error:
            log.warning("frame dropped: %s", error)
            return
        if whole is not None and frame.method == DATA:
            line.connection.event()
            self._spawn(self._handle(line, frame, whole))

    def _control(self, line: _Line, frame: Frame) -> None:
        """A pong may bring new intervals; a server's ping wants no answer (2.4)."""
        if frame.header("type") != "pong":
            return
        line.connection.answered()
        if frame.payload:
            config = loads(frame.payload.decode("utf-8", "replace"))
            line.interval = _interval(config, line.interval)
            line.retimed.set()
        if not line.ponged:  # then its own pongs are all that can be waited for
            line.connection.patience = line.interval + PONG_SECONDS

    # ------------------------------------------------------------ events

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of its own, so that pings go on while an event is stored."""
        task = asyncio.create_task(work)
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _handle(self, line: _Line, frame: Frame, payload: bytes) -> None:
        """One event, up to its acknowledgement."""
        started = self._clock.monotonic()
        body = await self._answer(frame, payload)
        spent = int((self._clock.monotonic() - started) * 1000)
        try:
            await self._send(line, ack(frame, body, spent))
        except _SEND_ERRORS:
            log.info("acknowledgement lost with its socket; the event will come again")

    async def _answer(self, frame: Frame, payload: bytes) -> bytes:
        """The acknowledgement's payload (reference/feishu.md 2.5)."""
        if frame.header("type") == "card":
            log.warning("a frame of type card: is the callback subscription published? (2.8)")
        event = loads(payload.decode("utf-8", "replace"))
        if not isinstance(event, dict):
            log.warning("event dropped: %d bytes that are no JSON object", len(payload))
            return b'{"code":500}'
        try:
            answer = await self._on_payload(event)
        except QueqiaoError as error:
            log.warning("event refused, it will come again: %s", error)
            return b'{"code":500}'
        except Exception:
            log.exception("event refused, it will come again")
            return b'{"code":500}'
        return orjson.dumps({"code": 200, **_data(answer)})

    async def _send(self, line: _Line, frame: Frame) -> None:
        async with self._clock.timeout(SEND_SECONDS):
            await line.socket.send_bytes(encode(frame))

    async def _pong(self, line: _Line, data: bytes) -> None:
        try:
            async with self._clock.timeout(SEND_SECONDS):
                await line.socket.pong(data)
        except _SEND_ERRORS:
            log.debug("pong lost with its socket")


def _data(answer: dict[str, Any] | None) -> dict[str, str]:
    """The answer of a card action travels as base64 of JSON (reference/feishu.md 2.5)."""
    if answer is None:
        return {}
    return {"data": base64.b64encode(orjson.dumps(answer)).decode()}


def _interval(config: object, otherwise: float) -> float:
    """PingInterval in seconds, when the server names a sensible one."""
    value = at(config, "PingInterval")
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 3600:
        return float(value)
    return otherwise


def _service_of(url: str) -> int:
    """The `service_id` of the URL; it goes into every frame of ours."""
    text = parse_qs(urlsplit(url).query).get("service_id", ["0"])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _unreachable(cause: str) -> Transient:
    return Transient(cause, note="link.unreachable")


def _lost(cause: str) -> Transient:
    return Transient(cause, note="link.closed")


def _refused(step: str, code: int | None, answer: Answer) -> QueqiaoError:
    """What a refused discovery means for the next dial (reference/feishu.md 2.1)."""
    cause = f"{step}: code {code}, HTTP {answer.status}"
    return by_code(cause, code)


def _handshake_refused(error: aiohttp.WSServerHandshakeError) -> QueqiaoError:
    """The refusal is told in headers (reference/feishu.md 2.2)."""
    headers: Mapping[str, str] = error.headers or {}
    status = headers.get("Handshake-Status", "")
    reason = headers.get("Handshake-Autherrcode", "")
    code = int(reason) if reason.isdigit() else int(status) if status.isdigit() else None
    if status == "403":
        code = 403
    cause = f"handshake: HTTP {error.status}, status {status[:10]}, code {reason[:20]}"
    return _busy(cause, code) if code == 514 else by_code(cause, code)


def by_code(cause: str, code: int | None) -> QueqiaoError:
    """What the code of a refused discovery or handshake means (reference/feishu.md 2.1)."""
    if code == _FORBIDDEN:
        return AuthError(cause, code=str(code), note="link.forbidden")
    if code in _AUTH_CODES:
        return AuthError(cause, code=str(code))
    if code == _CROWDED:
        return Crowded(f"{cause}: too many connections", code=str(code))
    if code == _BUSY:
        return PermissionDenied(f"{cause}: system busy", code=str(code), note="link.busy")
    return _busy(cause, code)


def _busy(cause: str, code: int | None) -> Transient:
    return Transient(cause, code=str(code or ""), note="link.busy")
