"""One pooled HTTP session per process, and the border where socket errors become ours."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from bot.errors import Transient, Uncertain

BODY_LIMIT = 8 << 20
"""Bytes read of one answer at most; a longer body is an error, never memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. `body` is the parsed JSON, or None when it was not JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str


class Http:
    """The pool. Keep-alive, no proxies from the environment, every call bounded."""

    def __init__(self, *, connections: int = 512) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, made at the first use because it needs a running loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections, keepalive_timeout=75, family=socket.AF_UNSPEC
            )
            self._session = aiohttp.ClientSession(
                connector=connector, json_serialize=lambda value: orjson.dumps(value).decode()
            )
        return self._session

    async def call(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> Answer:
        """One request, `timeout` seconds in all, 5 of them for the connection.

        Raises Transient when the request certainly never left, Uncertain when its fate
        is unknown. Any HTTP status is an Answer.
        """
        limits = aiohttp.ClientTimeout(total=timeout, connect=min(5.0, timeout))
        try:
            async with self.session.request(
                method,
                url,
                json=json,
                headers=headers,
                params=params,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                raw = await _read_bounded(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Transient(f"cannot connect: {type(error).__name__}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Uncertain(f"answer lost: {type(error).__name__}") from error
        return Answer(
            response.status, response.headers, _parse(raw), raw[:2000].decode("utf-8", "replace")
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for block in response.content.iter_any():
        raw += block
        if len(raw) > BODY_LIMIT:
            raise aiohttp.ClientPayloadError("body over the limit")
    return bytes(raw)


def _parse(raw: bytes) -> Any:
    """JSON by content, never by header: services mislabel both ways."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
