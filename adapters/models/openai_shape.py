"""DeepSeek, and every service that speaks OpenAI's chat completions, as one ChatModel.

Source: reference/models.md 1.3-1.8 and 3; what differs between services is in profiles.py.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from adapters.http import Http
from adapters.models.answer import AnswerBuilder
from adapters.models.body import WireRequest, wire_request
from adapters.models.crowd import Crowd
from adapters.models.profiles import profile_of
from adapters.models.reader import BodyReader
from adapters.models.refusals import read_refusal, translate
from adapters.models.wire import LOST, Wire
from bot.contract import Clock, Delta, ModelRequest
from bot.errors import BorderError, Bug, RateLimited, Transient

log = logging.getLogger(__name__)

TRIES = 3
PATIENCE = 30.0
"""Seconds after the first try within which a further one may begin."""

TRAILER = 5.0
"""Seconds to wait for usage and end mark once the finish reason is in."""

DRAIN = 0.25
"""Seconds to wait for the end of a body whose end mark is in."""

_REPEATED = ("model.busy", "model.broken", "model.overloaded", "model.unreachable")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Durations in seconds. `first_data`: until the first data; signs of life while the
    request is queued do not count. `silence`: between data. `whole`: for everything,
    tries and waits included. `max_tokens`: when a request names none; thinking comes
    on top."""

    api_key: str = field(repr=False)
    base_url: str = "https://api.deepseek.com"
    model: str = "deepseek-flash"
    max_tokens: int = 8192
    first_data: float = 600.0
    silence: float = 120.0
    whole: float = 1800.0


class OpenAIModel:
    """A bot.contract.ChatModel. The pool belongs to who made it."""

    def __init__(self, settings: ModelSettings, http: Http, clock: Clock) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._flipped: set[str] = set()
        self._crowd = Crowd()

    def continues_prefix(self, model: str = "") -> bool:
        """Whether a request with `prefix` can be answered; one that cannot raises Bug."""
        return profile_of(self._settings.base_url, model or self._settings.model).prefix

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        """Deltas until FinishDelta; a UsageDelta stands before it when the service told
        the usage. Tried again, at most TRIES times within PATIENCE, as long as nothing
        was said. The question is written down at once, and sent when the first delta is
        asked for. Closing the generator closes the socket at once.

        Raises AuthError, QuotaExhausted, RateLimited, TooBig, RefusedContent, Bug, and
        Transient for all else, each with a `model.*` note (a refused content keeps its
        own). The usage of a failed answer, when it was told, comes before the error.
        """
        return self._tried(request, self._written(request))

    async def _tried(
        self, request: ModelRequest, wanted: WireRequest
    ) -> AsyncGenerator[Delta, None]:
        started = self._clock.monotonic()
        for tries in range(1, TRIES + 1):
            attempt = self._attempt(request, wanted, started)
            try:
                async with aclosing(attempt.deltas()) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except BorderError as error:
                wait = self._wait(error, attempt, tries, started)
                failure = error
            if wait is None:
                for delta in attempt.answer.usage():
                    yield delta
                raise failure
            log.info("model: try %d failed (%s); again in %.1f s", tries, failure.cause, wait)
            await self._clock.sleep(wait)
            wanted = self._written(request)

    async def close(self) -> None:
        """Nothing is held between answers."""

    def _written(self, request: ModelRequest) -> WireRequest:
        settings = self._settings
        flipped = (request.model or settings.model) in self._flipped
        return wire_request(
            request, settings.base_url, settings.model, settings.max_tokens, flipped=flipped
        )

    def _attempt(self, request: ModelRequest, wanted: WireRequest, started: float) -> _Attempt:
        socket = Wire(self._http, self._clock, started + self._settings.whole)
        now = self._clock.time()
        return _Attempt(self._settings, wanted, socket, now, request, self._crowd)

    def _wait(
        self, error: BorderError, attempt: _Attempt, tries: int, started: float
    ) -> float | None:
        """Seconds until the next try, or None when there is none."""
        if attempt.answer.said or tries >= TRIES:
            return None
        if self._flips(error, attempt):
            return 0.0
        if not _passing(error, tries):
            return None
        wait = max(attempt.retry_after, _backoff(error, tries))
        spent = self._clock.monotonic() - started
        return wait if spent + wait <= PATIENCE else None

    def _flips(self, error: BorderError, attempt: _Attempt) -> bool:
        """A service may change its mind on earlier thinking being sent back; a 400 that
        names it turns our rule round for this model (reference/models.md 1.4). What was
        written down by the old rule meanwhile is asked anew, too."""
        if not isinstance(error, Bug) or "reasoning_content" not in error.cause:
            return False
        self._flipped.add(attempt.request.model or self._settings.model)
        return not attempt.wanted.flipped


