"""What came too late, and what was said while nobody listened (design.md 5, needs.md 1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.playground.deepseek import Said
from adapters.playground.deepseek.asked import Asked

PLATFORMS = ("feishu", "dingtalk")
HOUR = 3600.0


async def until(house: Any, true: Any, seconds: float = 15.0) -> Any:
    return await house.feishu.wait_for(true, seconds)


def heard(asked: Asked) -> Said:
    return Said(["关于：" + asked.question.split("\n")[-1].split("] ")[-1]])


def no_second_chance(house: Any) -> None:
    """What reaches no connection is never pushed again."""
    house.feishu.policy.redeliver_after = ()
    house.dingtalk.policy.redeliver_after = ()
    house.dingtalk.policy.keep_without_link = False


async def opened(house: Any, links: int) -> None:
    """So many connections were opened in all, and the newest stands."""
    await until(house, lambda: house.feishu.opened >= links and house.feishu.links)


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


async def late(house: Any, room: Any, *texts: str, who: int = 0) -> list[str]:
    """Said while the bot was away, and pushed again hours later."""
    sim = room.sim
    sim.policy.redeliver_after = (2 * HOUR,)
    await away(house, 0.0, room.platform)
    messages = [await room.say(text, who=who) for text in texts]
    await back(house, room.platform)
    house.clock.leap(2 * HOUR)
    await until(house, lambda: house.app.platforms[room.platform].status.connected)
    return messages


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_late_messages_get_one_notice_that_names_them(house: Any, platform: str) -> None:
    house.feishu.policy.missing_scopes = {"im:message:readonly", "im:message"}
    await house.start()
    room = house.room(platform)
    messages = await late(house, room, "问一", "问二", "问三", "问四")
    (text,) = await answered(house, room, 1)
    assert "4 条" in text and all(word in text for word in ("问一", "问二", "问三"))
    assert house.deepseek.requests == []
    for message in messages:
        turn = await house.ended(platform, message)
        assert (turn.state, turn.ending.delivery) == ("refused", "delivered")
        (account,) = (await house.app.office.why(message))["accounts"]
        assert account["turn"]["error"] == "late"


@pytest.mark.parametrize("how", ["button", "command"])
async def test_what_was_late_is_answered_when_asked_for(house: Any, how: str) -> None:
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await late(house, room, "问一", "问二")
    await answered(house, room, 1)
    if how == "button":
        toast = await room.press(room.answers()[0], "现在回答")
        assert toast["type"] == "success"
    else:
        await room.say("/retry")
    count = 3 if how == "button" else 4
    texts = await answered(house, room, count)
    assert {"关于：问一", "关于：问二"} <= set(texts)
    assert len(house.deepseek.requests) == 2
    await room.press(room.answers()[0], "现在回答")
    await asyncio.sleep(0.3)
    assert len(house.deepseek.requests) == 2, "once"


async def test_retry_answers_what_was_late_on_dingtalk(house: Any) -> None:
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("dingtalk")
    await late(house, room, "问一", "问二")
    await answered(house, room, 1)
    await room.say("/retry")
    texts = await answered(house, room, 4)
    assert {"关于：问一", "关于：问二"} <= set(texts)
    await room.say("/retry")
    assert (await answered(house, room, 5))[-1] == "关于：问二", "an ordinary /retry again"


async def test_in_a_group_whoever_is_named_may_ask_for_it(house: Any) -> None:
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu", "group", people=3)
    room.sim.policy.redeliver_after = (2 * HOUR,)
    await away(house, 0.0)
    for who in (0, 1):
        await room.say(f"问{who}", who=who)
    await back(house)
    house.clock.leap(2 * HOUR)
    (text,) = await answered(house, room, 1)
    assert "2 条" in text
    toast = await room.press(room.answers()[0], "现在回答", who=2)
    assert toast["type"] == "warning"
    toast = await room.press(room.answers()[0], "现在回答", who=0)
    assert toast["type"] == "success"
    assert set((await answered(house, room, 3))[1:]) == {"关于：问0", "关于：问1"}


async def test_each_chat_has_its_own_notice(house: Any) -> None:
    await house.start()
    rooms = [house.room("feishu"), house.room("feishu", "group")]
    house.feishu.policy.redeliver_after = (2 * HOUR,)
    await away(house, 0.0)
    for number, room in enumerate(rooms):
        await room.say(f"问{number}")
    await back(house)
    house.clock.leap(2 * HOUR)
    for number, room in enumerate(rooms):
        (text,) = await answered(house, room, 1)
        assert f"问{number}" in text and f"问{1 - number}" not in text


async def test_late_messages_are_offered_by_the_next_process(house: Any) -> None:
    """It died between the claim and the notice."""
    await house.start()
    room = house.room("dingtalk")
    (message,) = await late(house, room, "问一")
    turn = await until_turn(house, "dingtalk", message)
    assert turn.state == "refused" and not turn.ended
    await house.crash()
    await house.start()
    texts = await answered(house, room, 1)
    assert len(texts) == 1 and "问一" in texts[0]
    await house.ended("dingtalk", message)
    house.clock.leap(10.0)
    await asyncio.sleep(0.2)
    assert len(room.answers()) == 1


async def until_turn(house: Any, platform: str, message: str) -> Any:
    async with asyncio.timeout(15):
        while True:
            turn = await house.turn(platform, message)
            if turn is not None:
                return turn
            await asyncio.sleep(0.01)


async def test_the_age_is_the_platform_s_not_the_local_clock_s(house: Any) -> None:
    """A machine whose clock is two hours ahead finds nothing late."""
    house.deepseek.answer_with(heard)

    class Ahead(type(house.clock)):  # type: ignore[misc]
        def time(self) -> float:
            return float(super().time()) + 2 * HOUR

    sims = house.clock
    await house.start()
    room = house.room("feishu")
    await house.stop()
    house.clock = Ahead()
    await house.start()
    message = await room.say("问一")
    turn = await house.ended("feishu", message)
    assert (turn.state, turn.ending.text) == ("answered", "关于：问一")
    assert house.clock is not sims


async def test_a_late_stop_word_stops_nothing_of_today(house: Any) -> None:
    """A command that comes hours late is not carried out."""
    pytest.skip("not built: see the report")


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
    assert (await house.app.office.status())["gaps"] == []


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


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_quick_restart_costs_nothing_and_blames_nobody(house: Any, crashed: bool) -> None:
    await house.start()
    room, ding = house.room("feishu"), house.room("dingtalk")
    await known(house, room, ding)
    house.clock.leap(59.0)
    await (house.crash() if crashed else house.stop())
    reads = len(house.feishu.calls_of("list_messages"))
    await house.start()
    await asyncio.sleep(0.3)
    gaps = (await house.app.office.status())["gaps"]
    if not crashed:
        assert gaps == [] and len(house.feishu.calls_of("list_messages")) == reads
    else:
        assert all(gap["bot"] == "dingtalk" for gap in gaps)


async def test_nothing_is_forgotten_by_dying_while_fetching(house: Any) -> None:
    no_second_chance(house)
    house.deepseek.answer_with(heard)
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await house.stop()
    await room.say("问一")
    house.clock.leap(300.0)
    house.feishu.policy.latency = 1e6
    await house.start_deaf()
    house.clock.leap(70.0)
    await asyncio.sleep(0.2)
    await house.crash()
    house.feishu.policy.latency = 0.0
    await house.start()
    assert (await answered(house, room, 2))[1] == "关于：问一"


async def test_a_history_that_fails_at_first_is_read_again(house: Any) -> None:
    from adapters.playground.faults import Fault

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
    await house.start()
    room = house.room("feishu")
    await known(house, room)
    await away(house, 0.0)
    await room.say("问一")
    house.clock.leap(60.0)
    await back(house)
    gap = await until_gap(house)
    assert gap["bot"] == "feishu" and gap["chat"] == room.chat.id
    assert "缺少权限" in gap["why"] and "im:message" in gap["why"]
    assert gap["until"] - gap["since"] >= 60.0


async def test_dingtalk_has_no_history_and_says_so(house: Any) -> None:
    no_second_chance(house)
    await house.start()
    room = house.room("dingtalk")
    await known(house, room)
    await away(house, 0.0, "dingtalk")
    await room.say("问一")
    house.clock.leap(60.0)
    await back(house, "dingtalk")
    gap = await until_gap(house)
    assert (gap["bot"], gap["chat"]) == ("dingtalk", "")
    assert "不能取回" in gap["why"] and gap["until"] - gap["since"] >= 60.0
    assert len(room.answers()) == 1


async def until_gap(house: Any) -> Any:
    async with asyncio.timeout(15):
        while True:
            gaps = (await house.app.office.status())["gaps"]
            if gaps:
                return gaps[0]
            await asyncio.sleep(0.05)
            house.clock.leap(1.0)
