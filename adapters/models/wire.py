"""One POST to a model service: its socket, and the watchdogs over it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Iterator, Mapping
from typing import TypeVar

import aiohttp

from adapters.http import Http
from bot.contract import Clock
from bot.errors import Bug, Transient

T = TypeVar("T")

CONNECT = 5.0
"""Seconds for the connection itself."""

LOST = "lost"
"""The code of the error for a connection that broke (a clean end is none)."""

ERROR_BODY = 64 << 10
ERROR_WAIT = 10.0

_LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)


class Wire:
    """Opened once, read to its end or closed. `due` is the moment (monotonic seconds)
    at which waiting ends; it moves with `wait_at_most`, never past `ends`."""

    def __init__(self, http: Http, clock: Clock, ends: float) -> None:
        self._http, self._clock, self._ends = http, clock, ends
        self._due = ends
        self._response: aiohttp.ClientResponse | None = None

    def wait_at_most(self, seconds: float) -> None:
        """From now until the next data."""
        self._due = min(self._clock.monotonic() + seconds, self._ends)

    async def open(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """The response when its headers are in. Raises Transient (model.unreachable,
        model.silent), or Bug for an address that is none."""
        post = self._http.session.post(
            url,
            data=body,
            headers=headers,
            timeout=_LIMITS,
            allow_redirects=False,
        )
        with _translated("model.unreachable"):
            self._response = await self._watched(post)
        return self._response

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises Transient (model.cut, model.silent)."""
        assert self._response is not None
        with _translated("model.cut"):
            return await self._watched(self._response.content.readany())

    async def rest(self, seconds: float) -> None:
        """Let what comes within `seconds` gather in the socket, so that one read takes it
        all; no longer than half of what the watchdog leaves."""
        seconds = min(seconds, (self._due - self._clock.monotonic()) / 2)
        connection = None if self._response is None else self._response.connection
        if seconds <= 0 or connection is None or connection.transport is None:
            return
        transport = connection.transport
        transport.pause_reading()
        try:
            await self._clock.sleep(seconds)
        finally:
            if not transport.is_closing():
                transport.resume_reading()

    async def read_error(self) -> bytes:
        """What there is of a short body; never raises for the state of the socket."""
        self.wait_at_most(ERROR_WAIT)
        raw = b""
        with contextlib.suppress(Transient):
            while len(raw) < ERROR_BODY and (block := await self.read()):
                raw += block
        return raw

    async def drain(self, seconds: float) -> None:
        """Read on to the end, so that the connection can serve the next answer."""
        self.wait_at_most(seconds)
        with contextlib.suppress(Transient):
            while await self.read():
                pass

    def close(self) -> None:
        """Closes the socket at once unless the answer was read to its end."""
        if self._response is not None:
            self._response.close()

    async def _watched(self, step: Awaitable[T]) -> T:
        async with self._clock.timeout(max(0.0, self._due - self._clock.monotonic())):
            return await step


@contextlib.contextmanager
def _translated(note: str) -> Iterator[None]:
    """Socket errors become ours; their texts, which may quote headers, stay out."""
    try:
        yield
    except (ValueError, aiohttp.NonHttpUrlClientError) as error:
        kind = type(error).__name__
        raise Bug(f"address or key unusable: {kind}", note="model.bad_request") from None
    except aiohttp.ClientError as error:
        raise Transient(f"connection: {type(error).__name__}", note=note, code=LOST) from error
    except TimeoutError as error:
        raise Transient("no data in time", note="model.silent") from error
    except OSError as error:
        raise Transient(f"connection: {type(error).__name__}", note=note, code=LOST) from error
