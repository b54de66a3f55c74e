"""bot/model_health.py, alone and in the whole house: red when no question can be answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.playground.faults import Fault
from bot.errors import (
    AuthError,
    BorderError,
    Bug,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    RefusedContent,
    TooBig,
    Transient,
    Uncertain,
)
from bot.model_health import IN_A_ROW, ModelHealth

PLATFORMS = ("feishu", "dingtalk")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AuthError("HTTP 401"), "DEEPSEEK_API_KEY"),
        (PermissionDenied("HTTP 403"), "DEEPSEEK_API_KEY"),
        (QuotaExhausted("HTTP 402"), "充值"),
    ],
)
def test_what_every_question_meets_is_told_at_once(error: BorderError, words: str) -> None:
    health = ModelHealth()
    assert health.problem == ""
    health.failed("t1", error)
    assert words in health.problem and str(error) in health.problem and " / " in health.problem
    health.failed("t2", Transient("HTTP 503"))
    assert words in health.problem, "the reason that lasts stands"
    health.answered()
    assert health.problem == ""


@pytest.mark.parametrize("error", [Transient("x"), Uncertain("x"), RateLimited("x"), Bug("x")])
def test_what_may_pass_is_told_when_several_turns_met_it(error: BorderError) -> None:
    health = ModelHealth()
    for number in range(IN_A_ROW):
        assert health.problem == ""
        for _ in range(IN_A_ROW):
            health.failed(f"t{number}", error)
    assert "最近的几个问题" in health.problem


def test_an_answer_between_begins_the_count_anew() -> None:
    health = ModelHealth()
    for number in range(IN_A_ROW * 3):
        health.failed(f"t{number}", Transient("x"))
        if number % 2:
            health.answered()
    assert health.problem == ""


def test_a_question_of_its_own_fault_says_nothing() -> None:
    health = ModelHealth()
    for number in range(IN_A_ROW * 2):
        health.failed(f"t{number}", RefusedContent("x"))
        health.failed(f"u{number}", TooBig("x"))
    assert health.problem == ""


# ---------------------------------------------------------------- the house


async def value(house: Any, name: str) -> float:
    (one,) = [m.value for m in await house.app.office.metrics() if m.name == name]
    return float(one)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_refused_key_is_red_until_somebody_is_answered(house: Any, platform: str) -> None:
    house.deepseek.script("问", ["答"])
    key, house.deepseek.api_key = house.deepseek.api_key, "sk-another"
    house.model_keys["api_key"] = key
    await house.start()
    office, room = house.app.office, house.room(platform)
    assert await office.problems() == [] and await value(house, "queqiao_model_answers") == 1
    turn = await house.ended(platform, await room.say("问"))
    assert turn.state == "failed"
    (problem,) = await office.problems()
    assert "DEEPSEEK_API_KEY" in problem and " / the model service" in problem
    assert key not in problem
    assert not (await office.status())["ready"] and not (await office.live())["ready"]
    assert await value(house, "queqiao_model_answers") == 0
    await room.say("/status")
    assert "DEEPSEEK_API_KEY" in (await room.answer(2)).text
    house.deepseek.api_key = key
    await house.ended(platform, await room.say("问"))
    assert await office.problems() == [] and await value(house, "queqiao_model_answers") == 1


async def test_a_service_that_is_down_is_red_after_a_few_questions(house: Any) -> None:
    house.deepseek.script("问", ["答"])
    await house.start()
    room = house.room("feishu")
    house.deepseek.faults.order_any(("chat",), Fault("status", status=500, body={}), 1e9)
    for _ in range(IN_A_ROW):
        assert await house.app.office.problems() == []
        ended = asyncio.create_task(house.ended("feishu", await room.say("问")))
        await house.clock.hurry(ended.done)
        assert (await ended).state == "failed"
    (problem,) = await house.app.office.problems()
    assert "最近的几个问题" in problem and "500" in problem
    house.deepseek.faults.clear()
    await house.ended("feishu", await room.say("问"))
    assert await house.app.office.problems() == []
