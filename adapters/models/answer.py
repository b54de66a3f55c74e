"""From the objects of one answer to deltas and its end. Pure.

Source: reference/models.md 1.5 (finish reasons) and 3.
"""

from __future__ import annotations

from typing import Any

from adapters.models.chunks import read_chunk
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
        self._said: list[tuple[type[ReasoningDelta | TextDelta], list[str]]] = []

    def take(self, value: dict[str, Any]) -> None:
        """What one chunk, or a whole answer, says. Raises the translated error when it
        is an error (HTTP 200 notwithstanding)."""
        if error_in(value):
            raise translate(read_refusal(0, value), self._key)
        chunk = read_chunk(value)
        self.finish = chunk.finish or self.finish
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        self._length += len(chunk.text) + len(chunk.reasoning)
        if self._length > TEXT_LIMIT:
            raise Transient("an answer without an end", note="model.cut")
        if chunk.reasoning:
            self._say(ReasoningDelta, chunk.reasoning)
        if chunk.text:
            self._say(TextDelta, chunk.text)
            self._words = self._words or not chunk.text.isspace()

    def _say(self, kind: type[ReasoningDelta | TextDelta], piece: str) -> None:
        if self._said and self._said[-1][0] is kind:
            self._said[-1][1].append(piece)
        else:
            self._said.append((kind, [piece]))

    def deltas(self) -> list[Delta]:
        """What was said since the last call; neighbours of one kind come as one."""
        if not self._said:
            return []
        self.said = True
        found: list[Delta] = [kind("".join(pieces)) for kind, pieces in self._said]
        self._said.clear()
        return found

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
