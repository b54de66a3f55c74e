"""What the fuzz found, each by its name: one misfortune, and what people must see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.dingtalk.rungs import CARD_BYTES
from adapters.dingtalk.whole import MESSAGE_BYTES
from adapters.feishu.card import TEXT_BYTES
from adapters.feishu.whole import PATCH_BYTES, POST_BYTES
from adapters.playground.deepseek import Trouble
from adapters.playground.dingtalk import wire as dingtalk
from adapters.playground.faults import Fault
from adapters.playground.feishu import wire as feishu
from adapters.playground.view import Bubble

DENIED = {"code": "chatbotId.notAllow.sendOTO", "message": "no", "requestid": "r"}
UNSAFE = {"code": "contain.notAllowed.text", "message": "no", "requestid": "r"}

PIECES = [f"第{number}段。" for number in range(30)]


def refusal(body: dict[str, Any], status: int = 400) -> Fault:
    return Fault("status", status=status, body=body)


def code(number: int) -> Fault:
    return refusal({"code": number, "msg": "no"})


class Chat:
    """A private chat on one platform."""

    def __init__(self, house: Any, platform: str) -> None:
        self.house, self.sim = house, house.sim(platform)
        self.person = self.sim.add_person("人")
        self.chat = self.sim.p2p(self.person)

    async def say(self, text: str) -> str:
        message: str = await self.sim.say(self.chat, self.person, text)
        return message

    def seen(self) -> list[Bubble]:
        found: list[Bubble] = self.sim.bot_bubbles(self.chat)
        return found

    async def until(self, true: Any, seconds: float = 20.0) -> None:
        await self.sim.wait_for(true, seconds)

    async def rest(self, text: str) -> list[str]:
        """What is seen once `text` is, and no card is open."""

        def ready() -> bool:
            found = self.seen()
            return any(text in b.text for b in found) and not any(b.streaming for b in found)

        await self.until(ready)
        return [bubble.text for bubble in self.seen()]


async def test_a_recall_while_the_card_is_on_its_way_leaves_nothing(house: Any) -> None:
    house.feishu.policy.latency = 0.3
    house.deepseek.script("问", ["慢答"], first=5.0)
    await house.start()
    chat = Chat(house, "feishu")
    message = await chat.say("问")
    await chat.until(lambda: house.feishu.calls_of(feishu.CARD_CREATE))
    await house.feishu.recall(message)
    await chat.until(lambda: house.deepseek.cancelled)
    await chat.until(lambda: house.app is not None and len(house.app.lanes) == 0)
    assert chat.seen() == []


async def test_a_dingtalk_card_that_is_given_up_does_not_wait_for_ever(house: Any) -> None:
    house.deepseek.script("问", ["好的回答"], first=0.5)
    await house.start()
    chat = Chat(house, "dingtalk")
    house.dingtalk.faults.order(dingtalk.CARD_STREAM, refusal(DENIED, 403), times=2)
    await chat.say("问")
    texts = await chat.rest("好的回答")
    assert sum("好的回答" in text for text in texts) == 1
    assert house.dingtalk.open_cards() == []


async def test_a_dingtalk_card_that_stands_after_two_cut_answers_is_closed(house: Any) -> None:
    """The first create took effect, the repetition looked like a refusal for good."""
    house.deepseek.script("问", ["好的回答"], first=1.0)
    await house.start()
    chat = Chat(house, "dingtalk")
    house.dingtalk.faults.order(dingtalk.CARD_CREATE_DELIVER, Fault("truncate"), times=2)
    await chat.say("问")
    texts = await chat.rest("好的回答")
    assert sum("好的回答" in text for text in texts) == 1
    assert house.dingtalk.open_cards() == []


@pytest.mark.parametrize("number", [200860, 230028])
async def test_a_feishu_card_that_takes_no_text_is_not_left_open(house: Any, number: int) -> None:
    """Too big although it is short; refused by the content filter, twice."""
    house.deepseek.script("问", ["好的回答"], first=0.5)
    await house.start()
    chat = Chat(house, "feishu")
    house.feishu.faults.order(feishu.CARD_UPDATE, code(number), times=2)
    house.feishu.faults.order(feishu.CARD_CONTENT, code(number), times=2)
    await chat.say("问")
    await chat.rest("好的回答" if number == 200860 else "审核")


REFUSE_CARDS = (feishu.CARD_UPDATE, feishu.CARD_CONTENT)


@pytest.mark.parametrize("number", [200860, 200999])
async def test_beside_an_answer_stands_no_card_that_was_given_up(house: Any, number: int) -> None:
    """Neither half a text nor a Stop button: only the answer is seen."""
    house.deepseek.script("问", ["好的", "回答", "完了"], first=0.3, pace=0.4)
    await house.start()
    room = house.room("feishu")
    message = await room.say("问")
    await room.growing("好的")
    house.feishu.faults.order_any(REFUSE_CARDS, code(number), times=99)
    turn = await house.ended("feishu", message)
    [answer] = room.answers()
    assert answer.text == "好的回答完了" and turn.ending.delivery == "delivered"
    assert [button.text for button in answer.buttons()] == ["重新生成"]
    assert house.feishu.open_cards() == [] and house.complaints(paced=False) == []


async def test_a_card_given_up_by_a_killed_process_does_not_stand_either(house: Any) -> None:
    """Killed between the step down and the answer."""
    house.deepseek.script("问", ["好的", "回答", "完了"], first=0.3, pace=0.4)
    await house.start()
    room = house.room("feishu")
    message = await room.say("问")
    await room.growing("好的")
    house.feishu.faults.order_any(REFUSE_CARDS, code(200999), times=99)
    house.feishu.faults.order(feishu.REPLY, Fault("drop"), times=99)

    turn = await house.turn("feishu", message)
    while not turn.handles or turn.handles[0].rung != "patch":
        await asyncio.sleep(0.01)
        turn = await house.turn("feishu", message)
    await house.crash()
    assert len(house.feishu.open_cards()) == 1
    house.feishu.faults.clear()
    await house.start()
    turn = await house.ended("feishu", message)
    [answer] = room.answers()
    assert answer.text == "好的回答完了" and turn.ending.delivery == "delivered"
    assert house.feishu.open_cards() == []


@pytest.mark.parametrize("number", [99991403, 99991672, 300122])
async def test_a_whole_text_counts_when_only_its_animation_cannot_be_ended(
    house: Any, number: int
) -> None:
    house.deepseek.script("问", ["好的回答"])
    await house.start()
    chat = Chat(house, "feishu")
    house.feishu.faults.order(feishu.CARD_SETTINGS, code(number), times=9)
    message = await chat.say("问")
    turn = await house.ended("feishu", message)
    assert (turn.state, turn.ending.delivery) == ("answered", "delivered")
    assert [b.text for b in chat.seen()] == ["好的回答"]


async def test_a_card_that_may_have_arrived_is_ended_when_it_cannot_be_sent_again(
    house: Any,
) -> None:
    house.deepseek.script("问", ["最后的回答"], first=1.0)
    await house.start()
    chat = Chat(house, "feishu")
    house.feishu.faults.order(feishu.REPLY, Fault("lose"))
    house.feishu.faults.order(feishu.REPLY, code(230031), times=9)
    turn = await house.ended("feishu", await chat.say("问"))
    assert (turn.state, turn.ending.delivery) == ("answered", "unconfirmed")
    assert [bubble.text for bubble in chat.seen()] == ["最后的回答"]
    assert house.feishu.open_cards() == []


async def test_a_dingtalk_text_refused_twice_ends_with_a_sentence(house: Any) -> None:
    house.deepseek.script("问", ["好的回答"])
    await house.start()
    chat = Chat(house, "dingtalk")
    house.dingtalk.faults.order(dingtalk.CARD_STREAM, refusal(UNSAFE), times=2)
    await chat.say("问")
    await chat.rest("审核")
    assert house.dingtalk.open_cards() == []


async def test_a_send_of_unknown_fate_shows_the_newest_text(house: Any) -> None:
    """Lost after it took effect, then refused for its rate: the key brings the old text."""
    house.feishu.policy.missing_scopes = {"cardkit:card:write"}
    house.deepseek.script("问", ["最后的回答"], first=1.0)
    await house.start()
    chat = Chat(house, "feishu")
    house.feishu.faults.order(feishu.REPLY, Fault("lose"))
    house.feishu.faults.order(feishu.REPLY, code(5000), times=2)
    await chat.say("问")
    assert await chat.rest("最后的回答") == ["最后的回答"]


@pytest.mark.parametrize("platform", ["feishu", "dingtalk"])
async def test_an_answer_that_nobody_goes_on_with_is_written_anew(
    house: Any, platform: str
) -> None:
    """After a restart the service adds nothing to what had been said."""
    house.deepseek.script("长篇", PIECES, pace=0.05)
    await house.start()
    chat = Chat(house, platform)
    await chat.say("长篇")
    await chat.until(lambda: chat.seen() and chat.seen()[0].text)
    house.deepseek.order(Trouble("empty"), times=2)
    await house.restart()
    assert await chat.rest(PIECES[-1]) == ["".join(PIECES)]


async def test_a_message_that_cannot_change_is_not_sent_before_the_end(house: Any) -> None:
    """A run that dies leaves no first half of an answer that its successor words anew."""
    house.dingtalk_keys |= {"card_template_id": "", "card_state_key": ""}
    house.deepseek.script("长篇", ["长" * 500] * 12 + ["终了"], pace=0.1)
    await house.start()
    chat = Chat(house, "dingtalk")
    await chat.say("长篇")
    await chat.until(lambda: house.deepseek.finished or chat.seen())
    assert house.deepseek.finished == 1
    texts = await chat.rest("终了")
    assert "".join(texts).count("长") == 6000


def test_a_text_is_cut_at_the_same_places_on_every_rung() -> None:
    """What was sent as a message stays; the next part must begin where that one ended."""
    assert MESSAGE_BYTES == CARD_BYTES
    assert POST_BYTES == PATCH_BYTES == TEXT_BYTES
