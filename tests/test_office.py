"""It knows its own state (needs.md 22), accounts for every message (law 8), and lives through
a store that cannot be written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from adapters.playground import watch
from adapters.playground.faults import Fault
from adapters.playground.feishu.wire import CARD_CONTENT, CARD_SETTINGS, CARD_UPDATE, REPLY, SEND
from bot.office import LIVE_SECONDS
from bot.report_text import status_text, why_text

PLATFORMS = ("feishu", "dingtalk")


async def until(house: Any, true: Callable[[], Any], seconds: float = 20.0) -> Any:
    return await house.feishu.wait_for(true, seconds)


def metric(found: list[Any], name: str, bot: str = "") -> float:
    labels = [m for m in found if m.name == name and (not bot or ("bot", bot) in m.labels)]
    (one,) = labels
    return float(one.value)


# ---------------------------------------------------------------- health


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_red_with_words_while_a_link_is_down_and_green_afterwards(
    house: Any, platform: str
) -> None:
    await house.start()
    office, status = house.app.office, house.app.platforms[platform].status
    assert await office.problems() == []
    await house.sim(platform).go_away()
    await until(house, lambda: not status.hearing)
    (problem,) = await office.problems()
    assert problem.startswith(f"{platform}: ") and " / " in problem
    told = await office.status()
    assert not told["ready"] and told["problems"] == [problem]
    bots = {bot["name"]: bot for bot in told["bots"]}
    assert not bots[platform]["connected"] and bots[platform]["cause"] in problem
    assert metric(await office.metrics(), "queqiao_hearing", platform) == 0.0
    await house.sim(platform).come_back()
    await house.clock.hurry(lambda: status.hearing)
    assert await office.problems() == []
    found = await office.metrics()
    assert metric(found, "queqiao_hearing", platform) == 1.0
    assert metric(found, "queqiao_reconnects_total", platform) == 1.0


async def test_refused_credentials_are_named(house: Any) -> None:
    await house.start()
    house.feishu.renew_secret("another")
    house.feishu.refuse_links(1000040345)
    house.feishu.revoke_tokens()
    house.feishu.cut_links()
    status = house.app.platforms["feishu"].status
    await house.clock.hurry(lambda: not status.hearing and status.attempts)
    (problem,) = await house.app.office.problems()
    assert problem.startswith("feishu: ") and len(problem) > len("feishu: ")


async def test_a_store_that_cannot_be_written_is_told(house: Any) -> None:
    """Reading still works then, so the check must write."""
    await house.start()
    office, broken = house.app.office, await house.breakable()
    assert await office.problems() == []
    broken.set()
    house.clock.leap(10.0)
    (problem,) = await office.problems()
    assert "存储不可用" in problem and "store" in problem
    assert not (await office.live())["ready"]
    broken.clear()
    assert await office.problems() == []


async def test_a_store_that_hangs_is_told(house: Any) -> None:
    await house.start()
    release = threading.Event()
    holding = asyncio.create_task(house.app.store.database.run(lambda _: release.wait(20)))
    await asyncio.sleep(0.1)
    house.clock.leap(10.0)
    try:
        (problem,) = await house.app.office.problems()
        assert "timeout" in problem
    finally:
        release.set()
        await holding
    assert await house.app.office.problems() == []


async def test_the_page_hears_of_a_store_that_hangs_before_its_patience_ends(house: Any) -> None:
    """Or its lamp would say that the bot is silent."""
    assert LIVE_SECONDS < watch.PATIENCE
    await house.start()
    release = threading.Event()
    holding = asyncio.create_task(house.app.store.database.run(lambda _: release.wait(20)))
    await asyncio.sleep(0.1)
    house.clock.leap(10.0)
    try:
        asked = asyncio.create_task(house.app.office.problems())
        live = asyncio.create_task(house.app.office.live())
        await asyncio.wait({asked, live}, return_when=asyncio.FIRST_COMPLETED)
        assert not asked.done(), "readiness is more patient"
        assert "timeout" in (await live)["problems"][0]
        await asked
    finally:
        release.set()
        await holding


async def test_status_in_the_chat_tells_the_problem(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    await house.dingtalk.go_away()
    await until(house, lambda: not house.app.platforms["dingtalk"].status.hearing)
    await room.say("/status")
    assert "⚠️ dingtalk" in (await room.answer()).text


LACKS = {
    "feishu": ("cardkit", {"cardkit:card:write"}, "cardkit:card:write"),
    "dingtalk": ("card", {"Card.Instance.Write"}, "Card.Instance.Write"),
}


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_missing_scope_is_told_with_what_to_paste(
    house: Any, platform: str, caplog: pytest.LogCaptureFixture
) -> None:
    rung, missing, scope = LACKS[platform]
    house.deepseek.script("问", ["答"], first=1.0)
    room = house.room(platform)
    house.admins = {f"{platform}:{person_of(room)}"}
    house.sim(platform).policy.missing_scopes |= missing
    await house.start()
    for _ in range(3):
        await house.ended(platform, await room.say("问"))
        house.clock.leap(700.0)
    await house.ended(platform, await room.say("问"))
    status = await house.app.office.status()
    (told,) = [bot["skipped"] for bot in status["bots"] if bot["name"] == platform]
    assert [(one["name"], one["scopes"]) for one in told] == [(rung, (scope,))]
    for lang in ("zh", "en"):
        assert scope in status_text(status, lang)
    turn = await house.ended(platform, await room.say("/admin"))
    assert scope in turn.ending.text and "没有送达的回答" in turn.ending.text
    logged = [one for one in caplog.messages if "is skipped" in one]
    assert len(logged) == 1 and scope in logged[0], "once, although it was tried again"
    house.sim(platform).policy.missing_scopes.clear()
    house.clock.leap(700.0)
    status = await house.app.office.status()
    assert not any(bot["skipped"] for bot in status["bots"])


def person_of(room: Any) -> str:
    person = room.people[0]
    return str(person.open_id if room.platform == "feishu" else person.staff_id)


# ---------------------------------------------------------------- numbers


async def test_the_numbers_of_what_is_unfinished(house: Any) -> None:
    house.deepseek.script("问", ["答"], first=300.0)
    await house.start()
    office, room, other = house.app.office, house.room("feishu"), house.room("dingtalk")
    began = house.clock.time()
    for number in range(3):
        await room.say(f"问{number}")
    await other.say("问")
    await until(house, lambda: house.deepseek.open_streams == 2)
    found = await office.metrics()
    assert metric(found, "queqiao_turns_running") == 2
    assert metric(found, "queqiao_turns_waiting") == 2 == metric(found, "queqiao_lanes")
    assert metric(found, "queqiao_lane_depth") == 3
    assert 0 <= metric(found, "queqiao_oldest_unanswered") - began < 10
    assert metric(found, "queqiao_redelivered_total") == 0
    assert 0 <= metric(found, "queqiao_seconds_since_event", "feishu") < 10
    backlog = (await office.status())["backlog"]
    assert (backlog["running"], backlog["waiting"], backlog["deepest"]) == (2, 2, 3)
    await room.say("/stop")
    await other.say("/stop")
    await house.clock.hurry(lambda: not len(house.app.lanes))
    await house.settled(room.answers)
    await until(house, lambda: not house.app.bot._tasks)
    found = await office.metrics()
    names = ("turns_running", "turns_waiting", "lanes", "lane_depth", "oldest_unanswered")
    assert [metric(found, f"queqiao_{name}") for name in names] == [0, 0, 0, 0, 0]


async def cards(house: Any, count: int) -> None:
    """Wait until the number of open cards is this, by the house's own count."""
    async with asyncio.timeout(20):
        while metric(await house.app.office.metrics(), "queqiao_open_cards") != count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_every_card_on_the_screen_is_counted_until_it_is_closed(
    house: Any, platform: str
) -> None:
    """The one that grows, and those that tell their position."""
    house.deepseek.script("慢", ["字"] * 4000, pace=0.05)
    await house.start()
    room = house.room(platform)
    await room.say("慢")
    await room.growing("字")
    recalled = [await room.say(f"后{number}") for number in range(3)][-1]
    await house.clock.hurry(lambda: len(room.answers()) == 4, step=0.5, most=20.0)
    await cards(house, 4)
    assert len(room.sim.open_cards()) == 4
    if platform == "feishu":
        await room.sim.recall(recalled)
        await cards(house, 3)
    await room.say("/stop")
    await house.clock.hurry(lambda: not len(house.app.lanes))
    await cards(house, 0)
    assert room.sim.open_cards() == []


