"""The TurnStore: bot.contract's methods, each one transaction in the store's thread."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from bot.contract import (
    Accepted,
    Account,
    Backlog,
    CallCount,
    Clock,
    Conversation,
    Ending,
    Event,
    Foresee,
    Gap,
    Handle,
    Json,
    Part,
    Started,
    Turn,
    TurnState,
    TurnStore,
    UsageTotal,
)
from storage import accounts, beats, calls, deliveries, hearing, intake, rows, turns
from storage import history as past
from storage.database import Database
from storage.leases import Beat, Fence, Holder, Lease, NotOurs, Stamp
from storage.sqlite import path_of

T = TypeVar("T")

PRUNE_TOGETHER = 500
"""Event keys forgotten in one transaction; others are served in between."""


async def open_store(url: str, clock: Clock, *, durable: bool = True) -> TurnStore:
    """The store at `url` (`sqlite:///folder/queqiao.db`; both are made when missing),
    with its schema up to date. `durable` false does not flush: for tests only.

    Raises StoreError for another kind of URL or an unwritable file, StoreLocked when a
    process holds the store, StoreTooNew when a newer version wrote it.
    """
    database = Database(path_of(url), durable=durable, now=clock.time)
    await database.open()
    return SqlTurnStore(database, clock)


class SqlTurnStore:
    """A bot.contract.TurnStore. `me` is this process in the rows of what it owns: another
    one at every start, so what an earlier process held is recognised.

    With a `lease` it is one of several on the same database (storage.leases): it owns
    nothing before its first beat, `beat` is to be called every `lease.beat` seconds,
    `may_speak` before every call to the outside, and what is written to a turn that was
    taken over is not stored: start and finish then return None, `may_speak` of the turn is
    False from then on, and the next beat names it among the lost."""

    def __init__(self, database: Database, clock: Clock, lease: Lease | None = None) -> None:
        self.database = database
        self.me = Holder(leased=lease is not None)
        self._clock = clock
        self._lease = lease or Lease()
        self._fence = Fence(self._lease, clock)
        self._idle: frozenset[tuple[str, int]] = frozenset()
        self._absent: frozenset[str] = frozenset()

    async def _mine(self, work: Callable[[Connection, Holder], T]) -> T | None:
        """None when the turn was taken over: nothing is written, and it is not spoken
        for any more."""
        me = self.me
        try:
            return await self.database.run(lambda c: work(c, me))
        except NotOurs as lost:
            me.drop((lost.key,))
            return None

    # ------------------------------------------------------------ the life of a turn

    async def accept(self, event: Event, foresee: Foresee | None = None) -> Accepted:
        me, now = self.me, self._clock.time()
        free = not me.leased or self._fence.open()
        accepted = await self.database.run(
            lambda c: intake.accept(c, me, now, event, free), foresee
        )
        if me.leased and free and accepted.fresh:
            me.take_all(accepted)
        return accepted

    async def start(self, turn_id: str, history: int) -> Started | None:
        return await self._mine(lambda c, me: turns.start(c, me, turn_id, history))

    async def rewrite(self, turn_id: str, parts: tuple[Part, ...]) -> None:
        now = self._clock.time()
        await self.database.run(lambda c: turns.rewrite(c, now, turn_id, parts))

    async def save_handle(self, turn_id: str, part: int, handle: Handle) -> None:
        await self._mine(lambda c, me: turns.save_handle(c, me, turn_id, part, handle))

    async def checkpoint(self, turn_id: str, text: str, reasoning: str) -> None:
        await self._mine(lambda c, me: turns.checkpoint(c, me, turn_id, text, reasoning))

    async def hand_over(self, turn_id: str, text: str, reasoning: str) -> None:
        await self._mine(lambda c, me: turns.hand_over(c, me, turn_id, text, reasoning))

    async def decide(self, turn_id: str, ending: Ending) -> None:
        await self._mine(lambda c, me: turns.decide(c, me, turn_id, ending))

    async def finish(self, turn_id: str, ending: Ending) -> Turn | None:
        me, now = self.me, self._clock.time()
        moved = await self._mine(lambda c, holder: turns.finish(c, holder, now, turn_id, ending))
        me.turns.discard(turn_id)
        if moved is None:
            return None
        if moved.freed:
            me.lanes.pop(moved.lane, None)
        return moved.following

    async def stop_waiting(
        self,
        lane: str,
        sender: str | None,
        state: TurnState = "stopped",
        shown: Collection[str] = (),
        before: int | None = None,
    ) -> tuple[Turn, ...]:
        me, now = self.me, self._clock.time()
        return await self.database.run(
            lambda c: turns.stop_waiting(c, me, now, lane, sender, state, shown, before)
        )

    async def behind(self, turn: Turn) -> tuple[Turn, ...]:
        return await self.database.run(lambda c: turns.behind(c, turn.no, turn.new.lane))

    async def withdraw(self, turn_id: str, state: TurnState, *, shown: bool = False) -> bool:
        me, now = self.me, self._clock.time()
        return await self.database.run(
            lambda c: turns.withdraw(c, me, now, turn_id, state, shown=shown)
        )

    async def recover(self) -> tuple[Turn, ...]:
        """With a lease: the first beat, and what it finds."""
        me = self.me
        if me.leased:
            return (await self.beat(())).heads
        return await self.database.run(lambda c: beats.recover(c, me))

    # ------------------------------------------------------------ one of several

    async def beat(self, lanes: Collection[str], outside: Collection[str] | None = None) -> Beat:
        """Prove that this process lives, and learn what it lost and what is to be run.
        `lanes`: those that its tasks work on; `outside`: ids of the turns outside lanes
        likewise, or None when that is not known. The caller acts on the result before it
        beats again."""
        sent, me = self._fence.stamp(), self.me
        if not me.joined:
            await self.database.run(lambda c: beats.join(c, me, self._lease))
            me.joined = True
        working = frozenset(lanes), None if outside is None else frozenset(outside)
        found = None
        if not self._fence.late(sent):
            seen = me.seen(*working, self._idle, self._absent)
            found = await self.database.run(lambda c: beats.beat(c, me, self._lease, seen))
        if found is None:
            return await self._renew(sent, (*lanes, *(outside or ())))
        self._idle, self._absent = found.idle, found.absent
        me.drop(found.lost)
        for head, epoch in found.heads:
            me.take(head, epoch)
        self._fence.beaten(sent)
        return Beat(found.lost, tuple(head for head, _ in found.heads), found.stops)

    async def _renew(self, sent: Stamp, working: tuple[str, ...]) -> Beat:
        """We were late, so others may have taken over: we are a new one that has nothing
        yet. What the old one held is free for the next beat of anybody."""
        old, new = self.me, Holder(leased=True, joined=True)
        await self.database.run(lambda c: beats.join(c, new, self._lease, old.id))
        self.me = new
        self._idle, self._absent = frozenset(), frozenset()
        self._fence.beaten(sent)
        return Beat(lost=tuple(sorted({*old.lanes, *old.turns, *working})))

    def may_speak(self, turn: Turn | None = None) -> bool:
        """Whether a call to the outside may be made now, for this turn."""
        me = self.me
        return not me.leased or (self._fence.open() and (turn is None or me.has(turn)))

    async def release(self) -> None:
        """Hand everything over at once, at a clean end; others take it at their next
        beat."""
        me = self.me
        self._fence.close()
        await self.database.run(lambda c: beats.release(c, me))
        self.me = Holder(leased=me.leased)

    # ------------------------------------------------------------ conversations

    async def conversation(self, key: str) -> Conversation:
        return await self.database.run(lambda c: past.read_conversation(c, key))

    async def cut(self, key: str) -> int:
        return await self.database.run(lambda c: past.cut(c, key))

    async def choose(self, key: str, name: str, value: str) -> None:
        await self.database.run(lambda c: past.choose(c, key, name, value))

    # ------------------------------------------------------------ looking back

    async def turn(self, turn_id: str) -> Turn | None:
        return await self.database.run(lambda c: rows.read_turn(c, turn_id))

    async def turn_of(self, bot: str, message_id: str) -> Turn | None:
        return await self.database.run(
            lambda c: rows.read_turn(c, past.asked_by(c, bot, message_id) or "")
        )

    async def last_turn(self, conversation: str, sender: str = "") -> Turn | None:
        return await self.database.run(
            lambda c: rows.read_turn(c, past.newest_ended(c, conversation, sender) or "")
        )

    async def unfinished(self, lane: str, sender: str) -> Turn | None:
        return await self.database.run(
            lambda c: rows.read_turn(c, past.unfinished(c, lane, sender) or "")
        )

    async def usage(self, *, since: float, conversation: str = "", sender: str = "") -> UsageTotal:
        return await self.database.run(lambda c: past.usage(c, since, conversation, sender))

    async def accounts(self, message_id: str, bots: tuple[str, ...]) -> tuple[Account, ...]:
        return await self.database.run(lambda c: accounts.accounts(c, message_id, bots))

    async def backlog(self) -> Backlog:
        return await self.database.run(accounts.backlog)

    # ------------------------------------------------------------ looking after deliveries

    async def undelivered(self, limit: int = 100) -> tuple[Turn, ...]:
        return await self.database.run(lambda c: deliveries.undelivered(c, limit))

    async def due(self, now: float, limit: int = 20) -> tuple[Turn, ...]:
        me = self.me
        return await self.database.run(lambda c: deliveries.due(c, me, now, limit))

    async def postpone(self, turn_id: str, until: float | None) -> None:
        await self.database.run(lambda c: deliveries.postpone(c, turn_id, until))

    async def delivered(self, turn_id: str, ending: Ending) -> None:
        await self.database.run(lambda c: deliveries.delivered(c, turn_id, ending))

    # ------------------------------------------------------------ what may have been missed

    async def heard(self, bot: str) -> float:
        return await self.database.run(lambda c: hearing.last_heard(c, bot))

    async def hear(self, bot: str, at: float) -> None:
        await self.database.run(lambda c: hearing.hear(c, bot, at))

    async def addresses(self, bot: str, since: float) -> tuple[tuple[str, Json], ...]:
        return await self.database.run(lambda c: hearing.addresses(c, bot, since))

    async def miss(self, gap: Gap) -> None:
        await self.database.run(lambda c: hearing.miss(c, gap))

    async def gaps(self, limit: int = 100) -> tuple[Gap, ...]:
        return await self.database.run(lambda c: hearing.gaps(c, limit))

    # ------------------------------------------------------------ what the month has cost

    async def count_calls(self, more: tuple[CallCount, ...], month: str) -> tuple[CallCount, ...]:
        return await self.database.run(lambda c: calls.count_calls(c, more, month))

    # ------------------------------------------------------------ care

    async def prune(self, before: float) -> int:
        await self.database.run(lambda c: hearing.forget_gaps(c, before))
        total = 0
        while True:
            gone = await self.database.run(
                lambda c: accounts.forget_events(c, before, PRUNE_TOGETHER)
            )
            total += gone
            if gone < PRUNE_TOGETHER:
                return total

    async def backup(self, path: str) -> None:
        await self.database.backup(Path(path))

    async def close(self) -> None:
        try:
            if self.me.joined:
                await self.release()
        finally:
            await self.database.close()
