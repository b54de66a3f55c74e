"""Keeps one long connection alive for ever: the same supervision for every platform.

A session is one connection from dial to death. The supervisor starts the next one when a
session ends or wants a successor, and never gives up. What makes a connection doubtful is
adapters/hearing.py; what the status says of it, adapters/connection.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from adapters.connection import Connection, Gap, Link
from adapters.hearing import IDLE
from adapters.link_words import Outcome, log_end
from bot.contract import Clock, LinkStatus
from bot.errors import AuthError, PermissionDenied

STABLE = 60.0
"""Seconds a connection must have lived before the backoff starts over."""

Session = Callable[[Connection], Awaitable[None]]


class Crowded(PermissionDenied):
    """The platform allows no more connections of this app at present."""

    note = "link.crowded"


class Backoff:
    """Delays before the next dial: the first retry fast, then doubling with jitter. With
    `cap`, and the bounds of a dial, a link that can be had again is up within a minute.
    Refused credentials are retried slowly: they may be repaired in the console."""

    def __init__(self, *, first: float = 0.5, cap: float = 30.0, slow: float = 100.0) -> None:
        self._first, self._cap, self._slow = first, cap, slow
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def delay(self, error: BaseException | None) -> float:
        """Seconds to wait now, jittered over the upper half of the step."""
        crowded = isinstance(error, Crowded)
        if isinstance(error, AuthError | PermissionDenied) and not crowded:
            return self._slow * random.uniform(0.75, 1.25)
        step = min(self._slow if crowded else self._cap, self._first * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return step * random.uniform(0.5, 1.0)


async def supervise(
    session: Session,
    status: LinkStatus,
    clock: Clock,
    backoff: Backoff | None = None,
    *,
    gap: Gap | None = None,
    up: Callable[[], object] | None = None,
    idle: float = IDLE,
) -> NoReturn:
    """Run sessions one after the other until cancelled; never ends by itself, also when
    a session is cancelled from inside. `gap` is told when something may have been missed,
    `up` of each new connection. `idle`: seconds of silence after which a fresh connection
    is opened; 0 is never."""
    await _Supervisor(Link(status, clock, gap, up, idle), backoff or Backoff()).run(session)


class _Supervisor:
    def __init__(self, link: Link, backoff: Backoff) -> None:
        self._link, self._clock, self._backoff = link, link.clock, backoff
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._left_early = self._stopping = False

    async def run(self, session: Session) -> NoReturn:
        try:
            while True:
                connection = Connection(self._link)
                task = asyncio.create_task(self._outcome(session, connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                await _until_over(task, connection)
                await self._pause(connection, task)
        finally:
            await self._stop()

    async def _outcome(self, session: Session, connection: Connection) -> Outcome:
        error: Outcome = None
        try:
            await session(connection)
        except asyncio.CancelledError as caught:
            if self._stopping:
                raise
            error = caught
        except Exception as caught:
            error = caught
        self._ended(connection, error)
        return error

    def _ended(self, connection: Connection, error: Outcome) -> None:
        log_end(self._link.status.name, error)
        if self._link.ended(connection, error):
            return
        self._link.failed(error)
        if isinstance(error, Crowded):
            self._link.make_room()  # the successor's place may be the one we hold

    async def _pause(self, connection: Connection, task: asyncio.Task[Outcome]) -> None:
        """Wait before the next dial. The successor of one that is leaving comes at once,
        unless the one before it left early as well: a server that sends everybody away
        must not be dialled in a circle."""
        stable = self._stable(connection)
        if stable:
            self._backoff.reset()
        if task.done():
            await self._clock.sleep(self._backoff.delay(task.result()))
            return
        if self._left_early and not stable:
            await self._clock.sleep(self._backoff.delay(None))
        self._left_early = not stable

    def _stable(self, connection: Connection) -> bool:
        up_at = connection.up_at
        return up_at is not None and self._clock.monotonic() - up_at > STABLE

    async def _stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._link.red("link.stopped", "stopped")


async def first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first of them ends, whose exception is raised here."""
    tasks = [asyncio.create_task(step) for step in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _until_over(task: asyncio.Task[Outcome], connection: Connection) -> None:
    """Wait until the session ended or said that it is leaving."""
    left = asyncio.create_task(connection.left.wait())
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
