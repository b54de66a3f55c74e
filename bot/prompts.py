"""History and question to prompts (design.md 7). What comes out depends on nothing else.

The prompts of a conversation are byte-stable: the system text first and unchanging, then
the history, which only grows at its end, then the question. What changes with time (the
day, who speaks) stands with the message it belongs to and stays there, so the model
service's prefix cache hits on every turn but the one that cuts.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

from bot.contract import (
    ChatKind,
    Exchange,
    Part,
    Person,
    Prompt,
    QuotePart,
    Started,
    TextPart,
    UnreadablePart,
)
from bot.texts import knows, say

BEIJING = 8 * 3_600.0
"""Seconds that Beijing is ahead of UTC, all year round."""

DAY = 86_400.0

EPOCH = date(1970, 1, 1)
WEEKDAYS = "一二三四五六日"

TOKENS_WIDE, TOKENS_NARROW, TOKENS_PROMPT = 0.6, 0.25, 4
"""Estimated tokens of a CJK character, of any other, and around each message
(reference/models.md 1.11); the bill comes from the service's own usage."""

LONGEST_NAME = 30

LATEST = 4e9
"""Seconds since the epoch: a platform's time beyond it is nonsense."""


CHARS = 2_000_000
"""What is remembered of histories at most, in characters."""

OVERHEAD = 300
"""As how many characters an exchange counts besides its words."""


class Composer:
    """What the history of a conversation reads like is remembered until its next question,
    which finds the same exchanges and one more: those need not be written again."""

    def __init__(self, chars: int = CHARS) -> None:
        self._most, self._chars = chars, 0
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def compose(self, started: Started, system: str, *, max_tokens: int) -> tuple[Prompt, ...]:
        """The system text, the history from its border on, and the turn's question."""
        new = started.turn.new
        told = self._history(started, max_tokens)
        self._keep(new.conversation, told)
        question = told.reader.copy().read(new.sender, new.parts, new.asked_at)
        return (Prompt("system", system), *told.prompts, Prompt("user", question))

    def _history(self, started: Started, max_tokens: int) -> _Told:
        new, history = started.turn.new, tuple(started.history)
        last = self._told.get(new.conversation)
        if last is not None and last.begins(history, new.chat_kind):
            told = last.grown(history[len(last.history) :])
            if _surely_within(told.chars, len(history), max_tokens):
                return told
        beginning = _Told(new.chat_kind, _Reader(new.chat_kind))
        return beginning.grown(history[border(history, max_tokens) :])

    def _keep(self, conversation: str, told: _Told) -> None:
        self._drop(conversation)
        self._told[conversation] = told
        self._chars += told.size
        while self._chars > self._most:
            self._drop(next(iter(self._told)))

    def _drop(self, conversation: str) -> None:
        if (gone := self._told.pop(conversation, None)) is not None:
            self._chars -= gone.size


