"""adapters/models: one answer over a loopback socket whose every byte the test decides."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from adapters.http import Http
from adapters.models.answer import AnswerBuilder
from adapters.models.body import wire_request
from adapters.models.crowd import FEW, LONGEST, READS, Crowd
from adapters.models.openai_shape import ModelSettings, OpenAIModel
from adapters.models.profiles import profile_of, resolve
from adapters.models.reader import BodyReader
from adapters.models.refusals import read_refusal, translate
from adapters.playground.clock import VirtualClock
from bot.clock import SystemClock
from bot.contract import (
    Delta,
    FinishDelta,
    ModelRequest,
    Prompt,
    ReasoningDelta,
    TextDelta,
    Usage,
    UsageDelta,
)
from bot.errors import (
    AuthError,
    BorderError,
    Bug,
    QuotaExhausted,
    RateLimited,
    RefusedContent,
    TooBig,
    Transient,
)
from bot.texts import en, zh

KEY = "sk-canary-0123456789abcdef"
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 6,
    "prompt_cache_hit_tokens": 64,
    "prompt_cache_miss_tokens": 36,
    "completion_tokens_details": {"reasoning_tokens": 2},
}
ASK = ModelRequest("deepseek-flash", (Prompt("user", "你好"),))


def chunk(delta: dict[str, Any], finish: str | None = None, usage: Any = None) -> bytes:
    value: dict[str, Any] = {
        "model": "deepseek-flash",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage:
        value["usage"] = usage
    return event(value)


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


ROLE = chunk({"role": "assistant", "content": ""})
STOP = chunk({"content": ""}, "stop", USAGE)
DONE = b"data: [DONE]\n\n"


def said(*texts: str) -> bytes:
    return b"".join(chunk({"content": text}) for text in texts)


class Talk:
    """One request at the server, answered by the test."""

    def __init__(self, request: web.Request, body: Any) -> None:
        self.request, self.body = request, body
        self.headers = dict(request.headers)
        self._response: web.StreamResponse | None = None

    async def send(self, *blocks: bytes) -> None:
        """Each block in a write of its own."""
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await self._response.prepare(self.request)
        for block in blocks:
            await self._response.write(block)
            await asyncio.sleep(0)

    def cut(self) -> None:
        assert self.request.transport is not None
        self.request.transport.abort()

    async def gone(self) -> None:
        """Returns when the client has closed its socket; a transport has no event for it."""
        transport = self.request.transport
        while transport is not None and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    def response(self) -> web.StreamResponse:
        return self._response or web.Response()


Handler = Callable[[Talk], Awaitable[web.StreamResponse | None]]


class Server:
    """Answers the n-th request with the n-th handler; the last one goes on answering."""

    def __init__(self, *handlers: Handler) -> None:
        self.handlers = handlers
        self.talks: list[Talk] = []
        self.connections: set[Any] = set()
        self.url = ""
        self.ended_at = 0.0

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        talk = Talk(request, json.loads(await request.read()))
        self.connections.add(request.transport)
        self.talks.append(talk)
        handler = self.handlers[min(len(self.talks), len(self.handlers)) - 1]
        return await handler(talk) or talk.response()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{tail:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()


def stream(*blocks: bytes) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.send(*blocks)

    return handler


def answer(status: int, body: Any, **headers: str) -> Handler:
    async def handler(_: Talk) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/octet-stream"}
        return web.Response(status=status, body=raw, headers={**kind, **headers})

    return handler


def refusal(status: int, message: str, kind: str = "invalid_request_error") -> Handler:
    error = {"message": message, "type": kind, "param": None, "code": "invalid_request_error"}
    return answer(status, {"error": error})


@asynccontextmanager
async def model_at(url: str, clock: Any = None, **settings: Any) -> AsyncIterator[OpenAIModel]:
    http = Http()
    values = {"api_key": KEY, "base_url": url, **settings}
    try:
        yield OpenAIModel(ModelSettings(**values), http, clock or SystemClock())
    finally:
        await http.close()


async def collect(
    *handlers: Handler, ask: ModelRequest = ASK, clock: Any = None, **settings: Any
) -> tuple[list[Delta], BorderError | None, Server]:
    """The deltas, the error behind them, and the server with what it was asked."""
    deltas: list[Delta] = []
    failure = None
    async with Server(*handlers).running() as server, model_at(server.url, clock, **settings) as m:
        try:
            async for delta in m.stream(ask):
                deltas.append(delta)
        except BorderError as error:
            failure = error
        server.ended_at = clock.monotonic() if clock else 0.0
    return deltas, failure, server


async def passing(clock: VirtualClock, step: Awaitable[Any], pace: float = 1.0) -> Any:
    """Let virtual time pass, `pace` seconds at a time, until `step` is done."""
    task = asyncio.ensure_future(step)
    while not task.done():
        await clock.advance(pace)
    return await task


def text_of(deltas: list[Delta]) -> str:
    return "".join(d.text for d in deltas if isinstance(d, TextDelta))


# ---------------------------------------------------------------- a good answer


async def test_text_usage_finish_in_order():
    deltas, failure, _ = await collect(stream(ROLE, said("你", "好🌉"), STOP, DONE))
    assert failure is None
    assert deltas == [
        TextDelta("你好🌉"),
        UsageDelta(Usage(100, 6, 64, 2), "deepseek-flash"),
        FinishDelta("stop"),
    ]


async def test_any_split_of_the_bytes_even_inside_a_character():
    raw = ROLE + said("鹊桥", "🌉 ok") + STOP + DONE
    deltas, failure, _ = await collect(stream(*(raw[i : i + 3] for i in range(0, len(raw), 3))))
    assert failure is None
    assert text_of(deltas) == "鹊桥🌉 ok"
    assert deltas[-1] == FinishDelta("stop")


async def test_reasoning_stands_apart_whatever_its_field_is_called():
    thinking = chunk({"content": None, "reasoning_content": "Let me"})
    other = chunk({"reasoning": " see"})
    hello = chunk({"content": "Hello", "reasoning_content": None})
    deltas, _, _ = await collect(stream(thinking, other, hello, STOP, DONE))
    assert deltas[:2] == [ReasoningDelta("Let me see"), TextDelta("Hello")]


async def test_usage_in_a_chunk_of_its_own_after_the_finish():
    last = event({"choices": [], "usage": USAGE, "model": "m"})
    deltas, _, _ = await collect(stream(said("a"), chunk({}, "stop"), last, DONE))
    assert deltas == [TextDelta("a"), UsageDelta(Usage(100, 6, 64, 2), "m"), FinishDelta("stop")]


async def test_usage_repeated_on_every_chunk_is_told_once():
    part = chunk({"content": "a"}, None, {"prompt_tokens": 1, "completion_tokens": 1})
    deltas, _, _ = await collect(stream(part, part, STOP, DONE))
    assert [d for d in deltas if isinstance(d, UsageDelta)] == [
        UsageDelta(Usage(100, 6, 64, 2), "deepseek-flash")
    ]


async def test_a_finish_without_the_end_mark_is_whole():
    deltas, failure, _ = await collect(stream(said("a"), STOP))
    assert failure is None
    assert deltas[-1] == FinishDelta("stop")


async def test_the_last_event_may_lack_its_blank_line():
    deltas, failure, _ = await collect(stream(said("a"), STOP.rstrip()))
    assert failure is None
    assert deltas[-1] == FinishDelta("stop")


async def test_a_connection_broken_after_the_finish_is_no_loss():
    async def handler(talk: Talk) -> None:
        await talk.send(said("a"), STOP)
        await asyncio.sleep(0.02)
        talk.cut()

    deltas, failure, _ = await collect(handler)
    assert failure is None
    assert deltas[-1] == FinishDelta("stop")


async def test_a_server_that_keeps_the_socket_open_after_the_end_mark():
    async def handler(talk: Talk) -> None:
        await talk.send(said("a"), STOP, DONE)
        await talk.gone()

    clock = VirtualClock()
    deltas, failure, _ = await passing(clock, collect(handler, clock=clock))
    assert failure is None
    assert deltas[-1] == FinishDelta("stop")
    assert clock.monotonic() < 10


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_finish_reasons_pass(reason: str):
    deltas, failure, _ = await collect(stream(said("a"), chunk({}, reason), DONE))
    assert failure is None
    assert deltas[-1] == FinishDelta(reason)


async def test_comments_blank_lines_and_junk_are_passed_over():
    noise = (
        b": keep-alive\n\n: keep-alive\r\n\r\n\n\nevent: ping\n\ndata: {broken\n\n"
        b"data: 7\n\ndata: []\n\ndata: null\n\nnonsense\n\ndata: {}\n\n"
        b'data: {"choices":[7]}\n\ndata: {"choices":{}}\n\ndata: {"choices":[{"delta":[]}]}\n\n'
        b'data: {"choices":[{"delta":{"content":9}}],"usage":"x","model":4}\n\n'
    )
    deltas, failure, _ = await collect(stream(noise, said("a"), noise, said("b"), STOP, DONE))
    assert failure is None
    assert text_of(deltas) == "ab"


async def test_one_event_of_a_megabyte():
    long = "长" * 400_000
    deltas, failure, _ = await collect(stream(said(long), STOP, DONE))
    assert failure is None
    assert text_of(deltas) == long


async def test_a_whole_answer_without_streaming():
    whole = {
        "model": "deepseek-flash",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "你好", "reasoning_content": "想"},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
    raw = json.dumps(whole, ensure_ascii=False).encode()
    ask = ModelRequest("deepseek-flash", ASK.prompts, stream=False)
    deltas, failure, server = await collect(
        stream(b"\n", b"\n\n", raw[:150], raw[150:151], raw[151:]), ask=ask
    )
    assert failure is None
    assert deltas == [
        ReasoningDelta("想"),
        TextDelta("你好"),
        UsageDelta(Usage(100, 6, 64, 2), "deepseek-flash"),
        FinishDelta("stop"),
    ]
    assert server.talks[0].body["stream"] is False
    assert "stream_options" not in server.talks[0].body


async def test_json_where_a_stream_was_asked_for_and_the_other_way_round():
    whole = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    deltas, failure, _ = await collect(answer(200, whole))
    assert (text_of(deltas), failure) == ("a", None)
    ask = ModelRequest("deepseek-flash", ASK.prompts, stream=False)
    deltas, failure, _ = await collect(stream(said("b"), STOP, DONE), ask=ask)
    assert (text_of(deltas), failure) == ("b", None)


async def test_the_connection_is_used_again():
    async with (
        Server(stream(said("a"), STOP, DONE)).running() as server,
        model_at(server.url) as model,
    ):
        for _ in range(3):
            assert text_of([d async for d in model.stream(ASK)]) == "a"
        assert len(server.talks) == 3
        assert len(server.connections) == 1


# ---------------------------------------------------------------- an answer that ends badly


async def test_a_clean_end_without_a_finish_is_a_cut_after_what_was_said():
    deltas, failure, server = await collect(stream(said("a", "b")))
    assert text_of(deltas) == "ab"
    assert isinstance(failure, Transient)
    assert failure.note == "model.cut"
    assert "cut" in failure.note
    assert len(server.talks) == 1


async def test_a_socket_cut_in_the_middle_keeps_what_was_said_and_is_not_repeated():
    async def handler(talk: Talk) -> None:
        await talk.send(said("a"), said("b")[:30])
        await asyncio.sleep(0.02)
        talk.cut()

    deltas, failure, server = await collect(handler)
    assert text_of(deltas) == "a"
    assert isinstance(failure, Transient)
    assert failure.note == "model.cut"
    assert len(server.talks) == 1


async def test_a_json_text_cut_in_the_middle():
    deltas, failure, _ = await collect(answer(200, b'{"choices":[{"message":{"cont'))
    assert deltas == []
    assert isinstance(failure, Transient)
    assert failure.note == "model.cut"


async def test_insufficient_system_resource_after_text_keeps_text_and_usage():
    last = chunk({}, "insufficient_system_resource", USAGE)
    deltas, failure, server = await collect(stream(said("a"), last, DONE))
    assert deltas == [TextDelta("a"), UsageDelta(Usage(100, 6, 64, 2), "deepseek-flash")]
    assert isinstance(failure, Transient)
    assert failure.note == "model.overloaded"
    assert len(server.talks) == 1


async def test_insufficient_system_resource_before_text_is_tried_again():
    clock = VirtualClock()
    interrupted = stream(ROLE, chunk({}, "insufficient_system_resource"), DONE)
    good = stream(said("a"), STOP, DONE)
    deltas, failure, server = await passing(clock, collect(interrupted, good, clock=clock))
    assert (text_of(deltas), failure, len(server.talks)) == ("a", None, 2)


async def test_an_unknown_finish_reason_is_an_error():
    _, failure, _ = await collect(stream(said("a"), chunk({}, "tool_calls"), DONE))
    assert isinstance(failure, Transient)
    assert failure.note == "model.broken"


@pytest.mark.parametrize(
    "blocks", [(ROLE, STOP, DONE), (), (DONE,), (said("\n \n"), STOP, DONE)], ids=str
)
async def test_an_answer_without_words(blocks: tuple[bytes, ...]):
    clock = VirtualClock()
    _, failure, server = await passing(clock, collect(stream(*blocks), clock=clock))
    assert isinstance(failure, Transient)
    assert failure.note == "model.empty"
    assert len(server.talks) <= 2


async def test_an_empty_answer_is_tried_once_more():
    clock = VirtualClock()
    handlers = (stream(ROLE, STOP, DONE), stream(said("a"), STOP, DONE))
    deltas, failure, server = await passing(clock, collect(*handlers, clock=clock))
    assert (text_of(deltas), failure, len(server.talks)) == ("a", None, 2)
    assert len([d for d in deltas if isinstance(d, UsageDelta)]) == 1


async def test_thinking_alone_is_no_answer():
    thought = chunk({"reasoning_content": "hm"})
    deltas, failure, _ = await collect(stream(thought, STOP, DONE))
    assert deltas[0] == ReasoningDelta("hm")
    assert failure is not None
    assert failure.note == "model.empty"


async def test_an_error_inside_the_stream_comes_after_the_text_of_the_same_write():
    error = event({"error": {"message": "service is too busy", "type": "server_error"}})
    deltas, failure, server = await collect(stream(said("a", "b") + error + said("c")))
    assert text_of(deltas) == "ab"
    assert isinstance(failure, Transient)
    assert failure.note == "model.overloaded"
    assert len(server.talks) == 1


async def test_an_error_event_before_any_text_is_tried_again():
    clock = VirtualClock()
    error = stream(event({"error": {"message": "oops", "code": 500}}))
    good = stream(said("a"), STOP, DONE)
    deltas, failure, _ = await passing(clock, collect(error, good, clock=clock))
    assert (text_of(deltas), failure) == ("a", None)


async def test_an_error_body_under_status_200():
    flat = {"code": 20012, "message": "Model does not exist. Please check it carefully."}
    _, failure, _ = await collect(answer(200, flat))
    assert isinstance(failure, Bug)
    assert failure.note == "model.unknown_model"
    _, failure, _ = await collect(answer(200, "Invalid token"))
    assert isinstance(failure, AuthError)


async def test_a_web_page_instead_of_an_answer():
    clock = VirtualClock()
    page = answer(200, b"\n<html>hotel wifi</html>")
    _, failure, _ = await passing(clock, collect(page, clock=clock))
    assert isinstance(failure, Transient)
    assert failure.note == "model.broken"


# ---------------------------------------------------------------- refusals

TOO_LONG = (
    "This model's maximum context length is 1048576 tokens. However, you requested 1048577 "
    "tokens (1048576 in the messages, 1 in the completion). Please reduce the length of the "
    "messages or completion."
)
NAMES = (
    "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed deepseek-x."
)
AUTH = f"Authentication Fails, Your api key: ****{KEY[-4:]} is invalid (request_id: 1-2)"
BUSY = (
    "Your current concurrency is 40, which exceeds your concurrency limit of 39 based on your "
    "remaining balance. Please top up your balance to restore your concurrency."
)


@pytest.mark.parametrize(
    ("status", "message", "error", "note"),
    [
        (401, AUTH, AuthError, "model.auth"),
        (402, "Insufficient Balance", QuotaExhausted, "model.balance"),
        (400, TOO_LONG, TooBig, "model.too_long"),
        (413, "", TooBig, "model.too_long"),
        (400, NAMES, Bug, "model.unknown_model"),
        (404, 'model "x" not found, try pulling it first', Bug, "model.unknown_model"),
        (404, "page not found", Bug, "model.bad_request"),
        (400, "Empty input messages", Bug, "model.bad_request"),
        (400, "Content Exists Risk", RefusedContent, "error.content"),
        (422, "Failed to deserialize the JSON body", Bug, "model.bad_request"),
    ],
)
async def test_refusals_that_stay_are_not_repeated(
    status: int, message: str, error: type[BorderError], note: str
):
    _, failure, server = await collect(refusal(status, message))
    assert type(failure) is error
    assert failure.note == note
    assert note in zh.SENTENCES
    assert note in en.SENTENCES
    assert len(server.talks) == 1


@pytest.mark.parametrize(
    ("status", "message", "error", "note"),
    [
        (429, BUSY, RateLimited, "model.busy"),
        (429, "Rate limit reached for TPM", RateLimited, "model.busy"),
        (500, "Internal model error: not found", Transient, "model.broken"),
        (502, "", Transient, "model.broken"),
        (504, "", Transient, "model.broken"),
        (503, "service is too busy", Transient, "model.overloaded"),
    ],
)
async def test_refusals_that_pass_are_tried_three_times(
    status: int, message: str, error: type[BorderError], note: str
):
    clock = VirtualClock()
    _, failure, server = await passing(clock, collect(refusal(status, message), clock=clock))
    assert type(failure) is error
    assert failure.note == note
    assert len(server.talks) == 3
    assert 1.0 <= clock.monotonic() <= 30.0


async def test_a_try_that_succeeds_hides_those_that_failed():
    clock = VirtualClock()
    handlers = (refusal(503, ""), refusal(429, BUSY), stream(said("a"), STOP, DONE))
    deltas, failure, server = await passing(clock, collect(*handlers, clock=clock))
    assert (text_of(deltas), failure, len(server.talks)) == ("a", None, 3)


async def test_retry_after_is_respected():
    clock = VirtualClock()
    handlers = (answer(429, {}, **{"Retry-After": "20"}), stream(said("a"), STOP, DONE))
    deltas, _, server = await passing(clock, collect(*handlers, clock=clock))
    assert text_of(deltas) == "a"
    assert 20 <= clock.monotonic() < 25
    assert len(server.talks) == 2


async def test_a_retry_after_beyond_patience_is_told_at_once():
    clock = VirtualClock()
    _, failure, server = await passing(
        clock, collect(answer(429, {}, **{"Retry-After": "3600"}), clock=clock)
    )
    assert isinstance(failure, RateLimited)
    assert failure.retry_after == 3600
    assert len(server.talks) == 1


async def test_a_proxys_page_as_an_error_body():
    clock = VirtualClock()
    page = answer(502, b"<html>Bad Gateway</html>")
    _, failure, server = await passing(clock, collect(page, clock=clock))
    assert isinstance(failure, Transient)
    assert len(server.talks) == 3


async def test_a_redirect_is_not_followed():
    _, failure, server = await collect(answer(302, b"", Location="http://127.0.0.1:9/"))
    assert isinstance(failure, Bug)
    assert len(server.talks) == 1


async def test_nobody_listens():
    async with Server(stream()).running() as server:
        url = server.url
    clock = VirtualClock()

    async def ask() -> None:
        async with model_at(url, clock) as model:
            async for _ in model.stream(ASK):
                pass

    with pytest.raises(Transient) as caught:
        await passing(clock, ask())
    assert caught.value.note == "model.unreachable"
    assert clock.monotonic() <= 30


async def test_a_socket_cut_before_the_headers_is_tried_again():
    async def drop(talk: Talk) -> None:
        talk.cut()

    clock = VirtualClock()
    deltas, failure, _ = await passing(
        clock, collect(drop, stream(said("a"), STOP, DONE), clock=clock)
    )
    assert (text_of(deltas), failure) == ("a", None)


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "ftp://x/", "http://[bad"])
async def test_an_address_that_is_none(url: str):
    async with model_at(url) as model:
        with pytest.raises(Bug):
            [d async for d in model.stream(ASK)]


async def test_a_service_that_wants_thinking_back_after_all_is_given_it():
    wants = refusal(
        400, "The `reasoning_content` in the thinking mode must be passed back to the API."
    )
    prompts = (Prompt("user", "q"), Prompt("assistant", "a", "because"), Prompt("user", "r"))
    clock = VirtualClock()
    ask = ModelRequest("deepseek-flash", prompts)
    deltas, failure, server = await passing(
        clock, collect(wants, stream(said("b"), STOP, DONE), ask=ask, clock=clock)
    )
    assert (text_of(deltas), failure) == ("b", None)
    first, second = (talk.body["messages"][1] for talk in server.talks)
    assert "reasoning_content" not in first
    assert second["reasoning_content"] == "because"


async def test_two_questions_on_their_way_when_the_service_changes_its_mind():
    """The second was written down by the rule that the first finds refused."""
    ask = ModelRequest("deepseek-flash", (Prompt("user", "q"), Prompt("assistant", "a", "why")))

    async def changed(talk: Talk) -> web.StreamResponse | None:
        if "reasoning_content" in talk.body["messages"][1]:
            return await stream(said("b"), STOP, DONE)(talk)
        return await refusal(400, "`reasoning_content` must be passed back to the API.")(talk)

    async with Server(changed).running() as server, model_at(server.url) as model:
        answers = [model.stream(ask), model.stream(ask)]
        told = [text_of([delta async for delta in deltas]) for deltas in answers]
    assert told == ["b", "b"] and len(server.talks) == 4


async def test_a_service_that_likes_thinking_neither_way_is_asked_twice():
    wants = refusal(400, "`reasoning_content` is wrong")
    deltas, failure, server = await collect(wants)
    assert (deltas, type(failure), len(server.talks)) == ([], Bug, 2)


# ---------------------------------------------------------------- watchdogs


async def test_signs_of_life_do_not_count_as_data():
    async def handler(talk: Talk) -> None:
        while True:
            await talk.send(b": keep-alive\n\n")
            await clock.sleep(5)

    clock = VirtualClock()
    _, failure, server = await passing(
        clock, collect(handler, clock=clock, first_data=60.0, silence=10.0)
    )
    assert isinstance(failure, Transient)
    assert failure.note == "model.silent"
    assert 60 <= server.ended_at <= 62


async def test_ten_minutes_of_keep_alive_then_an_answer():
    async def handler(talk: Talk) -> None:
        for _ in range(19):
            await talk.send(b": keep-alive\n\n")
            await clock.sleep(30)
        await talk.send(said("a"), STOP, DONE)

    clock = VirtualClock()
    deltas, failure, _ = await passing(clock, collect(handler, clock=clock), 15.0)
    assert (text_of(deltas), failure) == ("a", None)
    assert clock.monotonic() >= 570


async def test_a_queue_that_gives_up_is_an_overload():
    async def handler(talk: Talk) -> None:
        for _ in range(4):
            await talk.send(b": keep-alive\n\n")
            await clock.sleep(10)

    clock = VirtualClock()
    _, failure, server = await passing(clock, collect(handler, clock=clock))
    assert isinstance(failure, Transient)
    assert failure.note == "model.overloaded"
    assert len(server.talks) == 1


async def test_silence_after_data_ends_the_answer_although_life_goes_on():
    async def handler(talk: Talk) -> None:
        await talk.send(ROLE)
        await clock.sleep(5)
        await talk.send(said("a"))
        while True:
            await talk.send(b": keep-alive\n\n")
            await clock.sleep(3)

    clock = VirtualClock()
    deltas, failure, server = await passing(clock, collect(handler, clock=clock, silence=10.0))
    assert text_of(deltas) == "a"
    assert failure is not None
    assert failure.note == "model.silent"
    assert 15 <= server.ended_at <= 17


async def test_no_headers_at_all():
    async def handler(talk: Talk) -> None:
        await talk.gone()

    clock = VirtualClock()
    _, failure, server = await passing(clock, collect(handler, clock=clock, first_data=30.0))
    assert failure is not None
    assert failure.note == "model.silent"
    assert len(server.talks) == 1


async def test_an_answer_that_never_ends():
    async def handler(talk: Talk) -> None:
        while True:
            await talk.send(said("a"))
            await clock.sleep(1)

    clock = VirtualClock()
    deltas, failure, _ = await passing(clock, collect(handler, clock=clock, whole=40.0))
    assert 35 <= len(deltas) <= 41
    assert failure is not None
    assert failure.note == "model.silent"


# ---------------------------------------------------------------- closing


class Open:
    """A server that has begun to answer and notices when its client goes."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def __call__(self, talk: Talk) -> None:
        await talk.send(said("a"))
        await talk.gone()
        self.left.set()


