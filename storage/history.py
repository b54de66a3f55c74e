"""Conversations: their part, their choices, their history and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, overload

from sqlalchemy import Connection, Select, bindparam, func, select, update

from bot.contract import Conversation, Exchange, Turn, Usage, UsageTotal
from storage import codec
from storage.accounts import turn_of_event
from storage.dialect import put
from storage.prepared import Prepared
from storage.recent import Kept, Place, recent_of, size_of
from storage.schema import BILLED, ENDED_CHAT, conversation, turn

# ---------------------------------------------------------------- what is set

_conversation = Prepared(
    select(conversation).where(conversation.c.conversation == bindparam("key"))
)


def read_conversation(connection: Connection, key: str) -> Conversation:
    row = _conversation.first(connection, {"key": key})
    return Conversation(key) if row is None else conversation_of(**row)


def conversation_of(conversation: str, generation: int | None, choices: str | None) -> Conversation:
    """From columns; without them (None) nothing is remembered."""
    if generation is None or choices is None:
        return Conversation(conversation)
    return Conversation(conversation, generation, codec.load(choices))


def generation_of(connection: Connection, key: str) -> int:
    return read_conversation(connection, key).generation


def _put(connection: Connection, known: Conversation) -> None:
    values = {"generation": known.generation, "choices": codec.dump(known.choices)}
    put(connection, conversation, {"conversation": known.key, **values})


def cut(connection: Connection, key: str) -> int:
    known = read_conversation(connection, key)
    part = {"of": key, "part": known.generation}
    count = int(connection.execute(_length, part).scalar_one())
    _put(connection, Conversation(key, known.generation + 1, known.choices))
    return count


def choose(connection: Connection, key: str, name: str, value: str) -> None:
    known = read_conversation(connection, key)
    choices = {other: kept for other, kept in known.choices.items() if other != name}
    if value:
        choices[name] = value
    _put(connection, Conversation(key, known.generation, choices))


# ---------------------------------------------------------------- history

_part = (
    turn.c.conversation == bindparam("of"),
    turn.c.generation == bindparam("part"),
    turn.c.done.is_not(None),
)
_length = select(func.count()).select_from(turn).where(*_part)
_last_place = Prepared(select(func.max(turn.c.done)).where(*_part))
_places = Prepared(
    select(turn.c.no, turn.c.done)
    .where(*_part)
    .order_by(turn.c.done.desc())
    .limit(bindparam("most"))
)
_again = Prepared(select(turn.c.no).where(turn.c.root == bindparam("but"), *_part))
_said = Prepared(
    select(
        *(turn.c.id, turn.c.person, turn.c.parts, turn.c.answer, turn.c.reasoning),
        turn.c.asked_at,
    )
    .where(*_part, turn.c.done >= bindparam("since"), turn.c.root != bindparam("but"))
    .order_by(turn.c.done)
)


def exchanges(connection: Connection, of: Turn, root: str, most: int) -> Sequence[Exchange]:
    """The newest of the turn's part, at most `most`, oldest first, without the question
    that it asks again. Their order is that in which they ended, so a history only ever
    grows at its end; its beginning moves on in steps of a quarter of `most`, so that the
    model service's cache of it stays good in between (design.md 7)."""
    part = {"of": of.new.conversation, "part": of.generation, "but": root}
    places = _window(_places.rows(connection, {**part, "most": max(0, most)}), most)
    if of.new.replaces:
        again = {no for (no,) in _again.rows(connection, part)}
        places = [place for place in places if place[0] not in again]
    if not places:
        return ()
    recent, key = recent_of(connection), (of.new.conversation, of.generation)
    known = recent.known(key, places)
    if len(known.places) == len(places):
        return known.exchanges
    since = places[len(known.places)][1]
    rows = _said.rows(connection, {**part, "since": since})
    return Past(known, places, rows, partial(recent.keep, key))


