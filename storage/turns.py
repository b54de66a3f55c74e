"""The transactions of a turn after it was accepted: start, decide, finish, and what ends
it early.

Plain functions of a connection, the same for every database. Whoever calls them runs
each in a transaction of its own (storage.database). Each that writes to a turn writes
nothing when it is no longer this process's (storage.leases).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy import delete as delete_from

from bot.contract import Ending, Handle, Moment, Part, Started, Turn, TurnState
from storage import codec
from storage.dialect import put
from storage.history import enter, exchanges, generation_of, read_conversation
from storage.leases import Holder, guard, holds_lane, lock_lane, lock_lane_of
from storage.prepared import Prepared
from storage.rows import alter, first_in, journal, read_turn, row_of, whole
from storage.schema import lane, reply, turn

UNNEEDED = "unneeded"
"""Proof of a turn that ended while it waited: whoever ended it tells the person."""

FIRST_RETRY = 5.0
"""Seconds until an undelivered reply is tried again; the core decides the further ones."""

_alive = turn.c.ended_at.is_(None)
_undecided = turn.c.outcome.is_(None)
_waits = turn.c.state == "queued"

# ---------------------------------------------------------------- while it runs


def start(connection: Connection, me: Holder, turn_id: str, most: int) -> Started | None:
    guard(connection, me, turn_id)
    row = row_of(connection, turn_id)
    if row is None or row["ended_at"] is not None:
        return None
    known = read_conversation(connection, row["conversation"])
    if row["outcome"] is not None:
        return Started(whole(connection, row), known, ())
    first = row["attempt"] == 0
    values: dict[str, Any] = {
        "state": "running",
        "attempt": row["attempt"] + 1,
        "deaths": row["deaths"] + (row["state"] == "running"),
        "generation": known.generation if first else row["generation"],
    }
    alter(connection, turn_id, values)
    begun = replace(whole(connection, row), **values)
    return Started(begun, known, exchanges(connection, begun, row["root"], most))


def rewrite(connection: Connection, now: float, turn_id: str, parts: tuple[Part, ...]) -> None:
    row = row_of(connection, turn_id)
    if row is None or row["ended_at"] is not None or row["outcome"] is not None:
        return
    trail = codec.grown(row["trail"], (Moment(now, "edited"),))
    values = {"parts": codec.parts_to_json(parts), "trail": trail}
    alter(connection, turn_id, values)


def save_handle(
    connection: Connection, me: Holder, turn_id: str, part: int, handle: Handle
) -> None:
    guard(connection, me, turn_id)
    put(connection, reply, {"turn_id": turn_id, "part": part, **codec.handle_to_row(handle)})


def checkpoint(connection: Connection, me: Holder, turn_id: str, text: str, reasoning: str) -> None:
    """A late one, after the outcome was decided, changes nothing."""
    guard(connection, me, turn_id)
    alter(connection, turn_id, {"answer": text, "reasoning": reasoning}, _alive, _undecided)


def hand_over(connection: Connection, me: Holder, turn_id: str, text: str, reasoning: str) -> None:
    guard(connection, me, turn_id)
    values = {"answer": text, "reasoning": reasoning, "state": "queued"}
    alter(connection, turn_id, values, _alive, _undecided)


def decide(connection: Connection, me: Holder, turn_id: str, ending: Ending) -> None:
    guard(connection, me, turn_id)
    _decide(connection, turn_id, ending)


_trail = Prepared(select(turn.c.trail).where(turn.c.id == bindparam("id")))


def _decide(connection: Connection, turn_id: str, ending: Ending) -> None:
    """The row is not read for this, nor the trail written when nothing is new in it: the
    last words wait until the outcome is kept."""
    values = codec.ending_to_row(ending)
    if ending.trail:
        stored = _trail.scalar(connection, {"id": turn_id}) or "[]"
        values["trail"] = codec.grown(stored, ending.trail)
    alter(connection, turn_id, values, _alive)


# ---------------------------------------------------------------- its end


class Moved(NamedTuple):
    """What a finish did. `following`: the lane's next head. `freed`: the lane is idle
    now."""

    lane: str = ""
    following: Turn | None = None
    freed: bool = False


def finish(connection: Connection, me: Holder, now: float, turn_id: str, ending: Ending) -> Moved:
    if me.leased:
        lock_lane_of(connection, turn_id)
    row = row_of(connection, turn_id)
    if row is None:
        return Moved()
    if row["ended_at"] is None:
        guard(connection, me, turn_id)
        _end(connection, row, now, ending)
    elif ending.trail:
        alter(connection, turn_id, {"trail": codec.grown(row["trail"], ending.trail)})
    return _next_in_lane(connection, me, row)


def _end(connection: Connection, row: codec.Row, now: float, ending: Ending) -> None:
    """Ended for good. A turn that never ran belongs to the part it ended in."""
    ran = row["attempt"] > 0
    values: dict[str, Any] = {
        **codec.ending_to_row(ending),
        "trail": codec.grown(row["trail"], ending.trail),
        "state": ending.state,
        "ended_at": now,
        "retry_at": now + FIRST_RETRY if ending.delivery == "undelivered" else None,
        "queue": None,
        "owner": None,
        "generation": row["generation"] if ran else generation_of(connection, row["conversation"]),
    }
    if row["kind"] == "chat" and ending.state in ("answered", "stopped") and ending.text.strip():
        values["done"] = enter(connection, row, values["generation"])
    alter(connection, row["id"], values)


_mine = (
    lane.c.lane == bindparam("key"),
    lane.c.owner == bindparam("me"),
    lane.c.head == bindparam("now_head"),
)
_free = Prepared(delete_from(lane).where(*_mine))
_move = Prepared(
    update(lane).where(*_mine).values(head=bindparam("next_head"), stop_to=None, stop_as="")
)


def _next_in_lane(connection: Connection, me: Holder, row: codec.Row) -> Moved:
    """Only the head moves its lane on, so a head is handed out once."""
    key = row["lane"]
    if me.leased and not holds_lane(connection, me, key):
        return Moved(key)
    following = first_in(connection, key)
    mine = {"key": key, "me": me.id, "now_head": row["id"]}
    if following is None:
        return Moved(key, freed=_free.run(connection, mine) == 1)
    moved = _move.run(connection, {**mine, "next_head": following["id"]}) == 1
    return Moved(key, whole(connection, following) if moved else None)


# ---------------------------------------------------------------- ended from outside


def withdraw(
    connection: Connection,
    me: Holder,
    now: float,
    turn_id: str,
    state: TurnState,
    *,
    shown: bool = False,
) -> bool:
    if me.leased:
        lock_lane_of(connection, turn_id)
    row = row_of(connection, turn_id)
    if row is None or row["ended_at"] is not None or row["outcome"] is not None:
        return False
    if row["state"] not in ("queued", "refused"):
        _ask_owner(connection, me, row, state)
        return False
    trail = (Moment(now, state),)
    if shown or journal(connection, turn_id):
        _decide(connection, turn_id, Ending(state, row["answer"], row["reasoning"], trail=trail))
    else:
        gone = Ending(state, delivery="delivered", proof=UNNEEDED, trail=trail)
        _end(connection, row, now, gone)
    return True


_ask = (
    update(lane)
    .where(lane.c.lane == bindparam("key"), lane.c.head == bindparam("now_head"))
    .values(stop_to=bindparam("to"), stop_as=bindparam("state"))
)


def _ask_owner(connection: Connection, me: Holder, row: codec.Row, state: TurnState) -> None:
    """It runs, perhaps in another process, whose next beat reads this."""
    if me.leased and row["queue"] is not None:
        values = {"key": row["queue"], "now_head": row["id"], "to": row["no"], "state": state}
        connection.execute(_ask, values)


_queue = select(turn).where(turn.c.queue == bindparam("queue"), _undecided).order_by(turn.c.no)


def behind(connection: Connection, no: int, key: str) -> tuple[Turn, ...]:
    rows = connection.execute(_queue, {"queue": key}).mappings().all()
    return tuple(whole(connection, row) for row in rows if row["no"] > no)


def stop_waiting(
    connection: Connection,
    me: Holder,
    now: float,
    key: str,
    sender: str | None,
    state: TurnState,
    shown: Collection[str] = (),
    before: int | None = None,
) -> tuple[Turn, ...]:
    if me.leased:
        lock_lane(connection, key)
    wanted = _queue if me.leased else _queue.where(_waits)
    if sender is not None:
        wanted = wanted.where(turn.c.sender == sender)
    if before is not None:
        wanted = wanted.where(turn.c.no < before)
    rows = connection.execute(wanted, {"queue": key}).mappings().all()
    ended = [
        row["id"]
        for row in rows
        if withdraw(connection, me, now, row["id"], state, shown=row["id"] in shown)
    ]
    return tuple(found for id_ in ended if (found := read_turn(connection, id_)) is not None)
