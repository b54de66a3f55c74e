"""One pooled HTTP session per process, and the border where socket errors become ours."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from bot.contract import Clock
from bot.errors import Bug, Transient, Uncertain

BODY_LIMIT = 8 << 20
"""Bytes read of one answer at most; a longer body is an error, never memory."""

HOSTS = 256
"""Servers whose time is remembered at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. `body` is the parsed JSON, or None when it was not JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str


class Http:
    """The pool. Keep-alive, no cookies, no proxies from the environment, every call bounded,
    at most `connections` to one host, so that a model's streams never take a platform's.
    Keeps the time of every server it talked to; `clock` moves that on, the machine's own
    without."""

    def __init__(self, *, connections: int = 512, clock: Clock | None = None) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._monotonic = clock.monotonic if clock is not None else time.monotonic
        self._ahead: dict[str, float] = {}

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, made at the first use because it needs a running loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,
                limit_per_host=self._connections,
                keepalive_timeout=75,
                family=socket.AF_UNSPEC,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                json_serialize=lambda value: orjson.dumps(value).decode(),
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
        """One request, `timeout` seconds in all, of which the connection may take 5 and
        at most four fifths: so that its timeout comes first and says that nothing left.

        Raises Transient when the request certainly never left, Uncertain when its fate
        is unknown, Bug when it cannot be written at all. Any HTTP status is an Answer.
        """
        limits = aiohttp.ClientTimeout(total=timeout, connect=min(5.0, 0.8 * timeout))
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
                self._note_time(url, response.headers.get("Date", ""))
                raw = await _read_bounded(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Transient(f"cannot connect: {type(error).__name__}") from error
        except (aiohttp.NonHttpUrlClientError, TypeError, ValueError) as error:
            raise Bug(f"request cannot be written: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Uncertain(f"answer lost: {type(error).__name__}") from error
        return Answer(
            response.status, response.headers, _parse(raw), raw[:2000].decode("utf-8", "replace")
        )

    # ------------------------------------------------------------ the servers' time

    def now(self, url: str) -> float | None:
        """Seconds since the epoch by the server of `url`: its last Date header, moved on by
        a monotonic clock (design.md 5); None before its first answer. Behind by up to a
        second and the way back, because a Date has whole seconds, never ahead."""
        ahead = self._ahead.get(urlsplit(url).netloc)
        return None if ahead is None else self._monotonic() + ahead

    def age(self, url: str, moment: float) -> float:
        """How many seconds ago `moment` was for the server of `url`; 0 when that cannot be
        told, because its time or the moment (0) is not known."""
        now = self.now(url)
        return max(0.0, now - moment) if now is not None and moment else 0.0

    def _note_time(self, url: str, date: str) -> None:
        """Keep how far a server is ahead of the monotonic clock."""
        try:
            seconds = parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError):
            return
        host = urlsplit(url).netloc
        if len(self._ahead) >= HOSTS and host not in self._ahead:
            del self._ahead[next(iter(self._ahead))]
        self._ahead[host] = seconds - self._monotonic()

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
