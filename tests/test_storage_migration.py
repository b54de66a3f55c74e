"""The schema and the way to it: databases of every earlier version, kill -9 at every point
of the way, and files of a newer program."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect

from adapters.playground.clock import START, VirtualClock
from bot.contract import Ending, Handle, Person, QuotePart, TextPart, TurnStore, UnreadablePart
from bot.errors import StoreTooNew
from storage import indexes, migrations, schema
from storage.contents import contents
from storage.migrations import migrate
from storage.sqlite import engine_for
from storage.store import SqlTurnStore, open_store

ROOT = Path(__file__).parent.parent
NEWEST = len(migrations.STEPS)


def old(path: Path) -> None:
    """The database of version 0.1."""
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript((ROOT / "tests" / "test_storage_v1.sql").read_text(encoding="utf-8"))


def counts(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as raw:
        names = raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: raw.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for (name,) in names
        }


async def opened(path: Path) -> SqlTurnStore:
    store: TurnStore = await open_store(f"sqlite:///{path}", VirtualClock(), durable=False)
    assert isinstance(store, SqlTurnStore)
    return store


async def everything(path: Path) -> list[str]:
    store = await opened(path)
    lines = await store.database.run(lambda c: list(contents(c)))
    await store.close()
    return lines


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
    keys = {name: found.get_pk_constraint(name)["constrained_columns"] for name in tables}
    indexes = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
    ).all()
    made = [(name, " ".join(sql.split())) for name, sql in indexes]
    return {"columns": columns, "keys": keys, "indexes": made}


def test_migrations_make_what_the_queries_see(tmp_path: Path) -> None:
    migrated = engine_for(tmp_path / "a.db", durable=False)
    with migrated.connect() as connection:
        migrate(connection)
        mine = shape(connection)
    made = create_engine(f"sqlite:///{tmp_path}/b.db")
    schema.metadata.create_all(made)
    with made.connect() as connection:
        assert mine == shape(connection)
    assert len(mine["indexes"]) == len(indexes.ALL)
    migrated.dispose()
    made.dispose()


def test_an_upgraded_database_is_as_a_new_one(tmp_path: Path) -> None:
    old(tmp_path / "old.db")
    shapes = []
    for name in ("old.db", "new.db"):
        engine = engine_for(tmp_path / name, durable=False)
        with engine.connect() as connection:
            migrate(connection)
            shapes.append(shape(connection))
        engine.dispose()
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_every_earlier_version_becomes_the_newest(tmp_path: Path, version: int) -> None:
    """With what stood in it."""
    path = tmp_path / "old.db"
    old(path)
    engine, fresh = engine_for(path, durable=False), engine_for(tmp_path / "new.db", durable=False)
    with engine.connect() as connection, fresh.connect() as other:
        if version > 1:
            migrate(connection, migrations.STEPS[:version])
        before = counts(path)
        migrate(connection)
        migrate(other)
        assert shape(connection) == shape(other)
    engine.dispose()
    fresh.dispose()
    after = counts(path)
    assert before["turn"] and before.items() <= after.items()


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
        found = connection.exec_driver_sql("SELECT version FROM schema_version").scalar()
    assert found == NEWEST
    engine.dispose()


async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await (await opened(path)).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE schema_version SET version = 99")
        raw.commit()
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(StoreTooNew, match=r"版本是 99.*use a newer one"):
            await opened(path)
    assert path.read_bytes() == before


# ---------------------------------------------------------------- from version 1


async def test_every_row_of_version_1_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    old(path)
    before = counts(path)
    await (await opened(path)).close()
    after = counts(path)
    assert {name: after[name] for name in before} == before
    assert set(before.values()) >= {1, 2, 3, 13, 14}, "rows of every kind"
    assert sum(after.values()) == sum(before.values())


async def test_a_database_of_version_1_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    old(path)
    store = await opened(path)
    found = {turn.id: turn for turn in await store.recover()}
    assert list(found) == ["decided", "running", "full", "command", "notice"]
    assert found["running"].checkpoint == "half" and found["running"].thoughts == "thinking"
    assert found["running"].new.sender == Person("ou_1", "Ann", ("on_1",))
    assert found["decided"].ending == Ending("answered", "whole")
    assert found["decided"].handles[1] == Handle("decided-1", card_id="c2")
    assert [turn.seen_at for turn in found.values()] == [START + n for n in (6, 7, 10, 11, 12)]
    following = await store.finish("running", Ending("answered", "x"))
    assert following is not None and following.id == "waiting"
    assert following.new.parts == (
        TextPart("hi"),
        QuotePart("q", "A"),
        UnreadablePart("image", "x"),
    )
    assert [turn.id for turn in await store.undelivered()] == ["doubt", "lost"]
    assert await store.due(START + 10**6) == (), "it was lost long ago"
    (account,) = await store.accounts("om_ignored", ("b",))
    assert (account.reason, account.repeats) == ("not_mentioned", 0)
    assert len(await store.accounts("om_answered", ("b",))) == 2
    known = await store.conversation("conv")
    assert known.generation == 1 and known.choices == {"model": "m"}
    again = await store.turn("again")
    assert again is not None and again.ended and again.seen_at == START + 1
    await store.close()


# ---------------------------------------------------------------- kill -9 on the way

KILLER = """
import os, shutil, signal, sys
from pathlib import Path
from sqlalchemy import event
from storage.migrations import migrate
from storage.sqlite import engine_for

def upgrade(path, last):
    "Dies before step `last`: a statement or a commit. Returns how many there were."
    engine = engine_for(path, durable=False)
    steps = 0
    def step(*_):
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
    event.listen(engine, "before_cursor_execute", step)
    event.listen(engine, "commit", step)
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()
    return steps

folder = Path(sys.argv[1])
shutil.copy(folder / "old.db", folder / "whole.db")
steps = upgrade(folder / "whole.db", 0)
for last in range(1, steps + 1):
    path = folder / f"killed-{last}.db"
    shutil.copy(folder / "old.db", path)
    child = os.fork()
    if child == 0:
        upgrade(path, last)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
print(steps)
"""


def killed_everywhere(folder: Path) -> int:
    command = [sys.executable, "-c", KILLER, str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


async def test_kill_at_any_point_leaves_a_startable_database(tmp_path: Path) -> None:
    old(tmp_path / "old.db")
    before = counts(tmp_path / "old.db")
    steps = killed_everywhere(tmp_path)
    assert steps > 20
    whole = await everything(tmp_path / "whole.db")
    for last in range(1, steps + 1):
        path = tmp_path / f"killed-{last}.db"
        assert await everything(path) == whole, f"killed before step {last}"
        assert {name: counts(path)[name] for name in before} == before
