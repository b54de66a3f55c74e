"""Where everything is built and joined: the only place that knows adapters and storage."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from importlib.metadata import version

from adapters.console.control import Control
from adapters.console.server import Console
from adapters.http import Http
from adapters.models.openai_shape import ModelSettings, OpenAIModel
from adapters.models.profiles import resolve
from bot.access import Access
from bot.alerts import Alerts
from bot.answer import Answerer
from bot.asking import Asking
from bot.calls import Calls, Caps
from bot.clock import SystemClock
from bot.commands import Desk
from bot.contract import Budget, ChatModel, ChatPlatform, Clock, Json, Meter, TurnStore
from bot.core import Bot
from bot.deliveries import Deliveries
from bot.errors import BorderError, StoreError, StoreLocked, Transient
from bot.gate import Gate
from bot.gather import Gathering
from bot.lanes import Lanes
from bot.office import Office
from bot.pace import Pacer
from bot.personas import Personas
from bot.place import Place
from bot.receipts import Receipts
from bot.redact import Redactor
from bot.replies import Replies
from bot.saver import Saver
from bot.settings import (
    BotSettings,
    DingTalkBot,
    FeishuBot,
    ModelService,
    Settings,
    secrets_of,
)
from bot.tasks import TaskSet
from bot.trail import Trails
from bot.waiting import WaitingRoom
from storage import open_store

log = logging.getLogger(__name__)

REMEMBERED = 30 * 86_400.0
"""Seconds that event keys are kept, so that a late redelivery is recognised."""

PRUNE_EVERY = 3_600.0

LEAVE_SECONDS = 10.0
"""What closing may take besides the grace periods of answers and of commands."""

LOCK_SECONDS = 3.0
"""How long a store held by another process is waited for at the start."""


class App:
    """One process: every bot of the settings, one store, one model service."""

    def __init__(self, settings: Settings, store: TurnStore, clock: Clock) -> None:
        self.settings, self.store, self.clock = settings, store, clock
        self.http = Http(clock=clock)
        self.calls = Calls(store, {bot.name: _caps(bot) for bot in settings.bots}, clock)
        self.pacer = Pacer(clock)
        self.platforms = {
            bot.name: _platform(bot, self.http, clock, self.calls.meter(bot.name), self.pacer)
            for bot in settings.bots
        }
        self.access = Access(settings.admins)
        self.gate = Gate(self.calls, self.platforms, self.access, clock)
        self.saver = self._saver()
        self.model = _model(settings.model, self.http, clock)
        self.replies = Replies(
            store, self.platforms, self.pacer, Trails(clock), clock, self.calls.api_spent
        )
        self.deliveries = Deliveries(store, self.replies, clock)
        self.answerer = self._answerer()
        self.lanes = Lanes(self.answerer.answer)
        self.office = self._office()
        self.bot = Bot(self._desk(), self.answerer, self.replies.trails)
        self.alerts = self._alerts()
        self.console = Console(*settings.http, self.office)
        self.control = Control(place_of(settings).socket, self.office)
        self._tasks = TaskSet()
        self._stopping = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self.patience = LEAVE_SECONDS

    def _answerer(self) -> Answerer:
        settings, clock = self.settings, self.clock
        personas = Personas(settings.personas)
        return Answerer(
            store=self.store,
            replies=self.replies,
            asking=Asking(self.model, personas, settings.chat, settings.model),
            waiting=WaitingRoom(self.replies, Receipts(self.platforms), clock),
            gathering=Gathering(settings.chat, clock),
            gate=self.gate,
            chat=settings.chat,
            clock=clock,
        )

    def _saver(self) -> Saver:
        lang = self.settings.chat.language
        return Saver(
            store=self.store,
            calls=self.calls,
            platforms=self.platforms,
            modes={bot.name: bot.saver for bot in self.settings.bots},
            admins=self.settings.admins,
            lang="en" if lang == "en" else "zh",
            clock=self.clock,
        )

    def _desk(self) -> Desk:
        return Desk(
            store=self.store,
            lanes=self.lanes,
            platforms=self.platforms,
            access=self.access,
            personas=self.answerer.asking.personas,
            waiting=self.answerer.waiting,
            office=self.office,
            chat=self.settings.chat,
            model=self.settings.model,
            clock=self.clock,
            started_at=self.clock.monotonic(),
            version=version("queqiao"),
        )

    def _office(self) -> Office:
        return Office(
            store=self.store,
            platforms=self.platforms,
            lanes=self.lanes,
            trails=self.replies.trails,
            deliveries=self.deliveries,
            model=self.answerer.asking.health,
            saver=self.saver,
            gate=self.gate,
            clock=self.clock,
            version=version("queqiao"),
            started_at=self.clock.monotonic(),
        )

    def _alerts(self) -> Alerts:
        settings = self.settings
        post = partial(_post, self.http, settings.alert_url) if settings.alert_url else None
        return Alerts(
            watched=self.office,
            platforms=self.platforms,
            admins=sorted(settings.admins),
            post=post,
            hide=Redactor(secrets_of(settings)),
            clock=self.clock,
        )

    async def start(self) -> None:
        """Go on with what was left, then listen. Raises SettingsError when the HTTP
        address is taken, StoreError when the store cannot be read."""
        await self.console.start()
        await self.control.start()
        await self.calls.flush()
        self.saver.switch()
        left = await self.bot.recover()
        if left:
            log.info("going on with %d turns of an earlier run", left)
        _warn_of_free_tiers(self.settings)
        for platform in self.platforms.values():
            self._tasks.spawn(platform.run(self.bot), name=f"platform {platform.bot}")
        self._tasks.spawn(self.bot.catch_up.run(), name="catch up")
        self._tasks.spawn(self.deliveries.run(), name="deliveries")
        self._tasks.spawn(self.calls.run(self._look_at_calls), name="calls")
        self._tasks.spawn(self._prune(), name="prune")
        self._tasks.spawn(self.alerts.run(), name="alerts")

    async def _look_at_calls(self) -> None:
        await self.saver.look(self.bot.announce)

    async def serve(self) -> None:
        """Until stop() or a signal."""
        await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def close(self) -> bool:
        """Stop hearing, let answers finish for the grace period, leave the rest to the
        next process, and let go of everything. False when that does not come to its end
        (a disk hangs): it goes on in the background, and only the end of the process
        ends it."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="close")
        await asyncio.wait({self._closing}, timeout=2 * self.settings.chat.grace + self.patience)
        if not self._closing.done():
            return False
        await self._closing
        return True

    async def _close(self) -> None:
        await self.bot.catch_up.remember()
        await self._tasks.cancel()
        await self.bot.drain(self.settings.chat.grace)
        for platform in self.platforms.values():
            await platform.close()
        await self.calls.close()
        await self.model.close()
        await self.control.close()
        await self.console.close()
        await self.http.close()
        await self.store.close()

    async def _prune(self) -> None:
        while True:
            try:
                count = await self.store.prune(self.clock.time() - REMEMBERED)
                log.debug("forgot %d old event keys", count)
            except StoreError as error:
                log.warning("old event keys not forgotten: %s", error)
            await self.clock.sleep(PRUNE_EVERY)


