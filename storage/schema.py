"""The tables as the queries see them. The migrations make them and their indexes
(storage.indexes); a test compares both.

Small columns stand before large ones: SQLite reads a row from the left, and what is far
to the right costs nothing unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Column, Float, ForeignKey, Integer, MetaData, String, Table, text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from storage.codec import sound


class Words(TypeDecorator[str]):
    """Text that any database takes: see storage.codec.sound."""

    impl = String
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:
        return _sound


def _sound(value: str | None) -> str | None:
    return None if value is None else sound(value)


def _words(name: str, default: str | None = "") -> Column[str]:
    return Column(name, Words, nullable=False, server_default=default)


def _number(name: str, default: str | None = "0") -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=default)


def _moment(name: str) -> Column[float]:
    return Column(name, Float, nullable=False, server_default="0")


metadata = MetaData()

inbox = Table(
    "inbox",
    metadata,
    Column("event_key", Words, primary_key=True, nullable=False),
    Column("turn_id", Words),
    _words("reason"),
    Column("seen_at", Float, nullable=False),
    _number("repeats"),
    _moment("repeated_at"),
    sqlite_with_rowid=False,
)
"""Every event ever claimed, until it is pruned: the memory against doubles. `repeats`:
how often it came again, the last time at `repeated_at`."""

lane = Table(
    "lane",
    metadata,
    Column("lane", Words, primary_key=True, nullable=False),
    _words("owner", None),
    _words("head", None),
    _number("epoch"),
    Column("stop_to", Integer),
    _words("stop_as"),
    sqlite_with_rowid=False,
)
"""One row per busy lane: the process that works on it, and the turn that it works on.
`epoch`: how often it was taken over since it was last idle. `stop_to`: turns up to this
number that run here are to end as `stop_as`; another process asked for it."""

conversation = Table(
    "conversation",
    metadata,
    Column("conversation", Words, primary_key=True, nullable=False),
    _number("generation"),
    _words("choices", "{}"),
    sqlite_with_rowid=False,
)

turn = Table(
    "turn",
    metadata,
    Column("no", Integer, primary_key=True, nullable=False),
    _words("id", None),
    _words("kind", None),
    _words("bot", None),
    _words("platform", None),
    _words("chat", None),
    _words("chat_kind", None),
    _words("topic"),
    _words("conversation", None),
    _words("lane", None),
    _words("sender", None),
    _words("message_id"),
    _words("lang"),
    Column("asked_at", Float, nullable=False),
    _words("notice"),
    _words("replaces"),
    _words("root", None),
    _words("state", "queued"),
    _number("attempt"),
    _number("generation"),
    Column("queue", Words),
    Column("owner", Words),
    Column("done", Integer),
    Column("ended_at", Float),
    Column("outcome", Words),
    _words("finish"),
    _words("model"),
    _number("prompt_tokens"),
    _number("completion_tokens"),
    _number("cached_tokens"),
    _number("reasoning_tokens"),
    Column("cost", Float, nullable=False, server_default="0"),
    _words("error"),
    _words("delivery", "open"),
    _words("proof"),
    _words("note"),
    _words("footer"),
    _words("person", None),
    _words("notice_args", "{}"),
    _words("address", "{}"),
    _words("parts", "[]"),
    _words("answer"),
    _words("reasoning"),
    _moment("seen_at"),
    Column("joined_at", Float),
    Column("retry_at", Float),
    _number("deaths"),
    _words("trail", "[]"),
)
"""One question and its answer.

`queue`: its lane while it waits or runs in it, else NULL. `owner`: the process that
answers it while it is unfinished outside lanes (command, notice, refused), else NULL.
`done`: its place in the history of its part of the conversation; NULL keeps it out.
`root`: the first of the turns that Regenerate made of one question; its own id for a
new question. `outcome`: the ending's state once decided. `answer` and `reasoning` hold
the checkpoint until then. `joined_at`: when the last further message joined it.
`retry_at`: when its undelivered reply is tried next; NULL is not by itself. `trail`: JSON
of [at, what, detail] each.
"""

reply = Table(
    "reply",
    metadata,
    Column("turn_id", Words, ForeignKey("turn.id"), primary_key=True, nullable=False),
    Column("part", Integer, primary_key=True, nullable=False),
    _words("key", None),
    _words("rung"),
    _words("card_id"),
    _words("message_id"),
    _number("sequence"),
    _words("extra", "{}"),
    sqlite_with_rowid=False,
)
"""The reply journal: where each part of a reply stands."""

replica = Table(
    "replica",
    metadata,
    Column("id", Words, primary_key=True, nullable=False),
    Column("beat", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    _words("version"),
    sqlite_with_rowid=False,
)
"""Who lives, where several processes share the database: `beat` is by its own clock. An
owner without a row here is dead."""

heard = Table(
    "heard",
    metadata,
    Column("bot", Words, primary_key=True, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)
"""When each bot was last known to hear."""

gap = Table(
    "gap",
    metadata,
    Column("bot", Words, primary_key=True, nullable=False),
    Column("chat", Words, primary_key=True, nullable=False),
    Column("since", Float, primary_key=True, nullable=False),
    Column("until", Float, nullable=False),
    _words("why"),
    sqlite_with_rowid=False,
)
"""What nobody heard and nobody could fetch."""

tally = Table(
    "tally",
    metadata,
    Column("name", Words, primary_key=True, nullable=False),
    _number("count"),
    sqlite_with_rowid=False,
)
"""Sums of what was pruned: `redelivered` is the repeats of forgotten events."""

calls = Table(
    "calls",
    metadata,
    Column("month", Words, primary_key=True, nullable=False),
    Column("bot", Words, primary_key=True, nullable=False),
    Column("kind", Words, primary_key=True, nullable=False),
    Column("api", Words, primary_key=True, nullable=False),
    _number("count"),
    sqlite_with_rowid=False,
)
"""How often a bot called an API in a month (YYYY-MM, Beijing time); a few rows a month,
kept for good."""

ENDED_CHAT = text("kind = 'chat' AND ended_at IS NOT NULL")
"""Turns that /retry can name. Literal, because a partial index serves only a query that
repeats its condition word for word."""

BILLED = text("kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL")
"""Turns that count in the usage: those that asked the model, and have ended."""

UNPROVEN = text("delivery IN ('undelivered', 'unconfirmed') AND ended_at IS NOT NULL")
"""Turns on the operator's list."""

REPEATED = text("repeats > 0")
"""Events that came again."""
