"""How fast it hears, and how fast it is back: `python tests/bench/bench_hearing.py`.

The real process against the simulators, once with the native transport and once with
the official SDK's, in one run: acknowledgement after the durable claim (idle, and under
1,000 events a second), from network back to the first answer, from kill -9 to the same
card going on. Read the ratios; the machine's own speed says nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from bot.clock import SystemClock

IDLE, GAP = 60, 0.05
RATE, SECONDS = 1000, 3
AWAY = 2.0
PATIENCE = 60.0
LONG = ["一段。"] * 200


@dataclass
class Figures:
    """Seconds."""

    idle: list[float]
    busy: list[float]
    lost: int
    back: float
    taken_over: float


class Bot:
    """The process, with one bot."""

    def __init__(self, folder: Path, platform: str, sim: Any, model: Any, transport: str) -> None:
        self.process: asyncio.subprocess.Process | None = None
        keys = {
            "feishu": f'app_id = "{getattr(sim, "app_id", "")}"\n'
            f'app_secret = "{getattr(sim, "app_secret", "")}"',
            "dingtalk": f'client_id = "{getattr(sim, "client_id", "")}"\n'
            f'client_secret = "{getattr(sim, "client_secret", "")}"\n'
            f'oapi_base_url = "{sim.base_url}"\n'
            f'card_template_id = "{getattr(sim, "card_template_id", "")}"',
        }[platform]
        self.file = folder / "queqiao.toml"
        self.file.write_text(
            f'data = "{folder}"\nhttp = "127.0.0.1:0"\nlog = "ERROR"\n'
            f'[[bots]]\nplatform = "{platform}"\ntransport = "{transport}"\n'
            f'base_url = "{sim.base_url}"\n{keys}\n'
            f'[model]\napi_key = "{model.api_key}"\nbase_url = "{model.base_url}"\n'
        )

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot", "run", "--config", str(self.file)),
            "--while-stdin-is-open",
            cwd=ROOT,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


async def until(ready: Callable[[], Any], seconds: float = PATIENCE) -> float:
    """Seconds until `ready` says something true."""
    start = time.perf_counter()
    while not ready():
        if time.perf_counter() - start > seconds:
            raise TimeoutError
        await asyncio.sleep(0.005)
    return time.perf_counter() - start


def acks(platform: str, sim: Any) -> list[float]:
    if platform == "feishu":
        return [push.seconds for push in sim.pushes if push.good and push.attempt == 1]
    return [ack.latency for ack in sim.acks if ack.good and ack.topic.endswith("messages/get")]


async def measure(platform: str, transport: str) -> Figures:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        sim: Any = FeishuSim(clock) if platform == "feishu" else DingTalkSim(clock)
        model = DeepSeekSim(clock)
        await stack.enter_async_context(sim)
        await stack.enter_async_context(model)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bot = Bot(folder, platform, sim, model, transport)
        stack.push_async_callback(bot.kill)
        if platform == "feishu":
            sim.policy.hears_all = True
        people = [sim.add_person(f"p{n}") for n in range(2)]
        group, private = sim.add_group("g", people), sim.p2p(people[0])
        await bot.start()
        await until(lambda: sim.links)
        await asyncio.sleep(1.0)
        idle = await _idle(platform, sim, private, people[0])
        busy, lost = await _busy(platform, sim, group, people)
        back = await _back(sim, private, people[0])
        return Figures(idle, busy, lost, back, await _taken_over(sim, model, bot, people[1]))


async def _idle(platform: str, sim: Any, chat: Any, person: Any) -> list[float]:
    before = len(acks(platform, sim))
    for _ in range(IDLE):
        await sim.say(chat, person, "/whoami")
        await asyncio.sleep(GAP)
    await until(lambda: len(acks(platform, sim)) >= before + IDLE)
    return acks(platform, sim)[before : before + IDLE]


async def _busy(platform: str, sim: Any, group: Any, people: list[Any]) -> tuple[list[float], int]:
    """Group messages that nobody answers: each is claimed on disk all the same. DingTalk
    delivers no such message, so there it is one that was recalled of its mention."""
    before, total = len(acks(platform, sim)), RATE * SECONDS
    start = time.perf_counter()
    more = {} if platform == "feishu" else {"overrides": {"isInAtList": False, "atUsers": []}}
    for number in range(total):
        await sim.say(group, people[number % 2], f"n{number}", mention_bot=bool(more), **more)
        ahead = start + number / RATE - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
    with suppress(TimeoutError):
        await until(lambda: len(acks(platform, sim)) >= before + total, 15.0)
    found = acks(platform, sim)[before:]
    return found, total - len(found)


async def _back(sim: Any, chat: Any, person: Any) -> float:
    await sim.go_away()
    await asyncio.sleep(AWAY)
    seen = len(sim.bot_bubbles(chat))
    await sim.come_back()
    start = time.perf_counter()
    await sim.say(chat, person, "回来了吗")
    await until(lambda: len(sim.bot_bubbles(chat)) > seen)
    return time.perf_counter() - start


async def _taken_over(sim: Any, model: Any, bot: Bot, person: Any) -> float:
    model.script("长文", LONG, pace=0.05)
    chat = sim.p2p(person)
    await sim.say(chat, person, "长文")

    def text() -> str:
        found = [b for b in sim.bot_bubbles(chat) if "一段" in b.text]
        return found[-1].text if found else ""

    await until(lambda: len(text()) > 20)
    await bot.kill()
    before = text()
    await bot.start()
    start = time.perf_counter()
    await until(lambda: len(text()) > len(before))
    return time.perf_counter() - start


def at(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else 0.0


def row(name: str, native: float, sdk: float, unit: str) -> str:
    ratio = f"{sdk / native:8.2f}x" if native else "       -"
    return f"{name:38} {native:10.1f} {sdk:10.1f} {unit:3} {ratio}"


def report(platform: str, native: Figures, sdk: Figures) -> str:
    lines = [f"{platform:38} {'native':>10} {'sdk':>10}     sdk/native"]
    for name, values in (("ack, idle", "idle"), ("ack, 1,000 events/s", "busy")):
        for share in (0.5, 0.99):
            pair = [at(getattr(figures, values), share) for figures in (native, sdk)]
            lines.append(row(f"{name}, p{share * 100:.0f}", *pair, "ms"))
    lines.append(row("events without an ack in 15 s", native.lost, sdk.lost, ""))
    lines.append(row("network back to first answer", native.back, sdk.back, "s"))
    lines.append(row("kill -9 to the card going on", native.taken_over, sdk.taken_over, "s"))
    return "\n".join(lines)


async def main() -> None:
    for platform in ("feishu", "dingtalk"):
        native = await measure(platform, "native")
        print(report(platform, native, await measure(platform, "sdk")), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
