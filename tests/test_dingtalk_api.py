"""DingTalk's REST calls against a small server: tokens, codes, bodies, webhook hosts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from adapters.dingtalk.api import DingTalkApi
from adapters.dingtalk.codes import error_of
from adapters.dingtalk.settings import DingTalkSettings
from adapters.http import Answer, Http
from adapters.playground.clock import VirtualClock
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

SECRET = "canary-secret-31cc"
DENIED = "Forbidden.AccessDenied."


class Server:
    """Answers from a queue per path; `calls` are (path, body, token)."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[tuple[str, Any, str]] = []
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.tokens = 0
        self.hold: asyncio.Event | None = None
        self.token_answer: tuple[int, Any] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        token = request.headers.get("x-acs-dingtalk-access-token", "")
        self.calls.append((request.path, body, token))
        if request.path.endswith("/accessToken"):
            return await self.token()
        status, answer = self.next(request.path)
        if isinstance(answer, str):
            return web.Response(status=status, text=answer)
        return web.json_response(answer, status=status)

    def next(self, path: str) -> tuple[int, Any]:
        queue = self.answers.get(path, [])
        return queue.pop(0) if queue else (200, {"success": True, "result": True})

    async def token(self) -> web.StreamResponse:
        if self.hold is not None:
            await self.hold.wait()
        if self.token_answer is not None:
            return web.json_response(self.token_answer[1], status=self.token_answer[0])
        self.tokens += 1
        answer = {"accessToken": f"canary-token-{self.tokens}", "expireIn": 7200}
        return web.json_response(answer)

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.calls]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http()
    yield http
    await http.close()


def settings(url: str, **changes: Any) -> DingTalkSettings:
    given = {"base_url": url, "oapi_base_url": url} | changes
    return DingTalkSettings("ding", "client", SECRET, **given)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(settle=0)


@pytest.fixture
def api(server: Server, http: Http, clock: VirtualClock) -> DingTalkApi:
    return DingTalkApi(settings(server.url), http, clock)


# ---------------------------------------------------------------- token


async def test_one_token_for_many_at_once(server: Server, api: DingTalkApi) -> None:
    server.hold = asyncio.Event()
    asking = [asyncio.create_task(api.token()) for _ in range(20)]
    await asyncio.sleep(0)
    server.hold.set()
    assert set(await asyncio.gather(*asking)) == {"canary-token-1"}
    assert server.tokens == 1


async def test_a_failed_fetch_fails_for_all_who_wait(server: Server, api: DingTalkApi) -> None:
    server.hold, server.token_answer = asyncio.Event(), (503, {"code": "system.busy"})
    asking = [asyncio.create_task(api.token()) for _ in range(20)]
    await asyncio.sleep(0)
    server.hold.set()
    refused = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(error, Transient) for error in refused)
    assert server.paths() == ["/v1.0/oauth2/accessToken"]
    server.token_answer = None
    assert await api.token() == "canary-token-1"


async def test_a_token_is_replaced_before_it_ends(
    server: Server, api: DingTalkApi, clock: VirtualClock
) -> None:
    await api.token()
    await clock.advance(7200 - 301)
    assert await api.token() == "canary-token-1"
    await clock.advance(2)
    assert await api.token() == "canary-token-2"


async def test_a_token_that_cannot_be_replaced_yet_is_kept(
    server: Server, api: DingTalkApi, clock: VirtualClock
) -> None:
    await api.token()
    server.token_answer = (503, {"code": "system.busy"})
    await clock.advance(7000)
    assert await api.token() == "canary-token-1"
    await clock.advance(300)
    with pytest.raises(Transient):
        await api.token()


