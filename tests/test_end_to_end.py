"""A message goes in, a card streams out: the real bot between simulated services."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from adapters.playground.deepseek import Said, Trouble
from adapters.playground.deepseek.asked import Asked
from adapters.playground.feishu.events import received
from adapters.playground.view import Bubble
from bot.settings import Chat

PLATFORMS = ("feishu", "dingtalk")


class Place:
    """One chat of one platform, and who writes in it."""

    def __init__(self, house: Any, platform: str, kind: str, people: int = 2) -> None:
        self.sim = house.sim(platform)
        self.house = house
        self.people = [self.sim.add_person(f"人{n}") for n in range(people)]
        group = kind == "group"
        self.chat = self.sim.add_group("群", self.people) if group else self.sim.p2p(self.people[0])
        self.group = group

    async def say(self, text: str, who: int = 0, *, bot: bool = True, **more: Any) -> str:
        mention = bot and self.group
        person = self.people[who]
        message: str = await self.sim.say(self.chat, person, text, mention_bot=mention, **more)
        return message

    def answers(self) -> list[Bubble]:
        found: list[Bubble] = self.sim.bot_bubbles(self.chat)
        return found

    async def answer(self, count: int = 1, timeout: float = 15.0) -> Bubble:
        found = await self.house.settled(self.answers, count, timeout)
        assert len(found) == count, [b.text for b in found]
        return found[-1]


@pytest.mark.parametrize("kind", ["p2p", "group"])
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_question_is_answered_in_its_chat(house: Any, platform: str, kind: str) -> None:
    house.deepseek.script("你好", ["你", "好", "，", "世界"], pace=0.02)
    await house.start()
    place = Place(house, platform, kind)
    await place.say("你好")
    bubble = await place.answer()
    assert bubble.text == "你好，世界"
    assert bubble.kind == "card" and not bubble.pings
    asked = house.deepseek.requests[-1]
    assert asked.question.endswith("你好") and "@" not in asked.question
    assert house.complaints() == []


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_what_is_not_for_the_bot_is_ignored(house: Any, platform: str) -> None:
    house.feishu.policy.hears_all = True
    await house.start()
    place = Place(house, platform, "group")
    await place.say("大家好", bot=False)
    await place.say("开会了", bot=False, mention_all=True)
    await place.say("现在回答我")
    bubble = await place.answer()
    assert bubble.text
    assert len(house.deepseek.requests) == 1


@pytest.mark.parametrize("kind", ["p2p", "group"])
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_five_quick_messages_are_answered_in_order(
    house: Any, platform: str, kind: str
) -> None:
    seen: list[list[str]] = []

    def speak(asked: Asked) -> Said:
        seen.append([text for text in asked.said("assistant")])
        number = re.search(r"第(\d)问", asked.question)
        assert number is not None
        return Said([f"第{number[1]}答"], first=0.05)

    house.deepseek.answer_with(speak)
    await house.start()
    place = Place(house, platform, kind)
    for number in range(5):
        await place.say(f"第{number}问")
    await place.answer(5)
    assert [b.text for b in place.answers()] == [f"第{n}答" for n in range(5)]
    assert seen == [[f"第{m}答" for m in range(n)] for n in range(5)]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_each_event_three_times_is_answered_once(house: Any, platform: str) -> None:
    await house.start()
    place = Place(house, platform, "p2p")
    await place.say("只答一次", times=3)
    await place.answer()
    await asyncio.sleep(0.3)
    assert len(place.answers()) == 1
    assert len(house.deepseek.requests) == 1


async def test_a_hundred_chats_at_once_each_its_own_answer(house: Any) -> None:
    def speak(asked: Asked) -> Said:
        nonce = re.search(r"n\d+x", asked.question)
        assert nonce is not None
        return Said(["答案 ", nonce[0], " 完"], pace=0.05)

    house.deepseek.answer_with(speak)
    house.feishu_keys["pace"] = 0.3
    await house.start()
    places = [Place(house, PLATFORMS[n % 2], "p2p", people=1) for n in range(100)]
    await asyncio.gather(*(place.say(f"问 n{n}x") for n, place in enumerate(places)))
    for number, place in enumerate(places):
        bubble = await place.answer(timeout=60)
        assert bubble.text == f"答案 n{number}x 完"
    assert house.complaints(paced=False) == []


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_memory_survives_a_restart(house: Any, platform: str) -> None:
    await house.start()
    place = Place(house, platform, "p2p")
    await place.say("我叫小明")
    await place.answer()
    await house.restart()
    await place.say("我叫什么？")
    bubble = await place.answer(2)
    assert "小明" in bubble.text


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_restart_in_the_middle_of_an_answer(house: Any, platform: str) -> None:
    """The same card goes on; the message is answered once."""
    pieces = [f"第{n}段。" for n in range(40)]
    house.deepseek.script("长篇", pieces, pace=0.05)
    await house.start()
    place = Place(house, platform, "p2p")
    await place.say("写个长篇")
    await house.feishu.wait_for(lambda: place.answers() and place.answers()[0].text)
    await house.restart()
    bubble = await place.answer()
    assert bubble.text == "".join(pieces)
    assert house.complaints(paced=False) == []


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_redelivery_after_a_restart_is_recognised(house: Any, platform: str) -> None:
    await house.start()
    place = Place(house, platform, "p2p")
    message = await place.say("一次")
    await place.answer()
    await house.restart()
    if platform == "feishu":
        event = received(house.feishu._b, house.feishu.world.messages[message])
        await house.feishu.deliver_event("im.message.receive_v1", event)
    else:
        await house.dingtalk.deliver_raw(
            "/v1.0/im/bot/messages/get", house.dingtalk.world.inbound[message]
        )
    await place.say("两次")
    await place.answer(2)
    assert [asked.question.split()[-1] for asked in house.deepseek.requests] == ["一次", "两次"]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_long_answer_in_small_chunks(house: Any, platform: str) -> None:
    """400 chunks of two characters, fifty a second: byte-equal, closed, no limit broken."""
    pieces = [chr(0x4E00 + n) + "。" for n in range(400)]
    house.deepseek.script("长", pieces, pace=0.02)
    house.feishu_keys["pace"] = 0.3
    await house.start()
    place = Place(house, platform, "group")
    await place.say("长")
    bubble = await place.answer(timeout=40)
    assert bubble.text == "".join(pieces)
    assert house.complaints() == []


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_stop_ends_the_stream_and_the_card_says_so(house: Any, platform: str) -> None:
    house.deepseek.script("说", ["一", "二", "三"] * 100, pace=0.05)
    await house.start()
    place = Place(house, platform, "group")
    await place.say("说")
    await house.feishu.wait_for(lambda: place.answers() and place.answers()[0].text)
    await place.say("/stop")
    await house.feishu.wait_for(lambda: house.deepseek.cancelled == 1, 5)
    found = await house.settled(place.answers, 2)
    (card,) = [b for b in found if b.buttons()]
    assert "已停止" in card.small and card.text and "一二三" * 50 not in card.text
    await place.say("之后")
    assert await place.answer(3)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_the_stop_button(house: Any, platform: str) -> None:
    house.deepseek.script("说", ["一", "二", "三"] * 100, pace=0.05)
    await house.start()
    place = Place(house, platform, "p2p")
    await place.say("说")
    sim = place.sim
    await house.feishu.wait_for(lambda: place.answers() and place.answers()[0].text)
    (button,) = place.answers()[0].buttons()
    await sim.press(place.answers()[0].id, button.id, place.people[0])
    bubble = await place.answer()
    assert "已停止" in bubble.small or "已停止" in bubble.text
    assert [b.id for b in bubble.buttons()] and bubble.buttons()[0].text == "重新生成"
    house.deepseek.script("说", ["新的回答"])
    await sim.press(bubble.id, bubble.buttons()[0].id, place.people[0])
    assert (await place.answer(2)).text == "新的回答"


async def test_a_full_lane_says_so(house: Any) -> None:
    house.chat = replace(house.chat, depth=2)
    house.deepseek.script("慢", ["好"], first=1.0)
    await house.start()
    place = Place(house, "feishu", "p2p")
    for _ in range(3):
        await place.say("慢")
    found = await house.settled(place.answers, 3)
    refused = [b for b in found if "2" in b.text and b.text != "好"]
    assert len(refused) == 1


HOSTILE = (
    '<at id=all></at> <at user_id="all">所有人</at> @所有人 <at id="ou_x"></at>\n'
    '{"schema":"2.0","body":{"elements":[{"tag":"button"}]}}\n'
    "| a | b |\n|---|---|\n| 1 | 2 |\n<font color=red>x</font> ![i](http://x/y.png)\n"
    "```python\nprint('<at id=all>')\n"
)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_hostile_output_pings_nobody_and_breaks_nothing(house: Any, platform: str) -> None:
    house.deepseek.script("坏", [HOSTILE[n : n + 3] for n in range(0, len(HOSTILE), 3)])
    await house.start()
    place = Place(house, platform, "group")
    await place.say("坏")
    bubble = await place.answer()
    assert bubble.pings == []
    assert "print(" in bubble.text and "<at id=all>" in bubble.text
    await place.say("好")
    assert (await place.answer(2)).text
    assert house.complaints() == []


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_junk_gets_a_sentence_and_the_next_message_an_answer(
    house: Any, platform: str
) -> None:
    await house.start()
    place = Place(house, platform, "p2p")
    await place.say("字" * 200_000)
    huge = await place.answer()
    assert "200000" in huge.text
    await place.say("控制\x00\x01\x02符\u202e")
    await place.answer(2)
    await place.say("", kind="image" if platform == "feishu" else "picture")
    await place.answer(3)
    await place.say("你好")
    assert (await place.answer(4)).text
    assert house.complaints() == []


@pytest.mark.parametrize(
    "status,word", [(401, "密钥"), (402, "余额"), (422, "请求"), (500, "出错")]
)
async def test_what_the_model_refuses_is_said(house: Any, status: int, word: str) -> None:
    house.deepseek.standing = Trouble("refuse", status=status)
    await house.start()
    place = Place(house, "feishu", "p2p")
    await place.say("你好")
    bubble = await place.answer(timeout=40)
    assert word in bubble.text + bubble.small
    house.deepseek.standing = None
    await place.say("再来")
    assert "替身" in (await place.answer(2)).text


async def test_an_answer_that_breaks_off_keeps_what_came(house: Any) -> None:
    house.deepseek.script("断", ["前半", "段。"] + ["…"] * 20)
    house.deepseek.order(Trouble("cut", after=2))
    await house.start()
    place = Place(house, "feishu", "p2p")
    await place.say("断")
    bubble = await place.answer()
    assert bubble.text.startswith("前半段。")
    assert "中断" in bubble.small


async def test_commands_never_reach_the_model(house: Any) -> None:
    await house.start()
    place = Place(house, "dingtalk", "p2p")
    for number, word in enumerate(["/help", "/status", "/whoami", "/usage", "/mdoel", "帮助"], 1):
        await place.say(word)
        assert (await place.answer(number)).text
    assert house.deepseek.requests == []
    await place.say("你好")
    await place.answer(7)
    assert len(house.deepseek.requests[-1].messages) == 2


async def test_only_an_admin_resets_a_group(house: Any) -> None:
    place = Place(house, "feishu", "group")
    house.admins = {f"feishu:{place.people[0].open_id}"}
    await house.start()
    await place.say("记住：苹果")
    await place.answer()
    await place.say("/new", who=1)
    assert "管理员" in (await place.answer(2)).text
    await place.say("/new")
    assert "新的对话" in (await place.answer(3)).text
    await place.say("你好")
    await place.answer(4)
    assert not house.deepseek.requests[-1].said("assistant")


async def test_settings_of_one_chat_do_not_touch_another(house: Any) -> None:
    await house.start()
    here, there = Place(house, "feishu", "p2p"), Place(house, "dingtalk", "p2p")
    await here.say("/model deepseek-v4-pro")
    await here.answer()
    await here.say("你好")
    await here.answer(2)
    await there.say("你好")
    await there.answer()
    assert [asked.model for asked in house.deepseek.requests] == [
        "deepseek-v4-pro",
        "deepseek-flash",
    ]


async def test_without_streaming(house: Any) -> None:
    house.model_keys["stream"] = False
    await house.start()
    place = Place(house, "feishu", "p2p")
    await place.say("你好")
    assert "替身" in (await place.answer()).text


async def test_one_person_does_not_wait_for_another(house: Any) -> None:
    house.deepseek.script("慢", ["慢答"], first=20.0)
    await house.start()
    place = Place(house, "feishu", "group")
    await place.say("慢", who=0)
    await place.say("快", who=1)

    def finished() -> list[Bubble]:
        return [b for b in place.answers() if b.text and not b.streaming]

    found = await house.feishu.wait_for(finished, 19)
    assert "慢答" not in found[0].text
    await place.say("/stop", who=0)
    await house.feishu.wait_for(lambda: house.deepseek.cancelled == 1)


def test_defaults_of_chat_are_the_documented_ones() -> None:
    assert (Chat().memory, Chat().lane, Chat().depth) == ("chat", "person", 20)