async def test_closing_the_generator_closes_the_socket():
    handler = Open()
    async with Server(handler).running() as server, model_at(server.url) as model:
        deltas = model.stream(ASK)
        assert await anext(deltas) == TextDelta("a")
        await deltas.aclose()
        async with asyncio.timeout(10):
            await handler.left.wait()


async def test_cancelling_the_task_closes_the_socket():
    handler = Open()
    heard = asyncio.Event()

    async def listen(model: OpenAIModel) -> None:
        async for _ in model.stream(ASK):
            heard.set()

    async with Server(handler).running() as server, model_at(server.url) as model:
        task = asyncio.create_task(listen(model))
        await heard.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        async with asyncio.timeout(10):
            await handler.left.wait()


async def test_cancelling_before_the_headers_closes_the_socket():
    left = asyncio.Event()
    asked = asyncio.Event()

    async def handler(talk: Talk) -> None:
        asked.set()
        await talk.gone()
        left.set()

    async with Server(handler).running() as server, model_at(server.url) as model:
        task = asyncio.ensure_future(anext(model.stream(ASK)))
        await asked.wait()
        task.cancel()
        async with asyncio.timeout(10):
            await left.wait()
        with suppress(asyncio.CancelledError):
            await task


# ---------------------------------------------------------------- what is sent