async def test_a_missing_lifetime_means_two_hours(
    server: Server, api: DingTalkApi, clock: VirtualClock
) -> None:
    server.token_answer = (200, {"accessToken": "a", "expireIn": 0})
    await api.token()
    server.token_answer = None
    await clock.advance(6000)
    assert await api.token() == "a"


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"code": "InvalidAuthentication", "message": "不合法的access_token"}),
        (401, {"code": "whatever"}),
        (200, {"errcode": 40014, "errmsg": "x"}),
        (200, {"errcode": 88, "errmsg": "x"}),
    ],
)
async def test_a_dead_token_is_replaced_and_the_call_repeated_once(
    server: Server, api: DingTalkApi, refusal: tuple[int, Any]
) -> None:
    path = "/v1.0/card/instances"
    server.answers[path] = [refusal]
    await api.update_card("t", {"a": "b"})
    tokens = [token for called, _, token in server.calls if called == path]
    assert tokens == ["canary-token-1", "canary-token-2"]
    server.answers[path] = [refusal, refusal, refusal]
    with pytest.raises(AuthError):
        await api.update_card("t", {"a": "b"})
    assert len(server.answers[path]) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalidParameter.msgParam.tooLong", Transient),
        (400, "param.cardNotExist", Transient),
        (403, DENIED + "IpNotInWhiteList", AuthError),
        (403, DENIED + "QpsLimitForApi", RateLimited),
    ],
)
async def test_a_refused_token_says_nothing_of_a_message(
    server: Server, api: DingTalkApi, status: int, code: str, kind: type[Exception]
) -> None:
    server.token_answer = (status, {"code": code, "message": "no"})
    with pytest.raises(kind):
        await api.update_card("t", {})
    assert [path for path, _, _ in server.calls] == ["/v1.0/oauth2/accessToken"]


async def test_wrong_credentials(server: Server, api: DingTalkApi) -> None:
    server.token_answer = (400, {"code": "invalidClientIdOrSecret", "message": f"no {SECRET}"})
    with pytest.raises(AuthError) as caught:
        await api.update_card("t", {})
    assert SECRET not in str(caught.value) + repr(caught.value)


# ---------------------------------------------------------------- codes


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, {"code": DENIED + "QpsLimitForAppkeyAndApi"}, RateLimited),
        (403, {"code": DENIED + "QpsLimitForApi"}, RateLimited),
        (403, {"code": DENIED + "QpmLimitForAppkeyAndApi"}, RateLimited),
        (403, {"code": DENIED + "ApiCountLimitForOrg"}, QuotaExhausted),
        (403, {"code": DENIED + "AccessTokenPermissionDenied"}, PermissionDenied),
        (403, {"code": DENIED + "IpNotInWhiteList"}, PermissionDenied),
        (403, {"code": DENIED + "SomethingNew"}, PermissionDenied),
        (400, {"code": "authFailed"}, AuthError),
        (400, {"code": "group.disbanded"}, Gone),
        (400, {"code": "resource.not.found"}, Gone),
        (400, {"code": "staffId.notExisted"}, Gone),
        (400, {"code": "param.cardNotExist"}, Gone),
        (400, {"code": "param.stream.outTrackId"}, Gone),
        (400, {"code": "param.stream.content"}, TooBig),
        (400, {"code": "invalidParameter.msgParam.tooLong"}, TooBig),
        (400, {"code": "param.contentUnsafe"}, RefusedContent),
        (400, {"code": "contain.notAllowed.text"}, RefusedContent),
        (400, {"code": "send.too.fast"}, RateLimited),
        (400, {"code": "invalidParameter.robotCode.notExsit"}, Bug),
        (400, {"code": "brand.new"}, Bug),
        (429, {"code": "brand.new"}, RateLimited),
        (500, {"code": "system.busy"}, Transient),
        (500, {"code": "system.error"}, Uncertain),
        (500, {"code": "unknownError", "message": "未知错误"}, Bug),
        (503, {"code": "operationTimeout"}, Uncertain),
        (500, {"code": "brand.new"}, Uncertain),
        (200, {"errcode": 300001, "errmsg": "session 不存在"}, Gone),
        (200, {"errcode": 130101, "errmsg": "send too fast"}, RateLimited),
        (200, {"errcode": 302033, "errmsg": "Send Too Fast"}, RateLimited),
        (200, {"errcode": 302033, "errmsg": "?"}, Bug),
        (200, {"errcode": 90030, "errmsg": "webhook over limit"}, QuotaExhausted),
        (200, {"errcode": 460101, "errmsg": "message too long"}, TooBig),
        (200, {"errcode": 430104, "errmsg": "?"}, RefusedContent),
        (200, {"errcode": 400013, "errmsg": "?"}, Gone),
        (200, {"errcode": -1, "errmsg": "busy"}, Transient),
        (200, {"errcode": 40035, "errmsg": "bad json"}, Bug),
        (200, {"status": 1111, "wait": 5, "punish": "deny"}, RateLimited),
        (403, None, RateLimited),
        (401, None, AuthError),
        (413, None, TooBig),
        (404, None, Bug),
        (502, None, Uncertain),
        (200, None, Uncertain),
        (200, [1, 2], Uncertain),
    ],
)
def test_the_table(status: int, body: Any, kind: type[BorderError]) -> None:
    error = error_of(Answer(status, {}, body, ""), "call", "bucket")
    assert type(error) is kind


