"""What each bot asked of its platform, by month and API."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, bindparam, select

from bot.contract import CallCount
from storage.dialect import increase
from storage.schema import calls

_month = select(calls).where(calls.c.month == bindparam("which"))


def count_calls(
    connection: Connection, more: tuple[CallCount, ...], month: str
) -> tuple[CallCount, ...]:
    """Rows are changed in one order, so that two processes never wait for each other."""
    for call in sorted(more, key=lambda c: (c.month, c.bot, c.kind, c.api)):
        increase(connection, calls, asdict(call), "count")
    rows = connection.execute(_month, {"which": month}).mappings().all()
    return tuple(CallCount(**row) for row in rows)