def _backoff(error: BorderError, tries: int) -> float:
    """Seconds. A connection of the pool that the server had closed is replaced fast."""
    first = 0.2 if error.code == LOST and tries == 1 else 2.0 ** (tries - 1)
    return first * random.uniform(0.5, 1.0)


def _passing(error: BorderError, tries: int) -> bool:
    """Whether the fault may be gone at the next try; an empty answer gets one."""
    if isinstance(error, RateLimited):
        return True
    if not isinstance(error, Transient):
        return False
    if error.note == "model.empty":
        return tries == 1
    return error.note in _REPEATED or error.code == LOST


class _Attempt:
    """One request and what came of it. `retry_after`: what a refusal asked for."""

    def __init__(
        self,
        settings: ModelSettings,
        wanted: WireRequest,
        wire: Wire,
        now: float,
        request: ModelRequest,
        crowd: Crowd,
    ) -> None:
        self.request, self.wanted = request, wanted
        self.retry_after = 0.0
        self.answer = AnswerBuilder(settings.api_key)
        self._settings, self._wire, self._now = settings, wire, now
        self._crowd = crowd
        self._reader = BodyReader()
        self._failure: BorderError | None = None
        self._over = False

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """What is said, as it comes; the error, if there is one, after all of it."""
        self._crowd.live += 1
        try:
            await self._open()
            while (found := await self._more()) is not None:
                for delta in found:
                    yield delta
            ending = self.answer.ending(may_be_empty=self.request.prefix)
            for delta in [*self.answer.usage(), ending]:
                yield delta
        finally:
            self._crowd.live -= 1
            self._wire.close()

    async def _open(self) -> None:
        self._wire.wait_at_most(self._settings.first_data)
        response = await self._wire.open(self.wanted.url, self.wanted.raw, self._headers())
        if not 200 <= response.status < 300:
            raise await self._refused(response.status, dict(response.headers))

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if self.request.stream else "application/json",
        }
        if key := self._settings.api_key.strip():
            headers["Authorization"] = f"Bearer {key}"
        return headers

    async def _refused(self, status: int, headers: dict[str, str]) -> BorderError:
        raw = await self._wire.read_error()
        if not 400 <= status < 600:
            return Bug(f"HTTP {status}: is base_url right?", note="model.bad_request")
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            value = None
        refusal = read_refusal(status, value, headers, self._now)
        self.retry_after = refusal.retry_after
        return translate(refusal, self._settings.api_key)

    async def _more(self) -> list[Delta] | None:
        """What the next bytes say; None when the answer is over."""
        if self._failure is not None:
            raise self._failure
        if self._over or self._reader.done:
            await self._close_well()
            return None
        block = await self._read()
        self._over = not block
        values = self._reader.feed(block) if block else self._reader.end()
        self._next_wait(bool(values))
        return self._take(values)

    def _take(self, values: list[dict[str, Any]]) -> list[Delta]:
        """An error among the values waits until what came before it is given out."""
        try:
            for value in values:
                self.answer.take(value)
        except BorderError as error:
            self._failure = error
        return self.answer.deltas()

    async def _close_well(self) -> None:
        if not self._reader.begun:
            raise self._nothing()
        if not self._over:
            await self._wire.drain(DRAIN)

    async def _read(self) -> bytes:
        """The next bytes; what happens to the socket after the finish is no loss."""
        if self.answer.said and not self.answer.finish:
            await self._wire.rest(self._crowd.rest)
        try:
            return await self._wire.read()
        except Transient:
            if self.answer.finish:
                return b""
            raise

    def _next_wait(self, heard: bool) -> None:
        """Only data move the watchdog on. A whole JSON text counts from its first byte."""
        if self.answer.finish:
            if heard:
                self._wire.wait_at_most(TRAILER)
        elif heard or self._reader.is_text:
            self._wire.wait_at_most(self._settings.silence)

    def _nothing(self) -> Transient:
        """A body without an answer. After signs of life it is the queue's end (the
        service gives up after ten minutes, reference/models.md 1.8)."""
        if self._reader.alive:
            return Transient("closed while queued", note="model.overloaded")
        return Transient("an answer without a body", note="model.empty")
