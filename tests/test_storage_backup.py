"""Copies made while others write, and put back: the same contents, or nothing changed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.playground.clock import START, VirtualClock
from bot.contract import Ending, Event, Gap, Handle, NewTurn, Person, TextPart
from bot.errors import StoreError, StoreLocked, StoreTooNew
from storage.contents import contents
from storage.restore import restore
from storage.store import SqlTurnStore, open_store

ROOT = Path(__file__).parent.parent


def asked(id_: str, **changes: Any) -> NewTurn:
    base = NewTurn(
        id=id_,
        kind="chat",
        bot="b",
        platform="feishu",
        chat="c",
        chat_kind="group",
        topic="",
        conversation="conv",
        lane=f"lane-{id_}",
        sender=Person("ou_1"),
        message_id=f"om_{id_}",
        parts=(TextPart(id_),),
        address={"at": "茶"},
        lang="zh",
        asked_at=START,
    )
    return replace(base, **changes)


async def opened(path: Path) -> SqlTurnStore:
    store = await open_store(f"sqlite:///{path}", VirtualClock(), durable=False)
    assert isinstance(store, SqlTurnStore)
    return store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlTurnStore]:
    made = await opened(tmp_path / "data" / "queqiao.db")
    yield made
    await made.close()


async def accept(store: SqlTurnStore, id_: str, text: str = "q") -> None:
    await store.accept(Event(f"b:{id_}", asked(id_, parts=(TextPart(text),))))


async def fill(store: SqlTurnStore, count: int, size: int = 10) -> None:
    await asyncio.gather(*(accept(store, f"t{n}", "x" * size) for n in range(count)))


async def everything(store: SqlTurnStore) -> list[str]:
    return await store.database.run(lambda c: list(contents(c)))


def private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


def sound(path: Path) -> bool:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        return bool(raw.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def beside(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


# ---------------------------------------------------------------- backup


async def test_a_backup_on_an_empty_machine_is_the_same(
    store: SqlTurnStore, tmp_path: Path
) -> None:
    await fill(store, 20)
    await store.start("t1", 5)
    await store.save_handle("t1", 0, Handle("t1-0", extra={"k": [1]}))
    await store.finish("t1", Ending("answered", "x", delivery="undelivered"))
    await store.accept(Event("b:t1", asked("t1")))
    await store.accept(Event("b:ignored", None, "at_all"))
    await store.choose("conv", "model", "m")
    await store.hear("b", START)
    await store.miss(Gap("b", "c", START, START + 1, "why"))
    before = await everything(store)
    await store.backup(str(tmp_path / "copy.db"))
    assert private(tmp_path / "copy.db") and beside(tmp_path / "copy.db") == {"data", "copy.db"}
    no_log = (tmp_path / "copy.db").read_bytes()[18:20]
    assert no_log == b"\1\1", "readable where no log can be written beside it"
    empty = tmp_path / "elsewhere" / "deep" / "queqiao.db"
    assert restore(f"sqlite:///{empty}", str(tmp_path / "copy.db")) is None
    assert private(empty)
    other = await opened(empty)
    assert await everything(other) == before
    assert {line.split('"table":"')[1].split('"')[0] for line in before} >= {
        *("inbox", "turn", "lane", "reply", "conversation", "heard", "gap")
    }
    assert len(await other.recover()) == 19
    await other.close()


async def test_contents_are_sorted_lines(store: SqlTurnStore) -> None:
    await fill(store, 30)
    lines = await everything(store)
    assert len(lines) == 90
    inbox = [line for line in lines if '"table":"inbox"' in line]
    assert inbox == sorted(inbox) and inbox[0].startswith('{"event_key":"b:t0"')
    assert lines == await everything(store)


async def test_others_write_while_a_backup_is_made(store: SqlTurnStore, tmp_path: Path) -> None:
    await fill(store, 300, size=100_000)
    before = store.database.commits
    copying = asyncio.create_task(store.backup(str(tmp_path / "copy.db")))
    during = 0
    while not copying.done():
        await accept(store, f"during{during}", "y" * 50_000)
        await store.checkpoint(f"t{during}", "z" * 50_000, "")
        during += 1
    await copying
    assert during > 5 and store.database.commits - before >= 2 * during
    assert sound(tmp_path / "copy.db")
    copy = await opened(tmp_path / "copy.db")
    for number in range(300):
        assert await copy.turn(f"t{number}") is not None
    found = [await copy.turn(f"during{n}") is not None for n in range(during)]
    assert found == sorted(found, reverse=True), "a moment in time, not a mixture"
    await copy.close()


async def test_a_backup_takes_the_place_of_an_earlier_one(
    store: SqlTurnStore, tmp_path: Path
) -> None:
    path = tmp_path / "copy.db"
    path.write_text("earlier")
    path.chmod(0o644)
    (tmp_path / "copy.db.part").write_text("left by a crash")
    await store.backup(str(path))
    assert private(path) and sound(path) and beside(path) == {"data", "copy.db"}


async def test_the_databases_own_files_are_no_place_for_a_backup(
    store: SqlTurnStore, tmp_path: Path
) -> None:
    own = tmp_path / "data" / "queqiao.db"
    (tmp_path / "link").symlink_to(own)
    for path in (own, own.with_name("queqiao.db-wal"), tmp_path / "link"):
        with pytest.raises(StoreError, match="自己的文件"):
            await store.backup(str(path))
    await accept(store, "a")
    assert await store.turn("a") is not None


@pytest.mark.parametrize("where", ["missing/copy.db", "data"])
async def test_a_backup_that_cannot_be_written_leaves_the_store_at_work(
    store: SqlTurnStore, tmp_path: Path, where: str
) -> None:
    with pytest.raises(StoreError, match="无法写入备份"):
        await store.backup(str(tmp_path / where))
    await store.backup(str(tmp_path / "copy.db"))
    assert beside(tmp_path / "copy.db") == {"data", "copy.db"}


async def test_one_backup_at_a_time(store: SqlTurnStore, tmp_path: Path) -> None:
    await fill(store, 50, size=100_000)
    paths = [str(tmp_path / f"copy{n}.db") for n in range(2)]
    both = await asyncio.gather(*map(store.backup, paths), return_exceptions=True)
    assert both[0] is None and isinstance(both[1], StoreError)
    await store.backup(paths[1])


async def test_a_backup_whose_caller_left_is_finished(store: SqlTurnStore, tmp_path: Path) -> None:
    held = threading.Event()
    holding = asyncio.create_task(store.database.run(lambda _: held.wait(10)))
    copying = asyncio.create_task(store.backup(str(tmp_path / "copy.db")))
    await asyncio.sleep(0)
    copying.cancel()
    await asyncio.wait({copying})
    held.set()
    await holding
    await store.close()
    assert sound(tmp_path / "copy.db") and beside(tmp_path / "copy.db") == {"data", "copy.db"}


# ---------------------------------------------------------------- restore


async def test_the_old_database_is_kept_whole(store: SqlTurnStore, tmp_path: Path) -> None:
    path = tmp_path / "data" / "queqiao.db"
    await accept(store, "early")
    await store.backup(str(tmp_path / "copy.db"))
    await accept(store, "late")
    newest = await everything(store)
    await store.close()
    path.with_name("queqiao.db-shm").write_bytes(b"stale")
    kept = restore(f"sqlite:///{path}", str(tmp_path / "copy.db"))
    assert kept == path.with_name("queqiao.db.before-restore")
    assert beside(path) == {"queqiao.db", "queqiao.db.lock", kept.name} and private(path)
    store = await opened(path)
    assert await store.turn("early") is not None and await store.turn("late") is None
    await store.close()
    old = await opened(kept)
    assert await everything(old) == newest
    await old.close()
    again = restore(f"sqlite:///{path}", str(kept))
    assert again is not None and again.name == "queqiao.db.before-restore-1"


WRITER = """
import asyncio, os, sys
from adapters.playground.clock import VirtualClock
from storage.store import open_store
sys.path.insert(0, "tests")
from test_storage_backup import accept
async def main():
    store = await open_store(sys.argv[1], VirtualClock())
    await accept(store, "only in the log")
    os._exit(9)