def _window(newest: list[Any], most: int) -> list[Place]:
    """Of the newest places, newest first, those behind the border; oldest first."""
    last = newest[0][1] if newest else 0
    step = max(1, most // 4)
    after = -(-max(0, last - max(0, most)) // step) * step
    return [place for place in reversed(newest) if place[1] > after]


class Past(Sequence[Exchange]):
    """What is known of a history, and the rows of the rest, read by whoever asks for them
    first: not while a transaction waits for them. `keep` gets all of it then."""

    def __init__(
        self,
        known: Kept,
        places: Sequence[Place],
        rows: list[tuple[Any, ...]],
        keep: Callable[[Kept], None],
    ) -> None:
        self._known, self._places, self._rows, self._keep = known, places, rows, keep

    @cached_property
    def _read(self) -> tuple[Exchange, ...]:
        exchanges = (*self._known.exchanges, *codec.exchanges_of(self._rows))
        sizes = (*self._known.sizes, *map(size_of, self._rows))
        self._keep(Kept(self._places, exchanges, sizes))
        return exchanges

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Exchange: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Exchange, ...]: ...

    def __getitem__(self, index: int | slice) -> Exchange | tuple[Exchange, ...]:
        return self._read[index]

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._read)


_family = (turn.c.root == bindparam("first"), *_part)
_family_place = select(func.max(turn.c.done)).where(*_family)
_leave = update(turn).where(*_family).values(done=None)


def enter(connection: Connection, row: codec.Row, generation: int) -> int:
    """The place of the ended turn in the history of this part: at the end, or that of the
    answer that it replaces, which leaves."""
    part = {"of": row["conversation"], "part": generation}
    place = None
    if row["replaces"]:
        family = {**part, "first": row["root"]}
        place = connection.execute(_family_place, family).scalar()
        connection.execute(_leave, family)
    return place or 1 + (_last_place.scalar(connection, part) or 0)


# ---------------------------------------------------------------- looking back


def newest_ended(connection: Connection, key: str, sender: str) -> str | None:
    """The id of the newest ended chat turn of the present part."""
    query = (
        select(turn.c.id)
        .where(
            turn.c.conversation == key,
            turn.c.generation == generation_of(connection, key),
            ENDED_CHAT,
        )
        .order_by(turn.c.no.desc())
        .limit(1)
    )
    return connection.execute(query.where(turn.c.sender == sender) if sender else query).scalar()


def unfinished(connection: Connection, lane: str, sender: str) -> str | None:
    """The id of the sender's turn that runs in the lane, else of the newest that waits."""
    query = (
        select(turn.c.id, turn.c.state)
        .where(turn.c.queue == lane, turn.c.sender == sender)
        .order_by(turn.c.no.desc())
    )
    found = connection.execute(query).all()
    running = (row.id for row in found if row.state == "running")
    return next(running, found[0].id if found else None)


def asked_by(connection: Connection, bot: str, message_id: str) -> str | None:
    """The id of the newest turn of this message, or of the turn that it joined."""
    if not message_id:
        return None
    query = select(turn.c.id).where(turn.c.bot == bot, turn.c.message_id == message_id)
    found = connection.execute(query.order_by(turn.c.no.desc()).limit(1)).scalar()
    return found or turn_of_event(connection, f"{bot}:{message_id}")


def usage_query(since: float, conversation_key: str, sender: str) -> Select[Any]:
    sums = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost")
    query = select(
        func.count().label("turns"),
        *(func.coalesce(func.sum(turn.c[name]), 0).label(name) for name in sums),
    ).where(BILLED, turn.c.ended_at >= since)
    if conversation_key:
        query = query.where(turn.c.conversation == conversation_key)
    return query.where(turn.c.sender == sender) if sender else query


def usage(connection: Connection, since: float, key: str, sender: str) -> UsageTotal:
    row = connection.execute(usage_query(since, key, sender)).mappings().one()
    used: Usage = codec.usage_from_row(row)
    return UsageTotal(row["turns"], used, float(row["cost"]))
