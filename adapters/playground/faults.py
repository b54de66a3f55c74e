"""Faults on order: a test or the fault panel asks for one, the simulator obeys once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
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


@dataclass(eq=False, slots=True)
class Order:
    """`left`: how many calls have yet to meet `fault`; math.inf while it stands."""

    fault: Fault
    left: float

    def withdraw(self) -> None:
        self.left = 0


class Faults:
    """The orders of each route, oldest first; the route names are the simulator's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._orders: dict[str, list[Order]] = defaultdict(list)

    def order(self, route: str, fault: Fault, times: int = 1) -> Order:
        """The next `times` calls of `route` meet `fault`."""
        return self.order_any((route,), fault, times)

    def order_any(self, routes: Iterable[str], fault: Fault, times: float = 1) -> Order:
        """The next `times` calls of any of `routes` meet `fault`; math.inf: all of them, as
        far as no other order is due, until it is withdrawn."""
        order = Order(fault, times)
        for route in routes:
            self._orders[route].append(order)
        return order

    def clear(self) -> None:
        for orders in self._orders.values():
            for order in orders:
                order.withdraw()
        self._orders.clear()

    def _next(self, route: str) -> Fault | None:
        if not self._orders.get(route):
            return None
        due = self._orders[route] = [order for order in self._orders[route] if order.left]
        if not due:
            return None
        order = next((order for order in due if order.left != math.inf), due[0])
        order.left -= 1
        return order.fault

    async def around(
        self,
        route: str,
        request: web.Request,
        handler: Callable[[], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Run `handler` under the next fault of `route`, if one was ordered."""
        fault = self._next(route)
        if fault is None:
            return await handler()
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
