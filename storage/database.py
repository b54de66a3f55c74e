"""One thread, one connection, group commit.

Everybody who waits when a transaction begins is served by it, each in a savepoint, and
hears of it after the commit; so one flush of the disk serves them all
(reference/engine.md 3).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bot.errors import StoreError
from storage import backup, sqlite
from storage.lock import LockFile
from storage.migrations import migrate

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_TOGETHER = 256
"""Jobs in one transaction."""


@dataclass(slots=True, eq=False)
class _Job:
    """Work for the thread. `future` belongs to `loop`, and so does `foresee`."""

    work: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    foresee: Callable[[Any], object] | None = None
    result: Any = None
    error: Exception | None = None

    @classmethod
    def of(
        cls, work: Callable[[Connection], Any], foresee: Callable[[Any], object] | None = None
    ) -> Self:
        """For the running loop."""
        loop = asyncio.get_running_loop()
        return cls(work, loop, loop.create_future(), foresee)

    def do(self, connection: Connection) -> None:
        self.result, self.error = self.work(connection), None

    def foretell(self) -> None:
        """On the loop. Nothing is to be prepared for a caller who has gone away."""
        if self.foresee is not None and not self.future.done():
            self.foresee(self.result)


class _Copy(_Job):
    """Work that is no transaction, with others served in between."""


class _Undone(Exception):
    """The database took back the whole transaction because of one job: SQLite does so by
    itself after some errors (disk full, input/output error)."""


@dataclass(eq=False)
class Database:
    """A file and the thread that works on it. `now` is its clock, in seconds since the
    epoch. `commits` counts transactions."""

    path: Path
    durable: bool = True
    now: Callable[[], float] = time.time
    commits: int = 0
    _jobs: SimpleQueue[_Job | None] = field(default_factory=SimpleQueue)
    _closing: asyncio.Future[None] | None = None
    _copying: bool = False
    _last: bool = False

    def __post_init__(self) -> None:
        self._lock = LockFile(self.path.with_name(self.path.name + ".lock"))

    # ------------------------------------------------------------ for the event loop

    async def open(self) -> None:
        """Take the lock, open or make the file, bring its schema up to date. Raises
        StoreError, StoreLocked, StoreTooNew."""
        sqlite.prepare(self.path)
        self._lock.take()
        first = _Job.of(migrate)
        threading.Thread(target=self._work, args=(first,), name="store", daemon=True).start()
        await first.future

    async def run(
        self, work: Callable[[Connection], T], foresee: Callable[[T], object] | None = None
    ) -> T:
        """Run `work` in a transaction; returns after its commit. `work` is a plain
        function of the connection, without effects elsewhere, because it may be run
        again. A caller cancelled before its turn came leaves nothing behind. Raises
        StoreError; nothing of `work` is stored then.

        `foresee` may get the result on the event loop while the disk is still being
        written, which takes the longest of all: time to prepare what will need it. It is
        not called in a crowd or for a caller who was cancelled, and nothing may come of the
        result after all."""
        result: T = await self._put(_Job.of(work, foresee))
        return result

    async def backup(self, path: Path) -> None:
        """Copy everything to the file `path` in steps, serving others after each. Raises
        StoreError, also for a path that belongs to the database and for a second backup at
        the same time. Once begun it is finished, even when the caller goes away."""
        if self._copying:
            raise StoreError("另一个备份正在进行 another backup is being made")
        self._copying = self._closing is None
        await asyncio.shield(self._put(_Copy.of(lambda connection: self._copy(connection, path))))

    def _own(self) -> set[Path]:
        own = self.path.resolve()
        return {own.with_name(own.name + side) for side in ("", ".lock", *backup.LOGS)}

    def _put(self, job: _Job) -> asyncio.Future[Any]:
        if self._closing is not None:
            raise StoreError("数据库已关闭 store is closed")
        self._jobs.put(job)
        return job.future

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
            connection = sqlite.engine_for(self.path, durable=self.durable, now=self.now).connect()
            first.do(connection)
        except Exception as error:
            first.error = error
            if connection is not None:
                _shut(connection)
            return None
        return connection

    def _serve(self, connection: Connection) -> None:
        while not self._last:
            self._round(connection, self._jobs.get())

    def _between(self, connection: Connection) -> None:
        """Serve whoever waits now, if anybody does."""
        if not self._last and not self._jobs.empty():
            self._round(connection, self._jobs.get())

    def _round(self, connection: Connection, first: _Job | None) -> None:
        """Serve `first` and all who wait behind it. The last of all jobs is None."""
        batch = self._gather(first)
        shared = [job for job in batch if not isinstance(job, _Copy)]
        if len(shared) > 1:
            self._together(connection, shared)
        elif shared:
            self._alone(connection, shared[0])
        _answer(shared)
        for job in batch:
            if isinstance(job, _Copy):
                try:
                    job.do(connection)
                except Exception as error:
                    job.error = error
                _answer([job])

    def _gather(self, job: _Job | None) -> list[_Job]:
        batch: list[_Job] = []
        while job is not None:
            if not job.future.cancelled():
                batch.append(job)
            if len(batch) >= MOST_TOGETHER:
                return batch
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return batch
        self._last = True
        return batch

    def _copy(self, connection: Connection, path: Path) -> None:
        try:
            if path.resolve() in self._own():
                raise StoreError(f"{path} 是数据库自己的文件 belongs to the database itself")
            backup.copy(sqlite.driver_of(connection), path, lambda: self._between(connection))
        finally:
            self._copying = False

    def _alone(self, connection: Connection, job: _Job) -> None:
        def work() -> None:
            job.do(connection)
            if job.foresee is not None:
                _tell(job.loop, job.foretell)

        try:
            self._transact(connection, work)
        except Exception as error:
            job.error = error

    def _together(self, connection: Connection, batch: list[_Job]) -> None:
        def work() -> None:
            for job in batch:
                _in_savepoint(connection, job)

        try:
            self._transact(connection, work)
        except _Undone:
            for job in batch:
                self._alone(connection, job)
        except Exception as error:
            for job in batch:
                job.error = error

    def _transact(self, connection: Connection, work: Callable[[], None]) -> None:
        """A failed COMMIT may leave the transaction standing: it is taken back, else no
        other could ever begin."""
        try:
            sqlite.begin(connection)
            work()
            sqlite.commit(connection)
            self.commits += 1
        finally:
            sqlite.take_back(connection)

    def _closed(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
        self._closing.set_result(None)


def _in_savepoint(connection: Connection, job: _Job) -> None:
    driver = sqlite.driver_of(connection)
    driver.execute("SAVEPOINT job").close()
    try:
        job.do(connection)
    except Exception as error:
        if not driver.in_transaction:
            raise _Undone from error
        job.error = error
        driver.execute("ROLLBACK TO job").close()
    driver.execute("RELEASE job").close()


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
    origin = error.orig if isinstance(error, DBAPIError) else error
    if sqlite.spoke(origin):
        return sqlite.words_of(origin)
    return type(error).__name__ if isinstance(error, SQLAlchemyError) else repr(error)[:200]
