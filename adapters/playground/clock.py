"""A clock that tests and the fault panel move by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

START = 1_795_500_000.0
"""Where a virtual clock begins: 2026-11-24, in seconds since the epoch."""

TURNS = 20


class VirtualClock:
    """A bot.contract.Clock whose time stands still until `advance` is called.

    `settle` is the real time, in seconds, that sockets get after each wake-up: what
    travels over loopback is outside this clock. What needs no socket gets TURNS turns of
    the event loop, however slow the machine is.
    """

    def __init__(self, start: float = START, *, settle: float = 0.005) -> None:
        self._epoch = start
        self._now = 0.0
        self._settle = settle
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self._epoch + self._now

    def monotonic(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as a suspended laptop or an NTP step does."""
        self._epoch += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        due = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), due))
        await due

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[object]:
        async with asyncio.timeout(None) as scope:
            alarm = asyncio.create_task(self._alarm(scope, seconds))
            try:
                yield scope
            finally:
                alarm.cancel()

    async def _alarm(self, scope: asyncio.Timeout, seconds: float) -> None:
        await self.sleep(seconds)
        scope.reschedule(asyncio.get_running_loop().time())

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking every sleeper at its own moment, in order."""
        end = self._now + seconds
        await self._rest()
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, due = heapq.heappop(self._sleepers)
            if due.done():
                continue
            self._now = max(self._now, moment)
            due.set_result(None)
            await self._rest()
        self._now = end
        await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._settle)
        for _ in range(TURNS):
            await asyncio.sleep(0)
