"""How a turn ended, in words: its state, the line under its answer, its small print and
the buttons of the closed card. Pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import cast

from bot.contract import (
    Button,
    Ending,
    Snapshot,
    SnapshotState,
    Turn,
    TurnState,
    UnreadablePart,
    Usage,
    words_of,
)
from bot.errors import QueqiaoError
from bot.markdown import clean
from bot.prompts import unreadable
from bot.texts import say

log = logging.getLogger(__name__)

AWAY = "card.away"
"""The notice of a question that nobody heard when it was asked."""

LATE = "notice.late"
"""The notice that offers to answer what came too late (design.md 5)."""


MONTH = "month"
"""The error of a turn that was not answered because the month's calls are used up, and the
head of the proof of one that another turn's sentence spoke for."""


CONTENT = "content"
"""The error of a turn whose text, or a part of it, the platform's filter refused: the person
has seen a sentence that says so, and no answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. `stopped`: why somebody ended it; `ran`: whether the model was
    asked at all."""

    text: str
    finish: str = ""
    stopped: TurnState | None = None
    ran: bool = True
    error: BaseException | None = None


def outcome(turn: Turn, result: Result) -> tuple[TurnState, str]:
    """The turn's state and the line under its answer, which owns up to an absence however
    the turn ends: it is told only once."""
    state, note = _outcome(turn, result)
    told = "" if state in ("answered", "recalled") else _was_away(turn)
    return state, " ".join(filter(None, (note, told)))


def _outcome(turn: Turn, result: Result) -> tuple[TurnState, str]:
    lang, ref = turn.new.lang, turn.id[:8]
    if result.stopped is not None:
        return result.stopped, say(f"card.{result.stopped}", lang)
    if not result.ran:
        return "failed", say("card.interrupted", lang, ref=ref)
    if result.error is not None:
        return "failed", _complaint(turn, result.error, cut=bool(result.text))
    if not clean(result.text).strip():
        return "failed", say("model.empty", lang, ref=ref)
    return "answered", _remark(turn, result.finish)


def wordless(turn: Turn) -> Ending | None:
    """The sentence for a question of nothing but what cannot be read; None when it has
    words."""
    if words_of(turn.new.parts):
        return None
    kinds = unreadable(turn.new.parts, turn.new.lang)
    text = say("notice.unreadable", turn.new.lang, kinds=kinds)
    return Ending("refused", text=text, note=_was_away(turn))


def _complaint(turn: Turn, error: BaseException, *, cut: bool) -> str:
    """What went wrong, for the person; with a part of the answer it says that it was cut."""
    if not isinstance(error, QueqiaoError):
        log.error("turn %s failed", turn.id, exc_info=error)
    note = error.note if isinstance(error, QueqiaoError) else QueqiaoError.note
    why = say(note, turn.new.lang, ref=turn.id[:8])
    return say("card.cut", turn.new.lang, why=why) if cut else why


def _was_away(turn: Turn) -> str:
    if turn.new.notice != AWAY:
        return ""
    return say("card.was_away", turn.new.lang, **turn.new.notice_args)


def _remark(turn: Turn, finish: str) -> str:
    lang, parts = turn.new.lang, turn.new.parts
    remarks = []
    if turn.new.notice:
        remarks.append(say(turn.new.notice, lang, **turn.new.notice_args))
    if finish in ("length", "content_filter"):
        remarks.append(say({"length": "card.length"}.get(finish, "card.filtered"), lang))
    if any(isinstance(part, UnreadablePart) for part in parts):
        remarks.append(say("card.unread", lang, kinds=unreadable(parts, lang)))
    return " ".join(remarks)


def cause(error: BaseException | None) -> str:
    """For the log and the operator."""
    if error is None:
        return ""
    return str(error) if isinstance(error, QueqiaoError) else type(error).__name__


def footer(lang: str, model: str, seconds: float, usage: Usage, cost: float) -> str:
    """The small print: model, time, tokens, money."""
    bits = [model, say("footer.seconds", lang, seconds=f"{seconds:.1f}")]
    used = usage.prompt + usage.completion
    if used:
        bits.append(say("footer.tokens", lang, tokens=used))
    if cost:
        bits.append(say("footer.cost", lang, cost=f"{cost:.4f}"))
    return " · ".join(bits)


def growing(turn: Turn, status: str) -> Snapshot:
    """What a card shows besides the text while it grows."""
    stop = Button("stop", say("button.stop", turn.new.lang), turn.id)
    return Snapshot(status=status, buttons=(stop,))


def final(turn: Turn, ending: Ending) -> Snapshot:
    """The closing of the card: its note, small print and the button to ask again."""
    lang, state = turn.new.lang, ending.state
    ended = say(f"card.{state}", lang) if state in ("stopped", "recalled") else ""
    return Snapshot(
        note=ending.note or ended,
        footer=ending.footer,
        buttons=_offered(turn, ending),
        state=cast(SnapshotState, state),
    )


def _offered(turn: Turn, ending: Ending) -> tuple[Button, ...]:
    lang = turn.new.lang
    if turn.new.notice == LATE:
        return (Button("retry", say("button.late", lang), turn.id),)
    if turn.new.kind == "chat" and ending.state in ("answered", "failed", "stopped"):
        return (Button("retry", say("button.retry", lang), turn.id),)
    return ()
