"""How fast the client types a card: a little slower than the model speaks, so that it never
waits for the next text (reference/feishu.md 6.1, 6.5). Speeds are in characters a second.

With strategy `fast` new text shows at once what the client had not typed yet. A client that
types too slowly makes small jumps; one that types too fast stands still between two texts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

FIRST_GUESS = 24.0
"""Of a model that nobody has measured yet: slower than any of today's, because at the narrow
gaps of a beginning a jump is small, and a standstill is not."""

SLOWEST, FASTEST = 2.5, 400.0

BEHIND = 0.8
"""The part of the model's speed at which the client types: the rest is room for what is
measured badly and for a model that speaks in bursts."""

TOO_SLOW, TOO_FAST = 0.45, 1.0
"""Outside of these parts of the model's speed the card is told another one."""

LEAST_MS = 40
"""Milliseconds between two prints at least: faster than that no eye tells them apart."""

SPAN, LEAST_SPAN, LEAST_CHARACTERS = 12.0, 1.8, 8
"""Seconds over which a speed is measured, and what it takes to believe it."""

SILENCE = 1.0
"""Seconds of silence that are counted on top: the shorter a model was heard, the less it is
certain that it goes on without one."""

STEADY = 0.7
"""The part of the speed before that counts as the same."""

FRESH = 0.5
"""How much the speed of one more card counts against all before."""


@dataclass(frozen=True, slots=True)
class Typewriter:
    """`step` characters every `every_ms` milliseconds."""

    step: int
    every_ms: int

    @property
    def speed(self) -> float:
        return self.step * 1000.0 / self.every_ms

    @property
    def config(self) -> dict[str, Any]:
        """The card's streaming_config (reference/feishu.md 6.1)."""
        return {
            "print_frequency_ms": {"default": self.every_ms},
            "print_step": {"default": self.step},
            "print_strategy": "fast",
        }

    def suits(self, model: float) -> bool:
        """Whether a model of this speed looks smooth."""
        return TOO_SLOW * model <= self.speed <= TOO_FAST * model


def typewriter(model: float) -> Typewriter:
    """For a model of this speed: as few characters at a time as can be."""
    speed = BEHIND * min(max(model, SLOWEST), FASTEST)
    step = max(1, -int(-speed * LEAST_MS // 1000))
    return Typewriter(step, round(1000 * step / speed))


class Gauge:
    """The speed of one card's text, measured where it is shown."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._between = 0.0

    def take(self, now: float, characters: int) -> None:
        """So long is the text shown at `now`. A pause of the model, or a text that begins
        anew, is not counted as slowness."""
        if self._seen:
            at, before = self._seen[-1]
            if characters < before or self._paused(now - at):
                self._seen.clear()
            else:
                self._between = now - at
        self._seen.append((now, characters))
        while len(self._seen) > 2 and now - self._seen[1][0] >= SPAN:
            self._seen.popleft()

    def _paused(self, between: float) -> bool:
        """Texts come at gaps that grow slowly: this one was due long before."""
        return 0.0 < 2.0 * self._between < between - 1.0

    @property
    def speed(self) -> float | None:
        """None until enough was seen."""
        characters, seconds = self._span
        enough = characters >= LEAST_CHARACTERS and seconds >= LEAST_SPAN
        return characters / seconds if enough else None

    @property
    def lately(self) -> float | None:
        """As `speed`, or that of the newest text when it is lower: a client that types too
        fast stands still at once."""
        return None if self.speed is None else min(c / s for c, s in self._spans)

    @property
    def falling(self) -> bool:
        """The newest text came much more slowly than the one before: the gap in which a
        model slows down is partly a fast one's, and the next will tell."""
        if len(self._seen) < 3:
            return False
        (a, first), (b, second), (c, third) = list(self._seen)[-3:]
        return (third - second) * (b - a) < STEADY * (second - first) * (c - b)

    @property
    def cautious(self) -> float | None:
        """What the model may be relied on for."""
        return None if self.speed is None else min(c / (s + SILENCE) for c, s in self._spans)

    @property
    def _spans(self) -> list[tuple[int, float]]:
        """All that was seen, and the end of it, as short as may be believed."""
        suffixes = map(self._since, range(len(self._seen) - 2, -1, -1))
        return [self._span, next(span for span in suffixes if span[1] >= LEAST_SPAN)]

    @property
    def _span(self) -> tuple[int, float]:
        return self._since(0)

    def _since(self, index: int) -> tuple[int, float]:
        """Characters that came in so many seconds."""
        if not self._seen:
            return 0, 0.0
        (since, before), (now, after) = self._seen[index], self._seen[-1]
        return after - before, now - since


class Tempo:
    """How fast a bot's model speaks, learned from card to card."""

    def __init__(self) -> None:
        self._learned: float | None = None

    @property
    def speed(self) -> float:
        return FIRST_GUESS if self._learned is None else self._learned

    def learn(self, speed: float) -> None:
        old = speed if self._learned is None else self._learned
        self._learned = old + FRESH * (speed - old)
