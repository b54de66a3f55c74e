"""Answers that could not be delivered in time: tried again for a day under the same key,
then left on the operator's list (design.md 5)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from bot.contract import Clock, Delivery, Ending, Snapshot, Turn, TurnStore
from bot.endings import final
from bot.errors import BorderError, StoreError
from bot.replies import Replies
from bot.reply import RETRYABLE

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
FIRST, SLOWEST = 10.0, 600.0
"""Seconds before the next try: doubled each time."""

GIVE_UP = 86_400.0
"""Seconds after the question was claimed from which nothing is tried by itself."""

PATIENCE = 20.0
"""Seconds that one try may take."""


@dataclass(eq=False)
class Deliveries:
    """The background loop, and the operator's re-send."""

    store: TurnStore
    replies: Replies
    clock: Clock

    async def run(self) -> None:
        """Look for what is due until cancelled."""
        while True:
            await self.clock.sleep(LOOK_EVERY)
            try:
                for turn in await self.store.due(self.clock.time()):
                    await self._again(turn)
            except StoreError as error:
                log.warning("undelivered answers not read: %s", error)

    async def _again(self, turn: Turn) -> None:
        error = await self.resend(turn)
        if error is None:
            return
        age = self.clock.time() - turn.seen_at
        lasting = not isinstance(error, RETRYABLE)
        earlier = turn.ending.trail if turn.ending else ()
        tries = 1 + sum(moment.what == "retried" for moment in earlier)
        wait = min(SLOWEST, FIRST * 2.0 ** min(tries, 10))
        until = None if lasting or age > GIVE_UP else self.clock.time() + wait
        await self.store.postpone(turn.id, until)

    async def resend(self, turn: Turn) -> BorderError | None:
        """One try under the same key; stores what came of it, and returns the error that
        stands in the way, or None. A reply of unknown fate is sent anew, which only an
        operator orders. Raises StoreError."""
        ending = turn.ending
        assert ending is not None
        if ending.delivery == "unconfirmed":
            turn = replace(turn, handles=())
        trails = self.replies.trails
        trails.begin(turn)
        trails.note(turn.id, "retried")
        if turn.new.bot not in self.replies.platforms:
            return BorderError(f"no bot {turn.new.bot}")
        reply = self.replies.make(turn, Snapshot())
        reply.add(ending.text)
        delivery = await reply.close(final(turn, ending), patience=PATIENCE)
        ending = delivered(ending, delivery)
        await self.store.delivered(turn.id, replace(ending, trail=trails.of(turn.id)))
        return None if delivery is not None else reply.failure or BorderError("not delivered")


def delivered(ending: Ending, delivery: Delivery | None) -> Ending:
    """The ending with what came of its delivery; None: not in time, or not at all."""
    if delivery is None:
        return replace(ending, delivery="undelivered")
    return replace(ending, delivery=delivery.state, proof=delivery.proof)
