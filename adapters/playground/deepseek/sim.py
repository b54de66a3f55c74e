"""DeepSeekSim: DeepSeek's chat API on loopback (reference/models.md 1 and 8.1)."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any, Self

from aiohttp import web

from adapters.playground.deepseek import voice
from adapters.playground.deepseek.answer import Match, Said, Script, Shape, Speaker, Trouble
from adapters.playground.deepseek.asked import LIVE, Asked, read_request
from adapters.playground.deepseek.plan import Plan, plan
from adapters.playground.deepseek.refused import (
    WINDOW,
    Refused,
    bad_shape,
    on_order,
    too_long,
    wrong_key,
)
from adapters.playground.deepseek.tokens import Cache
from adapters.playground.deepseek.wire import Frames, Pipe, usage_of
from adapters.playground.faults import Faults
from bot.contract import Clock

BODY_LIMIT = 48 << 20

KEPT = 5_000
"""Most requests that are remembered."""


class DeepSeekSim:
    """One account with one key on an ephemeral port of 127.0.0.1.

    What is said comes from the first script that fits, else from the speaker (at first
    the stand-in of `voice`). `order` makes the next requests go wrong, `standing` all
    others, `shape` changes the bytes of all of them, `slowness` multiplies every pause,
    `concurrency` is the most requests at once. `faults` holds HTTP faults for the routes
    chat, models and balance. `requests` are the accepted ones, `refusals` what was answered
    to the others.
    """

    def __init__(
        self, clock: Clock, *, api_key: str = "sk-playground", seed: int = 0, cache_delay: float = 0
    ) -> None:
        self.api_key = api_key
        self.faults = Faults(clock)
        self.shape = Shape()
        self.slowness = 1.0
        self.standing: Trouble | None = None
        self.concurrency: int | None = None
        self.requests: list[Asked] = []
        self.refusals: list[Refused] = []
        self.open_streams = 0
        """How many accepted requests are being answered now."""
        self.finished = 0
        """How many answers were given to their end."""
        self.cancelled = 0
        """How many answers the client gave up by closing its socket."""
        self._clock = clock
        self._rng = random.Random(seed)
        self._cache = Cache(clock, cache_delay)
        self._scripts: list[Script] = []
        self._speaker: Speaker = voice.answer
        self._troubles: deque[Trouble] = deque()
        self._runner: web.AppRunner | None = None
        self._base_url = ""
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    # life ---------------------------------------------------------------

    async def start(self) -> None:
        app = web.Application(client_max_size=BODY_LIMIT)
        for root in ("", "/v1", "/beta"):
            app.router.add_post(f"{root}/chat/completions", self._around_chat)
        for root in ("", "/v1"):
            app.router.add_get(f"{root}/models", self._around_models)
        app.router.add_get("/user/balance", self._around_balance)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        self._closing = True
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def base_url(self) -> str:
        """In the place of https://api.deepseek.com."""
        return self._base_url

    # what is said ---------------------------------------------------------

    def script(
        self,
        match: Match,
        chunks: str | Sequence[str],
        pace: float = 0.0,
        *,
        reasoning: str | Sequence[str] = (),
        first: float = 0.0,
        finish: str = "stop",
        times: int | None = None,
    ) -> None:
        """Say `chunks` (a string is one chunk) when `match` fits: a part of the last
        question, or a test of the request. Later scripts go before earlier ones."""
        said = Said(_listed(chunks), _listed(reasoning), pace, first, finish)
        self._scripts.insert(0, Script(match, said, times))

    def answer_with(self, speaker: Speaker) -> None:
        """Who speaks where no script fits; it may be a coroutine function."""
        self._speaker = speaker

    def order(self, trouble: Trouble, times: int = 1) -> None:
        """The next `times` chat requests meet `trouble`."""
        self._troubles.extend([trouble] * times)

    @property
    def ordered(self) -> tuple[Trouble, ...]:
        """What the next requests will meet, in order."""
        return tuple(self._troubles)

    def clear_orders(self) -> None:
        self._troubles.clear()
        self.faults.clear()

    async def idle(self) -> None:
        """Returns when no request is being answered."""
        await self._idle.wait()

    async def _said(self, asked: Asked) -> Said:
        for script in self._scripts:
            if script.fits(asked):
                return script.take()
        said = self._speaker(asked)
        return await said if inspect.isawaitable(said) else said

    # routes ---------------------------------------------------------------

    async def _around_chat(self, request: web.Request) -> web.StreamResponse:
        return await self.faults.around("chat", request, lambda: self._chat(request))

    async def _around_models(self, request: web.Request) -> web.StreamResponse:
        return await self.faults.around("models", request, lambda: self._models(request))

    async def _around_balance(self, request: web.Request) -> web.StreamResponse:
        return await self.faults.around("balance", request, lambda: self._balance(request))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        refusal = self._unknown(request)
        if refusal is not None:
            return self._refuse(refusal)
        models = [{"id": name, "object": "model", "owned_by": "deepseek"} for name in LIVE]
        return web.json_response({"object": "list", "data": models})

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        refusal = self._unknown(request)
        if refusal is not None:
            return self._refuse(refusal)
        money = {"currency": "CNY", "total_balance": "2.30"}
        money |= {"granted_balance": "0.00", "topped_up_balance": "2.30"}
        return web.json_response({"is_available": True, "balance_infos": [money]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        trouble = self._troubles.popleft() if self._troubles else self.standing
        try:
            asked = await self._read(request)
        except Refused as refusal:
            return self._refuse(refusal)
        self.requests.append(asked)
        del self.requests[:-KEPT]
        if trouble is not None and trouble.kind in ("refuse", "html", "drop"):
            return self._no_answer(request, trouble)
        self.open_streams += 1
        self._idle.clear()
        try:
            return await self._answer(request, asked, trouble)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 0 if self._closing else 1
            raise
        finally:
            self.open_streams -= 1
            if not self.open_streams:
                self._idle.set()

    async def _read(self, request: web.Request) -> Asked:
        refusal = self._unknown(request)
        if refusal is not None:
            raise refusal
        try:
            body = json.loads(await request.read())
        except web.HTTPRequestEntityTooLarge:
            raise Refused(413, "Request body too large") from None
        except (ValueError, RecursionError) as error:
            raise bad_shape(str(error)) from None
        if self.concurrency is not None and self.open_streams >= self.concurrency:
            raise on_order(429)
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers.pop("authorization")
        return read_request(body, headers, beta=request.path.startswith("/beta"))

    def _unknown(self, request: web.Request) -> Refused | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and key == self.api_key
        return None if known else wrong_key(key, self._uuid())

    def _refuse(self, refusal: Refused, headers: dict[str, str] | None = None) -> web.Response:
        self.refusals.append(refusal)
        kind = "application/octet-stream" if self.shape.octet else "application/json"
        return web.Response(
            status=refusal.status,
            body=json.dumps(refusal.body(), ensure_ascii=False).encode(),
            content_type=kind,
            headers={"x-ds-trace-id": self._uuid()} | (headers or {}),
        )

    def _no_answer(self, request: web.Request, trouble: Trouble) -> web.StreamResponse:
        if trouble.kind == "html":
            page = "<html><body><h1>502 Bad Gateway</h1></body></html>"
            return web.Response(status=502, text=page, content_type="text/html")
        if trouble.kind == "drop":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        wait = trouble.retry_after
        return self._refuse(
            on_order(trouble.status), None if wait is None else {"Retry-After": f"{wait:g}"}
        )

    # answering --------------------------------------------------------------

    async def _answer(
        self, request: web.Request, asked: Asked, trouble: Trouble | None
    ) -> web.StreamResponse:
        prompt, hit = self._cache.prompt(asked.user_id, asked.messages, asked.thinking)
        if prompt + int(asked.body.get("max_tokens") or 0) > WINDOW:
            return self._refuse(too_long(prompt, asked.max_tokens))
        said = await self._said(asked)
        answer = plan(asked, said, trouble)
        usage = usage_of(answer, prompt, hit, thinking=asked.thinking)
        frames = Frames(asked, self._uuid(), int(self._clock.time()))
        pipe = Pipe(request, self.shape, self._uuid(), sse=asked.stream)
        await pipe.open()
        if trouble is not None and trouble.kind == "queue":
            await pipe.wait(self._clock, trouble.seconds)
        await pipe.wait(self._clock, said.first * self.slowness)
        if asked.stream:
            await self._stream(pipe, frames, answer, said.pace * self.slowness)
        else:
            await pipe.wait(self._clock, said.pace * self.slowness * len(answer.parts))
        await self._end(pipe, frames, answer, usage, asked, trouble)
        return pipe.response

    async def _stream(self, pipe: Pipe, frames: Frames, answer: Plan, pace: float) -> None:
        await pipe.event(frames.first())
        for number, (channel, piece) in enumerate(answer.parts):
            if pace:
                await self._clock.sleep(pace)
            if number == answer.garbage:
                await pipe.line('data: {"choices":[{"index":0,"delta":{"content":')
            await pipe.event(frames.piece(channel, piece))

    async def _end(
        self,
        pipe: Pipe,
        frames: Frames,
        answer: Plan,
        usage: dict[str, Any],
        asked: Asked,
        trouble: Trouble | None,
    ) -> None:
        if answer.ending != "finish":
            await self._end_badly(pipe, answer, trouble)
        elif not asked.stream:
            whole = json.dumps(frames.whole(answer, usage), ensure_ascii=False)
            await pipe.response.write(whole.encode("utf-8", "surrogatepass"))
        else:
            alone = self.shape.trailing_usage
            await pipe.event(frames.last(answer.finish, None if alone else usage))
            if alone:
                await pipe.event(frames.usage_alone(usage))
            if answer.done:
                await pipe.line("data: [DONE]")
            await pipe.flush()
        if answer.ending == "finish":
            self.finished += 1
            self._cache.answered(asked.user_id, asked.messages, answer.text)

    async def _end_badly(self, pipe: Pipe, answer: Plan, trouble: Trouble | None) -> None:
        if answer.ending == "error":
            await pipe.event(on_order(500).body())
        await pipe.flush()
        if answer.ending == "stall" and trouble is not None:
            await self._clock.sleep(trouble.seconds)
        if answer.ending == "reset":
            pipe.reset()

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


def _listed(chunks: str | Sequence[str]) -> tuple[str, ...]:
    return (chunks,) if isinstance(chunks, str) else tuple(chunks)