async def test_what_goes_over_the_wire():
    ask = ModelRequest(
        "deepseek-flash",
        (Prompt("system", "s"), Prompt("user", "q"), Prompt("assistant", "a", "r")),
        thinking=True,
        temperature=0.3,
        user="feishu:ou_person",
    )
    _, _, server = await collect(stream(said("a"), STOP, DONE), ask=ask, max_tokens=100)
    talk = server.talks[0]
    assert talk.request.path == "/chat/completions"
    assert talk.headers["Authorization"] == f"Bearer {KEY}"
    assert talk.headers["Accept"] == "text/event-stream"
    assert talk.body["thinking"] == {"type": "enabled"}
    assert talk.body["stream_options"] == {"include_usage": True}
    assert talk.body["messages"][2] == {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "r",
    }
    assert "temperature" not in talk.body
    assert talk.body["max_tokens"] > 100
    assert "ou_person" not in json.dumps(talk.body)
    assert talk.body["user_id"].isalnum()


def body_of(ask: ModelRequest, url: str = "https://api.deepseek.com") -> dict[str, Any]:
    return wire_request(ask, url, "deepseek-flash", 8192).body


def test_without_thinking_no_earlier_thinking_is_sent():
    prompts = (Prompt("assistant", "a", "r"), Prompt("user", "q"))
    body = body_of(ModelRequest("deepseek-flash", prompts, temperature=9.0))
    assert body["thinking"] == {"type": "disabled"}
    assert body["messages"][0] == {"role": "assistant", "content": "a"}
    assert body["max_tokens"] == 8192
    assert body["temperature"] == 2.0
    assert "user_id" not in body


