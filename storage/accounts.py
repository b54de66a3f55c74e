"""What became of every event (law 8), and how much is unfinished."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, Executable, RowMapping, bindparam, case, func, select
from sqlalchemy import delete as delete_from

from bot.contract import Account, Backlog, Turn
from storage.dialect import put
from storage.rows import read_turn
from storage.schema import REPEATED, UNPROVEN, inbox, tally, turn

SHORTEST = 8
"""Characters of a turn's id that people are shown, and may look it up by."""

MOST = 20
"""Turns that one search finds."""

# ---------------------------------------------------------------- one event

_of_bots = turn.c.bot.in_(bindparam("bots", expanding=True))
_that_asked = (
    select(turn.c.id)
    .where(_of_bots, turn.c.message_id == bindparam("asked"))
    .order_by(turn.c.no.desc())
    .limit(MOST)
)
_that_begin = (
    select(turn.c.id)
    .where(turn.c.id >= bindparam("start"), turn.c.id < bindparam("beyond"), _of_bots)
    .limit(MOST)
)
_by_key = select(inbox).where(inbox.c.event_key.in_(bindparam("names", expanding=True)))
_by_turn = select(inbox).where(inbox.c.turn_id.in_(bindparam("names", expanding=True)))


def accounts(connection: Connection, message_id: str, bots: tuple[str, ...]) -> tuple[Account, ...]:
    if not message_id or not bots:
        return ()
    found_by_name = _events(connection, message_id, bots)
    asking = set(_turns(connection, message_id, bots))
    rows = connection.execute(_by_turn, {"names": sorted(asking)}).mappings()
    events = list({row["event_key"]: row for row in (*found_by_name, *rows)}.values())
    ids = asking | {row["turn_id"] for row in events if row["turn_id"] is not None}
    turns = {id_: found for id_ in ids if (found := read_turn(connection, id_)) is not None}
    told = [*(_account(row, turns) for row in events), *_forgotten(events, turns)]
    return tuple(sorted(told, key=lambda account: (account.seen_at, account.key)))


def _events(connection: Connection, asked: str, bots: tuple[str, ...]) -> list[RowMapping]:
    """Those of this message or event id; a whole event key is understood too."""
    names = [f"{bot}:{asked}" for bot in bots]
    if asked.startswith(tuple(f"{bot}:" for bot in bots)):
        names.append(asked)
    return list(connection.execute(_by_key, {"names": names}).mappings())


def _turns(connection: Connection, asked: str, bots: tuple[str, ...]) -> Iterator[str]:
    yield from connection.execute(_that_asked, {"bots": bots, "asked": asked}).scalars()
    if len(asked) >= SHORTEST:
        beyond = asked + "\U0010ffff"
        span = {"bots": bots, "start": asked, "beyond": beyond}
        yield from connection.execute(_that_begin, span).scalars()


def _account(row: RowMapping, turns: dict[str, Turn]) -> Account:
    return Account(
        key=row["event_key"],
        seen_at=row["seen_at"],
        repeats=row["repeats"],
        repeated_at=row["repeated_at"],
        reason=row["reason"],
        turn=turns.get(row["turn_id"] or ""),
    )


def _forgotten(events: list[RowMapping], turns: dict[str, Turn]) -> Iterator[Account]:
    """Turns whose events were pruned."""
    known = {row["turn_id"] for row in events}
    for id_, found in turns.items():
        if id_ not in known:
            yield Account(f"{found.new.bot}:{found.new.message_id}", found.seen_at, turn=found)


_key = select(inbox.c.turn_id).where(inbox.c.event_key == bindparam("name"))


def turn_of_event(connection: Connection, key: str) -> str | None:
    """The id of the turn that this event became, or joined."""
    return connection.execute(_key, {"name": key}).scalar()


# ---------------------------------------------------------------- all that is unfinished

_runs = func.sum(case((turn.c.state == "running", 1), else_=0))
_per_lane = (
    select(
        func.count().label("many"),
        _runs.label("running"),
        func.min(turn.c.seen_at).label("oldest"),
    )
    .where(turn.c.queue.is_not(None))
    .group_by(turn.c.queue)
).subquery()
_in_lanes = select(
    func.count().label("lanes"),
    func.coalesce(func.sum(_per_lane.c.many), 0).label("turns"),
    func.coalesce(func.sum(_per_lane.c.running), 0).label("running"),
    func.coalesce(func.max(_per_lane.c.many), 0).label("deepest"),
    func.min(_per_lane.c.oldest).label("oldest"),
)
_outside = select(
    func.count().label("turns"),
    func.min(turn.c.seen_at).label("oldest"),
).where(turn.c.owner.is_not(None))
_undelivered = func.coalesce(func.sum(case((turn.c.delivery == "undelivered", 1), else_=0)), 0)
_unproven = select(func.count().label("all"), _undelivered.label("undelivered")).where(UNPROVEN)
_repeats = select(func.coalesce(func.sum(inbox.c.repeats), 0)).where(REPEATED)
_counted = select(tally.c.count).where(tally.c.name == "redelivered")


def backlog(connection: Connection) -> Backlog:
    lanes = _one(connection, _in_lanes)
    outside = _one(connection, _outside)
    unproven = _one(connection, _unproven)
    oldest = [at for at in (lanes["oldest"], outside["oldest"]) if at is not None]
    return Backlog(
        waiting=int(lanes["turns"] - lanes["running"]),
        running=int(lanes["running"] + outside["turns"]),
        undelivered=int(unproven["undelivered"]),
        unconfirmed=int(unproven["all"] - unproven["undelivered"]),
        lanes=lanes["lanes"],
        deepest=int(lanes["deepest"]),
        oldest=min(oldest, default=0.0),
        redelivered=int(connection.execute(_repeats).scalar_one()) + _tallied(connection),
    )


def _one(connection: Connection, query: Executable) -> RowMapping:
    return connection.execute(query).mappings().one()


def _tallied(connection: Connection) -> int:
    return connection.execute(_counted).scalar() or 0


# ---------------------------------------------------------------- forgetting

_old = (
    select(inbox.c.event_key)
    .where(inbox.c.seen_at < bindparam("before"))
    .order_by(inbox.c.seen_at)
    .limit(bindparam("most"))
)
_forget = delete_from(inbox).where(inbox.c.event_key.in_(_old)).returning(inbox.c.repeats)


def forget_events(connection: Connection, before: float, most: int) -> int:
    """At most `most` of the event keys older than `before`; returns how many. How often
    they came again stays counted."""
    repeats = connection.execute(_forget, {"before": before, "most": most}).scalars().all()
    if any(repeats):
        put(
            connection, tally, {"name": "redelivered", "count": _tallied(connection) + sum(repeats)}
        )
    return len(repeats)
