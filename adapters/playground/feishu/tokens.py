"""Tenant tokens (reference/feishu.md 5.1)."""

from __future__ import annotations

from typing import Any

from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.wire import Refused

RENEWABLE = 1800.0
"""Seconds before its end from which a request makes a new token; both are valid then."""


class Tokens:
    def __init__(self, backend: Backend) -> None:
        self._b = backend
        self._ends: dict[str, float] = {}

    def revoke(self) -> None:
        """Every token is worth nothing any more."""
        self._ends.clear()

    def give(self, body: Any) -> dict[str, Any]:
        """The answer, at top level; refusals come with HTTP 200."""
        app_id, secret = (
            (body.get("app_id"), body.get("app_secret")) if isinstance(body, dict) else ("", "")
        )
        if not all(isinstance(word, str) and word for word in (app_id, secret)):
            raise Refused(10003, "invalid param", status=200, blame=True)
        if app_id != self._b.app_id:
            raise Refused(10014, "app id not exists", status=200)
        if secret != self._b.app_secret:
            raise Refused(10015, "app secret invalid", status=200)
        token, left = self._current()
        return {"code": 0, "msg": "ok", "tenant_access_token": token, "expire": left}

    def _current(self) -> tuple[str, int]:
        now = self._b.clock.time()
        for token, end in self._ends.items():
            if end - now > RENEWABLE:
                return token, int(end - now)
        token = "t-" + self._b.world.fresh("g1")
        self._ends[token] = now + self._b.policy.token_seconds
        return token, int(self._b.policy.token_seconds)

    def check(self, header: str) -> None:
        """Raises Refused for what is not a living token."""
        scheme, _, token = header.partition(" ")
        if scheme != "Bearer" or not token:
            raise Refused(99991661, "Missing access token for authorization.", blame=True)
        if not token.startswith("t-"):
            raise Refused(99991671, "Invalid access token for authorization.", blame=True)
        if self._ends.get(token, 0.0) <= self._b.clock.time():
            status = self._b.policy.stale_status
            raise Refused(99991663, "Invalid access token for authorization.", status=status)
