"""One connection of a vendor's client, in its thread, under the same watch as our own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from adapters.connection import Connection
from adapters.sdk_thread import SdkThread
from adapters.supervisor import first_of
from bot.errors import Transient

DIAL_SECONDS = 30.0
"""From the start of a thread to its handshake; the first import takes 2 s of it or more."""

BEAT_SECONDS = 5.0
STUCK_SECONDS = 30.0
"""A thread whose loop did not run for so long is left behind, and another takes its place."""


class SdkSession:
    """`live` runs in the thread, from dial to death, and has tell(connection.up) said in
    between. A thread lives in real time, whatever clock the rest is on."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.thread, self.connection = SdkThread(name), connection
        self._beaten = time.monotonic()

    async def run(self, live: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until the connection has ended or was replaced. Raises what `live` raises, and
        Transient when it does not get on."""
        await first_of(self.thread.run(lambda: self._beating(live)), self._watch())

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await self.connection.risen.wait()
        except TimeoutError:
            raise Transient("no connection in time", note="link.unreachable") from None
        await first_of(self.connection.watch(), self._until_stuck())

    async def _until_stuck(self) -> None:
        self._beaten, silent = time.monotonic(), 0.0
        while silent < STUCK_SECONDS:
            await asyncio.sleep(BEAT_SECONDS)
            silent = time.monotonic() - self._beaten
        raise Transient("the client's thread is stuck", note="link.dead")

    # ------------------------------------------------------------ in the thread

    async def _beating(self, live: Callable[[], Coroutine[Any, Any, None]]) -> None:
        beating = asyncio.create_task(self._beat())
        try:
            await live()
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._beaten = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
