"""How often: calls per window (reference/feishu.md 5.8)."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass

from adapters.playground.feishu.wire import RATE_LIMITED, Refused
from bot.contract import Clock

LEEWAY = 0.05
"""Seconds forgiven at the edge of a window: two calls that left far enough apart may
arrive a little closer together."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` in any `seconds`."""

    limit: int
    seconds: float


GATEWAY = (Rate(50, 1.0), Rate(1000, 60.0))
CHAT = Rate(5, 1.0)
PATCHES = Rate(5, 1.0)
CARD = Rate(10, 1.0)


class Windows:
    """Sliding windows by key; a refused call is not counted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[tuple[str, Rate], deque[float]] = defaultdict(deque)

    def wait(self, key: str, *rates: Rate) -> float:
        """Count one call and return 0, or the seconds until one would be let through."""
        full = max(self._full(key, rate) for rate in rates)
        if full <= 0:
            for rate in rates:
                self._calls[key, rate].append(self._clock.monotonic())
        return full

    def _full(self, key: str, rate: Rate) -> float:
        now, calls = self._clock.monotonic(), self._calls[key, rate]
        while calls and calls[0] <= now - (rate.seconds - LEEWAY):
            calls.popleft()
        return rate.seconds - (now - calls[0]) if len(calls) >= rate.limit else 0.0


def too_fast(route: str, rate: Rate, wait: float) -> Refused:
    """HTTP 429 with the reset headers."""
    headers = {
        "x-ogw-ratelimit-limit": str(rate.limit),
        "x-ogw-ratelimit-reset": str(max(1, math.ceil(wait))),
    }
    msg = "request trigger frequency limit"
    return Refused(RATE_LIMITED, msg, status=429, headers=headers, blame=True)


def too_chatty(msg: str) -> Refused:
    """230020, without a hint when to come again."""
    return Refused(230020, msg, blame=True)
