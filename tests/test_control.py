"""The control socket: a private file, what is served there, and the end that asks."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from adapters.console.control import SOCKET, Control, ask
from adapters.console.socket_file import bind_private, short_name
from bot.contract import Json, Metric
from bot.errors import (
    BorderError,
    Gone,
    SettingsError,
    StoreError,
    Transient,
    Uncertain,
)

ROOT = Path(__file__).resolve().parent.parent
DEEP = "a-folder-with-a-long-name-" * 6


@dataclass
class Bot:
    """An operator that notes what it was asked."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    error: Exception | None = None
    busy: asyncio.Event | None = None
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def _do(self, *what: str) -> Json:
        self.asked.append(what)
        self.called.set()
        if self.busy is not None:
            await self.busy.wait()
        if self.error is not None:
            raise self.error
        return {"did": list(what)}

    async def problems(self) -> list[str]:
        raise NotImplementedError

    async def metrics(self) -> list[Metric]:
        raise NotImplementedError

    async def status(self) -> Json:
        return await self._do("status")

    async def live(self) -> Json:
        return await self._do("live")

    async def why(self, message_id: str) -> Json:
        return await self._do("why", message_id)

    async def resend(self, turn_id: str) -> Json:
        return await self._do("resend", turn_id)

    async def backup(self, path: str) -> Json:
        return await self._do("backup", path)


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture(params=["short", "long"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Also one that does not fit in a socket's address."""
    folder = tmp_path / "data" / (DEEP if request.param == "long" else "")
    return folder / SOCKET


@pytest.fixture
async def control(bot: Bot, path: Path) -> AsyncIterator[Control]:
    control = Control(path, bot)
    await control.start()
    yield control
    await control.close()


# ---------------------------------------------------------------- asking


@pytest.mark.usefixtures("control")
async def test_every_question_reaches_the_operator(path: Path, bot: Bot) -> None:
    turn = "0123abcd"
    assert await ask(path, "GET", "/status") == {"did": ["status"]}
    assert await ask(path, "GET", "/live") == {"did": ["live"]}
    assert await ask(path, "GET", "/why/om_1") == {"did": ["why", "om_1"]}
    assert await ask(path, "POST", f"/resend/{turn}") == {"did": ["resend", turn]}
    saved = await ask(str(path), "POST", "/backup", {"path": "/tmp/备份.db"})
    assert saved == {"did": ["backup", "/tmp/备份.db"]}
    assert len(bot.asked) == 5


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize(
    "id_", ["msg+/=a/b==", "om_%2F", "a b", "中文", "?x=1#y", "..", "a//b", "%"]
)
async def test_an_id_arrives_whole(path: Path, bot: Bot, id_: str) -> None:
    await ask(path, "GET", f"/why/{quote(id_, safe='').replace('..', '%2E%2E')}")
    assert bot.asked == [("why", id_)]


@pytest.mark.usefixtures("control")
async def test_what_cannot_be_done_is_said(path: Path, bot: Bot) -> None:
    cases: list[tuple[Exception, str, str]] = [
        (StoreError("disk full"), "503", "disk full"),
        (Gone("没有这个问题 / no such turn"), "404", "no such turn"),
        (BorderError("230002"), "502", "230002"),
        (TimeoutError(), "503", "too long"),
    ]
    for error, code, words in cases:
        bot.error = error
        with pytest.raises(BorderError) as refused:
            await ask(path, "POST", "/resend/1")
        assert refused.value.code == code and words in str(refused.value)


@pytest.mark.usefixtures("control")
async def test_a_fault_inside_is_not_told(
    path: Path, bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    bot.error = RuntimeError("canary-s3cr3t")
    with pytest.raises(BorderError) as refused:
        await ask(path, "GET", "/status")
    assert refused.value.code == "500" and "canary" not in str(refused.value)
    assert "canary-s3cr3t" in caplog.text


@pytest.mark.usefixtures("control")
@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"path": ""},
        {"path": "relative.db"},
        {"path": 1},
        {"path": "/a\0b"},
        {"file": "/a"},
    ],
)
async def test_a_backup_needs_a_whole_path(path: Path, bot: Bot, body: Json | None) -> None:
    with pytest.raises(BorderError) as refused:
        await ask(path, "POST", "/backup", body)
    assert refused.value.code == "400" and " / " in str(refused.value)
    assert bot.asked == []


@pytest.mark.usefixtures("control")
async def test_what_is_not_there(path: Path, bot: Bot) -> None:
    for method, where, code in (
        ("GET", "/", "404"),
        ("GET", "/why/", "404"),
        ("GET", "/backup", "405"),
        ("POST", "/status", "405"),
    ):
        with pytest.raises(BorderError) as refused:
            await ask(path, method, where)
        assert refused.value.code == code
    assert bot.asked == []


@pytest.mark.usefixtures("control")
async def test_many_ask_at_once(path: Path, bot: Bot) -> None:
    answers = await asyncio.gather(*(ask(path, "GET", f"/why/{n}") for n in range(40)))
    assert answers == [{"did": ["why", str(n)]} for n in range(40)]


# ---------------------------------------------------------------- nobody there


async def test_nobody_listens(tmp_path: Path) -> None:
    for path in (tmp_path / SOCKET, tmp_path / "none" / SOCKET, tmp_path / DEEP / SOCKET):
        with pytest.raises(Transient) as silent:
            await ask(path, "GET", "/status")
        assert "没有在运行" in str(silent.value) and "not running" in str(silent.value)


