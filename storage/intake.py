"""Accept: an event and its lane are claimed in one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy import delete as delete_from

from bot.contract import Accepted, Conversation, Event, Moment, NewTurn, Started, Turn, TurnState
from storage import codec
from storage.dialect import add
from storage.history import conversation_of, exchanges
from storage.leases import Holder, lock_lane
from storage.prepared import Prepared
from storage.rows import alter, first_in, read_turn, whole
from storage.schema import conversation, inbox, lane, turn

NOBODY = ""
"""Owner of what came while this process may not speak: the next beat takes it."""


def accept(connection: Connection, me: Holder, now: float, event: Event, free: bool) -> Accepted:
    """`free`: this process may take the lane if it is idle."""
    new = event.turn
    claim = {
        "event_key": event.key,
        "turn_id": None if new is None else new.id,
        "reason": event.reason,
        "seen_at": now,
    }
    if not add(connection, inbox, claim):
        return _again(connection, now, event.key)
    if new is None:
        return Accepted(fresh=True)
    owner = me.id if free else NOBODY
    if new.kind != "chat":
        return Accepted(fresh=True, turn=_insert(connection, new, now, owner=owner))
    if event.late:
        late = _insert(connection, new, now, owner=owner, state="refused")
        return Accepted(fresh=True, turn=late)
    return _queue(connection, me, now, event, new, owner)


_repeat = (
    update(inbox)
    .where(inbox.c.event_key == bindparam("key"))
    .values(repeats=inbox.c.repeats + 1, repeated_at=bindparam("at"))
    .returning(inbox.c.turn_id)
)


def _again(connection: Connection, now: float, key: str) -> Accepted:
    turn_id = connection.execute(_repeat, {"key": key, "at": now}).scalar()
    return Accepted(fresh=False, turn=read_turn(connection, turn_id) if turn_id else None)


def _insert(
    connection: Connection,
    new: NewTurn,
    now: float,
    *,
    state: TurnState = "queued",
    queue: str | None = None,
    owner: str | None = None,
    attempt: int = 0,
    generation: int = 0,
) -> Turn:
    row = codec.new_to_row(new)
    root = _root_of(connection, new)
    place = {"root": root, "state": state, "queue": queue, "owner": owner, "seen_at": now}
    place |= {"attempt": attempt, "generation": generation}
    no = _insert_turn.scalar(connection, {**row, **place})
    return Turn(
        new=codec.new_from_row(row),
        no=no,
        state=state,
        seen_at=now,
        attempt=attempt,
        generation=generation,
    )


_insert_turn = Prepared(insert(turn).returning(turn.c.no), sets=True)


def _root_of(connection: Connection, new: NewTurn) -> str:
    if not new.replaces:
        return new.id
    return _root.scalar(connection, {"id": new.replaces}) or new.replaces


_root = Prepared(select(turn.c.root).where(turn.c.id == bindparam("id")))

# ---------------------------------------------------------------- into the lane

_waiting = select(func.count()).select_from(turn).where(turn.c.queue == bindparam("queue"))
_of_conversation = (
    select(conversation.c[name]).where(conversation.c.conversation == bindparam("key"))
    for name in ("generation", "choices")
)
_standing = Prepared(select(*(one.scalar_subquery() for one in (_waiting, *_of_conversation))))
"""How many are in the lane, and what is remembered of the conversation."""


def _queue(
    connection: Connection, me: Holder, now: float, event: Event, new: NewTurn, owner: str
) -> Accepted:
    idle = _claim(connection, me, new, owner)
    keys = {"queue": new.lane, "key": new.conversation}
    waiting, *remembered = _standing.rows(connection, keys)[0]
    joined = _join(connection, now, event, new) if waiting and event.join > 0 else None
    if joined is not None:
        head = _head(connection, new.lane) if idle else None
        return Accepted(fresh=True, turn=joined, head=head, joined=True)
    if waiting >= event.depth and event.again:
        connection.execute(_forget, {"key": event.key})
        head = _head(connection, new.lane) if idle else None
        return Accepted(fresh=False, full=True, head=head, waiting=waiting)
    if waiting >= event.depth:
        refused = _insert(connection, new, now, owner=owner, state="refused")
        head = _head(connection, new.lane) if idle else None
        return Accepted(fresh=True, turn=refused, full=True, head=head, waiting=waiting)
    if idle and not waiting and event.start >= 0 and not me.leased:
        known = conversation_of(new.conversation, *remembered)
        started = _begin(connection, now, event.start, new, known)
        return Accepted(True, started.turn, head=started.turn, started=started)
    taken = _insert(connection, new, now, queue=new.lane)
    head = taken if idle and not waiting else _head(connection, new.lane) if idle else None
    return Accepted(fresh=True, turn=taken, head=head, waiting=waiting)


_forget = delete_from(inbox).where(inbox.c.event_key == bindparam("key"))


def _begin(
    connection: Connection, now: float, most: int, new: NewTurn, known: Conversation
) -> Started:
    """Claimed and begun at once, as storage.turns.start leaves it: one commit less stands
    between the question and the model."""
    part = known.generation
    begun = _insert(
        connection, new, now, state="running", queue=new.lane, attempt=1, generation=part
    )
    return Started(begun, known, exchanges(connection, begun, _root_of(connection, new), most))


def _claim(connection: Connection, me: Holder, new: NewTurn, owner: str) -> bool:
    """Whether the lane was idle and is ours now."""
    if owner == NOBODY:
        return False
    row = {"lane": new.lane, "owner": owner, "head": new.id}
    while not add(connection, lane, row):
        if not me.leased or lock_lane(connection, new.lane) is not None:
            return False
    return True


def _head(connection: Connection, key: str) -> Turn | None:
    """The head of a lane just taken: the oldest that waits there, not the newcomer."""
    row = first_in(connection, key)
    if row is None:
        connection.execute(_leave, {"key": key})
        return None
    connection.execute(_lead, {"key": key, "first": row["id"]})
    return whole(connection, row)


_leave = delete_from(lane).where(lane.c.lane == bindparam("key"))
_lead = update(lane).where(lane.c.lane == bindparam("key")).values(head=bindparam("first"))

# ---------------------------------------------------------------- into a waiting turn

_newest = (
    select(turn)
    .where(turn.c.queue == bindparam("queue"), turn.c.sender == bindparam("asker"))
    .order_by(turn.c.no.desc())
    .limit(1)
)


def _join(connection: Connection, now: float, event: Event, new: NewTurn) -> Turn | None:
    """The turn that holds this message too; None when it needs one of its own."""
    asker = codec.sound(new.sender.id)
    row = connection.execute(_newest, {"queue": new.lane, "asker": asker}).mappings().first()
    if row is None or new.replaces or not _open_to(row, new, now, event.join):
        return None
    parts = (*codec.parts_from_json(row["parts"]), *new.parts)
    values = {
        "parts": codec.parts_to_json(parts),
        "joined_at": now,
        "trail": codec.grown(row["trail"], (Moment(now, "joined", new.message_id),)),
    }
    alter(connection, row["id"], values)
    connection.execute(_belongs, {"key": event.key, "to": row["id"]})
    return whole(connection, {**row, **values})


def _open_to(row: Any, new: NewTurn, now: float, seconds: float) -> bool:
    waits = row["state"] == "queued" and not row["attempt"] and row["outcome"] is None
    same = row["conversation"] == codec.sound(new.conversation) and not row["replaces"]
    last = max(row["seen_at"], row["joined_at"] or 0.0)
    return waits and same and now - last <= seconds


_belongs = (
    update(inbox).where(inbox.c.event_key == bindparam("key")).values(turn_id=bindparam("to"))
)
