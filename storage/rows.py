"""Reading turns, and the one statement that changes them."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from bot.contract import Handle, Turn
from storage import codec
from storage.prepared import Prepared
from storage.schema import reply, turn

_turn_by_id = Prepared(select(turn).where(turn.c.id == bindparam("id")))
_handles = Prepared(select(reply).where(reply.c.turn_id == bindparam("id")).order_by(reply.c.part))
_first = Prepared(
    select(turn).where(turn.c.queue == bindparam("queue")).order_by(turn.c.no).limit(1)
)


def read_turn(connection: Connection, turn_id: str) -> Turn | None:
    row = row_of(connection, turn_id)
    return None if row is None else whole(connection, row)


def row_of(connection: Connection, turn_id: str) -> codec.Row | None:
    return _turn_by_id.first(connection, {"id": turn_id})


def first_in(connection: Connection, queue: str) -> codec.Row | None:
    """The row of the lane's oldest unended turn."""
    return _first.first(connection, {"queue": queue})


def whole(connection: Connection, row: codec.Row) -> Turn:
    """The turn of this row, with its reply journal."""
    return codec.turn_from_row(row, journal(connection, row["id"]))


def journal(connection: Connection, turn_id: str) -> tuple[Handle, ...]:
    """Handles by part. A part that stored nothing, before one that did, gets the handle
    that it would be born with (bot.answer: turn id and part)."""
    rows = _handles.all(connection, {"id": turn_id})
    known = {row["part"]: codec.handle_from_row(row) for row in rows}
    most = max(known, default=-1) + 1
    return tuple(known.get(part) or Handle(f"{turn_id}-{part}") for part in range(most))


@cache
def change(*conditions: ColumnElement[bool]) -> Any:
    """An update of the turn named by the parameter `turn_id`; further parameters are the
    columns that it sets. Made once: making it costs as much as running it."""
    return update(turn).where(turn.c.id == bindparam("turn_id"), *conditions)


@cache
def _alter(*conditions: ColumnElement[bool]) -> Prepared:
    return Prepared(change(*conditions), sets=True)


def alter(
    connection: Connection, turn_id: str, values: codec.Row, *conditions: ColumnElement[bool]
) -> None:
    """Set these columns of the turn, if it meets the conditions."""
    _alter(*conditions).run(connection, {**values, "turn_id": turn_id})
