"""How many calls are left: the buckets that bot/pace.py hands out.

Pure: every moment is given as `now`, in seconds of a clock that never goes back. A
bucket counts the calls of one API, chat or card in true sliding windows (a log of times)
and knows what the platform's refusals taught about them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from enum import IntEnum

from bot.contract import Window


class Priority(IntEnum):
    """Most urgent first."""

    FINAL = 0
    FIRST = 1
    UPDATE = 2


SKEW = 0.1
"""Seconds by which a window is taken longer than documented: the server counts calls when
they arrive, and two calls may differ by so much in how long they travel. A window of one
second loses a tenth of its rate by it, one of a minute nothing."""

LONG = 10.0
"""Seconds from which on a window is spread: one that was burnt at its start would leave
the cards still for longer than a person waits without wondering."""

RESERVE = {Priority.FINAL: 0.0, Priority.FIRST: 0.02, Priority.UPDATE: 0.05}
"""Share of a long window that this priority leaves to more urgent ones, so that a wave of
finals or new cards need not wait for a minute to pass. A short window needs none."""

BURST = 0.1
"""Share of a window that updates may be ahead of the even rate: of a long one enough for a
few cards to keep their own pace, and cheap enough that the rest of it goes on at nine tenths
of that rate. Of a short one little: cards that came at once would go on being shown in lumps,
and whoever misses a lump would wait for a whole window more than the others."""

CROWD = 20
"""Calls from which on a short window is one that many cards share, and its updates keep to
the even rate. In that of one card or chat no two of them meet."""

HORIZONS = 30
"""At how many moments of a window ahead the even rate is checked against what is used."""

FORESEEN = 1 / 6
"""Share of a long window that tells how many finals and first frames are coming; what the
whole window tells counts when it is less, so one wave is not taken for a flood."""

LEAST = 0.1
"""Share of the even rate that updates keep however many more urgent calls are coming."""

CUT = 0.7
"""What a refusal leaves of a bucket's limits."""

FLOOR = 0.1
"""Share of the documented limits below which refusals do not cut."""

RECOVERY = 0.003
"""Share of the documented limits that comes back per second without a refusal."""

INCIDENT = 1.0
"""Seconds in which further refusals are of calls already on their way at the cut."""

LOST = 120.0
"""Seconds after which a call whose end nobody told is no longer on its way."""

TICK = 1e-6
"""Seconds that count as no time, far below SKEW: clocks round."""

Rank = tuple[int, float, int]


class Meter:
    """One window of one bucket, on the bucket's log of call times (ascending)."""

    __slots__ = ("_limit", "evened", "long", "next_update", "span")

    def __init__(self, window: Window) -> None:
        self._limit = window.limit
        self.span = window.seconds + SKEW
        self.long = window.seconds >= LONG
        self.evened = self.long or window.limit >= CROWD
        self.next_update = float("-inf")

    def limit(self, share: float, priority: Priority = Priority.FINAL) -> int:
        """Most calls now; `share` is the bucket's learned part of the documented limit."""
        kept = 1.0 - RESERVE[priority] if self.long else 1.0
        return max(1, int(self._limit * share * kept + TICK))

    def used(self, log: list[float], at: float) -> int:
        """Calls of the log that are still counted at the moment `at`."""
        return len(log) - bisect_right(log, at - self.span)

    def free_at(self, log: list[float], calls: int, limit: int, now: float) -> float:
        """When the last of `calls` further calls fits, if nobody else comes between."""
        rounds, rest = divmod(calls - 1, limit)
        used = self.used(log, now)
        over = used + rest + 1 - limit
        at = log[len(log) - used + over - 1] + self.span if over > 0 else now
        return at + rounds * self.span

    def spread(self, log: list[float], urgent: list[float], limit: int, now: float) -> float:
        """Updates per second that the window bears from now to its end, when `limit` calls
        are for them and for the more `urgent`. What was used early in the window comes back
        late, so every stretch ahead is checked. Not positive: nothing is left now."""
        stretches = (self.span * step / HORIZONS for step in range(1, HORIZONS + 1))
        rate = min((limit - self.used(log, now + ahead)) / ahead for ahead in stretches)
        return max(rate - self._coming(urgent, now), rate * LEAST)

    def _coming(self, urgent: list[float], now: float) -> float:
        """Urgent calls per second, judged by those of late."""
        part = self.span * FORESEEN
        late = len(urgent) - bisect_right(urgent, now - part)
        return min(self.used(urgent, now) / self.span, late / part)

    def push_back(self, calls: int, rate: float, now: float) -> None:
        """After `calls` updates: the next one keeps to `rate`, but for a burst."""
        step = calls / rate if rate > 0 else 0.0
        self.next_update = max(self.next_update, now - BURST * self.span) + step


