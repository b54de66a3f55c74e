"""A backup put in the place of the database, while nobody uses it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path

from bot.errors import StoreError
from storage import backup, migrations, sqlite
from storage.lock import LockFile


def restore(url: str, path: str) -> Path | None:
    """Let the database at `url` be what the file `path` holds. The old one, if there was
    one, is kept beside it under the returned name (`….before-restore`). At every moment
    either the whole old or the whole new one is in place.

    Raises StoreLocked while a process holds the database, StoreTooNew for a backup of a
    newer program, StoreError for a file that is damaged or no backup, and for a disk that
    says no.
    """
    place = sqlite.path_of(url)
    sqlite.make_folder(place)
    lock = LockFile(place.with_name(place.name + ".lock"))
    lock.take()
    try:
        part = place.with_name(place.name + ".restoring")
        with backup.part_file(part):
            _read(Path(path), part)
            _examine(part, Path(path))
            return _exchange(part, place)
    except OSError as error:
        raise StoreError(f"恢复失败 cannot restore {place}: {error.strerror}") from error
    finally:
        lock.release()


def _read(source: Path, part: Path) -> None:
    """A copy beside the database, because a rename works only there. A write-ahead log
    beside the source is read too."""
    if not source.is_file():
        raise StoreError(f"没有这个文件 no such file: {source}")
    try:
        with closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as driver:
            backup.fill(driver, part, lambda: None)
    except sqlite3.Error as error:
        raise _refused(source, sqlite.words_of(error)) from error


def _examine(part: Path, source: Path) -> None:
    """Raises what restore() raises for a file that is not to be used."""
    try:
        with closing(sqlite3.connect(part)) as driver:
            found = driver.execute("PRAGMA integrity_check(1)").fetchone()[0]
            driver.execute("SELECT no FROM turn LIMIT 1").close()
            known = driver.execute("SELECT version FROM schema_version").fetchone()
    except sqlite3.Error as error:
        raise _refused(source, sqlite.words_of(error)) from error
    if found != "ok" or known is None or not isinstance(known[0], int):
        raise _refused(source, str(found))
    migrations.check(known[0])


def _refused(source: Path, why: str) -> StoreError:
    return StoreError(f"不是完好的备份 not a sound backup: {source}: {why}")


def _exchange(part: Path, place: Path) -> Path | None:
    """The old file gets a second name first, then the new one takes its place. The old
    log must be gone before: SQLite would play it into the new file."""
    kept = _free_name(place) if place.exists() else None
    if kept is not None:
        _fold(place, kept)
        _second_name(place, kept)
    for side in backup.LOGS:
        place.with_name(place.name + side).unlink(missing_ok=True)
    backup.put_in_place(part, place)
    return kept


def _free_name(place: Path) -> Path:
    names = (f"{place.name}.before-restore{f'-{n}' if n else ''}" for n in count())
    return next(kept for name in names if not (kept := place.with_name(name)).exists())


def _fold(place: Path, kept: Path) -> None:
    """Bring the old log into the old file. Where that fails the file is damaged, and the
    log is kept beside it as it was."""
    log, spare = place.with_name(place.name + "-wal"), kept.with_name(kept.name + "-wal")
    if not log.exists():
        return
    shutil.copyfile(log, spare)
    try:
        with closing(sqlite3.connect(place)) as driver:
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    except sqlite3.Error:
        return
    spare.unlink()


def _second_name(place: Path, kept: Path) -> None:
    try:
        os.link(place, kept)
    except OSError:
        shutil.copy2(place, kept)
        backup.flush(kept)
