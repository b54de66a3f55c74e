"""The stage of `queqiao demo`: both platforms, the model and the page, on loopback."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Self

from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from adapters.playground.page import Page
from adapters.playground.scene import Scene
from adapters.playground.watch import Employee
from bot.contract import Clock


class Stage:
    """Everything the real bot needs to be real. `real_model` is (base URL, API key) of a
    model service; without it the built-in stand-in answers, and says so.

    After start(): `feishu` and `dingtalk` carry their base_url and credentials, `model`
    is the (base URL, API key) to use, `admins` are the people with rights in the form of
    the settings, `url` is the page.
    """

    def __init__(
        self, clock: Clock, *, port: int = 8090, real_model: tuple[str, str] | None = None
    ) -> None:
        self.feishu, self.dingtalk = FeishuSim(clock), DingTalkSim(clock)
        self.deepseek = None if real_model else DeepSeekSim(clock)
        self._real_model = real_model
        self._scene = Scene(self.feishu, self.dingtalk, clock, self.deepseek)
        self._page = Page(self._scene, clock, port)
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the page is."""
        return self._page.url

    @property
    def model(self) -> tuple[str, str]:
        """(base URL, API key) of the model service."""
        if self.deepseek is None:
            assert self._real_model is not None
            return self._real_model
        return self.deepseek.base_url, self.deepseek.api_key

    @property
    def admins(self) -> list[str]:
        """As in the settings: feishu:ou_…, dingtalk:staffId."""
        return self._scene.admins

    def employ(self, bot: Employee) -> None:
        """The bot that works here: the page tells how it is, and may pull its plug."""
        self._scene.employ(bot)

    async def start(self) -> None:
        """Raises OSError when no port could be had."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.feishu)
            await stack.enter_async_context(self.dingtalk)
            if self.deepseek is not None:
                await stack.enter_async_context(self.deepseek)
            self._scene.start()
            stack.push_async_callback(self._scene.close)
            await self._page.start()
            stack.push_async_callback(self._page.close)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