def test_thinking_that_was_not_kept_is_sent_as_an_empty_string():
    body = body_of(ModelRequest("deepseek-flash", (Prompt("assistant", "a"),), thinking=True))
    assert body["messages"][0]["reasoning_content"] == ""
    assert body["max_tokens"] == 65_536


def test_the_same_person_is_the_same_user_id():
    one, two, other = (
        body_of(ModelRequest("deepseek-flash", (), user=user))["user_id"] for user in "aab"
    )
    assert one == two != other


def test_retired_names_are_sent_as_todays():
    body = body_of(ModelRequest("deepseek-reasoner", ()))
    assert (body["model"], body["thinking"]["type"]) == ("deepseek-flash", "enabled")
    body = body_of(ModelRequest("deepseek-chat", ()))
    assert (body["model"], body["thinking"]["type"]) == ("deepseek-flash", "disabled")


def test_resolve():
    assert resolve("deepseek-v4-pro") == ("deepseek-v4-pro", "")
    name, notice = resolve("deepseek-chat")
    assert name == "deepseek-flash"
    assert "deepseek-chat" in notice
    assert "deepseek-flash" in notice


@pytest.mark.parametrize(
    ("base", "prefix", "url"),
    [
        ("https://api.deepseek.com", False, "https://api.deepseek.com/chat/completions"),
        ("https://api.deepseek.com/", True, "https://api.deepseek.com/beta/chat/completions"),
        ("https://api.deepseek.com/v1", True, "https://api.deepseek.com/beta/chat/completions"),
        ("https://api.deepseek.com/beta", True, "https://api.deepseek.com/beta/chat/completions"),
        ("http://x/v1/chat/completions", False, "http://x/v1/chat/completions"),
    ],
)
def test_addresses(base: str, prefix: bool, url: str):
    prompts = (Prompt("user", "q"), Prompt("assistant", "so far"))
    wanted = wire_request(
        ModelRequest("deepseek-flash", prompts, prefix=prefix), base, "deepseek-flash", 1
    )
    assert wanted.url == url
    assert ("prefix" in wanted.body["messages"][-1]) is prefix


