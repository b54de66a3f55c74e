"""Access tokens: one until it expires, whatever door asked (reference/dingtalk.md 5.1)."""

from __future__ import annotations

import uuid
from typing import Any

from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.wire import OldRefused, Refused


class Tokens:
    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self._token, self._until = "", 0.0

    def revoke(self) -> None:
        """The present token is worth nothing any more; the next request makes another."""
        self._token = ""

    def new_style(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1.0/oauth2/accessToken."""
        if not self._right(body.get("appKey"), body.get("appSecret")):
            raise Refused(400, "invalidClientIdOrSecret", "无效的clientId或者clientSecret")
        token, left = self._give()
        return {"accessToken": token, "expireIn": left}

    def old_style(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /gettoken (error number unsure)."""
        if not self._right(query.get("appkey"), query.get("appsecret")):
            raise OldRefused(40089, "不合法的appkey或appsecret")
        token, left = self._give()
        return {"errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": left}

    def check(self, token: str) -> None:
        """For api.dingtalk.com. Raises Refused InvalidAuthentication."""
        if not self._valid(token):
            raise Refused(
                self._b.policy.auth_status, "InvalidAuthentication", "不合法的access_token"
            )

    def check_old(self, token: str) -> None:
        """For oapi.dingtalk.com. Raises OldRefused 40014."""
        if not self._valid(token):
            raise OldRefused(40014, "不合法的access_token")

    def _right(self, key: Any, secret: Any) -> bool:
        return bool((key, secret) == (self._b.client_id, self._b.client_secret))

    def _valid(self, token: str) -> bool:
        return bool(token) and token == self._token and self._b.clock.time() < self._until

    def _give(self) -> tuple[str, int]:
        now = self._b.clock.time()
        if not self._token or now >= self._until:
            self._token = uuid.uuid4().hex
            self._until = now + self._b.policy.token_seconds
        return self._token, int(self._until - now)
