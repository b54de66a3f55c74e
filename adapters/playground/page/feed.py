"""What one open page has yet to be told: of each bubble only its newest look."""

from __future__ import annotations

import asyncio
from typing import Any

Json = dict[str, Any]


class Feed:
    """Changes come in with offer(), and leave in batches with next()."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Json] = {}
        self._wake = asyncio.Event()

    def offer(self, kind: str, key: str, value: Json) -> None:
        """`value` takes the place of an older one of the same kind and key."""
        self._waiting[kind, key] = {"type": kind, "value": value}
        self._wake.set()

    async def next(self) -> list[Json]:
        """What has changed since the last call, oldest first; waits for something."""
        await self._wake.wait()
        self._wake.clear()
        batch = list(self._waiting.values())
        self._waiting.clear()
        return batch
