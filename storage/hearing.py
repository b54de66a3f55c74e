"""What may have been missed: when each bot last heard, where it is known, the gaps."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy import delete as delete_from

from bot.contract import Gap, Json
from storage import codec
from storage.dialect import put
from storage.schema import gap, heard, turn

_heard = select(heard.c.at).where(heard.c.bot == bindparam("which"))


def last_heard(connection: Connection, bot: str) -> float:
    return connection.execute(_heard, {"which": bot}).scalar() or 0.0


def hear(connection: Connection, bot: str, at: float) -> None:
    put(connection, heard, {"bot": bot, "at": at})


_newest = (
    select(func.max(turn.c.no))
    .where(turn.c.bot == bindparam("which"), turn.c.asked_at > bindparam("since"))
    .group_by(turn.c.chat, turn.c.topic)
)
_addresses = select(turn.c.chat, turn.c.address).where(turn.c.no.in_(_newest)).order_by(turn.c.no)


def addresses(connection: Connection, bot: str, since: float) -> tuple[tuple[str, Json], ...]:
    rows = connection.execute(_addresses, {"which": bot, "since": since})
    return tuple((chat, codec.load(address)) for chat, address in rows)


_same = select(gap.c.until).where(
    gap.c.bot == bindparam("whose"),
    gap.c.chat == bindparam("where"),
    gap.c.since == bindparam("at"),
)
_gaps = select(gap).order_by(gap.c.until.desc()).limit(bindparam("most"))


def miss(connection: Connection, missed: Gap) -> None:
    """A gap that began at the same moment is the same one, grown since."""
    which = {"whose": missed.bot, "where": missed.chat, "at": missed.since}
    until = max(missed.until, connection.execute(_same, which).scalar() or missed.until)
    row = {"bot": missed.bot, "chat": missed.chat, "since": missed.since}
    put(connection, gap, {**row, "until": until, "why": missed.why})


def gaps(connection: Connection, limit: int) -> tuple[Gap, ...]:
    rows = connection.execute(_gaps, {"most": limit}).mappings().all()
    return tuple(Gap(**row) for row in rows)


_forget = delete_from(gap).where(gap.c.until < bindparam("before"))


def forget_gaps(connection: Connection, before: float) -> None:
    connection.execute(_forget, {"before": before})
