"""One connection as its session reports it, and all connections of one link: what the
status says, and when something may have been missed."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from adapters.hearing import IDLE, JUMP, LINGER, NO_LINGER, OVERDUE, PING_EVERY, SILENCE, Hearing
from adapters.link_words import Outcome, detail_of, key_of, report
from bot.contract import Clock, LinkStatus
from bot.errors import Transient
from bot.texts import beside

log = logging.getLogger(__name__)

Gap = Callable[[float, float], object]
"""Told `since` and `until`, in seconds since the epoch, when we may have been deaf."""

Ping = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class _Moment:
    """One instant on both clocks, in seconds."""

    mono: float
    wall: float


class Link:
    """The connections of one link: the newest is in front, older ones are on their way
    out. `gap` is told when something may have been missed, `up` of each new connection.
    `idle`: as of adapters.hearing.Hearing."""

    def __init__(
        self,
        status: LinkStatus,
        clock: Clock,
        gap: Gap | None = None,
        up: Callable[[], object] | None = None,
        idle: float = IDLE,
    ) -> None:
        self.status, self.clock, self.idle = status, clock, idle
        self._gap, self._up = gap, up
        self._live: list[Connection] = []
        self._missed: _Moment | None = None
        self._failure = ""
        self._offset = clock.time() - clock.monotonic()
        self.last_event = -math.inf

    def now(self) -> _Moment:
        return _Moment(self.clock.monotonic(), self.clock.time())

    @property
    def heard(self) -> bool:
        """Some connection is up that nobody replaces yet."""
        return any(not connection.replaced for connection in self._live)

    def look(self) -> None:
        """Notice a jump of the wall clock: a suspended machine, or a step of its time. The
        monotonic clock stands still while the machine is suspended."""
        offset = self.clock.time() - self.clock.monotonic()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) > JUMP:
            log.warning("link %s: the wall clock jumped by %.0f s", self.status.name, jump)
            for connection in self._live:
                connection.jumped()

    # ------------------------------------------------------------ beginnings and ends

    def came_up(self, connection: Connection) -> None:
        self.look()
        for older in self._live:
            older.replace()
        self._live.append(connection)
        self._green(self.now())
        self._tell_gap()
        if self._up is not None:
            self._up()

    def _green(self, now: _Moment) -> None:
        status = self.status
        if not status.connected:
            status.since = now.mono
        status.connected, status.suspect, status.auth_failed = True, False, False
        status.cause = status.detail = ""
        status.last_frame = status.proven = now.mono
        status.connects += 1
        status.attempts, self._failure = 0, ""

    def ended(self, connection: Connection, error: Outcome) -> bool:
        """The session is over; whether it ever came up."""
        connection.over = True
        if connection not in self._live:
            return False
        self._live.remove(connection)
        if connection.replaced and connection.healthy and self.heard:
            return True
        self.missed(connection.seen)
        if self.heard:
            self._tell_gap()
        elif self.status.connected:
            self.red(key_of(error, "link.closed"), detail_of(error))
        return True

    def failed(self, error: Outcome) -> None:
        """A dial led to nothing; an older connection may still hear."""
        self.status.attempts += 1
        self._failure = key_of(error, "link.unreachable")
        report(self.status, error)

    def make_room(self) -> None:
        """Close what is open before the next dial."""
        for connection in self._live:
            connection.replace(at_once=True)

    # ------------------------------------------------------------ what is known

    def proven(self, now: _Moment) -> None:
        """We hear."""
        self.status.proven = now.mono
        if self.status.connected and self.status.suspect:
            self.status.suspect, self.status.cause = False, ""

    def suspect(self, key: str) -> None:
        """We may be deaf; `key` of bot.texts says why, unless there is a reason why no
        fresh connection can be had."""
        self.status.suspect = True
        if self.status.connected:
            self.status.cause = beside(self._failure or key)

    def red(self, key: str, detail: str) -> None:
        if self.status.connected:
            self.status.since = self.clock.monotonic()
        self.status.connected = False
        self.status.cause, self.status.detail = beside(key), detail

    def missed(self, since: _Moment) -> None:
        """From this moment on something may not have been heard."""
        if self._missed is None or since.mono < self._missed.mono:
            self._missed = since

    def _tell_gap(self) -> None:
        """The wall clock may have jumped meanwhile: of two readings the earlier counts."""
        missed, self._missed = self._missed, None
        if missed is None:
            return
        self.status.reconnects += 1
        if self._gap is None:
            return
        now = self.now()
        try:
            self._gap(min(missed.wall, now.wall - (now.mono - missed.mono)), now.wall)
        except Exception:
            log.exception("link %s: a gap could not be handed on", self.status.name)


class Connection:
    """What a session tells its supervisor. `patience`: seconds without any frame that
    prove this socket dead. `risen` is set when it is up, `left` when it wants a
    successor. `seen` is the last proof of its socket."""

    def __init__(self, link: Link) -> None:
        self._link, self._clock = link, link.clock
        self._patience = SILENCE
        self.up_at: float | None = None
        self.risen, self.left = asyncio.Event(), asyncio.Event()
        self.over = False
        self.seen = self._proven = link.now()
        self._hearing = Hearing(self.seen.mono, link.idle)
        self._linger = LINGER
        self._left_at = self._ends_at = self._ping_at = self._wakes_at = math.inf
        self._deaf = self._said = False
        self._stirred = asyncio.Event()

    @property
    def patience(self) -> float:
        return self._patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._patience = seconds
        self._wake()

    # ------------------------------------------------------------ told by the session

    def up(self) -> None:
        """The handshake is done and frames can arrive."""
        if self.over:
            return
        now = self._link.now()
        self.up_at = self._ping_at = now.mono
        self.seen = self._proven = now
        self._hearing = Hearing(now.mono, self._link.idle)
        self._link.came_up(self)
        self.risen.set()

    def frame(self) -> None:
        """Any frame arrived: the socket lives."""
        self._link.look()  # first: this frame must not hide a jump
        now = self._link.now()
        self._link.status.last_frame = now.mono
        if not self._deaf:
            self.seen = now

    def event(self) -> None:
        """An application event arrived: we hear."""
        self.frame()
        now = self._link.now()
        self._hearing.event(now.mono)
        self._link.status.last_event = self._link.last_event = now.mono
        self._prove(now)

    def sign(self, within: float = math.inf) -> None:
        """The server sent an application frame of its own: we hear. No other one, and no
        event, `within` seconds from now means that we do not any more."""
        now = self._link.now()
        self._hearing.sign(now.mono, within)
        self._prove(now)

    def _prove(self, now: _Moment) -> None:
        self._proven, self._said = now, False
        self._wake()
        if not self.over:
            self._link.proven(now)

    def expect(self, seconds: float) -> None:
        """The application was asked something; neither answered() nor event() within
        `seconds` means that it is deaf."""
        self._hearing.expect(self._clock.monotonic() + seconds)
        self._wake()

    def answered(self) -> None:
        """It answered, which is no proof of hearing."""
        self._hearing.answered()

    def leaving(self, linger: float | None = None, *, deaf: bool = False) -> None:
        """Open the successor now. This session reads on until that is up, and `linger`
        seconds beyond (default LINGER). `deaf`: the server said that it pushes nothing
        more here, so no frame proves anything from now on."""
        self._linger = LINGER if linger is None else linger
        self._deaf = self._deaf or deaf
        if not self.left.is_set():
            self._left_at = self._clock.monotonic()
            self.left.set()
            self._wake()

    async def watch(self, ping: Ping | None = None) -> None:
        """Ping on time and doubt what deserves it, until a successor has taken over.
        Raises Transient when the socket is dead. Runs in the session, once it is up."""
        while (now := self._clock.monotonic()) < self._ends_at:
            self._link.look()
            self._judge_socket(now)
            self._judge_hearing(now)
            if now >= self._ping_at:
                self._ping_at = now + PING_EVERY
                if ping is not None:
                    await ping()
            await self._nap()

    # ------------------------------------------------------------ told by the link

    @property
    def replaced(self) -> bool:
        return self._ends_at < math.inf

    @property
    def healthy(self) -> bool:
        """It has answered the last ping."""
        return self._clock.monotonic() - self.seen.mono <= self._patience - PING_EVERY

    def replace(self, *, at_once: bool = False) -> None:
        """A successor is up; or room is needed for one."""
        if not self.replaced:
            self._ends_at = self._clock.monotonic() + (0.0 if at_once else self._linger)
            self._wake()

    def jumped(self) -> None:
        """Nobody knows how long we slept; the peer may be gone."""
        self._doubt("link.jumped", self.seen, LINGER)

    def _doubt(self, key: str, since: _Moment, linger: float) -> None:
        self._said = True
        self._link.missed(since)
        self._link.suspect(key)
        self.leaving(linger)

    # ------------------------------------------------------------ doubts

    def _judge_socket(self, now: float) -> None:
        if now >= self.seen.mono + self._patience:
            raise Transient("no frame, not even a pong: the socket is dead", note="link.dead")

    def _judge_hearing(self, now: float) -> None:
        if self.left.is_set():
            if now >= self._overdue():
                self._said = True
                self._link.suspect("link.deaf")
            return
        moment, reason = self._hearing.doubt(self._link.last_event)
        if now < moment:
            return
        log.info("link %s: %s, opening a fresh connection", self._link.status.name, reason)
        if reason == "deaf":
            self._doubt("link.deaf", self._proven, NO_LINGER)
        else:
            self.leaving()

    def _overdue(self) -> float:
        """When the successor is missed so much that we count as deaf."""
        if self._said or self.replaced:
            return math.inf
        doubted = -math.inf if self._deaf else self._hearing.doubt(self._link.last_event)[0]
        return max(self._left_at, doubted) + OVERDUE

    def _next(self) -> float:
        """The next moment at which there is something to do."""
        left = self.left.is_set()
        doubt = self._overdue() if left else self._hearing.doubt(self._link.last_event)[0]
        return min(self._ping_at, self.seen.mono + self._patience, self._ends_at, doubt)

    async def _nap(self) -> None:
        self._wakes_at = self._next()
        try:
            async with self._clock.timeout(self._wakes_at - self._clock.monotonic()):
                await self._stirred.wait()
        except TimeoutError:
            return
        self._stirred.clear()

    def _wake(self) -> None:
        """End the nap, if there is something to do sooner."""
        if self._next() < self._wakes_at:
            self._stirred.set()