async def test_a_continued_prefix_may_have_nothing_to_add():
    prompts = (Prompt("user", "q"), Prompt("assistant", "all of it"))
    ask = ModelRequest("deepseek-flash", prompts, prefix=True)
    deltas, failure, _ = await collect(stream(ROLE, STOP, DONE), ask=ask)
    assert failure is None
    assert deltas[-1] == FinishDelta("stop")


async def test_a_prefix_where_no_service_continues_it():
    async with model_at("http://127.0.0.1:9") as model:
        assert model.continues_prefix()
        assert not model.continues_prefix("qwen")
        with pytest.raises(Bug):
            await anext(model.stream(ModelRequest("qwen", ASK.prompts, prefix=True)))


@pytest.mark.parametrize(
    ("url", "model", "name"),
    [
        ("https://api.deepseek.com", "anything", "deepseek"),
        ("http://127.0.0.1:1234", "deepseek-v4-pro", "deepseek"),
        ("http://127.0.0.1:1234/v1", "qwen", "openai"),
        ("http://localhost:11434/v1", "deepseek-r1:8b", "ollama"),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "deepseek-v4-pro", "dashscope"),
        ("https://api.moonshot.cn/v1", "kimi-k3", "kimi"),
        ("https://api.moonshot.cn/v1", "kimi-k2.6", "kimi-k2.6"),
        ("https://open.bigmodel.cn/api/paas/v4", "glm-5.3", "glm"),
        ("https://notdeepseek.com", "x", "openai"),
        ("http://x:notaport", "x", "openai"),
    ],
)
def test_profiles(url: str, model: str, name: str):
    assert profile_of(url, model).name == name


