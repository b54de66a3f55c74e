"""DingTalk's Stream connection on aiohttp: ticket, frames, pings, acknowledgements
(reference/dingtalk.md 2). One `session` is one connection; adapters.supervisor repeats it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from adapters.connection import Connection
from adapters.dingtalk import frames
from adapters.dingtalk.codes import code_of
from adapters.dingtalk.frames import Frame
from adapters.dingtalk.receive import OnFrame
from adapters.dingtalk.settings import DingTalkSettings
from adapters.foreign import text_at
from adapters.http import Answer, Http
from adapters.supervisor import first_of
from bot.contract import Clock
from bot.errors import AuthError, BorderError, PermissionDenied, QueqiaoError, Transient

log = logging.getLogger(__name__)

STEP_SECONDS = 10.0
"""The bound of connections/open and of the handshake, each."""

SEND_SECONDS = 5.0
CLOSE_SECONDS = 5.0

USED_TO = 3
"""SYSTEM pings after which a connection counts as one that gets them; whether idle ones
always do is not known (2.7)."""

BEATS_MISSED = 3
"""Pings in a row, at the slowest pace seen, whose absence is not taken for chance."""

LEAVING_SECONDS = 12.0
"""How long a connection is still read after its successor is up, when the server asked for
one: it pushes nothing more here, and closes after ten (2.4)."""

FRAME_BYTES = 4 << 20

USER_AGENT = "queqiao/1.0"

BEATS = ("ping", "KEEPALIVE")
"""SYSTEM topics by which the server shows that it is there (2.4)."""


class Beats:
    """The server's SYSTEM pings on one connection. `deaf_after`: as in DingTalkSettings."""

    def __init__(self, deaf_after: float, now: float) -> None:
        self._deaf_after, self._last = deaf_after, now
        self._count, self._apart = 0, 0.0

    def beat(self, now: float) -> float:
        """One came; within how many seconds the next has to come (may be infinite)."""
        self._apart = max(self._apart, now - self._last)
        self._last, self._count = now, self._count + 1
        if self._count < USED_TO:
            return math.inf
        return max(self._deaf_after, BEATS_MISSED * self._apart)


@dataclass(frozen=True, slots=True)
class _Line:
    """One open connection."""

    socket: aiohttp.ClientWebSocketResponse
    connection: Connection
    beats: Beats


