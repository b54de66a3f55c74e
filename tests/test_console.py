"""The console's HTTP: health, readiness, metrics, and who may read them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from adapters.console.metrics import CONTENT_TYPE, render
from adapters.console.server import Console, is_local
from bot.contract import Json, Metric
from bot.errors import SettingsError, StoreError


@dataclass
class Bot:
    """An operator that says what the test puts in its mouth."""

    causes: list[str] = field(default_factory=list)
    numbers: list[Metric] = field(default_factory=list)
    error: Exception | None = None

    async def problems(self) -> list[str]:
        if self.error is not None:
            raise self.error
        return self.causes

    async def metrics(self) -> list[Metric]:
        if self.error is not None:
            raise self.error
        return self.numbers

    async def status(self) -> Json:
        raise NotImplementedError

    async def live(self) -> Json:
        raise NotImplementedError

    async def why(self, message_id: str) -> Json:
        raise NotImplementedError

    async def resend(self, turn_id: str) -> Json:
        raise NotImplementedError

    async def backup(self, path: str) -> Json:
        raise NotImplementedError


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
async def console(bot: Bot) -> AsyncIterator[Console]:
    console = Console("127.0.0.1", 0, bot)
    await console.start()
    yield console
    await console.close()


async def get(console: Console, path: str, **more: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
    """Status, body (JSON where it says so), response."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            more.pop("method", "GET"), f"http://127.0.0.1:{console.port}{path}", **more
        ) as response,
    ):
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text()), response


async def raw(console: Console, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", console.port)
    writer.write(request)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


# ---------------------------------------------------------------- health


async def test_alive_is_alive_whatever_is_wrong(console: Console, bot: Bot) -> None:
    bot.error = StoreError("disk full")
    status, body, _ = await get(console, "/healthz")
    assert (status, body) == (200, {"alive": True})


async def test_ready_or_why_not(console: Console, bot: Bot) -> None:
    status, body, _ = await get(console, "/readyz")
    assert (status, body) == (200, {"ready": True, "problems": []})
    bot.causes = ["飞书的连接断了 / the link to Feishu is down"]
    status, body, _ = await get(console, "/readyz")
    assert (status, body) == (503, {"ready": False, "problems": bot.causes})


async def test_chinese_is_readable_in_a_terminal(console: Console, bot: Bot) -> None:
    bot.causes = ["断了 / down"]
    answer = await raw(console, b"GET /readyz HTTP/1.0\r\n\r\n")
    assert "断了".encode() in answer


async def test_a_store_that_says_no_is_a_cause(console: Console, bot: Bot) -> None:
    bot.error = StoreError("disk I/O error")
    status, body, _ = await get(console, "/readyz")
    assert status == 503 and not body["ready"]
    assert "disk I/O error" in body["problems"][0] and "存储" in body["problems"][0]


async def test_a_bot_that_is_stuck_is_not_ready() -> None:
    class Stuck(Bot):
        async def problems(self) -> list[str]:
            return await asyncio.Event().wait() and []

    console = Console("127.0.0.1", 0, Stuck(), patience=0.05)
    await console.start()
    status, body, _ = await get(console, "/readyz")
    assert status == 503 and "too long" in body["problems"][0]
    await console.close()


async def test_a_fault_of_our_own_is_an_answer_without_details(
    console: Console, bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    bot.error = RuntimeError("canary-s3cr3t")
    for path in ("/readyz", "/metrics"):
        status, body, _ = await get(console, path)
        assert status == 500 and "canary" not in str(body) and body["error"]
    assert "canary-s3cr3t" in caplog.text, "the log has it, behind its own redaction"


async def test_what_is_not_there(console: Console) -> None:
    for path, method, expected in (("/", "GET", 404), ("/readyz", "POST", 405)):
        status, body, response = await get(console, path, method=method)
        assert status == expected and " / " in body["error"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "aiohttp" not in response.headers["Server"].lower()


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:8080", "bot.localhost:80", "127.9.9.9"]
)
async def test_names_of_this_machine_are_served(console: Console, host: str) -> None:
    status, _, _ = await get(console, "/readyz", headers={"Host": host})
    assert status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:8080",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/none"])
async def test_a_name_that_only_points_here_is_refused(
    console: Console, bot: Bot, host: str, path: str
) -> None:
    bot.causes = ["private"]
    status, body, _ = await get(console, path, headers={"Host": host})
    assert status == 421 and "private" not in str(body)


async def test_a_second_host_does_not_help(console: Console) -> None:
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n"
    answer = await raw(console, request + b"Connection: close\r\n\r\n")
    assert not answer.startswith(b"HTTP/1.1 200")


async def test_a_probe_without_a_host_is_served(console: Console) -> None:
    assert b" 200 " in (await raw(console, b"GET /healthz HTTP/1.0\r\n\r\n")).split(b"\r\n")[0]


async def test_bound_to_every_address_any_name_will_do(bot: Bot) -> None:
    console = Console("0.0.0.0", 0, bot)
    await console.start()
    try:
        status, _, _ = await get(console, "/healthz", headers={"Host": "queqiao.internal"})
        assert status == 200
    finally:
        await console.close()


