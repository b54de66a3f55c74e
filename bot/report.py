"""What the operator is told: stored values as the JSON whose shapes bot.contract.Operator
gives (pure). bot.report_text puts it into words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from bot.contract import Account, Backlog, CallCount, Gap, Handle, Json, Moment, Turn, words_of
from bot.month import forecast

BRIEF = 200
"""Characters of a question or an answer in a list."""


def account_json(account: Account, live: Iterable[Moment] = ()) -> Json:
    """One of Operator.why's accounts. `live` is the trail of a turn that this
    process works on; of a moment that is stored as well, the live one stands."""
    return {
        "key": account.key,
        "seen_at": account.seen_at,
        "repeats": account.repeats,
        "repeated_at": account.repeated_at,
        "reason": account.reason,
        "turn": None if account.turn is None else _turn_json(account, account.turn, live),
    }


def _turn_json(account: Account, turn: Turn, live: Iterable[Moment]) -> Json:
    new, ending = turn.new, turn.ending
    return {
        "id": turn.id,
        "kind": new.kind,
        "state": turn.state,
        "attempt": turn.attempt,
        "bot": new.bot,
        "chat": new.chat,
        "sender": new.sender.id,
        "sender_name": new.sender.name,
        "notice": new.notice,
        "delivery": ending.delivery if ending else "open",
        "proof": ending.proof if ending else "",
        "error": ending.error if ending else "",
        "replies": [_reply_json(part, handle) for part, handle in enumerate(turn.handles)],
        "moments": [asdict(moment) for moment in _moments(account, turn, live)],
    }


def _reply_json(part: int, handle: Handle) -> Json:
    return {
        "part": part,
        "rung": handle.rung,
        "card_id": handle.card_id,
        "message_id": handle.message_id,
        "sequence": handle.sequence,
    }


def _moments(account: Account, turn: Turn, live: Iterable[Moment]) -> list[Moment]:
    """Oldest first. What the event's own row knows is there even when the trail is not."""
    stored = turn.ending.trail if turn.ending else ()
    known = list({(moment.at, moment.what): moment for moment in (*stored, *live)}.values())
    seen = {moment.what for moment in known}
    if not seen & {"claimed", "joined"}:
        known.insert(0, Moment(account.seen_at, "claimed"))
    if account.repeats and "repeated" not in seen:
        known.append(Moment(account.repeated_at, "repeated"))
    return sorted(known, key=lambda moment: moment.at)


def turn_brief(turn: Turn) -> Json:
    """One line of a list of turns. `state` is the turn's, `delivery` its reply's."""
    new, ending = turn.new, turn.ending
    return {
        "turn": turn.id,
        "bot": new.bot,
        "chat": new.chat,
        "sender": new.sender.id,
        "sender_name": new.sender.name,
        "at": turn.seen_at or new.asked_at,
        "state": turn.state,
        "delivery": ending.delivery if ending else "open",
        "error": ending.error if ending else "",
        "question": one_line(words_of(new.parts), BRIEF),
        "answer": one_line((ending.text or ending.note) if ending else "", BRIEF),
    }


def calls_json(counts: Iterable[CallCount], now: float) -> list[Json]:
    """The calls of Operator.status() for one who does not know the caps (null), nor who
    saves."""
    totals = Counter[tuple[str, str, str]]()
    apis: dict[tuple[str, str, str], dict[str, int]] = {}
    for call in counts:
        key = call.bot, call.month, call.kind
        totals[key] += call.count
        apis.setdefault(key, {})[call.api] = call.count
    return [
        {
            "bot": bot,
            "month": month,
            "kind": kind,
            "used": used,
            "cap": None,
            "forecast": forecast(used, now),
            "level": "",
            "refused": False,
            "saving": False,
            "apis": apis[bot, month, kind],
        }
        for (bot, month, kind), used in sorted(totals.items())
    ]


def gap_json(gap: Gap) -> Json:
    return asdict(gap)


def backlog_json(backlog: Backlog) -> Json:
    return asdict(backlog)


def one_line(text: str, most: int = 0) -> str:
    """`text` as one line that does nothing to a terminal, at most `most` characters."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    plain = " ".join(plain.split())
    return f"{plain[: most - 1]}…" if 0 < most < len(plain) else plain
