"""The statements of a turn's way, prepared once and run on the driver's own cursor.

SQLAlchemy writes their SQL, for whatever database the connection leads to. To run one
through SQLAlchemy as well costs ten times what the database itself takes for a row, and a
question waits for six of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Values = Mapping[str, Any]

Bind = tuple[str, Any, Callable[[Any], Any] | None]
"""A parameter: its name, what it is when nobody gives it, and what its type makes of a
value before the driver sees it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """SQL of one dialect. `columns`: names of what a row holds."""

    sql: str
    binds: tuple[Bind, ...]
    columns: tuple[str, ...]
    positional: bool

    def bound(self, values: Values) -> Any:
        given = values.get
        made = [
            given(name, default) if process is None else process(given(name, default))
            for name, default, process in self.binds
        ]
        if self.positional:
            return made
        return {name: value for (name, *_), value in zip(self.binds, made, strict=True)}


class Prepared:
    """A Core statement without lists (IN) and without types that need work on the way
    back. `sets`: it is an INSERT or UPDATE of the columns that its parameters name."""

    known: ClassVar[list[Prepared]] = []
    """All there are."""

    def __init__(self, statement: Any, *, sets: bool = False) -> None:
        self.statement = statement
        self._sets = sets
        self._ready: dict[tuple[str, ...], Ready] = {}
        self.known.append(self)

    def all(self, connection: Connection, values: Values) -> list[dict[str, Any]]:
        """The rows, by column name. Raises the driver's errors, as every method here."""
        columns = self._for(connection, values).columns
        return [dict(zip(columns, row, strict=True)) for row in self.rows(connection, values)]

    def rows(self, connection: Connection, values: Values) -> list[tuple[Any, ...]]:
        """The rows bare, their columns in the order of the statement."""
        cursor = _ran(connection, self._for(connection, values), values)
        try:
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found
        finally:
            cursor.close()

    def first(self, connection: Connection, values: Values) -> dict[str, Any] | None:
        found = self.all(connection, values)
        return found[0] if found else None

    def scalar(self, connection: Connection, values: Values) -> Any:
        """The first column of the first row; None when there is none."""
        found = self.rows(connection, values)
        return found[0][0] if found else None

    def run(self, connection: Connection, values: Values) -> int:
        """How many rows it changed."""
        cursor = _ran(connection, self._for(connection, values), values)
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def _for(self, connection: Connection, values: Values) -> Ready:
        dialect = connection.dialect
        key = (dialect.name, *values) if self._sets else (dialect.name,)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = self.ready(dialect, key[1:])
        return ready

    def ready(self, dialect: Dialect, keys: tuple[str, ...]) -> Ready:
        """For this dialect, setting these columns."""
        columns = self.statement.exported_columns.keys()
        return _ready(self._compiled(dialect, keys), dialect, tuple(columns))

    def _compiled(self, dialect: Dialect, keys: tuple[str, ...]) -> SQLCompiler:
        made = self.statement.compile(dialect=dialect, column_keys=keys if self._sets else None)
        assert isinstance(made, SQLCompiler)
        return made

    def spoken(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What was run so far: SQL, and the columns that it set."""
        return ((ready.sql, key[1:]) for key, ready in self._ready.items())


def _ran(connection: Connection, ready: Ready, values: Values) -> Any:
    """A cursor that has executed. It is to be closed: left open, it would keep its
    statement running until somebody collects it."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(ready.sql, ready.bound(values))
    except BaseException:
        cursor.close()
        raise
    return cursor


def _ready(made: SQLCompiler, dialect: Dialect, columns: tuple[str, ...]) -> Ready:
    types = {name: bind.type.dialect_impl(dialect) for bind, name in made.bind_names.items()}
    names = made.positiontup if made.positional else types
    binds = tuple(
        (name, made.params[name], types[name].bind_processor(dialect)) for name in names or ()
    )
    return Ready(made.string, binds, columns, made.positional)