async def _post(http: Http, url: str, body: Json) -> None:
    """To the operator's webhook. Raises BorderError."""
    answer = await http.call("POST", url, json=body)
    if answer.status in (408, 429) or answer.status >= 500:
        raise Transient(f"HTTP {answer.status}")
    if answer.status >= 300:
        raise BorderError(f"HTTP {answer.status}")


def _warn_of_free_tiers(settings: Settings) -> None:
    """A default cap would throttle who pays; without one, who does not pay runs dry."""
    for bot in settings.bots:
        if isinstance(bot, DingTalkBot) and not (bot.monthly_calls and bot.monthly_messages):
            log.info(
                "%s: no monthly cap is set; a free organisation has 5000 API calls and 3000 "
                "messages a month (monthly_calls, monthly_messages)",
                bot.name,
            )


def _caps(bot: BotSettings) -> Caps:
    """What the platform bills apart (reference/dingtalk.md 5.7, feishu.md 5.9)."""
    if isinstance(bot, DingTalkBot):
        return {"api": bot.monthly_calls, "message": bot.monthly_messages}
    return {"api": bot.monthly_calls}


def _platform(
    bot: BotSettings, http: Http, clock: Clock, meter: Meter, budget: Budget
) -> ChatPlatform:
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
            rotate=bot.rotate,
        )
        return FeishuPlatform(feishu, http, clock, meter, budget)
    return _dingtalk(bot, http, clock, meter, budget)


def _dingtalk(
    bot: DingTalkBot, http: Http, clock: Clock, meter: Meter, budget: Budget
) -> ChatPlatform:
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
        recall_events=bot.recall_events,
        deaf_after=bot.deaf_after,
        transport=bot.transport,
        pace=bot.pace,
        rotate=bot.rotate,
    )
    return DingTalkPlatform(settings, http, clock, meter, budget)


def _model(service: ModelService, http: Http, clock: Clock) -> ChatModel:
    _, notice = resolve(service.model)
    if notice:
        log.warning("%s", notice)
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


def place_of(settings: Settings) -> Place:
    return Place(settings.data, settings.database_url)


async def open_app(settings: Settings, *, clock: Clock | None = None, durable: bool = True) -> App:
    """An app that has started. Raises StoreError or SettingsError."""
    clock = clock or SystemClock()
    store = await _open_store(place_of(settings).store_url, clock, durable)
    app = App(settings, store, clock)
    try:
        await app.start()
    except BaseException:
        await app.close()
        raise
    return app


async def _open_store(url: str, clock: Clock, durable: bool) -> TurnStore:
    """A command that only looks at the store holds it for a moment: wait for it."""
    deadline = clock.monotonic() + LOCK_SECONDS
    while True:
        try:
            return await open_store(url, clock, durable=durable)
        except StoreLocked:
            if clock.monotonic() > deadline:
                raise
        await clock.sleep(0.2)
