"""Taking over: at start what an earlier process left, and beat by beat what a replica
that fell silent held.

One beat is one transaction: prove that we live, see what we lost, take what nobody
holds, find what we hold without working on it, read who asked us to stop
(reference/engine.md 4, beat).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy import delete as delete_from

from bot.contract import Ending, Turn, TurnState
from storage import codec
from storage.dialect import add, now
from storage.leases import Holder, Lease, Seen
from storage.rows import change, first_in, row_of, whole
from storage.schema import lane, replica, turn

# ---------------------------------------------------------------- alone, at start

_heads = (
    select(func.min(turn.c.no).label("no")).where(turn.c.queue.is_not(None)).group_by(turn.c.queue)
).subquery()
_waiting_heads = (
    select(turn)
    .join(_heads, turn.c.no == _heads.c.no)
    .where(turn.c.queue.not_in(select(lane.c.lane)))
)
_outside = (turn.c.owner.is_not(None), turn.c.owner != bindparam("me"))


def recover(connection: Connection, me: Holder) -> tuple[Turn, ...]:
    """Take every lane and every turn outside lanes that another process held. The lanes
    are built anew from the queues, so a head that had ended is passed over."""
    connection.execute(delete_from(lane).where(lane.c.owner != me.id))
    rows = list(connection.execute(_waiting_heads).mappings())
    heads = [{"lane": row["queue"], "owner": me.id, "head": row["id"]} for row in rows]
    if heads:
        connection.execute(insert(lane), heads)
    mine = {"me": me.id}
    rows += connection.execute(select(turn).where(*_outside), mine).mappings()
    connection.execute(update(turn).where(*_outside).values(owner=me.id), mine)
    turns = [whole(connection, row) for row in rows]
    return tuple(sorted(turns, key=lambda found: found.no))


# ---------------------------------------------------------------- among others


@dataclass(frozen=True, slots=True)
class Round:
    """What a beat found. `heads` go with their lanes' epochs. `idle`: what is ours and
    nobody works on; `absent`: lanes worked on that have no row. Only what is so at two
    beats running is acted on, because what this process knows lags behind."""

    lost: tuple[str, ...]
    heads: tuple[tuple[Turn, int], ...]
    stops: tuple[tuple[str, TurnState], ...]
    idle: frozenset[tuple[str, int]]
    absent: frozenset[str]


def beat(connection: Connection, me: Holder, lease: Lease, seen: Seen) -> Round | None:
    """None: by the database's clock we are late, and somebody may have taken over."""
    if not _alive(connection, me, lease):
        return None
    mine = {row["lane"]: row for row in connection.execute(_lanes_of, {"me": me.id}).mappings()}
    ours = frozenset(connection.execute(_turns_of, {"me": me.id}).scalars())
    gone, absent = _gone(connection, mine, seen)
    idle = _idle(mine, ours, seen)
    heads = [*_audit(connection, me, idle & seen.idle)]
    heads += _take_dead(connection, me, lease)
    heads += _take_orphans(connection, me, lease)
    heads += _take_outside(connection, me, lease)
    connection.execute(_bury, {"age": 10 * lease.seconds})
    return Round(
        lost=(*gone, *(seen.outside - ours)),
        heads=tuple(sorted(heads, key=lambda found: found[0].no)),
        stops=tuple(_stops(connection, mine)),
        idle=idle,
        absent=absent,
    )


def join(connection: Connection, me: Holder, lease: Lease, before: str = "") -> None:
    """A new replica; `before` was its earlier self, whose things are free to take now."""
    connection.execute(_leave, {"who": before})
    birth = {"id": me.id, "version": lease.version}
    connection.execute(insert(replica).values(beat=now(), started_at=now()), birth)


def release(connection: Connection, me: Holder) -> None:
    """Leave at once: what is ours is free. A lane that was asked to stop keeps its row,
    and with it the wish, for the next owner."""
    connection.execute(_free_lanes, {"me": me.id})
    connection.execute(_leave, {"who": me.id})


_leave = delete_from(replica).where(replica.c.id == bindparam("who"))
_free_lanes = delete_from(lane).where(lane.c.owner == bindparam("me"), lane.c.stop_to.is_(None))
_bury = delete_from(replica).where(replica.c.beat < now() - bindparam("age"))
_live = select(replica.c.id).where(replica.c.beat > now() - bindparam("lease"))
_beat = (
    update(replica)
    .where(replica.c.id == bindparam("who"), replica.c.beat > now() - bindparam("lease"))
    .values(beat=now())
)


def _alive(connection: Connection, me: Holder, lease: Lease) -> bool:
    proof = {"who": me.id, "lease": lease.seconds}
    return connection.execute(_beat, proof).rowcount == 1


# ---------------------------------------------------------------- what we lost

_lanes_of = select(lane).where(lane.c.owner == bindparam("me"))
_turns_of = select(turn.c.id).where(turn.c.owner == bindparam("me"))
_lane_row = select(lane.c.lane).where(lane.c.lane == bindparam("key"))


