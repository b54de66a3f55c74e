"""The fault panel: everything that can go wrong out there, by name, and how it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from adapters.playground.levers import Now
from adapters.playground.offers import (
    Levers,
    drop_half_open,
    heal,
    of_dingtalk,
    of_feishu,
    of_model,
)
from adapters.playground.watch import Employee
from bot.contract import Clock, Platform

Json = dict[str, Any]

AWAY = 3.0
"""Seconds that a bot stays away when it is killed and comes back."""

CLEAR = "clear"


class Cuttable(Protocol):
    def cut_links(self) -> Any: ...


class Troubles:
    """`model` is None when the real service answers, which takes no orders."""

    def __init__(
        self, sims: Mapping[Platform, Cuttable], clock: Clock, model: DeepSeekSim | None
    ) -> None:
        self._clock = clock
        self._sims = [s for s in sims.values() if isinstance(s, FeishuSim | DingTalkSim)]
        self._levers: Levers = {f"cut-{name}": Now(sim.cut_links) for name, sim in sims.items()}
        for sim in self._sims:
            self._levers |= of_feishu(sim) if isinstance(sim, FeishuSim) else of_dingtalk(sim)
        if model is not None:
            self._levers |= of_model(model)
        self._bot: Employee | None = None
        self._back: asyncio.Task[None] | None = None

    def as_json(self) -> Json:
        """{offered: [names], on: {name: whether it lasts now}, left: {name: calls that have
        yet to meet it}}."""
        levers = self._levers
        return {
            "offered": [*levers, CLEAR],
            "on": {name: lever.on for name, lever in levers.items() if lever.on is not None},
            "left": {name: lever.left for name, lever in levers.items() if lever.left},
        }

    async def cause(self, name: str) -> None:
        """Raises KeyError when there is no such fault."""
        if name == CLEAR:
            self.clear()
        else:
            await self._levers[name].pull()

    def clear(self) -> None:
        """Everything is well again, and the bot is up."""
        for lever in self._levers.values():
            lever.clear()
        for sim in self._sims:
            heal(sim)
        if self._bot is not None:
            self._start(self._bot)

    def tend(self) -> None:
        """To be called now and then: what the platforms do by themselves."""
        for sim in self._sims:
            drop_half_open(sim)

    async def close(self) -> None:
        self._stay()
        if self._back is not None:
            await asyncio.gather(self._back, return_exceptions=True)

    # the bot's plug -----------------------------------------------------------

    def employ(self, bot: Employee) -> None:
        self._bot = bot
        self._levers |= {
            "kill-back": Now(lambda: self._kill(bot, back=True)),
            "kill": Now(lambda: self._kill(bot, back=False)),
            "start": Now(lambda: self._start(bot)),
        }

    def _kill(self, bot: Employee, *, back: bool) -> None:
        self._stay()
        bot.kill()
        if back:
            self._back = asyncio.create_task(self._come_back(bot))

    async def _come_back(self, bot: Employee) -> None:
        await self._clock.sleep(AWAY)
        bot.start()

    def _start(self, bot: Employee) -> None:
        self._stay()
        bot.start()

    def _stay(self) -> None:
        """No coming back by itself any more."""
        if self._back is not None:
            self._back.cancel()
