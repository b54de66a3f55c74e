"""One thread, one connection, group commit.

Everybody who waits when a transaction begins is served by it, each in a savepoint, and
hears of it after the commit; so one flush of the disk serves them all
(reference/engine.md 3).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bot.errors import StoreError
from storage import sqlite
from storage.lock import LockFile
from storage.migrations import migrate

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_TOGETHER = 256
"""Jobs in one transaction."""


@dataclass(slots=True, eq=False)
class _Job:
    """Work for the thread. `future` belongs to `loop`."""

    work: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def do(self, connection: Connection) -> None:
        self.result, self.error = self.work(connection), None


class _Undone(Exception):
    """The database took back the whole transaction because of one job."""


@dataclass(eq=False)
class Database:
    """A file and the thread that works on it. `commits` counts transactions."""

    path: Path
    durable: bool = True
    commits: int = 0
    _jobs: SimpleQueue[_Job | None] = field(default_factory=SimpleQueue)
    _closing: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self._lock = LockFile(self.path.with_name(self.path.name + ".lock"))

    # ------------------------------------------------------------ for the event loop

    async def open(self) -> None:
        """Take the lock, open or make the file, bring its schema up to date. Raises
        StoreError, StoreLocked, StoreTooNew."""
        sqlite.prepare(self.path)
        self._lock.take()
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        first = _Job(migrate, loop, opened)
        threading.Thread(target=self._work, args=(first,), name="store", daemon=True).start()
        await opened

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction; returns after its commit. `work` is a plain
        function of the connection, without effects elsewhere, because it may be run
        again. A caller cancelled before its turn came leaves nothing behind. Raises
        StoreError; nothing of `work` is stored then."""
        if self._closing is not None:
            raise StoreError("store is closed 数据库已关闭")
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        result: T = await job.future
        return result

    async def close(self) -> None:
        """Finish what waits, close the file, release the lock."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
            self._jobs.put(None)
        await asyncio.shield(self._closing)

    # ------------------------------------------------------------ for the thread

    def _work(self, first: _Job) -> None:
        connection = self._connect(first)
        if connection is None:
            self._lock.release()
            _answer([first])
            return
        _answer([first])
        try:
            self._serve(connection)
        finally:
            _shut(connection)
            self._lock.release()
            _tell(first.loop, self._closed)

    def _connect(self, first: _Job) -> Connection | None:
        """The connection after the first job; None when it failed, with the error in it."""
        connection: Connection | None = None
        try:
            connection = sqlite.engine_for(self.path, durable=self.durable).connect()
            first.do(connection)
        except Exception as error:
            first.error = error
            if connection is not None:
                _shut(connection)
            return None
        return connection

    def _serve(self, connection: Connection) -> None:
        more = True
        while more:
            batch, more = self._next()
            if len(batch) > 1:
                self._together(connection, batch)
            elif batch:
                self._alone(connection, batch[0])
            _answer(batch)

    def _next(self) -> tuple[list[_Job], bool]:
        """Everything that waits, at least one job; false after the last."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            if not job.future.cancelled():
                batch.append(job)
            if len(batch) >= MOST_TOGETHER:
                break
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
        return batch, job is not None

    def _alone(self, connection: Connection, job: _Job) -> None:
        try:
            with self._transaction(connection):
                job.do(connection)
        except Exception as error:
            job.error = error

    def _together(self, connection: Connection, batch: list[_Job]) -> None:
        try:
            with self._transaction(connection):
                for job in batch:
                    _in_savepoint(connection, job)
        except _Undone:
            for job in batch:
                self._alone(connection, job)
        except Exception as error:
            for job in batch:
                job.error = error

    @contextmanager
    def _transaction(self, connection: Connection) -> Iterator[None]:
        """A failed COMMIT may leave the transaction standing: it is taken back, else no
        other could ever begin."""
        try:
            with connection.begin():
                yield
            self.commits += 1
        finally:
            sqlite.take_back(connection)

    def _closed(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
        self._closing.set_result(None)


def _in_savepoint(connection: Connection, job: _Job) -> None:
    connection.exec_driver_sql("SAVEPOINT job")
    try:
        job.do(connection)
    except Exception as error:
        if not sqlite.in_transaction(connection):
            raise _Undone from error
        job.error = error
        connection.exec_driver_sql("ROLLBACK TO job")
    connection.exec_driver_sql("RELEASE job")


def _shut(connection: Connection) -> None:
    try:
        connection.close()
        connection.engine.dispose()
    except SQLAlchemyError as error:
        log.error("database not closed cleanly: %s", _cause(error))


def _answer(batch: list[_Job]) -> None:
    """Tell the callers, loop by loop with one wake-up each."""
    for loop in {job.loop for job in batch}:
        mine = [job for job in batch if job.loop is loop]
        _tell(loop, partial(_settle_all, mine))


def _tell(loop: asyncio.AbstractEventLoop, news: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(news)
    except RuntimeError:
        log.debug("nobody waits any more: the loop is closed")


def _settle_all(jobs: list[_Job]) -> None:
    for job in jobs:
        _settle(job)


def _settle(job: _Job) -> None:
    if job.future.done():
        return
    if job.error is None:
        job.future.set_result(job.result)
    else:
        job.future.set_exception(_translated(job.error))


def _translated(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    translated = StoreError(_cause(error))
    translated.__cause__ = error
    return translated


def _cause(error: Exception) -> str:
    """The database's own words, without statement and values."""
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return type(error).__name__ if isinstance(error, SQLAlchemyError) else repr(error)[:200]
