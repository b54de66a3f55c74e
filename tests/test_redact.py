"""bot/redact.py: no canary gets out, and ordinary sentences stay as they are."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.redact import HIDDEN, SHORTEST, Formatter, Redactor
from bot.texts import TABLES

ROOT = Path(__file__).resolve().parent.parent
CANARY = "c4nary-Zx9/+q=="
"""Known to the redactor, with characters that a URL writes otherwise."""
STRANGER = "str4ngerQwErTyUiOp"
"""A secret that nobody told the redactor."""

known = Redactor([CANARY])
blind = Redactor()


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f"密钥是{CANARY}吗",
        f"x{CANARY}y{CANARY}",
        f"wss://host/ws?q={quote(CANARY, safe='')}&id=1",
        json.dumps({"anything": [CANARY]}),
        repr({"anything": CANARY}),
        f"line one\nline two {CANARY}\n",
    ],
)
def test_a_known_secret_is_hidden_wherever_it_stands(text: str) -> None:
    told = known(text)
    assert CANARY not in told and quote(CANARY, safe="") not in told
    assert HIDDEN in told


@settings(deadline=None)
@given(st.text(), st.text())
def test_a_known_secret_is_hidden_between_any_texts(before: str, after: str) -> None:
    assert CANARY not in known(before + CANARY + after)


def test_of_two_secrets_the_longer_is_hidden_whole() -> None:
    redact = Redactor(["abcdef", "abcdef-ghijkl"])
    assert redact("abcdef-ghijkl abcdef") == f"{HIDDEN} {HIDDEN}"


def test_secrets_are_no_patterns() -> None:
    redact = Redactor(["a.c*e+(f"])
    assert redact("abcdef a.c*e+(f") == f"abcdef {HIDDEN}"


def test_a_very_short_secret_does_not_blank_out_words() -> None:
    assert len("abc") < SHORTEST
    assert Redactor(["abc", ""])("abcdefg") == "abcdefg"


@pytest.mark.parametrize(
    "text",
    [
        f"app_secret={STRANGER}",
        f"FEISHU_APP_SECRET={STRANGER}",
        f"DEEPSEEK_API_KEY='{STRANGER}'",
        f"appSecret: {STRANGER}",
        f"client_secret = {STRANGER}",
        f"encrypt_key={STRANGER}",
        f"password={STRANGER}",
        f"refresh_token={STRANGER}",
        f"app_ticket={STRANGER}",
        f"token: {STRANGER}",
        f"wss://frontier/ws/v2?device_id=1&access_key={STRANGER}&ticket={STRANGER}",
        f"https://oapi/robot/sendBySession?session={STRANGER}",
        f"https://oapi/robot/send?access_token={STRANGER}&sign={STRANGER}",
        f"https://user:{STRANGER}@host/path",
        f"postgresql+psycopg://bot:{STRANGER}@db:5432/queqiao",
        json.dumps({"app_id": "cli_1", "app_secret": STRANGER}),
        json.dumps({"clientId": "ding", "clientSecret": STRANGER}),
        json.dumps({"code": 0, "tenant_access_token": STRANGER, "expire": 7200}),
        json.dumps({"accessToken": STRANGER, "expireIn": 7200}),
        json.dumps({"data": json.dumps({"appSecret": STRANGER})}),
        json.dumps({"a": json.dumps({"b": json.dumps({"ticket": STRANGER})})}),
        repr({"app_secret": STRANGER}),
        str({"Authorization": f"Bearer {STRANGER}"}),
        f"Authorization: Bearer {STRANGER}",
        f"authorization: Basic {STRANGER}",
        f"bearer {STRANGER}",
        f"x-acs-dingtalk-access-token: {STRANGER}",
        f"token='{STRANGER}'",
        "the key sk-" + STRANGER + " was refused",
    ],
)
def test_what_looks_like_a_secret_is_hidden_unknown(text: str) -> None:
    told = blind(text)
    assert STRANGER not in told
    assert HIDDEN in told


@pytest.mark.parametrize("value", ["a b", "a,b;c&d", "a\\\"b'c", "a)b]c}d", "密 码", "x" * 2_000])
def test_a_quoted_value_is_hidden_to_its_end(value: str) -> None:
    body = json.dumps({"app_secret": value, "code": 7}, ensure_ascii=False)
    assert json.loads(blind(body)) == {"app_secret": HIDDEN, "code": 7}


def test_a_bearer_without_a_digit_is_hidden_too() -> None:
    assert blind("Bearer abcdefghijklmnopqrstuv") == f"Bearer {HIDDEN}"
    assert blind("Authorization: Bearer short") == f"Authorization: Bearer {HIDDEN}"


def test_what_is_no_secret_stays_beside_it() -> None:
    told = blind(f"GET https://h/ws?device_id=7&ticket={STRANGER}&service_id=33 failed: 403")
    assert told == f"GET https://h/ws?device_id=7&ticket={HIDDEN}&service_id=33 failed: 403"
    form = urlencode({"password": STRANGER, "user": "me"})
    assert blind(form) == f"password={HIDDEN}&user=me"


def test_hiding_twice_changes_nothing() -> None:
    once = known(f'{{"app_secret": "{CANARY}"}} Authorization: Bearer {STRANGER} ?ticket=x1')
    assert known(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "link feishu ended: cannot connect: ClientConnectorError",
        "turn 3f2a9c failed, trying again in 0.50 s",
        "used 8192 tokens: 4096 cached, max_tokens=8192, prompt_tokens: 12",
        "The bearer of this letter is an old friend.",
        "A token: the smallest piece of text a model reads.",
        "The secret: practice every day.",
        "Please sign: here and there.",
        "design=blue assignment: done resign: never",
        "The session: was it useful?",
        "Basic instructions for beginners",
        "http://127.0.0.1:8080/readyz and mail to a@b.example",
        "sk-learn is a library",
        "ask-me-anything-tomorrow",
        "令牌 token 是什么？一个 token 大约是半个汉字。",
        "请把密码写在纸上：不要发给别人。",
        "我的会话（session）断开了，怎么签名 sign？",
        "设置没有问题。/ The settings are fine.",
        "keys: access, secret and ticket are words",
    ],
)
def test_ordinary_sentences_are_left_alone(text: str) -> None:
    assert blind(text) == text
    assert known(text) == text


def test_our_own_sentences_are_left_alone() -> None:
    for table in TABLES.values():
        for key, text in table.items():
            assert blind(text) == text, key


# ---------------------------------------------------------------- records


@pytest.fixture
def told() -> Iterator[io.StringIO]:
    """What the root's handler writes, with our formatter."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter(known))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def test_messages_and_their_arguments(told: io.StringIO) -> None:
    log = logging.getLogger("bot.test")
    log.info("plain %s", CANARY)
    log.info("named %(what)s", {"what": CANARY})
    log.info("object %r", {"deep": [CANARY]})
    log.info(CANARY)
    assert told.getvalue().count(HIDDEN) == 4
    assert CANARY not in told.getvalue()
    assert "bot.test: plain" in told.getvalue()


