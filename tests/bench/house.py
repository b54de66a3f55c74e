"""What is measured, in processes of its own, between simulators in this one."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from bot.clock import SystemClock
from tests.bench.source import Source

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
PLATFORMS = ("feishu", "dingtalk")
SHOWING = {"card_content", "card_update", "card_stream"}
"""Routes of both simulators that put text on a card."""


class Program:
    """One process. CPU and memory are read from /proc."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            cwd=ROOT,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_LOUD") else asyncio.subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> None:
        """Politely: standard input ends."""
        if self.process is None or self.process.returncode is not None:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 20.0)
        except TimeoutError:
            await self.kill()

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
        return total / 1e9

    def rss(self) -> float:
        """Resident memory now, in MB."""
        return self._status("VmRSS")

    def peak(self) -> float:
        """The most resident memory ever, in MB."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        found = next(line for line in lines if line.startswith(name))
        return int(found.split()[1]) / 1024


@dataclass
class Seat:
    """One program under measure with simulators of its own. `name`: native, sdk, floor."""

    name: str
    platform: str
    sim: Any
    source: Source
    program: Program
    people: int = 0

    def newcomer(self) -> tuple[Any, Any]:
        """A person nobody has met, and their private chat."""
        self.people += 1
        person = self.sim.add_person(f"person {self.people}")
        return self.sim.p2p(person), person

    def acks(self) -> list[float]:
        """Seconds from each push of a message to its acknowledgement."""
        if self.platform == "feishu":
            return [push.seconds for push in self.sim.pushes if push.good and push.attempt == 1]
        topic = "messages/get"
        return [ack.latency for ack in self.sim.acks if ack.good and ack.topic.endswith(topic)]


def bot_lines(platform: str, sim: Any, transport: str) -> str:
    keys = (
        f'app_id = "{sim.app_id}"\napp_secret = "{sim.app_secret}"'
        if platform == "feishu"
        else f'client_id = "{sim.client_id}"\nclient_secret = "{sim.client_secret}"\n'
        f'oapi_base_url = "{sim.base_url}"\ncard_template_id = "{sim.card_template_id}"'
    )
    return (
        f'[[bots]]\nplatform = "{platform}"\ntransport = "{transport}"\n'
        f'base_url = "{sim.base_url}"\n{keys}\n'
    )


def bot_program(folder: Path, source: Source, *bots: str, runner: tuple[str, ...] = ()) -> Program:
    """The real program with a settings file in `folder`; `bots` are bot_lines()."""
    file = folder / "queqiao.toml"
    file.write_text(
        f'data = "{folder}"\nhttp = "127.0.0.1:0"\nlog = "ERROR"\n'
        + "".join(bots)
        + f'[model]\napi_key = "{source.api_key}"\nbase_url = "{source.base_url}"\n'
    )
    run = ("run", "--config", str(file), "--while-stdin-is-open")
    return Program(*(runner or (sys.executable, "-m", "bot")), *run)


def floor_program(folder: Path, platform: str, sim: Any, source: Source) -> Program:
    script = str(Path(__file__).with_name("floor.py"))
    keys = (
        (sim.app_id, sim.app_secret) if platform == "feishu" else (sim.client_id, sim.client_secret)
    )
    return Program(
        sys.executable, script, platform, sim.base_url, *keys, source.base_url, str(folder / "f.db")
    )


@asynccontextmanager
async def seat(
    platform: str, name: str, folder: Path | None = None, runner: tuple[str, ...] = ()
) -> AsyncIterator[Seat]:
    """A program that has come up. `folder` may hold an earlier store."""
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        sim: Any = FeishuSim(clock) if platform == "feishu" else DingTalkSim(clock)
        await stack.enter_async_context(sim)
        source = await stack.enter_async_context(Source())
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="queqiao-bench-")))
        if name == "floor":
            program = floor_program(folder, platform, sim, source)
        else:
            program = bot_program(folder, source, bot_lines(platform, sim, name), runner=runner)
        stack.push_async_callback(program.stop)
        await program.start()
        await until(lambda: sim.links)
        await asyncio.sleep(1.0)
        yield Seat(name, platform, sim, source, program)


async def until(ready: Callable[[], Any], seconds: float = PATIENCE, every: float = 0.002) -> float:
    """Seconds until `ready` says something true. Raises TimeoutError."""
    start = time.perf_counter()
    while not ready():
        if time.perf_counter() - start > seconds:
            raise TimeoutError
        await asyncio.sleep(every)
    return time.perf_counter() - start