class DingTalkLink:
    """The Stream connection of one app. `on_frame` gets topic and data of each CALLBACK,
    and of a recall its eventType in place of the topic; it returns what the answer
    carries, and what it raises is not acknowledged as handled."""

    def __init__(
        self, settings: DingTalkSettings, http: Http, clock: Clock, on_frame: OnFrame
    ) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._on_frame = on_frame
        self._handlers: set[asyncio.Task[None]] = set()

    async def session(self, connection: Connection) -> None:
        """From the ticket to the death of the socket. Raises AuthError or PermissionDenied
        when the app may not connect, Transient for everything else."""
        url = await self._open()
        socket = await self._dial(url)
        beats = Beats(self._settings.deaf_after, self._clock.monotonic())
        line = _Line(socket, connection, beats)
        try:
            connection.up()
            await first_of(self._read(line), connection.watch(lambda: self._ping(line)))
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

    def _subscriptions(self) -> list[dict[str, str]]:
        """Events cost of the month's pushes, so they are asked for by setting only (5.7)."""
        wanted = [("CALLBACK", topic) for topic in frames.TOPICS]
        wanted += [("EVENT", frames.EVENTS)] if self._settings.recall_events else []
        return [{"type": kind, "topic": topic} for kind, topic in wanted]

    async def _open(self) -> URL:
        """A ticket, good for one connection within 90 s (reference/dingtalk.md 2.1)."""
        body = {
            "clientId": self._settings.client_id,
            "clientSecret": self._settings.client_secret,
            "ua": USER_AGENT,
            "subscriptions": self._subscriptions(),
        }
        url = f"{self._settings.base_url.rstrip('/')}/v1.0/gateway/connections/open"
        try:
            async with self._clock.timeout(STEP_SECONDS):
                answer = await self._http.call(
                    "POST",
                    url,
                    json=body,
                    headers={"Accept": "application/json"},
                    timeout=STEP_SECONDS,
                )
        except TimeoutError:
            raise _unreachable("connections/open timed out") from None
        except BorderError as error:
            raise _unreachable(f"connections/open: {error.cause}") from None
        return _address(answer)

    async def _dial(self, url: URL) -> aiohttp.ClientWebSocketResponse:
        """The handshake; errors never carry the URL, which holds the ticket (2.2)."""
        try:
            async with self._clock.timeout(STEP_SECONDS):
                return await self._http.session.ws_connect(
                    url,
                    max_msg_size=FRAME_BYTES,
                    autoping=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise _busy(f"handshake: HTTP {error.status}") from None
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
        """Our own pings prove the socket."""
        try:
            async with self._clock.timeout(SEND_SECONDS):
                await line.socket.ping()
        except _SEND_ERRORS as error:
            raise _lost(f"ping: {type(error).__name__}") from None

    async def _read(self, line: _Line) -> None:
        while True:
            message = await line.socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                line.connection.frame()  # a goodbye; what was pushed before it has come
            if message.type in _CLOSED:
                if line.connection.left.is_set():
                    return
                raise _lost(f"socket closed, code {line.socket.close_code}")
            line.connection.frame()
            if message.type is aiohttp.WSMsgType.PING:
                self._spawn(self._pong(line, message.data))
            elif message.type in _DATA:
                self._take(line, message.data)

    def _take(self, line: _Line, data: str | bytes) -> None:
        """One message; junk is dropped with a word in the log."""
        try:
            frame = frames.decode(data)
        except ValueError as error:
            log.warning("frame dropped: %s", error)
            return
        if frame.kind == "SYSTEM":
            self._system(line, frame)
        elif frame.kind in ("CALLBACK", "EVENT"):
            line.connection.event()
        self._spawn(self._answer(line, frame))

    def _system(self, line: _Line, frame: Frame) -> None:
        """Pings prove that we hear; `disconnect` means that nothing more will be pushed
        here (reference/dingtalk.md 2.4)."""
        if frame.topic in BEATS:
            line.connection.sign(line.beats.beat(self._clock.monotonic()))
        elif frame.topic == "disconnect":
            log.info("the server asks for a new connection")
            line.connection.leaving(LEAVING_SECONDS, deaf=True)

    # ------------------------------------------------------------ answering

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of its own, so that pings go on while a message is stored."""
        task = asyncio.create_task(work)
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _answer(self, line: _Line, frame: Frame) -> None:
        """Handle one frame, then answer it on the socket it came by (2.5)."""
        data, code = await self._handled(frame)
        if frame.message_id:
            await self._send(line, frames.ack(frame, data, code))

    async def _handled(self, frame: Frame) -> tuple[str, int]:
        """The answer's data and code; SYSTEM data goes back as it came (2.4)."""
        if frame.kind == "SYSTEM":
            return frame.data, frames.OK
        if frame.kind == "EVENT":
            return await self._event(frame)
        if frame.kind != "CALLBACK" or frame.topic not in frames.TOPICS:
            log.warning("unknown topic: %s %s", frame.kind[:20], frame.topic[:80])
            return frames.response(None), frames.UNKNOWN_TOPIC
        return await self._callback(frame)

    async def _event(self, frame: Frame) -> tuple[str, int]:
        if frame.event == frames.RECALL and self._settings.recall_events:
            _, code = await self._callback(replace(frame, topic=frames.RECALL))
            if code != frames.OK:
                return frames.event_later(), code
        return frames.event_taken(), frames.OK

    async def _callback(self, frame: Frame) -> tuple[str, int]:
        try:
            shown = await self._on_frame(frame.topic, frames.payload(frame))
        except ValueError as error:
            log.warning("callback dropped: %s", error)
            return frames.response(None), frames.OK
        except QueqiaoError as error:
            log.warning("callback refused, it may come again: %s", error)
            return frames.response(None), frames.FAILED
        except Exception:
            log.exception("callback refused, it may come again")
            return frames.response(None), frames.FAILED
        return frames.response(shown), frames.OK

    async def _send(self, line: _Line, text: str) -> None:
        try:
            async with self._clock.timeout(SEND_SECONDS):
                await line.socket.send_str(text)
        except _SEND_ERRORS:
            log.info("acknowledgement lost with its socket; the frame may come again")

    async def _pong(self, line: _Line, data: bytes) -> None:
        try:
            async with self._clock.timeout(SEND_SECONDS):
                await line.socket.pong(data)
        except _SEND_ERRORS:
            log.debug("pong lost with its socket")


def _address(answer: Answer) -> URL:
    """Where to dial: the returned endpoint with the ticket, percent-encoded (2.1, 2.2)."""
    endpoint, ticket = text_at(answer.body, "endpoint"), text_at(answer.body, "ticket")
    if answer.status >= 300 or not ticket or not endpoint.startswith(("ws://", "wss://")):
        raise refused(answer.status, code_of(answer)[:80])
    sign = "&" if "?" in endpoint else "?"
    try:
        return URL(f"{endpoint}{sign}ticket={quote(ticket, safe='')}", encoded=True)
    except ValueError:
        raise _busy("connections/open: the endpoint is no URL") from None


def refused(status: int, code: str) -> QueqiaoError:
    """What a refused opening means for the next dial (reference/dingtalk.md 2.1, 2.7)."""
    cause = f"connections/open: HTTP {status} {code}"
    if status == 401 or code in ("authFailed", "invalidClientIdOrSecret"):
        return AuthError(f"{cause}: client id or secret refused", code=code)
    if status in (400, 403) and code:
        hint = "is the robot published, in Stream mode, and this IP allowed?"
        return PermissionDenied(f"{cause}: {hint}", code=code)
    return _busy(cause, code)


def _unreachable(cause: str) -> Transient:
    return Transient(cause, note="link.unreachable")


def _lost(cause: str) -> Transient:
    return Transient(cause, note="link.closed")


def _busy(cause: str, code: str = "") -> Transient:
    return Transient(cause, code=code, note="link.busy")


_CLOSED = frozenset(
    {
        aiohttp.WSMsgType.CLOSE,
        aiohttp.WSMsgType.CLOSING,
        aiohttp.WSMsgType.CLOSED,
        aiohttp.WSMsgType.ERROR,
    }
)
_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})
_SEND_ERRORS = (TimeoutError, OSError, aiohttp.ClientError)
