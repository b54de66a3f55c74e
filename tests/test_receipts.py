"""bot/receipts.py: a mark while a message waits, on the real adapters and their simulators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from adapters.dingtalk.chat import DingTalkPlatform
from adapters.dingtalk.settings import DingTalkSettings
from adapters.feishu.chat import FeishuPlatform
from adapters.feishu.settings import FeishuSettings
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim
from adapters.playground.feishu.wire import REACT, TOKEN, UNREACT
from bot.contract import Json, NewTurn, Person, Platform, TextPart, Turn
from bot.pace import Pacer
from bot.receipts import Receipts


def turn(address: Json, bot: str = "feishu", platform: Platform = "feishu", no: int = 1) -> Turn:
    new = NewTurn(
        id=f"turn-{no}",
        kind="chat",
        bot=bot,
        platform=platform,
        chat="c",
        chat_kind="group",
        topic="",
        conversation="v",
        lane="l",
        sender=Person("ou_1"),
        message_id=f"m{no}",
        parts=(TextPart("问题"),),
        address=address,
        lang="zh",
        asked_at=0.0,
    )
    return Turn(new, no)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# ---------------------------------------------------------------- Feishu


class Group:
    """A Feishu group, a message in it, and the receipts of the bot there."""

    def __init__(self, sim: FeishuSim, http: Http, clock: VirtualClock) -> None:
        self.sim = sim
        settings = FeishuSettings("feishu", sim.app_id, sim.app_secret, sim.base_url)
        platform = FeishuPlatform(settings, http, clock, budget=Pacer(clock))
        self.clock, self.receipts = clock, Receipts({"feishu": platform})
        self.person = sim.add_person("小明")
        self.chat = sim.add_group("群", [self.person])

    async def asked(self, no: int = 1) -> tuple[Turn, str]:
        message = await self.sim.say(self.chat, self.person, "问题", mention_bot=True)
        return turn({"message_id": message}, no=no), message

    def marks(self, message: str) -> list[str]:
        return self.sim.world.bubbles[message].reactions

    def calls(self) -> list[str]:
        return [call.route for call in self.sim.calls if call.route in (REACT, UNREACT)]


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    clock, http = VirtualClock(settle=0.002), Http()
    async with FeishuSim(clock) as sim:
        group = Group(sim, http, clock)
        yield group
        await group.receipts.close()
        await http.close()


async def test_a_message_that_waits_is_marked_until_its_turn_comes(group: Group) -> None:
    waits, message = await group.asked()
    group.receipts.waiting(waits)
    await until(lambda: group.marks(message))
    group.receipts.over(waits)
    await until(lambda: not group.marks(message))
    assert not group.sim.violations


async def test_over_before_the_mark_was_up_leaves_no_mark(group: Group) -> None:
    waits, message = await group.asked()
    group.receipts.waiting(waits)
    group.receipts.over(waits)
    await until(lambda: len(group.calls()) == 2)
    await until(lambda: not group.marks(message))


async def test_over_twice_or_without_waiting_asks_for_nothing(group: Group) -> None:
    waits, message = await group.asked()
    group.receipts.over(waits)
    group.receipts.waiting(waits)
    await until(lambda: group.marks(message))
    group.receipts.over(waits)
    group.receipts.over(waits)
    await until(lambda: not group.marks(message))
    group.receipts.over(waits)
    other, marked = await group.asked(2)
    group.receipts.waiting(other)
    await until(lambda: group.marks(marked))
    assert len(group.calls()) == 3


async def test_each_message_has_a_mark_of_its_own(group: Group) -> None:
    (first, one), (second, two) = await group.asked(1), await group.asked(2)
    group.receipts.waiting(first)
    group.receipts.waiting(second)
    await until(lambda: group.marks(one) and group.marks(two))
    group.receipts.over(first)
    await until(lambda: not group.marks(one))
    assert group.marks(two)


async def test_the_marks_of_a_crowd_keep_to_the_limits(group: Group) -> None:
    """Fifty calls of one kind a second (reference/feishu.md 5.8)."""
    asked = [await group.asked(number) for number in range(120)]
    for waits, _ in asked:
        group.receipts.waiting(waits)
    await group.clock.advance(1.0)
    assert 40 <= sum(bool(group.marks(message)) for _, message in asked) < 120
    await group.clock.advance(4.0)
    assert all(group.marks(message) for _, message in asked)
    for waits, _ in asked:
        group.receipts.over(waits)
    await group.clock.advance(5.0)
    assert not any(group.marks(message) for _, message in asked)
    assert not group.sim.violations


async def test_a_refused_mark_is_nobodys_trouble(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    waits, message = await group.asked()
    await group.sim.recall(message)
    group.receipts.waiting(waits)
    await until(lambda: group.calls())
    group.receipts.over(waits)
    other, marked = await group.asked(2)
    group.receipts.waiting(other)
    await until(lambda: group.marks(marked))
    assert len(group.calls()) == 2, "what was not put up is not taken down"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_closing_does_not_wait_for_a_silent_platform(group: Group) -> None:
    waits, _ = await group.asked()
    for route in (TOKEN, REACT):
        group.sim.faults.order(route, Fault("hang", seconds=3_600))
    before = asyncio.all_tasks()
    group.receipts.waiting(waits)
    group.receipts.over(waits)
    await asyncio.sleep(0)
    await asyncio.wait_for(group.receipts.close(), 30)
    ours = {task for task in asyncio.all_tasks() - before if task.get_name().endswith("mark")}
    assert not ours


@pytest.mark.parametrize("may_look", [True, False])
async def test_a_mark_whose_id_is_lost_is_found_and_taken_back(
    group: Group, may_look: bool
) -> None:
    """Nobody else's, and none is put up where there was none."""
    if not may_look:
        group.sim.policy.missing_scopes |= {"im:message", "im:message.reactions:read"}
    waits, message = await group.asked()
    group.receipts.waiting(waits)
    await until(lambda: group.marks(message))
    await group.sim.react(message, group.person, "Get")
    after = Receipts(group.receipts._platforms)
    after.left(waits)
    await until(lambda: group.marks(message) == ["Get"])
    after.left((await group.asked(2))[0])
    await after.close()
    assert group.marks(message) == ["Get"], "the person's own"
    calls = [call for call in group.calls() if call == REACT]
    assert len(calls) == (1 if may_look else 3)


