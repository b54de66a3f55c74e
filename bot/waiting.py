"""Turns that wait behind others: a mark on the message at once, and after a moment a card
that tells the position and later becomes the answer (design.md 6)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from bot.contract import Clock, Ending, Snapshot, Turn
from bot.endings import final, growing
from bot.receipts import Receipts
from bot.replies import Replies
from bot.reply import Reply
from bot.tasks import TaskSet
from bot.texts import say

log = logging.getLogger(__name__)

SHOW_AFTER = 3.0
"""Seconds of waiting after which the position is shown."""

CLOSE_SECONDS = 10.0
"""How long the card of a turn that was stopped while it waited is tried; its lane tries
again when it comes to it."""


@dataclass(slots=True)
class _Guest:
    turn: Turn
    ahead: int
    timer: asyncio.Task[None] | None = None
    reply: Reply | None = None


@dataclass(eq=False)
class WaitingRoom:
    """Who waits in this process, lane by lane in order."""

    replies: Replies
    receipts: Receipts
    clock: Clock
    _lanes: dict[str, list[_Guest]] = field(default_factory=dict)
    _closing: dict[str, tuple[asyncio.Task[None], Reply]] = field(default_factory=dict)
    _tasks: TaskSet = field(default_factory=TaskSet)

    def enter(self, turn: Turn, ahead: int) -> None:
        """The message was taken and stands behind `ahead` others."""
        guest = _Guest(turn, ahead)
        self._lanes.setdefault(turn.new.lane, []).append(guest)
        self.receipts.waiting(turn)
        guest.timer = self._tasks.spawn(self._show_later(guest), name=f"wait {turn.id[:8]}")

    async def _show_later(self, guest: _Guest) -> None:
        await self.clock.sleep(SHOW_AFTER)
        guest.reply = self.replies.make(guest.turn, self._look(guest))
        guest.reply.start()
        self.replies.trails.note(guest.turn.id, "waiting", str(guest.ahead))

    def _look(self, guest: _Guest) -> Snapshot:
        words = say("card.waiting", guest.turn.new.lang, ahead=guest.ahead)
        return growing(guest.turn, words)

    def shown(self, lane: str) -> set[str]:
        """Ids of the turns of this lane that have a card here, or one on its way."""
        guests = self._lanes.get(lane, [])
        return {g.turn.id for g in guests if g.reply is not None and g.reply.grows}

    async def take(self, turn: Turn) -> Reply | None:
        """The turn's time has come: the reply whose card is open, if there is one. A card
        that is being closed is closed first, so that nobody else writes to it meanwhile."""
        closing = self._closing.pop(turn.id, None)
        if closing is None:
            return self._leave(turn)
        closed, reply = closing
        await asyncio.wait({closed})
        return reply

    def _leave(self, turn: Turn) -> Reply | None:
        guests = self._lanes.get(turn.new.lane, [])
        guest = next((g for g in guests if g.turn.id == turn.id), None)
        if guest is None:
            return None
        self._remove(guest)
        return guest.reply

    def _remove(self, guest: _Guest) -> None:
        lane = guest.turn.new.lane
        guests = self._lanes[lane]
        guests.remove(guest)
        if not guests:
            del self._lanes[lane]
        self.receipts.over(guest.turn)
        if guest.timer is not None:
            guest.timer.cancel()

    def moved(self, turn: Turn) -> None:
        """The turn has left its lane: those behind it are one nearer."""
        for guest in self._lanes.get(turn.new.lane, []):
            if guest.turn.no < turn.no:
                continue
            guest.ahead = max(1, guest.ahead - 1)
            if guest.reply is not None:
                guest.reply.retitle(self._look(guest))

    def stopped(self, turn: Turn) -> None:
        """The turn was ended while it waited: its card, if it has one, says so now. One
        without a card has left its lane; the lane itself closes what has one again."""
        waits = any(guest.turn.id == turn.id for guest in self._lanes.get(turn.new.lane, []))
        reply = self._leave(turn)
        if reply is None and turn.handles:
            reply = self.replies.make(turn, Snapshot())
        if waits and turn.ended:
            self.moved(turn)
        if turn.ending is None:
            return
        self.replies.trails.learn(turn)
        if reply is not None:
            closed = self._tasks.spawn(self.end(turn, reply, turn.ending), name="close waiting")
            if not turn.ended:
                self._closing[turn.id] = closed, reply

    async def end(self, turn: Turn, reply: Reply, ending: Ending) -> None:
        """Close the card of a turn that was ended while it waited, if there is one."""
        await reply.leave()
        gone = ending.state == "recalled" and await self.replies.retract(turn, reply)
        if gone or reply.untouched:
            return
        await reply.close(final(turn, ending), patience=CLOSE_SECONDS)

    async def close(self) -> None:
        """Leave the open cards to the next process, and no mark that it could not take
        back."""
        await self._tasks.cancel()
        for guests in list(self._lanes.values()):
            for guest in guests:
                self.receipts.over(guest.turn)
                if guest.reply is not None:
                    await guest.reply.leave()