async def test_a_card_that_could_not_be_closed_is_counted_by_the_next_process_too(
    house: Any,
) -> None:
    house.deepseek.script("问", ["一", "二", "三"], pace=0.4)
    await house.start()
    room = house.room("feishu")
    message = await room.say("问")
    await room.growing("一")
    house.feishu.faults.order_any((CARD_CONTENT, CARD_UPDATE, CARD_SETTINGS), Fault("drop"), 1e9)
    await house.clock.hurry(lambda: not len(house.app.lanes))
    assert (await house.ended("feishu", message)).ending.delivery == "undelivered"
    await cards(house, 1)
    await house.crash()
    await house.start()
    await cards(house, 1)
    house.feishu.faults.clear()
    await house.clock.hurry(lambda: not house.feishu.open_cards())
    await cards(house, 0)


async def test_the_numbers_of_what_was_lost_and_came_again(house: Any) -> None:
    house.deepseek.script("问", ["答"])
    await house.start()
    office, room, ding = house.app.office, house.room("feishu"), house.room("dingtalk")
    house.dingtalk_keys["card_template_id"] = ""
    refusal = Fault("status", status=400, body={"code": 230002, "msg": "no"})
    house.feishu.faults.order_any((REPLY, SEND), refusal, 99)
    lost = await house.ended("feishu", await room.say("问", times=3))
    assert lost.ending.delivery == "undelivered"
    house.dingtalk.faults.order_any(("card_create_deliver",), Fault("html"), 999)
    await until(house, lambda: all(at for at in house.feishu.acks.values()))
    found = await office.metrics()
    assert metric(found, "queqiao_undelivered") == 1
    assert metric(found, "queqiao_redelivered_total") == 2
    (listed,) = (await office.status())["undelivered"]
    assert (listed["turn"], listed["question"], listed["answer"]) == (lost.id, "问", "答")
    assert listed["sender"] == room.people[0].open_id and "230002" in listed["error"]
    assert ding.answers() == []


