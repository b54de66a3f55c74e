"""Keeps one long connection alive for ever: the same supervision for every platform.

A session is one connection from dial to death. The supervisor starts the next one when
a session ends or when it says that it is leaving, and never gives up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from bot.contract import Clock, LinkStatus
from bot.errors import AuthError, PermissionDenied, QueqiaoError

log = logging.getLogger(__name__)

STABLE = 60.0
"""Seconds a connection must have lived before the backoff starts over."""


class Backoff:
    """Delays before the next dial: the first retry fast, then doubling with jitter.
    Refused credentials are retried slowly: they may be repaired in the console."""

    def __init__(self, *, first: float = 0.5, cap: float = 60.0, slow: float = 120.0) -> None:
        self._first, self._cap, self._slow = first, cap, slow
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def delay(self, error: BaseException | None) -> float:
        """Seconds to wait now, jittered over the upper half of the step."""
        if isinstance(error, AuthError | PermissionDenied):
            return self._slow * random.uniform(0.75, 1.25)
        step = min(self._cap, self._first * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return step * random.uniform(0.5, 1.0)


class Connection:
    """What a session tells its supervisor."""

    def __init__(self, status: LinkStatus, clock: Clock) -> None:
        self._status, self._clock = status, clock
        self.up_at: float | None = None
        self.left = asyncio.Event()

    def up(self) -> None:
        """The handshake is done and frames can arrive."""
        now = self._clock.monotonic()
        self.up_at = now
        self._status.connected = True
        self._status.cause = ""
        self._status.since = self._status.last_frame = now
        self._status.connects += 1

    def frame(self) -> None:
        """Any frame arrived: the socket lives."""
        self._status.last_frame = self._clock.monotonic()

    def event(self) -> None:
        """An application event arrived: we hear."""
        self._status.last_frame = self._status.last_event = self._clock.monotonic()

    def leaving(self) -> None:
        """The server will deliver nothing more here: open the successor now, while
        this session reads on until its socket closes."""
        self.left.set()


Session = Callable[[Connection], Awaitable[None]]
Outcome = BaseException | None


async def supervise(
    session: Session, status: LinkStatus, clock: Clock, backoff: Backoff | None = None
) -> None:
    """Run sessions one after the other until cancelled; never ends by itself."""
    backoff = backoff or Backoff()
    live: set[asyncio.Task[Outcome]] = set()
    try:
        while True:
            connection = Connection(status, clock)
            task = asyncio.create_task(_outcome(session, connection, status.name))
            live.add(task)
            task.add_done_callback(live.discard)
            await _until_over(task, connection)
            if not task.done():
                continue
            if connection.up_at is not None and clock.monotonic() - connection.up_at > STABLE:
                backoff.reset()
            error = task.result()
            status.connected = False
            status.cause = _words(error)
            await clock.sleep(backoff.delay(error))
    finally:
        for task in live:
            task.cancel()
        await asyncio.gather(*live, return_exceptions=True)


async def _outcome(session: Session, connection: Connection, name: str) -> Outcome:
    try:
        await session(connection)
    except Exception as error:
        unforeseen = not isinstance(error, QueqiaoError | OSError)
        log.warning("link %s ended: %s", name, _words(error), exc_info=unforeseen)
        return error
    log.info("link %s ended", name)
    return None


async def _until_over(task: asyncio.Task[Outcome], connection: Connection) -> None:
    """Wait until the session ended or said that it is leaving."""
    left = asyncio.create_task(connection.left.wait())
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()


def _words(error: Outcome) -> str:
    """One line for status and log; type and cause, never a payload."""
    if error is None:
        return "closed"
    if isinstance(error, QueqiaoError):
        return str(error)
    return f"{type(error).__name__}"
