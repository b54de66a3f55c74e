"""Never deaf (design.md 1): every way in which a link was seen to die, on both platforms,
in virtual time. Nobody restarts anything."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.dingtalk.chat import DingTalkPlatform, DingTalkSettings
from adapters.feishu.chat import FeishuPlatform, FeishuSettings
from adapters.hearing import ACTIVE, IDLE, PING_EVERY, QUIET
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.dingtalk.wire import CONNECT, OPEN
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim
from adapters.playground.feishu.wire import DISCOVER
from bot.contract import ActionReply, CardAction, InboundMessage, LinkStatus

HOUR = 3_600.0
BACK = 60.0
"""Seconds after which a link must hear again, once the network works."""

SLOW = 130.0
"""The same where the platform refused the app, which is retried slowly."""

RED = 120.0
"""Seconds after which the status must say that something is wrong."""

ASK_EVERY = 5.0
FILES = Path("/proc/self/fd")
PROC = FILES.is_dir()


class Intake:
    """Remembers what was heard, and of which times something may be missing."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.gaps: list[tuple[float, float]] = []

    async def message(self, message: InboundMessage) -> None:
        self.texts.append(message.text.removeprefix("@Queqiao").strip())

    async def action(self, action: CardAction) -> ActionReply:
        raise AssertionError("nobody presses")

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        raise AssertionError("nobody recalls")

    def gap(self, bot: str, since: float, until: float) -> None:
        assert bot == "bot" and since <= until
        self.gaps.append((since, until))


class Stage:
    """A platform at work on its simulator, and somebody who asks."""

    def __init__(self, name: str, clock: VirtualClock) -> None:
        self.name, self.clock, self.intake = name, clock, Intake()
        self.sim: Any = FeishuSim(clock) if name == "feishu" else DingTalkSim(clock)
        self.http = Http(clock=clock)
        self.said: dict[str, float] = {}
        self.reds: dict[float, str] = {}

    @property
    def status(self) -> LinkStatus:
        return self.platform.status

    def enter(self) -> None:
        """The simulator is up: here comes the bot."""
        sim, url = self.sim, self.sim.base_url
        if self.name == "feishu":
            feishu = FeishuSettings("bot", sim.app_id, sim.app_secret, base_url=url)
            self.platform: Any = FeishuPlatform(feishu, self.http, self.clock)
        else:
            ding = DingTalkSettings("bot", sim.client_id, sim.client_secret, base_url=url)
            self.platform = DingTalkPlatform(ding, self.http, self.clock)
        self.alice = sim.add_person("Alice")
        self.group = sim.add_group("Devs", [self.alice])
        self.run = asyncio.create_task(self.platform.run(self.intake))

    async def leave(self) -> None:
        assert not self.run.done(), "the link must never end by itself"
        self.run.cancel()
        await asyncio.gather(self.run, return_exceptions=True)
        assert not self.status.connected and "stopped" in self.status.cause
        await self.platform.close()
        await self.http.close()

    def no_second_chance(self) -> None:
        """What reaches no connection is lost."""
        self.sim.policy.redeliver_after = ()
        if self.name == "dingtalk":
            self.sim.policy.keep_without_link = False

    async def say(self, text: str) -> None:
        self.said[text] = self.clock.time()
        await self.sim.say(self.group, self.alice, text, mention_bot=True)

    async def pass_(self, seconds: float, step: float = 5.0) -> None:
        """Let time pass and note when the light is red, and with which words."""
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 0:
            await self.clock.advance(min(step, left))
            if not self.status.hearing:
                self.reds.setdefault(self.clock.monotonic(), self.status.cause)

    async def answered(self) -> None:
        """The pong of the last ping is here, however slow the machine is."""
        async with asyncio.timeout(10):
            while self.status.last_frame < self.clock.monotonic() - PING_EVERY - 1:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def until(self, true: Callable[[], object], within: float, step: float = 1.0) -> None:
        end = self.clock.monotonic() + within
        while not true():
            assert self.clock.monotonic() < end, f"not within {within} s: {self.status}"
            await self.pass_(step)

    async def heard(self, text: str, within: float) -> None:
        await self.say(text)
        await self.until(lambda: text in self.intake.texts, within)

    async def asks_until_heard(self, within: float) -> None:
        """Somebody asks again and again; one question must come through in time."""
        end, number = self.clock.monotonic() + within, 0
        while not any(text.startswith("again") for text in self.intake.texts):
            assert self.clock.monotonic() < end, f"deaf for {within} s: {self.status}"
            await self.say(f"again {number}")
            number += 1
            await self.pass_(ASK_EVERY, step=0.2)

    def forgotten(self) -> list[str]:
        """Questions that were neither heard nor lie in a time named as missing. Of those
        asked after the newest gap the platform may have sent some to a connection that it
        alone still believed in: they come again, or nobody can know of them."""
        end = max((until for _, until in self.intake.gaps), default=self.clock.time())
        return [
            text
            for text, moment in self.said.items()
            if moment <= end
            and text not in self.intake.texts
            and not any(since - 1 <= moment <= until for since, until in self.intake.gaps)
        ]

    def turned_red(self, words: str) -> float:
        """When; and at some time it said these words of it."""
        assert any(words in cause for cause in self.reds.values()), self.reds
        assert all(" / " in cause for cause in self.reds.values())
        return min(self.reds)

    async def bury(self) -> None:
        """The platform gives up the connections that only it believed in."""
        for ghost in self.sim.links[:-1]:
            ghost.cut()
        await self.until(lambda: len(self.sim.links) == 1, 5, step=0.1)


