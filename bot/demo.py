"""`queqiao demo`: the playground on loopback and, in a process of its own, the real bot.

A process of its own, because the page lets people kill it in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import orjson

from adapters.playground.stage import Stage
from bot.clock import SystemClock
from bot.errors import SettingsError

log = logging.getLogger(__name__)

Table = Mapping[str, object]

HOME = str(Path(__file__).resolve().parent.parent)
"""Where the packages are, installed or not."""

GRACE = 2
"""Seconds that running answers get when the demo ends."""


async def demo(port: int) -> None:
    """Run until Ctrl+C. Raises SettingsError when no port can be had."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    async with AsyncExitStack() as stack:
        stage = await _stage(stack, port)
        folder = Path(tempfile.mkdtemp(prefix="queqiao-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bot = BotProcess(_settings(stage, folder), folder)
        stage.employ(bot)
        keeper = asyncio.create_task(bot.keep())
        stack.push_async_callback(bot.dismiss, keeper)
        _tell(stage.url, real=stage.deepseek is None)
        await stopped.wait()


async def _stage(stack: AsyncExitStack, port: int) -> Stage:
    key = os.environ.get("DEEPSEEK_API_KEY", "").strip()
    address = os.environ.get("DEEPSEEK_BASE_URL", "").strip() or "https://api.deepseek.com"
    stage = Stage(SystemClock(), port=port, real_model=(address, key) if key else None)
    try:
        return await stack.enter_async_context(stage)
    except OSError as error:
        raise SettingsError([f"--port: 没有可用的端口 / no free port: {error}"]) from error


def _tell(url: str, *, real: bool) -> None:
    who = "DeepSeek" if real else "一个替身（设置 DEEPSEEK_API_KEY 后由 DeepSeek 回答）"
    who_en = "DeepSeek" if real else "a stand-in (set DEEPSEEK_API_KEY for the real DeepSeek)"
    print(f"鹊桥演示已就绪，请打开 {url}\n回答的是{who}。按 Ctrl+C 结束。", flush=True)
    print(f"Open {url} in a browser. Answers come from {who_en}. Ctrl+C ends it.", flush=True)


class BotProcess:
    """The bot's process, started again whenever it ends. `running` says whether it is up;
    `socket` is where it can be asked how it is."""

    def __init__(self, settings: Path, folder: Path) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.socket = folder / "queqiao.sock"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def keep(self) -> None:
        """Keep it running until cancelled, except between kill() and start()."""
        while True:
            await self._wanted.wait()
            self._process = await self._spawn()
            code = await self._process.wait()
            if self._wanted.is_set():
                log.warning("the bot ended with %d and is started again", code)
                await asyncio.sleep(1.0)

    async def _spawn(self) -> asyncio.subprocess.Process:
        command = ("-m", "bot", "run", "--config", str(self._settings), "--while-stdin-is-open")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        environ["PYTHONPATH"] = HOME
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    def kill(self) -> None:
        """The plug is pulled; it stays down until start()."""
        self._wanted.clear()
        if self._process is not None and self.running:
            self._process.kill()

    def start(self) -> None:
        self._wanted.set()

    async def dismiss(self, keeper: asyncio.Task[None]) -> None:
        """End it in order, else by force."""
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        process = self._process
        if process is None or not self.running:
            return
        process.terminate()
        try:
            async with asyncio.timeout(GRACE + 6):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


_OURS = ("QUEQIAO_", "FEISHU_", "DINGTALK_", "DEEPSEEK_")
"""Settings of a real bot must not reach the one of the demo."""


def _settings(stage: Stage, folder: Path) -> Path:
    """The bot's queqiao.toml, readable by its owner alone."""
    address, key = stage.model
    model = {"api_key": key, "base_url": address}
    if stage.deepseek is None and os.environ.get("DEEPSEEK_MODEL"):
        model["model"] = os.environ["DEEPSEEK_MODEL"]
    tables: list[tuple[str, Table]] = [
        ("", _top(stage, folder)),
        ("[[bots]]", _feishu(stage)),
        ("[[bots]]", _dingtalk(stage)),
        ("[model]", model),
        ("[chat]", {"footer": True, "grace": GRACE}),
    ]
    file = folder / "queqiao.toml"
    file.touch(mode=0o600)
    file.write_text("\n".join(_toml(head, table) for head, table in tables))
    return file


def _top(stage: Stage, folder: Path) -> Table:
    return {
        "admins": stage.admins,
        "data": str(folder),
        "http": "127.0.0.1:0",
        "log": os.environ.get("QUEQIAO_LOG", "WARNING"),
    }


def _feishu(stage: Stage) -> Table:
    return {
        "platform": "feishu",
        "app_id": stage.feishu.app_id,
        "app_secret": stage.feishu.app_secret,
        "base_url": stage.feishu.base_url,
    }


def _dingtalk(stage: Stage) -> Table:
    return {
        "platform": "dingtalk",
        "client_id": stage.dingtalk.client_id,
        "client_secret": stage.dingtalk.client_secret,
        "base_url": stage.dingtalk.base_url,
        "oapi_base_url": stage.dingtalk.base_url,
        "card_template_id": stage.dingtalk.card_template_id,
        "card_state_key": "state",
        "receipts": True,
    }


def _toml(head: str, table: Table) -> str:
    """Strings, numbers, booleans and lists of strings are written as in JSON."""
    lines = [f"{name} = {orjson.dumps(value).decode()}" for name, value in table.items()]
    return "\n".join([head, *lines, ""])
