"""The tables as the queries see them. The migrations make them; a test compares both.

Small columns stand before large ones: SQLite reads a row from the left, and what is far
to the right costs nothing unless it is asked for.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from storage.codec import sound


class Words(TypeDecorator[str]):
    """Text that any database takes: see storage.codec.sound."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else sound(value)


def _words(name: str, default: str | None = "") -> Column[str]:
    return Column(name, Words, nullable=False, server_default=default)


def _number(name: str, default: str | None = "0") -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=default)


metadata = MetaData()

inbox = Table(
    "inbox",
    metadata,
    Column("event_key", Words, primary_key=True, nullable=False),
    Column("turn_id", Words),
    _words("reason"),
    Column("seen_at", Float, nullable=False),
    Index("inbox_seen", "seen_at"),
    sqlite_with_rowid=False,
)
"""Every event ever claimed, until it is pruned: the memory against doubles."""

lane = Table(
    "lane",
    metadata,
    Column("lane", Words, primary_key=True, nullable=False),
    _words("owner", None),
    _words("head", None),
    sqlite_with_rowid=False,
)
"""One row per busy lane: the process that works on it, and the turn that it works on."""

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
)
"""One question and its answer.

`queue`: its lane while it waits or runs in it, else NULL. `owner`: the process that
answers it while it is unfinished outside lanes (command, notice, refused), else NULL.
`done`: its place in the history of its part of the conversation; NULL keeps it out.
`root`: the first of the turns that Regenerate made of one question; its own id for a
new question. `outcome`: the ending's state once decided. `answer` and `reasoning` hold
the checkpoint until then.
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

ENDED_CHAT = text("kind = 'chat' AND ended_at IS NOT NULL")
"""Turns that /retry can name. Literal, because a partial index serves only a query that
repeats its condition word for word."""

BILLED = text("kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL")
"""Turns that count in the usage: those that asked the model, and have ended."""

_in_lane = text("queue IS NOT NULL")
_outside = text("owner IS NOT NULL")
_in_history = text("done IS NOT NULL")
_sums = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost")

Index("turn_id", turn.c.id, unique=True)
Index("turn_queue", turn.c.queue, turn.c.no, sqlite_where=_in_lane, postgresql_where=_in_lane)
Index("turn_outside", turn.c.owner, sqlite_where=_outside, postgresql_where=_outside)
Index("turn_message", turn.c.bot, turn.c.message_id, turn.c.no)
for _name, _columns, _where in (
    ("turn_history", ("conversation", "generation", "done"), _in_history),
    ("turn_root", ("root",), _in_history),
    ("turn_part", ("conversation", "generation", "no"), ENDED_CHAT),
    ("turn_person", ("conversation", "generation", "sender", "no"), ENDED_CHAT),
    ("usage_time", ("ended_at", *_sums), BILLED),
    ("usage_person", ("sender", "ended_at", *_sums), BILLED),
    ("usage_place", ("conversation", "ended_at", *_sums), BILLED),
):
    Index(_name, *(turn.c[name] for name in _columns), sqlite_where=_where, postgresql_where=_where)
