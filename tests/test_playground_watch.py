"""What the playground's page tells of the employed bot: lamp, trails, its plug."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Locator, async_playwright, expect
from playwright.async_api import Page as Tab

from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from adapters.playground.live import MOMENTS, TURNS, Step, read_live
from adapters.playground.scene import Scene
from adapters.playground.stage import Stage
from adapters.playground.trails import Trails
from bot.clock import SystemClock

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=20_000)

SHOTS = os.environ.get("QUEQIAO_SHOTS", "")
T0 = 1_795_500_000.0
PROBLEM = "feishu: 密钥被拒绝 / the secret was refused"


@dataclass
class FakeBot:
    """A process with a real control socket: it answers GET /live with `answer`, JSON or
    bytes; None leaves the caller waiting."""

    socket: Path
    running: bool = True
    told: list[str] = field(default_factory=list)
    answer: Any = field(default_factory=lambda: live())
    asked: int = 0
    asked_again: asyncio.Event = field(default_factory=asyncio.Event)
    runner: web.AppRunner | None = None

    def kill(self) -> None:
        self.told.append("kill")
        self.running = False

    def start(self) -> None:
        self.told.append("start")
        self.running = True

    async def listen(self) -> None:
        app = web.Application()
        app.router.add_get("/live", self._live)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.UnixSite(self.runner, str(self.socket)).start()

    async def hang_up(self) -> None:
        """Nobody answers at the socket any more."""
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None
        self.socket.unlink(missing_ok=True)

    async def _live(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.asked > 1:
            self.asked_again.set()
        if self.answer is None:
            await asyncio.sleep(3600)
        raw = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return web.Response(body=raw, content_type="application/json")


def live(*turns: dict[str, Any], problems: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"ready": not problems, "problems": list(problems), "turns": list(turns)}


def moments(*steps: str | tuple[str, str]) -> list[dict[str, Any]]:
    """A moment every 0.5 s."""
    pairs = [(step, "") if isinstance(step, str) else step for step in steps]
    return [
        {"at": T0 + number / 2, "what": what, "detail": detail}
        for number, (what, detail) in enumerate(pairs)
    ]


@dataclass
class World:
    stage: Stage
    bot: FakeBot

    def chat(self, platform: str, person: str = "") -> str:
        """The bot's name of the group, or of the person's private chat."""
        world = (self.stage.feishu if platform == "feishu" else self.stage.dingtalk).world
        private = [c for c in world.chats.values() if len(c.members) == 1]
        if not person:
            return next(c.id for c in world.chats.values() if c not in private)
        chat = next(c for c in private if c.members[0].name == person)
        member: Any = chat.members[0]
        return chat.id if platform == "feishu" else str(member.staff_id)

    def turn(self, steps: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
        turn = {"id": "t1", "platform": "feishu", "chat": self.chat("feishu"), "message_id": "m"}
        return turn | {"state": "running", "moments": steps} | changes


@asynccontextmanager
async def world(*, employed: bool = True, listening: bool = True) -> AsyncIterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="q-"))
    bot = FakeBot(folder / "s")
    async with Stage(SystemClock(), port=0) as stage:
        if listening:
            await bot.listen()
        if employed:
            stage.employ(bot)
        try:
            yield World(stage, bot)
        finally:
            await bot.hang_up()
            shutil.rmtree(folder)


@pytest_asyncio.fixture(loop_scope="module")
async def here() -> AsyncIterator[World]:
    async with world() as here:
        yield here


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(here: World, browser: Browser, **options: Any) -> AsyncIterator[Tab]:
    """The page in a tab; fails on script errors and CSP reports."""
    options.setdefault("viewport", {"width": 1440, "height": 900})
    context = await browser.new_context(locale="zh-CN", **options)
    tab = await context.new_page()
    troubles: list[str] = []
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    await tab.goto(here.stage.url)
    await expect(tab.get_by_test_id("feishu-group").get_by_test_id("link")).to_be_visible()
    yield tab
    await context.close()
    assert not troubles


async def shot(tab: Tab, name: str) -> None:
    if SHOTS:
        await tab.screenshot(path=f"{SHOTS}/{name}.png")


def steps(tab: Tab, chat: str = "feishu-group") -> Locator:
    return tab.get_by_test_id(chat).get_by_test_id("steps").locator("li.step")


def lamp(tab: Tab) -> Locator:
    return tab.get_by_test_id("lamp")


# the trail ------------------------------------------------------------------------------


async def test_a_trail_is_drawn_and_grows(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await expect(steps(tab)).to_have_count(0)
        here.bot.answer = live(here.turn(moments("claimed", "acked")))
        await expect(steps(tab)).to_have_text(["收到", "确认500 ms"])
        path = ["claimed", "acked", ("opened", "cardkit"), ("shown", "12")]
        here.bot.answer = live(here.turn(moments(*path)))
        await expect(steps(tab)).to_have_text(["收到", "确认500 ms", "出现1.0 s", "更新 ×121.5 s"])
        await expect(steps(tab).last).to_be_in_viewport()
        closed = here.turn(moments(*path, ("closed", "delivered")), state="ended")
        here.bot.answer = live(closed)
        await expect(steps(tab).last).to_have_class("step good")
        await expect(steps(tab).last).to_have_text("收尾2.0 s")
        await shot(tab, "trail")
        for other in ("dingtalk-group", "feishu-private", "dingtalk-private"):
            await expect(steps(tab, other)).to_have_count(0)
        await tab.reload()
        await expect(steps(tab)).to_have_count(5)


async def test_what_went_wrong_is_marked_and_told(here: World, browser: Browser) -> None:
    path = ["claimed", "resumed", "retried", ("stepped_down", "card → webhook"), "undelivered"]
    here.bot.answer = live(here.turn(moments(*path), state="undelivered"))
    async with opened(here, browser) as tab:
        await expect(steps(tab)).to_have_count(5)
        looks = [await steps(tab).nth(n).get_attribute("class") for n in range(5)]
        assert [look.split()[1] for look in looks if look] == [
            "good",
            "warm",
            "warm",
            "warm",
            "bad",
        ]
        story = tab.get_by_test_id("feishu-group").get_by_test_id("story")
        await expect(story).to_be_hidden()
        await tab.get_by_test_id("feishu-group").get_by_test_id("trail").click()
        await expect(story.locator("li")).to_have_count(5)
        stepped = "平台不接受，换了一种方式 · AI 卡片 → 会话消息"
        await expect(story.locator("li").nth(3)).to_contain_text(stepped)
        await expect(story.locator(".state")).to_have_text("没有送到")
        await shot(tab, "story")
        await tab.keyboard.press("Escape")
        await expect(story).to_be_hidden()
        await tab.get_by_test_id("language").click()
        await expect(steps(tab).nth(3)).to_contain_text("stepped down")


async def test_each_chat_has_its_own_trail(here: World, browser: Browser) -> None:
    here.bot.answer = live(
        here.turn(moments("claimed"), id="a"),
        here.turn(
            moments("claimed", "acked"),
            id="b",
            platform="dingtalk",
            chat=here.chat("dingtalk", "王磊"),
        ),
        here.turn(moments("claimed", "acked", "closed"), id="c", chat=here.chat("feishu", "林晓")),
        here.turn(moments("claimed"), id="d", chat="of another app"),
        here.turn(moments("claimed"), id="e", platform="of another kind"),
    )
    async with opened(here, browser) as tab:
        await expect(steps(tab, "feishu-private")).to_have_count(3)
        await expect(steps(tab)).to_have_count(1)
        await expect(steps(tab, "dingtalk-private")).to_have_count(0)
        await tab.get_by_test_id("person-p1").click()
        await expect(steps(tab, "dingtalk-private")).to_have_count(2)
        await expect(steps(tab, "feishu-private")).to_have_count(0)


async def test_foreign_words_in_a_trail_stay_text(here: World, browser: Browser) -> None:
    evil = "<img src=x onerror='window.hit=1'>"
    path: list[Any] = [(evil, evil), ("decided", evil), ("closed", evil)]
    here.bot.answer = live(here.turn(moments(*path), state=evil), problems=(evil,))
    async with opened(here, browser) as tab:
        await expect(steps(tab).first).to_contain_text("<img src=x")
        await tab.get_by_test_id("feishu-group").get_by_test_id("trail").click()
        await lamp(tab).click()
        await expect(tab.get_by_test_id("health")).to_contain_text("<img src=x")
        assert await tab.evaluate("window.hit") is None
        assert await tab.locator("main img, .health img").count() == 0


async def test_the_newest_question_is_on_the_line(here: World, browser: Browser) -> None:
    old = here.turn(moments("claimed", "acked", "closed"), id="old", state="ended")
    new = here.turn([{"at": T0 + 60, "what": "claimed"}], id="new")
    here.bot.answer = live(old, new)
    async with opened(here, browser) as tab:
        await expect(steps(tab)).to_have_count(1)
        await tab.get_by_test_id("feishu-group").get_by_test_id("trail").click()
        story = tab.get_by_test_id("feishu-group").get_by_test_id("story")
        await expect(story.locator("section")).to_have_count(2)
        await expect(story.locator(".state")).to_have_text(["正在回答", "已结束"])


# the lamp -------------------------------------------------------------------------------


async def test_the_lamp_and_its_words(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await expect(lamp(tab)).to_have_attribute("data-lamp", "ready")
        await expect(lamp(tab)).to_have_text("运行正常")
        here.bot.answer = live(problems=(PROBLEM, "没有译文"))
        await expect(lamp(tab)).to_have_attribute("data-lamp", "troubled")
        await lamp(tab).click()
        problems = tab.get_by_test_id("health").locator("li")
        await expect(problems).to_have_text(["feishu: 密钥被拒绝", "没有译文"])
        await tab.get_by_test_id("language").click()
        await lamp(tab).click()
        await expect(problems).to_have_text(["feishu: the secret was refused", "没有译文"])
        await shot(tab, "lamp-en")
        here.bot.running = False
        await expect(lamp(tab)).to_have_attribute("data-lamp", "down")
        await expect(lamp(tab)).to_have_text("Not running")
        await expect(problems).to_have_count(0)
        here.bot.running = True
        await expect(lamp(tab)).to_have_attribute("data-lamp", "troubled")


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xff{",
        b"[1, 2]",
        b'{"ready": "yes"}',
        b'{"ready": true, "turns": [NaN]}',
        b"[" * 100_000,
        b'{"ready": tr' + b"u" * (9 << 20),
    ],
    ids=["nothing", "bytes", "a list", "a string", "not JSON", "deep", "huge"],
)
async def test_junk_from_the_socket_is_no_answer(
    here: World, browser: Browser, junk: bytes
) -> None:
    here.bot.answer = junk
    async with opened(here, browser) as tab:
        await here.bot.asked_again.wait()
        await expect(lamp(tab)).to_have_attribute("data-lamp", "starting")
        here.bot.answer = live()
        await expect(lamp(tab)).to_have_attribute("data-lamp", "ready")
        here.bot.answer = junk
        await expect(lamp(tab)).to_have_attribute("data-lamp", "silent", timeout=30_000)
        await expect(lamp(tab)).to_have_text("没有回音")


async def test_without_a_socket_the_page_goes_on(browser: Browser) -> None:
    async with world(listening=False) as here, opened(here, browser) as tab:
        await expect(lamp(tab)).to_have_attribute("data-lamp", "starting")
        box = tab.get_by_test_id("feishu-group").get_by_test_id("composer")
        await box.fill("还在吗")
        await box.press("Enter")
        bubbles = tab.get_by_test_id("feishu-group").get_by_test_id("bubble")
        await expect(bubbles).to_contain_text("还在吗")
        await here.bot.listen()
        await expect(lamp(tab)).to_have_attribute("data-lamp", "ready")
        await here.bot.hang_up()
        await expect(lamp(tab)).to_have_attribute("data-lamp", "silent", timeout=30_000)


async def test_a_bot_that_keeps_silent_is_not_waited_for(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await expect(lamp(tab)).to_have_attribute("data-lamp", "ready")
        here.bot.answer = None
        await expect(lamp(tab)).to_have_attribute("data-lamp", "silent", timeout=40_000)
        assert here.bot.asked > 2


# the plug -------------------------------------------------------------------------------


async def test_the_bot_is_killed_in_mid_answer_and_goes_on(here: World, browser: Browser) -> None:
    before = moments("claimed", "acked", ("opened", "cardkit"), ("shown", "5"))
    here.bot.answer = live(here.turn(before))
    async with opened(here, browser) as tab:
        await expect(steps(tab)).to_have_count(4)
        await tab.get_by_test_id("faults-open").click()
        await expect(tab.get_by_test_id("fault-start")).to_be_disabled()
        await tab.get_by_test_id("fault-kill-back").click()
        await expect(lamp(tab)).to_have_attribute("data-lamp", "down")
        await expect(steps(tab).last).to_contain_text("被杀")
        await shot(tab, "killed")
        after = [{"at": 4_000_000_000.0, "what": what} for what in ("resumed", "closed")]
        here.bot.answer = live(here.turn(after, state="ended"))
        await expect(lamp(tab)).to_have_attribute("data-lamp", "ready", timeout=30_000)
        assert here.bot.told == ["kill", "start"]
        whats = [await steps(tab).nth(n).get_attribute("data-what") for n in range(7)]
        assert whats == [*(m["what"] for m in before), "killed", "resumed", "closed"]


async def test_a_bot_is_killed_for_good_and_started(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await expect(lamp(tab)).to_have_attribute("data-lamp", "ready")
        await tab.get_by_test_id("faults-open").click()
        await tab.get_by_test_id("fault-kill").click()
        await expect(tab.get_by_test_id("fault-kill")).to_be_disabled()
        await tab.get_by_test_id("fault-start").click()
        await expect(lamp(tab)).to_have_attribute("data-lamp", "ready")
        await expect(tab.get_by_test_id("fault-start")).to_be_disabled()
        assert here.bot.told == ["kill", "start"]


async def test_without_a_bot_nothing_is_told_of_it(browser: Browser) -> None:
    async with world(employed=False) as here, opened(here, browser) as tab:
        await tab.get_by_test_id("faults-open").click()
        await expect(tab.get_by_test_id("fault-half-dingtalk")).to_be_visible()
        await expect(tab.get_by_test_id("fault-kill-back")).to_have_count(0)
        await expect(lamp(tab)).to_be_hidden()
        await expect(tab.get_by_test_id("feishu-group").get_by_test_id("trail")).to_be_hidden()
        assert here.bot.asked == 0


# the panel ------------------------------------------------------------------------------


async def test_what_is_ordered_is_seen_until_it_has_struck(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await tab.get_by_test_id("faults-open").click()
        button = tab.get_by_test_id("fault-burst-feishu")
        await button.click()
        await expect(button.locator(".left")).to_have_text("×8")
        await expect(tab.get_by_test_id("toast").last).to_contain_text("已安排")
        late = tab.get_by_test_id("fault-late-dingtalk")
        await late.click()
        await expect(late).to_have_attribute("aria-pressed", "true")
        await shot(tab, "panel")
        here.stage.feishu.faults.clear()
        await expect(button.locator(".left")).to_be_hidden()
        await tab.get_by_test_id("fault-clear").click()
        await expect(late).to_have_attribute("aria-pressed", "false")


async def test_the_panel_stays_beside_the_chats_where_there_is_room(
    here: World, browser: Browser
) -> None:
    async with opened(here, browser) as tab:
        await tab.get_by_test_id("faults-open").click()
        await tab.get_by_test_id("feishu-group").get_by_test_id("composer").click()
        await expect(tab.get_by_test_id("faults")).to_be_visible()
        chat = await tab.get_by_test_id("dingtalk-group").bounding_box()
        panel = await tab.get_by_test_id("faults").bounding_box()
        assert chat and panel and chat["x"] + chat["width"] <= panel["x"]
        await tab.get_by_test_id("language").click()
        await expect(tab.get_by_test_id("faults")).to_contain_text("Break something")


async def test_on_a_phone_the_panel_makes_room_again(here: World, browser: Browser) -> None:
    path = ["claimed", "acked", "started", "opened", ("shown", "40"), "decided", "closed"]
    here.bot.answer = live(here.turn(moments(*path)), problems=(PROBLEM,))
    async with opened(here, browser, viewport={"width": 390, "height": 844}) as tab:
        await expect(steps(tab).last).to_be_in_viewport()
        await tab.get_by_test_id("faults-open").click()
        await tab.get_by_test_id("fault-late-feishu").click()
        await expect(tab.get_by_test_id("faults")).to_be_visible()
        await tab.get_by_test_id("fault-kill").click()
        await expect(tab.get_by_test_id("faults")).to_be_hidden()
        await lamp(tab).click()
        await expect(tab.get_by_test_id("health")).to_be_in_viewport(ratio=1)
        assert await tab.evaluate("document.documentElement.scrollWidth") <= 390


async def test_every_word_is_there_in_both_languages(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        words = [
            await tab.evaluate(f"import('/static/{lang}.js').then((words) => words.{lang})")
            for lang in ("zh", "en")
        ]
        assert words[0].keys() == words[1].keys()
        offered = (await tab.evaluate(HELLO))["faults"]["offered"]
        assert "kill" in offered and "leave-dingtalk" in offered
        for name in offered:
            kind = name.removesuffix("-feishu").removesuffix("-dingtalk")
            assert f"fault.{kind}" in words[0], kind
            assert f"watch.{kind}" in words[0] or f"done.{kind}" in words[0], kind


HELLO = """() => new Promise((resolve) => {
  const socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onmessage = ({ data }) => { socket.close(); resolve(JSON.parse(data).value); };
})"""


# without a browser ----------------------------------------------------------------------


async def test_nobody_asks_while_nobody_looks(here: World) -> None:
    clock = VirtualClock()
    scene = Scene(FeishuSim(clock), DingTalkSim(clock), clock)
    scene.employ(here.bot)
    heard: list[str] = []
    try:
        await clock.advance(60)
        assert here.bot.asked == 0
        with scene.listening(lambda kind, key, value: heard.append(kind)):
            while not heard:
                await clock.advance(0.4)
        assert heard[0] == "health" and here.bot.asked
    finally:
        await scene.close()


async def test_a_trail_forgets_no_moment_and_no_turn_too_many() -> None:
    trails = Trails()
    raw = {"id": "a", "platform": "p", "chat": "c", "state": "running", "message_id": "m"}

    def take(*turns: dict[str, Any]) -> None:
        found = read_live(json.dumps(live(*turns)).encode())
        assert found is not None
        trails.take([("k", turn) for turn in found.turns])

    take(raw | {"moments": moments("claimed", ("shown", "1"))})
    take(raw | {"moments": moments("claimed", ("shown", "2"))})
    trails.killed(T0 + 9)
    take(raw | {"moments": [{"at": T0 + 12, "what": "resumed"}]})
    [told] = trails.as_json()["k"]
    assert [m["what"] for m in told["moments"]] == ["claimed", "shown", "killed", "resumed"]
    assert told["moments"][1]["detail"] == "2" and told["state"] == "running"
    take()
    assert trails.as_json()["k"][0]["state"] == ""
    many = [
        raw | {"id": f"{n}", "moments": [{"at": T0 + 100 - n, "what": "claimed"}]} for n in range(9)
    ]
    take(*many)
    assert [turn["id"] for turn in trails.as_json()["k"]] == ["2", "1", "0"]


async def test_only_what_has_the_right_shape_is_read() -> None:
    good = {"id": "t", "platform": "feishu", "chat": "c", "state": "queued"}
    turns: list[Any] = [
        5,
        [],
        {},
        {**good, "chat": 7},
        {**good, "id": ""},
        {**good, "moments": "many"},
        {**good, "moments": [1, {}, {"at": True, "what": "x"}, {"at": "1", "what": "x"}]},
        {**good, "moments": [{"at": 1, "what": "x", "detail": {}}, {"at": 2.5, "what": ""}]},
    ]
    raw = {"ready": True, "problems": ["a", 1, "", None, "b" * 900], "turns": turns}
    found = read_live(json.dumps(raw).encode())
    assert found is not None
    assert found.problems == ("a", "b" * 400)
    assert [turn.steps for turn in found.turns] == [(), (), (Step(1.0, "x"),)]
    assert found.turns[0].message == ""
    huge = {**good, "moments": moments(*["x"] * 1000)}
    found = read_live(json.dumps(live(*[huge] * 600)).encode())
    assert found is not None
    assert len(found.turns) == TURNS and len(found.turns[0].steps) == MOMENTS
