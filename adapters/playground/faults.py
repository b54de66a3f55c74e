"""Faults on order: a test or the fault panel asks for one, the simulator obeys once."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from bot.contract import Clock

Kind = Literal["delay", "drop", "lose", "status", "html", "truncate", "hang"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`delay`: answer late by `seconds`, then go on. `drop`: cut the connection before
    the call takes effect. `lose`: let it take effect, then cut. `status`: answer with
    `status` and JSON `body` and no effect. `html`: a proxy's 502 page. `truncate`: half of
    the true answer. `hang`: no answer for `seconds`, no effect."""

    kind: Kind
    seconds: float = 0.0
    status: int = 400
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Faults:
    """A queue of faults per route name; the route names are the simulator's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queues: dict[str, deque[Fault]] = defaultdict(deque)

    def order(self, route: str, fault: Fault, times: int = 1) -> None:
        """The next `times` calls of `route` meet `fault`."""
        self._queues[route].extend([fault] * times)

    def clear(self) -> None:
        self._queues.clear()

    async def around(
        self,
        route: str,
        request: web.Request,
        handler: Callable[[], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Run `handler` under the next fault of `route`, if one was ordered."""
        queue = self._queues.get(route)
        if not queue:
            return await handler()
        fault = queue.popleft()
        if fault.kind in ("delay", "hang"):
            await self._clock.sleep(fault.seconds)
            return await handler() if fault.kind == "delay" else _cut(request)
        if fault.kind == "status":
            return web.json_response(fault.body, status=fault.status, headers=fault.headers)
        if fault.kind == "html":
            return web.Response(
                status=502, text="<html>Bad Gateway</html>", content_type="text/html"
            )
        if fault.kind == "drop":
            return _cut(request)
        return await _spoil(fault, request, await handler())


async def _spoil(
    fault: Fault, request: web.Request, answer: web.StreamResponse
) -> web.StreamResponse:
    if fault.kind == "truncate" and isinstance(answer, web.Response) and answer.body:
        body = bytes(answer.body) if isinstance(answer.body, bytes) else b""
        return web.Response(status=answer.status, body=body[: len(body) // 2])
    return _cut(request)


def _cut(request: web.Request) -> web.StreamResponse:
    """Close the socket without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
