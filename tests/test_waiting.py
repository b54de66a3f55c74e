"""Order and fairness (needs.md 20): lanes, the card of a turn that waits, hung models."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.playground.deepseek import Said, Trouble
from adapters.playground.deepseek.asked import Asked
from adapters.playground.dingtalk.wire import EMOTION_RECALL
from adapters.playground.faults import Fault
from adapters.playground.feishu.wire import CARD_CREATE, REPLY, UNREACT

PLATFORMS = ("feishu", "dingtalk")


async def until(house: Any, true: Any, seconds: float = 15.0) -> Any:
    return await house.feishu.wait_for(true, seconds)


def waits(room: Any, ahead: int) -> Any:
    """The cards that say this position."""
    return [b for b in room.answers() if f"前面还有 {ahead} 条" in b.small + b.text]


# ---------------------------------------------------------------- the waiting card


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_the_position_is_shown_and_its_card_becomes_the_answer(
    house: Any, platform: str
) -> None:
    house.deepseek.script("长", ["长", "答"], first=10.0)
    house.deepseek.script("短", ["短答"])
    await house.start()
    room = house.room(platform)
    first = await room.say("长")
    await until(house, room.answers)
    second, third = await room.say("短一"), await room.say("短二")
    await asyncio.sleep(0.1)
    assert len(room.answers()) == 1, "nothing is said about waiting at once"
    await house.clock.hurry(lambda: waits(room, 1) and waits(room, 2), step=0.5, most=10.0)
    cards = [b.id for b in room.answers()]
    assert len(cards) == 3
    await house.clock.hurry(lambda: room.answers()[0].text == "长答")
    for message in (first, second, third):
        await house.ended(platform, message)
    assert [b.text for b in await house.settled(room.answers, 3)] == ["长答", "短答", "短答"]
    assert [b.id for b in room.answers()] == cards, "the same cards"


async def test_the_position_goes_down(house: Any) -> None:
    for number in range(4):
        house.deepseek.script(f"问{number}", [f"答{number}"], first=8.0)
    await house.start()
    room = house.room("feishu")
    for number in range(4):
        await room.say(f"问{number}")
    await house.clock.hurry(lambda: len(room.answers()) == 4, step=0.5, most=15.0)
    shown = {n: waits(room, n)[0].id for n in (1, 2, 3)}
    await house.clock.hurry(lambda: room.answers()[0].text == "答0")

    def moved_up() -> bool:
        found = {n: [b.id for b in waits(room, n)] for n in (1, 2, 3)}
        return found == {1: [shown[2]], 2: [shown[3]], 3: []}

    await until(house, moved_up)


async def test_a_command_moves_nobody_up(house: Any) -> None:
    house.deepseek.script("问", ["答"], first=10.0)
    await house.start()
    room = house.room("feishu")
    for number in range(3):
        await room.say(f"问{number}")
    await house.clock.hurry(lambda: len(room.answers()) == 3, step=0.5, most=15.0)
    command = await room.say("/whoami")
    await house.ended("feishu", command)
    await asyncio.sleep(0.6)
    assert len(waits(room, 1)) == len(waits(room, 2)) == 1


async def test_one_taken_out_of_the_middle_moves_those_behind_up(house: Any) -> None:
    """Also one that has no card yet."""
    house.deepseek.script("问", ["答"], first=10.0)
    await house.start()
    room = house.room("feishu")
    await room.say("问0")
    middle = await room.say("问1")
    await room.say("问2")
    await room.sim.recall(middle)
    await house.ended("feishu", middle)
    await house.clock.hurry(lambda: len(room.answers()) == 2, step=0.5, most=15.0)
    assert waits(room, 1) and not waits(room, 2)


async def test_a_mark_while_waiting_and_none_afterwards(house: Any) -> None:
    house.deepseek.script("问", ["答"], first=0.5)
    await house.start()
    room = house.room("feishu")
    await room.say("问0")
    message = await room.say("问1")
    marks = lambda: room.sim.world.bubbles[message].reactions  # noqa: E731
    await until(house, marks)
    await house.ended("feishu", message)
    await until(house, lambda: not marks())


async def test_a_mark_does_not_outlive_the_process(house: Any) -> None:
    house.deepseek.script("问", ["答"], first=10.0)
    await house.start()
    room = house.room("feishu")
    await room.say("问0")
    message = await room.say("问1")
    marks = lambda: room.sim.world.bubbles[message].reactions  # noqa: E731
    await until(house, marks)
    await house.stop()
    assert not marks()


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_mark_does_not_outlive_a_process_that_died(house: Any, platform: str) -> None:
    """It was the head of its lane when the process died, before the mark was taken back."""
    house.dingtalk_keys["receipts"] = True
    house.deepseek.script("慢", ["字"] * 10, pace=0.05)
    house.deepseek.script("后", ["答"], first=10.0)
    await house.start()
    room = house.room(platform)
    first = await room.say("慢")
    await room.growing("字")
    stuck = Fault("hang", seconds=1e6)
    room.sim.faults.order_any((UNREACT, EMOTION_RECALL), stuck, 1e9)
    message = await room.say("后")
    marks = lambda: room.sim.world.bubbles[message].reactions  # noqa: E731
    await until(house, marks)
    await house.ended(platform, first)
    await until(house, lambda: house.deepseek.open_streams)
    await house.crash()
    assert marks()
    room.sim.faults.clear()
    await house.start()
    await until(house, lambda: not marks())
    await house.clock.hurry(lambda: not len(house.app.lanes))


async def test_without_cards_nothing_is_said_about_waiting(house: Any) -> None:
    house.dingtalk_keys["card_template_id"] = ""
    house.deepseek.script("问", ["答"], first=60.0)
    await house.start()
    room = house.room("dingtalk")
    await room.say("问0")
    second = await room.say("问1")
    await until(house, lambda: len(house.dingtalk.acks) == 2)
    for _ in range(10):
        house.clock.leap(1.0)
        await asyncio.sleep(0.02)
    assert room.answers() == []
    await room.say("/stop")
    found = await house.settled(room.answers, 2)
    assert sorted("取消了 1 条" in b.text for b in found) == [False, True]
    turn = await house.ended("dingtalk", second)
    assert turn.state == "stopped" and turn.ending.delivery == "delivered"
    await asyncio.sleep(0.3)
    assert len(room.answers()) == 2, "the command's reply, and the end of what ran"


async def test_two_who_end_one_waiting_card_do_not_write_at_once(house: Any) -> None:
    """The command closes it and its lane comes to it: one after the other."""
    house.feishu.policy.latency = 0.2
    house.deepseek.script("问", ["答"], first=60.0)
    await house.start()
    room = house.room("feishu")
    await room.say("问0")
    second = await room.say("问1")
    opening = lambda: len(house.feishu.calls_of(CARD_CREATE)) == 2  # noqa: E731
    await house.clock.hurry(opening, step=0.5, most=10.0)
    await room.say("/stop")
    turn = await house.ended("feishu", second)
    assert turn.state == "stopped" and turn.ending.delivery == "delivered"
    await house.settled(room.answers, 3)
    assert house.complaints() == []


async def test_a_waiting_card_that_cannot_be_opened(house: Any) -> None:
    """The answer comes all the same."""
    house.feishu.policy.missing_scopes = {"cardkit:card:write"}
    house.deepseek.script("问", ["答"], first=8.0)
    await house.start()
    room = house.room("feishu")
    await room.say("问0")
    await room.say("问1")
    await house.clock.hurry(
        lambda: [b.text for b in room.answers() if not b.streaming] == ["答", "答"], step=0.5
    )
    assert len(room.answers()) == 2


async def test_a_waiting_card_goes_on_after_a_restart(house: Any) -> None:
    house.deepseek.script("问0", ["答0"], first=10.0)
    house.deepseek.script("问1", ["答1"])
    await house.start()
    room = house.room("feishu")
    await room.say("问0")
    second = await room.say("问1")
    await house.clock.hurry(lambda: waits(room, 1), step=0.5, most=10.0)
    cards = [b.id for b in room.answers()]
    house.deepseek.script("问0", ["答0"])
    await house.restart()
    await house.ended("feishu", second)
    assert [(b.id, b.text) for b in await house.settled(room.answers, 2)] == [
        (cards[0], "答0"),
        (cards[1], "答1"),
    ]
    assert house.complaints() == []


async def test_the_position_is_told_again_after_a_restart(house: Any) -> None:
    house.deepseek.script("问", ["答"], first=600.0)
    await house.start()
    room = house.room("feishu")
    for number in range(3):
        await room.say(f"问{number}")
    await house.clock.hurry(lambda: waits(room, 1) and waits(room, 2), step=0.5, most=10.0)
    cards = {b.id for b in room.answers()}
    await house.restart()
    await room.say("问3")
    await house.clock.hurry(lambda: waits(room, 3), step=0.5, most=10.0)
    house.deepseek.script("问", ["答"])
    await room.say("/stop")
    await until(house, lambda: not any(b.streaming for b in room.answers()))
    assert cards < {b.id for b in room.answers()}
    assert len([b for b in room.answers() if "已停止" in b.small + b.text]) >= 4
    assert house.complaints() == []


async def test_ten_quick_messages_ten_answers_in_order(house: Any) -> None:
    house.deepseek.answer_with(_echo)
    await house.start()
    room = house.room("dingtalk", "group")
    messages = [await room.say(f"第{n}问") for n in range(10)]
    for message in messages:
        await house.ended("dingtalk", message, 30)
    asked = [request.question.split()[-1] for request in house.deepseek.requests]
    assert asked == [f"第{n}问" for n in range(10)]
    assert house.complaints() == []


def _echo(asked: Asked) -> Said:
    return Said(["关于" + asked.question])


# ---------------------------------------------------------------- fairness


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_one_person_does_not_wait_for_another_in_a_group(house: Any, platform: str) -> None:
    house.deepseek.script("慢", ["慢答"], first=600.0)
    house.deepseek.script("快", ["快答"])
    await house.start()
    room = house.room(platform, "group")
    await room.say("慢", who=0)
    quick = await room.say("快", who=1)
    turn = await house.ended(platform, quick)
    assert turn.ending.text == "快答"
    assert [b.text for b in room.answers() if not b.streaming] == ["快答"]


async def test_a_whole_chat_in_order_by_setting(house: Any) -> None:
    house.chat = replace(house.chat, lane="chat")
    house.deepseek.script("慢", ["慢答"], first=8.0)
    house.deepseek.script("快", ["快答"])
    await house.start()
    room = house.room("feishu", "group")
    slow = await room.say("慢", who=0)
    await until(house, room.answers)
    quick = await room.say("快", who=1)
    await house.clock.hurry(lambda: waits(room, 1), step=0.5, most=10.0)
    await house.clock.hurry(lambda: room.answers()[0].text == "慢答")
    first, second = await house.ended("feishu", slow), await house.ended("feishu", quick)
    assert (first.ending.text, second.ending.text) == ("慢答", "快答")


# ---------------------------------------------------------------- hung models


@pytest.mark.parametrize(
    ("limit", "trouble"),
    [
        ("first_data", Trouble("queue", seconds=10_000.0)),
        ("silence", Trouble("stall", after=1, seconds=10_000.0)),
    ],
)
async def test_a_hung_model_is_cut_and_the_lane_goes_on(
    house: Any, limit: str, trouble: Trouble
) -> None:
    house.model_keys[limit] = 15.0
    house.deepseek.script("挂", ["半", "句"])
    house.deepseek.script("好", ["好答"])
    house.deepseek.order(trouble, times=1)
    await house.start()
    room = house.room("feishu")
    hung = await room.say("挂")
    await until(house, lambda: house.deepseek.open_streams)
    after = await room.say("好")
    await house.clock.hurry(lambda: any(b.text == "好答" for b in room.answers()), most=200.0)
    turn = await house.ended("feishu", hung)
    assert turn.state == "failed" and turn.ending.note
    assert (await house.ended("feishu", after)).state == "answered"
    assert house.feishu.open_cards() == []


async def test_an_answer_that_never_ends_is_cut(house: Any) -> None:
    house.model_keys["whole"] = 20.0
    house.deepseek.script("无尽", ["字"] * 400, pace=1.0)
    house.deepseek.script("好", ["好答"])
    await house.start()
    room = house.room("feishu")
    endless = await room.say("无尽")
    await room.growing("字")
    await room.say("好")
    await house.clock.hurry(lambda: any(b.text == "好答" for b in room.answers()), most=300.0)
    turn = await house.ended("feishu", endless)
    assert turn.state == "failed" and set(turn.ending.text) == {"字"}
    assert room.answers()[0].text == turn.ending.text


# ---------------------------------------------------------------- a platform that is slow


@pytest.mark.parametrize("route", [CARD_CREATE, REPLY])
async def test_the_model_is_called_while_the_card_is_opened(house: Any, route: str) -> None:
    house.deepseek.script("问", ["答"])
    house.feishu.faults.order(route, Fault("delay", seconds=600.0))
    await house.start()
    room = house.room("feishu")
    message = await room.say("问")
    await until(house, lambda: house.deepseek.finished and house.feishu.calls_of(route))
    assert room.answers() == []
    house.clock.leap(600.0)
    await house.ended("feishu", message)
    assert (await room.answer()).text == "答"