def test_look_alikes_get_only_their_own_fields():
    ask = ModelRequest("m", ASK.prompts, thinking=True, temperature=1.7, user="u")
    generic = body_of(ask, "http://x/v1")
    assert set(generic) == {
        "model",
        "messages",
        "stream",
        "max_tokens",
        "temperature",
        "stream_options",
    }
    assert body_of(ask, "https://dashscope.aliyuncs.com/v1")["enable_thinking"] is True
    kimi = body_of(ask, "https://api.moonshot.cn/v1")
    assert "temperature" not in kimi
    assert "max_completion_tokens" in kimi
    glm = body_of(ask, "https://open.bigmodel.cn/api/paas/v4")
    assert "stream_options" not in glm
    assert glm["temperature"] == 1.0
    assert body_of(ask, "http://localhost:11434/v1")["reasoning_effort"] == "medium"


async def test_half_a_character_in_a_prompt_can_be_sent():
    ask = ModelRequest("deepseek-flash", (Prompt("user", "a\ud83db"),), user="\ud83d")
    _, failure, server = await collect(stream(said("a"), STOP, DONE), ask=ask)
    assert failure is None
    assert server.talks[0].body["messages"][0]["content"] == "a?b"


# ---------------------------------------------------------------- the key


async def test_the_key_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    words = f"{AUTH} {KEY} Bearer {KEY} sk-{KEY[3:9]}"
    clock = VirtualClock()
    for status in (400, 401, 402, 403, 404, 422, 429, 500, 503):
        _, failure, _ = await passing(clock, collect(refusal(status, words), clock=clock))
        assert failure is not None
        seen = f"{failure!r} {failure} {failure.cause} {failure.code}"
        assert KEY not in seen
        assert KEY[3:9] not in seen
        assert f"****{KEY[-4:]}" not in seen
    assert KEY not in caplog.text
    assert KEY not in repr(ModelSettings(api_key=KEY))


