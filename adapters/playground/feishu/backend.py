"""What every part of the simulated platform shares."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.faults import Faults
from adapters.playground.feishu.limits import Rate, Windows, too_chatty
from adapters.playground.feishu.wire import Call, Policy
from adapters.playground.feishu.world import World
from bot.contract import Clock


@dataclass(slots=True)
class Backend:
    """`violations` are sentences about a client that broke a rule the real platform
    enforces or punishes silently; a good client leaves the list empty. `base_url` is
    known once the server listens. `later` is work that waits for its moment."""

    clock: Clock
    world: World
    policy: Policy
    faults: Faults
    app_id: str
    app_secret: str
    strict_limits: bool
    windows: Windows
    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    base_url: str = ""
    later: set[asyncio.Task[Any]] = field(default_factory=set)

    def blame(self, words: str) -> None:
        self.violations.append(words)

    def millis(self) -> int:
        return int(self.clock.time() * 1000)

    def limit(self, key: str, rate: Rate, words: str) -> None:
        """Raises Refused 230020 when `key` was used too often."""
        if self.strict_limits and self.windows.wait(key, rate):
            raise too_chatty(words)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run beside everything else until it is done or stop() is called."""
        task = asyncio.create_task(work)
        self.later.add(task)
        task.add_done_callback(self.later.discard)
        return task

    async def stop(self) -> None:
        tasks = list(self.later)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
