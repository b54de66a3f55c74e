"""Looking after replies that did not arrive, or perhaps did not."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, select

from bot.contract import Ending, Turn
from storage import codec
from storage.leases import Holder
from storage.rows import alter, change, row_of, whole
from storage.schema import UNPROVEN, turn

HELD = 60.0
"""Seconds for which a due turn is left to the replica that it was handed to."""

_unproven = select(turn).where(UNPROVEN).order_by(turn.c.no.desc()).limit(bindparam("most"))
_due = (
    select(turn)
    .where(turn.c.retry_at <= bindparam("at"))
    .order_by(turn.c.retry_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_lost = (turn.c.ended_at.is_not(None), turn.c.delivery == "undelivered")


def undelivered(connection: Connection, limit: int) -> tuple[Turn, ...]:
    rows = connection.execute(_unproven, {"most": limit}).mappings().all()
    return tuple(whole(connection, row) for row in rows)


def due(connection: Connection, me: Holder, now: float, limit: int) -> tuple[Turn, ...]:
    """With a lease, what is handed out is put off, so that no other replica tries it
    meanwhile."""
    rows = connection.execute(_due, {"at": now, "most": limit}).mappings().all()
    if me.leased:
        for row in rows:
            postpone(connection, row["id"], now + HELD)
    return tuple(whole(connection, row) for row in rows)


def postpone(connection: Connection, turn_id: str, until: float | None) -> None:
    connection.execute(change(*_lost).values(retry_at=until), {"turn_id": turn_id})


def delivered(connection: Connection, turn_id: str, ending: Ending) -> None:
    """Of an ended turn only this may still change, and with it an answer to a failure with
    an error: the person was shown something else, so it leaves the history. A proof that
    stands is kept."""
    row = row_of(connection, turn_id)
    if row is None or row["ended_at"] is None:
        return
    values: dict[str, Any] = {"trail": codec.grown(row["trail"], ending.trail)}
    if row["delivery"] != "delivered":
        values |= {"delivery": ending.delivery, "proof": ending.proof}
        if ending.delivery != "undelivered":
            values["retry_at"] = None
        if ending.state == "failed" and ending.error and row["state"] in ("answered", "stopped"):
            failed = {"state": "failed", "outcome": "failed", "error": ending.error}
            values |= {**failed, "done": None}
    alter(connection, turn_id, values)
