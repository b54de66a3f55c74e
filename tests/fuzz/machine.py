"""The town in real time, and the bot as the process that users start: `python -m bot run`,
killed with SIGKILL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from deeds import Deeds
from house import of
from plan import Plan

from bot.clock import SystemClock
from bot.contract import TurnStore
from bot.demo import BotProcess
from storage import open_store

ROUNDS = 3
"""How often it is killed."""

PATIENCE = 60.0
"""Seconds, after the last kill, in which everything must have come to rest."""


class Machine(Deeds):
    """Each third of the plan's actions happens within SPAN seconds, in which it is killed."""

    SPAN = 2.5

    def __init__(self, plan: Plan, folder: Path) -> None:
        super().__init__(plan, folder, SystemClock())
        self._rng = Random(f"machine {plan.seed}")
        self._bot: BotProcess | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self._bot is not None and bool(self.feishu.links and self.dingtalk.links)

    async def play(self) -> None:
        file = self.folder / "queqiao.toml"
        self.folder.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(self._settings())
        self._bot = BotProcess(file, self.folder)
        self.restarts = 0
        self._keeper = asyncio.create_task(self._bot.keep())
        for number in range(ROUNDS):
            await self._round(self.plan.actions[number::ROUNDS])
        await self.heal()
        await self.rest()

    async def _round(self, actions: tuple[Any, ...]) -> None:
        """Something happens, and in the midst of it the plug is pulled."""
        assert self._bot is not None
        await self._until(lambda: self.up, 30.0)
        dies_at = self.time + self._rng.uniform(0.05, self.SPAN)
        moments = sorted(self._rng.uniform(0.0, self.SPAN) for _ in actions)
        began = self.time
        for moment, action in zip(moments, actions, strict=True):
            at = min(began + moment, dies_at) if began + moment > dies_at else began + moment
            await self.clock.sleep(at - self.time)
            self.act(action)
        await self.clock.sleep(dies_at - self.time)
        self.restarts += 1
        self.tell("kill -9")
        self._bot.kill()
        await self._until(lambda: not self.feishu.links and not self.dingtalk.links, 10.0)
        await self.clock.sleep(self._rng.choice((0.0, 0.2, 1.0)))
        self._bot.start()

    async def _until(self, true: Callable[[], object], seconds: float) -> None:
        end = self.time + seconds
        while not true():
            if self.time > end:
                self.blame(f"waited in vain for {seconds:.0f} s: {self.unrest()}")
                return
            await self.clock.sleep(0.05)

    async def rest(self) -> None:
        until, quiet = self.time + PATIENCE, 0
        while self.time < until and quiet < 3:
            await self.clock.sleep(0.4)
            quiet = 0 if self.unrest() else quiet + 1
        if quiet < 3:
            self.blame(f"no rest after {PATIENCE:.0f} s: {self.unrest()}")

    async def read(self, work: Callable[[TurnStore], Awaitable[None]]) -> None:
        """The process ends first: only one may hold the store."""
        await self._dismiss()
        url = f"sqlite:///{self.folder / 'queqiao.db'}"
        store = await open_store(url, self.clock, durable=False)
        try:
            await work(store)
        finally:
            await store.close()

    async def _dismiss(self) -> None:
        if self._bot is not None and self._keeper is not None:
            self.tell("SIGTERM")
            await self._bot.dismiss(self._keeper)
            self._bot = self._keeper = None

    async def close(self) -> None:
        await self._dismiss()
        await super().close()

    # ------------------------------------------------------------ settings

    def _settings(self) -> str:
        knobs = self.plan.knobs
        tables: list[tuple[str, dict[str, Any]]] = [
            ("", {"data": str(self.folder), "http": "127.0.0.1:0", "log": "ERROR"}),
            ("[[bots]]", self._feishu()),
            ("[[bots]]", self._dingtalk()),
            ("[model]", {"api_key": self.deepseek.api_key, "base_url": self.deepseek.base_url}),
            ("[chat]", {"grace": 1.0, **of(knobs, "chat")}),
        ]
        return "\n".join(_toml(head, table) for head, table in tables)

    def _feishu(self) -> dict[str, Any]:
        sim = self.feishu
        keys = {"app_id": sim.app_id, "app_secret": sim.app_secret, "base_url": sim.base_url}
        return {"platform": "feishu", "pace": 0.2, **keys}

    def _dingtalk(self) -> dict[str, Any]:
        sim, full = self.dingtalk, self.plan.knobs.get("template", "full") == "full"
        return {
            "platform": "dingtalk",
            "client_id": sim.client_id,
            "client_secret": sim.client_secret,
            "base_url": sim.base_url,
            "oapi_base_url": sim.base_url,
            "pace": 0.6,
            "card_template_id": sim.card_template_id if full else sim.plain_template_id,
            **({"card_state_key": "state"} if full else {}),
        }


def _toml(head: str, table: dict[str, Any]) -> str:
    """Strings and numbers are written as in JSON."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    return "\n".join([head, *lines, ""])
