"""When one part of a reply may be shown next: the platform's pace, kept for one card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot.contract import Limits, Pace

News = Literal["first", "text", "line", "thoughts"]
"""What there is to show: the part's first text, more of it, another status line before
there is any, or only thoughts, which lie folded."""


STILL = 0.6
"""Seconds for which a typed text may stand still while there is more of it."""

EARLY = 4
"""How many shows in a minute may come before their gap is over, because the client had
nothing left to type: the model has become slower, or had paused, or the card is new."""


@dataclass(slots=True)
class Rhythm:
    """`shown_at`: when the last show was tried, on the clock's monotonic(). `text_gap` and
    `line_gap`: the least time from it to the next text, and to another status line.
    `early`: how many texts came before that."""

    shown_at: float = float("-inf")
    text_gap: float = 0.0
    line_gap: float = 0.0
    early: int = 0

    def follow(self, before: Rhythm) -> None:
        """The text goes on in this card: its gaps stay as wide as they were."""
        self.text_gap = before.text_gap

    def due(self, news: News, pace: Pace, age: float) -> float:
        """The moment from which `news` may be shown; `age` is the reply's. The first text
        comes at once, and thoughts alone never hurry."""
        gaps = {
            "first": pace.first,
            "text": max(pace.first, self.text_gap),
            "line": max(pace.first, self.line_gap),
            "thoughts": pace.ceiling(age),
        }
        return self.shown_at + gaps[news]

    def needed(self, news: News, limits: Limits, age: float) -> float:
        """As due(), but sooner when the client stands still before that."""
        due = self.due(news, limits.pace, age)
        typed = limits.typed_until
        few = self.early < EARLY * max(1.0, age / limits.pace.steady)
        if news != "text" or typed is None or not few:
            return due
        return min(due, max(self.shown_at + limits.pace.first, typed + STILL))

    def tried(self, news: News, pace: Pace, age: float, idle: float, now: float) -> None:
        """A show was tried, whatever came of it: the next of its kind keeps a wider
        distance, unless it was early. `idle`: how long it was due while there was nothing
        new."""
        early = now < self.due(news, pace, age)
        self.shown_at = now
        if news == "text" and early:
            self.early += 1
        elif news == "text":
            self.text_gap = pace.after(self.text_gap, idle, age)
        elif news == "first":
            self.text_gap = max(self.text_gap, pace.first)
        else:
            self.line_gap = pace.after(self.line_gap, idle, age)
