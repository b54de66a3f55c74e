"""The session webhook: status 200 whatever happens (reference/dingtalk.md 5.2)."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.limits import Throttle
from adapters.playground.dingtalk.pings import live_links, webhook_pings
from adapters.playground.dingtalk.wire import OldRefused, as_object
from adapters.playground.view import Block

BODY_LIMIT = 20_000


class Webhooks:
    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self._sessions: dict[str, tuple[str, float]] = {}
        self._throttle = Throttle(backend.clock)

    def open(self, chat: str) -> tuple[str, int]:
        """A new session of `chat`: its URL and the end of its life in milliseconds."""
        session = uuid.uuid4().hex
        until = self._b.clock.time() + self._b.policy.webhook_seconds
        self._sessions[session] = (chat, until)
        return f"{self._b.base_url}/robot/sendBySession?session={session}", int(until * 1000)

    async def post(self, request: web.Request) -> web.Response:
        raw = await request.read()
        chat, until = self._sessions.get(request.query.get("session", ""), ("", 0.0))
        if until < self._b.clock.time():
            raise OldRefused(300001, "session 不存在")
        if request.content_type != "application/json":
            raise OldRefused(43004, "无效的HTTP HEADER Content-Type")
        if len(raw) > BODY_LIMIT:
            raise OldRefused(460101, "message too long, exceed 20000 bytes")
        try:
            body = as_object(raw)
        except ValueError:
            raise OldRefused(40035, "不合法的参数") from None
        if self._b.world.chats[chat].disbanded:
            raise OldRefused(400013, "群已被解散")
        self._send(chat, body)
        return web.json_response({"errcode": 0, "errmsg": "ok"})

    def _send(self, chat: str, body: dict[str, Any]) -> None:
        block = _block(body)
        if block is not None and self._b.policy.unsafe(block.text + block.title):
            raise OldRefused(430104, "消息内容不合规")
        if self._b.strict_limits and not self._throttle.take(chat):
            self._b.blame("webhook: more than 20 messages a minute in one chat")
            raise OldRefused(130101, "send too fast, exceed 20 times per minute")
        if not self._b.quota.take_hook():
            raise OldRefused(90030, "webhook over limit")
        if block is None:
            return
        pings = webhook_pings(body.get("at"), block.text) + live_links(block.text)
        self._b.world.put("hook-" + uuid.uuid4().hex, chat, None, [block], pings=pings)


def _block(body: dict[str, Any]) -> Block | None:
    """What is seen; None for `empty`. Raises OldRefused."""
    kind = body.get("msgtype")
    if kind == "empty":
        return None
    inner = body.get(str(kind))
    if kind not in ("text", "markdown", "actionCard", "link") or not isinstance(inner, dict):
        raise OldRefused(400105, "不支持的消息类型")
    if kind == "text":
        return Block("markdown", _filled(inner, "content"))
    title = _filled(inner, "title")
    links = [inner.get("singleURL", "")] + [b.get("actionURL", "") for b in inner.get("btns", [])]
    text = "\n".join([_filled(inner, "text"), *filter(None, links)])
    return Block("markdown", text, title=title)


def _filled(inner: dict[str, Any], key: str) -> str:
    value = inner.get(key)
    if not isinstance(value, str) or not value:
        raise OldRefused(40035, f"缺少参数 {key}")
    return value
