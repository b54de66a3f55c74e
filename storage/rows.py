"""Reading turns, and the one statement that changes them."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, select, update

from bot.contract import Handle, Turn
from storage import codec
from storage.schema import reply, turn

_turn_by_id = select(turn).where(turn.c.id == bindparam("id"))
_handles = select(reply).where(reply.c.turn_id == bindparam("id")).order_by(reply.c.part)
_first = select(turn).where(turn.c.queue == bindparam("queue")).order_by(turn.c.no).limit(1)


def read_turn(connection: Connection, turn_id: str) -> Turn | None:
    row = row_of(connection, turn_id)
    return None if row is None else whole(connection, row)


def row_of(connection: Connection, turn_id: str) -> RowMapping | None:
    return connection.execute(_turn_by_id, {"id": turn_id}).mappings().first()


def first_in(connection: Connection, queue: str) -> RowMapping | None:
    """The row of the lane's oldest unended turn."""
    return connection.execute(_first, {"queue": queue}).mappings().first()


def whole(connection: Connection, row: codec.Row) -> Turn:
    """The turn of this row, with its reply journal."""
    return codec.turn_from_row(row, journal(connection, row["id"]))


def journal(connection: Connection, turn_id: str) -> tuple[Handle, ...]:
    """Handles by part. A part that stored nothing, before one that did, gets the handle
    that it would be born with (bot.answer: turn id and part)."""
    rows = connection.execute(_handles, {"id": turn_id}).mappings().all()
    known = {row["part"]: codec.handle_from_row(row) for row in rows}
    most = max(known, default=-1) + 1
    return tuple(known.get(part) or Handle(f"{turn_id}-{part}") for part in range(most))


@cache
def change(*conditions: ColumnElement[bool]) -> Any:
    """An update of the turn named by the parameter `turn_id`; further parameters are the
    columns that it sets. Made once: making it costs as much as running it."""
    return update(turn).where(turn.c.id == bindparam("turn_id"), *conditions)
