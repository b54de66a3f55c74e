"""Answers that could not be delivered in time: tried again for a day under the same key,
then left on the operator's list (design.md 5)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from bot.contract import Clock, Delivery, Ending, Snapshot, Turn, TurnStore
from bot.endings import CONTENT, final
from bot.errors import BorderError, Bug, PermissionDenied, QuotaExhausted, StoreError, Transient
from bot.replies import Replies
from bot.reply import PASSING
from bot.trail import Trails

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
FIRST, SLOWEST = 10.0, 600.0
"""Seconds before the next try: a third of the turn's age, so that they grow."""

REPAIR = 1_800.0
"""The same, at least and at first, after a missing permission: only somebody who repairs it
helps, and each try costs a call of the month (needs.md 25)."""

QUOTA = 3_600.0
"""The same, for whatever a bot has to deliver, after the platform's word that a quota is
used up: one try an hour tells whether more was bought, or a new month began."""

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
    _trying: set[str] = field(default_factory=set)
    _spent: dict[str, float] = field(default_factory=dict)

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
        bot, spent_until = turn.new.bot, self._spent.get(turn.new.bot, 0.0)
        if self.clock.time() < spent_until:
            await self.store.postpone(turn.id, spent_until)
            return
        try:
            error = await self.resend(turn)
        except StoreError:
            raise
        except Exception as unforeseen:
            log.exception("turn %s could not be sent again", turn.id)
            error = Bug(type(unforeseen).__name__)
        if error is None:
            return
        now = self.clock.time()
        if isinstance(error, QuotaExhausted):
            self._spent[bot] = now + QUOTA
        await self.store.postpone(turn.id, next_try(error, turn, now))

    async def resend(self, turn: Turn) -> BorderError | None:
        """One try, unless one is under way. Returns the error that stands in the way, or
        None. Raises StoreError."""
        if turn.id in self._trying:
            return Transient("正在重发 / being sent already")
        self._trying.add(turn.id)
        try:
            return await self._try(turn)
        finally:
            self._trying.discard(turn.id)

    async def _try(self, turn: Turn) -> BorderError | None:
        """Under the same key; stores what came of it. A reply of unknown fate is sent anew,
        which only an operator orders, and stays one until that is proven."""
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
        if delivery is not None:
            note_closed(trails, turn.id, delivery)
        if delivery is not None or ending.delivery != "unconfirmed":
            ending = delivered(ending, delivery)
        await self.store.delivered(turn.id, replace(ending, trail=trails.of(turn.id)))
        return None if delivery is not None else reply.failure or BorderError("not delivered")


def next_try(error: BorderError | None, turn: Turn, now: float) -> float | None:
    """When the answer that met this error is sent again by itself; None for never."""
    age = now - turn.seen_at
    if age > GIVE_UP or not isinstance(error, (*PASSING, QuotaExhausted)):
        return None
    if isinstance(error, PermissionDenied):
        return now + max(REPAIR, age)
    if isinstance(error, QuotaExhausted):
        return now + QUOTA
    return now + min(max(FIRST, age / 3), SLOWEST)


def note_closed(trails: Trails, turn_id: str, delivery: Delivery) -> None:
    if delivery.replaced:
        trails.note(turn_id, "replaced")
    trails.note(turn_id, "closed", delivery.state)


def delivered(ending: Ending, delivery: Delivery | None) -> Ending:
    """The ending with what came of its delivery; None: not in time, or not at all. An
    answer in whose place the person saw another sentence is none, though it was decided:
    it fails, and stays out of the history. A try after a crash is refused like the first."""
    if delivery is None:
        return replace(ending, delivery="undelivered")
    ending = replace(ending, delivery=delivery.state, proof=delivery.proof)
    if not delivery.replaced or ending.state not in ("answered", "stopped"):
        return ending
    return replace(ending, state="failed", error=CONTENT)
