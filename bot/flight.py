"""The calls of one reply: each waits for its room in the budget, and one is on its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from bot.contract import Charge, Clock, ReplySink, Snapshot, Step
from bot.errors import RateLimited, Transient
from bot.pace import Grant, Pacer, Priority

log = logging.getLogger(__name__)

Note = Callable[[str, str], None]
"""Notes a moment: what happened, and a detail for operators."""


class Flight:
    """Shared by the parts of a reply."""

    def __init__(self, pacer: Pacer, clock: Clock, note: Note) -> None:
        self._pacer, self._clock, self._note = pacer, clock, note
        self._call: asyncio.Future[Any] | None = None

    async def room(self, sink: ReplySink, step: Step, priority: Priority, shown_at: float) -> Grant:
        return await self._pacer.grant(sink.charges(step), priority, shown_at)

    async def final_room(
        self, sink: ReplySink, shown_at: float, deadline: float, hurried: asyncio.Event
    ) -> Grant:
        """Room for a final. Raises Transient when there is none until the deadline."""
        free = self._pacer.at_once(sink.charges("finish"), Priority.FINAL, shown_at)
        if free is not None:
            return free
        grant = asyncio.ensure_future(self.room(sink, "finish", Priority.FINAL, shown_at))
        hurry = asyncio.ensure_future(hurried.wait())
        try:
            async with self._clock.timeout(max(0.1, deadline - self._clock.monotonic())):
                await asyncio.wait({grant, hurry}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            log.info("no room in the budget for a final")
        finally:
            hurry.cancel()
            if not grant.done():
                grant.cancel()
        found = (await asyncio.gather(grant, return_exceptions=True))[0]
        if isinstance(found, BaseException):
            raise Transient("no room in the budget in time")
        return found

    async def call(self, sink: ReplySink, step: Step, snapshot: Snapshot, grant: Grant) -> Any:
        """One granted call. When the caller is cancelled the call goes on: a request on
        the wire cannot be taken back, and `landed` waits for it."""
        rung = sink.handle.rung
        method = {"open": sink.open, "show": sink.show, "finish": sink.finish}[step]
        grant.depart()
        call: asyncio.Future[Any] = asyncio.ensure_future(method(snapshot))
        call.add_done_callback(lambda _: grant.land())
        self._call = call
        try:
            return await asyncio.shield(call)
        except RateLimited as error:
            bucket = error.bucket or _narrowest(grant.charges)
            if bucket:
                self._pacer.refused(bucket, error.retry_after)
            raise
        finally:
            if rung and sink.handle.rung != rung:
                self._note("stepped_down", f"{rung} → {sink.handle.rung}")

    async def landed(self) -> None:
        """Returns when nothing is on its way any more."""
        if self._call is not None:
            await asyncio.gather(self._call, return_exceptions=True)


def _narrowest(charges: tuple[Charge, ...]) -> str:
    """Where a refusal that blames no bucket is counted: at the card, message or chat, which
    has the least room. What an API refuses to the whole app carries its name; to close
    that for a trouble of unknown reach would let one card hold up the finals of all."""
    narrowest = min(charges, key=_room, default=None)
    return narrowest.bucket if narrowest else ""


def _room(charge: Charge) -> float:
    """Calls a second."""
    return min((w.limit / w.seconds for w in charge.windows), default=0.0)
