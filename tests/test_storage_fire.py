"""Storage under fire: many writers on a slow disk, a full disk, a file that cannot be
written. Nobody meets a lock, nothing acknowledged is lost, and work goes on by itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import Connection, event

from adapters.playground.clock import START, VirtualClock
from bot.contract import Ending, Event, Gap, Handle, NewTurn, Person, TextPart, Turn
from bot.errors import StoreError
from storage.store import SqlTurnStore, open_store

ROOT = Path(__file__).parent.parent
BIG = "x" * 200_000


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


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlTurnStore]:
    made = await opened(tmp_path / "x.db")
    yield made
    await made.close()


async def read(store: SqlTurnStore, id_: str) -> Turn:
    turn = await store.turn(id_)
    assert turn is not None
    return turn


async def pragma(store: SqlTurnStore, setting: str) -> None:
    await store.database.run(lambda c: c.exec_driver_sql(f"PRAGMA {setting}").close())


# ---------------------------------------------------------------- a slow disk

FLUSH = 0.02
"""Seconds that every flush of the slow disk takes: the store's thread stands still."""


async def slow_disk(store: SqlTurnStore) -> None:
    def slow(connection: Connection) -> None:
        event.listen(connection.engine, "commit", lambda _: time.sleep(FLUSH))

    await store.database.run(slow)


async def life(store: SqlTurnStore, name: str) -> None:
    """All that one person's question writes, and its redelivery."""
    event_ = Event(f"b:{name}", asked(name, name))
    assert (await store.accept(event_)).head is not None
    assert not (await store.accept(event_)).fresh
    assert await store.start(name, 5) is not None
    await store.save_handle(name, 0, Handle(f"{name}-0", message_id="m"))
    await store.checkpoint(name, "half", "")
    ending = Ending("answered", f"answer {name}", delivery="delivered", proof="m")
    await store.decide(name, ending)
    assert await store.finish(name, ending) is None


async def test_200_writers_at_once_on_a_slow_disk(store: SqlTurnStore, tmp_path: Path) -> None:
    await slow_disk(store)
    before = store.database.commits
    writers = [f"w{number}" for number in range(200)]
    backup = store.backup(str(tmp_path / "copy.db"))
    await asyncio.gather(*(life(store, name) for name in writers), backup)
    assert (store.database.commits - before) * 10 < 200 * 7, "they share their flushes"
    assert (await store.backlog()).redelivered == 200
    await store.close()
    again = await opened(tmp_path / "x.db")
    assert await again.recover() == ()
    for name in writers:
        turn = await read(again, name)
        assert turn.ended and turn.ending is not None
        assert turn.ending.text == f"answer {name}" and turn.handles[0].message_id == "m"
    await again.close()


# ---------------------------------------------------------------- a full disk


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


async def test_full_disk_then_room_again(store: SqlTurnStore) -> None:
    await store.accept(Event("k", asked("t")))
    await pragma(store, "max_page_count=1")  # SQLite makes this the present size
    results = await together(
        store,
        store.checkpoint("t", "small", ""),
        store.accept(Event("big", asked("big", "other", BIG))),
        store.checkpoint("t", "small too", ""),
    )
    assert results[0] is None and results[2] is None, "what needs no room still works"
    assert isinstance(results[1], StoreError)
    assert "磁盘已满" in str(results[1]) and "full" in str(results[1])
    with pytest.raises(StoreError, match="磁盘已满"):
        await store.finish("t", Ending("answered", BIG))
    kept = await read(store, "t")
    assert kept.state == "queued" and kept.checkpoint == "small too"
    await pragma(store, "max_page_count=100000")
    assert (await store.accept(Event("big", asked("big", "other", BIG)))).fresh
    assert await store.finish("t", Ending("answered", BIG)) is None


async def test_a_joined_message_that_found_no_room_can_come_again(store: SqlTurnStore) -> None:
    await store.accept(Event("k", asked("t")))
    await pragma(store, "max_page_count=1")
    with pytest.raises(StoreError, match="磁盘已满"):
        await store.accept(Event("big", asked("big", "lane", BIG), join=9))
    assert (await read(store, "t")).new.parts == (TextPart("q"),)
    await pragma(store, "max_page_count=100000")
    assert (await store.accept(Event("big", asked("big", "lane", BIG), join=9))).joined


SMALL_DISK = """
import asyncio, resource, signal, sys
from adapters.playground.clock import VirtualClock
from bot.errors import StoreError
from storage.store import open_store
sys.path.insert(0, "tests")
from test_storage_fire import BIG, asked
from bot.contract import Event

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await open_store(sys.argv[1], VirtualClock())
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    number = 0
    try:
        while number < 100:
            await store.accept(Event(f"k{number}", asked(f"t{number}", f"l{number}", BIG)))
            number += 1
    except StoreError as error:
        print(number, str(error).replace(" ", "_"), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for more in range(number, number + 10):
        assert (await store.accept(Event(f"k{more}", asked(f"t{more}", f"l{more}", BIG)))).fresh
    await store.close()

asyncio.run(main())
"""


async def test_a_write_that_the_system_refuses_is_told_and_work_goes_on(tmp_path: Path) -> None:
    """No trick inside the database: the files may not grow any more."""
    number, cause = small_disk(tmp_path / "x.db")
    assert 0 < number < 100 and ("磁盘读写出错" in cause or "磁盘已满" in cause), cause
    again = await opened(tmp_path / "x.db")
    for count in range(number + 10):
        assert await again.turn(f"t{count}") is not None
    await again.close()


def small_disk(path: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", SMALL_DISK, f"sqlite:///{path}"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    number, cause = done.stdout.split()
    return int(number), cause


# ---------------------------------------------------------------- read-only


async def test_a_file_that_became_read_only(
    store: SqlTurnStore, tmp_path: Path, breakable: Any
) -> None:
    await store.accept(Event("k", asked("t")))
    read_only = await breakable(store)
    read_only.set()
    refused = await together(
        store,
        store.accept(Event("k2", asked("t2"))),
        store.checkpoint("t", "x", ""),
        store.hear("b", START),
        store.miss(Gap("b", "c", START, START, "x")),
        store.prune(START + 99),
        store.finish("t", Ending("answered", "x")),
    )
    assert all(isinstance(error, StoreError) for error in refused)
    assert all("数据库文件只读" in str(error) and "readonly" in str(error) for error in refused)
    assert not (await read(store, "t")).ended, "reading goes on"
    await store.backup(str(tmp_path / "copy.db"))
    read_only.clear()
    assert (await store.accept(Event("k2", asked("t2")))).fresh
    following = await store.finish("t", Ending("answered", "x"))
    assert following is not None and following.id == "t2"


OPENER = """
import asyncio, os, sys
from adapters.playground.clock import VirtualClock
from bot.errors import StoreError
from storage.store import open_store

async def main():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        await (await open_store(sys.argv[1], VirtualClock())).close()
    except StoreError as error:
        print(error)

asyncio.run(main())
"""


def open_as_nobody(path: Path) -> str:
    """What a process is told that may read the file and not write it."""
    path.parent.chmod(0o711)
    path.chmod(0o444)
    command = [sys.executable, "-c", OPENER, f"sqlite:///{path}"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


async def test_a_file_without_the_right_to_write_is_named_at_the_start() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.db")
        await (await opened(path)).close()
        told = open_as_nobody(path)
        assert f"{path} 无法写入 cannot be written: Permission denied" in told
        await (await opened(path)).close()
