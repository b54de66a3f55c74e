"""One origin for REST and discovery: who may call, how often, what a refusal looks like."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from adapters.playground.dates import dated
from adapters.playground.feishu import wire
from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.cards import Cards
from adapters.playground.feishu.gateway import Gateway
from adapters.playground.feishu.limits import GATEWAY, too_fast
from adapters.playground.feishu.marks import Marks
from adapters.playground.feishu.messages import Messages
from adapters.playground.feishu.tokens import Tokens
from adapters.playground.feishu.wire import Ask, Call, Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Operation = Callable[[Ask], Any]

BODY_LIMIT = 4 << 20
CALLS_KEPT = 50_000
"""Recorded calls at most: a demo may run for weeks."""

_MESSAGE = "/open-apis/im/v1/messages/{message_id}"
_CARD = "/open-apis/cardkit/v1/cards/{card_id}"
_CHAT = "/open-apis/im/v1/chats/{chat_id}"


class Rest:
    def __init__(
        self,
        backend: Backend,
        gateway: Gateway,
        tokens: Tokens,
        cards: Cards,
        messages: Messages,
        marks: Marks,
    ) -> None:
        self._b, self._gateway, self._tokens = backend, gateway, tokens
        self._cards, self._messages, self._marks = cards, messages, marks
        self._flying: dict[str, list[web.Request]] = defaultdict(list)
        self._connections: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._connected = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT)
        app.on_response_prepare.append(dated(self._b.clock))
        for method, path, route, operation in self._table():
            app.router.add_route(method, path, self._guarded(route, self._api(route, operation)))
        others: list[tuple[str, str, str, Handler]] = [
            ("POST", "/callback/ws/endpoint", wire.DISCOVER, self._gateway.discover),
            ("GET", "/ws/v2", wire.CONNECT, self._gateway.connect),
            (
                "POST",
                "/open-apis/auth/v3/tenant_access_token/internal",
                wire.TOKEN,
                self._token,
            ),
            ("GET", "/open-apis/bot/v3/info", wire.BOT_INFO, self._bot_info),
            ("*", "/{tail:.*}", wire.UNKNOWN, self._unknown),
        ]
        for method, path, route, handler in others:
            app.router.add_route(method, path, self._guarded(route, handler))
        return app

    def _table(self) -> list[tuple[str, str, str, Operation]]:
        cards, messages, marks = self._cards, self._messages, self._marks
        return [
            ("POST", "/open-apis/im/v1/messages", wire.SEND, messages.send),
            ("GET", "/open-apis/im/v1/messages", wire.LIST_MESSAGES, messages.history),
            ("POST", _MESSAGE + "/reply", wire.REPLY, messages.reply),
            ("PUT", _MESSAGE, wire.EDIT, messages.edit),
            ("PATCH", _MESSAGE, wire.PATCH, messages.patch),
            ("DELETE", _MESSAGE, wire.RECALL, messages.recall),
            ("GET", _MESSAGE, wire.GET_MESSAGE, messages.get),
            ("POST", _MESSAGE + "/reactions", wire.REACT, marks.react),
            ("GET", _MESSAGE + "/reactions", wire.LIST_REACTIONS, marks.reactions),
            ("DELETE", _MESSAGE + "/reactions/{reaction_id}", wire.UNREACT, marks.unreact),
            ("GET", _CHAT, wire.CHAT_INFO, marks.chat_info),
            ("GET", _CHAT + "/members", wire.MEMBERS, marks.members),
            ("POST", "/open-apis/cardkit/v1/cards", wire.CARD_CREATE, cards.create),
            ("POST", "/open-apis/cardkit/v1/cards/id_convert", wire.ID_CONVERT, cards.id_convert),
            ("PUT", _CARD + "/elements/{element_id}/content", wire.CARD_CONTENT, cards.content),
            ("PATCH", _CARD + "/settings", wire.CARD_SETTINGS, cards.settings),
            ("PUT", _CARD, wire.CARD_UPDATE, cards.update),
        ]

    # around every call --------------------------------------------------

    def _guarded(self, route: str, handler: Handler) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            call = await self._record(route, request)
            card = request.match_info.get("card_id", "")
            if route in wire.CARD_OPERATIONS:
                self._alone(card)
            self._flying[card].append(request)
            try:
                answer = await self._b.faults.around(
                    route, request, lambda: self._refusable(call, request, handler)
                )
            finally:
                self._flying[card].remove(request)
                if not self._flying[card]:
                    del self._flying[card]
            call.status = answer.status if _answerable(request) else 0
            return answer

        return serve

    def _alone(self, card: str) -> None:
        """Two operations on one card at the same time may arrive swapped (6.4); one whose
        caller has hung up no longer counts."""
        if any(_answerable(other) for other in self._flying[card]):
            self._b.blame(f"card {card}: two operations at the same time")

    async def _refusable(
        self, call: Call, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            if self._b.policy.latency and call.route not in (wire.CONNECT, wire.UNKNOWN):
                await self._b.clock.sleep(self._b.policy.latency)
            return await handler(request)
        except Refused as error:
            call.code = error.code
            if error.blame:
                self._b.blame(f"{call.route}: {error}")
            return error.answer()

    async def _record(self, route: str, request: web.Request) -> Call:
        raw = await request.read()
        try:
            body: Any = wire.as_object(raw) if raw else dict(request.query)
        except ValueError:
            body = raw.decode("utf-8", "replace")
        connection = self._connection(request)
        call = Call(route, self._b.clock.time(), body, connection, request.path)
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

    # the gateway's checks -------------------------------------------------

    def _api(self, route: str, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._may(route, request)
            raw = await request.read()
            ask = Ask(request.match_info, request.query, _body(request, raw), len(raw))
            data = operation(ask)
            return wire.success(await data if inspect.isawaitable(data) else data)

        return handle

    def _may(self, route: str, request: web.Request) -> None:
        """Token, then rate, then scope, then the month."""
        self._tokens.check(request.headers.get("Authorization", ""))
        if self._b.strict_limits:
            wait = self._b.windows.wait(f"api {route}", *GATEWAY)
            if wait:
                raise too_fast(route, GATEWAY[0 if wait <= 1 else 1], wait)
        self._scope(route)
        if self._b.policy.quota is not None:
            if self._b.policy.quota <= 0:
                raise Refused(99991403, "This month's API call quota has been exceeded")
            self._b.policy.quota -= 1

    def _scope(self, route: str) -> None:
        """Enough is one of the scopes that open the route; all missing is too few."""
        scopes = wire.SCOPES.get(route, ())
        if not scopes or set(scopes) - self._b.policy.missing_scopes:
            return
        words = ", ".join(scopes)
        url = f"https://open.feishu.cn/app/{self._b.app_id}/auth?q={','.join(scopes)}"
        raise Refused(
            99991672,
            f"Access denied. One of the following scopes is required: [{words}].",
            error={
                "permission_violations": [
                    {"type": "action_scope_required", "subject": scope} for scope in scopes
                ],
                "helps": [{"url": url, "description": "apply for the scopes"}],
            },
        )

    # calls with an answer of their own shape ------------------------------

    async def _token(self, request: web.Request) -> web.StreamResponse:
        try:
            body: Any = wire.as_object(await request.read())
        except ValueError:
            body = None
        return web.json_response(self._tokens.give(body), headers=_trace())

    async def _bot_info(self, request: web.Request) -> web.StreamResponse:
        self._may(wire.BOT_INFO, request)
        bot = {
            "activate_status": 2,
            "app_name": self._b.world.bot_name,
            "avatar_url": "",
            "ip_white_list": [],
            "open_id": self._b.world.bot_open_id,
        }
        return web.json_response({"code": 0, "msg": "ok", "bot": bot}, headers=_trace())

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        raise Refused(99991201, f"{request.method} {request.path}", status=404, blame=True)


def _trace() -> dict[str, str]:
    return {"X-Tt-Logid": wire.new_log_id()}


def _answerable(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _body(request: web.Request, raw: bytes) -> dict[str, Any]:
    if not raw and request.method in ("GET", "DELETE"):
        return {}
    if request.content_type != "application/json":
        raise wire.malformed("Content-Type", "is not application/json")
    try:
        return wire.as_object(raw)
    except ValueError:
        raise wire.malformed("body", "is not a JSON object") from None
