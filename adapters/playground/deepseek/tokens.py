"""Tokens without a vocabulary: pieces of text, their count, and the prefix cache.

Source: reference/models.md 1.5 (chunks hold whole characters), 1.9 (cache units), 1.11
(how many tokens a character is worth).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Sequence

from adapters.playground.deepseek.thread import Message
from bot.contract import Clock

_EMOJI = "[\U0001f000-\U0001faff\u2600-\u27bf]"
_PIECE = re.compile(
    rf"{_EMOJI}(?:\ufe0f|[\U0001f3fb-\U0001f3ff]|\u200d{_EMOJI})*"
    r"|[\u3400-\u9fff]{1,2}"
    r"| ?[A-Za-z0-9_]{1,4}"
    r"|\n+|[^\S\n]+|.",
    re.S,
)
_CJK = re.compile("[\u3000-\u9fff\uff00-\uffef]")


def pieces(text: str) -> list[str]:
    """The text as a model streams it: one to four characters a piece, emoji whole."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """Tokens, estimated; 0 for no text."""
    if not text:
        return 0
    wide = len(_CJK.findall(text))
    return max(1, round(wide * 0.55 + (len(text) - wide) * 0.2))


_OVERHEAD = 4
_THINKING_OVERHEAD = 34
_KEEP = 86_400.0
_MOST_UNITS = 20_000


class Cache:
    """Which beginnings of prompts are stored. A request hits only on a whole unit: the
    end of an earlier prompt, the end of an earlier answer, or a beginning that two
    earlier prompts had in common. `delay` is the seconds that storing takes."""

    def __init__(self, clock: Clock, delay: float = 0.0) -> None:
        self.delay = delay
        self._clock = clock
        self._units: OrderedDict[str, float] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def prompt(self, owner: str, messages: Sequence[Message], thinking: bool) -> tuple[int, int]:
        """(tokens of the prompt, tokens of it that were stored); remembers the prompt."""
        digests, sizes = _beginnings(owner, messages)
        total = sum(sizes) + (_THINKING_OVERHEAD - _OVERHEAD if thinking else 0)
        hit, now = 0, self._clock.monotonic()
        for number, digest in enumerate(digests):
            if self._units.get(digest, now + 1) <= now < self._units.get(digest, 0) + _KEEP:
                hit = sum(sizes[: number + 1])
        for digest in digests[:-1]:
            if digest in self._seen:
                self._store(digest)
            self._seen[digest] = None
        self._store(digests[-1])
        self._seen[digests[-1]] = None
        self._trim()
        return total, hit

    def answered(self, owner: str, messages: Sequence[Message], text: str) -> None:
        """Remember the prompt with its answer."""
        answer = {"role": "assistant", "content": text}
        self._store(_beginnings(owner, [*messages, answer])[0][-1])

    def _store(self, digest: str) -> None:
        self._units.setdefault(digest, self._clock.monotonic() + self.delay)

    def _trim(self) -> None:
        while len(self._seen) > _MOST_UNITS:
            self._seen.popitem(last=False)
        while len(self._units) > _MOST_UNITS:
            self._units.popitem(last=False)


def _beginnings(owner: str, messages: Sequence[Message]) -> tuple[list[str], list[int]]:
    """A digest of the prompt up to the end of each message, and each one's tokens.
    Earlier thinking is no part of a prompt without tools (reference/models.md 1.4)."""
    running = hashlib.sha256(owner.encode("utf-8", "replace"))
    digests, sizes = [], []
    for message in messages:
        visible = {key: message.get(key) for key in ("role", "content", "tool_calls")}
        content = json.dumps(visible, ensure_ascii=False, sort_keys=True)
        running.update(content.encode("utf-8", "replace"))
        digests.append(running.copy().hexdigest())
        words = message.get("content") or ""
        words = words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)
        sizes.append(count(words) + _OVERHEAD)
    return digests, sizes