class _Told(NamedTuple):
    """A history as it was written; `reader` stands behind its end. `chars`: of its words."""

    kind: ChatKind
    reader: _Reader
    history: tuple[Exchange, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    chars: int = 0

    @property
    def size(self) -> int:
        return self.chars + OVERHEAD * len(self.history)

    def begins(self, history: tuple[Exchange, ...], kind: ChatKind) -> bool:
        return self.kind == kind and history[: len(self.history)] == self.history

    def grown(self, more: tuple[Exchange, ...]) -> _Told:
        if not more:
            return self
        reader, prompts = self.reader.copy(), []
        for _, speaker, question, answer, reasoning, at in more:
            prompts.append(Prompt("user", reader.read(speaker, question, at)))
            prompts.append(Prompt("assistant", answer, reasoning or None))
        chars = self.chars + _chars(more)
        history, told = (*self.history, *more), (*self.prompts, *prompts)
        return _Told(self.kind, reader, history, told, chars)


# ---------------------------------------------------------------- trimming


def border(history: Sequence[Exchange], max_tokens: int) -> int:
    """How many of the oldest exchanges are left out so that the rest is within
    `max_tokens`. A cut leaves half of the budget free, and the next one comes only when
    that is used up; a history that grows at its end keeps its border meanwhile."""
    if _surely_within(_chars(history), len(history), max_tokens):
        return 0
    sizes = [_size(exchange) for exchange in history]
    start, total = 0, 0.0
    for index, size in enumerate(sizes):
        total += size
        if total <= max_tokens:
            continue
        while start <= index and total > max_tokens / 2:
            total -= sizes[start]
            start += 1
    return start


def _surely_within(chars: int, exchanges: int, max_tokens: int) -> bool:
    """Told from the lengths alone, as if every character were wide."""
    return chars * TOKENS_WIDE + exchanges * 2 * TOKENS_PROMPT <= max_tokens


def _chars(history: Sequence[Exchange]) -> int:
    chars = 0
    for _, _, question, answer, reasoning, _ in history:
        chars += len(answer) + len(reasoning)
        for part in question:
            chars += len(part.text if isinstance(part, TextPart) else _part_text(part))
    return chars


def _size(exchange: Exchange) -> float:
    asked = sum(_tokens(_part_text(part)) for part in exchange.question)
    return asked + _tokens(exchange.answer) + _tokens(exchange.reasoning) + 2 * TOKENS_PROMPT


_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+")


def _tokens(text: str) -> float:
    narrow = len(text) if text.isascii() else len(_WIDE.sub("", text))
    return (len(text) - narrow) * TOKENS_WIDE + narrow * TOKENS_NARROW


# ---------------------------------------------------------------- questions


class _Reader:
    """Reads questions in their order as the model gets them: the day where it changes, in a
    group the speaker, what was quoted, the words."""

    def __init__(self, kind: ChatKind) -> None:
        self._names = _Names() if kind == "group" else None
        self._day, self._midnight = -1, float("inf")

    def copy(self) -> _Reader:
        """One that goes on from here by itself."""
        other = copy(self)
        other._names = None if self._names is None else self._names.copy()
        return other

    def read(self, speaker: Person, parts: tuple[Part, ...], at: float) -> str:
        text = _body(parts)
        if self._names is not None:
            text = f"[{self._names.of(speaker)}] {text}"
        if self._midnight <= at < self._midnight + DAY:
            return text
        day = _day(at)
        if day != self._day:
            text = f"（{_named(day)}）\n{text}"
        self._day, self._midnight = day, day * DAY - BEIJING
        return text


def _day(at: float) -> int:
    """Its number, counted from EPOCH."""
    return int((min(max(at, 0.0), LATEST) + BEIJING) // DAY)


@lru_cache(maxsize=64)
def _named(day: int) -> str:
    """The day with this number, counted from EPOCH."""
    found = EPOCH + timedelta(days=day)
    return f"{found:%Y-%m-%d} 星期{WEEKDAYS[found.weekday()]}"


class _Names:
    """A label for each person, told by id: a second person of the same name, or without
    one, gets a number. Who spoke earlier keeps the label."""

    def __init__(self, labels: Mapping[str, str] = {}, used: Mapping[str, int] = {}) -> None:
        self._labels, self._used = dict(labels), dict(used)

    def copy(self) -> _Names:
        return _Names(self._labels, self._used)

    def of(self, speaker: Person) -> str:
        if speaker.id not in self._labels:
            name = _safe_name(speaker.name) or "用户"
            count = self._used[name] = self._used.get(name, 0) + 1
            numbered = count > 1 or name == "用户"
            self._labels[speaker.id] = f"{name}#{count}" if numbered else name
        return self._labels[speaker.id]


_UNSAFE = re.compile(r"[\[\]（）<>#\s\x00-\x1f]+")


def _safe_name(name: str) -> str:
    """A name is foreign text: it must not look like the bracket's end or a new line."""
    return _UNSAFE.sub(" ", name).strip()[:LONGEST_NAME]


def _body(parts: tuple[Part, ...]) -> str:
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text.strip()
    quotes = [_part_text(part) for part in parts if not isinstance(part, TextPart)]
    words = [part.text for part in parts if isinstance(part, TextPart)]
    return "\n".join(piece for piece in (*quotes, *words) if piece).strip()


def _part_text(part: Part) -> str:
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, QuotePart):
        author = f"{_safe_name(part.author)}：" if part.author else ""
        return "\n".join(f"> {line}" for line in f"{author}{part.text}".splitlines())
    return f"（{_label(part, 'zh')}，内容读不到）"


# ---------------------------------------------------------------- what could not be read


def unreadable(parts: tuple[Part, ...], lang: str) -> str:
    """The kinds of what cannot be read, each once, as words for the person."""
    return say("list.comma", lang).join(dict.fromkeys(_labels(parts, lang)))


def _labels(parts: tuple[Part, ...], lang: str) -> Iterator[str]:
    return (_label(part, lang) for part in parts if isinstance(part, UnreadablePart))


def _label(part: UnreadablePart, lang: str) -> str:
    key = f"kind.{part.kind}"
    return say(key if knows(key) else "kind.unknown", lang)
