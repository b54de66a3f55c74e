"""adapters/playground/deepseek: the stand-in service, seen from its clients."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from adapters.http import Http
from adapters.models.openai_shape import ModelSettings, OpenAIModel
from adapters.playground.clock import VirtualClock
from adapters.playground.deepseek import Asked, DeepSeekSim, Said, Shape, Trouble
from adapters.playground.deepseek.tokens import Cache, pieces
from adapters.playground.deepseek.voice import answer
from adapters.playground.faults import Fault
from bot.clock import SystemClock
from bot.contract import (
    Delta,
    FinishDelta,
    ModelRequest,
    Prompt,
    ReasoningDelta,
    TextDelta,
    UsageDelta,
)
from bot.errors import (
    AuthError,
    BorderError,
    Bug,
    QuotaExhausted,
    Transient,
)

KEY = "sk-playground"
OFF = {"thinking": {"type": "disabled"}}


@pytest.fixture
async def sim() -> AsyncIterator[DeepSeekSim]:
    async with DeepSeekSim(SystemClock(), api_key=KEY) as sim:
        sim.script("", ("好", "的"))
        yield sim


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def ask(*texts: str, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"model": "deepseek-flash", "messages": messages, **fields}


async def post(
    sim: DeepSeekSim, session: aiohttp.ClientSession, body: Any, path: str = "", key: str = KEY
) -> tuple[int, Any]:
    url = f"{sim.base_url}{path}/chat/completions"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(url, data=data, headers={"Authorization": f"Bearer {key}"}) as reply:
        return reply.status, json.loads(await reply.read())


async def events(sim: DeepSeekSim, session: aiohttp.ClientSession, body: Any) -> list[Any]:
    url, headers = f"{sim.base_url}/chat/completions", {"Authorization": f"Bearer {KEY}"}
    async with session.post(url, json=body | {"stream": True}, headers=headers) as reply:
        lines = (await reply.text()).splitlines()
    datas = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


def client(sim: DeepSeekSim) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=sim.base_url, api_key=KEY, max_retries=0)


async def deltas(sim: DeepSeekSim, request: ModelRequest) -> list[Delta]:
    """Through our own client."""
    http = Http()
    model = OpenAIModel(ModelSettings(KEY, sim.base_url), http, SystemClock())
    try:
        return [delta async for delta in model.stream(request)]
    finally:
        await model.close()
        await http.close()


HELLO = ModelRequest("deepseek-flash", (Prompt("user", "你好"),))


def text_of(found: list[Delta]) -> str:
    return "".join(delta.text for delta in found if isinstance(delta, TextDelta))


# clients ----------------------------------------------------------------


async def test_the_openai_client_streams(sim: DeepSeekSim) -> None:
    sim.script("天气", ("晴", "天"), reasoning=("想", "想"))
    async with client(sim) as openai_client:
        stream = await openai_client.chat.completions.create(
            model="deepseek-flash",
            messages=[{"role": "user", "content": "天气"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    said = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in said) == "晴天"
    thoughts = [(delta.model_extra or {}).get("reasoning_content") for delta in said]
    assert thoughts == ["", "想", "想", None, None, None]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[0].usage is None
    usage = chunks[-1].usage
    assert usage is not None and usage.completion_tokens == 4
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 2


async def test_the_openai_client_takes_whole_answers_and_lists_models(sim: DeepSeekSim) -> None:
    async with client(sim) as openai_client:
        whole = await openai_client.chat.completions.create(
            model="deepseek-v4-pro",
            messages=[{"role": "user", "content": "你好"}],
            extra_body=OFF,
        )
        names = [model.id async for model in openai_client.models.list()]
        with pytest.raises(openai.BadRequestError, match="deepseek-flash, deepseek-v4-pro, but"):
            await openai_client.chat.completions.create(
                model="deepseek-chat", messages=[{"role": "user", "content": "你好"}]
            )
    assert whole.choices[0].message.content == "好的"
    assert "reasoning_content" not in (whole.choices[0].message.model_extra or {})
    assert names == ["deepseek-flash", "deepseek-v4-pro"]


async def test_our_own_client_reads_all_shapes(sim: DeepSeekSim) -> None:
    sim.script("", ("你", "好👨‍👩‍👧", "世界"), reasoning=("唔",))
    for shape in (
        Shape(),
        Shape(crlf=True, split=True),
        Shape(joined=True, trailing_usage=True),
        Shape(crlf=True, joined=True, split=True),
    ):
        sim.shape = shape
        thinking = ModelRequest("deepseek-flash", HELLO.prompts, thinking=True)
        found = await deltas(sim, thinking)
        assert text_of(found) == "你好👨‍👩‍👧世界"
        assert [d.text for d in found if isinstance(d, ReasoningDelta)] == ["唔"]
        assert found[-1] == FinishDelta("stop")
        assert any(isinstance(d, UsageDelta) and d.usage.reasoning == 1 for d in found)


@pytest.mark.parametrize(
    ("trouble", "error", "note"),
    [
        (Trouble("refuse", status=401), AuthError, "model.auth"),
        (Trouble("refuse", status=402), QuotaExhausted, "model.balance"),
        (Trouble("refuse", status=422), Bug, "model.bad_request"),
        (Trouble("cut", after=1), Transient, "model.cut"),
        (Trouble("end", after=1), Transient, "model.cut"),
        (Trouble("interrupted", after=1), Transient, "model.overloaded"),
        (Trouble("error", after=1), BorderError, "model.broken"),
    ],
)
async def test_troubles_reach_our_own_client(
    sim: DeepSeekSim, trouble: Trouble, error: type[BorderError], note: str
) -> None:
    sim.order(trouble, times=20)
    sim.order(Trouble("refuse", status=402))
    with pytest.raises(error) as raised:
        await deltas(sim, HELLO)
    assert raised.value.note == note


async def test_a_filtered_answer_and_one_after_the_trouble(sim: DeepSeekSim) -> None:
    sim.order(Trouble("filtered", after=1))
    found = await deltas(sim, HELLO)
    assert (text_of(found), found[-1]) == ("好", FinishDelta("content_filter"))
    assert text_of(await deltas(sim, HELLO)) == "好的"


# the socket -----------------------------------------------------------------


async def test_a_closed_socket_is_noticed(sim: DeepSeekSim) -> None:
    sim.script("", ["字"] * 500, pace=0.005)
    http = Http()
    model = OpenAIModel(ModelSettings(KEY, sim.base_url), http, SystemClock())
    stream = model.stream(HELLO)
    await anext(stream)
    assert (sim.open_streams, sim.cancelled) == (1, 0)
    await stream.aclose()
    async with asyncio.timeout(5):
        await sim.idle()
    assert (sim.cancelled, sim.finished) == (1, 0)
    await model.close()
    await http.close()


async def test_a_closed_socket_is_noticed_while_nothing_is_said(
    sim: DeepSeekSim, session: aiohttp.ClientSession
) -> None:
    sim.order(Trouble("stall", after=1, seconds=3600))
    url, headers = f"{sim.base_url}/chat/completions", {"Authorization": f"Bearer {KEY}"}
    async with session.post(url, json=ask("a", stream=True), headers=headers) as reply:
        await reply.content.readany()
        reply.close()
    async with asyncio.timeout(5):
        await sim.idle()
    assert sim.cancelled == 1


async def test_usage_is_null_until_it_is_told(
    sim: DeepSeekSim, session: aiohttp.ClientSession
) -> None:
    asked = await events(sim, session, ask("a", stream_options={"include_usage": True}))
    assert [event["usage"] for event in asked[:-2]] == [None] * 3
    assert asked[-2]["usage"]["completion_tokens"] == 2
    unasked = await events(sim, session, ask("a"))
    assert ["usage" in event for event in unasked[:-1]] == [False] * 3 + [True]


async def test_a_finished_answer_is_not_cancelled(sim: DeepSeekSim) -> None:
    await deltas(sim, HELLO)
    assert (sim.open_streams, sim.cancelled, sim.finished) == (0, 0, 1)


async def test_keep_alive_until_the_queue_moves(session: aiohttp.ClientSession) -> None:
    clock = VirtualClock()
    async with DeepSeekSim(clock, api_key=KEY) as sim:
        sim.script("", "好")
        sim.order(Trouble("queue", seconds=12))
        url, headers = f"{sim.base_url}/chat/completions", {"Authorization": f"Bearer {KEY}"}
        body = ask("在吗", stream=True, **OFF)
        async with session.post(url, json=body, headers=headers) as reply:
            await clock.advance(13)
            text = await reply.text()
    assert text.startswith(": keep-alive\n\n: keep-alive\n\n: keep-alive\n\ndata: {")
    assert text.endswith("data: [DONE]\n\n")


async def test_pace_and_slowness_follow_the_clock(session: aiohttp.ClientSession) -> None:
    clock = VirtualClock()
    async with DeepSeekSim(clock, api_key=KEY) as sim:
        sim.slowness = 3.0
        sim.script("", ["好"] * 10, pace=1.0)
        asking = asyncio.create_task(events(sim, session, ask("在吗")))
        await clock.advance(29)
        assert not asking.done()
        await clock.advance(2)
        found = await asking
    assert len(found) == 13


async def test_a_stall_says_nothing_and_ends(session: aiohttp.ClientSession) -> None:
    clock = VirtualClock()
    async with DeepSeekSim(clock, api_key=KEY) as sim:
        sim.script("", ["好"] * 4)
        sim.order(Trouble("stall", after=2, seconds=60))
        asking = asyncio.create_task(events(sim, session, ask("在吗", **OFF)))
        await clock.advance(59)
        assert not asking.done()
        await clock.advance(2)
        found = await asking
    assert len(found) == 3 and found[-1]["choices"][0]["finish_reason"] is None


async def test_answers_that_never_begin(sim: DeepSeekSim, session: aiohttp.ClientSession) -> None:
    sim.order(Trouble("drop"))
    with pytest.raises(aiohttp.ClientError):
        await post(sim, session, ask("a"))
    sim.order(Trouble("html"))
    with pytest.raises(json.JSONDecodeError):
        await post(sim, session, ask("a"))
    sim.faults.order("chat", Fault("status", status=418, body={"tea": True}))
    assert await post(sim, session, ask("a")) == (418, {"tea": True})
    sim.order(Trouble("refuse", status=503))
    sim.clear_orders()
    sim.standing = Trouble("refuse", status=500)
    assert (await post(sim, session, ask("a")))[1]["error"]["message"] == "Internal server error"
    sim.standing = None
    assert (await post(sim, session, ask("a")))[0] == 200


async def test_broken_lines_and_missing_ends(
    sim: DeepSeekSim, session: aiohttp.ClientSession
) -> None:
    sim.order(Trouble("no_done"))
    found = await events(sim, session, ask("a"))
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    sim.order(Trouble("garbage", after=1))
    with pytest.raises(json.JSONDecodeError):
        await events(sim, session, ask("a"))
    sim.order(Trouble("empty"))
    status, whole = await post(sim, session, ask("a"))
    assert (status, whole["choices"][0]["message"]["content"]) == (200, "")


async def test_too_many_at_once(sim: DeepSeekSim, session: aiohttp.ClientSession) -> None:
    sim.concurrency = 0
    sim.shape = Shape(octet=True)
    status, body = await post(sim, session, ask("a"))
    assert status == 429 and "concurrency limit" in body["error"]["message"]
    sim.order(Trouble("refuse", status=429, retry_after=7))
    sim.concurrency = None
    url, headers = f"{sim.base_url}/chat/completions", {"Authorization": f"Bearer {KEY}"}
    async with session.post(url, json=ask("a"), headers=headers) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (429, "7")


# the rules -------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "x"}
CALL = {"id": "call_00_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "deepseek-reasoner"}, 400, "but you passed deepseek-reasoner."),
        ({"model": None}, 422, "missing field `model`"),
        ({"model": 5}, 422, "invalid type: integer"),
        ({"messages": []}, 400, "Empty input messages"),
        ({"messages": "hi"}, 422, "invalid type: string, expected a sequence"),
        ({"messages": ["hi"]}, 422, "messages[0]"),
        ({"messages": [SYSTEM, {"role": "developer", "content": "x"}]}, 422, "messages[1]: unknow"),
        ({"messages": [{"content": "x"}]}, 422, "missing field `role`"),
        ({"messages": [{"role": "user", "content": None}]}, 422, "missing field `content`"),
        ({"messages": [{"role": "assistant"}]}, 422, "missing field `content`"),
        ({"messages": [{"role": "user", "content": 5}]}, 422, "expected a string or a sequence"),
        ({"messages": [{"role": "user", "content": [{"type": "sound"}]}]}, 422, "`sound`"),
        ({"messages": [SYSTEM, {**SYSTEM, "prefix": True}]}, 400, "prefix"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, 400, "'tool'"),
        ({"messages": [CALLING | {"reasoning_content": ""}, SYSTEM]}, 400, "must be followed"),
        ({"messages": [CALLING]}, 400, "`reasoning_content` in the thinking mode"),
        ({"messages": [{**SYSTEM, "reasoning_content": 1}]}, 422, "reasoning_content"),
        ({"thinking": {"type": "auto"}}, 422, "unknown variant `auto`"),
        ({"thinking": True}, 422, "thinking: invalid type: boolean"),
        ({"reasoning_effort": "extreme"}, 422, "unknown variant `extreme`"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 393_217}, 400, "max_tokens"),
        ({"max_tokens": True}, 422, "expected u32"),
        ({"temperature": 2.1}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"n": 2}, 400, "n value"),
        ({"stop": ["x"] * 17}, 400, "stop"),
        ({"stream_options": {"include_usage": True}}, 400, "along with stream = true"),
        ({"response_format": {"type": "json_object"}}, 400, "the word 'json'"),
        ({"tools": [{"function": {"name": "a b"}}]}, 400, "Invalid tool name"),
        ({"tool_choice": "required"}, 400, "does not support this tool_choice"),
    ],
)
async def test_what_is_refused(
    sim: DeepSeekSim, session: aiohttp.ClientSession, change: Any, status: int, says: str
) -> None:
    got, body = await post(sim, session, ask("你好") | change)
    assert got == status
    assert says in body["error"]["message"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (len(sim.requests), len(sim.refusals)) == (0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {
            "messages": [
                SYSTEM,
                {"role": "user", "content": [{"type": "text", "text": "x"}]},
                SYSTEM,
            ]
        },
        {"messages": [CALLING, {"role": "tool", "content": "x", "tool_call_id": "call_00_a"}]}
        | OFF,
        {"model": "deepseek-v4-flash", "seed": 3, "max_completion_tokens": 0, "unknown": []},
        {"tool_choice": "required"} | OFF,
        {"temperature": 2, "top_p": 1.0, "stop": "x", "user_id": "u-1", "thinking": None},
    ],
)
async def test_what_is_taken(sim: DeepSeekSim, session: aiohttp.ClientSession, change: Any) -> None:
    assert (await post(sim, session, ask("你好") | change))[0] == 200


async def test_the_key_is_checked_and_never_kept(
    sim: DeepSeekSim, session: aiohttp.ClientSession
) -> None:
    status, body = await post(sim, session, ask("a"), key="sk-wrong-abcd")
    assert status == 401 and "****abcd is invalid" in body["error"]["message"]
    await post(sim, session, ask("a"))
    assert KEY not in repr(sim.requests)
    assert (await post(sim, session, b"{"))[0] == 422
    assert (await post(sim, session, b"[" * 100_000))[0] == 422
    async with session.get(f"{sim.base_url}/models") as reply:
        assert reply.status == 401
    async with session.get(
        f"{sim.base_url}/user/balance", headers={"Authorization": f"Bearer {KEY}"}
    ) as reply:
        assert (await reply.json())["balance_infos"][0]["total_balance"] == "2.30"


async def test_length_stop_and_prefix(sim: DeepSeekSim, session: aiohttp.ClientSession) -> None:
    sim.script("", ("一", "二", "三", "四"), reasoning=("想",))
    _, cut = await post(sim, session, ask("a", max_tokens=3))
    choice = cut["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == "一二"
    assert cut["usage"]["completion_tokens"] == 3
    _, stopped = await post(sim, session, ask("a", stop=["三"], **OFF))
    assert stopped["choices"][0]["message"]["content"] == "一二"
    assert stopped["choices"][0]["finish_reason"] == "stop"
    begun = ask("a", "一二", **OFF)
    begun["messages"][-1]["prefix"] = True
    assert (await post(sim, session, begun))[0] == 400
    _, went_on = await post(sim, session, begun, "/beta")
    assert went_on["choices"][0]["message"]["content"] == "三四"
    assert sim.requests[-1].prefix == "一二"


# the cache --------------------------------------------------------------------


async def hit(sim: DeepSeekSim, session: aiohttp.ClientSession, body: Any) -> tuple[int, int]:
    _, whole = await post(sim, session, body | OFF, "/v1")
    usage = whole["usage"]
    hits, misses = usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]
    assert hits + misses == usage["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == hits
    return hits, misses


async def test_the_cache_hits_whole_units_alone(
    sim: DeepSeekSim, session: aiohttp.ClientSession
) -> None:
    hits, first = await hit(sim, session, ask("问题一"))
    assert hits == 0
    hits, misses = await hit(sim, session, ask("问题一", "好的", "问题二"))
    assert hits > first and misses == first
    assert (await hit(sim, session, ask("另一个", "好的", "问题二")))[0] == 0
    assert (await hit(sim, session, ask("问题一") | {"user_id": "someone"}))[0] == 0


async def test_a_common_beginning_becomes_a_unit(
    sim: DeepSeekSim, session: aiohttp.ClientSession
) -> None:
    def with_system(text: str) -> dict[str, Any]:
        return ask("x") | {"messages": [SYSTEM, {"role": "user", "content": text}]}

    assert (await hit(sim, session, with_system("b")))[0] == 0
    assert (await hit(sim, session, with_system("c")))[0] == 0
    assert (await hit(sim, session, with_system("d")))[0] > 0


async def test_units_take_time_and_fade() -> None:
    clock = VirtualClock()
    cache = Cache(clock, delay=2.0)
    prompt = [{"role": "user", "content": "你好"}]
    assert cache.prompt("", prompt, False)[1] == 0
    assert cache.prompt("", prompt, False)[1] == 0
    await clock.advance(3)
    assert cache.prompt("", prompt, False)[1] > 0
    await clock.advance(90_000)
    assert cache.prompt("", prompt, False)[1] == 0


# what is said -------------------------------------------------------------------


def test_pieces_join_to_the_text_and_keep_emoji_whole() -> None:
    text = "Hello 世界，👩‍💻 done👍🏽!\n\n  代码 x=1"
    assert "".join(pieces(text)) == text
    assert {"👩‍💻", "👍🏽"} <= set(pieces(text))
    assert all(len(piece) <= 5 for piece in pieces(text))


def conversation(*texts: str) -> Asked:
    roles = ("user", "assistant")
    messages = tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(texts))
    return Asked("deepseek-flash", messages, thinking=True, max_tokens=8192)


def says(*texts: str) -> str:
    return "".join(answer(conversation(*texts)).chunks)


def test_the_stand_in_says_what_it_is_in_its_first_answer() -> None:
    assert "内置替身" in says("天空为什么是蓝的")
    assert "built-in stand-in" in says("why is the sky blue")
    assert "内置替身" not in says("天空为什么是蓝的", "…", "草为什么是绿的")


def test_the_stand_in_remembers() -> None:
    assert "**小明**" in says("我叫小明", "你好", "我叫什么？")
    assert "**Ann**" in says("My name is Ann.", "Hi", "ok", "ok", "what is my name")
    assert "还没有告诉我" in says("我叫什么")
    group = ("林晓：我叫小林", "好", "王磊：我叫小王", "好")
    assert "**小林**" in says(*group, "林晓：我叫什么")
    assert "**小王**" in says(*group, "王磊：我叫什么")
    assert "钥匙在抽屉" in says("记住：钥匙在抽屉", "好", "我让你记住什么了")
    assert "1. 第一句" in says("第一句", "好", "我刚才说了什么")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("数到 12", r"10，11，12。$"),
        ("count to 12", r"10, 11, 12\.$"),
        ("请做一个表格", r"\| --- \|"),
        ("写一段代码", r"```python\n"),
        ("make a table please", r"\| Item \|"),
        ("12*12 是多少", r"= \*\*144\*\*"),
        ("7 / 0", "∞"),
        ("林晓：数到 3", "1，2，3。"),
        ("写一首诗", "鹊桥"),
        ("你好", "有什么想试的"),
        ("王磊：你好", "有什么想试的"),
        ("请翻译：你们", "> 请翻译：你们"),
        ("[林晓 09:30] 为什么", "> 为什么"),
    ],
)
def test_small_skills(question: str, expected: str) -> None:
    assert re.search(expected, says("先前", "好", question))


@pytest.mark.parametrize("size", [300, 3000])
def test_a_long_answer_is_as_long_as_asked(size: int) -> None:
    assert size <= len(says("x", "y", f"写一篇 {size} 字的文章")) < size * 1.2 + 300
    assert size <= len(says("x", "y", f"an essay of {size} words").split()) < size * 1.2 + 100


async def test_the_voice_streams_reasoning_first(session: aiohttp.ClientSession) -> None:
    clock = VirtualClock(settle=0.0)
    async with DeepSeekSim(clock, api_key=KEY) as sim:
        sim.slowness = 0.0
        found = await events(sim, session, ask("你是谁"))
        quiet = await events(sim, session, ask("你是谁", **OFF))
    thoughts = [bool(e["choices"][0]["delta"].get("reasoning_content")) for e in found[1:-2]]
    assert thoughts == sorted(thoughts, reverse=True) and thoughts[0] and not thoughts[-1]
    assert "reasoning_content" not in json.dumps(quiet)


async def test_a_speaker_of_ones_own(session: aiohttp.ClientSession) -> None:
    async def speaker(asked: Asked) -> Said:
        return Said((f"<{asked.question}>",))

    async with DeepSeekSim(SystemClock(), api_key=KEY) as sim:
        sim.answer_with(speaker)
        sim.script(lambda asked: asked.question == "once", "scripted", times=1)
        answers = [(await post(sim, session, ask("once")))[1] for _ in range(2)]
    texts = [found["choices"][0]["message"]["content"] for found in answers]
    assert texts == ["scripted", "<once>"]
