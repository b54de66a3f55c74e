"""It waits for you to finish (needs.md 20, delight 10): pictures and a late line are one
question; quick lines stay separate by default."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.playground.deepseek import Said

PLATFORMS = ("feishu", "dingtalk")
PICTURE = {"feishu": "image", "dingtalk": "picture"}
GATHER = 1.5


async def acked(house: Any, platform: str, count: int) -> None:
    """So many messages are safe: no time passes before."""
    sim = house.sim(platform)

    def ready() -> bool:
        if platform == "feishu":
            return sum(at is not None for at in sim.acks.values()) >= count
        return len(sim.acks) >= count

    await sim.wait_for(ready, 15)


async def pictures(room: Any, count: int) -> list[str]:
    return [await room.say("", kind=PICTURE[room.platform]) for _ in range(count)]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_three_pictures_and_a_line_are_one_turn(house: Any, platform: str) -> None:
    house.deepseek.script("这些", ["三张图"])
    await house.start()
    room = house.room(platform)
    shown = await pictures(room, 3)
    await acked(house, platform, 3)
    shown.append(await room.say("这些是什么？"))
    await acked(house, platform, 4)
    house.clock.leap(GATHER)
    turns = {(await house.ended(platform, message)).id for message in shown}
    assert len(turns) == 1
    card = await room.answer()
    assert card.text == "三张图" and "图片" in card.small
    (asked,) = house.deepseek.requests
    assert asked.question.count("图片") == 3 and asked.question.endswith("这些是什么？")


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_pictures_alone_get_one_sentence(house: Any, platform: str) -> None:
    await house.start()
    room = house.room(platform)
    shown = await pictures(room, 3)
    await acked(house, platform, 3)
    house.clock.leap(GATHER)
    turn = await house.ended(platform, shown[-1])
    assert turn.state == "refused" and turn.ending.delivery == "delivered"
    assert "图片" in (await room.answer()).text
    assert house.deepseek.requests == []


async def test_each_picture_prolongs_the_wait(house: Any) -> None:
    house.deepseek.script("这些", ["两张图"])
    await house.start()
    room = house.room("feishu")
    for count in (1, 2):
        await pictures(room, 1)
        await acked(house, "feishu", count)
        house.clock.leap(GATHER - 0.3)
    message = await room.say("这些是什么？")
    await acked(house, "feishu", 3)
    house.clock.leap(GATHER)
    await house.ended("feishu", message)
    assert (await room.answer()).text == "两张图"


async def test_a_line_that_comes_later_is_another_turn(house: Any) -> None:
    house.deepseek.script("这", ["答"])
    await house.start()
    room = house.room("feishu")
    (picture,) = await pictures(room, 1)
    await acked(house, "feishu", 1)
    house.clock.leap(GATHER + 1.0)
    await house.ended("feishu", picture)
    message = await room.say("这是什么？")
    await house.ended("feishu", message)
    found = await house.settled(room.answers, 2)
    assert "图片" in found[0].text and found[1].text == "答"


@pytest.mark.parametrize("kind", ["p2p", "group"])
async def test_quick_lines_are_separate_by_default(house: Any, kind: str) -> None:
    house.deepseek.script("第一", ["答一"])
    house.deepseek.script("第二", ["答二"])
    await house.start()
    room = house.room("feishu", kind)
    first, second = await room.say("第一句"), await room.say("第二句")
    assert (await house.ended("feishu", first)).ending.text == "答一"
    assert (await house.ended("feishu", second)).ending.text == "答二"
    assert len(house.deepseek.requests) == 2


async def test_quick_lines_become_one_by_setting(house: Any) -> None:
    house.chat = replace(house.chat, gather_text=True)
    house.deepseek.script("第二", ["一个回答"])
    await house.start()
    room = house.room("dingtalk")
    first, second = await room.say("第一句"), await room.say("第二句")
    await acked(house, "dingtalk", 2)
    house.clock.leap(GATHER)
    turns = [await house.ended("dingtalk", message) for message in (first, second)]
    assert turns[0].id == turns[1].id
    assert house.deepseek.requests[-1].question.endswith("第一句\n第二句")
    third = await room.say("第三句")
    await acked(house, "dingtalk", 3)
    house.clock.leap(GATHER)
    assert (await house.ended("dingtalk", third)).id != turns[0].id


async def test_a_picture_that_could_not_be_claimed_binds_nobody(house: Any) -> None:
    house.dingtalk.policy.keep_without_link = False
    house.dingtalk.policy.redeliver_after = ()
    await house.start()
    room = house.room("dingtalk")
    broken = await house.breakable()
    broken.set()
    await room.say("", kind=PICTURE["dingtalk"])
    await asyncio.sleep(0.2)
    await house.clock.hurry(lambda: house.dingtalk.lost or house.dingtalk.acks, most=120.0)
    broken.clear()
    house.deepseek.answer_with(lambda asked: Said([f"关于{asked.question.split()[-1]}"]))
    for word in ("一", "二", "三"):
        await room.say(word)
    found = await house.settled(room.answers, 4)
    assert "无法保存" in found[0].text
    assert [b.text for b in found[1:]] == ["关于一", "关于二", "关于三"]


async def test_gathering_can_be_switched_off(house: Any) -> None:
    house.chat = replace(house.chat, gather=0.0)
    await house.start()
    room = house.room("feishu")
    shown = await pictures(room, 2)
    turns = {(await house.ended("feishu", message)).id for message in shown}
    assert len(turns) == 2
    assert len(await house.settled(room.answers, 2)) == 2


async def test_another_person_s_line_does_not_join(house: Any) -> None:
    """In DingTalk groups a picture can mention the bot."""
    house.deepseek.script("这", ["答"])
    await house.start()
    room = house.room("dingtalk", "group")
    picture = await room.say("", who=0, kind="picture")
    await acked(house, "dingtalk", 1)
    other = await room.say("这是什么？", who=1)
    turn = await house.ended("dingtalk", other)
    assert turn.ending.text == "答" and "图片" not in house.deepseek.requests[-1].question
    house.clock.leap(GATHER)
    assert (await house.ended("dingtalk", picture)).state == "refused"


async def test_one_lane_for_all_keeps_people_apart(house: Any) -> None:
    house.chat = replace(house.chat, lane="chat")
    house.deepseek.script("这", ["答"])
    await house.start()
    room = house.room("dingtalk", "group")
    picture = await room.say("", who=0, kind="picture")
    await acked(house, "dingtalk", 1)
    other = await room.say("这是什么？", who=1)
    await acked(house, "dingtalk", 2)
    house.clock.leap(GATHER)
    first, second = await house.ended("dingtalk", picture), await house.ended("dingtalk", other)
    assert (first.state, second.state) == ("refused", "answered") and first.id != second.id


async def test_stop_while_it_gathers(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    shown = await pictures(room, 2)
    await acked(house, "feishu", 2)
    await room.say("/stop")
    assert "取消" in (await room.answer()).text or "停止" in room.answers()[0].text
    turn = await house.ended("feishu", shown[0])
    assert turn.state == "stopped"
    house.clock.leap(GATHER)
    house.deepseek.script("之后", ["好答"])
    message = await room.say("之后")
    assert (await house.ended("feishu", message)).ending.text == "好答"
    assert len(room.answers()) == 2 and house.feishu.open_cards() == []


async def test_pictures_behind_a_running_answer_wait_for_their_line(house: Any) -> None:
    house.deepseek.script("慢", ["慢答"], first=8.0)
    house.deepseek.script("这些", ["图答"])
    await house.start()
    room = house.room("feishu")
    await room.say("慢")
    await acked(house, "feishu", 1)
    shown = await pictures(room, 2)
    await acked(house, "feishu", 3)
    line = await room.say("这些是什么？")
    await acked(house, "feishu", 4)
    await house.clock.hurry(lambda: any(b.text == "图答" for b in room.answers()))
    turns = {(await house.ended("feishu", message)).id for message in (*shown, line)}
    assert len(turns) == 1 and len(house.deepseek.requests) == 2


async def test_what_was_gathered_survives_a_crash(house: Any) -> None:
    house.deepseek.script("这些", ["三张图"])
    await house.start()
    room = house.room("feishu")
    shown = await pictures(room, 2)
    shown.append(await room.say("这些是什么？"))
    await acked(house, "feishu", 3)
    await house.crash()
    await house.start()
    house.clock.leap(GATHER)
    assert len({(await house.ended("feishu", message)).id for message in shown}) == 1
    assert (await room.answer()).text == "三张图"
    assert house.deepseek.requests[-1].question.count("图片") == 2


async def test_recall_of_one_of_them_recalls_the_question(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    shown = await pictures(room, 2)
    shown.append(await room.say("这些是什么？"))
    await acked(house, "feishu", 3)
    await room.sim.recall(shown[-1])
    assert (await house.ended("feishu", shown[0])).state == "recalled"
    house.clock.leap(GATHER)
    await asyncio.sleep(0.2)
    assert room.answers() == [] and house.deepseek.requests == []
