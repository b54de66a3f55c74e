"""Where everything is built and joined: the only place that knows adapters and storage."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from importlib.metadata import version

from adapters.models.openai_shape import ModelSettings, OpenAIModel

from adapters.console.server import Console
from adapters.http import Http
from bot.access import Access
from bot.answer import Answerer
from bot.clock import SystemClock
from bot.commands import Desk
from bot.contract import ChatModel, ChatPlatform, Clock, TurnStore
from bot.core import Bot
from bot.errors import StoreError
from bot.lanes import Lanes
from bot.pace import Pacer
from bot.personas import Personas
from bot.receipts import Receipts
from bot.settings import BotSettings, DingTalkBot, FeishuBot, ModelService, Settings
from bot.tasks import TaskSet
from storage import open_store

log = logging.getLogger(__name__)

REMEMBERED = 30 * 86_400.0
"""Seconds that event keys are kept, so that a late redelivery is recognised."""

PRUNE_EVERY = 3_600.0


class App:
    """One process: every bot of the settings, one store, one model service."""

    def __init__(self, settings: Settings, store: TurnStore, clock: Clock) -> None:
        self.settings, self.store, self.clock = settings, store, clock
        self.http = Http()
        self.platforms = {bot.name: _platform(bot, self.http, clock) for bot in settings.bots}
        self.model = _model(settings.model, self.http, clock)
        self.bot = self._join()
        self.console = Console(*settings.http, self.problems)
        self._tasks = TaskSet()
        self._stopping = asyncio.Event()

    def _join(self) -> Bot:
        settings = self.settings
        receipts = Receipts(self.platforms)
        personas = Personas(settings.personas)
        answerer = Answerer(
            store=self.store,
            platforms=self.platforms,
            model=self.model,
            pacer=Pacer(self.clock),
            personas=personas,
            receipts=receipts,
            chat=settings.chat,
            service=settings.model,
            clock=self.clock,
        )
        desk = Desk(
            store=self.store,
            lanes=Lanes(answerer.answer),
            platforms=self.platforms,
            access=Access(settings.admins),
            personas=personas,
            receipts=receipts,
            chat=settings.chat,
            model=settings.model,
            clock=self.clock,
            started_at=self.clock.monotonic(),
            version=version("queqiao"),
        )
        return Bot(desk, answerer)

    async def start(self) -> None:
        """Go on with what was left, then listen. Raises SettingsError when the HTTP
        address is taken, StoreError when the store cannot be read."""
        await self.console.start()
        left = await self.bot.recover()
        if left:
            log.info("going on with %d turns of an earlier run", left)
        for platform in self.platforms.values():
            self._tasks.spawn(platform.run(self.bot), name=f"platform {platform.bot}")
        self._tasks.spawn(self._prune(), name="prune")

    async def serve(self) -> None:
        """Until stop() or a signal."""
        await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()

    async def close(self) -> None:
        """Stop hearing, let answers finish for the grace period, leave the rest to the
        next process, and let go of everything."""
        await self._tasks.cancel()
        await self.bot.drain(self.settings.chat.grace)
        for platform in self.platforms.values():
            await platform.close()
        await self.model.close()
        await self.console.close()
        await self.http.close()
        await self.store.close()

    async def problems(self) -> list[str]:
        """Why the bot would not hear or could not answer now; empty when it could."""
        found = [
            f"{platform.bot}: {platform.status.cause or 'not connected'}"
            for platform in self.platforms.values()
            if not platform.status.connected
        ]
        try:
            async with asyncio.timeout(2.0):
                await self.store.conversation("")
        except (StoreError, TimeoutError) as error:
            found.append(f"store: {str(error) or 'no answer'}")
        return found

    async def _prune(self) -> None:
        while True:
            try:
                count = await self.store.prune(self.clock.time() - REMEMBERED)
                log.debug("forgot %d old event keys", count)
            except StoreError as error:
                log.warning("old event keys not forgotten: %s", error)
            await self.clock.sleep(PRUNE_EVERY)


def _platform(bot: BotSettings, http: Http, clock: Clock) -> ChatPlatform:
    """A platform's code is loaded only when it is used."""
    if isinstance(bot, FeishuBot):
        from adapters.feishu.chat import FeishuPlatform, FeishuSettings

        feishu = FeishuSettings(
            bot=bot.name,
            app_id=bot.app_id,
            app_secret=bot.app_secret,
            base_url=bot.base_url,
            transport=bot.transport,
            pace=bot.pace,
        )
        return FeishuPlatform(feishu, http, clock)
    return _dingtalk(bot, http, clock)


def _dingtalk(bot: DingTalkBot, http: Http, clock: Clock) -> ChatPlatform:
    from adapters.dingtalk.chat import DingTalkPlatform, DingTalkSettings

    settings = DingTalkSettings(
        bot=bot.name,
        client_id=bot.client_id,
        client_secret=bot.client_secret,
        base_url=bot.base_url,
        oapi_base_url=bot.oapi_base_url,
        card_template_id=bot.card_template_id,
        card_content_key=bot.card_content_key,
        card_state_key=bot.card_state_key,
        public_template=bot.public_template,
        receipts=bot.receipts,
        transport=bot.transport,
        pace=bot.pace,
    )
    return DingTalkPlatform(settings, http, clock)


def _model(service: ModelService, http: Http, clock: Clock) -> ChatModel:
    settings = ModelSettings(
        api_key=service.api_key,
        base_url=service.base_url,
        model=service.model,
        max_tokens=service.max_tokens,
        first_data=service.first_data,
        silence=service.silence,
        whole=service.whole,
    )
    return OpenAIModel(settings, http, clock)


def store_url(settings: Settings) -> str:
    """Where the store is: the setting, or SQLite in the data folder."""
    return settings.database_url or f"sqlite:///{(settings.data / 'queqiao.db').resolve()}"


async def open_app(settings: Settings, *, clock: Clock | None = None, durable: bool = True) -> App:
    """An app that has started. Raises StoreError or SettingsError."""
    clock = clock or SystemClock()
    store = await open_store(store_url(settings), clock, durable=durable)
    app = App(settings, store, clock)
    try:
        await app.start()
    except BaseException:
        await app.close()
        raise
    return app


async def run(settings: Settings, *, started: Callable[[App], None] | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    app = await open_app(settings)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, app.stop)
    if started is not None:
        started(app)
    try:
        await app.serve()
        log.info("stopping")
    finally:
        await app.close()
