"""What came too late to be run by itself: one line per chat names it and offers to answer
it now, which is its visible outcome (design.md 5)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from bot.contract import Clock, Ending, Event, NewTurn, Turn, TurnStore, words_of
from bot.endings import LATE
from bot.tasks import TaskSet, until_stored

SETTLE = 2.0
"""Seconds in which the late messages of one chat are gathered into one line."""

SHOWN = 3
"""Messages that are quoted; the others are counted."""

Tell = Callable[[Turn], Awaitable[None]]


@dataclass(eq=False)
class LateMessages:
    """`tell` answers a notice in its chat."""

    store: TurnStore
    clock: Clock
    tell: Tell
    _chats: dict[str, list[Turn]] = field(default_factory=dict)
    _tasks: TaskSet = field(default_factory=TaskSet)

    def add(self, turn: Turn) -> None:
        """A late message was claimed."""
        waiting = self._chats.setdefault(turn.new.conversation, [])
        waiting.append(turn)
        if len(waiting) == 1:
            self._tasks.spawn(self._offer(turn.new.conversation), name="late")

    async def _offer(self, conversation: str) -> None:
        """The notice is safe before the turns count as told of: whoever sees it may ask
        for them, and a notice that a crash kept back is told at the next start."""
        await self.clock.sleep(SETTLE)
        turns = await self._left(self._chats.pop(conversation))
        if not turns:
            return
        new = self._notice(turns)
        event = Event(f"{new.bot}:late:{turns[0].id}:{turns[-1].id}", new)
        accepted = await until_stored(lambda: self.store.accept(event), self.clock)
        assert accepted.turn is not None
        proof = f"late:{accepted.turn.id}"
        told = Ending("refused", error="late", delivery="delivered", proof=proof)
        for turn in turns:
            await until_stored(partial(self.store.finish, turn.id, told), self.clock)
        if accepted.fresh:
            await self.tell(accepted.turn)

    async def _left(self, turns: list[Turn]) -> list[Turn]:
        """Those that were not recalled meanwhile, oldest first."""
        known = [
            await until_stored(partial(self.store.turn, turn.id), self.clock) for turn in turns
        ]
        left = [turn for turn in known if turn is not None and not turn.ended]
        return sorted(left, key=lambda turn: turn.new.asked_at)

    def _notice(self, turns: list[Turn]) -> NewTurn:
        newest = turns[-1].new
        quotes = [f"> {words_of(turn.new.parts)[:60]}" for turn in turns[:SHOWN]]
        if len(turns) > SHOWN:
            quotes.append("> …")
        blanks = {
            "count": len(turns),
            "minutes": max(1, round((self.clock.time() - turns[0].new.asked_at) / 60)),
            "quotes": "\n".join(quotes),
            "turns": [turn.id for turn in turns],
        }
        return replace(
            newest,
            id=uuid.uuid4().hex,
            kind="notice",
            message_id="",
            parts=(),
            notice=LATE,
            notice_args=blanks,
        )

    async def close(self) -> None:
        await self._tasks.cancel()


def named_in(notice: Turn) -> tuple[str, ...]:
    """The ids of the turns that a late notice offers."""
    return tuple(notice.new.notice_args.get("turns", ()))


def notice_of(turn: Turn) -> str:
    """The id of the notice that offered this late turn; empty for any other turn."""
    ending = turn.ending
    if ending is None or ending.error != "late" or not ending.proof.startswith("late:"):
        return ""
    return ending.proof.removeprefix("late:")