# ---------------------------------------------------------------- moments

PATH = ["claimed", "acked", "started", "opened", "shown", "decided", "closed"]


def whats(moments: list[Any]) -> list[str]:
    return [moment["what"] for moment in moments]


def in_order(moments: list[Any], wanted: list[str]) -> None:
    """Each of them once, one after the other, at moments that never go back."""
    first = [whats(moments).index(what) for what in wanted]
    assert first == sorted(first), whats(moments)
    times = [moment["at"] for moment in moments]
    assert times == sorted(times)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_the_moments_of_a_turn_live_and_after_a_restart(house: Any, platform: str) -> None:
    house.deepseek.script("问", ["一", "二", "三"], pace=0.4)
    await house.start()
    room = house.room(platform)
    message = await room.say("问")
    await room.growing("一")
    trails = house.app.replies.trails
    await until(house, lambda: "shown" in [m.what for _, all_ in trails.recent() for m in all_])
    (turn,) = (await house.app.office.live())["turns"]
    assert (turn["state"], turn["message_id"]) == ("running", message)
    in_order(turn["moments"], ["claimed", "acked", "opened", "shown"])
    await house.ended(platform, message)
    await until(house, lambda: not len(house.app.lanes))
    (turn,) = (await house.app.office.live())["turns"]
    assert turn["state"] == "answered"
    in_order(turn["moments"], ["claimed", "acked", "opened", "shown", "closed"])
    await house.restart()
    (account,) = (await house.app.office.why(message))["accounts"]
    in_order(account["turn"]["moments"], PATH)
    assert account["turn"]["state"] == "answered" and account["turn"]["proof"]
    (reply,) = account["turn"]["replies"]
    assert reply["card_id"] and reply["message_id"]


async def test_the_moments_of_a_turn_that_waited_and_was_stopped(house: Any) -> None:
    house.deepseek.script("问", ["答"], first=300.0)
    await house.start()
    room = house.room("feishu")
    await room.say("问一")
    message = await room.say("问二")
    await house.clock.hurry(lambda: len(room.answers()) == 2, step=0.5, most=10.0)
    await room.press(room.answers()[1], "停止")
    await until(house, lambda: not room.answers()[1].streaming)
    await room.say("/stop")
    await house.ended("feishu", message)
    found = (await house.app.office.live())["turns"]
    (turn,) = [one for one in found if one["message_id"] == message]
    assert turn["state"] == "stopped"
    in_order(turn["moments"], ["claimed", "acked", "waiting"])
    assert "stopped" in whats(turn["moments"])


