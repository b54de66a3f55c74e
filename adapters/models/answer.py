"""From the objects of one answer to deltas and its end. Pure.

Source: reference/models.md 1.5 (finish reasons) and 3.
"""

from __future__ import annotations

from typing import Any

from adapters.models.chunks import Chunk, read_chunk
from adapters.models.refusals import error_in, read_refusal, translate
from bot.contract import Delta, FinishDelta, ReasoningDelta, TextDelta, Usage, UsageDelta
from bot.errors import Transient

TEXT_LIMIT = 8_000_000
"""Most characters of one answer: twenty times the largest that a model gives."""

_REASONS = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "model_context_window_exceeded": "length",
}


class AnswerBuilder:
    """Takes an answer's objects in order. `said`: something was given to the caller.
    `finish`: the service's own word for its end, empty while there is none."""

    def __init__(self, key: str) -> None:
        self.said = False
        self.finish = ""
        self._key = key
        self._usage: Usage | None = None
        self._model = ""
        self._length = 0
        self._words = False

    def take(self, value: dict[str, Any]) -> list[Delta]:
        """What one chunk, or a whole answer, says. Raises the translated error when it
        is an error (HTTP 200 notwithstanding)."""
        if error_in(value):
            raise translate(read_refusal(0, value), self._key)
        chunk = read_chunk(value)
        self.finish = chunk.finish or self.finish
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        return self._deltas(chunk)

    def _deltas(self, chunk: Chunk) -> list[Delta]:
        self._length += len(chunk.text) + len(chunk.reasoning)
        if self._length > TEXT_LIMIT:
            raise Transient("an answer without an end", note="model.cut")
        deltas: list[Delta] = []
        if chunk.reasoning:
            deltas.append(ReasoningDelta(chunk.reasoning))
        if chunk.text:
            deltas.append(TextDelta(chunk.text))
        self.said = self.said or bool(deltas)
        self._words = self._words or not (not chunk.text or chunk.text.isspace())
        return deltas

    def usage(self) -> list[Delta]:
        """The last usage that was told; services repeat it, and each is the whole."""
        return [] if self._usage is None else [UsageDelta(self._usage, self._model)]

    def ending(self, *, may_be_empty: bool) -> FinishDelta:
        """How the answer ended. Raises Transient when it did not end well."""
        if not self.finish:
            raise Transient("the stream ended without a finish", note="model.cut")
        if self.finish == "insufficient_system_resource":
            raise Transient("inference was interrupted", note="model.overloaded")
        reason = _REASONS.get(self.finish)
        if reason is None:
            word = self.finish[:40]
            raise Transient(f"unknown finish reason {word!r}", note="model.broken")
        if reason == "stop" and not self._words and not may_be_empty:
            raise Transient("an answer without words", note="model.empty")
        return FinishDelta(reason)
