"""DingTalk's Stream connection on aiohttp: ticket, frames, pings, acknowledgements
(reference/dingtalk.md 2). One `session` is one connection; adapters.supervisor repeats it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from adapters.dingtalk import frames
from adapters.dingtalk.codes import code_of
from adapters.dingtalk.foreign import text_at
from adapters.dingtalk.frames import Frame
from adapters.dingtalk.receive import OnFrame
from adapters.dingtalk.settings import DingTalkSettings
from adapters.http import Answer, Http
from adapters.supervisor import Connection
from bot.contract import Clock
from bot.errors import AuthError, BorderError, PermissionDenied, QueqiaoError, Transient

log = logging.getLogger(__name__)

STEP_SECONDS = 10.0
"""The bound of connections/open and of the handshake, each."""

SEND_SECONDS = 5.0
CLOSE_SECONDS = 5.0

PING_EVERY = 20.0
"""Seconds between two WebSocket pings of ours."""

SILENCE = 50.0
"""Seconds without any frame, not even a pong, that prove a socket dead (2.7, 2.8)."""

DEAF_AFTER = 150.0
"""Seconds without a SYSTEM frame, on a connection that used to get them, after which a
fresh connection replaces this one (reference/dingtalk.md 2.7)."""

USED_TO = 3
"""SYSTEM pings after which a connection counts as one that gets them; whether idle ones
always do is not known (2.7)."""

ROTATE_AFTER = 1800.0
"""Seconds without an application event after which a fresh connection replaces this one:
pongs prove the socket, never the hearing (design.md 1)."""

LINGER = 12.0
"""Seconds that a connection is still read after its successor is up, when the server asked
for one: it pushes nothing more here, and closes after ten (2.4)."""

GRACE = 5.0
"""The same when we wanted the successor: the server goes on pushing to both (2.7)."""

NO_GRACE = 0.5
"""The same for a connection that seems deaf: what is pushed to it is lost."""

FRAME_BYTES = 4 << 20

USER_AGENT = "queqiao/1.0"

_BEATS = ("ping", "KEEPALIVE")


@dataclass(slots=True)
class _Line:
    """One open connection. `heard_at` is the last application event, `beat_at` the last
    SYSTEM ping, of which there were `beats`."""

    socket: aiohttp.ClientWebSocketResponse
    connection: Connection
    heard_at: float
    beat_at: float
    beats: int = 0
    leaving: bool = False
    linger: float = GRACE
    replaced: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self, linger: float) -> None:
        """Open the successor now; this one reads on, and `linger` seconds beyond."""
        self.leaving, self.linger = True, linger
        self.connection.leaving()


class DingTalkLink:
    """The Stream connection of one app. `on_frame` gets topic and data of each CALLBACK and
    returns what the answer carries; what it raises is not acknowledged as handled."""

    def __init__(
        self, settings: DingTalkSettings, http: Http, clock: Clock, on_frame: OnFrame
    ) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._on_frame = on_frame
        self._newest: _Line | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    async def session(self, connection: Connection) -> None:
        """From the ticket to the death of the socket. Raises AuthError or PermissionDenied
        when the app may not connect, Transient for everything else."""
        url = await self._open()
        socket = await self._dial(url)
        now = self._clock.monotonic()
        line = _Line(socket, connection, now, now)
        try:
            self._take_over(line)
            connection.up()
            await self._run(line)
        finally:
            if self._newest is line:
                self._newest = None
            await self._hang_up(socket)

    async def close(self) -> None:
        """Let the handlers under way send their acknowledgements, for a moment."""
        try:
            async with self._clock.timeout(CLOSE_SECONDS):
                await asyncio.gather(*self._handlers, return_exceptions=True)
        except TimeoutError:
            log.warning("handlers cut off at shutdown")

    # ------------------------------------------------------------ connecting

    async def _open(self) -> URL:
        """A ticket, good for one connection within 90 s (reference/dingtalk.md 2.1)."""
        body = {
            "clientId": self._settings.client_id,
            "clientSecret": self._settings.client_secret,
            "ua": USER_AGENT,
            "subscriptions": [{"type": "CALLBACK", "topic": t} for t in frames.TOPICS],
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
            raise Transient("connections/open timed out") from None
        except BorderError as error:
            raise Transient(f"connections/open: {error.cause}") from None
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
            raise Transient(f"handshake: HTTP {error.status}") from None
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            raise Transient(f"dial: {type(error).__name__}") from None

    def _take_over(self, line: _Line) -> None:
        """The new connection lives: an older one may end."""
        if self._newest is not None:
            self._newest.replaced.set()
        self._newest = line

    async def _hang_up(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async with self._clock.timeout(CLOSE_SECONDS):
                await socket.close()
        except (TimeoutError, aiohttp.ClientError, OSError):
            log.debug("socket did not close in time")

    # ------------------------------------------------------------ running

    async def _run(self, line: _Line) -> None:
        """Read, ping and wait for a successor; the first of them to end, ends all."""
        work = [self._read(line), self._ping(line), self._until_replaced(line)]
        tasks = [asyncio.ensure_future(step) for step in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _ping(self, line: _Line) -> None:
        """Our own pings prove the socket; silence of the application makes it suspect."""
        while True:
            await self._clock.sleep(PING_EVERY)
            try:
                async with self._clock.timeout(SEND_SECONDS):
                    await line.socket.ping()
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                raise Transient(f"ping: {type(error).__name__}") from None
            if not line.leaving:
                self._suspect(line)

    def _suspect(self, line: _Line) -> None:
        """Replace a connection that may be deaf (reference/dingtalk.md 2.7)."""
        now = self._clock.monotonic()
        if line.beats >= USED_TO and now - line.beat_at > DEAF_AFTER:
            log.info("connection replaced: the server's pings stopped")
            line.leave(NO_GRACE)
        elif now - line.heard_at > ROTATE_AFTER:
            log.info("connection replaced: no event for long")
            line.leave(GRACE)

    async def _until_replaced(self, line: _Line) -> None:
        """A grace for what is on its way, then the successor is alone."""
        await line.replaced.wait()
        await self._clock.sleep(line.linger)

    async def _read(self, line: _Line) -> None:
        while True:
            try:
                async with self._clock.timeout(SILENCE):
                    message = await line.socket.receive()
            except TimeoutError:
                raise Transient("no frame, not even a pong: the socket is dead") from None
            if message.type in _CLOSED:
                if line.leaving:
                    return
                raise Transient(f"socket closed, code {line.socket.close_code}")
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
        elif frame.kind == "CALLBACK":
            line.heard_at = self._clock.monotonic()
            line.connection.event()
        self._spawn(self._answer(line, frame))

    def _system(self, line: _Line, frame: Frame) -> None:
        """Pings count as signs of life; `disconnect` means that nothing more will be pushed
        here (reference/dingtalk.md 2.4)."""
        if frame.topic in _BEATS:
            line.beat_at = self._clock.monotonic()
            line.beats += 1
        elif frame.topic == "disconnect":
            log.info("the server asks for a new connection")
            line.leave(LINGER)

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
            return frames.event_taken(), frames.OK
        if frame.kind != "CALLBACK" or frame.topic not in frames.TOPICS:
            log.warning("unknown topic: %s %s", frame.kind[:20], frame.topic[:80])
            return frames.response(None), frames.UNKNOWN_TOPIC
        return await self._callback(frame)

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
        except (TimeoutError, OSError, aiohttp.ClientError):
            log.info("acknowledgement lost with its socket; the frame may come again")

    async def _pong(self, line: _Line, data: bytes) -> None:
        try:
            async with self._clock.timeout(SEND_SECONDS):
                await line.socket.pong(data)
        except (TimeoutError, OSError, aiohttp.ClientError):
            log.debug("pong lost with its socket")


def _address(answer: Answer) -> URL:
    """Where to dial: the returned endpoint with the ticket, percent-encoded (2.1, 2.2)."""
    endpoint, ticket = text_at(answer.body, "endpoint"), text_at(answer.body, "ticket")
    if answer.status >= 300 or not ticket or not endpoint.startswith(("ws://", "wss://")):
        raise _refused(answer)
    sign = "&" if "?" in endpoint else "?"
    try:
        return URL(f"{endpoint}{sign}ticket={quote(ticket, safe='')}", encoded=True)
    except ValueError:
        raise Transient("connections/open: the endpoint is no URL") from None


def _refused(answer: Answer) -> QueqiaoError:
    """What a refused opening means for the next dial (reference/dingtalk.md 2.1, 2.7)."""
    code = code_of(answer)[:80]
    cause = f"connections/open: HTTP {answer.status} {code}"
    if answer.status == 401 or code in ("authFailed", "invalidClientIdOrSecret"):
        return AuthError(f"{cause}: client id or secret refused", code=code)
    if answer.status in (400, 403) and code:
        hint = "is the robot published, in Stream mode, and this IP allowed?"
        return PermissionDenied(f"{cause}: {hint}", code=code)
    return Transient(cause, code=code)


_CLOSED = frozenset(
    {
        aiohttp.WSMsgType.CLOSE,
        aiohttp.WSMsgType.CLOSING,
        aiohttp.WSMsgType.CLOSED,
        aiohttp.WSMsgType.ERROR,
    }
)
_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})