def test_what_the_errors_tell() -> None:
    slow = error_of(Answer(200, {}, {"errcode": 130101}, ""), "webhook", "place")
    assert isinstance(slow, RateLimited)
    assert (slow.retry_after, slow.bucket, slow.code) == (60.0, "place", "130101")
    qps = {"code": DENIED + "QpsLimitForAppkeyAndApi"}
    fast = error_of(Answer(403, {}, qps, ""), "stream", "api")
    assert isinstance(fast, RateLimited) and (fast.retry_after, fast.bucket) == (1.0, "api")
    detail = {"requiredScopes": ["Card.Streaming.Write", 5]}
    body = {"code": DENIED + "AccessTokenPermissionDenied", "accessdenieddetail": detail}
    denied = error_of(Answer(403, {}, body | {"requestid": "R-1"}, ""), "stream")
    assert isinstance(denied, PermissionDenied) and denied.scopes == ("Card.Streaming.Write",)
    assert "R-1" in str(denied)


# ---------------------------------------------------------------- sends


OTO = "/v1.0/robot/oToMessages/batchSend"


async def test_a_private_message(server: Server, api: DingTalkApi) -> None:
    server.answers[OTO] = [(200, {"processQueryKey": "pqk"})]
    assert await api.send_person("0123", "robot", "t", "x") == "pqk"
    assert server.calls[-1][1] == {
        "robotCode": "robot",
        "userIds": ["0123"],
        "msgKey": "sampleMarkdown",
        "msgParam": '{"title":"t","text":"x"}',
    }


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("flowControlledStaffIdList", RateLimited),
        ("invalidStaffIdList", Gone),
        ("filteredStaffIdList", Gone),
    ],
)
async def test_a_200_that_lists_the_person_is_a_refusal(
    server: Server, api: DingTalkApi, field: str, kind: type[BorderError]
) -> None:
    server.answers[OTO] = [(200, {"processQueryKey": "pqk", field: ["0123"]})]
    with pytest.raises(kind):
        await api.send_person("0123", "robot", "t", "x")


async def test_a_200_without_a_key_proves_nothing(server: Server, api: DingTalkApi) -> None:
    with pytest.raises(Uncertain):
        await api.send_group("cid", "robot", "t", "x")
    server.answers["/v1.0/robot/groupMessages/send"] = [(200, {"success": False})]
    with pytest.raises(BorderError):
        await api.send_group("cid", "robot", "t", "x")


async def test_a_card_that_was_created_but_not_delivered(server: Server, api: DingTalkApi) -> None:
    path = "/v1.0/card/instances/createAndDeliver"
    failed = {"success": False, "errorMsg": "spaceId is illegal"}
    good = {"success": True, "carrierId": "carrier"}
    server.answers[path] = [
        (200, {"success": True, "result": {"deliverResults": [failed]}}),
        (200, {"success": True, "result": {"deliverResults": [good]}}),
        (200, {"success": True, "result": {}}),
        (200, "<html>"),
    ]
    with pytest.raises(Gone, match="spaceId is illegal"):
        await api.create_card({})
    assert await api.create_card({}) == "carrier"
    for _ in range(2):
        with pytest.raises(Uncertain):
            await api.create_card({})


