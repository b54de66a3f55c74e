"""The kinds of levers that the fault panel is made of."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adapters.playground.deepseek import DeepSeekSim, Trouble
from adapters.playground.faults import Fault, Faults, Order


class Lever(Protocol):
    """`on`: whether the fault lasts now, None for one that does not last. `left`: how many
    calls have yet to meet it."""

    @property
    def on(self) -> bool | None: ...

    @property
    def left(self) -> int: ...

    async def pull(self) -> None: ...

    def clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Now:
    """Something goes wrong at once."""

    act: Callable[[], Any]
    on: bool | None = None
    left: int = 0

    async def pull(self) -> None:
        done = self.act()
        if inspect.isawaitable(done):
            await done

    def clear(self) -> None:
        """Nothing lasts."""


@dataclass(slots=True)
class Lasting:
    """Goes wrong until it is pulled again."""

    begin: Callable[[], Any]
    end: Callable[[], Any]
    on: bool | None = False
    left: int = 0

    async def pull(self) -> None:
        if self.on:
            self.clear()
        else:
            self.begin()
            self.on = True

    def clear(self) -> None:
        if self.on:
            self.end()
            self.on = False


@dataclass(slots=True)
class NextCalls:
    """The next `times` calls of any of these routes go wrong; pulled again, as many."""

    faults: Faults
    routes: Sequence[str]
    fault: Fault
    times: int = 1
    on: bool | None = None
    _order: Order | None = field(default=None, init=False)

    @property
    def left(self) -> int:
        return int(self._order.left) if self._order is not None else 0

    async def pull(self) -> None:
        self.clear()
        self._order = self.faults.order_any(self.routes, self.fault, self.times)

    def clear(self) -> None:
        if self._order is not None:
            self._order.withdraw()


@dataclass(slots=True)
class EveryCall:
    """All calls of these routes go wrong until it is pulled again."""

    faults: Faults
    routes: Sequence[str]
    fault: Fault
    left: int = 0
    _order: Order | None = field(default=None, init=False)

    @property
    def on(self) -> bool | None:
        return self._order is not None

    async def pull(self) -> None:
        if self._order is not None:
            self.clear()
        else:
            self._order = self.faults.order_any(self.routes, self.fault, math.inf)

    def clear(self) -> None:
        if self._order is not None:
            self._order.withdraw()
            self._order = None


@dataclass(frozen=True, slots=True)
class NextAnswers:
    """The model's next answers go wrong."""

    model: DeepSeekSim
    trouble: Trouble
    times: int = 1
    on: bool | None = None

    @property
    def left(self) -> int:
        return self.model.ordered.count(self.trouble)

    async def pull(self) -> None:
        self.model.order(self.trouble, self.times)

    def clear(self) -> None:
        if self.left:
            self.model.clear_orders()
