"""Every statement of the store: none walks through a table, each is PostgreSQL too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from adapters.playground.clock import START, VirtualClock
from bot.contract import Ending, Event, Gap, Handle, Moment, NewTurn, Person, TextPart
from storage import dialect, indexes, schema
from storage.database import Database
from storage.leases import Lease
from storage.prepared import Prepared, Ready
from storage.store import SqlTurnStore

LATER = START + 10**6


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    clock = VirtualClock()
    opened = Database(tmp_path / "x.db", durable=False, now=clock.time)
    await opened.open()
    yield opened
    await opened.close()


def asked(id_: str, **changes: Any) -> NewTurn:
    base = NewTurn(
        id=id_,
        kind="chat",
        bot="b",
        platform="dingtalk",
        chat="c",
        chat_kind="p2p",
        topic="",
        conversation="lane",
        lane="lane",
        sender=Person("p"),
        message_id=id_,
        parts=(TextPart("q"),),
        address={},
        lang="en",
        asked_at=START,
    )
    return replace(base, **changes)


async def walk(store: SqlTurnStore) -> None:
    """Every method, on every path that has a query of its own."""
    await intake(store)
    await lives(store)
    await outside(store)
    await cares(store)


async def intake(store: SqlTurnStore) -> None:
    await store.accept(Event("k1", asked("a")))
    await store.accept(Event("k2", asked("b")))
    await store.accept(Event("k1", asked("a")))
    await store.accept(Event("k2j", asked("bj"), join=5))
    await store.accept(Event("k2l", asked("bl"), late=True))
    await store.accept(Event("k2c", asked("bc", kind="command")))
    await store.rewrite("b", (TextPart("x"),))


async def lives(store: SqlTurnStore) -> None:
    await store.start("a", 5)
    await store.save_handle("a", 0, Handle("x"))
    await store.checkpoint("a", "x", "")
    ending = Ending("answered", "x", trail=(Moment(START, "decided"),))
    await store.decide("a", ending)
    await store.finish("a", replace(ending, delivery="undelivered"))
    await store.finish("a", ending)
    await store.finish("b", ending)
    await store.accept(Event("k3", asked("c", replaces="a")))
    await store.start("c", 5)
    await store.withdraw("c", "stopped")
    await store.finish("c", ending)
    for id_ in "de":
        await store.accept(Event(f"k{id_}", asked(id_)))
    await store.save_handle("d", 0, Handle("d"))
    await store.stop_waiting("lane", "p")
    await store.stop_waiting("lane", None)
    await store.withdraw("d", "stopped")
    await store.recover()


async def outside(store: SqlTurnStore) -> None:
    await store.finish("bl", Ending("refused", delivery="unconfirmed"))
    await store.undelivered()
    await store.due(LATER)
    await store.postpone("a", LATER)
    await store.delivered("a", Ending("answered", trail=(Moment(START, "retried"),)))
    for name in ("a", "0123456789"):
        await store.accounts(name, ("b", "c"))
    await store.backlog()
    await store.hear("b", START)
    await store.heard("b")
    await store.addresses("b", START - 1)
    await store.miss(Gap("b", "c", START, START, "x"))
    await store.gaps()


async def cares(store: SqlTurnStore) -> None:
    await store.choose("lane", "model", "x")
    await store.cut("lane")
    await store.turn_of("b", "a")
    await store.turn_of("b", "unknown")
    for sender in ("", "p"):
        await store.last_turn("lane", sender)
        await store.unfinished("lane", sender)
        for conversation in ("", "lane"):
            await store.usage(since=0, conversation=conversation, sender=sender)
    await store.prune(LATER)


async def among_others(store: SqlTurnStore) -> None:
    """What only a replica does."""
    await store.accept(Event("r1", asked("r1", lane="other")))
    await store.accept(Event("r2", asked("r2", kind="command")))
    await store.beat(())
    await store.database.run(
        lambda c: c.exec_driver_sql("update lane set owner = 'x', stop_to = 99")
    )
    await store.database.run(
        lambda c: c.exec_driver_sql("update turn set owner = 'x' where owner > ''")
    )
    await store.beat(())
    await store.withdraw("r1", "stopped")
    for _ in range(3):
        await store.beat((), ())
    await store.release()


async def seen(database: Database, watch: Any, name: str, work: Any) -> None:
    """Let `work` run while `watch` hears of each statement."""
    await database.run(lambda c: event.listen(c.engine, name, watch))
    await work


# ---------------------------------------------------------------- plans

WALKS = (
    *("lane.owner", "turn.owner", "queue IS NOT NULL", "repeats > 0", "delivery IN"),
    *("FROM gap", "FROM replica", "GROUP BY turn.chat", "turn.bot IN"),
)
"""Queries that walk through what is unfinished, repeated, unproven or missed, or sort the
chats of a while or the turns of one message: all small. Nothing else may."""

SMALL = (
    *("SCAN lane", "SCAN replica", "SCAN gap", "turn_queue", "turn_outside", "turn_unproven"),
    *("inbox_repeated", "SCAN anon_1", "TEMP B-TREE", "(subquery"),
)


NOTHING = ("SCAN CONSTANT ROW", "SCAN (subquery-1)")
"""An IN of an empty list."""


async def test_no_query_walks_through_a_table(database: Database) -> None:
    found: dict[str, Any] = {}

    def note(_c: Any, _cur: Any, statement: str, values: Any, _ctx: Any, many: bool) -> None:
        found[statement] = values[0] if many else values

    alone = SqlTurnStore(database, VirtualClock())
    await seen(database, note, "before_cursor_execute", walk(alone))
    await among_others(SqlTurnStore(database, VirtualClock(), Lease()))
    for sql in (sql for one in Prepared.known for sql, _ in one.spoken()):
        found[sql] = (None,) * sql.count("?")
    queries = {s: v for s, v in found.items() if s.startswith(("SELECT", "UPDATE", "DELETE"))}
    assert len(queries) > 60

    def plans(connection: Connection) -> dict[str, list[str]]:
        return {
            statement: [
                row[3]
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            ]
            for statement, values in queries.items()
        }

    for statement, plan in (await database.run(plans)).items():
        walks = [
            bit for bit in plan if ("SCAN" in bit or "TEMP" in bit) and not bit.endswith(NOTHING)
        ]
        assert not walks or any(word in statement for word in WALKS), (statement, plan)
        assert all(any(word in bit for word in SMALL) for bit in walks), (statement, plan)


# ---------------------------------------------------------------- PostgreSQL


async def test_every_statement_is_postgresql_too(database: Database) -> None:
    sql: set[str] = set()

    def note(_c: Any, clause: Any, _many: Any, params: Any, _options: Any) -> None:
        if not isinstance(clause, sqlite.Insert):
            names = list(params) or None
            sql.add(str(clause.compile(dialect=postgresql.dialect(), column_keys=names)))

    store = SqlTurnStore(database, VirtualClock(), Lease())
    await store.beat(())
    await seen(database, note, "before_execute", walk(store))
    await among_others(store)
    spoken = postgresql.dialect()  # type: ignore[no-untyped-call]
    for one in Prepared.known:
        if not isinstance(one.statement, sqlite.Insert):
            sql.update(_named(one.ready(spoken, keys)) for _, keys in one.spoken())
    assert len(sql) > 60
    assert any("FOR UPDATE SKIP LOCKED" in one for one in sql)
    assert any("clock_timestamp" in one for one in sql)
    assert not any(dialect.NOW in one for one in sql)


def _named(ready: Ready) -> str:
    """The SQL of a driver whose parameters have names, once each of them is bound."""
    for name in ready.bound({name: None for name, *_ in ready.binds}):
        assert f"%({name})s" in ready.sql
    return ready.sql


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
def test_what_is_written_per_database_compiles(name: str) -> None:
    spoken = {"sqlite": sqlite, "postgresql": postgresql}[name]
    lane, gap = ("lane", "owner", "head"), ("bot", "chat", "since", "until", "why")
    for statement, columns in (
        (dialect._add(name, schema.lane), lane),
        (dialect._put(name, schema.gap, gap), gap),
    ):
        assert isinstance(statement.statement, spoken.Insert)
        assert "ON CONFLICT" in statement.ready(spoken.dialect(), columns).sql


def test_the_tables_are_postgresql_too() -> None:
    for table in schema.metadata.sorted_tables:
        assert "WITHOUT ROWID" not in str(CreateTable(table).compile(dialect=postgresql.dialect()))
    for index in indexes.ALL:
        made = str(CreateIndex(index).compile(dialect=postgresql.dialect()))
        assert ("WHERE" in made) == (index.dialect_options["sqlite"]["where"] is not None)