async def test_an_update_never_overwrites_other_variables(server: Server, api: DingTalkApi) -> None:
    await api.update_card("track", {"state": "answered"})
    _, body, _ = server.calls[-1]
    assert body["cardUpdateOptions"]["updateCardDataByKey"] is True
    assert body["cardData"] == {"cardParamMap": {"state": "answered"}}


async def test_nothing_listens_there(http: Http, clock: VirtualClock) -> None:
    api = DingTalkApi(settings("http://127.0.0.1:9"), http, clock)
    with pytest.raises(Transient):
        await api.update_card("t", {})


# ---------------------------------------------------------------- webhooks


REAL = {"base_url": "https://api.dingtalk.com", "oapi_base_url": "https://oapi.dingtalk.com"}


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://oapi.dingtalk.com/robot/sendBySession?session=a", True),
        ("https://api.dingtalk.com/x", True),
        ("https://OAPI.dingtalk.com/x", True),
        ("https://eu.oapi.dingtalk.com/x", True),
        ("http://oapi.dingtalk.com/x", False),
        ("https://oapi.dingtalk.com.evil.example/x", False),
        ("https://evil.example/oapi.dingtalk.com", False),
        ("https://oapi.dingtalk.com@evil.example/x", False),
        ("https://user:pw@oapi.dingtalk.com/x", False),
        ("https://evildingtalk.com/x", False),
        ("https://evil.example\\@oapi.dingtalk.com/", False),
        ("http://127.0.0.1:80/x", False),
        ("http://169.254.169.254/latest", False),
        ("file:///etc/passwd", False),
        ("//oapi.dingtalk.com/x", False),
        ("not a url", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_where_a_webhook_may_lead(url: str, allowed: bool, clock: VirtualClock) -> None:
    api = DingTalkApi(settings("", **REAL), Http(), clock)
    assert api.may_post(url) is allowed


def test_a_simulator_allows_itself_alone(clock: VirtualClock) -> None:
    api = DingTalkApi(settings("http://127.0.0.1:8123"), Http(), clock)
    assert api.may_post("http://127.0.0.1:8123/robot/sendBySession?session=a")
    assert not api.may_post("http://127.0.0.1:8124/robot")
    assert not api.may_post("https://oapi.dingtalk.com/robot")


async def test_a_foreign_webhook_is_never_called(server: Server, http: Http) -> None:
    api = DingTalkApi(settings("", **REAL), http, VirtualClock())
    with pytest.raises(Bug) as caught:
        await api.webhook(f"{server.url}/robot?session=canary-session", "p", "t", "x")
    assert server.calls == [] and "canary" not in str(caught.value)


@pytest.mark.parametrize("answer", [(200, {"errcode": 0, "errmsg": "ok"}), (200, {"errcode": "0"})])
async def test_a_webhook_says_so_by_errcode(
    server: Server, api: DingTalkApi, answer: tuple[int, Any]
) -> None:
    server.answers["/robot"] = [answer]
    await api.webhook(f"{server.url}/robot?session=s", "p", "t", "x")
    path, body, token = server.calls[-1]
    assert body == {"msgtype": "markdown", "markdown": {"title": "t", "text": "x"}}
    assert (path, token) == ("/robot", "") and "at" not in body


@pytest.mark.parametrize("answer", [(200, {}), (200, "ok"), (500, {"errcode": 0})])
async def test_a_webhook_without_errcode_proves_nothing(
    server: Server, api: DingTalkApi, answer: tuple[int, Any]
) -> None:
    server.answers["/robot"] = [answer]
    with pytest.raises(Uncertain):
        await api.webhook(f"{server.url}/robot?session=s", "p", "t", "x")


async def test_secrets_stay_out_of_errors_and_logs(
    server: Server, api: DingTalkApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = {"code": "brand.new", "message": f"{SECRET} canary-token-1"}
    server.answers["/v1.0/card/instances"] = [(400, echo)]
    with pytest.raises(Bug) as caught:
        await api.update_card("t", {})
    said = str(caught.value) + repr(caught.value.args) + caplog.text + repr(settings("x"))
    assert "canary" not in said and "***" in said
