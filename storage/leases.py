"""Who may work on what, when several processes share one database.

Each process ("replica") owns lanes and turns outside lanes. It proves that it lives by
beats, timed by the database's own clock; what belongs to one whose beat is older than the
lease is taken over (storage.beats). Two fences keep the old owner from doing harm when it
wakes late: towards people `Fence`, which closes before the lease ends, and towards the
database `guard`, which looks at owner and epoch in the same transaction as the write
(reference/engine.md 4).

Without a lease (SQLite in production: its lock file is the lease) nothing here costs a
statement.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, bindparam, select

from bot.contract import Accepted, Clock, Turn, TurnState
from bot.errors import StoreError
from storage.schema import lane, turn


@dataclass(frozen=True, slots=True)
class Lease:
    """Seconds, all of them. `seconds`: how long a replica lives on after its last beat.
    `beat`: between two beats. `margin`: how long before its lease ends it falls silent,
    longer than any call to the outside. `most`: lanes taken over in one beat, so that
    the load spreads. `version`: the program's, for whoever looks at the replicas."""

    seconds: float = 10.0
    beat: float = 2.5
    margin: float = 2.0
    most: int = 100
    version: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a process believes when it sends a beat. `lanes` and `turns`: what its tasks
    work on; turns None: not told. `held`: epochs by lane. `outside`: turns outside lanes.
    `idle` and `absent`: of the last beat (storage.beats.Round)."""

    lanes: frozenset[str]
    turns: frozenset[str] | None
    held: Mapping[str, int]
    outside: frozenset[str]
    idle: frozenset[tuple[str, int]]
    absent: frozenset[str]


@dataclass(eq=False, slots=True)
class Holder:
    """A process in the rows of what it owns. Never reused: a process that was late is a
    new one. `lanes`: the epoch of each lane it works on; `turns`: those outside lanes;
    both are kept only with a lease. `joined`: its replica row is written."""

    leased: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    lanes: dict[str, int] = field(default_factory=dict)
    turns: set[str] = field(default_factory=set)
    joined: bool = False

    def take(self, head: Turn, epoch: int = 0) -> None:
        if in_lane(head):
            self.lanes[head.new.lane] = epoch
        else:
            self.turns.add(head.id)

    def take_all(self, accepted: Accepted) -> None:
        """What a fresh event made ours: an idle lane, a turn outside lanes."""
        if accepted.head is not None:
            self.take(accepted.head)
        if accepted.turn is not None and not in_lane(accepted.turn):
            self.take(accepted.turn)

    def drop(self, lost: Collection[str]) -> None:
        for key in lost:
            self.lanes.pop(key, None)
            self.turns.discard(key)

    def has(self, of: Turn) -> bool:
        return of.new.lane in self.lanes if in_lane(of) else of.id in self.turns

    def seen(
        self,
        lanes: frozenset[str],
        turns: frozenset[str] | None,
        idle: frozenset[tuple[str, int]],
        absent: frozenset[str],
    ) -> Seen:
        return Seen(lanes, turns, dict(self.lanes), frozenset(self.turns), idle, absent)


def in_lane(of: Turn) -> bool:
    """Whether the turn waits or runs in its lane, when it is handed out."""
    return of.new.kind == "chat" and of.state != "refused"


# ---------------------------------------------------------------- towards people


class Stamp(NamedTuple):
    """One moment on both clocks of this machine."""

    steady: float
    wall: float


class Fence:
    """Whether this process may still speak: only while nobody else can have taken over.
    It counts from the moment at which the last successful beat was sent."""

    def __init__(self, lease: Lease, clock: Clock) -> None:
        self._lease = lease
        self._clock = clock
        self._sent: Stamp | None = None

    def stamp(self) -> Stamp:
        return Stamp(self._clock.monotonic(), self._clock.time())

    def beaten(self, sent: Stamp) -> None:
        self._sent = sent

    def close(self) -> None:
        self._sent = None

    def open(self) -> bool:
        """The wall clock is asked too, because the other may stand still while the
        machine sleeps; when it was merely set, the next beat opens the fence again."""
        if self._sent is None:
            return False
        left = self._lease.seconds - self._lease.margin
        now = self.stamp()
        return now.steady - self._sent.steady < left and now.wall - self._sent.wall < left

    def late(self, now: Stamp) -> bool:
        """Whether the lease has run out since the last beat."""
        return self._sent is not None and now.steady - self._sent.steady >= self._lease.seconds


# ---------------------------------------------------------------- towards the database

_lane_of = select(turn.c.lane).where(turn.c.id == bindparam("id"))
_lock_lane = (
    select(lane.c.owner, lane.c.epoch, lane.c.head)
    .where(lane.c.lane == bindparam("key"))
    .with_for_update()
)
_place = select(turn.c.queue, turn.c.owner, turn.c.ended_at, turn.c.delivery).where(
    turn.c.id == bindparam("id")
)


def lock_lane(connection: Connection, key: str) -> RowMapping | None:
    """The lane's row, held until the commit where rows can be locked. Whoever changes
    what waits in a lane locks it first, so numbers are given in the order of commits and
    no lane is freed while something arrives in it."""
    return connection.execute(_lock_lane, {"key": key}).mappings().first()


def lock_lane_of(connection: Connection, turn_id: str) -> None:
    key = connection.execute(_lane_of, {"id": turn_id}).scalar()
    if key is not None:
        lock_lane(connection, key)


class NotOurs(StoreError):
    """The turn is another's now, nothing was written. `key`: its lane, or its own id when
    it stands outside lanes. Only the store sees this."""

    def __init__(self, key: str) -> None:
        super().__init__("taken over by another replica")
        self.key = key


def guard(connection: Connection, me: Holder, turn_id: str) -> None:
    """Raises NotOurs unless this process may write to the turn now: its lane has the owner
    and the epoch that were handed out. Of an ended turn only one whose reply is not
    delivered is open, to whoever tries it again."""
    if not me.leased:
        return
    lock_lane_of(connection, turn_id)
    row = connection.execute(_place, {"id": turn_id}).mappings().first()
    if row is None:
        return
    if row["queue"] is not None:
        if not holds_lane(connection, me, row["queue"]):
            raise NotOurs(row["queue"])
    elif row["delivery"] == "delivered" if row["ended_at"] is not None else row["owner"] != me.id:
        raise NotOurs(turn_id)


def holds_lane(connection: Connection, me: Holder, key: str) -> bool:
    row = lock_lane(connection, key)
    return row is not None and (row["owner"], row["epoch"]) == (me.id, me.lanes.get(key))


# ---------------------------------------------------------------- what a beat says


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat found, to be acted on in this order. `lost`: lanes and ids of turns
    outside lanes that are no longer ours; their tasks are dropped without a word.
    `heads`: turns to run now, as after a restart. `stops`: running turns that somebody
    ended through another process, and the state they end in."""

    lost: tuple[str, ...] = ()
    heads: tuple[Turn, ...] = ()
    stops: tuple[tuple[str, TurnState], ...] = ()
