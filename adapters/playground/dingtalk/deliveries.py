"""Pushes that come again until somebody acknowledges them (reference/dingtalk.md 2.6)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.link import Gateway, Push


@dataclass(frozen=True, slots=True)
class Parcel:
    """One application frame: each attempt gets a new messageId, `key` stays."""

    kind: str
    topic: str
    data: str
    key: str
    anyone: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Deliveries:
    def __init__(self, backend: Backend, gateway: Gateway) -> None:
        self._b, self._gateway = backend, gateway
        self._tasks: set[asyncio.Task[None]] = set()

    async def post(self, parcel: Parcel) -> None:
        """Returns when the first attempt was sent; the others follow on the clock."""
        start = self._b.clock.monotonic()
        push = await self._push(parcel)
        if push is None and not self._b.policy.keep_without_link:
            self._gateway.lost.append(parcel.key)
            return
        task = asyncio.create_task(self._follow(parcel, push, start))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _push(self, parcel: Parcel) -> Push | None:
        return await self._gateway.push(
            parcel.kind,
            parcel.topic,
            parcel.data,
            key=parcel.key,
            deadline=self._b.policy.ack_deadline,
            anyone=parcel.anyone,
            **parcel.headers,
        )

    async def _follow(self, parcel: Parcel, push: Push | None, start: float) -> None:
        if await self._accepted(push):
            return
        for offset in self._b.policy.redeliver_after:
            await self._b.clock.sleep(start + offset - self._b.clock.monotonic())
            if await self._accepted(await self._push(parcel)):
                return
        self._gateway.lost.append(parcel.key)
        self._b.world.changed.set()

    async def _accepted(self, push: Push | None) -> bool:
        if push is None:
            return False
        ack = await self._gateway.answer(push)
        return ack is not None and ack.good

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
