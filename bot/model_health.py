"""Whether the model service answers, as the turns find out (design.md 9). Nothing is asked
of it for this: a question costs money."""

from __future__ import annotations

from bot.errors import (
    AuthError,
    BorderError,
    PermissionDenied,
    QuotaExhausted,
    RefusedContent,
    TooBig,
)
from bot.report import one_line
from bot.texts import say

IN_A_ROW = 3
"""Turns that fail one after the other, without an answer between, until it is told."""

LASTING = (AuthError, PermissionDenied, QuotaExhausted)
"""What every other question will meet as well: told at once."""

OF_ONE_QUESTION = (RefusedContent, TooBig)
"""What says nothing about the next question."""


class ModelHealth:
    """Remembers what went wrong since the last answer, whoever got it."""

    def __init__(self) -> None:
        self._failed: set[str] = set()
        self._lasting: BorderError | None = None
        self._newest: BorderError | None = None

    def answered(self) -> None:
        self._failed.clear()
        self._lasting = self._newest = None

    def failed(self, turn_id: str, error: BorderError) -> None:
        """A turn that fails more than once counts once."""
        if isinstance(error, OF_ONE_QUESTION):
            return
        self._newest = error
        if isinstance(error, LASTING):
            self._lasting = error
        if len(self._failed) < IN_A_ROW:
            self._failed.add(turn_id)

    @property
    def problem(self) -> str:
        """Why no question can be answered now, in Chinese and English; empty when it is
        not known to be so."""
        if self._lasting is not None:
            return _words(_key(self._lasting), self._lasting)
        if self._newest is not None and len(self._failed) >= IN_A_ROW:
            return _words("health.model_fails", self._newest)
        return ""


def _key(error: BorderError) -> str:
    return "health.model_balance" if isinstance(error, QuotaExhausted) else "health.model_refuses"


def _words(key: str, error: BorderError) -> str:
    why = one_line(str(error), 200)
    return " / ".join(say(key, lang, why=why) for lang in ("zh", "en"))