def test_tracebacks_and_their_causes(told: io.StringIO) -> None:
    log = logging.getLogger("bot.test")
    try:
        try:
            raise ValueError(f"inner {CANARY}")
        except ValueError as inner:
            raise RuntimeError(f"url wss://h?ticket={STRANGER}") from inner
    except RuntimeError:
        log.exception("it failed")
    text = told.getvalue()
    assert CANARY not in text and STRANGER not in text
    assert "ValueError: inner" in text and "RuntimeError: url" in text, "still a traceback"
    assert "test_redact.py" in text


def test_other_libraries_pass_the_same_border(told: io.StringIO) -> None:
    for name in ("aiohttp.client", "websockets.client", "Lark", "sqlalchemy.engine", "asyncio"):
        library = logging.getLogger(name)
        library.setLevel(logging.NOTSET)  # another test may have silenced it
        library.propagate = True
        library.error("GET /ws?ticket=%s %s", STRANGER, CANARY)
    text = told.getvalue()
    assert len(text.splitlines()) == 5
    assert CANARY not in text and STRANGER not in text


def test_the_whole_program_writes_no_secret() -> None:
    """As `queqiao run` sets it up: everything goes to standard error, redacted."""
    program = f"""
import asyncio, logging
from bot.redact import set_up_logging
logging.basicConfig(level="DEBUG")  # a library came first
set_up_logging("DEBUG", [{CANARY!r}])
logging.getLogger("bot").debug("debug %s", {CANARY!r})
logging.getLogger("bot").info("%d turns", {CANARY!r})
logging.getLogger("aiohttp.access").info("a request with noise")
logging.getLogger("sqlalchemy.engine").info("a statement with noise")
async def main():
    async def fails(): raise OSError("app_secret={STRANGER}")
    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    del task
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert CANARY not in done.stderr and STRANGER not in done.stderr
    assert done.stderr.count("DEBUG   bot: debug") == 1, "said once, at this level"
    assert "%d turns" in done.stderr, "wrong arguments cost the values, not the line"
    assert "noise" not in done.stderr
    assert "never retrieved" in done.stderr and f"app_secret={HIDDEN}" in done.stderr
