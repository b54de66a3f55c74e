"""History and question to prompts (design.md 7). Pure.

The prompts of a conversation are byte-stable: the system text first and unchanging, then
the history, which only grows at its end, then the question. What changes with time (the
day, who speaks) stands with the message it belongs to and stays there, so the model
service's prefix cache hits on every turn but the one that cuts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import lru_cache

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


def compose(started: Started, system: str, *, max_tokens: int) -> tuple[Prompt, ...]:
    """The system text, the history from its border on, and the turn's question."""
    new = started.turn.new
    history = started.history[border(started.history, max_tokens) :]
    asked = [(speaker, question, at) for _, speaker, question, _, _, at in history]
    asked.append((new.sender, new.parts, new.asked_at))
    questions = _questions(asked, new.chat_kind)
    prompts = [Prompt("system", system)]
    for exchange, question in zip(history, questions, strict=False):
        prompts.append(Prompt("user", question))
        prompts.append(Prompt("assistant", exchange.answer, exchange.reasoning or None))
    return (*prompts, Prompt("user", questions[-1]))


# ---------------------------------------------------------------- trimming


def border(history: Sequence[Exchange], max_tokens: int) -> int:
    """How many of the oldest exchanges are left out so that the rest is within
    `max_tokens`. A cut leaves half of the budget free, and the next one comes only when
    that is used up; a history that grows at its end keeps its border meanwhile."""
    if _surely_within(history, max_tokens):
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


def _surely_within(history: Sequence[Exchange], max_tokens: int) -> bool:
    """Told from the lengths alone, as if every character were wide."""
    chars = 0
    for _, _, question, answer, reasoning, _ in history:
        chars += len(answer) + len(reasoning)
        for part in question:
            chars += len(part.text if isinstance(part, TextPart) else _part_text(part))
    return chars * TOKENS_WIDE + len(history) * 2 * TOKENS_PROMPT <= max_tokens


def _size(exchange: Exchange) -> float:
    asked = sum(_tokens(_part_text(part)) for part in exchange.question)
    return asked + _tokens(exchange.answer) + _tokens(exchange.reasoning) + 2 * TOKENS_PROMPT


_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+")


def _tokens(text: str) -> float:
    narrow = len(text) if text.isascii() else len(_WIDE.sub("", text))
    return (len(text) - narrow) * TOKENS_WIDE + narrow * TOKENS_NARROW


# ---------------------------------------------------------------- questions


_Asked = tuple[Person, tuple[Part, ...], float]
"""Who, what and when. A question looks at a hundred of them."""


def _questions(asked: Sequence[_Asked], chat_kind: ChatKind) -> list[str]:
    """Each question as the model reads it: the day where it changes, in a group the
    speaker, what was quoted, the words."""
    names = _names(speaker for speaker, _, _ in asked) if chat_kind == "group" else {}
    texts, day, midnight = [], -1, float("inf")
    for speaker, parts, at in asked:
        text = _body(parts)
        if names:
            text = f"[{names[speaker.id]}] {text}"
        if not midnight <= at < midnight + DAY:
            today = _day(at)
            if today != day:
                text = f"（{_named(today)}）\n{text}"
            day, midnight = today, today * DAY - BEIJING
        texts.append(text)
    return texts


def _day(at: float) -> int:
    """Its number, counted from EPOCH."""
    return int((min(max(at, 0.0), LATEST) + BEIJING) // DAY)


@lru_cache(maxsize=64)
def _named(day: int) -> str:
    """The day with this number, counted from EPOCH."""
    found = EPOCH + timedelta(days=day)
    return f"{found:%Y-%m-%d} 星期{WEEKDAYS[found.weekday()]}"


def _names(speakers: Iterable[Person]) -> dict[str, str]:
    """A label for each person, told by id: a second person of the same name, or without
    one, gets a number. Who spoke earlier keeps the label."""
    labels: dict[str, str] = {}
    used: dict[str, int] = {}
    for speaker in speakers:
        if speaker.id in labels:
            continue
        name = _safe_name(speaker.name) or "用户"
        count = used[name] = used.get(name, 0) + 1
        numbered = count > 1 or name == "用户"
        labels[speaker.id] = f"{name}#{count}" if numbered else name
    return labels


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
