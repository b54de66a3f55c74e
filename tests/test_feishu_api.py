"""REST calls of the Feishu adapter against a scripted server on loopback."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from adapters.feishu.api import FeishuApi
from adapters.feishu.chat import FeishuPlatform
from adapters.feishu.codes import error_of
from adapters.feishu.settings import FeishuSettings
from adapters.http import Answer, Http
from adapters.playground.clock import VirtualClock
from bot.contract import Reactions
from bot.errors import (
    AuthError,
    BorderError,
    Bug,
    Gone,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    RefusedContent,
    TooBig,
    Transient,
    Uncertain,
)

SECRET = "canary-secret-5f1c"
TOKEN_PATH = "/open-apis/auth/v3/tenant_access_token/internal"


class Server:
    """Answers from a script; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any, dict[str, str]]] = []
        self.script: deque[tuple[int, Any]] = deque()
        self.url = ""
        self.tokens = 0
        self.token_answer: Any = None
        self.token_delay = 0.0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == TOKEN_PATH:
            return await self._token()
        body = await request.json() if request.can_read_body else None
        headers = dict(request.headers)
        self.calls.append((request.method, request.path_qs, body, headers))
        status, answer = self.script.popleft() if self.script else (200, {"code": 0, "data": {}})
        if isinstance(answer, bytes):
            return web.Response(status=status, body=answer)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(answer, status=status, headers=answer.get("__headers", {}))

    async def _token(self) -> web.Response:
        self.tokens += 1
        await asyncio.sleep(self.token_delay)
        if self.token_answer is not None:
            return web.json_response(self.token_answer)
        token = {"code": 0, "msg": "ok", "tenant_access_token": f"t-{self.tokens}", "expire": 7200}
        return web.json_response(token)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def api(server: Server, clock: VirtualClock) -> AsyncIterator[FeishuApi]:
    http = Http()
    settings = FeishuSettings("b", "cli_1", SECRET, base_url=server.url)
    yield FeishuApi(settings, http, clock)
    await http.close()


# ---------------------------------------------------------------- token


async def test_a_storm_of_calls_fetches_one_token(server: Server, api: FeishuApi) -> None:
    server.token_delay = 0.05
    await asyncio.gather(*(api.card_of(f"om_{n}") for n in range(50)))
    assert server.tokens == 1
    assert {call[3]["Authorization"] for call in server.calls} == {"Bearer t-1"}


async def test_the_token_is_replaced_early(
    server: Server, api: FeishuApi, clock: VirtualClock
) -> None:
    await api.token()
    await clock.advance(7200 - 601)
    assert await api.token() == "t-1"
    await clock.advance(2)
    assert await api.token() == "t-2"


async def test_a_failed_refresh_keeps_the_living_token(
    server: Server, api: FeishuApi, clock: VirtualClock
) -> None:
    await api.token()
    await clock.advance(6700)
    server.token_answer = {"code": 99991400, "msg": "slow"}
    assert await api.token() == "t-1"
    await clock.advance(600)
    with pytest.raises(RateLimited):
        await api.token()


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", [99991661, 99991663, 99991664, 99991671])
async def test_a_dead_token_is_dropped_and_the_call_repeated_once(
    server: Server, api: FeishuApi, code: int, status: int
) -> None:
    server.script.append((status, {"code": code, "msg": "token expired"}))
    await api.card_of("om_1")
    assert [call[3]["Authorization"] for call in server.calls] == ["Bearer t-1", "Bearer t-2"]
    server.script.extend([(status, {"code": code})] * 5)
    with pytest.raises(AuthError):
        await api.card_of("om_1")
    assert len(server.calls) == 4


async def test_a_storm_of_dead_tokens_fetches_one_new_token(server: Server, api: FeishuApi) -> None:
    await api.token()
    server.script.extend([(400, {"code": 99991663})] * 20)
    await asyncio.gather(*(api.card_of(f"om_{n}") for n in range(20)))
    assert server.tokens == 2


async def test_a_late_complaint_leaves_the_new_token(server: Server, api: FeishuApi) -> None:
    await api.token()
    api.drop_token("t-0")
    assert await api.token() == "t-1"


@pytest.mark.parametrize("code", [10003, 10014, 10015])
async def test_wrong_credentials(server: Server, api: FeishuApi, code: int) -> None:
    server.token_answer = {"code": code, "msg": f"app secret {SECRET} is wrong"}
    with pytest.raises(AuthError) as caught:
        await api.card_of("om_1")
    assert SECRET not in str(caught.value) + repr(caught.value) + caught.value.cause