async def test_the_socket_of_a_dead_process(path: Path) -> None:
    leave_behind(path)
    with pytest.raises(Transient):
        await ask(path, "GET", "/status")


async def test_a_plain_file_in_its_place(path: Path) -> None:
    write(path)
    with pytest.raises(Transient):
        await ask(path, "GET", "/status")


async def test_a_process_that_says_nothing(path: Path, bot: Bot, control: Control) -> None:
    bot.busy = asyncio.Event()
    with pytest.raises(Uncertain) as silent:
        await ask(path, "GET", "/status", timeout=0.2)
    assert "没有回应" in str(silent.value)
    bot.busy.set()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"SSH-2.0-x\r\n"]
)
async def test_a_process_that_breaks_off(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / SOCKET

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, path):
        with pytest.raises(Uncertain):
            await ask(path, "GET", "/status")


@pytest.mark.parametrize("body", [b"", b"[]", b"hello", b"\xff"])
async def test_an_answer_that_is_no_object(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / SOCKET

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, path):
        with pytest.raises(Uncertain):
            await ask(path, "GET", "/status")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
async def test_somebody_else_may_not_ask(bot: Bot) -> None:
    """Even where the folders let everybody through."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / SOCKET
        control = Control(path, bot)
        await control.start()
        done = await asyncio.to_thread(ask_as_nobody, path)
        await control.close()
    assert done.stdout.decode().strip() == "PermissionDenied", done.stderr.decode()
    assert bot.asked == []


def ask_as_nobody(path: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", ASK_AS_NOBODY, str(path)],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )


ASK_AS_NOBODY = """
import asyncio, os, sys
from adapters.console.control import ask
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    asyncio.run(ask(sys.argv[1], "GET", "/status"))
except Exception as error:
    print(type(error).__name__)
"""


# ---------------------------------------------------------------- the file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")


def read(path: Path) -> str:
    return path.read_text()


def remove(path: Path) -> None:
    path.unlink()


def leave_behind(path: Path) -> None:
    """The socket file of a process that died."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead, short_name(path) as name:
        dead.bind(name)
        dead.listen()


async def test_it_is_private_and_leaves_nothing(path: Path, bot: Bot) -> None:
    control = Control(path, bot)
    await control.start()
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert [p.name for p in path.parent.iterdir()] == [SOCKET]
    await control.close()
    assert list(path.parent.iterdir()) == []
    await control.close()


def test_it_is_private_from_its_first_moment(path: Path) -> None:
    """Bound under a mask, not changed afterwards; the mask of the process stays."""
    path.parent.mkdir(parents=True)
    before = os.umask(0)
    try:
        with bind_private(path):
            assert mode_of(path) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)


async def test_a_dead_process_is_replaced(path: Path, bot: Bot) -> None:
    leave_behind(path)
    os.chmod(path, 0o777)
    control = Control(path, bot)
    await control.start()
    assert mode_of(path) == 0o600
    assert await ask(path, "GET", "/live") == {"did": ["live"]}
    await control.close()


async def test_a_living_process_is_not_replaced(path: Path, bot: Bot, control: Control) -> None:
    second = Control(path, Bot())
    with pytest.raises(SettingsError) as refused:
        await second.start()
    assert "QUEQIAO_DATA" in refused.value.problems[0]
    await second.close()
    assert await ask(path, "GET", "/status") == {"did": ["status"]}
    assert bot.asked == [("status",)]


async def test_what_is_no_socket_is_left_alone(
    path: Path, bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """The bot runs on without a control socket, and says so."""
    write(path)
    control = Control(path, bot)
    await control.start()
    assert "控制套接字" in caplog.text and "no control socket" in caplog.text
    await control.close()
    assert read(path) == "precious"


async def test_another_file_in_its_place_is_not_removed(path: Path, bot: Bot) -> None:
    control = Control(path, bot)
    await control.start()
    remove(path)
    write(path)
    await control.close()
    assert read(path) == "precious"


async def test_a_removed_file_is_no_trouble_at_the_end(path: Path, bot: Bot) -> None:
    control = Control(path, bot)
    await control.start()
    remove(path)
    await control.close()


async def test_closing_ends_a_question_that_hangs(tmp_path: Path, bot: Bot) -> None:
    path = tmp_path / SOCKET
    control = Control(path, bot)
    await control.start()
    bot.busy = asyncio.Event()
    asking = asyncio.create_task(ask(path, "GET", "/status"))
    await bot.called.wait()
    await control.close()
    with pytest.raises((BorderError, Transient)):
        await asking
    assert not path.exists()


async def test_a_name_that_fits(tmp_path: Path) -> None:
    long = tmp_path / DEEP / SOCKET
    long.parent.mkdir()
    for path in (tmp_path / SOCKET, long):
        with short_name(path) as name:
            assert len(os.fsencode(name)) < 104
    before = len(os.listdir("/proc/self/fd"))
    with short_name(long):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_on_the_faster_loop(tmp_path: Path) -> None:
    """`queqiao run` uses uvloop where there is one."""
    uvloop = pytest.importorskip("uvloop")
    path = tmp_path / SOCKET

    async def once() -> Json:
        control = Control(path, Bot())
        await control.start()
        answer = await ask(path, "GET", "/why/om_1")
        await control.close()
        return answer

    make: Callable[[], Any] = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=make) as runner:
        for _ in range(2):
            assert orjson.dumps(runner.run(once())) == b'{"did":["why","om_1"]}'
            assert not path.exists()
