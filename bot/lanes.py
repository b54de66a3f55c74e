"""One lane per conversation and person: one turn at a time, in order (law 2).

The order lives in the store; here lives only the task that works on a lane, and the
switch that ends what runs in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from bot.contract import Started, Turn, TurnState
from bot.tasks import TaskSet


class Running:
    """A turn while it runs. `end` may be called from anywhere, more than once; the first
    reason wins. `ended` holds the reason; `work` is the task that it cancels. `decided`: the
    outcome stands, only its delivery is under way. `started`: it was begun when it was
    claimed. `leaving`:
    this process shuts down, and the next one goes on with what is unfinished; `hurry`
    then cuts waiting short."""

    def __init__(self, turn: Turn, started: Started | None = None) -> None:
        self.turn = turn
        self.started = started
        self.ended: TurnState | None = None
        self.leaving = False
        self.decided = False
        self.work: asyncio.Task[None] | None = None
        self.hurry: Callable[[], None] | None = None

    def end(self, reason: TurnState) -> None:
        if self.ended is None and not self.leaving:
            self.ended = reason
            self._cancel()

    def hand_over(self) -> None:
        self.leaving = True
        self._cancel()
        if self.hurry is not None:
            self.hurry()

    def _cancel(self) -> None:
        if self.work is not None:
            self.work.cancel()


Answer = Callable[[Running], Awaitable[Turn | None]]
"""Answers one turn; returns the lane's next, or None when the lane is free."""


class Lanes:
    """The lanes that this process works on. A lane disappears when it is empty."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._running: dict[str, Running] = {}
        self._tasks = TaskSet()
        self._closing = False

    def __iter__(self) -> Iterator[Running]:
        return iter(list(self._running.values()))

    def __len__(self) -> int:
        return len(self._running)

    def run(self, head: Turn, started: Started | None = None) -> None:
        """Work on the lane from `head` on, until it is empty. `started`: the head has
        begun already."""
        running = self._running[head.id] = Running(head, started)
        self._tasks.spawn(self._work(running), name=f"lane {head.id[:8]}")

    def find(self, turn_id: str) -> Running | None:
        return self._running.get(turn_id)

    async def _work(self, running: Running) -> None:
        while True:
            try:
                following = await self._one(running)
            finally:
                del self._running[running.turn.id]
            if following is None or self._closing:
                return
            running = self._running[following.id] = Running(following)

    async def _one(self, running: Running) -> Turn | None:
        """At shutdown nothing new is answered; what has begun is handed over."""
        if self._closing and running.started is None:
            return None
        if self._closing:
            running.hand_over()
        return await self._answer(running)

    async def drain(self, grace: float) -> None:
        """Let running turns finish for `grace` seconds, then hand the rest over."""
        self._closing = True
        if await self._tasks.settle(grace):
            return
        for running in self:
            running.hand_over()
        if not await self._tasks.settle(5.0):
            await self._tasks.cancel()
