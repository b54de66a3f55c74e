"""A consistent copy of a SQLite file, made while it is used."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bot.errors import StoreError
from storage.sqlite import words_of

PAGES = 256
"""Pages copied in one step (1 MiB); whoever waits is served after each."""

LOGS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database under its name."""


def copy(source: sqlite3.Connection, path: Path, between: Callable[[], object]) -> None:
    """Copy the whole of `source` to the file `path` (made anew, mode 0600, one file that
    needs no other beside it). `between` is called after each step; what it changes through
    `source` is in the copy. Raises StoreError; `path` is then as it was."""
    part = path.with_name(path.name + ".part")
    try:
        with part_file(part):
            fill(source, part, between)
            put_in_place(part, path)
    except OSError as error:
        raise StoreError(f"无法写入备份 cannot write {path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StoreError(f"备份失败 backup {path} failed: {words_of(error)}") from error


@contextmanager
def part_file(part: Path) -> Iterator[None]:
    """The file `part`, empty and private; what is still there at the end is removed."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield
    finally:
        for side in ("", "-journal"):
            part.with_name(part.name + side).unlink(missing_ok=True)


def fill(source: sqlite3.Connection, part: Path, between: Callable[[], object]) -> None:
    """Copy `source` to the empty file `part`. Raises sqlite3.Error."""
    target = sqlite3.connect(part, isolation_level=None)
    try:
        target.execute("PRAGMA synchronous=OFF").close()
        source.backup(target, pages=PAGES, progress=lambda *_: between())
        target.execute("PRAGMA journal_mode=DELETE").close()
    finally:
        target.close()


def put_in_place(part: Path, path: Path) -> None:
    """Flush `part` and let it be `path`, at once or not at all."""
    flush(part)
    os.replace(part, path)
    flush(path.parent)


def flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
