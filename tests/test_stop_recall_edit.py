"""Stop, recall and edit act at once (needs.md 24)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from adapters.playground.deepseek import Said
from adapters.playground.deepseek.asked import Asked
from adapters.playground.faults import Fault
from adapters.playground.feishu.wire import CARD_UPDATE, GET_MESSAGE, REPLY
from bot.answer import REREAD_SECONDS
from bot.contract import CardAction, words_of

PLATFORMS = ("feishu", "dingtalk")
SOON = 10.0
"""Seconds of a busy machine for what takes a tenth of one when it is idle."""


async def until(house: Any, true: Any, seconds: float = SOON) -> Any:
    return await house.feishu.wait_for(true, seconds)


def endless(house: Any, word: str = "说") -> None:
    house.deepseek.script(word, ["字"] * 2000, pace=0.05)


async def running(house: Any, room: Any, word: str = "说", who: int = 0) -> tuple[str, Any]:
    """A question whose answer grows without end: its message and its card."""
    endless(house, word)
    message = await room.say(word, who=who)
    return message, await room.growing("字")


def said(bubble: Any) -> str:
    return bubble.text + bubble.small


# ---------------------------------------------------------------- stop


@pytest.mark.parametrize("word", ["/stop", "停止", "/停止"])
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_stop_ends_what_runs_and_the_next_message_works(
    house: Any, platform: str, word: str
) -> None:
    house.deepseek.script("之后", ["好答"])
    await house.start()
    room = house.room(platform)
    message, card = await running(house, room)
    await room.say(word)
    await until(house, lambda: house.deepseek.cancelled == 1)
    turn = await house.ended(platform, message)
    assert turn.state == "stopped" and set(turn.ending.text) == {"字"}
    found = await house.settled(room.answers, 2)
    assert found[0].id == card.id and found[0].text == turn.ending.text
    assert "已停止" in found[0].small
    await room.say("之后")
    assert (await room.answer(3)).text == "好答"
    assert house.deepseek.requests[-1].said("assistant") == [turn.ending.text]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shown", [False, True])
async def test_stop_ends_what_waits_too(house: Any, platform: str, shown: bool) -> None:
    """With a waiting card and without one."""
    await house.start()
    room = house.room(platform)
    await running(house, room)
    waiting = [await room.say("说二"), await room.say("说三")]
    lanes = house.app.answerer.waiting._lanes
    await until(house, lambda: sum(map(len, lanes.values())) == 2)
    if shown:
        await house.clock.hurry(lambda: len(room.answers()) == 3, step=0.5, most=10.0)
    await room.say("停止")
    for message in waiting:
        turn = await house.ended(platform, message)
        assert turn.state == "stopped" and turn.ending.delivery == "delivered"
    found = await house.settled(room.answers, 4 if shown else 2)
    assert sum("取消了 2 条" in said(b) for b in found) == 1
    assert all("停止" in said(b) for b in found), [said(b) for b in found]
    assert len(house.deepseek.requests) == 1
    house.deepseek.script("之后", ["好答"])
    await room.say("之后")
    assert (await room.answer(len(found) + 1)).text == "好答"


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_the_button_of_a_waiting_card(house: Any, platform: str) -> None:
    await house.start()
    room = house.room(platform)
    await running(house, room)
    message = await room.say("说二")
    await house.clock.hurry(lambda: len(room.answers()) == 2, step=0.5, most=10.0)
    await room.press(room.answers()[1], "停止")
    await until(house, lambda: not room.answers()[1].streaming)
    assert "已停止" in said(room.answers()[1]) and room.answers()[0].streaming
    assert house.deepseek.open_streams == 1, "what runs goes on"
    await room.say("/stop")
    assert (await house.ended(platform, message)).state == "stopped"
    assert "已停止" in said((await house.settled(room.answers, 3))[1])


async def test_a_waiting_card_of_an_earlier_process_is_stopped_at_once(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    await running(house, room)
    await room.say("说二")
    await house.clock.hurry(lambda: len(room.answers()) == 2, step=0.5, most=10.0)
    await house.crash()
    await house.start()
    await until(house, lambda: house.deepseek.open_streams == 1)
    await room.press(room.answers()[1], "停止")
    await until(house, lambda: not room.answers()[1].streaming)
    assert "已停止" in said(room.answers()[1]) and room.answers()[0].streaming


async def test_the_stop_button_pressed_twice_is_one_effect(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    message, card = await running(house, room)
    toasts = await asyncio.gather(*(room.press(card, "停止") for _ in range(2)))
    assert all(toast.get("content") for toast in toasts)
    assert (await house.ended("feishu", message)).state == "stopped"
    await room.answer()


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_what_is_asked_after_a_stop_is_answered(
    house: Any, platform: str, runs: bool
) -> None:
    house.deepseek.script("之后", ["好答"])
    await house.start()
    room = house.room(platform)
    if runs:
        await running(house, room)
    _, after = await asyncio.gather(room.say("/stop"), room.say("之后"))
    turn = await house.ended(platform, after)
    assert (turn.state, turn.ending.text) == ("answered", "好答")
    found = await house.settled(room.answers, 3 if runs else 2)
    assert sorted("好答" in b.text for b in found)[-1]


async def test_nothing_to_stop(house: Any) -> None:
    house.deepseek.script("问", ["答"])
    await house.start()
    room = house.room("dingtalk")
    await house.ended("dingtalk", await room.say("问"))
    await room.say("/stop")
    assert "没有正在进行" in (await room.answer(2)).text
    assert room.answers()[0].text == "答"


# ---------------------------------------------------------------- whose


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_in_a_group_each_stops_their_own(house: Any, platform: str) -> None:
    await house.start()
    room = house.room(platform, "group")
    message, card = await running(house, room, who=0)
    stop = await room.say("/stop", who=1)
    assert "没有正在进行" in (await house.ended(platform, stop)).ending.text
    everything = await room.say("/stop all", who=1)
    assert "管理员" in (await house.ended(platform, everything)).ending.text
    toast = await room.press(card, "停止", who=1)
    assert "error" not in toast
    await asyncio.sleep(0.2)
    assert house.deepseek.open_streams == 1
    await room.press(card, "停止", who=0)
    assert (await house.ended(platform, message)).state == "stopped"


@pytest.mark.parametrize("how", ["button", "command"])
async def test_an_admin_stops_anybody(house: Any, how: str) -> None:
    room = house.room("feishu", "group", people=3)
    house.admins = {f"feishu:{room.people[2].open_id}"}
    await house.start()
    first, card = await running(house, room, "说", who=0)
    second = await room.say("说二", who=1)
    waiting = await room.say("说三", who=1)
    await until(house, lambda: house.deepseek.open_streams == 2)
    if how == "button":
        await room.press(card, "停止", who=2)
        assert (await house.ended("feishu", first)).state == "stopped"
        assert house.deepseek.open_streams == 1
        return
    await room.say("/stop all", who=2)
    for message in (first, second, waiting):
        assert (await house.ended("feishu", message)).state == "stopped"
    assert house.feishu.open_cards() == []


async def test_a_turn_named_by_a_button_of_another_chat(house: Any) -> None:
    """The chat comes from the verified event: no card ends an answer elsewhere."""
    await house.start()
    here, there = house.room("feishu"), house.room("feishu", "group")
    message, _ = await running(house, here)
    victim = await house.turn("feishu", message)
    forged = CardAction(
        "feishu", "feishu", "e", there.chat.id, victim.new.sender, "stop", victim.id
    )
    reply = await house.app.bot.action(forged)
    assert reply.kind == "warning"
    await asyncio.sleep(0.2)
    assert house.deepseek.open_streams == 1


# ---------------------------------------------------------------- recall


async def test_recall_of_a_running_question_closes_the_socket_and_takes_the_card_back(
    house: Any,
) -> None:
    house.deepseek.script("之后", ["好答"])
    await house.start()
    room = house.room("feishu")
    message, _ = await running(house, room)
    await room.sim.recall(message)
    await until(house, lambda: house.deepseek.cancelled == 1)
    turn = await house.ended("feishu", message)
    assert (turn.state, turn.ending.delivery) == ("recalled", "delivered")
    assert room.answers() == [] and house.feishu.open_cards() == []
    await room.say("之后")
    assert (await room.answer()).text == "好答"
    assert house.deepseek.requests[-1].said("assistant") == []
    assert house.complaints() == []


async def test_a_card_that_cannot_be_taken_back_is_closed(house: Any) -> None:
    house.feishu.policy.missing_scopes = {"im:message", "im:message:recall"}
    await house.start()
    room = house.room("feishu")
    message, _ = await running(house, room)
    await room.sim.recall(message)
    turn = await house.ended("feishu", message)
    assert (turn.state, turn.ending.delivery) == ("recalled", "delivered")
    card = await room.answer()
    assert "已撤回" in card.small and not card.streaming


async def test_recall_of_a_question_that_waits(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    await running(house, room)
    early, late = await room.say("说二"), await room.say("说三")
    await until(house, lambda: sum(at is not None for at in house.feishu.acks.values()) == 3)
    await room.sim.recall(early)
    assert (await house.ended("feishu", early)).state == "recalled"
    await house.clock.hurry(lambda: len(room.answers()) == 2, step=0.5, most=10.0)
    await room.sim.recall(late)
    await until(house, lambda: len(room.answers()) == 1)
    assert room.answers()[0].streaming, "what runs goes on"
    await room.say("/stop")
    assert (await house.ended("feishu", late)).state == "recalled"
    await room.answer(2)
    assert len(house.deepseek.requests) == 1


@pytest.mark.parametrize("told", [True, False])
async def test_on_dingtalk_a_recall_ends_the_answer_where_it_is_pushed(
    house: Any, told: bool
) -> None:
    """Whether it is, is not certain: a setting here, a switch of the simulator there."""
    house.dingtalk.policy.recall_events = told
    house.dingtalk_keys["recall_events"] = True
    await house.start()
    room = house.room("dingtalk")
    message, _ = await running(house, room)
    await house.dingtalk.recall(message)
    if not told:
        await asyncio.sleep(0.3)
        assert house.deepseek.cancelled == 0
        await room.say("/stop")
    turn = await house.ended("dingtalk", message)
    assert turn.state == ("recalled" if told else "stopped")
    await house.settled(room.answers)
    assert house.complaints(paced=False) == []


async def test_a_recall_that_could_not_be_stored_comes_again(house: Any) -> None:
    house.dingtalk.policy.recall_events = True
    house.dingtalk.policy.redeliver_after = (1.0,)
    house.dingtalk_keys["recall_events"] = True
    await house.start()
    room = house.room("dingtalk")
    await running(house, room)
    waiting = await room.say("之后")
    await until(house, lambda: len(house.dingtalk.acks) == 2)
    broken = await house.breakable()
    broken.set()
    await house.dingtalk.recall(waiting)
    await until(house, lambda: any(ack.code == 500 for ack in house.dingtalk.acks))
    broken.clear()
    assert (await house.ended("dingtalk", waiting)).state == "recalled"


async def test_a_recalled_question_that_nobody_could_answer_is_on_no_list(house: Any) -> None:
    """The send was cut off, and beside a message that is gone nothing can be said."""
    house.deepseek.script("问", ["慢答"], first=3.0)
    await house.start()
    room = house.room("feishu")
    house.feishu.faults.order(REPLY, Fault("drop"), times=2)
    message = await room.say("问")
    await until(house, lambda: house.feishu.calls_of(REPLY))
    await house.feishu.recall(message)
    turn = await house.ended("feishu", message)
    assert (turn.state, turn.ending.delivery) == ("recalled", "delivered")
    assert room.answers() == []
    assert await house.app.store.undelivered() == ()


async def test_recall_that_comes_before_its_message(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    house.feishu.cut_links()
    message = await room.say("说")
    await until(house, lambda: house.feishu.opened == 2 and house.feishu.links)
    await room.sim.recall(message)
    await until(house, lambda: any(house.feishu.acks.values()))
    house.clock.leap(20.0)
    await until(house, lambda: all(house.feishu.acks.values()))
    accounts = (await house.app.office.why(message))["accounts"]
    assert [(a["reason"], a["repeats"], a["turn"]) for a in accounts] == [("recalled", 1, None)]
    assert house.deepseek.requests == [] and room.answers() == []


async def test_recall_after_the_answer_takes_nothing_away(house: Any) -> None:
    house.deepseek.script("问", ["答"])
    await house.start()
    room = house.room("feishu", "group")
    message = await room.say("问")
    await house.ended("feishu", message)
    await room.sim.recall(message)
    await asyncio.sleep(0.3)
    turn = await house.turn("feishu", message)
    assert turn.state == "answered" and (await room.answer()).text == "答"


async def test_recall_while_the_last_update_is_under_way(house: Any) -> None:
    """The answer is whole: it stays."""
    house.deepseek.script("问", ["答"])
    house.feishu.faults.order(CARD_UPDATE, Fault("status", 500, 500, {"code": 300120}), times=2)
    await house.start()
    room = house.room("feishu", "group")
    message = await room.say("问")
    await until(house, lambda: any(r.decided for r in house.app.lanes))
    await room.sim.recall(message)
    turn = await house.ended("feishu", message)
    assert turn.state == "answered" and (await room.answer()).text == "答"


# ---------------------------------------------------------------- edit


def heard(asked: Asked) -> Said:
    return Said(["关于：" + asked.question.split("\n")[-1]])


async def test_an_edited_question_that_waited_is_answered_as_it_reads_now(house: Any) -> None:
    house.deepseek.answer_with(heard)
    house.deepseek.script("慢", ["慢答"], first=11.5)
    await house.start()
    room = house.room("feishu")
    await room.say("慢")
    message = await room.say("旧问题")
    house.feishu.edit(message, "新问题")
    await house.clock.hurry(lambda: any(b.text == "慢答" for b in room.answers()))
    turn = await house.ended("feishu", message)
    assert turn.ending.text == "关于：新问题"
    assert [moment.what for moment in turn.ending.trail].count("edited") >= 1
    await room.say("再问")
    await room.answer(3)
    assert house.deepseek.requests[-1].said("user")[-2].endswith("新问题")


async def test_an_edit_that_adds_a_picture_counts_too(house: Any) -> None:
    house.deepseek.answer_with(lambda asked: Said([f"关于{asked.question.split()[-1]}"]))
    house.deepseek.script("慢", ["慢答"], first=11.5)
    await house.start()
    room = house.room("feishu")
    await room.say("慢")
    message = await room.say("旧问题")
    await until(house, lambda: len(house.feishu.acks) == 2)
    stored = house.feishu.world.messages[message]
    lines = [[{"tag": "text", "text": "新问题"}, {"tag": "img", "image_key": "img_x"}]]
    stored.msg_type, stored.content = "post", json.dumps({"title": "", "content": lines})
    await house.clock.hurry(lambda: any(b.text == "慢答" for b in room.answers()))
    turn = await house.ended("feishu", message)
    assert "新问题" in words_of(turn.new.parts)
    assert "edited" in [moment.what for moment in turn.ending.trail]


async def test_an_edit_within_ten_seconds_costs_no_call(house: Any) -> None:
    house.deepseek.answer_with(heard)
    house.deepseek.script("慢", ["慢答"], first=0.3)
    await house.start()
    room = house.room("feishu")
    await room.say("慢")
    message = await room.say("旧问题")
    house.feishu.edit(message, "新问题")
    assert (await house.ended("feishu", message)).ending.text == "关于：旧问题"
    assert house.feishu.calls_of("get_message") == []


async def test_a_question_that_cannot_be_read_again_is_answered_as_it_was(house: Any) -> None:
    house.feishu.policy.missing_scopes = {"im:message:readonly", "im:message"}
    house.deepseek.answer_with(heard)
    house.deepseek.script("慢", ["慢答"], first=11.5)
    await house.start()
    room = house.room("feishu")
    await room.say("慢")
    message = await room.say("旧问题")
    house.feishu.edit(message, "新问题")
    await house.clock.hurry(lambda: any(b.text == "慢答" for b in room.answers()))
    assert (await house.ended("feishu", message)).ending.text == "关于：旧问题"
    assert house.feishu.calls_of("get_message")


async def test_a_question_recalled_while_it_is_read_again_does_not_leave(house: Any) -> None:
    house.deepseek.script("慢", ["慢答"], first=11.5)
    house.feishu.faults.order(GET_MESSAGE, Fault("hang", seconds=60.0))
    await house.start()
    room = house.room("feishu")
    await room.say("慢")
    message = await room.say("说错了")
    await house.clock.hurry(lambda: house.feishu.calls_of("get_message"), 0.5)
    await house.feishu.recall(message)
    await until(house, lambda: all(house.feishu.acks.values()))
    house.clock.leap(REREAD_SECONDS)
    turn = await house.ended("feishu", message)
    assert turn.state == "recalled"
    (asked,) = house.deepseek.requests
    assert asked.question.endswith("慢")


async def test_on_dingtalk_the_words_stay_as_they_came(house: Any) -> None:
    """Its messages can neither be edited nor read again."""
    house.deepseek.answer_with(heard)
    house.deepseek.script("慢", ["慢答"], first=11.5)
    await house.start()
    room = house.room("dingtalk")
    await room.say("慢")
    message = await room.say("问题")
    await house.clock.hurry(lambda: any(b.text == "慢答" for b in room.answers()))
    assert (await house.ended("dingtalk", message)).ending.text == "关于：问题"