# ---------------------------------------------------------------- platforms that may not


@pytest.mark.parametrize("receipts", [True, False])
async def test_dingtalk_marks_only_where_its_operator_wants_it(receipts: bool) -> None:
    clock, http = VirtualClock(settle=0.002), Http()
    async with DingTalkSim(clock) as sim:
        settings = DingTalkSettings(
            "ding",
            sim.client_id,
            sim.client_secret,
            base_url=sim.base_url,
            oapi_base_url=sim.base_url,
            receipts=receipts,
        )
        marks = Receipts({"ding": DingTalkPlatform(settings, http, clock)})
        person = sim.add_person("小红")
        chat = sim.add_group("群", [person])
        message = await sim.say(chat, person, "问题", mention_bot=True)
        address = {"msgId": message, "conversationId": chat.id, "robotCode": sim.client_id}
        waits = turn(address, "ding", "dingtalk")
        bubble = sim.world.bubbles[message]
        marks.waiting(waits)
        if receipts:
            await until(lambda: bubble.reactions)
        marks.over(waits)
        await until(lambda: not bubble.reactions)
        await marks.close()
        assert bool(sim.calls) is receipts, "two counted calls, or none"
        await http.close()


class Plain:
    """A platform without reactions."""


async def test_a_platform_without_reactions_shows_nothing() -> None:
    receipts = Receipts({"plain": Plain()})  # type: ignore[dict-item]
    waits = turn({}, "plain")
    receipts.waiting(waits)
    receipts.over(waits)
    await receipts.close()
