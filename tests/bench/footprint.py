"""What it takes to be there: start, memory, idle CPU, packages, `--help`."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from bot.clock import SystemClock
from tests.bench.house import PLATFORMS, ROOT, bot_lines, bot_program, until
from tests.bench.source import Source

SETTLE = 3.0


async def start(transport: str, seconds: float) -> dict[str, float]:
    """Both platforms in one process: seconds to both links, resident MB when idle, and
    the share of a processor that it takes to wait for `seconds`."""
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        sims = {"feishu": FeishuSim(clock), "dingtalk": DingTalkSim(clock)}
        for sim in sims.values():
            await stack.enter_async_context(sim)
        source = await stack.enter_async_context(Source())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="queqiao-bench-")))
        bots = (bot_lines(name, sims[name], transport) for name in PLATFORMS)
        program = bot_program(folder, source, *bots)
        stack.push_async_callback(program.stop)
        began = time.perf_counter()
        await program.start()
        await until(lambda: all(sim.links for sim in sims.values()))
        up = time.perf_counter() - began
        await asyncio.sleep(SETTLE)
        cpu, began = program.cpu(), time.perf_counter()
        await asyncio.sleep(seconds)
        spent = (program.cpu() - cpu) / (time.perf_counter() - began)
        return {"up": up, "rss": program.rss(), "cpu": spent}


def packages() -> int:
    """Packages of the default install, our own included."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return 1 + sum(bool(re.match(r"[A-Za-z0-9]", line)) for line in lines)


def help_times(rounds: int) -> tuple[float, float]:
    """Seconds of `queqiao --help` and of a Python that does nothing, alternating."""
    found: tuple[list[float], list[float]] = ([], [])
    commands = (("-m", "bot", "--help"), ("-c", "pass"))
    for _ in range(rounds):
        for times, command in zip(found, commands, strict=True):
            began = time.perf_counter()
            subprocess.run(
                (sys.executable, *command), cwd=ROOT, stdout=subprocess.DEVNULL, check=True
            )
            times.append(time.perf_counter() - began)
    return median(found[0]), median(found[1])
