"""What is not loaded: the SDKs unless they are asked for, and next to nothing for a
command that only prints."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.playground.feishu import FeishuSim
from bot.clock import SystemClock

ROOT = Path(__file__).parents[1]
SDKS = {"lark_oapi", "dingtalk_stream"}


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        (sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def both(transport: str, looks: int, feishu: str = "http://127.0.0.1:9") -> str:
    """Both platforms started, nobody at the other end but at `feishu`; looked at until an
    SDK is there."""
    return f"""
import asyncio, os, sys, tempfile
from pathlib import Path
from bot.app import open_app
from bot.settings import load

async def main():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "queqiao.toml"
        file.write_text('''
data = "{{folder}}"
http = "127.0.0.1:0"
[[bots]]
platform = "feishu"
transport = "{transport}"
base_url = "{feishu}"
app_id = "cli_a"
app_secret = "s"
[[bots]]
platform = "dingtalk"
transport = "{transport}"
base_url = "http://127.0.0.1:9"
oapi_base_url = "http://127.0.0.1:9"
client_id = "d"
client_secret = "s"
[model]
api_key = "k"
'''.replace("{{folder}}", folder))
        app = await open_app(load(file=file))
        for _ in range({looks}):
            if "lark_oapi" in sys.modules:  # all of it takes seconds
                print("lark_oapi", flush=True)
                os._exit(0)
            await asyncio.sleep(0.1)
        await app.close()

asyncio.run(main())
"""


def test_a_native_bot_loads_no_sdk():
    assert not loaded(both("native", 5)) & SDKS


async def test_an_sdk_bot_loads_its_own():
    """DingTalk's is loaded only once its server has answered."""
    async with FeishuSim(SystemClock(), app_id="cli_a", app_secret="s") as sim:
        code = both("sdk", 300, sim.base_url)
        assert "lark_oapi" in await asyncio.to_thread(loaded, code)


@pytest.mark.parametrize("arguments", [["--help"], ["config", "example"]])
def test_a_command_that_only_prints_loads_nothing_heavy(arguments: list[str]):
    code = f"""
import contextlib, io
from bot.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main({arguments!r})
"""
    assert not loaded(code) & {"aiohttp", "sqlalchemy", "uvloop", *SDKS}


def test_the_default_install_is_small():
    """Our own package is one of them."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    names = {line.partition("==")[0] for line in lines if "==" in line}
    assert {"lark-oapi", "dingtalk-stream"} < names
    assert len(names) + 1 <= 36
