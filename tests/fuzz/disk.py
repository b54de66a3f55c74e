"""The store without its thread: transactions happen in the loop, after a moment.

So a seed decides what was committed when the process was killed, and whether anybody heard
of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection

from bot.errors import StoreError
from storage import sqlite
from storage.database import Database, _answer, _Job, _shut
from storage.migrations import migrate

SLOW = 0.01
"""How many flushes of the disk take long."""


class Disk(Database):
    """A Database whose work takes 0.5 to 8 ms, and now and then up to a second."""

    def __init__(self, path: Path, now: Callable[[], float], rng: Random) -> None:
        super().__init__(path, durable=False, now=now)
        self._rng = rng
        self._connection: Connection | None = None
        self._due = False

    async def open(self) -> None:
        sqlite.prepare(self.path)
        self._lock.take()
        first = _Job.of(migrate)
        self._connection = self._connect(first)
        _answer([first])
        await first.future

    def _put(self, job: _Job) -> asyncio.Future[Any]:
        if self._connection is None:
            raise StoreError("store is closed")
        self._jobs.put(job)
        if not self._due:
            self._due = True
            job.loop.call_later(self._seconds(), self._flush)
        return job.future

    def _seconds(self) -> float:
        slow = self._rng.random() < SLOW
        return self._rng.uniform(0.05, 1.0) if slow else self._rng.uniform(0.0005, 0.008)

    def _flush(self) -> None:
        self._due = False
        if self._connection is not None and not self._jobs.empty():
            self._round(self._connection, self._jobs.get())

    async def close(self) -> None:
        self._flush()
        await asyncio.sleep(0)
        self.kill()

    def kill(self) -> None:
        """What was not committed is gone."""
        if self._connection is not None:
            _shut(self._connection)
            self._connection = None
            self._lock.release()
