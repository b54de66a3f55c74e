"""adapters/playground/page: the demo's page, in headless Chromium, on two fake platforms."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, async_playwright, expect
from playwright.async_api import Page as Tab

from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.page import Page
from adapters.playground.page.feed import Feed
from adapters.playground.scene import Mistake, Scene
from adapters.playground.stage import Stage
from adapters.playground.view import Block, Bubble
from bot.clock import SystemClock
from bot.texts import en, zh

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOTS = os.environ.get("QUEQIAO_SHOTS", "")
"""A folder for screenshots; none are taken without it."""

HOSTILE = (
    '<img src="http://evil.example/x.png" onerror="window.hit=1"><script>window.hit=1</script>\n\n'
    "[click](javascript:window.hit=1) ![pic](http://evil.example/y.png) "
    "<a href='javascript:window.hit=1'>x</a> [data](data:text/html,<script>window.hit=1</script>)"
)


@dataclass
class Person:
    name: str
    id: str


@dataclass
class Place:
    id: str
    members: list[Person]
    group: bool


@dataclass
class FakeSim:
    """A platform whose bot is the test: `bot` is called with every message it may hear."""

    name: str
    links: list[int] = field(default_factory=lambda: [1])
    places: dict[str, Place] = field(default_factory=dict)
    shown: dict[str, Bubble] = field(default_factory=dict)
    queues: list[asyncio.Queue[tuple[str, Bubble]]] = field(default_factory=list)
    presses: list[tuple[str, str, str]] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    bot: Callable[[FakeSim, str, str], Awaitable[None]] | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    open_door: asyncio.Event = field(default_factory=asyncio.Event)
    ids: Any = field(default_factory=lambda: itertools.count(1))

    def add_person(self, name: str) -> Person:
        return Person(name, f"{self.name}-{name}/+=")

    def add_group(self, name: str, members: list[Person]) -> Place:
        return self._place(members, True)

    def p2p(self, person: Person) -> Place:
        return self._place([person], False)

    def _place(self, members: list[Person], group: bool) -> Place:
        place = Place(f"{self.name}-chat-{next(self.ids)}", members, group)
        self.places[place.id] = place
        return place

    async def say(
        self, chat: Place, person: Person, text: str, *, mention_bot: bool, mention_all: bool
    ) -> str:
        self.said.append({"text": text, "bot": mention_bot, "all": mention_all})
        shown = ("@鹊桥 " if mention_bot else "") + ("@所有人 " if mention_all else "") + text
        bubble = self.put(chat.id, [Block("markdown", shown)], author=person)
        if self.bot and (mention_bot or not chat.group):
            self.tasks.append(asyncio.create_task(self.bot(self, chat.id, text)))
        return bubble.id

    def put(
        self, chat: str, blocks: list[Block], author: Person | None = None, **fields: Any
    ) -> Bubble:
        number = next(self.ids)
        name, who = (author.name, author.id) if author else ("鹊桥", "bot:app")
        bubble = Bubble(f"m/{number}+", chat, who, name, 1_795_500_000.0 + number, **fields)
        bubble.blocks = blocks
        self.shown[bubble.id] = bubble
        self.tell(bubble)
        return bubble

    def tell(self, bubble: Bubble) -> None:
        for queue in self.queues:
            queue.put_nowait((bubble.chat, copy.deepcopy(bubble)))

    async def press(self, bubble_id: str, block_id: str, person: Person) -> dict[str, Any]:
        if block_id not in [block.id for block in self.shown[bubble_id].buttons()]:
            raise ValueError(block_id)
        self.presses.append((bubble_id, block_id, person.name))
        await self.open_door.wait()
        return self.answer

    def recall(self, message_id: str) -> None:
        self.shown[message_id].recalled = True
        self.tell(self.shown[message_id])

    def bubbles(self, chat: Place) -> list[Bubble]:
        return [bubble for bubble in self.shown.values() if bubble.chat == chat.id]

    def subscribe(self) -> asyncio.Queue[tuple[str, Bubble]]:
        self.queues.append(asyncio.Queue())
        return self.queues[-1]

    def cut_links(self) -> None:
        self.links.clear()

    @property
    def group(self) -> str:
        return next(place.id for place in self.places.values() if place.group)


class DingFake(FakeSim):
    """DingTalk tells bots nothing of a recall, so its simulator has none."""

    recall = property()  # type: ignore[assignment]


@dataclass
class World:
    feishu: FakeSim
    dingtalk: FakeSim
    model: DeepSeekSim
    scene: Scene
    page: Page


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    clock = SystemClock()
    feishu, dingtalk, model = FakeSim("feishu"), DingFake("dingtalk"), DeepSeekSim(clock)
    scene = Scene(feishu, dingtalk, clock, model)
    page = Page(scene, clock, 0)
    scene.start()
    await page.start()
    try:
        yield World(feishu, dingtalk, model, scene, page)
    finally:
        await page.close()
        await scene.close()
        await asyncio.gather(*feishu.tasks, *dingtalk.tasks)


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
    """The page in a tab; fails on foreign requests, script errors and CSP reports."""
    options.setdefault("viewport", {"width": 1440, "height": 900})
    context = await browser.new_context(locale="zh-CN", **options)
    tab = await context.new_page()
    troubles: list[str] = []
    tab.on("request", lambda r: None if r.url.startswith(here.page.url) else troubles.append(r.url))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    await tab.goto(here.page.url)
    await expect(tab.get_by_test_id("feishu-group").get_by_test_id("link")).to_be_visible()
    yield tab
    await context.close()
    assert not [t for t in troubles if "WebSocket connection" not in t]


async def shot(tab: Tab, name: str) -> None:
    if SHOTS:
        await tab.screenshot(path=f"{SHOTS}/{name}.png")


def bubbles(tab: Tab, chat: str) -> Locator:
    return tab.get_by_test_id(chat).get_by_test_id("bubble")


async def write(tab: Tab, chat: str, text: str) -> None:
    box = tab.get_by_test_id(chat).get_by_test_id("composer")
    await box.fill(text)
    await box.press("Enter")


def card(text: str, *, streaming: bool = True, **more: str) -> list[Block]:
    blocks = [Block("panel", more["reasoning"], title="思考过程")] if more.get("reasoning") else []
    blocks += [Block("markdown", text)] if text else [Block("small", "正在思考…")]
    blocks += [Block("small", more["footer"])] if more.get("footer") else []
    label = ("stop", "停止") if streaming else ("retry", "重新生成")
    return [*blocks, Block("button", label[1], id=label[0])]


LONG = "## 计划\n\n" + "".join(f"{n}. 第 {n} 步，**做完**再做下一步。\n" for n in range(1, 9))


async def grows(sim: FakeSim, chat: str, text: str) -> None:
    """A bot that answers in ten steps as fast as the page can be told."""
    bubble = sim.put(chat, card(""), kind="card", streaming=True)
    for step in range(1, 11):
        await asyncio.sleep(0)
        bubble.blocks = card(LONG[: len(LONG) * step // 10])
        sim.tell(bubble)
    bubble.blocks, bubble.streaming = card(LONG, streaming=False, footer="deepseek-flash"), False
    sim.tell(bubble)


# in the browser --------------------------------------------------------------------


async def test_a_question_in_the_group_and_its_growing_card(here: World, browser: Browser) -> None:
    here.feishu.bot = grows
    async with opened(here, browser) as tab:
        await write(tab, "feishu-group", "怎么做？")
        mine, answer = bubbles(tab, "feishu-group").nth(0), bubbles(tab, "feishu-group").nth(1)
        await expect(mine).to_contain_text("@鹊桥 怎么做？")
        await expect(answer).to_have_attribute("data-streaming", "false")
        await expect(answer.locator("li")).to_have_count(8)
        await expect(answer.locator("h4")).to_have_text("计划")
        await expect(answer.get_by_test_id("button")).to_have_text("重新生成")
        await expect(bubbles(tab, "dingtalk-group")).to_have_count(0)
        assert here.feishu.said == [{"text": "怎么做？", "bot": True, "all": False}]


async def test_the_text_runs_after_what_came(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        bubble = here.feishu.put(here.feishu.group, card(""), kind="card", streaming=True)
        answer = bubbles(tab, "feishu-group").nth(0)
        await expect(answer.get_by_test_id("small")).to_have_text("正在思考…")
        await tab.evaluate(RECORD_LENGTHS)
        bubble.blocks = card("字" * 400)
        here.feishu.tell(bubble)
        await expect(answer.get_by_test_id("markdown")).to_have_text("字" * 400)
        lengths = await tab.evaluate("window.lengths")
        assert len(set(lengths)) > 3 and lengths == sorted(lengths)


RECORD_LENGTHS = """() => {
  window.lengths = [];
  new MutationObserver(() => {
    const md = document.querySelector("#feishu-group .md");
    if (md) window.lengths.push(md.textContent.length);
  }).observe(document.querySelector("#feishu-group .list"), {subtree: true, childList: true});
}"""


async def test_a_button_and_its_toast(here: World, browser: Browser) -> None:
    here.feishu.answer = {"toast": {"type": "error", "content": "只有提问的人可以按"}}
    async with opened(here, browser) as tab:
        bubble = here.feishu.put(here.feishu.group, card("一"), kind="card", streaming=True)
        await tab.get_by_test_id("person-p1").click()
        button = bubbles(tab, "feishu-group").nth(0).get_by_test_id("button")
        await button.click()
        await expect(button).to_be_disabled()
        await write(tab, "feishu-group", "不用等")
        await expect(bubbles(tab, "feishu-group")).to_have_count(2)
        here.feishu.open_door.set()
        await expect(button).to_be_enabled()
        await expect(tab.get_by_test_id("toast")).to_have_text("只有提问的人可以按")
        assert here.feishu.presses == [(bubble.id, "stop", "王磊")]


async def test_hostile_text_stays_text(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        for chat, sim in (("feishu-group", here.feishu), ("dingtalk-group", here.dingtalk)):
            await write(tab, chat, HOSTILE)
            blocks = [Block("panel", HOSTILE, title=HOSTILE), *card(HOSTILE, streaming=False)]
            sim.put(sim.group, [*blocks, Block("button", HOSTILE, id="<b>")], kind="card")
            await expect(bubbles(tab, chat).nth(1)).to_contain_text("<script>window.hit=1</script>")
        assert await tab.evaluate("window.hit") is None
        for tag in ("script", "img", "a[href^='javascript']", "a[href^='data']", "iframe"):
            assert await tab.locator(f".bubble {tag}").count() == 0, tag
        links = await tab.locator(".bubble a").evaluate_all("all => all.map(a => a.href)")
        assert links and all(link.startswith("http://evil.example/") for link in links)


async def test_markdown(here: World, browser: Browser) -> None:
    text = (
        "# 一\n正文 **粗** *斜* ~~删~~ `码<b>` https://a.example/x。完\n\n- a\n  - b\n- [x] c\n\n"
        "1. 一\n\n2. 二\n\n> 引\n\n| 左 | 右 |\n| :-- | --: |\n| 1 | a\\|b |\n\n```py\n"
        "x = '<i>'\n\n# no\n```\n---\n3. 三\n\nsnake_case_name 2 * 3 * 4 **未完"
    )
    async with opened(here, browser) as tab:
        here.feishu.put(here.feishu.group, [Block("markdown", text)], kind="card")
        md = bubbles(tab, "feishu-group").get_by_test_id("markdown")
        for selector, words in (
            (".h1", "一"),
            ("strong", "粗"),
            ("em", "斜"),
            ("del", "删"),
            ("p > code", "码<b>"),
            ("a", "https://a.example/x"),
            ("ul ul li", "b"),
            (".task", "☑"),
            ("blockquote", "引"),
            ("td.to-right", "a|b"),
            ("pre code", "x = '<i>'\n\n# no"),
            ("ol[start='3'] li", "三"),
            ("ol:not([start]) li:nth-child(2)", "二"),
        ):
            await expect(md.locator(selector)).to_have_text(words)
        await expect(md.locator("hr")).to_have_count(1)
        await expect(md.locator("p").last).to_have_text("snake_case_name 2 * 3 * 4 **未完")


@pytest.mark.parametrize("junk", ["[", "*a", "`", "> ", "_x", "\\", "|-", "![](", "<", "- "])
async def test_junk_is_shown_in_time(here: World, browser: Browser, junk: str) -> None:
    async with opened(here, browser) as tab:
        here.feishu.put(here.feishu.group, [Block("markdown", junk * 20_000)], kind="card")
        here.feishu.put(here.feishu.group, [Block("markdown", "之后")], kind="card")
        await expect(bubbles(tab, "feishu-group").nth(1)).to_contain_text("之后", timeout=4000)


async def test_a_huge_paste_is_folded(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await write(tab, "feishu-private", "长" * 200_000)
        bubble = bubbles(tab, "feishu-private").nth(0)
        await expect(bubble.locator(".words")).to_have_text("长" * 1500 + "…")
        assert len(here.feishu.said[0]["text"]) == 200_000
        assert here.feishu.said[0]["bot"] is False


async def test_keys_of_the_composer(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        box = tab.get_by_test_id("dingtalk-group").get_by_test_id("composer")
        await box.fill("一")
        await box.press("Shift+Enter")
        await box.type("二")
        await box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
        assert await box.input_value() == "一\n二"
        await tab.get_by_test_id("dingtalk-group").get_by_test_id("mentionBot").click()
        await tab.get_by_test_id("dingtalk-group").get_by_test_id("mentionAll").click()
        await box.press("Enter")
        await expect(bubbles(tab, "dingtalk-group").nth(0)).to_contain_text("@所有人 一")
        assert await box.input_value() == ""
        await tab.get_by_test_id("dingtalk-group").get_by_test_id("chip").first.click()
        await expect(bubbles(tab, "dingtalk-group")).to_have_count(2)
        asked = [(said["text"], said["bot"], said["all"]) for said in here.dingtalk.said]
        assert asked == [("一\n二", False, True), ("/help", False, True)]


async def test_people_have_their_own_private_chats(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await write(tab, "dingtalk-private", "我是林晓")
        await expect(bubbles(tab, "dingtalk-private")).to_have_count(1)
        await tab.get_by_test_id("person-p0").press("ArrowRight")
        await expect(tab.get_by_test_id("person-p1")).to_have_attribute("aria-checked", "true")
        await expect(bubbles(tab, "dingtalk-private")).to_have_count(0)
        await write(tab, "dingtalk-private", "我是王磊")
        await expect(bubbles(tab, "dingtalk-private")).to_have_text(re.compile("我是王磊"))


async def test_recall_threads_quotes_marks_and_resets(here: World, browser: Browser) -> None:
    sim, group = here.feishu, here.feishu.group
    async with opened(here, browser) as tab:
        await write(tab, "feishu-group", "问题")
        await expect(bubbles(tab, "feishu-group")).to_have_count(1)
        asked = next(iter(sim.shown.values()))
        answer = sim.put(group, card("答", streaming=False), kind="card", reply_to=asked.id)
        answer.reactions, answer.pings = ["DONE"], [sim.add_person("陈静").id, "all"]
        sim.tell(answer)
        shown = tab.get_by_test_id("feishu-group").locator(".card")
        await expect(shown.locator(".reply-to")).to_have_text("回复 林晓：@鹊桥 问题")
        await expect(shown.get_by_test_id("reaction")).to_have_text("✅")
        await expect(shown.get_by_test_id("ping")).to_have_text("提醒了陈静、所有人")
        asked.thread = "omt_1"
        sim.tell(asked)
        sim.put(group, [Block("markdown", "楼里")], thread="omt_1")
        await expect(tab.get_by_test_id("thread")).to_contain_text("楼里")
        await expect(bubbles(tab, "feishu-group").nth(1)).to_contain_text("楼里")
        sim.put(group, [Block("markdown", zh.SENTENCES["done.new.empty"])])
        await expect(tab.get_by_test_id("reset")).to_be_visible()
        mine = bubbles(tab, "feishu-group").nth(0)
        await mine.hover()
        await mine.get_by_test_id("recall").click()
        await expect(mine).to_contain_text("撤回了一条消息")
        await expect(mine).not_to_contain_text("问题")
        await write(tab, "dingtalk-group", "这里不能撤回")
        await expect(bubbles(tab, "dingtalk-group")).to_have_count(1)
        await expect(tab.get_by_test_id("dingtalk-group").get_by_test_id("recall")).to_have_count(0)


async def test_faults(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await tab.get_by_test_id("faults-open").click()
        await tab.get_by_test_id("fault-cut-feishu").click()
        link = tab.get_by_test_id("feishu-group").get_by_test_id("link")
        await expect(link).to_have_attribute("data-link", "down")
        here.feishu.links.append(2)
        await expect(link).to_have_attribute("data-link", "up")
        await tab.get_by_test_id("fault-slow").click()
        await expect(tab.get_by_test_id("fault-slow")).to_have_attribute("aria-pressed", "true")
        await tab.get_by_test_id("fault-model-503").click()
        await tab.get_by_test_id("fault-model-402").click()
        await expect(tab.get_by_test_id("toast").last).to_contain_text("已安排")
        assert here.model.slowness > 1 and here.model.standing is not None
        await tab.get_by_test_id("fault-clear").click()
        await expect(tab.get_by_test_id("fault-slow")).to_have_attribute("aria-pressed", "false")
        assert here.model.slowness == 1 and here.model.standing is None
        await tab.keyboard.press("Escape")
        await expect(tab.get_by_test_id("faults")).to_be_hidden()


async def test_the_page_finds_back_and_shows_what_it_missed(browser: Browser) -> None:
    async with world() as here, opened(here, browser) as tab:
        old = here.feishu.put(here.feishu.group, card("一"), kind="card", streaming=True)
        await expect(bubbles(tab, "feishu-group")).to_have_count(1)
        await here.page.close()
        await expect(tab.locator(".offline")).to_be_visible()
        box = tab.get_by_test_id("feishu-group").get_by_test_id("composer")
        await write(tab, "feishu-group", "发不出去")
        await expect(box).to_have_value("发不出去")
        old.blocks, old.streaming = card("一二三", streaming=False), False
        here.feishu.put(here.feishu.group, card("四", streaming=False), kind="card")
        again = Page(here.scene, SystemClock(), here.page.port)
        await again.start()
        await expect(bubbles(tab, "feishu-group")).to_have_count(2)
        await expect(tab.locator(".offline")).to_be_hidden()
        first = bubbles(tab, "feishu-group").nth(0)
        await expect(first.get_by_test_id("markdown")).to_have_text("一二三")
        assert again.port == here.page.port
        await again.close()


async def test_a_narrow_screen_has_tabs(here: World, browser: Browser) -> None:
    here.feishu.bot = here.dingtalk.bot = grows
    async with opened(here, browser, viewport={"width": 390, "height": 844}) as tab:
        await expect(tab.get_by_test_id("feishu-group")).to_be_visible()
        await expect(tab.get_by_test_id("dingtalk-private")).to_be_hidden()
        here.dingtalk.put(here.dingtalk.group, [Block("markdown", "嗨")])
        await expect(tab.get_by_test_id("tab-dingtalk-group").locator(".count")).to_have_text("1")
        await tab.get_by_test_id("tab-dingtalk-private").click()
        await write(tab, "dingtalk-private", "你好")
        await expect(bubbles(tab, "dingtalk-private").nth(1)).to_contain_text("第 8 步")
        wide = await tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390


async def test_english_and_dark(here: World, browser: Browser) -> None:
    async with opened(here, browser) as tab:
        await tab.get_by_test_id("feishu-group").get_by_test_id("composer").fill("draft")
        await tab.get_by_test_id("language").click()
        await expect(tab.get_by_test_id("faults-open")).to_contain_text("Faults")
        assert await tab.evaluate("document.documentElement.lang") == "en"
        light = await tab.evaluate("getComputedStyle(document.querySelector('.chat')).background")
        await tab.get_by_test_id("theme").click()
        dark = await tab.evaluate("getComputedStyle(document.querySelector('.chat')).background")
        assert light != dark
        await tab.reload()
        await expect(tab.get_by_test_id("faults-open")).to_contain_text("Faults")
        assert await tab.evaluate("document.documentElement.dataset.theme") == "dark"


# over HTTP ---------------------------------------------------------------------------


async def test_strangers_are_sent_away(here: World) -> None:
    url = here.page.url
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as reply:
            policy = reply.headers["Content-Security-Policy"]
            assert reply.status == 200 and "default-src 'none'" in policy
            assert "unsafe" not in policy and "require-trusted-types-for 'script'" in policy
        async with session.get(url, headers={"Host": "evil.example"}) as reply:
            assert reply.status == 421
        for path in ("static/../server.py", "static/%2e%2e/server.py", "static/nothing.js"):
            async with session.get(url + path) as reply:
                assert reply.status == 404
        for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            async with session.get(url + "ws", headers=headers) as reply:
                assert reply.status == 403
        headers = {"Host": "rebound.example", "Origin": url.rstrip("/")}
        async with session.get(url + "ws", headers=headers) as reply:
            assert reply.status == 421


async def test_orders_that_make_no_sense(here: World) -> None:
    url = here.page.url
    orders: list[Any] = [
        "{",
        "[" * 100_000,
        "[]",
        "5",
        "{}",
        {"do": "say", "chat": "feishu:group", "person": "p9", "text": "x"},
        {"do": "say", "chat": "feishu:p1", "person": "p0", "text": "not mine"},
        {"do": "say", "chat": "nowhere", "person": "p0", "text": "x"},
        {"do": "say", "chat": "feishu:group", "person": "p0"},
        {"do": "press", "chat": "feishu:group", "person": "p0", "bubble": "x", "block": "y"},
        {"do": "recall", "chat": "dingtalk:group", "person": "p0", "bubble": "x"},
        {"do": "fault", "name": "everything"},
        {"do": "dance", "chat": "feishu:group", "person": "p0"},
    ]
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url + "ws", origin=url.rstrip("/")) as socket,
    ):
        assert (await socket.receive_json())["type"] == "hello"
        for order in orders:
            await socket.send_str(order if isinstance(order, str) else json.dumps(order))
            reply = await socket.receive_json()
            assert reply["type"] == "done" and reply["value"]["error"], order
    assert here.feishu.said == []


async def test_nobody_recalls_the_words_of_others(here: World) -> None:
    wang = here.feishu.add_person("王磊")
    bubble = here.feishu.put(here.feishu.group, [Block("markdown", "王磊的话")], author=wang)
    with pytest.raises(Mistake):
        await here.scene.recall("feishu:group", bubble.id, "p0")
    await here.scene.recall("feishu:group", bubble.id, "p1")
    assert bubble.recalled


async def test_a_taken_port_means_the_next_one(here: World) -> None:
    other = Page(here.scene, SystemClock(), here.page.port)
    await other.start()
    assert other.port != here.page.port
    await other.close()


async def test_only_the_newest_look_is_told() -> None:
    feed = Feed()
    for number in range(1000):
        feed.offer("bubble", "a", {"n": number})
        feed.offer("bubble", "b", {"n": -number})
    told = await feed.next()
    assert [change["value"]["n"] for change in told] == [999, -999]


async def test_admins_and_the_real_model() -> None:
    scene = Scene(FakeSim("feishu"), FakeSim("dingtalk"), SystemClock())
    assert scene.admins == ["feishu:feishu-林晓/+=", "dingtalk:dingtalk-林晓/+="]
    view = scene.view()
    assert view["real"] is True
    assert view["faults"]["offered"] == ["cut-feishu", "cut-dingtalk", "clear"]
    for name in ("model-503", "kill", "", "clear "):
        with pytest.raises(Mistake):
            await scene.fault(name)
    for texts in (zh, en):
        start = texts.SENTENCES["done.new.empty"].rstrip(".。")
        assert texts.SENTENCES["done.new"].startswith(start)


# the whole stage -----------------------------------------------------------------------


async def test_the_stage_is_set(browser: Browser) -> None:
    async with Stage(SystemClock(), port=0) as stage:
        assert stage.url.startswith("http://127.0.0.1:")
        feishu, dingtalk = stage.admins
        assert feishu.startswith("feishu:ou_") and dingtalk.startswith("dingtalk:")
        base_url, key = stage.model
        async with aiohttp.ClientSession() as session:
            for url in (stage.feishu.base_url, stage.dingtalk.base_url, base_url):
                assert url.startswith("http://127.0.0.1:")
            headers = {"Authorization": f"Bearer {key}"}
            async with session.get(f"{base_url}/models", headers=headers) as reply:
                assert reply.status == 200
        tab = await browser.new_page()
        await tab.goto(stage.url)
        link = tab.get_by_test_id("feishu-group").get_by_test_id("link")
        await expect(link).to_have_attribute("data-link", "down")
        for chat in ("feishu-group", "dingtalk-group", "feishu-private", "dingtalk-private"):
            await write(tab, chat, HOSTILE)
            await expect(bubbles(tab, chat)).to_contain_text("<script>window.hit=1</script>")
        mine = bubbles(tab, "feishu-group")
        await mine.hover()
        await mine.get_by_test_id("recall").click()
        await expect(mine).to_contain_text("撤回了一条消息")
        await tab.close()


async def test_a_real_model_takes_the_place_of_the_stand_in() -> None:
    real = ("https://api.deepseek.com", "sk-canary-of-the-demo")
    async with Stage(SystemClock(), port=0, real_model=real) as stage:
        assert stage.model == real and stage.deepseek is None
        origin = stage.url.rstrip("/")
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(stage.url + "ws", origin=origin) as socket,
        ):
            hello = await socket.receive_str()
        assert json.loads(hello)["value"]["real"] is True
        assert "canary" not in hello


async def test_a_stage_that_cannot_be_set_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(page: Page) -> None:
        raise OSError("no port")

    monkeypatch.setattr(Page, "start", refuse)
    stage = Stage(SystemClock(), port=0)
    with pytest.raises(OSError, match="no port"):
        await stage.start()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(stage.feishu.base_url)
