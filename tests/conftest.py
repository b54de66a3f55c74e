"""The whole house on loopback: both platforms, the model service, and the real bot."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as properties
from sqlalchemy import Connection

from adapters.playground.clock import VirtualClock
from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from adapters.playground.view import Bubble
from bot.app import App, open_app
from bot.clock import SystemClock
from bot.contract import Turn
from bot.settings import BotSettings, Chat, DingTalkBot, FeishuBot, ModelService, Settings
from storage.store import SqlTurnStore, open_store

properties.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
properties.load_profile("slow")

HASTE = ("99991400", "calls a second", "too close together", "230020", "a second")
"""How the simulators word that calls came too fast."""

Bubbles = Callable[[], list[Bubble]]


class LeapingClock(SystemClock):
    """Real time, over whose waits a test may leap: those who sleep wake in order, and what
    travels over loopback is left alone."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._sleepers: dict[asyncio.Future[None], asyncio.TimerHandle] = {}
        self._scopes: set[asyncio.Timeout] = set()

    def time(self) -> float:
        return super().time() + self._ahead

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.create_future()
        self._sleepers[due] = loop.call_later(max(0.0, seconds), _wake, due)
        try:
            await due
        finally:
            self._sleepers.pop(due).cancel()

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[object]:
        async with asyncio.timeout(seconds) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def leap(self, seconds: float) -> None:
        """It is so much later now."""
        self._ahead += seconds
        loop = asyncio.get_running_loop()
        for due, timer in sorted(self._sleepers.items(), key=lambda item: item[1].when()):
            timer.cancel()
            self._sleepers[due] = loop.call_at(timer.when() - seconds, _wake, due)
        for scope in self._scopes:
            if not scope.expired() and (when := scope.when()) is not None:
                scope.reschedule(when - seconds)

    async def hurry(self, until: Callable[[], Any], step: float = 1.0, most: float = 1200.0) -> Any:
        """Leap `step` by step until something is so, with a moment for the sockets after
        each; its value. Raises AssertionError after `most` seconds."""
        end = self.monotonic() + most
        while not (value := until()):
            assert self.monotonic() < end, f"not within {most} s"
            self.leap(step)
            await asyncio.sleep(0.01)
        return value


def _wake(due: asyncio.Future[None]) -> None:
    if not due.done():
        due.set_result(None)


INSIDE: contextvars.ContextVar[bool] = contextvars.ContextVar("inside", default=False)
"""Whether a task belongs to the bot rather than to a simulator or a test."""


class House:
    """Start it, chat in it, take it down, start it again: the data folder stays.

    `chat`, `model_keys`, `feishu_keys` and `dingtalk_keys` change settings before start().
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.clock = LeapingClock()
        self.feishu = FeishuSim(self.clock, seed=seed)
        self.dingtalk = DingTalkSim(self.clock, seed=seed)
        self.deepseek = DeepSeekSim(self.clock, seed=seed)
        self.folder = folder
        self.chat = Chat(grace=0.2)
        self.model_keys: dict[str, Any] = {}
        self.feishu_keys: dict[str, Any] = {"pace": 0.15}
        self.dingtalk_keys: dict[str, Any] = {"pace": 0.55, "card_state_key": "state"}
        self.admins: set[str] = set()
        self.alert_url = ""
        self.app: App | None = None
        self._inside: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

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
            alert_url=self.alert_url,
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
        inside = contextvars.copy_context()
        inside.run(INSIDE.set, True)
        asyncio.get_running_loop().set_task_factory(self._born)
        opening = open_app(self.settings, clock=self.clock, durable=False)
        self.app = await asyncio.create_task(opening, context=inside)
        await self.feishu.wait_for(lambda: self.feishu.links and self.dingtalk.links)
        return self.app

    async def stop(self) -> None:
        if self.app is not None:
            app, self.app = self.app, None
            await app.close()

    async def restart(self) -> App:
        await self.stop()
        return await self.start()

    async def crash(self) -> None:
        """The process dies: nothing more is written, sent or heard by it."""
        app, self.app = self.app, None
        assert app is not None
        dying = asyncio.create_task(app.store.close())
        await asyncio.sleep(0)
        await app.http.session.close()
        while alive := [task for task in self._inside if not task.done()]:
            for task in alive:
                task.cancel()
            await asyncio.wait(alive, timeout=0.1)
        await dying
        await app.console.close()
        await app.control.close()

    def _born(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Makes every task of the loop, and remembers those of the bot."""
        task = asyncio.Task(work, loop=loop, context=context)
        if context[INSIDE] if context and INSIDE in context else INSIDE.get():
            self._inside.add(task)
        return task

    # ------------------------------------------------------------ looking

    def sim(self, platform: str) -> Any:
        return {"feishu": self.feishu, "dingtalk": self.dingtalk}[platform]

    def room(self, platform: str, kind: str = "p2p", people: int = 2) -> Room:
        return Room(self, platform, kind, people)

    async def turn(self, platform: str, message: str) -> Turn | None:
        """What is stored of the newest turn that this message asked."""
        assert self.app is not None
        return await self.app.store.turn_of(platform, message)

    async def ended(self, platform: str, message: str, timeout: float = 15.0) -> Turn:
        """The turn once it is closed in the store."""
        async with asyncio.timeout(timeout):
            while True:
                turn = await self.turn(platform, message)
                if turn is not None and turn.ended:
                    return turn
                await asyncio.sleep(0.01)

    async def settled(
        self, bubbles: Bubbles, count: int = 1, timeout: float = 15.0
    ) -> list[Bubble]:
        """The bot's bubbles once there are `count` of them and none is growing."""

        def ready() -> list[Bubble]:
            found = bubbles()
            whole = len(found) >= count and not any(map(_growing, found))
            return found if whole else []

        await self.feishu.wait_for(ready, timeout)
        return bubbles()

    async def breakable(self) -> threading.Event:
        """While it is set, nothing can be written: as on a full disk or a read-only file."""
        assert self.app is not None
        return await _breakable(self.app.store)

    def complaints(self, *, paced: bool = True) -> list[str]:
        """Rules of the platforms that the bot broke. Without `paced`, calls that came too
        close together do not count: on a busy machine, or after a restart within a moment,
        what left in time arrives in a heap. test_pace.py holds the pace itself."""
        found = [*self.feishu.violations, *self.dingtalk.violations]
        return [one for one in found if paced or not any(word in one for word in HASTE)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlTurnStore]:
    opened = await open_store(f"sqlite:///{tmp_path}/q.db", VirtualClock(settle=0), durable=False)
    assert isinstance(opened, SqlTurnStore)
    yield opened
    await opened.close()