@pytest.mark.parametrize(
    ("code", "kind"),
    [(230002, Transient), (230013, AuthError), (230025, Transient), (230028, Transient)],
)
async def test_a_refused_token_says_nothing_of_a_message(
    server: Server, api: FeishuApi, code: int, kind: type[Exception]
) -> None:
    server.token_answer = {"code": code, "msg": "no"}
    with pytest.raises(kind):
        await api.card_of("om_1")
    assert not server.calls


async def test_nothing_of_ours_is_printed(api: FeishuApi, server: Server) -> None:
    assert SECRET not in repr(FeishuSettings("b", "cli_1", SECRET))
    server.script.append((400, {"code": 230001, "msg": "bad Bearer t-1 and more"}))
    with pytest.raises(Bug) as caught:
        await api.card_of("om_1")
    assert "t-1" not in str(caught.value)


# ---------------------------------------------------------------- calls


async def test_bot_identity_is_at_the_top_level(server: Server, api: FeishuApi) -> None:
    server.script.append((200, {"code": 0, "bot": {"open_id": "ou_bot", "app_name": "Q"}}))
    identity = await api.bot_identity()
    assert (identity.open_id, identity.name) == ("ou_bot", "Q")


async def test_the_shape_of_a_reply(server: Server, api: FeishuApi) -> None:
    server.script.append((200, {"code": 0, "data": {"message_id": "om_9", "chat_id": "oc_1"}}))
    sent = await api.reply("om_1", "text", {"text": "hé"}, "key-c", in_thread=True)
    assert sent.message_id == "om_9"
    method, path, body, _ = server.calls[0]
    assert (method, path) == ("POST", "/open-apis/im/v1/messages/om_1/reply")
    assert body == {
        "msg_type": "text",
        "content": '{"text":"hé"}',
        "reply_in_thread": True,
        "uuid": "key-c",
    }


async def test_the_shape_of_a_send(server: Server, api: FeishuApi) -> None:
    server.script.append((200, {"code": 0, "data": {"message_id": "om_9"}}))
    await api.send("oc_1", "text", {"text": "x"}, "k")
    _, path, body, _ = server.calls[0]
    assert path == "/open-apis/im/v1/messages?receive_id_type=chat_id"
    assert body["receive_id"] == "oc_1"


async def test_the_shapes_of_card_calls(server: Server, api: FeishuApi) -> None:
    server.script.append((200, {"code": 0, "data": {"card_id": "77"}}))
    assert await api.create_card({"schema": "2.0"}) == "77"
    await api.card_content("77", "answer_md", "text", 5, "u5")
    await api.card_settings("77", {"streaming_mode": False}, 6, "u6")
    await api.card_update("77", {"schema": "2.0"}, 7, "u7")
    await api.patch("om_1", {"schema": "2.0"})
    base = "/open-apis/cardkit/v1/cards"
    assert [call[:3] for call in server.calls] == [
        ("POST", base, {"type": "card_json", "data": '{"schema":"2.0"}'}),
        (
            "PUT",
            f"{base}/77/elements/answer_md/content",
            {"content": "text", "sequence": 5, "uuid": "u5"},
        ),
        (
            "PATCH",
            f"{base}/77/settings",
            {"settings": '{"config":{"streaming_mode":false}}', "sequence": 6, "uuid": "u6"},
        ),
        (
            "PUT",
            f"{base}/77",
            {
                "card": {"type": "card_json", "data": '{"schema":"2.0"}'},
                "sequence": 7,
                "uuid": "u7",
            },
        ),
        ("PATCH", "/open-apis/im/v1/messages/om_1", {"content": '{"schema":"2.0"}'}),
    ]


async def test_reactions(server: Server, api: FeishuApi) -> None:
    server.script.append((200, {"code": 0, "data": {"reaction_id": "r/1"}}))
    assert await api.add_reaction("om_1", "Get") == "r/1"
    await api.remove_reaction("om_1", "r/1")
    assert server.calls[0][2] == {"reaction_type": {"emoji_type": "Get"}}
    assert server.calls[1][:2] == ("DELETE", "/open-apis/im/v1/messages/om_1/reactions/r%2F1")


async def test_marks_never_raise(server: Server, clock: VirtualClock) -> None:
    http = Http()
    settings = FeishuSettings("b", "cli_1", SECRET, base_url=server.url)
    platform = FeishuPlatform(settings, http, clock)
    assert isinstance(platform, Reactions)
    server.script.append((200, {"code": 0, "data": {"reaction_id": "r1"}}))
    token = await platform.react({"message_id": "om_1"}, "seen")
    await platform.unreact({"message_id": "om_1"}, token)
    assert [call[:2] for call in server.calls] == [
        ("POST", "/open-apis/im/v1/messages/om_1/reactions"),
        ("DELETE", "/open-apis/im/v1/messages/om_1/reactions/r1"),
    ]
    server.script.extend([(400, {"code": 231003}), (502, b"<html>")])
    assert await platform.react({"message_id": "om_1"}, "done") == ""
    await platform.unreact({"message_id": "om_1"}, token)
    assert await platform.react({}, "seen") == ""
    assert len(server.calls) == 4
    await http.close()


