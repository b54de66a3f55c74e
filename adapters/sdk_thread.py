"""A vendor's client in a thread and a loop of its own, so that its faults stop at a wall:
what blocks, blocks its own thread, and what will not end is left behind (a daemon).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STOP_SECONDS = 3.0
"""For the thread to end after it was asked to; a blocking call may take longer."""


class SdkThread:
    """Runs one coroutine in a fresh thread; used once. `run` belongs to the main loop,
    `hand_over` and `tell` to the thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._main: asyncio.AbstractEventLoop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._stopping = threading.Event()
        self._error: Exception | None = None

    async def run(self, live: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until `live()` ends, whose exception is raised here, or until cancelled: then
        `live()` is cancelled too and given STOP_SECONDS to clean up."""
        self._main = asyncio.get_running_loop()
        over = asyncio.Event()
        threading.Thread(target=self._live, args=(live, over), name=self._name, daemon=True).start()
        try:
            await over.wait()
        finally:
            self._stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), STOP_SECONDS)
        if self._error is not None:
            raise self._error

    def hand_over(self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
        """Run `work()` on the main loop and wait for its result. Raises what it raises,
        TimeoutError after `seconds` (it is cancelled then), RuntimeError when the main
        loop has ended."""
        coroutine = work()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._main)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise

    def tell(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` on the main loop, soon; nothing when that loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._main.call_soon_threadsafe(function, *args)

    # ------------------------------------------------------------ the thread

    def _live(self, live: Callable[[], Coroutine[Any, Any, None]], over: asyncio.Event) -> None:
        try:
            asyncio.run(self._cancellable(live))
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._error = error
        self.tell(over.set)

    async def _cancellable(self, live: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if not self._stopping.is_set():
            await live()

    def _stop(self) -> None:
        self._stopping.set()
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._task.cancel)
