"""The whole house on loopback: both platforms, the model service, and the real bot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.playground.clock import VirtualClock
from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from adapters.playground.view import Bubble
from bot.app import App, open_app
from bot.clock import SystemClock
from bot.settings import BotSettings, Chat, DingTalkBot, FeishuBot, ModelService, Settings

Bubbles = Callable[[], list[Bubble]]


class House:
    """Start it, chat in it, take it down, start it again: the data folder stays.

    `chat`, `model_keys`, `feishu_keys` and `dingtalk_keys` change settings before start().
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.clock = SystemClock()
        self.feishu = FeishuSim(self.clock, seed=seed)
        self.dingtalk = DingTalkSim(self.clock, seed=seed)
        self.deepseek = DeepSeekSim(self.clock, seed=seed)
        self.folder = folder
        self.chat = Chat(grace=0.2)
        self.model_keys: dict[str, Any] = {}
        self.feishu_keys: dict[str, Any] = {"pace": 0.15}
        self.dingtalk_keys: dict[str, Any] = {"pace": 0.55, "card_state_key": "state"}
        self.admins: set[str] = set()
        self.app: App | None = None

    # ------------------------------------------------------------ life

    @property
    def settings(self) -> Settings:
        return Settings(
            bots=self._bots(),
            model=replace(
                ModelService(self.deepseek.api_key, base_url=self.deepseek.base_url),
                **self.model_keys,
            ),
            chat=self.chat,
            admins=frozenset(self.admins),
            data=self.folder,
            http=("127.0.0.1", 0),
        )

    def _bots(self) -> tuple[BotSettings, ...]:
        feishu = FeishuBot(
            self.feishu.app_id, self.feishu.app_secret, base_url=self.feishu.base_url
        )
        dingtalk = DingTalkBot(
            self.dingtalk.client_id,
            self.dingtalk.client_secret,
            base_url=self.dingtalk.base_url,
            oapi_base_url=self.dingtalk.base_url,
            card_template_id=self.dingtalk.card_template_id,
        )
        return replace(feishu, **self.feishu_keys), replace(dingtalk, **self.dingtalk_keys)

    async def start(self) -> App:
        """Returns when both platforms have a connection."""
        self.app = await open_app(self.settings, durable=False)
        await self.feishu.wait_for(lambda: self.feishu.links and self.dingtalk.links)
        return self.app

    async def stop(self) -> None:
        if self.app is not None:
            app, self.app = self.app, None
            await app.close()

    async def restart(self) -> App:
        await self.stop()
        return await self.start()

    # ------------------------------------------------------------ looking

    def sim(self, platform: str) -> Any:
        return {"feishu": self.feishu, "dingtalk": self.dingtalk}[platform]

    async def settled(
        self, bubbles: Bubbles, count: int = 1, timeout: float = 15.0
    ) -> list[Bubble]:
        """The bot's bubbles once there are `count` of them and none is growing."""

        def ready() -> list[Bubble]:
            found = bubbles()
            whole = len(found) >= count and not any(b.streaming for b in found)
            return found if whole else []

        await self.feishu.wait_for(ready, timeout)
        return bubbles()

    def complaints(self) -> list[str]:
        """Rules of the platforms that the bot broke."""
        return [*self.feishu.violations, *self.dingtalk.violations]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Three simulators are up; the bot is not yet."""
    house = House(tmp_path / "data")
    async with AsyncExitStack() as stack:
        for sim in (house.feishu, house.dingtalk, house.deepseek):
            await stack.enter_async_context(sim)
        stack.push_async_callback(house.stop)
        yield house


@pytest.fixture
def virtual() -> VirtualClock:
    return VirtualClock()
