"""What a person sees of a card that the client types (reference/feishu.md 6.1, 6.5). Pure.

Times are seconds of one clock, the simulator's monotonic(). The rules, as far as the
reference has them, and where it is silent the less smooth choice:

- A text that continues the one before is typed: `print_step` characters every
  `print_frequency_ms`, the first after one such time. Any other text, and the text of a
  card that was replaced as a whole, appears at once.
- When a new text comes, `fast` first shows at once what of the old one was not typed yet;
  `delay` types on from where it stands.
- A text is typed at the speed that the card had when the text came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MS, DEFAULT_STEP = 70, 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One write to a card that changed its text. `texts`: what each Markdown element holds
    now, by element_id; `typed`: by the content call, else the whole card was put in
    place; `config`: the streaming_config that is valid then."""

    at: float
    texts: Mapping[str, str]
    typed: bool
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Stroke:
    """From `at` on, `start` characters of `text` are seen, and `step` more after every
    `every` seconds."""

    at: float
    text: str
    start: int
    step: int
    every: float

    def seen(self, now: float) -> int:
        prints = int((now - self.at) / self.every + 1e-6)
        return min(len(self.text), self.start + prints * self.step)

    def moments(self) -> list[float]:
        """When something appears."""
        missing = len(self.text) - self.start
        return [self.at + n * self.every for n in range(1, -(-missing // self.step) + 1)]


def visible(frames: Sequence[Frame], element: str, now: float) -> str:
    """What of an element's text the person sees at a moment."""
    strokes = [stroke for stroke in _strokes(frames, element) if stroke.at <= now]
    return strokes[-1].text[: strokes[-1].seen(now)] if strokes else ""


def longest_stall(
    frames: Sequence[Frame], element: str, written: Sequence[tuple[float, int]]
) -> float:
    """The longest time in which nothing new appeared although the model had written what
    was not seen yet. `written`: (moment, characters of the whole text by then), the way
    the element shows them, growing. While all that was written is seen nothing stalls,
    however long the model thinks; the time from its first character to the first one seen
    counts too. The last frame ends the account."""
    return longest_stall_over([frames], element, written)


def longest_stall_over(
    cards: Sequence[Sequence[Frame]], element: str, written: Sequence[tuple[float, int]]
) -> float:
    """As longest_stall(), of a text that goes on from card to card: while one is typed to
    its end nobody misses the next. `written` counts the characters of all of them."""
    longest, was_at, was_seen = 0.0, float("-inf"), 0
    for at, seen in _growth(cards, element):
        if seen <= was_seen:
            continue
        unseen = next((moment for moment, length in written if length > was_seen), at)
        longest = max(longest, at - max(was_at, unseen))
        was_at, was_seen = at, seen
    return longest


def _growth(cards: Sequence[Sequence[Frame]], element: str) -> list[tuple[float, int]]:
    """The appearances on all cards, each with the characters of those before it."""
    found, before = [], 0
    for frames in cards:
        found += [(at, before + seen) for at, seen in _appearances(frames, element)]
        before += len(frames[-1].texts.get(element, "")) if frames else 0
    return sorted(found)


def _appearances(frames: Sequence[Frame], element: str) -> list[tuple[float, int]]:
    """(moment, characters seen from then on), for every moment at which that changes."""
    found: list[tuple[float, int]] = []
    strokes = _strokes(frames, element)
    ends = [stroke.at for stroke in strokes[1:]] + [float("inf")]
    for stroke, end in zip(strokes, ends, strict=True):
        for at in [stroke.at, *stroke.moments()]:
            seen = stroke.seen(at)
            if at < end and (not found or seen != found[-1][1]) and (found or seen):
                found.append((at, seen))
    return found


def _strokes(frames: Sequence[Frame], element: str) -> list[_Stroke]:
    strokes: list[_Stroke] = []
    for frame in frames:
        text = frame.texts.get(element, "")
        start = len(text)
        if frame.typed:
            start = _kept(strokes, text, frame)
        step, every = _speed(frame.config)
        strokes.append(_Stroke(frame.at, text, start, step, every))
    return strokes


def _kept(strokes: list[_Stroke], text: str, frame: Frame) -> int:
    """How much of a typed text is seen the moment it comes."""
    old = strokes[-1] if strokes else None
    if old is None:
        return 0
    if not text.startswith(old.text):
        return len(text)
    delayed = frame.config.get("print_strategy") == "delay"
    return old.seen(frame.at) if delayed else len(old.text)


def _speed(config: Mapping[str, Any]) -> tuple[int, float]:
    step = _default(config.get("print_step"), DEFAULT_STEP)
    return step, _default(config.get("print_frequency_ms"), DEFAULT_MS) / 1000.0


def _default(value: Any, otherwise: int) -> int:
    """The value for every client: one of a platform's own is not looked at."""
    given = value.get("default") if isinstance(value, Mapping) else None
    return given if isinstance(given, int) and given > 0 else otherwise