Open = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def open_stage(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """`make(name)` gives a stage that has heard one message; all share one clock."""
    random.seed(5)
    clock = VirtualClock(settle=getattr(request, "param", 0.001))
    async with AsyncExitStack() as stack:

        async def make(name: str, up: bool = True) -> Stage:
            stage = Stage(name, clock)
            await stack.enter_async_context(stage.sim)
            stage.enter()
            if not up:
                stage.sim.renew_secret("made anew")
            stack.push_async_callback(stage.leave)
            if up:
                await stage.until(lambda: stage.status.connected, 5, step=0.1)
                await stage.heard("before", 5)
            stage.reds.clear()
            return stage

        yield make


on_both = pytest.mark.parametrize("name", ["feishu", "dingtalk"])
hurried = pytest.mark.parametrize("open_stage", [0.0], indirect=True, ids=[""])
redelivered = pytest.mark.parametrize("again", [True, False], ids=["redelivered", "lost"])


# ---------------------------------------------------------------- deaths


@dataclass(frozen=True)
class Mode:
    """`strike` breaks it, for `lasts` seconds until `heal`; then it must hear within `back`
    seconds. `words`: what the status says of it, at some time; None when a
    fresh connection is up before anybody could look."""

    id: str
    strike: Callable[[Stage], object]
    heal: Callable[[Stage], object] = lambda stage: None
    lasts: float = 0.0
    back: float = BACK
    words: str | None = ""
    only: str = ""


async def done(outcome: object) -> None:
    if asyncio.iscoroutine(outcome):
        await outcome


def hang(stage: Stage) -> None:
    """The endpoint is asked and never answers, when the link needs it."""
    route = DISCOVER if stage.name == "feishu" else OPEN
    stage.sim.faults.order(route, Fault("hang", seconds=10 * HOUR), times=10_000)
    stage.sim.cut_links()


def refuse(*args: object, **keywords: object) -> Callable[[Stage], None]:
    def strike(stage: Stage) -> None:
        stage.sim.refuse_links(*args, **keywords)
        stage.sim.cut_links()

    return strike


def accept(stage: Stage) -> None:
    stage.sim.accept_links()


def close(code: int) -> Callable[[Stage], object]:
    return lambda stage: stage.sim.close_links(code)


def suspend(stage: Stage) -> None:
    """The machine sleeps for eight hours; its peers gave it up."""
    stage.sim.mute_links(half_open=True)
    stage.clock.jump(8 * HOUR)


MODES = [
    Mode("endpoint hangs", hang, lambda s: s.sim.faults.clear(), 600, words="cannot reach"),
    Mode("half-open", lambda s: s.sim.mute_links(half_open=True), back=90, words="not answer"),
    Mode("close 1000", close(1000), words="lost"),
    Mode("close 1001", close(1001), words="lost"),
    Mode("close 1011", close(1011), words="lost"),
    Mode("cut, 1006", lambda s: s.sim.cut_links(), words="lost"),
    Mode("network away", lambda s: s.sim.go_away(), lambda s: s.sim.come_back(), 1_800),
    Mode("asleep", suspend, words=None),
    Mode("nobody is let in", refuse(), accept, 3 * HOUR, back=SLOW),
    *(
        Mode(f"feishu {code}", refuse(code), accept, 900, back, words, only="feishu")
        for code, back, words in [
            (1, BACK, "refuses connections"),
            (1000040343, BACK, "refuses connections"),
            (1000040345, SLOW, "refuses connections"),
            (1000040350, SLOW, "too many"),
            (403, SLOW, "may not connect"),
            (514, SLOW, "credentials refused"),
        ]
    ),
    Mode("feishu HTTP 503", refuse(1, status=503), accept, 900, only="feishu"),
    Mode("feishu handshake", refuse(1000040350, handshake=True), accept, 900, SLOW, only="feishu"),
    *(
        Mode(f"dingtalk {status}", refuse(status, code), accept, 900, back, words, "dingtalk")
        for status, code, back, words in [
            (503, "ServiceUnavailable", BACK, "refuses connections"),
            (401, "authFailed", SLOW, "credentials refused"),
            (400, "robot.notStream", SLOW, "may not connect"),
            (403, "Forbidden", SLOW, "may not connect"),
        ]
    ),
]

CASES = [
    pytest.param(name, mode, id=f"{name}-{mode.id}")
    for mode in MODES
    for name in ("feishu", "dingtalk")
    if mode.only in ("", name)
]


@redelivered
@pytest.mark.parametrize(("name", "mode"), CASES)
async def test_it_hears_again(open_stage: Open, name: str, mode: Mode, again: bool) -> None:
    stage = await open_stage(name)
    if not again:
        stage.no_second_chance()
    await stage.pass_(ACTIVE + 10, step=20)  # nobody is talking
    await done(mode.strike(stage))
    struck = stage.clock.monotonic()
    await stage.pass_(3, step=0.1)
    await stage.pass_(mode.lasts, step=20)
    await done(mode.heal(stage))
    await stage.asks_until_heard(mode.back)

    if mode.words is not None:
        assert stage.turned_red(mode.words) - struck <= RED
    status = stage.status
    assert status.hearing and (status.cause, status.detail, status.attempts) == ("", "", 0)
    assert not status.auth_failed and status.reconnects == 1
    assert stage.forgotten() == []
    [(since, until)] = stage.intake.gaps
    assert since < until <= stage.clock.time()
    await stage.bury()
    await stage.heard("after", 5)
    assert stage.sim.violations == []


@redelivered
@on_both
async def test_half_open_in_a_chat_in_use(open_stage: Open, name: str, again: bool) -> None:
    """On Feishu a quiet link gets its successor before it is known to be dead."""
    stage = await open_stage(name)
    if not again:
        stage.no_second_chance()
    await stage.pass_(70)
    stage.sim.mute_links(half_open=True)
    await stage.asks_until_heard(90)
    await stage.pass_(10)
    assert stage.status.reconnects == 1 and stage.forgotten() == []
    assert stage.status.hearing


@redelivered
async def test_disconnect_costs_nothing(open_stage: Open, again: bool) -> None:
    stage = await open_stage("dingtalk")
    if not again:
        stage.no_second_chance()
    await stage.pass_(100)
    await stage.sim.leave_links("persistent connection is timeout")
    await stage.pass_(0.2, step=0.1)
    for number in range(20):
        await stage.heard(f"meanwhile {number}", 3)
    assert (stage.reds, stage.intake.gaps) == ({}, [])
    assert (stage.status.connects, stage.status.reconnects) == (2, 0)
    assert len(stage.sim.links) == 1, "the old one is gone"


async def test_disconnect_while_nobody_is_let_in(open_stage: Open) -> None:
    stage = await open_stage("dingtalk")
    stage.sim.refuse_links()
    await stage.pass_(100)
    await stage.sim.leave_links()
    struck = stage.clock.monotonic()
    await stage.pass_(RED)
    assert stage.turned_red("refuses") - struck <= 15
    stage.sim.accept_links()
    await stage.asks_until_heard(BACK)
    [(since, _)] = stage.intake.gaps
    assert abs(since - (stage.clock.time() - (stage.clock.monotonic() - struck))) < 1


# ---------------------------------------------------------------- pongs, and nothing else


async def mute(stage: Stage) -> None:
    stage.sim.mute_links(**({"pongs": True} if stage.name == "feishu" else {}))


@redelivered
@on_both
async def test_deaf_in_a_chat_in_use(open_stage: Open, name: str, again: bool) -> None:
    """Two minutes, although every ping is answered."""
    stage = await open_stage(name)
    if not again:
        stage.no_second_chance()
    await stage.pass_(90)
    await stage.heard("now", 5)
    await mute(stage)
    await stage.asks_until_heard(RED)
    assert stage.status.hearing and stage.status.connects == 2
    if again and name == "feishu":
        await stage.until(lambda: set(stage.said) <= set(stage.intake.texts), 400)
    if name == "dingtalk":  # its own pings stopped, so this is known
        assert stage.forgotten() == [] and stage.status.reconnects == 1


@redelivered
@on_both
async def test_deaf_in_an_idle_chat(open_stage: Open, name: str, again: bool) -> None:
    """Half an hour on Feishu; DingTalk's own pings show it sooner."""
    stage = await open_stage(name)
    if not again:
        stage.no_second_chance()
    await stage.pass_(ACTIVE + 1)
    await mute(stage)
    await stage.pass_(RED if name == "dingtalk" else IDLE)
    assert stage.status.hearing
    await stage.heard("after", 5)


@on_both
async def test_deaf_and_nobody_is_let_in(open_stage: Open, name: str) -> None:
    stage = await open_stage(name)
    stage.sim.refuse_links(*([1] if name == "feishu" else []))
    await mute(stage)
    struck = stage.clock.monotonic()
    await stage.pass_(RED)
    assert stage.turned_red("refuses connections") - struck <= RED
    assert stage.status.connected and stage.status.suspect
    stage.sim.accept_links()
    await stage.asks_until_heard(BACK)
    assert stage.status.hearing


async def test_an_application_without_pongs_is_left(open_stage: Open) -> None:
    stage = await open_stage("feishu")
    await stage.pass_(ACTIVE + 1)
    stage.sim.mute_links()  # the WebSocket's own pongs go on
    await stage.asks_until_heard(150 + ASK_EVERY)  # Feishu's ping interval, and 30 s
    assert stage.forgotten() == [] and stage.status.reconnects == 1


# ---------------------------------------------------------------- time


@on_both
@pytest.mark.parametrize("jump", [8 * HOUR, 31.0, -HOUR])
async def test_a_step_of_the_clock_brings_a_fresh_connection(
    open_stage: Open, name: str, jump: float
) -> None:
    """Also when the socket has survived."""
    stage = await open_stage(name)
    await stage.pass_(90)
    before = stage.clock.time()
    stage.clock.jump(jump)
    await stage.until(lambda: stage.status.connects == 2, BACK, step=0.1)
    assert stage.status.hearing
    [(since, until)] = stage.intake.gaps
    assert since <= min(before, before + jump) and until - since >= max(0.0, jump)
    await stage.heard("after", 5)


@on_both
async def test_a_step_of_the_clock_while_nobody_is_let_in(open_stage: Open, name: str) -> None:
    stage = await open_stage(name)
    stage.sim.refuse_links(*([1] if name == "feishu" else []))
    await stage.pass_(50)
    await mute(stage)
    stage.clock.jump(8 * HOUR)
    await stage.pass_(PING_EVERY)
    assert stage.status.connected and stage.status.suspect
    assert "refuses connections" in stage.status.cause


@on_both
async def test_a_slow_drift_is_no_step(open_stage: Open, name: str) -> None:
    stage = await open_stage(name)
    for _ in range(40):
        await stage.pass_(20)
        stage.clock.jump(1.0)
    assert stage.status.reconnects == 0 and stage.intake.gaps == []


@hurried
@pytest.mark.timeout(600)
async def test_a_day_of_silence(open_stage: Open) -> None:
    """A fresh connection every half hour, and nothing else: no gap, no red light."""
    stages = [await open_stage(name) for name in ("feishu", "dingtalk")]
    clock, stages[1].sim.policy.ping_every = stages[0].clock, 100
    await stages[0].pass_(ACTIVE)
    started = [(stage.status.connects, len(stage.sim.calls)) for stage in stages]
    for _ in range(24 * 180):
        await clock.advance(PING_EVERY)
        for stage in stages:
            await stage.answered()
        assert all(stage.status.hearing for stage in stages)
    for stage, (connects, calls) in zip(stages, started, strict=True):
        assert 46 <= stage.status.connects - connects <= 49
        assert (stage.status.reconnects, stage.intake.gaps) == (0, [])
        made = {call.route for call in stage.sim.calls[calls:]}
        assert made <= {DISCOVER, OPEN, CONNECT}, "none of them is counted"
        assert stage.sim.violations == []
        await stage.heard("after", 5)


@on_both
async def test_a_chat_that_goes_quiet(open_stage: Open, name: str) -> None:
    """Feishu has no sign of life of its own: a fresh connection every 95 s, for ten
    minutes. DingTalk has."""
    stage = await open_stage(name)
    await stage.pass_(ACTIVE)
    assert stage.status.connects == 1 + (ACTIVE // QUIET if name == "feishu" else 0)
    await stage.pass_(IDLE - ACTIVE - 10)
    assert stage.status.connects == 1 + (ACTIVE // QUIET if name == "feishu" else 0)
    assert (stage.reds, stage.intake.gaps) == ({}, [])


# ---------------------------------------------------------------- credentials


@on_both
async def test_wrong_credentials_repaired_after_an_hour(open_stage: Open, name: str) -> None:
    stage = await open_stage(name, up=False)
    await stage.pass_(HOUR)
    status = stage.status
    assert status.auth_failed and "凭证被拒绝" in status.cause and status.connects == 0
    route = DISCOVER if name == "feishu" else OPEN
    assert 25 <= len(stage.sim.calls_of(route)) <= 60, "slowly, and for ever"
    stage.sim.renew_secret("playground-secret")
    await stage.asks_until_heard(SLOW + ASK_EVERY)
    assert status.hearing and not status.auth_failed
    assert stage.intake.gaps == [], "the first connection has nothing before it"


@pytest.mark.parametrize("seed", range(6))
async def test_groups_are_understood_as_soon_as_the_link_is_up(open_stage: Open, seed: int) -> None:
    """Who the bot is, is asked again then, not when its own retry comes."""
    stage = await open_stage("feishu", up=False)
    random.seed(seed)
    stage.sim.renew_secret("playground-secret")
    await stage.sim.go_away()
    stage.no_second_chance()
    await stage.pass_(200)
    await stage.sim.come_back()
    await stage.until(lambda: stage.status.connected, BACK, step=0.5)
    await stage.pass_(0.5)
    await stage.heard("hello", 1)


@on_both
async def test_credentials_renewed_under_a_link_that_lives(open_stage: Open, name: str) -> None:
    """It hears on and says loudly that it will not for long."""
    stage = await open_stage(name)
    await stage.pass_(ACTIVE)
    stage.sim.renew_secret("made anew")
    await stage.pass_(IDLE - ACTIVE - 100)
    assert stage.status.hearing and not stage.status.auth_failed
    await stage.heard("still here", 5)
    await stage.pass_(IDLE + 100)
    assert stage.status.auth_failed and stage.status.connected
    assert stage.status.suspect and "credentials refused" in stage.status.cause
    await stage.heard("and here", 5)
    assert stage.status.hearing, "that was a proof"


async def test_no_room_for_a_successor(open_stage: Open) -> None:
    """An app that may have one connection only: then the old one goes first."""
    stage = await open_stage("feishu")
    stage.sim.policy.most_links = 1
    await mute(stage)
    await stage.asks_until_heard(RED)
    assert len(stage.sim.links) == 1 and stage.status.hearing


# ---------------------------------------------------------------- leaks


@hurried
@pytest.mark.timeout(600)
@on_both
async def test_nothing_is_left_of_500_connections(open_stage: Open, name: str) -> None:
    stage = await open_stage(name)
    await stage.pass_(61)
    await stage.until(lambda: len(stage.sim.links) == 1, 60)
    before = await counted(stage)
    for number in range(500):
        connects = stage.status.connects
        if number % 5 == 4 and name == "dingtalk":
            await stage.sim.leave_links()
        elif number % 5 == 3:
            await stage.sim.close_links(1001)
        else:
            stage.sim.cut_links()
        await stage.until(lambda c=connects: stage.status.connects > c, 40, step=0.5)
        await stage.clock.advance(61)
    await stage.pass_(20)
    after = await counted(stage)
    assert stage.status.connects >= 501 and len(stage.sim.links) == 1
    assert all(now <= then + 3 for now, then in zip(after, before, strict=True)), (before, after)


async def counted(stage: Stage) -> tuple[int, int]:
    """Tasks and open files."""
    await stage.clock.advance(0)
    gc.collect()
    return len(asyncio.all_tasks()), len(os.listdir(FILES)) if PROC else 0