def test_local_names() -> None:
    for host in ("::1", "[::1]", "[::1]:80", "127.0.0.1:80", "localhost.", "a.localhost"):
        assert is_local(host), host
    for host in ("", ":80", "::", "[::2]:80", "localhost.com", "xlocalhost", "128.0.0.1"):
        assert not is_local(host), host


# ---------------------------------------------------------------- metrics


async def test_the_page_of_metrics(console: Console, bot: Bot) -> None:
    bot.numbers = [
        Metric("queqiao_waiting", 3, "gauge", "Turns that wait."),
        Metric("queqiao_calls_total", 12.5, "counter", "Calls.", (("bot", "hr"),)),
    ]
    status, page, response = await get(console, "/metrics")
    assert status == 200
    assert response.headers["Content-Type"] == CONTENT_TYPE
    assert page == (
        "# HELP queqiao_waiting Turns that wait.\n"
        "# TYPE queqiao_waiting gauge\n"
        "queqiao_waiting 3\n"
        "# HELP queqiao_calls_total Calls.\n"
        "# TYPE queqiao_calls_total counter\n"
        'queqiao_calls_total{bot="hr"} 12.5\n'
    )


async def test_metrics_when_the_store_says_no(console: Console, bot: Bot) -> None:
    bot.error = StoreError("disk full")
    status, body, _ = await get(console, "/metrics")
    assert status == 503 and "disk full" in body["error"]


def test_samples_of_a_name_stand_together_under_one_head() -> None:
    page = render(
        [
            Metric("a", 1, "gauge", "A.", (("bot", "x"),)),
            Metric("b", 2, "counter", "B."),
            Metric("a", 3, "gauge", "Another word.", (("bot", "y"),)),
        ]
    )
    assert re.findall(r"^\S+", re.sub(r"^#.*\n", "", page, flags=re.M), flags=re.M) == [
        'a{bot="x"}',
        'a{bot="y"}',
        "b",
    ]
    assert page.count("# HELP a ") == page.count("# TYPE a ") == 1


def test_the_later_of_two_equal_samples_stands() -> None:
    one = Metric("a", 1, "gauge", "A.", (("x", "1"), ("y", "2")))
    two = Metric("a", 2, "gauge", "A.", (("y", "2"), ("x", "1")))
    assert render([one, two]).endswith('a{x="1",y="2"} 2\n')


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (3.0, "3"),
        (-0.25, "-0.25"),
        (1e15, "1000000000000000.0"),
        (1e22, "1e+22"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers(value: float, written: str) -> None:
    assert render([Metric("a", value, "gauge", "A.")]).splitlines()[-1] == f"a {written}"


def test_escapes_can_be_undone() -> None:
    """Read the page back by the rules of the format: every label value returns."""
    hard = ['say "hi"', "a\nb", "back\\slash", "\\n", '\\"', "}", "={,", "中文 é", ""]
    page = render([Metric("m", n, "gauge", "", (("v", v),)) for n, v in enumerate(hard)])
    lines = page.splitlines()
    assert len(lines) == 2 + len(hard), "a newline in a value is no new line"
    values = re.findall(r'^m\{v="((?:\\.|[^"\\])*)"\} \d+$', page, flags=re.M)
    undo = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
    assert [re.sub(r"\\.", lambda m: undo[m[0]], v) for v in values] == hard


def test_a_help_is_one_line_whose_quotes_stay() -> None:
    page = render([Metric("m", 1, "gauge", 'a "b"\nc\\d')])
    assert page.splitlines()[0] == '# HELP m a "b"\\nc\\\\d'


def test_a_name_against_the_format_does_not_spoil_the_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = Metric("good", 1, "gauge", "G.")
    bad = [
        Metric("bad-name", 1, "gauge", "B."),
        Metric("1bad", 1, "gauge", "B."),
        Metric("bad", 1, "gauge", "B.", (("a-b", "x"),)),
        Metric("bad", 1, "gauge", "B.", (("__x", "x"),)),
        Metric("bad", 1, "gauge", "B.", (("a", "x"), ("a", "y"))),
    ]
    assert render([*bad, good]) == render([good])
    assert caplog.text.count("left out") == len(bad)


def test_no_metrics_are_an_empty_page() -> None:
    assert render([]) == ""


# ---------------------------------------------------------------- life


async def test_a_taken_port_is_a_setting_to_change(console: Console, bot: Bot) -> None:
    second = Console("127.0.0.1", console.port, bot)
    with pytest.raises(SettingsError) as refused:
        await second.start()
    assert "QUEQIAO_HTTP" in refused.value.problems[0]
    await second.close()


async def test_close_lets_go_of_the_port(bot: Bot) -> None:
    first = Console("127.0.0.1", 0, bot)
    await first.start()
    port = first.port
    await first.close()
    await first.close()
    again = Console("127.0.0.1", port, bot)
    await again.start()
    assert again.port == port
    await again.close()
