"""The month's calls in the whole house: counted as the simulators count, saved, refused and
told (needs.md 22, 25)."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import pytest

from adapters.playground.dingtalk import wire as dingtalk
from adapters.playground.faults import Fault
from adapters.playground.feishu import wire as feishu
from bot.month import month_of

PLATFORMS = ("feishu", "dingtalk")

CAP = 1000


def outgoing(house: Any) -> dict[tuple[str, str], int]:
    """What the simulators saw that counts, by bot and kind; refusals for haste, the only 403
    here, do not on DingTalk (reference/dingtalk.md 5.7)."""
    asked = house.dingtalk.calls
    free = {dingtalk.WEBHOOK, *dingtalk.FREE}
    return {
        ("feishu", "api"): sum(c.route not in feishu.UNCOUNTED for c in house.feishu.calls),
        ("dingtalk", "api"): sum(c.route not in free and c.status != 403 for c in asked),
        ("dingtalk", "message"): sum(c.route == dingtalk.WEBHOOK for c in asked)
        + len(house.dingtalk.acks),
    }


def counted(house: Any) -> dict[tuple[str, str], int]:
    calls = house.app.calls
    found = [calls.standing("feishu", "api"), *calls.standings("dingtalk")]
    return {(standing.bot, standing.kind): standing.used for standing in found}


def use(house: Any, bot: str, count: int, kind: str = "api") -> None:
    """So many calls were made before."""
    for _ in range(count):
        house.app.calls.count(bot, "earlier", kind)


def total(house: Any, platform: str) -> int:
    return len([c for c in house.sim(platform).calls if c.route not in free_of(platform)])


def free_of(platform: str) -> frozenset[str]:
    return feishu.UNCOUNTED if platform == "feishu" else dingtalk.FREE


async def level(house: Any, bot: str, wanted: str) -> None:
    """The count has been looked at."""
    await house.feishu.wait_for(lambda: house.app.calls.level(bot) == wanted, 15)
    await house.app.saver.look(house.app.bot.announce)


# ---------------------------------------------------------------- counting


async def test_counts_are_those_of_the_platforms_own_books(house: Any) -> None:
    """Refusals, lost answers and a dead token included; a kill forgets a moment at most."""
    haste = Fault("status", status=403, body={"code": dingtalk.QPS_CODE, "message": "x"})
    await house.start()
    rooms = [house.room(p, kind) for p in PLATFORMS for kind in ("p2p", "group")]
    for room in rooms:
        await room.say("第一个问题")
    for room in rooms:
        await room.answer()
    house.feishu.revoke_tokens()
    house.dingtalk.revoke_tokens()
    house.feishu.faults.order(feishu.REPLY, Fault("lose"))
    house.feishu.faults.order(feishu.CARD_UPDATE, Fault("truncate"))
    house.dingtalk.faults.order(dingtalk.CARD_STREAM, haste, times=2)
    house.dingtalk.faults.order(dingtalk.CARD_CREATE_DELIVER, Fault("status", status=500, body={}))
    for room in rooms:
        await room.say("第二个问题")
    for room in rooms:
        await room.answer(2)
    for room in rooms[2:]:
        await room.say("/status")
        await room.answer(3)
    assert counted(house) == outgoing(house) and all(counted(house).values())
    assert (
        sum(house.app.calls.standing("feishu", "api").apis.values())
        == counted(house)["feishu", "api"]
    )
    before = counted(house)
    await house.restart()
    await house.feishu.wait_for(lambda: counted(house) == outgoing(house))
    assert counted(house)["dingtalk", "api"] == before["dingtalk", "api"]
    await house.app.calls.flush()
    await house.crash()
    await house.start()
    await house.feishu.wait_for(lambda: counted(house) == outgoing(house))


async def test_the_operator_sees_the_month(house: Any) -> None:
    house.dingtalk_keys |= {"monthly_calls": CAP, "monthly_messages": 500}
    room = house.room("dingtalk")
    house.admins = {f"dingtalk:{room.people[0].staff_id}"}
    await house.start()
    use(house, "dingtalk", 300)
    await room.say("/usage")
    text = (await room.answer()).text
    assert f"{300:,} / {CAP:,}（30%）" in text and "/ 500" in text and "月底约" in text
    status = await house.app.office.status()
    (api,) = [c for c in status["calls"] if (c["bot"], c["kind"]) == ("dingtalk", "api")]
    assert api["cap"] == CAP and api["used"] == 300 and api["month"] == month_of(house.clock.time())
    assert api["forecast"] >= 300 and not api["saving"]
    metrics = {(m.name, m.labels): m.value for m in await house.app.office.metrics()}
    labels = (("bot", "dingtalk"), ("kind", "api"))
    assert metrics["queqiao_api_calls_month", labels] == 300
    assert metrics["queqiao_api_calls_cap", labels] == CAP
    stranger = house.room("dingtalk")
    await stranger.say("/usage")
    assert "300" not in (await stranger.answer()).text


# ---------------------------------------------------------------- eighty percent


def admin_of(house: Any, platform: str) -> Any:
    """Somebody who never wrote to the bot, and their chat."""
    person = house.sim(platform).add_person("管理员")
    entry = person.open_id if platform == "feishu" else person.staff_id
    house.admins = {f"{platform}:{entry}"}
    return house.sim(platform).p2p(person)


def notices(house: Any, platform: str, chat: Any) -> list[str]:
    return [bubble.text for bubble in house.sim(platform).bot_bubbles(chat)]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_at_eighty_percent_it_saves_and_tells_the_admin_once(
    house: Any, platform: str
) -> None:
    keys = house.feishu_keys if platform == "feishu" else house.dingtalk_keys
    keys["monthly_calls"] = CAP
    house.deepseek.script("长", ["字" * 20] * 12, pace=0.2)
    chat = admin_of(house, platform)
    await house.start()
    room = house.room(platform)
    await house.ended(platform, await room.say("长"))
    calls = house.app.calls
    use(house, platform, CAP * 80 // 100 - 1 - calls.standing(platform, "api").used)
    await level(house, platform, "")
    assert not house.app.saver.saving(platform) and notices(house, platform, chat) == []
    use(house, platform, 1)
    await level(house, platform, "save")
    await house.feishu.wait_for(lambda: notices(house, platform, chat))
    (notice,) = notices(house, platform, chat)
    for words in ("80%", f"{CAP:,}", "月底约", "saver", "monthly_calls"):
        assert words in notice
    before = total(house, platform)
    await room.say("长")
    assert (await room.answer(2)).text == "字" * 240
    assert total(house, platform) - before <= 2
    await house.restart()
    await level(house, platform, "save")
    assert house.app.saver.saving(platform)
    await room.say("长")
    await room.answer(3)
    assert len(notices(house, platform, chat)) == 1
    assert house.complaints(paced=False) == []


# ---------------------------------------------------------------- a hundred percent


async def test_at_the_end_dingtalk_answers_by_webhook_and_costs_no_call(house: Any) -> None:
    house.dingtalk_keys["monthly_calls"] = CAP
    await house.start()
    use(house, "dingtalk", CAP)
    await level(house, "dingtalk", "spent")
    before = total(house, "dingtalk")
    room = house.room("dingtalk", "group")
    message = await room.say("还能回答吗")
    bubble = await room.answer()
    assert bubble.kind == "text" and (await house.ended("dingtalk", message)).state == "answered"
    assert total(house, "dingtalk") == before
    assert await house.app.office.problems() == []


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_an_answer_under_way_at_the_end_costs_only_its_own_end(
    house: Any, platform: str
) -> None:
    keys = house.feishu_keys if platform == "feishu" else house.dingtalk_keys
    keys["monthly_calls"] = CAP
    house.deepseek.script("长", ["字" * 20] * 40, pace=0.2)
    await house.start()
    rooms = [house.room(platform, kind) for kind in ("p2p", "group")]
    for room in rooms:
        await room.say("长")
    for room in rooms:
        await room.growing("字")
    use(house, platform, CAP)
    before = total(house, platform)
    for room in rooms:
        assert (await room.answer(timeout=30)).text == "字" * 800
    assert total(house, platform) - before <= 3 * len(rooms)
    assert house.complaints(paced=False) == []


async def test_at_the_end_without_an_open_webhook_one_sentence_is_all(house: Any) -> None:
    house.dingtalk_keys["monthly_calls"] = CAP
    house.dingtalk.policy.webhook_seconds = 1.0
    await house.start()
    use(house, "dingtalk", CAP)
    await level(house, "dingtalk", "spent")
    room = house.room("dingtalk")
    for text in ("一", "二", "三"):
        await house.ended("dingtalk", await room.say(text))
    (bubble,) = room.answers()
    assert "额度已用完" in bubble.text and house.deepseek.requests == []


async def test_a_webhook_beyond_its_own_cap_is_not_used(house: Any) -> None:
    """Pushes and webhooks have a cap of their own; the other account still has calls."""
    house.dingtalk_keys["monthly_messages"] = CAP
    await house.start()
    use(house, "dingtalk", CAP, "message")
    await level(house, "dingtalk", "spent")
    room = house.room("dingtalk")
    turn = await house.ended("dingtalk", await room.say("还能回答吗"))
    assert turn.state == "answered" and house.dingtalk.calls_of(dingtalk.WEBHOOK) == []


async def test_at_the_end_where_every_reply_costs_one_sentence_speaks_for_an_hour(
    house: Any,
) -> None:
    house.feishu_keys["monthly_calls"] = CAP
    await house.start()
    use(house, "feishu", CAP)
    await level(house, "feishu", "spent")
    (problem,) = await house.app.office.problems()
    assert problem.startswith("feishu: ")
    room = house.room("feishu", "group")
    first = await room.say("第一个")
    assert "额度已用完" in (await room.answer()).text
    before = total(house, "feishu")
    second = await room.say("第二个", who=1)
    told, silent = await house.ended("feishu", first), await house.ended("feishu", second)
    assert {told.state, silent.state} == {"refused"} and silent.ending.delivery == "delivered"
    assert silent.ending.proof == f"month:{told.id}"
    assert len(room.answers()) == 1 and total(house, "feishu") == before
    assert house.deepseek.requests == []
    why = await house.app.office.why(second)
    assert why["accounts"][0]["turn"]["error"] == "month"
    house.clock.leap(3600.0)
    await room.say("第三个")
    assert "额度已用完" in (await room.answer(2)).text
    house.feishu_keys["monthly_calls"] = 0
    await house.restart()
    await room.say("第四个")
    await room.answer(3)
    assert len(house.deepseek.requests) == 1


async def test_commands_of_admins_work_to_the_end(house: Any) -> None:
    house.feishu_keys["monthly_calls"] = CAP
    room = house.room("feishu")
    house.admins = {f"feishu:{room.people[0].open_id}"}
    await house.start()
    use(house, "feishu", CAP + 10)
    await level(house, "feishu", "spent")
    await room.say("/usage")
    await house.feishu.wait_for(lambda: any("（101%）" in b.text for b in room.answers()), 15)


# ---------------------------------------------------------------- the platform's own word


REFUSALS = {
    "feishu": lambda house: setattr(house.feishu.policy, "quota", 0),
    "dingtalk": lambda house: [
        setattr(house.dingtalk.quota, "api_limit", 0),
        setattr(house.dingtalk.quota, "hook_limit", house.dingtalk.quota.hooks + 1),
    ],
}


def give_back(house: Any) -> None:
    """More was bought."""
    house.feishu.policy.quota = None
    house.dingtalk.quota.api_limit = house.dingtalk.quota.hook_limit = None


async def pass_by(house: Any, seconds: float) -> None:
    """In steps that no link takes for silence."""
    for _ in range(round(seconds / 8.0)):
        house.clock.leap(8.0)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_quota_the_platform_refuses_is_not_tried_in_a_loop(
    house: Any, platform: str
) -> None:
    await house.start()
    room = house.room(platform)
    await house.ended(platform, await room.say("先问一句"))
    REFUSALS[platform](house)
    message = await room.say("额度没了")
    lost = await house.ended(platform, message)
    assert lost.state == "answered" and lost.ending.delivery == "undelivered"
    before = Counter(call.route for call in house.sim(platform).calls)
    await pass_by(house, 150 * 8.0)
    after = Counter(call.route for call in house.sim(platform).calls)
    extra = {route for route in after if after[route] > before[route]} - free_of(platform)
    assert extra == set()
    (listed,) = (await house.app.office.status())["undelivered"]
    assert listed["turn"] == lost.id
    give_back(house)
    assert (await house.app.office.resend(lost.id))["delivery"] == "delivered"
    await room.say("又有了")
    await room.answer(3)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_what_a_quota_held_back_arrives_when_there_is_more(house: Any, platform: str) -> None:
    """One try an hour for all that waits; then no card is left open."""
    await house.start()
    rooms = [house.room(platform), house.room(platform)]
    for room in rooms:
        await house.ended(platform, await room.say("先问一句"))
    REFUSALS[platform](house)
    lost = [await house.ended(platform, await room.say("额度没了")) for room in rooms]
    assert all(turn.ending.delivery == "undelivered" for turn in lost)
    before = Counter(call.route for call in house.sim(platform).calls)
    await pass_by(house, 1100 * 8.0)
    after = Counter(call.route for call in house.sim(platform).calls)
    extra = {route: after[route] - before[route] for route in after}
    assert sum(extra[route] for route in extra if route not in free_of(platform)) == 2
    give_back(house)
    await pass_by(house, 500 * 8.0)
    turns = [await house.app.store.turn(turn.id) for turn in lost]
    assert [turn.ending.delivery for turn in turns] == ["delivered", "delivered"]
    assert house.sim(platform).open_cards() == []


async def test_a_message_without_content_is_answered_with_the_reason(house: Any) -> None:
    """reference/dingtalk.md 4.2: errorCode 20001 when the quota for pushes is spent."""
    person = house.feishu.add_person("管理员")
    house.admins = {f"feishu:{person.open_id}"}
    await house.start()
    house.dingtalk.quota.hook_limit = house.dingtalk.quota.hooks
    rooms = [house.room("dingtalk", kind) for kind in ("p2p", "group")]
    for room in rooms:
        message = await room.say("看得见吗")
        assert "额度已用完" in (await room.answer()).text
        turn = await house.ended("dingtalk", message)
        assert turn.new.notice == "notice.quota" and turn.ending.delivery == "delivered"
    assert house.deepseek.requests == []
    chat = house.feishu.p2p(person)
    await house.feishu.wait_for(lambda: notices(house, "feishu", chat), 15)
    (notice,) = notices(house, "feishu", chat)
    assert "dingtalk" in notice and "平台说" in notice
    assert house.app.saver.saving("dingtalk") and not house.app.saver.saving("feishu")
    assert counted(house)["dingtalk", "message"] == len(house.dingtalk.calls_of(dingtalk.WEBHOOK))


async def test_with_both_quotas_spent_the_reason_is_given_once_an_hour(house: Any) -> None:
    """Each message without content would cost a call that the month has not got."""
    house.dingtalk_keys["monthly_calls"] = CAP
    await house.start()
    use(house, "dingtalk", CAP)
    await level(house, "dingtalk", "spent")
    house.dingtalk.quota.hook_limit = house.dingtalk.quota.hooks
    room = house.room("dingtalk", "group")
    messages = [await room.say(f"看得见吗 {n}") for n in range(4)]
    turns = [await house.ended("dingtalk", message) for message in messages]
    (bubble,) = room.answers()
    assert "推送额度已用完" in bubble.text
    assert {turn.ending.delivery for turn in turns} == {"delivered"}
    assert total(house, "dingtalk") == 1
    why = await house.app.office.why(messages[3])
    assert why["accounts"][0]["turn"]["error"] == "month"
    house.clock.leap(3600.0)
    await room.say("现在呢")
    assert "推送额度已用完" in (await room.answer(2)).text


# ---------------------------------------------------------------- refused for good

FEISHU_WAYS = (feishu.SEND, feishu.REPLY, feishu.PATCH, feishu.CARD_CREATE, feishu.CARD_UPDATE)
DINGTALK_WAYS = (
    dingtalk.CARD_CREATE_DELIVER,
    dingtalk.CARD_UPDATE,
    dingtalk.OTO_SEND,
    dingtalk.GROUP_SEND,
)


@pytest.mark.parametrize(
    ("platform", "code"),
    [
        ("feishu", 230031),
        ("feishu", 230002),
        ("feishu", 230035),
        ("feishu", 231003),
        ("feishu", 99991403),
        ("dingtalk", "resource.not.found"),
        ("dingtalk", "group.disbanded"),
        ("dingtalk", dingtalk.COUNT_CODE),
    ],
)
async def test_a_permanent_refusal_costs_a_call_for_each_rung_and_no_more(
    house: Any, platform: str, code: Any
) -> None:
    """needs.md 25: each would be refused again, and counted again."""
    house.dingtalk.policy.webhook_seconds = 1.0
    await house.start()
    sim = house.sim(platform)
    refusal = Fault("status", status=400, body={"code": code, "msg": "no", "message": "no"})
    ways = FEISHU_WAYS if platform == "feishu" else DINGTALK_WAYS
    sim.faults.order_any(ways, refusal, math.inf)
    room = house.room(platform)
    turn = await house.ended(platform, await room.say("你好"))
    assert turn.ending.delivery == "undelivered"
    made = Counter(call.route for call in sim.calls if call.route in ways)
    assert made and max(made.values()) <= 2
    for _ in range(100):
        house.clock.leap(8.0)
        await asyncio.sleep(0.005)
    assert Counter(call.route for call in sim.calls if call.route in ways) == made


@pytest.mark.parametrize(
    ("platform", "code"),
    [
        ("feishu", 230013),
        ("feishu", 99991672),
        ("dingtalk", "chatbotId.notAllow.sendOTO"),
    ],
)
async def test_a_missing_right_costs_a_few_calls_a_day(
    house: Any, platform: str, code: Any
) -> None:
    """Somebody may grant it, so it is not given up; but ten minutes apart, one answer alone
    would cost a hundred and fifty calls. The answer arrives once the right is there."""
    house.dingtalk.policy.webhook_seconds = 1.0
    await house.start()
    sim = house.sim(platform)
    refusal = Fault("status", status=400, body={"code": code, "msg": "no", "message": "no"})
    ways = FEISHU_WAYS if platform == "feishu" else DINGTALK_WAYS
    sim.faults.order_any(ways, refusal, math.inf)
    room = house.room(platform)
    turn = await house.ended(platform, await room.say("你好"))
    assert turn.ending.delivery == "undelivered"
    for _ in range(6 * 12):  # the next try is at most as far away again
        house.clock.leap(300.0)
        await asyncio.sleep(0.005)
    made = Counter(call.route for call in sim.calls if call.route in ways)
    assert 3 <= sum(made.values()) <= 10
    sim.faults.clear()
    await house.clock.hurry(room.answers, step=300.0, most=43_200.0)
    assert (await room.answer()).text
