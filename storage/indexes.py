"""The indexes, which the queries of storage never name and no running bot loads: their
conditions are PostgreSQL's too, and to load what SQLAlchemy knows of it takes a thirtieth
of a start.
"""

from __future__ import annotations

from sqlalchemy import Index, text

from storage.schema import BILLED, ENDED_CHAT, REPEATED, UNPROVEN, gap, inbox, turn

_in_lane = text("queue IS NOT NULL")
_outside = text("owner IS NOT NULL")
_in_history = text("done IS NOT NULL")
_again = text("retry_at IS NOT NULL")
_of_turn = text("turn_id IS NOT NULL")
_sums = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost")

_whole = (
    Index("inbox_seen", inbox.c.seen_at),
    Index("gap_until", gap.c.until),
    Index("turn_id", turn.c.id, unique=True),
    Index("turn_message", turn.c.bot, turn.c.message_id, turn.c.no),
    Index("turn_asked", turn.c.bot, turn.c.asked_at),
)
_partial = tuple(
    Index(name, *(of.c[column] for column in columns), sqlite_where=where, postgresql_where=where)
    for name, of, columns, where in (
        ("turn_queue", turn, ("queue", "no"), _in_lane),
        ("turn_outside", turn, ("owner",), _outside),
        ("turn_history", turn, ("conversation", "generation", "done"), _in_history),
        ("turn_root", turn, ("root",), _in_history),
        ("turn_part", turn, ("conversation", "generation", "no"), ENDED_CHAT),
        ("turn_person", turn, ("conversation", "generation", "sender", "no"), ENDED_CHAT),
        ("turn_due", turn, ("retry_at",), _again),
        ("turn_unproven", turn, ("no", "delivery"), UNPROVEN),
        ("usage_time", turn, ("ended_at", *_sums), BILLED),
        ("usage_person", turn, ("sender", "ended_at", *_sums), BILLED),
        ("usage_place", turn, ("conversation", "ended_at", *_sums), BILLED),
        ("inbox_turn", inbox, ("turn_id",), _of_turn),
        ("inbox_repeated", inbox, ("repeats",), REPEATED),
    )
)
ALL = (*_whole, *_partial)
