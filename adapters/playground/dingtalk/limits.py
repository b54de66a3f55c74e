"""How much is allowed: calls per window, calls per month (reference/dingtalk.md 5.7)."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from bot.contract import Clock

LEEWAY = 0.05
"""Seconds forgiven at the edge of a window: two calls that left far enough apart may
arrive a little closer together."""


class Windows:
    """Sliding windows by key; a refused call is not counted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[str, deque[float]] = defaultdict(deque)

    def take(self, key: str, limit: int, seconds: float) -> bool:
        """Count one call; false when `limit` calls already stand in the window."""
        now, calls = self._clock.monotonic(), self._calls[key]
        while calls and calls[0] <= now - (seconds - LEEWAY):
            calls.popleft()
        if len(calls) >= limit:
            return False
        calls.append(now)
        return True


class Throttle:
    """20 webhook messages a minute, then silence for 10 minutes (documented for custom
    robots, unsure for session webhooks: reference/dingtalk.md 5.2)."""

    LIMIT, SECONDS, PENALTY = 20, 60.0, 600.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows = Windows(clock)
        self._closed: dict[str, float] = {}

    def take(self, key: str) -> bool:
        now = self._clock.monotonic()
        if now < self._closed.get(key, 0.0):
            return False
        if self._windows.take(key, self.LIMIT, self.SECONDS):
            return True
        self._closed[key] = now + self.PENALTY
        return False


@dataclass(slots=True)
class Quota:
    """The organisation's month. `api_limit` and `hook_limit` None: counted, not capped
    (the free tier has 5,000 and 3,000). `hooks` counts pushes and webhook messages
    together, as "Webhook & Stream" is billed."""

    api_limit: int | None = None
    hook_limit: int | None = None
    api: int = 0
    hooks: int = 0
    by_route: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def take_api(self, route: str) -> bool:
        if self.api_limit is not None and self.api >= self.api_limit:
            return False
        self.api += 1
        self.by_route[route] += 1
        return True

    def take_hook(self) -> bool:
        if self.hook_limit is not None and self.hooks >= self.hook_limit:
            return False
        self.hooks += 1
        return True