async def _breakable(store: Any) -> threading.Event:
    """While it is set, the database is read-only within each transaction."""
    broken = threading.Event()
    transact = store.database._transact

    def refusing(connection: Connection, work: Callable[[], None]) -> None:
        def refused() -> None:
            connection.exec_driver_sql(f"PRAGMA query_only={broken.is_set():d}").close()
            try:
                work()
            finally:
                connection.exec_driver_sql("PRAGMA query_only=0").close()

        transact(connection, refused)

    store.database._transact = refusing
    return broken


@pytest.fixture
def breakable() -> Callable[[Any], Awaitable[threading.Event]]:
    """Of a store: a switch that makes it read-only."""
    return _breakable


def _growing(bubble: Bubble) -> bool:
    """A DingTalk card is whole a moment after its last frame, when its buttons change."""
    return bubble.streaming or any(button.text == "停止" for button in bubble.buttons())


class Room:
    """One chat of one platform, and who writes in it."""

    def __init__(self, house: House, platform: str, kind: str, people: int) -> None:
        self.house, self.platform, self.group = house, platform, kind == "group"
        self.sim = house.sim(platform)
        self.people = [self.sim.add_person(f"人{n}") for n in range(people)]
        whole, alone = self.sim.add_group, self.sim.p2p
        self.chat = whole("群", self.people) if self.group else alone(self.people[0])

    async def say(self, text: str = "", who: int = 0, *, bot: bool = True, **more: Any) -> str:
        """Returns the message's id. In a group the bot is mentioned."""
        mention = bot and self.group
        person = self.people[who]
        message: str = await self.sim.say(self.chat, person, text, mention_bot=mention, **more)
        return message

    def answers(self) -> list[Bubble]:
        found: list[Bubble] = self.sim.bot_bubbles(self.chat)
        return found

    async def answer(self, count: int = 1, timeout: float = 15.0) -> Bubble:
        """The newest of exactly `count` finished answers."""
        found = await self.house.settled(self.answers, count, timeout)
        assert len(found) == count, [b.text for b in found]
        return found[-1]

    async def growing(self, text: str = "") -> Bubble:
        """The newest answer, once it shows something (with `text` in it)."""

        def shown() -> Bubble | None:
            found = self.answers()
            return found[-1] if found and found[-1].text and text in found[-1].text else None

        bubble: Bubble = await self.sim.wait_for(shown, 15)
        return bubble

    async def press(self, bubble: Bubble, label: str, who: int = 0) -> dict[str, Any]:
        """Somebody touches the button with this label."""
        (button,) = [b for b in bubble.buttons() if b.text == label]
        answer: dict[str, Any] = await self.sim.press(bubble.id, button.id, self.people[who])
        return answer


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
