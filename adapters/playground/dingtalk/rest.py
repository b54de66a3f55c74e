"""Both HTTP hosts on one port: who may call, how often, and what a refusal looks like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from adapters.playground.dates import dated
from adapters.playground.dingtalk import wire
from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.cards import Cards
from adapters.playground.dingtalk.limits import Windows
from adapters.playground.dingtalk.link import Gateway
from adapters.playground.dingtalk.robot import Robot
from adapters.playground.dingtalk.tokens import Tokens
from adapters.playground.dingtalk.webhook import Webhooks
from adapters.playground.dingtalk.wire import Call, OldRefused, Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Operation = Callable[[dict[str, Any]], dict[str, Any]]

QPS = 20
"""Calls a second, per app and API."""

BODY_LIMIT = 4 << 20

CALLS_KEPT = 50_000
"""Recorded calls at most: a demo may run for weeks."""


class Rest:
    def __init__(
        self,
        backend: Backend,
        gateway: Gateway,
        tokens: Tokens,
        cards: Cards,
        robot: Robot,
        webhooks: Webhooks,
    ) -> None:
        self._b, self._gateway, self._tokens = backend, gateway, tokens
        self._cards, self._robot, self._webhooks = cards, robot, webhooks
        self._windows = Windows(backend.clock)
        self._streaming: dict[str, list[web.Request]] = defaultdict(list)
        self._connections: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._connected = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT)
        app.on_response_prepare.append(dated(self._b.clock))
        for method, path, route, handler in self._table():
            app.router.add_route(method, path, self._guarded(route, handler))
        return app

    def _table(self) -> list[tuple[str, str, str, Handler]]:
        cards, robot = self._cards, self._robot
        apis: list[tuple[str, str, str, Operation]] = [
            ("POST", "/v1.0/robot/oToMessages/batchSend", wire.OTO_SEND, robot.oto_send),
            ("POST", "/v1.0/robot/groupMessages/send", wire.GROUP_SEND, robot.group_send),
            ("POST", "/v1.0/robot/otoMessages/batchRecall", wire.OTO_RECALL, robot.oto_recall),
            ("POST", "/v1.0/robot/groupMessages/recall", wire.GROUP_RECALL, robot.group_recall),
            ("POST", "/v1.0/robot/emotion/reply", wire.EMOTION_REPLY, robot.react),
            ("POST", "/v1.0/robot/emotion/recall", wire.EMOTION_RECALL, robot.unreact),
            ("POST", "/v1.0/robot/messageFiles/download", wire.DOWNLOAD, robot.download),
            ("POST", "/v1.0/card/instances", wire.CARD_CREATE, cards.create),
            ("POST", "/v1.0/card/instances/deliver", wire.CARD_DELIVER, cards.deliver),
            (
                "POST",
                "/v1.0/card/instances/createAndDeliver",
                wire.CARD_CREATE_DELIVER,
                cards.create_and_deliver,
            ),
            ("PUT", "/v1.0/card/instances", wire.CARD_UPDATE, cards.update),
            ("PUT", "/v1.0/card/streaming", wire.CARD_STREAM, cards.stream),
        ]
        return [(m, path, route, self._api(route, op)) for m, path, route, op in apis] + [
            ("POST", "/v1.0/gateway/connections/open", wire.OPEN, self._gateway.open),
            ("GET", "/connect", wire.CONNECT, self._gateway.connect),
            ("POST", "/v1.0/oauth2/accessToken", wire.TOKEN, self._token),
            ("GET", "/gettoken", wire.GETTOKEN, self._gettoken),
            ("POST", "/robot/sendBySession", wire.WEBHOOK, self._webhooks.post),
            ("POST", "/topapi/v2/user/get", wire.USER, self._user),
            ("GET", "/files/{name}", wire.FILE, self._file),
        ]

    # around every call --------------------------------------------------

    def _guarded(self, route: str, handler: Handler) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            call = await self._record(route, request)
            if route == wire.CARD_STREAM:
                answer = await self._single_flight(call, request, handler)
            else:
                answer = await self._faulty(call, request, handler)
            call.status = answer.status if _answerable(request) else 0
            return answer

        return serve

    async def _faulty(
        self, call: Call, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await self._b.faults.around(
            call.route, request, lambda: self._refusable(call, request, handler)
        )

    async def _refusable(
        self, call: Call, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as error:
            call.code = error.code
            return error.answer()
        except OldRefused as error:
            call.code = str(error.errcode)
            return error.answer()

    async def _single_flight(
        self, call: Call, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Two frames of one card at the same time are refused (reference 6.4); a frame
        whose caller has hung up no longer counts."""
        track = str(call.body.get("outTrackId")) if isinstance(call.body, dict) else ""
        flying = [other for other in self._streaming[track] if _answerable(other)]
        if flying and self._b.strict_limits:
            self._b.blame(f"streaming: two frames of {track} at the same time")
            call.code = wire.QPS_CODE
            return Refused(403, wire.QPS_CODE, "单张卡片更新过快").answer()
        self._streaming[track] = [*flying, request]
        try:
            return await self._faulty(call, request, handler)
        finally:
            others = [other for other in self._streaming[track] if other is not request]
            self._streaming[track] = others

    async def _record(self, route: str, request: web.Request) -> Call:
        raw = await request.read()
        try:
            body: Any = wire.as_object(raw) if raw else dict(request.query)
        except ValueError:
            body = raw.decode("utf-8", "replace")
        call = Call(route, self._b.clock.time(), body, self._connection(request))
        self._b.calls.append(call)
        if len(self._b.calls) > CALLS_KEPT:
            del self._b.calls[: CALLS_KEPT // 2]
        self._b.world.changed.set()
        return call

    def _connection(self, request: web.Request) -> str:
        if request.transport is None:
            return ""
        if request.transport not in self._connections:
            self._connected += 1
            self._connections[request.transport] = f"tcp-{self._connected}"
        return self._connections[request.transport]

    # api.dingtalk.com -----------------------------------------------------

    def _api(self, route: str, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._tokens.check(request.headers.get("x-acs-dingtalk-access-token", ""))
            self._may(route)
            body = await _body(request)
            return web.json_response(operation(body))

        return handle

    def _may(self, route: str) -> None:
        """Rate, then permission, then the month; a call refused by the rate costs nothing."""
        if self._b.strict_limits and not self._windows.take(route, QPS, 1.0):
            self._b.blame(f"{route}: more than {QPS} calls a second")
            raise Refused(403, wire.QPS_CODE, "触发了QPS限流")
        scope = wire.SCOPES.get(route, "")
        if scope in self._b.policy.missing_scopes:
            raise Refused(
                403,
                wire.PERMISSION_CODE,
                "应用尚未开通所需的权限",
                accessdenieddetail={"requiredScopes": [scope]},
            )
        if route not in wire.FREE and not self._b.quota.take_api(route):
            raise Refused(403, wire.COUNT_CODE, "本月调用量已用完")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._tokens.new_style(await _body(request)))

    # oapi.dingtalk.com ------------------------------------------------------

    async def _gettoken(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._tokens.old_style(dict(request.query)))

    async def _user(self, request: web.Request) -> web.StreamResponse:
        self._tokens.check_old(request.query.get("access_token", ""))
        if wire.SCOPES[wire.USER] in self._b.policy.missing_scopes:
            raise OldRefused(60011, "没有调用该接口的权限")
        return web.json_response(self._robot.user(await _body(request)))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = self._b.world.files.get(request.match_info["name"].removesuffix(".file"))
        if file is None or file.until < self._b.clock.time():
            return web.Response(status=403, text="<Error>AccessDenied</Error>")
        return web.Response(body=file.data, content_type="application/octet-stream")


def _answerable(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        return wire.as_object(await request.read())
    except ValueError:
        raise Refused(400, "InvalidParameter", "body is not a JSON object") from None