async def test_a_zero_code_without_an_id_is_no_proof(server: Server, api: FeishuApi) -> None:
    server.script.append((200, {"code": 0, "data": {}}))
    with pytest.raises(Uncertain):
        await api.reply("om_1", "text", {"text": "x"}, "k")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((502, b"<html>Bad Gateway</html>"), Uncertain),
        ((200, b'{"code":0,"da'), Uncertain),
        ((404, b"404 page not found"), Bug),
        ((413, b"too large"), TooBig),
        ((429, b""), RateLimited),
        ((200, b"[]"), Uncertain),
        ((200, b'{"code":"0"}'), Uncertain),
        ((200, None), Uncertain),
    ],
)
async def test_answers_that_are_no_envelope(
    server: Server, api: FeishuApi, answer: tuple[int, Any], expected: type[BorderError]
) -> None:
    server.script.append(answer)
    with pytest.raises(expected):
        await api.card_of("om_1")


async def test_a_lost_token_answer_leaves_the_call_without_effect(clock: VirtualClock) -> None:
    http = Http()
    settings = FeishuSettings("b", "cli_1", SECRET, base_url="http://127.0.0.1:9")
    with pytest.raises(Transient):
        await FeishuApi(settings, http, clock).card_of("om_1")
    await http.close()


async def test_rate_limits_name_bucket_and_wait(server: Server, api: FeishuApi) -> None:
    headers = {"x-ogw-ratelimit-reset": "7"}
    server.script.append((429, {"code": 99991400, "msg": "slow down", "__headers": headers}))
    with pytest.raises(RateLimited) as caught:
        await api.card_content("77", "e", "x", 1, "u")
    assert caught.value.retry_after == 7
    assert caught.value.bucket == api.charge("content").bucket
    server.script.append((400, {"code": 230020, "msg": "5 QPS"}))
    with pytest.raises(RateLimited) as caught:
        await api.send("oc_1", "text", {"text": "x"}, "k", "feishu/chat/oc_1")
    assert caught.value.bucket == "feishu/chat/oc_1"
    assert caught.value.retry_after < 2


# ---------------------------------------------------------------- the table


def refused(code: int, msg: str = "no", status: int = 400, **body: object) -> BorderError:
    answer = Answer(status, {}, {"code": code, "msg": msg, **body}, "")
    return error_of(answer, "call", "api", "place")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (99991672, PermissionDenied),
        (230027, PermissionDenied),
        (99991401, AuthError),
        (99991403, QuotaExhausted),
        (11232, RateLimited),
        (230002, Gone),
        (230011, Gone),
        (230031, Gone),
        (230035, Gone),
        (230110, Gone),
        (231003, Gone),
        (232009, Gone),
        (99992354, Gone),
        (99992361, Bug),
        (230022, RefusedContent),
        (230028, RefusedContent),
        (230025, TooBig),
        (200860, TooBig),
        (230049, Uncertain),
        (200810, Transient),
        (300120, Transient),
        (230001, Bug),
        (300317, Bug),
        (300309, Bug),
        (123456, Bug),
    ],
)
def test_the_table(code: int, expected: type[BorderError]) -> None:
    error = refused(code)
    assert type(error) is expected
    assert error.code == str(code)


def test_an_unknown_code_of_a_broken_server_is_transient() -> None:
    assert type(refused(987654, status=500)) is Transient


def test_missing_scopes_are_named() -> None:
    error = refused(
        99991672,
        error={"permission_violations": [{"subject": "cardkit:card:write"}, {"subject": 5}, None]},
    )
    assert isinstance(error, PermissionDenied)
    assert error.scopes == ("cardkit:card:write", "5")


def test_elements_over_the_limit() -> None:
    error = refused(300305)
    assert isinstance(error, TooBig)
    assert error.what == "elements"


@pytest.mark.parametrize(
    ("message", "expected", "what"),
    [
        ("card table number over limit", TooBig, "tables"),
        ("element exceeds the limit", TooBig, "elements"),
        ("cardid is invalid", Transient, ""),
        ("card action is lock", Transient, ""),
        ("something new", Bug, ""),
    ],
)
def test_the_codes_inside_230099(message: str, expected: type[BorderError], what: str) -> None:
    ext = f"Failed to create card content, ext=ErrCode: 11310; ErrPath: ROOT; ErrMsg: {message};"
    error = refused(230099, ext)
    assert type(error) is expected
    assert error.code.startswith("230099/11310")
    assert getattr(error, "what", "") == what
