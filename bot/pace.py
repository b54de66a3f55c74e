"""When to show: one budget per app, shared by all live cards (design.md 6).

A request needs room in several buckets at once and gets all of it or nothing. While it
waits it stands in the line of the bucket that opens last for it, so one that its card or
its chat holds up stands in nobody's way. What it has already seen open elsewhere it
claims: those of lower rank may use that room only if it is free again when the claimant's
turn comes (backfilling), so nobody is starved between two buckets.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from bisect import bisect_left, insort
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.budget import LONG, TICK, Bucket, Priority, Request
from bot.contract import Charge, Clock, Window
from bot.errors import RateLimited

__all__ = ["Grant", "Pacer", "Priority", "Scheduler"]


class Scheduler:
    """All buckets and all who wait, without a clock (bot/budget.py says what `now` is).
    After `ask` and `withdraw`, and at the moment that `next_at` names, call `run`: it
    returns the requests that are granted now."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}
        self._due: list[Request] = []
        self._alarms: list[tuple[float, int, Bucket]] = []
        self._retiring: list[tuple[float, int, Bucket]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """Buckets that are remembered."""
        return len(self._buckets)

    # ------------------------------------------------------------ what happens

    def ask(
        self, charges: tuple[Charge, ...], priority: Priority, shown_at: float, now: float
    ) -> Request:
        """Wait for room for all charges. Among updates the smallest `shown_at` is first."""
        needs: dict[str, int] = {}
        windows: dict[str, tuple[Window, ...]] = {}
        for charge in charges:
            needs[charge.bucket] = needs.get(charge.bucket, 0) + 1
            windows[charge.bucket] = charge.windows
        buckets = [self._bucket(name) for name in needs]
        for bucket in buckets:
            bucket.document(windows[bucket.name])
            bucket.wanted += 1
        staleness = shown_at if priority is Priority.UPDATE else 0.0
        rank = (priority, staleness, next(self._numbers))
        request = Request(tuple(zip(buckets, needs.values(), strict=True)), priority, rank)
        self._examine(request)
        return request

    def withdraw(self, request: Request) -> None:
        """Forget a request; if it was granted, its calls were not made."""
        if request.granted_at is not None:
            for bucket, need in request.needs:
                bucket.give_back(request, need)
                self._examine_first(bucket)
            request.granted_at = None
        elif not request.over:
            self._leave(request)

    def depart(self, request: Request) -> None:
        """The calls of a granted request are on their way, until `land`."""
        for bucket, need in request.needs:
            bucket.depart(request, need)

    def land(self, request: Request, now: float) -> None:
        """They were answered, or nobody waits for them any more."""
        for bucket, _ in request.needs:
            bucket.land(request, now)

    def refused(self, name: str, retry_after: float, now: float) -> None:
        """The platform refused a call of this bucket: closed for `retry_after` seconds."""
        bucket = self._bucket(name)
        bucket.refuse(max(0.0, retry_after), now)
        self._release(bucket)

    def run(self, now: float) -> list[Request]:
        self._retire(now)
        while self._alarms and self._alarms[0][0] <= now + TICK:
            self._silence()
        granted: list[Request] = []
        while self._due:
            request = heapq.heappop(self._due)
            request.due = False
            if not request.over and self._decide(request, now):
                granted.append(request)
        return granted

    def next_at(self) -> float | None:
        """The next moment at which a waiting request may go; None when none waits."""
        while self._alarms:
            at, _, bucket = self._alarms[0]
            if bucket.line and bucket.wake_at == at:
                return at
            self._silence()
        return None

    def _silence(self) -> None:
        """Take the next alarm away; what it was set for is looked at, if it still waits."""
        at, _, bucket = heapq.heappop(self._alarms)
        if bucket.wake_at == at:
            bucket.wake_at = float("-inf")
            self._examine_first(bucket)

    # ------------------------------------------------------------ deciding

    def _decide(self, request: Request, now: float) -> bool:
        turns = [bucket.opens_at(request, need, now) for bucket, need in request.needs]
        last = max(turns)
        if last > now + TICK:
            line = request.needs[turns.index(last)][0]
            for (bucket, need), turn in zip(request.needs, turns, strict=True):
                if bucket is line:
                    bucket.claims.pop(request, None)
                elif turn > now + TICK or bucket is request.line:
                    bucket.claims[request] = need
            self._wait(request, line, last)
            return False
        for bucket, need in request.needs:
            bucket.take(need, request.priority, now)
        request.granted_at = now
        self._leave(request)
        return True

    def _wait(self, request: Request, bucket: Bucket, turn_at: float) -> None:
        """Stand in this bucket's line; the lines left behind stay claimed."""
        request.turn_at, left = turn_at, request.line
        if left is not bucket:
            request.line = bucket
            insort(bucket.line, request)
            if left is not None:
                self._step_out(request, left)
        if bucket.line[0] is request and bucket.wake_at != turn_at:
            bucket.wake_at = turn_at
            heapq.heappush(self._alarms, (turn_at, next(self._numbers), bucket))

    def _leave(self, request: Request) -> None:
        request.over = True
        if request.line is not None:
            self._step_out(request, request.line)
            request.line = None
        self._disclaim(request)
        for bucket, _ in request.needs:
            bucket.wanted -= 1
            self._release(bucket)

    def _step_out(self, request: Request, bucket: Bucket) -> None:
        del bucket.line[bisect_left(bucket.line, request)]
        self._examine_first(bucket)

    def _disclaim(self, request: Request) -> None:
        for bucket, _ in request.needs:
            if bucket.claims.pop(request, None) is not None:
                self._examine_first(bucket)

    def _examine_first(self, bucket: Bucket) -> None:
        if bucket.line:
            self._examine(bucket.line[0])

    def _examine(self, request: Request) -> None:
        if not request.due:
            request.due = True
            heapq.heappush(self._due, request)

    # ------------------------------------------------------------ memory

    def _bucket(self, name: str) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(name)
        return bucket

    def _release(self, bucket: Bucket) -> None:
        """Nobody waits for this bucket: forget it when it is as good as new."""
        if bucket.wanted == 0 and not bucket.retiring:
            self._retire_at(bucket, bucket.idle_at())

    def _retire_at(self, bucket: Bucket, at: float) -> None:
        bucket.retiring = True
        heapq.heappush(self._retiring, (at, next(self._numbers), bucket))

    def _retire(self, now: float) -> None:
        while self._retiring and self._retiring[0][0] <= now:
            bucket = heapq.heappop(self._retiring)[2]
            bucket.retiring = False
            if bucket.busy:
                self._retire_at(bucket, now + LONG)
            elif bucket.idle_at() > now:
                self._release(bucket)
            elif bucket.wanted == 0:
                del self._buckets[bucket.name]


class Grant:
    """Calls that may be made now: those of `charges`. What the server gets late counts
    late: tell when they leave (`depart`) and when they were answered (`land`)."""

    def __init__(
        self, pacer: Pacer, charges: tuple[Charge, ...], request: Request | None = None
    ) -> None:
        self.charges = charges
        self._pacer, self._request = pacer, request

    def depart(self) -> None:
        if self._request is not None:
            self._pacer.depart(self._request)

    def land(self) -> None:
        if self._request is not None:
            self._pacer.land(self._request)

    def give_back(self) -> None:
        """The calls are not made after all."""
        if self._request is not None:
            self._pacer.give_back(self._request)


class Pacer:
    """Hands out the calls that the platform allows. Finals come first, then first frames,
    then the card that is most stale. With N live cards and R calls a second left by the
    tightest window, each card is shown about every max(own pace, N/R) seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scheduler = Scheduler()
        self._waiting: dict[Request, asyncio.Future[None]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0

    async def grant(
        self, charges: tuple[Charge, ...], priority: Priority, shown_at: float
    ) -> Grant:
        """Returns when the calls may be made, all of them, now; they are counted then.
        `shown_at` is when the card was shown last, on the clock's monotonic(). A caller
        that is cancelled leaves nothing behind."""
        if not charges:
            return Grant(self, ())
        request = self._ask(charges, priority, shown_at)
        if request.granted_at is not None:
            return Grant(self, charges, request)
        granted = self._waiting[request] = asyncio.get_running_loop().create_future()
        try:
            await granted
        except asyncio.CancelledError:
            self._waiting.pop(request, None)
            self.give_back(request)
            raise
        return Grant(self, charges, request)

    def at_once(
        self, charges: tuple[Charge, ...], priority: Priority, shown_at: float
    ) -> Grant | None:
        """As grant(), if nothing has to be waited for."""
        if not charges:
            return Grant(self, ())
        request = self._ask(charges, priority, shown_at)
        if request.granted_at is not None:
            return Grant(self, charges, request)
        self.give_back(request)
        return None

    def _ask(self, charges: tuple[Charge, ...], priority: Priority, shown_at: float) -> Request:
        """A request that has been granted already, if nothing has to be waited for."""
        request = self._scheduler.ask(charges, priority, shown_at, self._clock.monotonic())
        self._run(request)
        return request

    @asynccontextmanager
    async def room(self, charge: Charge) -> AsyncIterator[None]:
        """As bot.contract.Budget: behind the replies, in the order in which they ask."""
        grant = await self.grant((charge,), Priority.UPDATE, self._clock.monotonic())
        grant.depart()
        try:
            yield
        except RateLimited as error:
            self.refused(error.bucket or charge.bucket, error.retry_after)
            raise
        finally:
            grant.land()

    def depart(self, request: Request) -> None:
        self._scheduler.depart(request)

    def land(self, request: Request) -> None:
        self._scheduler.land(request, self._clock.monotonic())

    def give_back(self, request: Request) -> None:
        self._scheduler.withdraw(request)
        self._run()

    def refused(self, bucket: str, retry_after: float) -> None:
        """The platform refused a call counted in `bucket` for its rate: nothing more for
        `retry_after` seconds, and a lower limit that comes back slowly."""
        self._scheduler.refused(bucket, retry_after, self._clock.monotonic())

    def _run(self, hasty: Request | None = None) -> None:
        """`hasty` is a request that nobody waits for."""
        for request in self._scheduler.run(self._clock.monotonic()):
            granted = None if request is hasty else self._waiting.pop(request)
            if granted is not None and not granted.done():
                granted.set_result(None)
        self._set_timer()

    def _set_timer(self) -> None:
        """One timer, for the next moment at which something can change."""
        due = self._scheduler.next_at()
        if self._timer is not None and due is not None and self._timer_at <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_at = due
            self._timer = asyncio.create_task(self._wake(due), name="pace")

    async def _wake(self, due: float) -> None:
        await self._clock.sleep(due - self._clock.monotonic())
        self._timer = None
        self._run()