class Bucket:
    """The calls counted under one name; the line of requests that wait for it, best rank
    first, and the claims of those that wait elsewhere. `wanted` counts both and those that
    are looked at first. `wake_at` is when the first in line is looked at again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.windows: tuple[Window, ...] = ()
        self.line: list[Request] = []
        self.claims: dict[Request, int] = {}
        self.wanted = 0
        self.retiring = False
        self.wake_at = float("-inf")
        self._meters: tuple[Meter, ...] = ()
        self._span = 0.0
        self._log: list[float] = []
        self._urgent: list[float] = []
        self._flying: dict[Request, tuple[float, int]] = {}
        self._low = {False: 1.0, True: 1.0}
        self._quiet_since = float("-inf")
        self._cut_at = float("-inf")
        self._closed_until = float("-inf")

    def document(self, windows: tuple[Window, ...]) -> None:
        if windows != self.windows:
            self.windows = windows
            self._meters = tuple(Meter(window) for window in windows)
            self._span = max((meter.span for meter in self._meters), default=0.0)

    def share(self, now: float, *, long: bool = False) -> float:
        """The learned part of the documented limits of short or of `long` windows, at
        most 1."""
        return min(1.0, self._low[long] + RECOVERY * max(0.0, now - self._quiet_since))

    def idle_at(self) -> float:
        """From when on this bucket is as good as new, if nothing more happens."""
        emptied = self._log[-1] + self._span if self._log else float("-inf")
        recovered = self._quiet_since + (1.0 - min(self._low.values())) / RECOVERY
        return max(emptied, recovered, self._closed_until)

    # ------------------------------------------------------------ room

    def opens_at(self, request: Request, need: int, now: float) -> float:
        """When `need` calls fit for this request, not after `now` when they fit now.
        Behind others in line it is an estimate. More calls in one step than a window
        ever bears wait until that window is empty."""
        self._follow(now)
        ahead = bisect_left(self.line, request)
        at = max(now, self._closed_until)
        for meter in self._meters:
            share = self.share(now, long=meter.long)
            limit = max(need, meter.limit(share, request.priority))
            at = max(at, meter.free_at(self._log, need * (ahead + 1), limit, now))
            if request.priority is Priority.UPDATE:
                at = max(at, meter.next_update)
        if ahead:
            return max(at, self.wake_at, now + 2 * TICK)
        return at if at > now + TICK or not self.claims else self._backfill(request, need, now)

    def _backfill(self, request: Request, need: int, now: float) -> float:
        """Now, unless that would take the room of a better rank's claim; then when the
        claimant's turn comes. A turn that has passed claims nothing."""
        turns = sorted(
            (rival.turn_at, calls)
            for rival, calls in self.claims.items()
            if rival < request and rival.turn_at > now + TICK
        )
        for meter in self._meters:
            calls, limit = need, meter.limit(self.share(now, long=meter.long))
            for turn_at, claimed in turns:
                calls += claimed
                if turn_at >= now + meter.span:
                    break
                if meter.used(self._log, turn_at) + calls > limit:
                    return turn_at
        return now

    # ------------------------------------------------------------ counting

    def take(self, need: int, priority: Priority, now: float) -> None:
        for log in (self._log, self._urgent):
            del log[: bisect_right(log, now - self._span)]
        self._log += [now] * need
        if priority is not Priority.UPDATE:
            self._urgent += [now] * need
            return
        for meter in self._meters:
            if meter.evened:
                limit = meter.limit(self.share(now, long=meter.long), priority)
                meter.push_back(need, self._even_rate(meter, limit, now), now)

    def _even_rate(self, meter: Meter, limit: int, now: float) -> float:
        """Updates per second. In a short window more urgent calls just take their place."""
        if meter.long:
            return meter.spread(self._log, self._urgent, limit, now)
        return limit / meter.span

    def give_back(self, request: Request, need: int) -> None:
        """Uncount calls that were not made."""
        at, _ = self._flying.pop(request, (request.granted_at or 0.0, need))
        self._uncount(need, at)

    def _uncount(self, need: int, at: float) -> None:
        for log in (self._log, self._urgent):
            start = bisect_left(log, at)
            del log[start : min(start + need, bisect_right(log, at))]

    # ------------------------------------------------------------ on their way

    @property
    def busy(self) -> bool:
        """Calls of this bucket are on their way."""
        return bool(self._flying)

    def depart(self, request: Request, need: int) -> None:
        """Calls taken for `request` are on their way: the server may count them at any
        moment until they land, so until then they count as made just now."""
        self._flying[request] = (request.granted_at or 0.0, need)

    def land(self, request: Request, now: float) -> None:
        """The server had them at the latest now, less what a window is too long anyway."""
        at, need = self._flying.pop(request, (math.inf, 0))
        if at < now - SKEW:
            self._recount(request, need, at, now - SKEW)

    def _follow(self, now: float) -> None:
        """Those that are on their way for longer than a window allows for: count them anew."""
        while self._flying:
            request, (at, need) = next(iter(self._flying.items()))
            if at >= now - SKEW:
                return
            del self._flying[request]
            if now - (request.granted_at or 0.0) < LOST:
                self._recount(request, need, at, now)
                self._flying[request] = (now, need)

    def _recount(self, request: Request, need: int, at: float, to: float) -> None:
        self._uncount(need, at)
        urgent = request.priority is not Priority.UPDATE
        for log in (self._log, self._urgent) if urgent else (self._log,):
            for _ in range(need):
                insort(log, to)

    # ------------------------------------------------------------ learning

    def refuse(self, retry_after: float, now: float) -> None:
        """The platform counts otherwise: close, and learn a lower limit. A refusal that is
        over in a moment says nothing about a window that is not."""
        self._low = {long: self.share(now, long=long) for long in self._low}
        if now >= max(self._closed_until, self._cut_at + INCIDENT):
            both = {meter.long for meter in self._meters} == set(self._low)
            cut = (False,) if both and retry_after < LONG else self._low
            self._low |= {long: max(FLOOR, self._low[long] * CUT) for long in cut}
            self._cut_at = now
        self._quiet_since = now
        self._closed_until = max(self._closed_until, now + retry_after)


@dataclass(slots=True, eq=False)
class Request:
    """Calls that are asked for together. `turn_at` is when its turn in `line` is expected.
    `over` from when it was granted (`granted_at`) or withdrawn."""

    needs: tuple[tuple[Bucket, int], ...]
    priority: Priority
    rank: Rank
    line: Bucket | None = None
    turn_at: float = 0.0
    granted_at: float | None = None
    over: bool = False
    due: bool = field(default=False, repr=False)

    def __lt__(self, other: Request) -> bool:
        return self.rank < other.rank
