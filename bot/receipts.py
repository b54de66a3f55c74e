"""A mark on messages that wait, taken back when their turn comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bot.contract import ChatPlatform, Reactions, Turn
from bot.tasks import TaskSet

CLOSE_SECONDS = 1.0
"""How long the last marks may take to be taken back."""


class Receipts:
    """Best effort: a platform without reactions, or one that refuses, shows no mark."""

    def __init__(self, platforms: Mapping[str, ChatPlatform]) -> None:
        self._platforms = platforms
        self._marks: dict[str, asyncio.Task[str]] = {}
        self._tasks = TaskSet()

    def waiting(self, turn: Turn) -> None:
        """The message was taken and waits behind others."""
        platform = self._platforms[turn.new.bot]
        if isinstance(platform, Reactions):
            work = platform.react(turn.new.address, "seen")
            self._marks[turn.id] = self._tasks.spawn(work, name="mark")

    def over(self, turn: Turn) -> None:
        """The waiting is over, one way or another."""
        mark = self._marks.pop(turn.id, None)
        platform = self._platforms[turn.new.bot]
        if mark is not None and isinstance(platform, Reactions):
            self._tasks.spawn(_take_back(platform, turn, mark), name="unmark")

    def left(self, turn: Turn) -> None:
        """An earlier process left this turn, perhaps with a mark, and its time has come."""
        platform = self._platforms[turn.new.bot]
        if isinstance(platform, Reactions):
            self._tasks.spawn(platform.wipe(turn.new.address, "seen"), name="unmark")

    async def close(self) -> None:
        if not await self._tasks.settle(CLOSE_SECONDS):
            await self._tasks.cancel()


async def _take_back(platform: Reactions, turn: Turn, mark: asyncio.Task[str]) -> None:
    token = await mark
    if token:
        await platform.unreact(turn.new.address, token)
