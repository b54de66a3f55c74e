"""The store and its file: lock, kill, full disk, group commit, schema, query plans."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect

from adapters.playground.clock import START, VirtualClock
from bot.contract import Ending, Event, Handle, NewTurn, Person, TextPart
from bot.errors import StoreError, StoreLocked, StoreTooNew
from storage import migrations, schema
from storage.database import Database
from storage.migrations import migrate
from storage.sqlite import engine_for
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


# ---------------------------------------------------------------- a full disk


async def test_full_disk_then_room_again(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")

    def limit(pages: int) -> Any:
        return store.database.run(
            lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()
        )

    await store.accept(Event("k", asked("t")))
    await limit(1)  # SQLite makes this the present size
    big = "x" * 200_000
    results = await together(
        store,
        store.checkpoint("t", "small", ""),
        store.accept(Event("big", asked("big", "other", big))),
        store.checkpoint("t", "small too", ""),
    )
    assert results[0] is None and results[2] is None, "what needs no room still works"
    assert isinstance(results[1], StoreError) and "full" in str(results[1])
    with pytest.raises(StoreError, match="full"):
        await store.finish("t", Ending("answered", big))
    kept = await store.turn("t")
    assert kept is not None and kept.state == "queued" and kept.checkpoint == "small too"
    await limit(100_000)
    assert (await store.accept(Event("big", asked("big", "other", big)))).fresh
    assert await store.finish("t", Ending("answered", big)) is None
    await store.close()


# ---------------------------------------------------------------- the schema


def shape(connection: Connection) -> dict[str, Any]:
    found = inspect(connection)
    tables = sorted(set(found.get_table_names()) - {"schema_version"})
    columns = {
        name: [
            (c["name"], str(c["type"]), c["nullable"], c["default"])
            for c in found.get_columns(name)
        ]
        for name in tables
    }
    indexes = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
    ).all()
    return {"columns": columns, "indexes": [(n, " ".join(sql.split())) for n, sql in indexes]}


def test_migrations_make_what_the_queries_see(tmp_path: Path) -> None:
    migrated = engine_for(tmp_path / "a.db", durable=False)
    with migrated.connect() as connection:
        migrate(connection)
        mine = shape(connection)
    made = create_engine(f"sqlite:///{tmp_path}/b.db")
    schema.metadata.create_all(made)
    with made.connect() as connection:
        assert mine == shape(connection)
    migrated.dispose()
    made.dispose()


def test_steps_run_once_each_and_in_order(tmp_path: Path) -> None:
    engine = engine_for(tmp_path / "a.db", durable=False)
    ran: list[int] = []
    steps = [lambda _, n=n: ran.append(n) for n in (1, 2, 3)]
    with engine.connect() as connection:
        migrate(connection, steps[:1])
        migrate(connection, steps)
        migrate(connection, steps)
    assert ran == [1, 2, 3]
    engine.dispose()


def test_a_failed_step_leaves_the_version_before_it(tmp_path: Path) -> None:
    engine = engine_for(tmp_path / "a.db", durable=False)

    def broken(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (x)")
        raise ValueError

    with engine.connect() as connection:
        with pytest.raises(ValueError):
            migrate(connection, [*migrations.STEPS, broken])
        assert "half" not in inspect(connection).get_table_names()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version FROM schema_version").scalar() == 1
    engine.dispose()


async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await (await opened(path)).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE schema_version SET version = 99")
    raw.close()
    for _ in range(2):
        with pytest.raises(StoreTooNew, match="99"):
            await opened(path)


async def test_a_file_of_the_first_version_still_opens(tmp_path: Path) -> None:
    """As version 0.1 wrote it: keep this text when the schema moves on."""
    path = tmp_path / "x.db"
    raw = sqlite3.connect(path)
    raw.executescript(migrations.m0001_first.TABLES)
    raw.executescript(
        """
        CREATE TABLE schema_version (version INTEGER NOT NULL);
        INSERT INTO schema_version VALUES (1);
        INSERT INTO turn (id, kind, bot, platform, chat, chat_kind, conversation, lane, sender,
            asked_at, root, queue, person, parts)
        VALUES ('old', 'chat', 'b', 'feishu', 'c', 'p2p', 'conv', 'lane', 'p', 1.5, 'old', 'lane',
            '["p","Ann","on_1"]', '[{"text":"hi"},{"quote":"q","author":""}]');
        INSERT INTO inbox (event_key, turn_id, seen_at) VALUES ('k', 'old', 1.5);
        INSERT INTO lane VALUES ('lane', 'somebody', 'old');
        INSERT INTO conversation VALUES ('conv', 3, '{"model":"m"}');
        INSERT INTO reply (turn_id, part, key) VALUES ('old', 0, 'old-0');
        """
    )
    raw.close()
    store = await opened(path)
    (head,) = await store.recover()
    assert head.new.sender == Person("p", "Ann", ("on_1",)) and len(head.new.parts) == 2
    assert head.handles == (Handle("old-0"),)
    started = await store.start("old", 5)
    assert started is not None and started.turn.generation == 3
    assert started.conversation.choices == {"model": "m"}
    await store.close()


# ---------------------------------------------------------------- query plans


async def test_no_query_scans_a_table(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    seen: list[tuple[str, Any]] = []

    def watch(connection: Connection) -> None:
        from sqlalchemy import event

        @event.listens_for(connection.engine, "before_cursor_execute")
        def note(_c: Any, _cur: Any, statement: str, values: Any, _ctx: Any, many: bool) -> None:
            seen.append((statement, values[0] if many else values))

    await store.database.run(watch)
    await walk(store)
    wanted = ("SELECT", "UPDATE", "DELETE", "INSERT")
    queries = {s: v for s, v in seen if s.startswith(wanted)}
    assert len(queries) > 25

    def plans(connection: Connection) -> dict[str, str]:
        found = {}
        for statement, values in queries.items():
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            found[statement] = "; ".join(row[3] for row in rows)
        return found

    scans = {
        statement: plan
        for statement, plan in (await store.database.run(plans)).items()
        if "SCAN" in plan or "TEMP B-TREE" in plan
    }
    await store.close()
    busy = ("lane.owner != ?", "min(turn.no)", "turn.owner != ?")
    # Only recover() walks, through what is unfinished: tables and indexes of the backlog.
    assert not [p for s, p in scans.items() if not any(b in s for b in busy)], scans
    allowed = ("SCAN lane", "turn_queue", "turn_outside", "SCAN anon_1", "TEMP B-TREE")
    for plan in scans.values():
        assert all(any(a in bit for a in allowed) for bit in plan.split("; ") if "SCAN" in bit), (
            plan
        )


async def walk(store: SqlTurnStore) -> None:
    """Every method, on every path that has a query of its own."""
    first = asked("a")
    await store.accept(Event("k1", first))
    await store.accept(Event("k2", asked("b")))
    await store.accept(Event("k1", first))
    await store.start("a", 5)
    await store.save_handle("a", 0, Handle("x"))
    await store.checkpoint("a", "x", "")
    await store.decide("a", Ending("answered", "x"))
    await store.finish("a", Ending("answered", "x"))
    await store.finish("b", Ending("answered", "x"))
    again = NewTurn(
        **{f: getattr(first, f) for f in first.__slots__} | {"id": "c", "replaces": "a"}
    )
    await store.accept(Event("k3", again))
    await store.start("c", 5)
    await store.finish("c", Ending("answered", "x"))
    await store.accept(Event("k4", asked("d")))
    await store.stop_waiting("lane", "p")
    await store.stop_waiting("lane", None)
    await store.withdraw("d", "stopped")
    await store.recover()
    await store.choose("lane", "model", "x")
    await store.cut("lane")
    await store.turn_of("b", "a")
    for sender in ("", "p"):
        await store.last_turn("lane", sender)
        for conversation in ("", "lane"):
            await store.usage(since=0, conversation=conversation, sender=sender)
    await store.prune(0)
