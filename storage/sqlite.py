"""What is particular to SQLite: the file, its settings, its transactions.

One connection for everything: it is immune to the WAL-reset fault of SQLite before
3.51.3, which needs two (reference/engine.md 3).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from bot.errors import StoreError
from storage.dialect import NOW

OLDEST = (3, 35, 0)
"""The first SQLite with RETURNING."""

WAL_BYTES = 64 * 1024 * 1024
"""What a write-ahead log that once grew larger is cut back to."""


def path_of(url: str) -> Path:
    """The file that a `sqlite:///…` URL names. Raises StoreError for any other URL; the
    cause names the scheme alone, because a URL may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError("数据库地址无法识别 database URL unreadable") from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(
            f"目前只支持 sqlite:///…，还不支持 {parsed.drivername} "
            f"(only sqlite:///… is supported now, not {parsed.drivername})"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("数据库需要一个文件 a database needs a file: sqlite:///data/queqiao.db")
    return Path(parsed.database)


def make_folder(path: Path) -> None:
    """The folder of the database `path`, mode 0700."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} 无法写入 cannot be written: {error.strerror}") from error


def prepare(path: Path) -> None:
    """Make folder and file (0600); SQLite gives its side files the same mode."""
    make_folder(path)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise StoreError(f"{path} 无法写入 cannot be written: {error.strerror}") from error


def engine_for(path: Path, *, durable: bool, now: Callable[[], float] = time.time) -> Engine:
    """An engine whose transactions are BEGIN IMMEDIATE. `durable` false leaves the
    flushing to the system: for tests only. `now` is the database's clock, in seconds since
    the epoch."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} 版本过低 is too old (>= 3.35)")
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        connect_args={"isolation_level": None},
        hide_parameters=True,
    )
    level = "FULL" if durable else "OFF"

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        for pragma in (
            "busy_timeout=5000",
            "journal_mode=WAL",
            f"journal_size_limit={WAL_BYTES}",
            f"synchronous={level}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.create_function(NOW, 0, now)

    @event.listens_for(engine, "begin")
    def joined(connection: Connection) -> None:
        if not driver_of(connection).in_transaction:
            begin(connection)

    return engine


def begin(connection: Connection) -> None:
    """A transaction that may write, begun by the driver: what runs on its own cursors
    (storage.prepared) needs no more, and what runs through SQLAlchemy joins it."""
    driver_of(connection).execute("BEGIN IMMEDIATE").close()


def commit(connection: Connection) -> None:
    """End it. SQLAlchemy ends its own part of it, if it had one, by the same COMMIT."""
    if connection.in_transaction():
        connection.commit()
    else:
        driver_of(connection).commit()


def take_back(connection: Connection) -> None:
    """Roll back what still stands, if anything does."""
    connection.rollback()  # also of a COMMIT that failed, which it does not call standing
    driver = driver_of(connection)
    if driver.in_transaction:
        driver.rollback()


def driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


_MEANING = {
    sqlite3.SQLITE_FULL: "磁盘已满",
    sqlite3.SQLITE_READONLY: "数据库文件只读",
    sqlite3.SQLITE_IOERR: "磁盘读写出错",
    sqlite3.SQLITE_CANTOPEN: "数据库文件打不开",
    sqlite3.SQLITE_CORRUPT: "数据库文件已损坏，请用备份恢复 (restore a backup)",
    sqlite3.SQLITE_NOTADB: "不是数据库文件",
    sqlite3.SQLITE_BUSY: "数据库被别的程序锁住了",
}
"""By primary result code: what an operator can act on."""


def spoke(error: BaseException | None) -> TypeGuard[sqlite3.Error]:
    """Whether the error is the database's own."""
    return isinstance(error, sqlite3.Error)


def words_of(error: BaseException) -> str:
    """The database's own words, with their meaning in Chinese where there is one."""
    meaning = _MEANING.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
    return f"{meaning} {error}".lstrip()