async def test_a_key_that_no_header_can_carry():
    async with Server(stream(said("a"))).running() as server:
        async with model_at(server.url, api_key=f"{KEY}\nX-Evil: 1") as model:
            with pytest.raises(Bug) as caught:
                await anext(model.stream(ASK))
        assert KEY not in str(caught.value)
        assert server.talks == []


async def test_a_key_with_stray_blanks_is_tidied():
    _, _, server = await collect(stream(said("a"), STOP, DONE), api_key=f" {KEY}\n")
    assert server.talks[0].headers["Authorization"] == f"Bearer {KEY}"


# ---------------------------------------------------------------- pure pieces


@pytest.mark.parametrize(
    ("status", "body", "error", "note"),
    [
        (429, {"error": {"type": "exceeded_current_quota_error"}}, QuotaExhausted, "model.balance"),
        (403, {"error": {"code": "AccountOverdueError"}}, QuotaExhausted, "model.balance"),
        (403, {"code": 30003, "message": "Model disabled."}, Bug, "model.unknown_model"),
        (403, {}, AuthError, "model.auth"),
        (401, "Invalid token", AuthError, "model.auth"),
        (400, {"error": {"code": "1113", "message": "欠费"}}, QuotaExhausted, "model.balance"),
        (400, {"error": "model 'x' does not exist"}, Bug, "model.unknown_model"),
        (0, {"error": {"code": 429}}, RateLimited, "model.busy"),
        (0, {"error": {"type": "rate_limit_reached_error"}}, RateLimited, "model.busy"),
        (0, {"error": {"message": "something"}}, Transient, "model.broken"),
        (0, {"error": {"type": "invalid_request_error"}}, Bug, "model.bad_request"),
        (0, {"object": "error", "message": TOO_LONG}, TooBig, "model.too_long"),
        (400, None, Bug, "model.bad_request"),
        (400, [1], Bug, "model.bad_request"),
        (418, {"error": {"message": ["x"], "code": {}}}, Bug, "model.bad_request"),
    ],
)
def test_envelopes_of_other_services(status: int, body: Any, error: type[BorderError], note: str):
    failure = translate(read_refusal(status, body))
    assert type(failure) is error
    assert failure.note == note


