"""Time as the program sees it, and the words for places."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

Json = Mapping[str, Any]
Platform = Literal["feishu", "dingtalk"]
ChatKind = Literal["p2p", "group"]


class Clock(Protocol):
    """Time as the program sees it; tests put a virtual one in its place."""

    def time(self) -> float:
        """Seconds since the epoch (wall clock; may jump)."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None: ...

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Like asyncio.timeout, on this clock. Raises TimeoutError."""
