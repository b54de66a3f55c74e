"""`queqiao demo` as a newcomer meets it: real processes, a real browser."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Locator, async_playwright, expect
from playwright.async_api import Page as Tab

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30_000
"""Milliseconds: the machine may be busy."""

STREAM = "写 2000 字长文"


@dataclass
class Demo:
    process: asyncio.subprocess.Process
    url: str

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]


@asynccontextmanager
async def running_demo() -> AsyncIterator[Demo]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("DEEPSEEK_", "QUEQIAO_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bot", "demo", "--port", "0"),
        cwd=ROOT,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line
        yield Demo(process, found[0])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            await process.wait()


@asynccontextmanager
async def open_page(url: str) -> AsyncIterator[Tab]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = await browser.new_page(locale="zh-CN", viewport={"width": 1440, "height": 900})
        tab.set_default_timeout(PATIENCE)
        await tab.goto(url)
        yield tab
        await browser.close()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def panel(tab: Tab, name: str) -> Locator:
    return tab.get_by_test_id(name)


async def say(chat: Locator, text: str) -> None:
    box = chat.get_by_test_id("composer")
    await box.fill(text)
    await box.press("Enter")


async def length(card: Locator) -> int:
    return len(await card.inner_text())


async def grown(card: Locator, more_than: int) -> int:
    for _ in range(300):
        now = await length(card)
        if now > more_than:
            return now
        await asyncio.sleep(0.1)
    raise AssertionError(f"the card stayed at {more_than} characters")


@pytest.mark.timeout(180)
async def test_a_newcomer_chats_stops_and_pulls_the_plug() -> None:
    async with running_demo() as demo, open_page(demo.url) as tab:
        group = panel(tab, "feishu-group")
        await expect(group.get_by_test_id("link")).to_contain_text("已连接", timeout=PATIENCE)

        await say(group, "你好")
        card = group.get_by_test_id("bubble").last
        retry = card.get_by_test_id("button").filter(has_text="重新生成")
        await expect(retry).to_be_visible(timeout=PATIENCE)
        assert "替身" in await card.inner_text()

        await say(group, STREAM)
        card = group.get_by_test_id("bubble").last
        stop = card.get_by_test_id("button").filter(has_text="停止")
        await expect(stop).to_be_visible(timeout=PATIENCE)
        await grown(card, await grown(card, 20))
        await stop.click()
        await expect(card).to_contain_text("已停止", timeout=PATIENCE)

        private = panel(tab, "dingtalk-private")
        await say(private, STREAM)
        card = private.get_by_test_id("bubble").last
        await expect(card.get_by_test_id("button").filter(has_text="停止")).to_be_visible()
        before = await grown(card, await grown(card, 20))
        (bot,) = demo.children()
        os.kill(bot, signal.SIGKILL)
        await expect(card.get_by_test_id("button").filter(has_text="重新生成")).to_be_visible(
            timeout=90_000
        )
        assert await length(card) > before
        assert await private.get_by_test_id("bubble").count() == 2
    assert demo.process.returncode == 0


async def test_ctrl_c_leaves_nothing_behind() -> None:
    async with running_demo() as demo:
        for _ in range(100):
            if demo.children():
                break
            await asyncio.sleep(0.1)
        (bot,) = demo.children()
    assert demo.process.returncode == 0
    assert not alive(bot)


async def test_the_bot_does_not_outlive_a_demo_that_is_killed() -> None:
    async with running_demo() as demo:
        for _ in range(100):
            if demo.children():
                break
            await asyncio.sleep(0.1)
        (bot,) = demo.children()
        demo.process.kill()
        await demo.process.wait()
        for _ in range(200):
            if not alive(bot):
                return
            await asyncio.sleep(0.1)
        os.kill(bot, signal.SIGKILL)
        raise AssertionError("the bot went on alone")