def test_retry_after_as_a_date_and_as_nonsense():
    def after(value: str) -> float:
        return read_refusal(429, None, {"Retry-After": value}, 1_795_500_000.0).retry_after

    assert after("Tue, 24 Nov 2026 06:00:30 GMT") == 30
    assert after("Tue, 24 Nov 2020 06:00:30 GMT") == 0
    assert after("soon") == after("") == after("-5") == after("nan") == 0


def test_a_byte_order_mark_before_json_and_before_events():
    reader = BodyReader()
    assert reader.feed(b"\xef") == reader.feed(b"\xbb\xbf") == reader.feed(b'{"a"') == []
    assert reader.feed(b": 1}") == []
    assert reader.end() == [{"a": 1}]
    reader = BodyReader()
    reader.feed(b"\xef\xbb")
    assert reader.feed(b'\xbfdata: {"a": 1}\n\n') == [{"a": 1}]


def test_nothing_is_read_after_the_end_mark():
    reader = BodyReader()
    assert reader.feed(DONE + event({"late": 1})) == []
    assert reader.done


def test_bad_utf8_inside_a_text_is_replaced():
    assert BodyReader().feed(b'data: {"a": "\xff"}\n\n') == [{"a": "\ufffd"}]


def test_an_answer_without_bounds_is_ended():
    builder = AnswerBuilder("")
    value = json.loads(chunk({"content": "x" * 1_000_000})[6:])
    with pytest.raises(Transient):
        for _ in range(20):
            builder.take(value)


# ---------------------------------------------------------------- many streams at once


def test_few_streams_are_read_at_once_and_many_together():
    rests = [Crowd(live).rest for live in (0, 1, FEW, FEW + 1, 500, 100_000)]
    assert rests[:3] == [0.0, 0.0, 0.0]
    assert 0 < rests[3] < rests[4] <= rests[5] == LONGEST
    assert 500 / rests[4] <= READS + 1


async def test_streams_that_rest_lose_nothing():
    """Seventeen streams: each leaves its socket alone for a moment after a read."""
    told = asyncio.Event()

    async def handler(talk: Talk) -> None:
        await talk.send(ROLE, said("a"))
        await told.wait()
        for text in ("b", "c", "d"):
            await talk.send(said(text))
            await asyncio.sleep(0)
        await talk.send(STOP, DONE)

    async def listen(model: OpenAIModel, deltas: list[Delta]) -> None:
        async for delta in model.stream(ASK):
            deltas.append(delta)
            if isinstance(delta, TextDelta) and text_of(deltas) == "a":
                firsts.append(delta)
                if len(firsts) > FEW:
                    told.set()

    firsts: list[Delta] = []
    answers: list[list[Delta]] = [[] for _ in range(FEW + 1)]
    async with Server(handler).running() as server, model_at(server.url) as model:
        async with asyncio.timeout(30):
            await asyncio.gather(*(listen(model, deltas) for deltas in answers))
    for deltas in answers:
        assert text_of(deltas) == "abcd"
        assert deltas[-1] == FinishDelta("stop")
