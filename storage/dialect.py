"""Where the databases differ in their SQL; nowhere else is asked which one it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Float, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from storage.prepared import Prepared

NOW = "queqiao_now"
"""The function that storage.sqlite gives each connection: with one process, its clock is
the database's."""


class now(FunctionElement[float]):
    """The database's own time, in seconds since the epoch: the one clock that all
    replicas share."""

    inherit_cache = True
    type = Float()


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **_: Any) -> str:
    return f"{NOW}()"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


def _insert(dialect: str, table: Table) -> Any:
    """The INSERT that knows ON CONFLICT. Only the database in use is loaded: the others
    are a thirtieth of a start."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


@cache
def _add(dialect: str, table: Table) -> Prepared:
    return Prepared(_insert(dialect, table).on_conflict_do_nothing(), sets=True)


def add(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert the row unless its key is there; returns whether it was not."""
    return _add(connection.dialect.name, table).run(connection, values) == 1


@cache
def _put(dialect: str, table: Table, columns: tuple[str, ...]) -> Prepared:
    statement = _insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in columns if name not in keys}
    return Prepared(statement.on_conflict_do_update(index_elements=keys, set_=changed), sets=True)


def put(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert the row, or change these columns of the one with its key."""
    _put(connection.dialect.name, table, tuple(values)).run(connection, values)


@cache
def _increase(dialect: str, table: Table, column: str) -> Any:
    statement = _insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    total = table.c[column] + statement.excluded[column]
    return statement.on_conflict_do_update(index_elements=keys, set_={column: total})


def increase(connection: Connection, table: Table, values: Mapping[str, Any], column: str) -> None:
    """Insert the row, or add its `column` to that of the one with its key."""
    connection.execute(_increase(connection.dialect.name, table, column), values)
