"""The few lines that asyncio lacks: a step that runs to its end although cancelled, and
a set of tasks that nobody forgets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from bot.contract import Clock
from bot.errors import StoreError

T = TypeVar("T")

STORE_AGAIN = 2.0
"""Seconds after which a store that refused is asked again."""

log = logging.getLogger(__name__)


async def to_the_end(step: Coroutine[Any, Any, T]) -> T:
    """Run `step` to its end even when the caller is cancelled meanwhile; the
    cancellation is raised afterwards. A second cancellation waits as well (law 5)."""
    task = asyncio.ensure_future(step)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        if not task.cancelled() and task.exception() is not None:
            log.error("closing step failed", exc_info=task.exception())
        raise cancelled
    return task.result()


async def until_stored(step: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """What the store answers once it can; for work that may wait as long as it takes."""
    while True:
        try:
            return await step()
        except StoreError as error:
            log.warning("store refused, trying again: %s", error)
        await clock.sleep(STORE_AGAIN)


async def pause(seconds: float, until: asyncio.Event, clock: Clock) -> None:
    """That long, or until something is so."""
    happened = asyncio.ensure_future(until.wait())
    slept = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({happened, slept}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        happened.cancel()
        slept.cancel()


class TaskSet:
    """Background tasks: held, logged when they fail, awaited at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name or None)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task %s failed", task.get_name(), exc_info=task.exception())

    async def settle(self, seconds: float) -> bool:
        """Wait until all are done, also those that they spawn, at most `seconds`; True
        when none is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        return not self._tasks

    async def cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
