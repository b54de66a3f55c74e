"""Events that come again until somebody acknowledges them (reference/feishu.md 2.7)."""

from __future__ import annotations

import contextlib
import copy
import uuid
from typing import Any

from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.gateway import Gateway
from adapters.playground.feishu.link import Push


class Deliveries:
    """`acks` has every event that was posted: when it was acknowledged with code 200
    (seconds since the epoch), or None. `lost` are those that were given up."""

    def __init__(self, backend: Backend, gateway: Gateway) -> None:
        self._b, self._gateway = backend, gateway
        self.acks: dict[str, float | None] = {}
        self.lost: list[str] = []

    async def post(self, payload: dict[str, Any]) -> None:
        """Returns when the first attempt was sent; the others follow on the clock."""
        header = payload.get("header")
        event_id = str(header.get("event_id", "")) if isinstance(header, dict) else ""
        self.acks.setdefault(event_id, None)
        frame_id = _frame_id()
        start = self._b.clock.monotonic()
        push = await self._push(payload, 1, frame_id)
        self._b.spawn(self._follow(payload, event_id, push, start))

    async def _push(self, payload: dict[str, Any], attempt: int, frame_id: str) -> Push:
        header = payload.get("header")
        known = header if isinstance(header, dict) else {}
        return await self._gateway.push(
            payload,
            event_id=str(known.get("event_id", "")),
            event_type=str(known.get("event_type", "")),
            attempt=attempt,
            frame_id=frame_id,
        )

    async def _follow(
        self, payload: dict[str, Any], event_id: str, push: Push, start: float
    ) -> None:
        frame_id = push.id
        for attempt, wait in enumerate(self._b.policy.redeliver_after, 2):
            if await self._accepted(event_id, push):
                return
            await self._until(start + wait)
            start = self._b.clock.monotonic()
            frame_id = _frame_id() if self._b.policy.new_frame_id else frame_id
            push = await self._push(self._again(payload), attempt, frame_id)
        if not await self._accepted(event_id, push):
            self.lost.append(event_id)
            self._b.world.changed.set()

    async def _until(self, moment: float) -> None:
        left = moment - self._b.clock.monotonic()
        if not self._b.policy.repeat_on_connect:
            await self._b.clock.sleep(left)
            return
        with contextlib.suppress(TimeoutError):
            async with self._b.clock.timeout(left):
                await self._gateway.connected.wait()

    def _again(self, payload: dict[str, Any]) -> dict[str, Any]:
        if not self._b.policy.new_event_id:
            return payload
        fresh = copy.deepcopy(payload)
        fresh["header"]["event_id"] = new_event_id()
        return fresh

    async def _accepted(self, event_id: str, push: Push) -> bool:
        await self._gateway.settled(push)
        if push.good:
            self.acks[event_id] = self._b.clock.time()
            self._b.world.changed.set()
        return push.good

    async def ask(self, payload: dict[str, Any]) -> Push:
        """A callback: one delivery, never repeated; the settled push."""
        return await self._gateway.settled(await self._push(payload, 1, _frame_id()))


def new_event_id() -> str:
    return uuid.uuid4().hex


def _frame_id() -> str:
    return str(uuid.uuid4())
