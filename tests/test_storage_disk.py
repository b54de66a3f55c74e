"""The store and its file: lock, kill, group commit."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from adapters.playground.clock import START, VirtualClock
from bot.contract import Ending, Event, Handle, NewTurn, Person, TextPart
from bot.errors import StoreError, StoreLocked
from storage.database import Database
from storage.store import SqlTurnStore, open_store

ROOT = Path(__file__).parent.parent


def asked(id_: str, lane: str = "lane", text: str = "q") -> NewTurn:
    return NewTurn(
        id=id_,
        kind="chat",
        bot="b",
        platform="dingtalk",
        chat="c",
        chat_kind="p2p",
        topic="",
        conversation=lane,
        lane=lane,
        sender=Person("p"),
        message_id=id_,
        parts=(TextPart(text),),
        address={},
        lang="en",
        asked_at=START,
    )


async def opened(path: Path) -> SqlTurnStore:
    store = await open_store(f"sqlite:///{path}", VirtualClock(), durable=False)
    assert isinstance(store, SqlTurnStore)
    return store


@asynccontextmanager
async def busy(store: SqlTurnStore) -> AsyncIterator[None]:
    """The store is held inside: what comes meanwhile waits for one transaction."""
    loop, begun, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(_: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(10)

    holding = asyncio.create_task(store.database.run(hold))
    await begun.wait()
    try:
        yield
    finally:
        release.set()
        await holding


async def together(store: SqlTurnStore, *work: Coroutine[Any, Any, Any]) -> list[Any]:
    """All of `work` in one transaction; returns results and errors."""
    async with busy(store):
        waiting = [asyncio.create_task(one) for one in work]
        await asyncio.sleep(0)
    return await asyncio.gather(*waiting, return_exceptions=True)


# ---------------------------------------------------------------- the file


async def test_folder_and_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data" / "queqiao.db"
    store = await opened(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    await store.close()
    assert set(modes.values()) == {0o600} and "queqiao.db-wal" in modes


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:s3cret@h/db",
        "sqlite+aiosqlite:///x.db",
        "sqlite://",
        "sqlite:///:memory:",
        "s3cret nonsense",
    ],
)
async def test_other_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        await open_store(url, VirtualClock())
    assert "s3cret" not in str(caught.value)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in str(caught.value))


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"junk" * 5000)
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database"):
            await opened(path)


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        await opened(tmp_path / "file" / "x.db")


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 0)])
async def test_settings_of_the_connection(tmp_path: Path, durable: bool, level: int) -> None:
    database = Database(tmp_path / "x.db", durable=durable)
    await database.open()

    def read(connection: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await database.run(read) == ["wal", level, 1, 5000]
    await database.close()


# ---------------------------------------------------------------- the lock

HOLDER = """
import asyncio, sys
from bot.clock import SystemClock
from storage.store import open_store
async def main():
    store = await open_store(sys.argv[1], SystemClock())
    print("held", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def spawn(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


async def test_a_second_process_is_locked_out_until_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with spawn(HOLDER, f"sqlite:///{path}") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked, match=str(holder.pid)):
            await opened(path)
        holder.kill()
    await (await opened(path)).close()


async def test_the_lock_holds_within_a_process_and_ends_with_close(tmp_path: Path) -> None:
    first = await opened(tmp_path / "x.db")
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        await opened(tmp_path / "x.db")
    await first.close()
    await (await opened(tmp_path / "x.db")).close()


# ---------------------------------------------------------------- kill -9

ACCEPTER = """
import asyncio, sys
from bot.clock import SystemClock
from storage.store import open_store
sys.path.insert(0, "tests")
from test_storage_disk import asked
from bot.contract import Event
async def one(store, key):
    await store.accept(Event(key, asked(key, key[-1])))
    print(key, flush=True)
async def main():
    store = await open_store(sys.argv[1], SystemClock())
    for n in range(10**6):
        await asyncio.gather(*(one(store, f"{sys.argv[2]}-{n}-{i}") for i in range(5)))
asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    acknowledged: list[str] = []
    for round_ in range(3):
        with spawn(ACCEPTER, f"sqlite:///{path}", str(round_)) as process:
            assert process.stdout is not None
            for _ in range(40 + 13 * round_):
                acknowledged.append(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().split("\n")
            acknowledged += [line for line in lines[:-1] if line]
    store = await opened(path)
    for key in acknowledged:
        assert not (await store.accept(Event(key, asked("double")))).fresh
    heads = await store.recover()
    assert {turn.new.lane for turn in heads} <= set("01234")
    ended = [await run_lane(store, head) for head in heads]
    await store.close()
    finished = {id_ for lane in ended for id_ in lane}
    assert len(acknowledged) > 150 and set(acknowledged) <= finished


async def run_lane(store: SqlTurnStore, head: Any) -> list[str]:
    done = []
    while head is not None:
        assert await store.start(head.id, 0) is not None
        done.append(head.id)
        head = await store.finish(head.id, Ending("failed"))
    return done


# ---------------------------------------------------------------- group commit


async def test_waiting_writers_share_a_commit(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    before = store.database.commits
    await asyncio.gather(
        *(store.accept(Event(f"k{n}", asked(f"t{n}", f"{n}"))) for n in range(500))
    )
    assert (store.database.commits - before) * 10 < 500
    await store.close()


async def test_one_failure_leaves_its_neighbours(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    await store.accept(Event("first", asked("same")))
    results = await together(
        store,
        store.accept(Event("k1", asked("t1"))),
        store.accept(Event("k2", asked("same"))),
        store.save_handle("nobody", 0, Handle("x")),
        store.accept(Event("k3", asked("t3"))),
    )
    assert [isinstance(result, StoreError) for result in results] == [False, True, True, False]
    assert (await store.accept(Event("k2", asked("t2")))).fresh, "nothing of it was stored"
    assert await store.turn("t1") is not None and await store.turn("t3") is not None
    await store.close()


async def test_a_failed_commit_fails_all(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")

    def orphan(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.exec_driver_sql("INSERT INTO reply (turn_id, part, key) VALUES ('none', 0, '')")

    results = await together(
        store,
        store.accept(Event("k1", asked("t1"))),
        store.database.run(orphan),
        store.accept(Event("k2", asked("t2"))),
    )
    assert [type(result) for result in results] == [StoreError] * 3
    again = await store.accept(Event("k2", asked("t2")))
    assert again.fresh
    await store.close()


async def test_errors_name_no_values(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    await store.accept(Event("k1", asked("same", text="s3cret")))
    with pytest.raises(StoreError, match="UNIQUE") as caught:
        await store.accept(Event("k2", asked("same", text="s3cret")))
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"
    await store.close()


async def test_a_caller_cancelled_in_the_queue_leaves_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")

    async with busy(store):
        late = asyncio.create_task(store.accept(Event("k", asked("t"))))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.wait({late})
    assert await store.turn("t") is None
    await store.close()


async def test_close_finishes_what_waits_and_refuses_what_comes_later(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    waiting = [asyncio.create_task(store.accept(Event(f"k{n}", asked(f"t{n}")))) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    assert all(accepted.fresh for accepted in await asyncio.gather(*waiting))
    with pytest.raises(StoreError):
        await store.turn("t1")
    again = await opened(tmp_path / "x.db")
    assert await again.turn("t49") is not None
    await again.close()
