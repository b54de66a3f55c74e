"""What came too late, and what was said while nobody listened (design.md 5, needs.md 1)."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from adapters.playground.deepseek import Said
from adapters.playground.deepseek.asked import Asked
from adapters.playground.faults import Fault
from bot.clock import SystemClock
from bot.report_text import why_text

PLATFORMS = ("feishu", "dingtalk")
HOUR, DAY = 3600.0, 86_400.0


async def until(house: Any, true: Any, seconds: float = 15.0) -> Any:
    return await house.feishu.wait_for(true, seconds)


def heard(asked: Asked) -> Said:
    return Said(["关于：" + asked.question.split("\n")[-1].split("] ")[-1]])


def no_second_chance(house: Any) -> None:
    """What reaches no connection is never pushed again."""
    house.feishu.policy.redeliver_after = ()
    house.dingtalk.policy.redeliver_after = ()
    house.dingtalk.policy.keep_without_link = False


async def away(house: Any, seconds: float, platform: str = "feishu") -> None:
    """The network goes, so much time passes, and it comes back."""
    sim = house.sim(platform)
    await sim.go_away()
    await until(house, lambda: not house.app.platforms[platform].status.connected)
    house.clock.leap(seconds)


async def back(house: Any, platform: str = "feishu") -> None:
    sim = house.sim(platform)
    await sim.come_back()
    await house.clock.hurry(lambda: house.app.platforms[platform].status.connected)


async def answered(house: Any, room: Any, count: int) -> list[str]:
    """Texts of the answers once there are so many; what waits on the clock is hurried."""
    await house.clock.hurry(lambda: len(room.answers()) >= count and not house.feishu.open_cards())
    await house.settled(room.answers, count)
    return [b.text for b in room.answers()]


# ---------------------------------------------------------------- late


async def late(house: Any, *said: tuple[Any, str, int]) -> list[str]:
    """(room, text, who): said while the link was cut, and pushed again too late. Where a
    message is late after half an hour, it is late here after 20 seconds."""
    (sim,) = {room.sim for room, _, _ in said}
    status = house.app.platforms[said[0][0].platform].status
    sim.policy.redeliver_after = (30.0,)
    opened = sim.opened
    sim.cut_links()
    messages = [await room.say(text, who=who) for room, text, who in said]
    await until(house, lambda: sim.opened > opened and status.connected)
    house.clock.leap(30.0)
    return messages


@pytest.fixture
def hasty(house: Any) -> Any:
    house.chat = replace(house.chat, late=20.0)
    house.deepseek.answer_with(heard)
    return house


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_late_messages_get_one_notice_that_names_them(hasty: Any, platform: str) -> None:
    await hasty.start()
    room = hasty.room(platform)
    messages = await late(hasty, *((room, f"问{n}", 0) for n in "一二三四"))
    (text,) = await answered(hasty, room, 1)
    assert "4 条" in text and text.count("> 问") == 3 and "> …" in text
    assert hasty.deepseek.requests == []
    for message in messages:
        turn = await hasty.ended(platform, message)
        assert (turn.state, turn.ending.delivery) == ("refused", "delivered")
        (account,) = (await hasty.app.office.why(message))["accounts"]
        assert account["turn"]["error"] == "late"


async def test_a_late_command_is_offered_like_a_question(hasty: Any) -> None:
    """What was to be stopped or forgotten then is not what is there now."""
    await hasty.start()
    room = hasty.room("feishu")
    await late(hasty, (room, "/stop", 0), (room, "/whoami", 0))
    (text,) = await answered(hasty, room, 1)
    assert "> /stop" in text and "> /whoami" in text
    await room.press(room.answers()[0], "现在回答")
    texts = await answered(hasty, room, 3)
    assert any("没有正在进行" in text for text in texts) and any("私聊" in t for t in texts)
    assert hasty.deepseek.requests == []


@pytest.mark.parametrize("how", ["button", "command"])
async def test_what_was_late_is_answered_when_asked_for(hasty: Any, how: str) -> None:
    await hasty.start()
    room = hasty.room("feishu")
    await late(hasty, (room, "问一", 0), (room, "问二", 0))
    await answered(hasty, room, 1)
    if how == "button":
        toast = await room.press(room.answers()[0], "现在回答")
        assert toast["type"] == "success"
    else:
        await room.say("/retry")
    texts = await answered(hasty, room, 3 if how == "button" else 4)
    assert {"关于：问一", "关于：问二"} <= set(texts)
    assert len(hasty.deepseek.requests) == 2
    await room.press(room.answers()[0], "现在回答")
    await asyncio.sleep(0.3)
    assert len(hasty.deepseek.requests) == 2, "once"


async def test_retry_answers_what_was_late_on_dingtalk(hasty: Any) -> None:
    await hasty.start()
    room = hasty.room("dingtalk")
    await late(hasty, (room, "问一", 0), (room, "问二", 0))
    await answered(hasty, room, 1)
    await room.say("/retry")
    texts = await answered(hasty, room, 4)
    assert {"关于：问一", "关于：问二"} <= set(texts)
    await room.say("/retry")
    again = (await answered(hasty, room, 5))[-1]
    assert again in {"关于：问一", "关于：问二"}, "an ordinary /retry again: whichever came last"


async def test_why_of_a_retry_of_late_messages(hasty: Any) -> None:
    await hasty.start()
    room = hasty.room("feishu")
    await late(hasty, (room, "问一", 0), (room, "问二", 0))
    await answered(hasty, room, 1)
    message = await room.say("/retry")
    await answered(hasty, room, 4)
    said = why_text(await hasty.app.office.why(message), "zh")
    assert "没有交给模型：它只是要求现在回答" in said and "done.retry" not in said


async def test_in_a_group_whoever_is_named_may_ask_for_it(hasty: Any) -> None:
    await hasty.start()
    room = hasty.room("feishu", "group", people=3)
    await late(hasty, (room, "问0", 0), (room, "问1", 1))
    (text,) = await answered(hasty, room, 1)
    assert "2 条" in text
    toast = await room.press(room.answers()[0], "现在回答", who=2)
    assert toast["type"] == "warning"
    toast = await room.press(room.answers()[0], "现在回答", who=0)
    assert toast["type"] == "success"
    assert set((await answered(hasty, room, 3))[1:]) == {"关于：问0", "关于：问1"}


@pytest.mark.parametrize("named", [False, True])
async def test_a_late_message_that_is_recalled_is_not_spoken_of(hasty: Any, named: bool) -> None:
    """Neither quoted nor answered, whether it is taken back before the notice or after."""
    await hasty.start()
    room = hasty.room("feishu")
    secret, _ = await late(hasty, (room, "秘密", 0), (room, "问二", 0))
    if not named:
        await until_turn(hasty, "feishu", secret)
        await hasty.feishu.recall(secret)
    (text,) = await answered(hasty, room, 1)
    assert ("秘密" in text) == named
    if named:
        await hasty.feishu.recall(secret)
    await room.press(room.answers()[0], "现在回答")
    texts = await answered(hasty, room, 2)
    assert texts[1:] == ["关于：问二"] and len(hasty.deepseek.requests) == 1


async def test_the_only_late_message_recalled_leaves_nothing_to_say(hasty: Any) -> None:
    await hasty.start()
    room = hasty.room("feishu")
    (secret,) = await late(hasty, (room, "秘密", 0))
    await until_turn(hasty, "feishu", secret)
    await hasty.feishu.recall(secret)
    turn = await hasty.ended("feishu", secret)
    assert turn.state == "recalled"
    for _ in range(5):
        hasty.clock.leap(1.0)
        await asyncio.sleep(0.05)
    assert room.answers() == []


async def test_more_late_messages_than_the_lane_takes(hasty: Any) -> None:
    """What found no room can be asked for again."""
    hasty.chat = replace(hasty.chat, depth=3)
    hasty.deepseek.answer_with(lambda asked: replace(heard(asked), first=1.0))
    await hasty.start()
    room = hasty.room("feishu")
    await late(hasty, *((room, f"问{n}", 0) for n in range(5)))
    await answered(hasty, room, 1)
    notice = room.answers()[0]
    assert "排队已满" in str(await room.press(notice, "现在回答"))
    await answered(hasty, room, 4)
    assert (await room.press(notice, "现在回答"))["type"] == "success"
    texts = await answered(hasty, room, 6)
    assert sorted(texts[1:]) == [f"关于：问{n}" for n in range(5)]


async def test_each_chat_has_its_own_notice(hasty: Any) -> None:
    await hasty.start()
    rooms = [hasty.room("feishu"), hasty.room("feishu", "group")]
    await late(hasty, *((room, f"问{n}", 0) for n, room in enumerate(rooms)))
    for number, room in enumerate(rooms):
        (text,) = await answered(hasty, room, 1)
        assert f"问{number}" in text and f"问{1 - number}" not in text


async def test_late_messages_are_offered_by_the_next_process(hasty: Any) -> None:
    """It died between the claim and the notice."""
    await hasty.start()
    room = hasty.room("dingtalk")
    (message,) = await late(hasty, (room, "问一", 0))
    turn = await until_turn(hasty, "dingtalk", message)
    assert turn.state == "refused" and not turn.ended
    await hasty.crash()
    await hasty.start()
    texts = await answered(hasty, room, 1)
    assert len(texts) == 1 and "问一" in texts[0]
    await hasty.ended("dingtalk", message)
    hasty.clock.leap(10.0)
    await asyncio.sleep(0.2)
    assert len(room.answers()) == 1


async def until_turn(house: Any, platform: str, message: str) -> Any:
    async with asyncio.timeout(15):
        while True:
            turn = await house.turn(platform, message)
            if turn is not None:
                return turn
            await asyncio.sleep(0.01)


class Ahead(SystemClock):
    """A machine whose wall clock is two hours ahead."""

    def time(self) -> float:
        return super().time() + 2 * HOUR


async def test_the_age_is_the_platform_s_not_the_local_clock_s(house: Any) -> None:
    house.deepseek.answer_with(heard)
    house.clock = Ahead()
    await house.start()
    room = house.room("feishu")
    turn = await house.ended("feishu", await room.say("问一"))
    assert (turn.state, turn.ending.text) == ("answered", "关于：问一")


# ---------------------------------------------------------------- catching up


async def known(house: Any, *rooms: Any) -> None:
    """Each chat has asked before."""
    for room in rooms:
        message = await room.say("早上好")
        await house.ended(room.platform, message)


async def test_what_was_said_while_nobody_listened_is_answered_once(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room, other = house.room("feishu"), house.room("feishu")
    await known(house, room, other)
    await away(house, 0.0)
    messages = [await room.say(text) for text in ("问一", "问二")]
    house.clock.leap(240.0)
    await back(house)
    texts = await answered(house, room, 3)
    assert texts[1:] == ["关于：问一", "关于：问二"]
    owned = ["离线了约 4 分钟" in b.small for b in room.answers()]
    assert owned == [False, True, False], "said once, with the first answer"
    for message in messages:
        await house.ended("feishu", message)
    assert len(other.answers()) == 1 and len(house.deepseek.requests) == 4
    (others,) = await gaps(house, "feishu")
    assert others["chat"] == "" and "只查了最近 30 天有人提问的 2 个会话" in others["why"]


async def test_each_chat_is_told_that_we_were_away(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    rooms = [house.room("feishu"), house.room("feishu", "group")]
    await known(house, *rooms)
    await away(house, 0.0)
    for room in rooms:
        await room.say("问一")
    house.clock.leap(120.0)
    await back(house)
    for room in rooms:
        await answered(house, room, 2)
        assert "离线了约 2 分钟" in room.answers()[1].small


async def test_what_is_pushed_again_and_fetched_is_answered_once(house: Any) -> None:
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    message = await room.say("问一")
    house.clock.leap(60.0)
    await back(house)
    await answered(house, room, 2)
    house.clock.leap(400.0)
    await asyncio.sleep(0.3)
    await house.ended("feishu", message)
    assert len(room.answers()) == 2 and len(house.deepseek.requests) == 2


async def test_a_long_absence_offers_instead_of_answering(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    await room.say("老问题")
    house.clock.leap(HOUR)
    await room.say("新问题")
    house.clock.leap(60.0)
    await back(house)
    texts = await answered(house, room, 3)
    assert any("老问题" in text and "现在回答" in text for text in texts[1:])
    assert "关于：新问题" in texts and len(house.deepseek.requests) == 2


async def test_what_was_missed_between_two_processes(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await house.stop()
    await room.say("问一")
    house.clock.leap(300.0)
    await house.start()
    assert (await answered(house, room, 2))[1] == "关于：问一"
    assert "离线了约 5 分钟" in room.answers()[1].small


async def test_quick_restarts_cost_a_call_for_each_chat_in_use_and_one_line(house: Any) -> None:
    house.deepseek.answer_with(heard)
    await house.start()
    await known(house, house.room("feishu"), house.room("feishu"))
    await house.stop()
    house.clock.leap(2 * DAY)
    await house.start()
    await house.clock.hurry(lambda: not any(map(house.app.bot.catch_up.busy, PLATFORMS)))
    room, ding = house.room("feishu"), house.room("dingtalk")
    await known(house, room, ding)
    reads = len(house.feishu.calls_of("list_messages"))
    await house.restart()
    await house.clock.hurry(lambda: any(map(house.app.bot.catch_up.busy, PLATFORMS)))
    await house.clock.hurry(lambda: not any(map(house.app.bot.catch_up.busy, PLATFORMS)))
    for platform in PLATFORMS:
        short, long = await gaps(house, platform)
        assert short["until"] - short["since"] < 10.0 < long["until"] - long["since"]
    assert "只查了最近 1 天有人提问的 1 个会话" in (await gaps(house, "feishu"))[0]["why"]
    assert len(house.feishu.calls_of("list_messages")) == reads + 1
    assert [len(room.answers()), len(ding.answers())] == [1, 1]


async def test_chats_beyond_the_limit_are_counted(house: Any) -> None:
    house.deepseek.answer_with(heard)
    await house.start()
    await known(house, *(house.room("feishu") for _ in range(22)))
    catch_up, reads = house.app.bot.catch_up, len(house.feishu.calls_of("list_messages"))
    now = house.clock.time()
    catch_up.gap("feishu", now - 2.0, now)
    await house.clock.hurry(lambda: not catch_up.busy("feishu"))
    assert len(house.feishu.calls_of("list_messages")) == reads + 20
    (gap,) = await gaps(house, "feishu")
    assert "20 个会话" in gap["why"] and "还有 2 个会话没有查" in gap["why"]


@pytest.mark.parametrize("how", ["link", "restart"])
async def test_what_falls_into_a_short_gap_is_answered_or_listed(house: Any, how: str) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    rooms = [house.room(platform) for platform in PLATFORMS]
    await known(house, *rooms)
    if how == "restart":
        await house.stop()
    else:
        for room in rooms:
            await away(house, 0.0, room.platform)
    for room in rooms:
        await room.say("问一")
    house.clock.leap(4.0)
    if how == "restart":
        await house.start()
    else:
        for room in rooms:
            await back(house, room.platform)
    feishu, dingtalk = rooms
    assert (await answered(house, feishu, 2))[1] == "关于：问一"
    gap = await until_gap(house, "dingtalk")
    assert "不能取回" in gap["why"] and len(dingtalk.answers()) == 1


async def test_a_link_that_comes_and_goes_is_one_line(house: Any) -> None:
    house.deepseek.answer_with(heard)
    await house.start()
    platform = house.app.platforms["dingtalk"]
    now = house.clock.time()
    for number in range(3):
        house.app.bot.catch_up.gap(platform.bot, now + number * 600 - 2, now + number * 600)
        await house.clock.hurry(lambda: not house.app.bot.catch_up.busy(platform.bot))
    (gap,) = await gaps(house, "dingtalk")
    assert gap["until"] - gap["since"] == pytest.approx(1202)
    assert "共断线 3 次，合计 6 秒" in gap["why"]
    house.app.bot.catch_up.gap(platform.bot, now + 9000, now + 9002)
    await house.clock.hurry(lambda: not house.app.bot.catch_up.busy(platform.bot))
    assert len(await gaps(house, "dingtalk")) == 2


async def test_what_was_said_before_the_first_connection_is_fetched(house: Any) -> None:
    """The process starts while the network is away."""
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await house.stop()
    await house.feishu.go_away()
    starting = asyncio.create_task(house.start())
    for _ in range(100):
        house.clock.leap(2.0)
        await asyncio.sleep(0.01)
    await room.say("问一")
    await house.feishu.come_back()
    await house.clock.hurry(starting.done)
    assert (await answered(house, room, 2))[1] == "关于：问一"


async def test_of_a_long_history_the_newest_is_answered_and_the_rest_listed(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu", "group")
    await known(house, room)
    await away(house, 0.0)
    for number in range(800):
        await room.say(f"闲聊{number}", bot=False)
        house.clock.leap(0.3)
    await room.say("问一")
    await back(house)
    assert (await answered(house, room, 2))[1] == "关于：问一"
    (cut,) = [gap for gap in await gaps(house, "feishu") if gap["chat"]]
    assert cut["chat"] == room.chat.id and "只取回了更新的" in cut["why"]
    assert 10.0 < cut["until"] - cut["since"] < 60.0, "up to what was read"


async def test_a_chat_that_never_asked_is_owned_up_to(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room, new = house.room("feishu"), house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    await new.say("问一")
    house.clock.leap(240.0)
    await back(house)
    gap = await until_gap(house, "feishu")
    assert gap["chat"] == "" and "包括新会话" in gap["why"] and "new ones included" in gap["why"]


async def test_the_topics_of_a_topic_group_are_read_with_their_chat(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    topics, plain = topical(house), house.room("feishu")
    asked = [await house.feishu.say(*topics, f"话题{n}", mention_bot=True) for n in range(5)]
    for message in asked:
        await house.ended("feishu", message)
    await known(house, plain)
    await away(house, 0.0)
    await plain.say("问一")
    house.clock.leap(60.0)
    reads = len(house.feishu.calls_of("list_messages"))
    await back(house)
    await answered(house, plain, 2)
    house.clock.leap(120.0)
    await asyncio.sleep(0.2)
    assert len(house.feishu.calls_of("list_messages")) == reads + 2, "one of each chat"
    assert len(house.feishu.calls_of("chat_info")) == 1


def topical(house: Any) -> tuple[Any, Any]:
    person = house.feishu.add_person("人")
    return house.feishu.add_group("话题群", [person], topic=True), person


async def test_chats_that_fail_hold_nobody_up(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    well, *ill = [house.room("feishu") for _ in range(4)]
    await known(house, well, *ill)
    await away(house, 0.0)
    for room in (well, *ill):
        await room.say("问一")
    house.clock.leap(60.0)
    fault = Fault("status", status=500, body={"code": 1, "msg": "internal"})
    house.feishu.faults.order("list_messages", fault, times=len(ill))
    await back(house)
    for room in (well, *ill):
        assert (await answered(house, room, 2))[1] == "关于：问一"
    asked = [call.body["container_id"] for call in house.feishu.calls_of("list_messages")]
    assert set(asked[:4]) == {room.chat.id for room in (well, *ill)}, "each once at first"
    assert sorted(asked[4:]) == sorted(room.chat.id for room in ill)


async def test_a_history_that_fails_for_good_is_listed(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    house.clock.leap(60.0)
    fault = Fault("status", status=500, body={"code": 1, "msg": "internal"})
    house.feishu.faults.order("list_messages", fault, times=99)
    await back(house)
    gap = await until_gap(house, "feishu", room.chat.id)
    assert "没有取到" in gap["why"] and gap["until"] - gap["since"] >= 60.0
    assert len(house.feishu.calls_of("list_messages")) == 5


@pytest.mark.parametrize("first", ["/whoami", "长" * 200, "", "问零"])
async def test_the_first_answer_owns_up_whatever_came_before_it(house: Any, first: str) -> None:
    """A command, a sentence about what is too long or empty, and a failure beside it."""
    no_second_chance(house)
    house.chat = replace(house.chat, message_chars=100)
    house.deepseek.answer_with(heard)
    house.deepseek.script("问零", "")
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    for text in (first, "问一", "问二"):
        await room.say(text)
        house.clock.leap(5.0)
    house.clock.leap(240.0)
    await back(house)
    await answered(house, room, 4)
    (owner,) = [b for b in room.answers() if "离线了约 4 分钟" in b.small]
    assert (owner.text == "关于：问一") == (first != "问零")


async def test_a_refusal_owns_up_too(house: Any) -> None:
    """The only message was a picture."""
    no_second_chance(house)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    await room.say(kind="image")
    house.clock.leap(240.0)
    await back(house)
    await answered(house, room, 2)
    assert "图片" in room.answers()[1].text and "离线了约 4 分钟" in room.answers()[1].small


async def test_after_a_late_message_the_next_answer_owns_up(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    await room.say("老问题")
    house.clock.leap(HOUR)
    message = await room.say("新问题")
    house.clock.leap(60.0)
    await back(house)
    await answered(house, room, 3)
    await house.ended("feishu", message)
    (fresh,) = [b for b in room.answers() if b.text == "关于：新问题"]
    assert "离线了约 61 分钟" in fresh.small


async def test_nothing_is_forgotten_by_dying_while_fetching(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await house.stop()
    await room.say("问一")
    house.clock.leap(300.0)
    house.feishu.faults.order("list_messages", Fault("hang", seconds=1e6), times=99)
    await house.start()
    await until(house, lambda: house.feishu.calls_of("list_messages"))
    for _ in range(4):
        house.clock.leap(18.0)
        await asyncio.sleep(0.1)
    await house.crash()
    house.feishu.faults.clear()
    await house.start()
    assert (await answered(house, room, 2))[1] == "关于：问一"


async def test_a_history_that_fails_at_first_is_read_again(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    await room.say("问一")
    house.clock.leap(60.0)
    fault = Fault("status", status=500, body={"code": 1, "msg": "internal"})
    house.feishu.faults.order("list_messages", fault, times=3)
    await back(house)
    assert (await answered(house, room, 2))[1] == "关于：问一"


async def test_a_missing_scope_is_named_to_the_operator(house: Any) -> None:
    no_second_chance(house)
    house.feishu.policy.missing_scopes = {"im:message:readonly", "im:message"}
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    await room.say("问一")
    house.clock.leap(60.0)
    await back(house)
    gap = await until_gap(house, "feishu", room.chat.id)
    assert gap["until"] - gap["since"] >= 60.0
    assert "缺少权限" in gap["why"] and "im:message" in gap["why"]


async def test_dingtalk_has_no_history_and_says_so(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("dingtalk")
    await known(house, room)
    await away(house, 0.0, "dingtalk")
    await room.say("问一")
    house.clock.leap(60.0)
    await back(house, "dingtalk")
    gap = await until_gap(house, "dingtalk")
    assert gap["chat"] == "" and gap["until"] - gap["since"] >= 60.0
    assert "不能取回" in gap["why"] and len(room.answers()) == 1


async def gaps(house: Any, bot: str) -> list[Any]:
    found = (await house.app.office.status())["gaps"]
    return [gap for gap in found if gap["bot"] == bot]


async def until_gap(house: Any, bot: str, chat: str = "") -> Any:
    async with asyncio.timeout(15):
        while not (found := [gap for gap in await gaps(house, bot) if gap["chat"] == chat]):
            house.clock.leap(1.0)
            await asyncio.sleep(0.05)
    return found[0]


# ---------------------------------------------------------------- a bot that knows not itself


async def nameless(house: Any) -> Any:
    """It starts, and is never told who it is, until the order is withdrawn."""
    house.deepseek.answer_with(heard)
    denied = Fault("status", status=400, body={"code": 99991672, "msg": "Access denied"})
    order = house.feishu.faults.order_any(["bot_info"], denied, math.inf)
    starting = asyncio.create_task(house.start())
    await house.clock.hurry(starting.done, step=2.0)
    return order


async def test_a_bot_that_does_not_know_itself_is_red(house: Any) -> None:
    order = await nameless(house)
    room = house.room("feishu")
    await known(house, room)
    for _ in range(3):
        await house.clock.hurry(lambda: house.app.platforms["feishu"].status.connected)
        (red,) = await problems(house)
        assert "机器人自己的身份" in red and "own identity" in red and "99991672" in red
        house.clock.leap(600.0)
        await asyncio.sleep(0.05)
    house.feishu.cut_links()
    await house.clock.hurry(lambda: house.app.platforms["feishu"].status.connects > 1)
    assert len(await problems(house)) == 1, "another connection does not help"
    order.withdraw()
    await house.clock.hurry(lambda: house.app.platforms["feishu"].status.hearing)
    assert await problems(house) == []


async def problems(house: Any) -> list[str]:
    found = await house.app.office.problems()
    return [one for one in found if one.startswith("feishu: ")]


@pytest.mark.parametrize("again", [False, True])
async def test_what_a_group_said_to_a_bot_that_knew_not_itself_is_answered(
    house: Any, again: bool
) -> None:
    """Never acknowledged, so it comes again, or is fetched, long after ten minutes."""
    await house.start()
    room = house.room("feishu", "group")
    await known(house, room)
    await house.stop()
    if not again:
        no_second_chance(house)
    order = await nameless(house)
    house.clock.leap(700.0)
    message = await room.say("问一")
    await asyncio.sleep(0.1)
    assert await house.turn("feishu", message) is None and len(room.answers()) == 1
    order.withdraw()
    assert (await answered(house, room, 2))[1] == "关于：问一"
    house.clock.leap(400.0)
    await asyncio.sleep(0.2)
    assert len(room.answers()) == 2