def _gone(
    connection: Connection, mine: dict[str, RowMapping], seen: Seen
) -> tuple[list[str], frozenset[str]]:
    """Lanes that others hold, and lanes that nobody does."""
    gone, absent = [], set()
    for key, epoch in seen.held.items():
        if key in mine and mine[key]["epoch"] == epoch:
            continue
        if connection.execute(_lane_row, {"key": key}).first() is not None:
            gone.append(key)
        elif key in seen.lanes:
            absent.add(key)
    return [*gone, *(absent & seen.absent)], frozenset(absent)


# ---------------------------------------------------------------- what we forgot

OUTSIDE = -1
"""Stands for the epoch of a turn outside lanes."""


def _idle(
    mine: dict[str, RowMapping], ours: frozenset[str], seen: Seen
) -> frozenset[tuple[str, int]]:
    """What is ours in the database while no task works on it."""
    lanes = {(key, int(row["epoch"])) for key, row in mine.items() if key not in seen.lanes}
    turns = frozenset() if seen.turns is None else ours - seen.turns
    return frozenset(lanes | {(id_, OUTSIDE) for id_ in turns})


def _audit(
    connection: Connection, me: Holder, idle: Collection[tuple[str, int]]
) -> Iterator[tuple[Turn, int]]:
    for key, epoch in sorted(idle):
        if epoch == OUTSIDE:
            row = row_of(connection, key)
            found = None if row is None else (whole(connection, row), 0)
        else:
            found = _settle(connection, me, key, me.id, epoch, epoch)
        if found is not None:
            yield found


def _settle(
    connection: Connection, me: Holder, key: str, owner: str, old: int, epoch: int
) -> tuple[Turn, int] | None:
    """Make the lane ours with its oldest unended turn as head; free it when there is
    none."""
    which = {"key": key, "whose": owner, "old": old}
    row = first_in(connection, key)
    if row is None:
        connection.execute(_free, which)
        return None
    put = {**which, "me": me.id, "new": epoch, "first": row["id"]}
    if connection.execute(_seize, put).rowcount != 1:
        return None
    return whole(connection, row), epoch


_that = (
    lane.c.lane == bindparam("key"),
    lane.c.owner == bindparam("whose"),
    lane.c.epoch == bindparam("old"),
)
_free = delete_from(lane).where(*_that)
_seize = (
    update(lane)
    .where(*_that)
    .values(owner=bindparam("me"), epoch=bindparam("new"), head=bindparam("first"))
)

# ---------------------------------------------------------------- what nobody holds

_dead_lanes = (
    select(lane)
    .where(lane.c.owner.not_in(_live))
    .order_by(lane.c.lane)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_orphans = (
    select(turn.c.queue)
    .where(
        turn.c.queue.is_not(None),
        ~select(lane.c.lane).where(lane.c.lane == turn.c.queue).exists(),
    )
    .group_by(turn.c.queue)
    .limit(bindparam("most"))
)
_dead_turns = (
    select(turn)
    .where(turn.c.owner.is_not(None), turn.c.owner.not_in(_live))
    .order_by(turn.c.owner)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_adopt = change(turn.c.owner == bindparam("whose")).values(owner=bindparam("me"))


def _take_dead(connection: Connection, me: Holder, lease: Lease) -> Iterator[tuple[Turn, int]]:
    which = {"lease": lease.seconds, "most": lease.most}
    for row in connection.execute(_dead_lanes, which).mappings().all():
        epoch = row["epoch"] + 1
        found = _settle(connection, me, row["lane"], row["owner"], row["epoch"], epoch)
        if found is not None:
            yield _stopped(connection, row, found[0]), epoch


def _stopped(connection: Connection, row: RowMapping, head: Turn) -> Turn:
    """The head, with its ending when the dead owner had been asked to stop it."""
    if row["stop_to"] is None or head.no > row["stop_to"] or head.ending is not None:
        return head
    ending = Ending(row["stop_as"], head.checkpoint, head.thoughts)
    connection.execute(change().values(codec.ending_to_row(ending)), {"turn_id": head.id})
    decided = row_of(connection, head.id)
    assert decided is not None
    return whole(connection, decided)


def _take_orphans(connection: Connection, me: Holder, lease: Lease) -> Iterator[tuple[Turn, int]]:
    """Queues without a lane row. The claim comes first: only then is their head sure."""
    for key in connection.execute(_orphans, {"most": lease.most}).scalars().all():
        if add(connection, lane, {"lane": key, "owner": me.id, "head": ""}):
            found = _settle(connection, me, key, me.id, 0, 0)
            if found is not None:
                yield found


def _take_outside(connection: Connection, me: Holder, lease: Lease) -> Iterator[tuple[Turn, int]]:
    which = {"lease": lease.seconds, "most": lease.most}
    for row in connection.execute(_dead_turns, which).mappings().all():
        adopted = {"turn_id": row["id"], "whose": row["owner"], "me": me.id}
        if connection.execute(_adopt, adopted).rowcount == 1:
            yield whole(connection, row), 0


# ---------------------------------------------------------------- who asked us to stop


def _stops(connection: Connection, mine: dict[str, RowMapping]) -> Iterator[tuple[str, TurnState]]:
    for row in mine.values():
        head = row_of(connection, row["head"]) if row["stop_to"] is not None else None
        if head is not None and head["no"] <= row["stop_to"] and head["ended_at"] is None:
            yield head["id"], row["stop_as"]