async def test_the_moments_of_a_turn_that_was_withdrawn_unseen(house: Any) -> None:
    house.deepseek.script("问", ["答"], first=300.0)
    await house.start()
    room = house.room("feishu")
    await room.say("问一")
    message = await room.say("问二")
    await until(house, lambda: all(at for at in house.feishu.acks.values()))
    await room.sim.recall(message)
    await house.ended("feishu", message)
    found = (await house.app.office.live())["turns"]
    (turn,) = [one for one in found if one["message_id"] == message]
    assert turn["state"] == "recalled" and whats(turn["moments"])[-1] == "recalled"
    (account,) = (await house.app.office.why(message))["accounts"]
    assert whats(account["turn"]["moments"]) == ["claimed", "acked", "recalled"]


# ---------------------------------------------------------------- why


async def test_why_for_every_fate(house: Any) -> None:
    house.chat = replace(house.chat, depth=1)
    house.feishu.policy.hears_all = True
    house.deepseek.script("问", ["答"], first=2.0)
    await house.start()
    room = house.room("feishu", "group")
    ignored = await room.say("大家好", bot=False)
    answered = await room.say("问", times=3)
    refused = await room.say("问多了")
    turn = await house.ended("feishu", answered)
    await house.ended("feishu", refused)
    why = house.app.office.why
    assert await told(why, ignored) == [("not_mentioned", 0, None, None)]
    assert await told(why, answered) == [("", 2, "answered", "delivered")]
    assert await told(why, turn.id) == [("", 2, "answered", "delivered")]
    assert await told(why, turn.id[:8]) == [("", 2, "answered", "delivered")]
    assert await told(why, refused) == [("", 0, "refused", "delivered")]
    assert await told(why, "om_unknown") == []
    await room.say("/why")
    text = (await house.settled(room.answers, 3))[-1].text
    assert refused in text or answered in text
    await room.say(f"/why {ignored}", who=1)
    assert "管理员" in (await house.settled(room.answers, 4))[-1].text


async def test_why_names_the_question_that_runs(house: Any) -> None:
    house.deepseek.script("早", ["答"])
    house.deepseek.script("慢", ["字"] * 2000, pace=0.05)
    await house.start()
    room, other = house.room("feishu"), house.room("feishu")
    asked = await house.ended("feishu", await other.say("/why"))
    assert "还没有提过问题" in asked.ending.text
    await house.ended("feishu", await room.say("早"))
    for here in (room, other):
        message = await here.say("慢")
        await here.growing("字")
        told = (await house.ended("feishu", await here.say("/why"))).ending.text
        assert message in told and "正在回答" in told
    waits = await room.say("早")
    told = (await house.ended("feishu", await room.say("/why"))).ending.text
    assert waits not in told and "正在回答" in told, "the one that runs comes first"
    for here in (room, other):
        await here.say("/stop")


async def test_why_of_a_question_that_found_the_queue_full(house: Any) -> None:
    house.chat = replace(house.chat, depth=1)
    house.deepseek.script("慢", ["字"] * 40, pace=0.05)
    await house.start()
    room = house.room("dingtalk")
    await room.say("慢")
    await room.growing("字")
    message = await room.say("二")
    await house.ended("dingtalk", message)
    said = why_text(await house.app.office.why(message), "zh")
    assert "（只给一句提示）" in said and "由模型回答" not in said


async def told(why: Any, message: str) -> list[tuple[Any, ...]]:
    accounts = (await why(message))["accounts"]
    return [
        (
            one["reason"],
            one["repeats"],
            one["turn"] and one["turn"]["state"],
            one["turn"] and one["turn"]["delivery"],
        )
        for one in accounts
    ]


