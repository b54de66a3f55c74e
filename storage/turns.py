"""The transactions of a turn: accept, start, decide, finish, and what ends it early.

Plain functions of a connection, the same for every database. Whoever calls them runs
each in a transaction of its own (storage.database).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.sqlite import insert as upsert

from bot.contract import (
    Accepted,
    Ending,
    Event,
    Handle,
    NewTurn,
    Started,
    Turn,
    TurnState,
)
from storage import codec
from storage.history import enter, exchanges, generation_of, read_conversation
from storage.schema import inbox, lane, reply, turn

UNNEEDED = "unneeded"
"""Proof of a turn that ended while it waited: whoever ended it tells the person."""

# ---------------------------------------------------------------- reading

_turn_by_id = select(turn).where(turn.c.id == bindparam("id"))
_handles = select(reply).where(reply.c.turn_id == bindparam("id")).order_by(reply.c.part)


def read_turn(connection: Connection, turn_id: str) -> Turn | None:
    row = _row(connection, turn_id)
    return None if row is None else whole(connection, row)


def _row(connection: Connection, turn_id: str) -> RowMapping | None:
    return connection.execute(_turn_by_id, {"id": turn_id}).mappings().first()


def whole(connection: Connection, row: RowMapping) -> Turn:
    """The turn of this row, with its reply journal."""
    return codec.turn_from_row(row, _journal(connection, row["id"]))


def _journal(connection: Connection, turn_id: str) -> tuple[Handle, ...]:
    """Handles by part. A part that stored nothing, before one that did, gets the handle
    that it would be born with (bot.answer: turn id and part)."""
    rows = connection.execute(_handles, {"id": turn_id}).mappings().all()
    known = {row["part"]: codec.handle_from_row(row) for row in rows}
    most = max(known, default=-1) + 1
    return tuple(known.get(part) or Handle(f"{turn_id}-{part}") for part in range(most))


# ---------------------------------------------------------------- accept

_claim_event = upsert(inbox).on_conflict_do_nothing()
_claim_lane = upsert(lane).on_conflict_do_nothing()
_event_turn = select(inbox.c.turn_id).where(inbox.c.event_key == bindparam("key"))
_count = select(func.count()).select_from(turn).where(turn.c.queue == bindparam("queue"))
_root = select(turn.c.root).where(turn.c.id == bindparam("id"))


def accept(connection: Connection, owner: str, now: float, event: Event) -> Accepted:
    new = event.turn
    claim = {
        "event_key": event.key,
        "turn_id": None if new is None else new.id,
        "reason": event.reason,
        "seen_at": now,
    }
    if connection.execute(_claim_event, claim).rowcount == 0:
        return _known(connection, event.key)
    if new is None:
        return Accepted(fresh=True)
    if new.kind != "chat":
        return Accepted(fresh=True, turn=_insert(connection, new, owner=owner))
    waiting = _waiting(connection, new.lane)
    if waiting >= event.depth:
        refused = _insert(connection, new, owner=owner, state="refused")
        return Accepted(fresh=True, turn=refused, full=True, waiting=waiting)
    taken = _insert(connection, new, queue=new.lane)
    head = {"lane": new.lane, "owner": owner, "head": new.id}
    idle = connection.execute(_claim_lane, head).rowcount == 1
    return Accepted(fresh=True, turn=taken, head=taken if idle else None, waiting=waiting)


def _known(connection: Connection, key: str) -> Accepted:
    turn_id = connection.execute(_event_turn, {"key": key}).scalar()
    return Accepted(fresh=False, turn=read_turn(connection, turn_id) if turn_id else None)


def _waiting(connection: Connection, queue: str) -> int:
    return int(connection.execute(_count, {"queue": queue}).scalar_one())


def _insert(
    connection: Connection,
    new: NewTurn,
    *,
    state: TurnState = "queued",
    queue: str | None = None,
    owner: str | None = None,
) -> Turn:
    row = codec.new_to_row(new)
    root = new.id
    if new.replaces:
        root = connection.execute(_root, {"id": new.replaces}).scalar() or new.replaces
    place = {"root": root, "state": state, "queue": queue, "owner": owner}
    done = connection.execute(insert(turn), {**row, **place})
    assert done.inserted_primary_key is not None
    return Turn(new=codec.new_from_row(row), no=done.inserted_primary_key[0], state=state)


# ---------------------------------------------------------------- while it runs


def _change(*conditions: ColumnElement[bool]) -> Any:
    return update(turn).where(turn.c.id == bindparam("turn_id"), *conditions)


_alive = turn.c.ended_at.is_(None)
_undecided = turn.c.outcome.is_(None)
_waits = turn.c.state == "queued"


def start(connection: Connection, turn_id: str, most: int) -> Started | None:
    row = _row(connection, turn_id)
    if row is None or row["ended_at"] is not None:
        return None
    known = read_conversation(connection, row["conversation"])
    first = row["attempt"] == 0
    values: dict[str, Any] = {
        "state": "running",
        "attempt": row["attempt"] + 1,
        "generation": known.generation if first else row["generation"],
    }
    connection.execute(_change().values(values), {"turn_id": turn_id})
    begun = replace(whole(connection, row), **values)
    return Started(begun, known, exchanges(connection, begun, row["root"], most))


def save_handle(connection: Connection, turn_id: str, part: int, handle: Handle) -> None:
    row = codec.handle_to_row(handle)
    put = upsert(reply).values(turn_id=turn_id, part=part, **row)
    connection.execute(put.on_conflict_do_update(index_elements=["turn_id", "part"], set_=row))


def checkpoint(connection: Connection, turn_id: str, text: str, reasoning: str) -> None:
    """A late one, after the outcome was decided, changes nothing."""
    values = {"answer": text, "reasoning": reasoning}
    connection.execute(_change(_alive, _undecided).values(values), {"turn_id": turn_id})


def decide(connection: Connection, turn_id: str, ending: Ending) -> None:
    values = codec.ending_to_row(ending)
    connection.execute(_change(_alive).values(values), {"turn_id": turn_id})


# ---------------------------------------------------------------- its end


def finish(
    connection: Connection, owner: str, now: float, turn_id: str, ending: Ending
) -> Turn | None:
    row = _row(connection, turn_id)
    if row is None:
        return None
    if row["ended_at"] is None:
        _end(connection, row, now, ending)
    return _next_in_lane(connection, owner, row)


def _end(connection: Connection, row: RowMapping, now: float, ending: Ending) -> None:
    """Ended for good. A turn that never ran belongs to the part it ended in."""
    ran = row["attempt"] > 0
    values: dict[str, Any] = {
        **codec.ending_to_row(ending),
        "state": ending.state,
        "ended_at": now,
        "queue": None,
        "owner": None,
        "generation": row["generation"] if ran else generation_of(connection, row["conversation"]),
    }
    connection.execute(_change().values(values), {"turn_id": row["id"]})
    if row["kind"] == "chat" and ending.state in ("answered", "stopped") and ending.text.strip():
        enter(connection, {**row, **values})


_next = select(turn).where(turn.c.queue == bindparam("queue")).order_by(turn.c.no).limit(1)
_mine = (
    lane.c.lane == bindparam("key"),
    lane.c.owner == bindparam("me"),
    lane.c.head == bindparam("now_head"),
)


def _next_in_lane(connection: Connection, owner: str, row: RowMapping) -> Turn | None:
    """Only the head moves its lane on, so a head is handed out once."""
    following = connection.execute(_next, {"queue": row["lane"]}).mappings().first()
    mine = {"key": row["lane"], "me": owner, "now_head": row["id"]}
    if following is None:
        connection.execute(delete_from(lane).where(*_mine), mine)
        return None
    moved = connection.execute(update(lane).where(*_mine).values(head=following["id"]), mine)
    return whole(connection, following) if moved.rowcount == 1 else None


def withdraw(connection: Connection, now: float, turn_id: str, state: TurnState) -> bool:
    row = _row(connection, turn_id)
    if row is None or row["state"] != "queued" or row["outcome"] is not None:
        return False
    _end(connection, row, now, Ending(state, delivery="delivered", proof=UNNEEDED))
    return True


_queue = select(turn).where(turn.c.queue == bindparam("queue"), _waits).order_by(turn.c.no)


def stop_waiting(
    connection: Connection, now: float, key: str, sender: str | None, state: TurnState
) -> tuple[Turn, ...]:
    wanted = _queue if sender is None else _queue.where(turn.c.sender == sender)
    rows = connection.execute(wanted, {"queue": key}).mappings().all()
    ended = [row["id"] for row in rows if withdraw(connection, now, row["id"], state)]
    return tuple(found for id_ in ended if (found := read_turn(connection, id_)) is not None)


# ---------------------------------------------------------------- after a crash

_heads = (
    select(func.min(turn.c.no).label("no")).where(turn.c.queue.is_not(None)).group_by(turn.c.queue)
).subquery()


def recover(connection: Connection, owner: str) -> tuple[Turn, ...]:
    """Take every lane and every turn outside lanes that another process held. The lanes
    are built anew from the queues, so a head that had ended is passed over."""
    connection.execute(delete_from(lane).where(lane.c.owner != owner))
    rows = (
        connection.execute(
            select(turn)
            .join(_heads, turn.c.no == _heads.c.no)
            .where(turn.c.queue.not_in(select(lane.c.lane)))
        )
        .mappings()
        .all()
    )
    heads = [{"lane": row["queue"], "owner": owner, "head": row["id"]} for row in rows]
    if heads:
        connection.execute(insert(lane), heads)
    turns = [whole(connection, row) for row in (*rows, *_outside(connection, owner))]
    return tuple(sorted(turns, key=lambda found: found.no))


def _outside(connection: Connection, owner: str) -> list[RowMapping]:
    left = (turn.c.owner.is_not(None), turn.c.owner != owner)
    rows = connection.execute(select(turn).where(*left)).mappings().all()
    connection.execute(update(turn).where(*left).values(owner=owner))
    return list(rows)