asyncio.run(main())
"""


async def test_the_log_of_a_killed_process_is_kept_and_not_played_into_the_new(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / "queqiao.db"
    store = await opened(path)
    await accept(store, "a")
    await store.backup(str(tmp_path / "copy.db"))
    await store.close()
    killed(path)
    assert path.with_name("queqiao.db-wal").stat().st_size > 0
    kept = restore(f"sqlite:///{path}", str(tmp_path / "copy.db"))
    assert kept is not None
    assert beside(path) == {"queqiao.db", "queqiao.db.lock", kept.name}
    for file, there in ((path, False), (kept, True)):
        store = await opened(file)
        assert (await store.turn("only in the log") is not None) == there
        assert await store.turn("a") is not None
        await store.close()


def killed(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, f"sqlite:///{path}"], cwd=ROOT)
    assert done.returncode == 9


async def test_a_damaged_database_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "data" / "queqiao.db"
    store = await opened(path)
    await store.backup(str(tmp_path / "copy.db"))
    await store.close()
    path.write_bytes(b"junk" * 5000)
    for side in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + side).write_bytes(b"old log")
    kept = restore(f"sqlite:///{path}", str(tmp_path / "copy.db"))
    assert kept is not None and kept.read_bytes() == b"junk" * 5000
    assert kept.with_name(kept.name + "-wal").read_bytes() == b"old log"
    assert beside(path) == {"queqiao.db", "queqiao.db.lock", kept.name, f"{kept.name}-wal"}
    await (await opened(path)).close()


async def test_nothing_is_restored_under_a_running_process(
    store: SqlTurnStore, tmp_path: Path
) -> None:
    await store.backup(str(tmp_path / "copy.db"))
    with pytest.raises(StoreLocked, match=f"另一个进程（{os.getpid()}）"):
        restore(f"sqlite:///{tmp_path}/data/queqiao.db", str(tmp_path / "copy.db"))
    await accept(store, "a")


def foreign(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(script)


async def test_what_is_no_sound_backup_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data" / "queqiao.db"
    store = await opened(path)
    await fill(store, 200, size=2000)
    await store.backup(str(tmp_path / "good.db"))
    before = await everything(store)
    await store.close()
    good = (tmp_path / "good.db").read_bytes()
    (tmp_path / "empty.db").write_bytes(b"")
    (tmp_path / "junk.db").write_bytes(b"junk" * 5000)
    (tmp_path / "cut.db").write_bytes(good[: len(good) // 2])
    middle = len(good) // 2
    (tmp_path / "bent.db").write_bytes(good[:middle] + b"\xff" * 9000 + good[middle + 9000 :])
    foreign(tmp_path / "foreign.db", "CREATE TABLE x (y)")
    version = "CREATE TABLE schema_version (version); INSERT INTO schema_version VALUES "
    foreign(tmp_path / "alien.db", f"{version} (1)")
    foreign(tmp_path / "odd.db", f"CREATE TABLE turn (no); {version} ('one')")
    for name in ("empty", "junk", "cut", "bent", "foreign", "alien", "odd"):
        with pytest.raises(StoreError, match=r"不是完好的备份 not a sound backup"):
            restore(f"sqlite:///{path}", str(tmp_path / f"{name}.db"))
    for name in ("missing", "data"):
        with pytest.raises(StoreError, match=r"没有这个文件 no such file"):
            restore(f"sqlite:///{path}", str(tmp_path / name))
    (tmp_path / "new.db").write_bytes(good)
    foreign(tmp_path / "new.db", "UPDATE schema_version SET version = 99")
    with pytest.raises(StoreTooNew, match=r"版本是 99.*use a newer one"):
        restore(f"sqlite:///{path}", str(tmp_path / "new.db"))
    assert beside(path) == {"queqiao.db", "queqiao.db.lock"}
    store = await opened(path)
    assert await everything(store) == before
    await store.close()


async def test_a_copy_of_an_older_version_is_restored_and_upgraded(tmp_path: Path) -> None:
    script = (ROOT / "tests" / "test_storage_v1.sql").read_text(encoding="utf-8")
    foreign(tmp_path / "old.db", script)
    path = tmp_path / "queqiao.db"
    assert restore(f"sqlite:///{path}", str(tmp_path / "old.db")) is None
    store = await opened(path)
    assert await store.turn("waiting") is not None
    await store.close()


async def test_only_a_sqlite_database_is_restored(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="目前只支持"):
        restore("postgresql://u:s3cret@h/db", str(tmp_path / "x.db"))