# ---------------------------------------------------------------- a store under fire


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_card_is_finished_while_nothing_can_be_written(house: Any, platform: str) -> None:
    """And committed afterwards, with the history that follows from it."""
    house.deepseek.script("问", ["一", "二", "三"], pace=0.4)
    house.deepseek.script("之后", ["好答"])
    await house.start()
    broken = await house.breakable()
    room = house.room(platform)
    message = await room.say("问")
    await room.growing("一")
    broken.set()
    assert (await room.answer()).text == "一二三"
    assert not (await house.turn(platform, message)).ended
    broken.clear()
    await house.clock.hurry(lambda: not len(house.app.lanes))
    turn = await house.ended(platform, message)
    assert (turn.state, turn.ending.delivery) == ("answered", "delivered")
    await house.ended(platform, await room.say("之后"))
    assert house.deepseek.requests[-1].said("assistant") == ["一二三"]
    assert len(room.answers()) == 2


async def test_a_card_not_yet_open_waits_for_the_store(house: Any) -> None:
    """Its key must be on disk before the call; the answer is not lost."""
    house.deepseek.script("问", ["一", "二", "三"], pace=0.3)
    await house.start()
    broken = await house.breakable()
    room = house.room("feishu")
    house.feishu.faults.order("card_create", Fault("delay", seconds=100.0))
    message = await room.say("问")
    await until(house, lambda: house.feishu.calls_of("card_create"))
    broken.set()
    house.clock.leap(100.0)
    await until(house, lambda: house.deepseek.finished)
    await asyncio.sleep(0.3)
    broken.clear()
    await house.clock.hurry(lambda: room.answers() and not house.feishu.open_cards())
    assert (await room.answer()).text == "一二三"
    await house.clock.hurry(lambda: not len(house.app.lanes))
    turn = await house.ended("feishu", message)
    assert turn.state == "answered"


async def test_feishu_sends_again_what_could_not_be_stored(house: Any) -> None:
    house.deepseek.script("问", ["答"])
    await house.start()
    broken = await house.breakable()
    room = house.room("feishu")
    broken.set()
    message = await room.say("问")
    await asyncio.sleep(0.2)
    for _ in range(4):
        house.clock.leap(1.0)
        await asyncio.sleep(0.05)
    assert house.feishu.acks and not any(house.feishu.acks.values()) and not room.answers()
    broken.clear()
    house.clock.leap(15.0)
    assert (await house.ended("feishu", message)).ending.text == "答"
    assert (await room.answer()).text == "答"
    assert await house.app.office.problems() == []


async def test_dingtalk_may_not_so_the_person_is_told(house: Any) -> None:
    house.deepseek.script("问", ["答"])
    await house.start()
    broken = await house.breakable()
    room = house.room("dingtalk")
    broken.set()
    await room.say("问")
    await house.clock.hurry(room.answers, step=0.5, most=20.0)
    assert "无法保存" in room.answers()[0].text and house.deepseek.requests == []
    broken.clear()
    message = await room.say("再问")
    assert (await house.ended("dingtalk", message)).ending.text == "答"


async def test_a_button_gets_a_word_while_nothing_can_be_written(house: Any) -> None:
    house.deepseek.script("问", ["字"] * 500, pace=0.05)
    await house.start()
    broken = await house.breakable()
    room = house.room("feishu")
    message = await room.say("问")
    card = await room.growing("字")
    broken.set()
    pressing = asyncio.create_task(room.press(card, "停止"))
    await until(house, lambda: house.deepseek.cancelled == 1)
    assert "error" not in await pressing, "answered in time, one way or another"
    assert "已停止" in (await room.answer()).small
    broken.clear()
    await house.clock.hurry(lambda: not len(house.app.lanes))
    assert (await house.ended("feishu", message)).state == "stopped"


async def test_many_chats_go_through_a_store_that_comes_and_goes(house: Any) -> None:
    house.deepseek.script("问", ["一", "二", "三"], pace=0.2)
    await house.start()
    broken = await house.breakable()
    rooms = [house.room("feishu", people=1) for _ in range(12)]
    messages = [await room.say("问") for room in rooms]
    for _ in range(4):
        broken.set()
        await asyncio.sleep(0.15)
        broken.clear()
        await asyncio.sleep(0.15)
    await house.clock.hurry(
        lambda: all(b.text == "一二三" for r in rooms for b in r.answers() or [_nothing]),
        step=0.5,
    )
    for room, message in zip(rooms, messages, strict=True):
        turn = await house.ended("feishu", message)
        assert turn.state == "answered" and len(room.answers()) == 1
    assert house.feishu.open_cards() == []


class _nothing:
    text = ""
