"""The town and the real bot in one thread, and time that jumps: hours in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from deeds import Deeds
from disk import Disk
from looping import Loops, SimClock, SimLoop
from plan import BUSY, Plan

from bot.app import App
from bot.contract import TurnStore
from bot.settings import Chat, DingTalkBot, FeishuBot, ModelService, Settings
from storage.store import SqlTurnStore

PATIENCE = 4 * 3600.0
"""Seconds, after all is well again, in which everything must have come to rest."""

QUIET = 5
"""Looks of ten seconds at which nothing may have been going on."""


@dataclass
class Process:
    """One run of the bot. `app` is there once it has started."""

    loop: SimLoop
    disk: Disk
    app: App | None = None
    main: asyncio.Task[None] | None = None


class House(Deeds):
    """The bot is a loop of its own, which can be killed at any turn."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.loops = Loops()
        self.world = self.loops.add()
        super().__init__(plan, folder, SimClock(self.loops.now))
        self.bot: Process | None = None
        self._rng = Random(f"house {plan.seed}")
        self._fuses: dict[str, float] = {}
        self._down = 1.0

    @property
    def settings(self) -> Settings:
        knobs = self.plan.knobs
        template = knobs.get("template", "full")
        templates = {"full": self.dingtalk.card_template_id, "none": ""}
        feishu, dingtalk = self.feishu, self.dingtalk
        return Settings(
            bots=(
                FeishuBot(feishu.app_id, feishu.app_secret, base_url=feishu.base_url),
                DingTalkBot(
                    dingtalk.client_id,
                    dingtalk.client_secret,
                    base_url=dingtalk.base_url,
                    oapi_base_url=dingtalk.base_url,
                    card_template_id=templates.get(template, dingtalk.plain_template_id),
                    card_state_key="state" if template == "full" else "",
                ),
            ),
            model=ModelService(
                self.deepseek.api_key, base_url=self.deepseek.base_url, **of(knobs, "model")
            ),
            chat=Chat(grace=2.0, **of(knobs, "chat")),
            data=self.folder,
            http=("127.0.0.1", 0),
        )

    # ------------------------------------------------------------ the bot's life

    @property
    def up(self) -> bool:
        return self.bot is not None and self.bot.app is not None

    def start(self) -> None:
        loop = self.loops.add(self._burnt)
        disk = Disk(self.folder / "queqiao.db", self.clock.time, self._rng)
        process = self.bot = Process(loop, disk)
        self.restarts += 1
        self.tell("the bot starts")
        process.main = loop.create_task(self._main(process))

    async def _main(self, process: Process) -> None:
        try:
            await process.disk.open()
            app = App(self.settings, SqlTurnStore(process.disk, self.clock), self.clock)
            await app.start()
        except Exception as error:
            self.blame(f"the bot did not start: {error!r}")
            raise
        process.app = app

    def _burnt(self) -> None:
        self.kill(self._down, "its fuse has burnt down")

    def kill(self, down: float, why: str) -> None:
        """The plug is pulled; it comes back after `down` seconds."""
        process, self.bot = self.bot, None
        if process is None:
            return
        self.tell(f"kill -9: {why}")
        self._end(process)
        self.world.call_later(down, self._back)

    def _end(self, process: Process) -> None:
        process.loop.kill()
        process.disk.kill()
        self.loops.bury(process.loop)

    def _back(self) -> None:
        if self.bot is None:
            self.start()

    async def on_bot(self, work: Callable[[App], Awaitable[Any]]) -> Any:
        """Do something in the bot's process, and wait for it. Raises InvalidStateError when
        it was killed meanwhile."""
        while not self.up:
            await self.clock.sleep(0.05)
        process = self.bot
        assert process is not None and process.app is not None
        task = process.loop.create_task(_awaited(work(process.app)))
        while not task.done() and self.bot is process:
            await self.clock.sleep(0.02)
        return task.result()

    async def read(self, work: Callable[[TurnStore], Awaitable[None]]) -> None:
        await self.on_bot(lambda app: work(app.store))

    async def stop(self) -> None:
        """SIGTERM, and until it is gone."""
        process = self.bot
        if process is None or process.app is None:
            return
        self.tell("SIGTERM")
        with suppress(Exception):
            await self.on_bot(lambda app: app.close())
        if self.bot is process:
            self.bot = None
            self._end(process)
            self.tell("the bot has ended")

    # ------------------------------------------------------------ killing

    def called(self, platform: str, call: Any) -> None:
        super().called(platform, call)
        fuse = f"{platform} {call.route}"
        if fuse in self._fuses and self.bot is not None:
            self.kill(self._fuses.pop(fuse), f"{fuse} has arrived")

    async def do_kill(self, down: float, turns: int, route: str) -> None:
        if self.bot is None:
            return
        if route:
            self._fuses[route] = down
        elif turns:
            self._down = down
            self.bot.loop.watchful.fuse = turns
        else:
            self.kill(down, "now")

    async def do_restart(self, down: float) -> None:
        await self.stop()
        await self.clock.sleep(down)
        self._back()

    # ------------------------------------------------------------ a whole story

    async def play(self) -> None:
        """Until everything that was to happen has happened, and has come to rest."""
        self.start()
        for action in self.plan.actions:
            await self.clock.sleep(action.at - self.time)
            self.act(action)
        await self.clock.sleep(max(BUSY - self.time, 0.0))
        await self.heal()
        await self.rest()

    async def heal(self) -> None:
        await super().heal()
        self._fuses.clear()
        if self.bot is not None:
            self.bot.loop.watchful.fuse = -1

    async def rest(self) -> None:
        until, quiet = self.time + PATIENCE, 0
        while self.time < until and quiet < QUIET:
            await self.clock.sleep(10.0)
            quiet = 0 if self.unrest() else quiet + 1
        if quiet < QUIET:
            self.blame(f"no rest after {PATIENCE:.0f} s: {self.unrest()}")
        self.tell("* everything is at rest")

    async def close(self) -> None:
        await self.stop()
        await super().close()


def of(knobs: dict[str, Any], table: str) -> dict[str, Any]:
    """The settings of one table."""
    found = {key.partition("."): value for key, value in knobs.items()}
    return {name: value for (first, _, name), value in found.items() if first == table}


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work
