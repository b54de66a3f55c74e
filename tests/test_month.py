"""The month's calls: the pure part, and counting into the store (needs.md 25)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.feishu.api import FeishuApi
from adapters.feishu.chat import FeishuPlatform, FeishuSettings
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim
from adapters.playground.feishu.wire import BOT_INFO, CARD_CREATE
from bot.access import Access
from bot.calls import BELIEVED, FLUSH_EVERY, LOOK_EVERY, Calls
from bot.contract import (
    ActionReply,
    CallCount,
    CallKind,
    Event,
    Json,
    NewTurn,
    Person,
    Platform,
    Turn,
    TurnStore,
)
from bot.errors import QuotaExhausted, StoreError, Transient, Uncertain
from bot.gate import ONCE, Gate
from bot.month import BEIJING, bounds, forecast, level_of, month_of, worst
from bot.saver import AFTER_REFUSAL, Mode, Saver
from storage import open_store


def beijing(*when: int) -> float:
    return datetime(*when, tzinfo=BEIJING).timestamp()  # type: ignore[misc, arg-type]


# ---------------------------------------------------------------- pure


def test_a_month_begins_at_midnight_in_beijing() -> None:
    edge = beijing(2026, 12, 1)
    assert datetime.fromtimestamp(edge, tz=None).astimezone(BEIJING).day == 1
    assert month_of(edge - 0.001) == "2026-11" and month_of(edge) == "2026-12"
    assert bounds("2026-11") == (beijing(2026, 11, 1), edge)
    assert bounds("2026-12") == (edge, beijing(2027, 1, 1))
    assert bounds("2028-02")[1] - bounds("2028-02")[0] == 29 * 86_400


def test_half_a_month_gone_is_twice_as_much_at_its_end() -> None:
    assert forecast(100, beijing(2026, 11, 16)) == 200
    assert forecast(0, beijing(2026, 11, 16)) == 0


def test_the_first_hours_are_not_taken_for_the_whole_month() -> None:
    assert forecast(50, beijing(2026, 11, 1) + 60) == forecast(50, beijing(2026, 11, 2)) == 1500


MOMENTS = st.floats(beijing(2024, 1, 1), beijing(2032, 1, 1), allow_nan=False)
USED = st.integers(0, 10**7)


@given(USED, MOMENTS)
def test_a_forecast_lies_between_what_is_used_and_the_floors_pace(used: int, at: float) -> None:
    begin, end = bounds(month_of(at))
    assert begin <= at < end
    assert used <= forecast(used, at) <= used * 31 + 1
    assert forecast(used, at) <= forecast(used + 1, at)


@given(USED, MOMENTS, st.floats(0.0, 86_400.0 * 20))
def test_the_same_use_later_in_the_month_promises_no_more(used: int, at: float, on: float) -> None:
    if month_of(at) == month_of(at + on):
        assert forecast(used, at + on) <= forecast(used, at)


@pytest.mark.parametrize(
    ("used", "level"),
    [(0, ""), (79, ""), (80, "save"), (99, "save"), (100, "spent"), (250, "spent")],
)
def test_eighty_percent_saves_and_a_hundred_is_spent(used: int, level: str) -> None:
    assert level_of(used, 100) == level
    assert level_of(used, 0) == ""


def test_eighty_percent_of_a_cap_that_five_does_not_divide() -> None:
    assert [level_of(n, 3) for n in (2, 3)] == ["", "spent"]
    assert [level_of(n, 7) for n in (5, 6, 7)] == ["", "save", "spent"]


def test_the_worst_account_decides() -> None:
    assert worst([]) == "" and worst(["", "save"]) == "save" and worst(["spent", "save"]) == "spent"


# ---------------------------------------------------------------- counting


@pytest.fixture
async def store(tmp_path: Path, virtual: VirtualClock) -> AsyncIterator[TurnStore]:
    store = await open_store(f"sqlite:///{tmp_path}/a.db", virtual, durable=False)
    yield store
    await store.close()


CAPS: dict[str, dict[CallKind, int]] = {"one": {"api": 100, "message": 50}, "two": {"api": 10}}


def counted(store: Any, clock: VirtualClock, caps: Any = CAPS) -> Calls:
    return Calls(store, caps, clock)


async def test_counts_add_up_in_the_store_and_bots_stay_apart(
    store: TurnStore, virtual: VirtualClock
) -> None:
    here, there = counted(store, virtual), counted(store, virtual)  # two processes
    for _ in range(3):
        here.meter("one").count("send")
        there.meter("one").count("push", "message")
    there.meter("one").count("send")
    there.meter("two").count("reply")
    assert here.standing("one", "api").used == 3 and here.standing("one", "message").used == 0
    await here.flush()
    await there.flush()
    await here.flush()
    for calls in (here, there):
        assert calls.standing("one", "api").apis == {"send": 4}
        assert calls.standing("one", "message").apis == {"push": 3}
        assert calls.standing("two", "api").apis == {"reply": 1}


async def test_a_lone_call_is_written_at_once_and_a_burst_in_one_go(
    store: TurnStore, virtual: VirtualClock
) -> None:
    calls, looked = counted(store, virtual), asyncio.Queue[float]()
    month = month_of(virtual.time())

    async def look() -> None:
        looked.put_nowait(virtual.monotonic())

    async def kept() -> int:
        return sum(row.count for row in await store.count_calls((), month))

    task = asyncio.create_task(calls.run(look))
    await virtual.advance(1.0)
    calls.count("one", "send", "api")
    assert await looked.get() == 1.0 and await kept() == 1
    for _ in range(40):
        calls.count("one", "send", "api")
    await virtual.advance(FLUSH_EVERY / 2)
    assert await kept() == 1 and calls.standing("one", "api").used == 41
    await virtual.advance(FLUSH_EVERY)
    await looked.get()
    assert await kept() == 41
    await virtual.advance(LOOK_EVERY + FLUSH_EVERY)
    await looked.get()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_store_that_refuses_loses_nothing(store: TurnStore, virtual: VirtualClock) -> None:
    class Refusing:
        broken = True

        async def count_calls(self, more: Any, month: str) -> Any:
            if self.broken:
                raise StoreError("full")
            return await store.count_calls(more, month)

    disk = Refusing()
    calls = counted(disk, virtual)
    calls.count("two", "send", "api")
    with pytest.raises(StoreError):
        await calls.flush()
    calls.count("two", "send", "api")
    await calls.close()
    assert calls.standing("two", "api").used == 2
    disk.broken = False
    await calls.close()
    assert calls.standing("two", "api").used == 2
    (row,) = await store.count_calls((), month_of(virtual.time()))
    assert row.count == 2


async def test_a_call_belongs_to_the_month_in_which_it_was_made(store: TurnStore) -> None:
    clock = VirtualClock(beijing(2026, 11, 30, 23, 59, 59))
    calls = counted(store, clock)
    for _ in range(10):
        calls.count("two", "send", "api")
    assert calls.level("two") == "spent"
    await clock.advance(1.0)
    assert calls.standing("two", "api").used == 0 and calls.level("two") == ""
    calls.count("two", "send", "api")
    await calls.flush()
    assert calls.standing("two", "api").used == 1
    old = await store.count_calls((), "2026-11")
    assert old == (CallCount("two", "2026-11", "api", "send", 10),)


async def test_the_platforms_word_is_believed_for_an_hour(
    store: TurnStore, virtual: VirtualClock
) -> None:
    """And is not prolonged by what is refused meanwhile, or nobody would ever try again."""
    calls = counted(store, virtual)
    meter = calls.meter("one")
    meter.used_up("message")
    assert calls.level("one") == "spent" and calls.standing("one", "api").level == ""
    await virtual.advance(BELIEVED / 2)
    meter.used_up("message")
    await virtual.advance(BELIEVED / 2)
    assert calls.level("one") == "" and calls.refused("one", "message", AFTER_REFUSAL)
    meter.used_up("message")
    assert calls.level("one") == "spent"


async def test_the_platforms_word_ends_with_its_month(store: TurnStore) -> None:
    """At midnight there is a new quota: nobody is told, refused or spared for the old one."""
    clock = VirtualClock(beijing(2026, 11, 30, 23, 50))
    office = Office(store, clock)
    office.calls.used_up("two", "api")
    assert [notice for notice, _ in await office.use("two", 0)] == ["month.refused"] * 2
    await clock.advance(600.0)
    assert await office.use("two", 1) == []
    assert office.calls.level("two") == "" and not office.saver.saving("two")
    office.calls.used_up("two", "api")
    assert [notice for notice, _ in await office.use("two", 0)] == ["month.refused"] * 2


# ---------------------------------------------------------------- saving and telling


@dataclass
class Desk:
    """A bot.contract.ChatPlatform as far as it matters here."""

    platform: Platform = "feishu"
    saving: list[bool] = field(default_factory=list)

    def save(self, on: bool) -> None:
        self.saving.append(on)

    def to_person(self, person: str) -> Json:
        return {"person": person}


class Office:
    """A saver with two bots, and what it announced."""

    def __init__(
        self, store: TurnStore, clock: VirtualClock, mode: Mode = "auto", caps: Any = CAPS
    ) -> None:
        self.store, self.clock = store, clock
        self.calls = Calls(store, caps, clock)
        self.platforms: Any = {"one": Desk("dingtalk"), "two": Desk("feishu")}
        self.saver = Saver(
            store=store,
            calls=self.calls,
            platforms=self.platforms,
            modes={"one": mode, "two": mode},
            admins=frozenset({"feishu:ou_a", "feishu:ou_b"}),
            lang="zh",
            clock=clock,
        )
        self.told: list[NewTurn] = []

    async def announce(self, event: Event) -> None:
        accepted = await self.store.accept(event)
        if accepted.fresh and event.turn is not None:
            self.told.append(event.turn)

    async def use(self, bot: str, count: int, kind: CallKind = "api") -> list[tuple[str, str]]:
        """The notices told since: which, and to whom."""
        for _ in range(count):
            self.calls.count(bot, "send", kind)
        self.told.clear()
        await self.calls.flush()
        await self.saver.look(self.announce)
        return [(turn.notice, turn.sender.id) for turn in self.told]


async def test_each_admin_is_told_once_a_level_and_never_again_after_a_restart(
    store: TurnStore, virtual: VirtualClock
) -> None:
    office = Office(store, virtual)
    assert await office.use("two", 7) == [] and not office.saver.saving("two")
    assert await office.use("two", 1) == [("month.save", "ou_a"), ("month.save", "ou_b")]
    assert office.platforms["two"].saving[-1] and not office.platforms["one"].saving[-1]
    assert await office.use("two", 1) == []
    again = Office(store, virtual)
    assert await again.use("two", 0) == [] and again.saver.saving("two")
    assert await again.use("two", 1) == [("month.spent", "ou_a"), ("month.spent", "ou_b")]
    assert await Office(store, virtual).use("two", 5) == []


async def test_a_notice_forgotten_by_the_inbox_is_not_told_again(
    store: TurnStore, virtual: VirtualClock
) -> None:
    """Event keys are kept for 30 days, and a month may have 31."""
    assert await Office(store, virtual).use("two", 8)
    await store.prune(virtual.time() + 1)
    assert await Office(store, virtual).use("two", 0) == []


async def test_the_new_month_begins_without_saving(store: TurnStore) -> None:
    clock = VirtualClock(beijing(2026, 11, 30, 23))
    office = Office(store, clock)
    assert await office.use("two", 8) and office.saver.saving("two")
    await clock.advance(3600.0)
    assert await office.use("two", 0) == [] and not office.saver.saving("two")
    assert not office.platforms["two"].saving[-1]
    assert await office.use("two", 8) == [("month.save", "ou_a"), ("month.save", "ou_b")]


async def test_always_saves_at_once_and_never_only_at_the_end(
    store: TurnStore, virtual: VirtualClock
) -> None:
    always, never = Office(store, virtual, "always"), Office(store, virtual, "never")
    assert always.saver.saving("two")
    assert [notice for notice, _ in await never.use("two", 8)] == ["month.save"] * 2
    assert not never.saver.saving("two")
    await never.use("two", 2)
    assert never.saver.saving("two")


async def test_what_the_platform_says_is_told_and_saves_for_a_day(
    store: TurnStore, virtual: VirtualClock
) -> None:
    """The dingtalk bot has no admin of its own platform: another bot tells."""
    office = Office(store, virtual)
    office.calls.used_up("one", "message")
    assert await office.use("one", 0) == [("month.refused", "ou_a"), ("month.refused", "ou_b")]
    assert {turn.bot for turn in office.told} == {"two"}
    assert "one" in office.told[0].notice_args["bot"]
    await virtual.advance(BELIEVED)
    assert await office.use("one", 0) == [] and office.saver.saving("one")
    await virtual.advance(AFTER_REFUSAL)
    assert not office.saver.saving("one")


async def test_a_cap_that_was_raised_is_watched_like_the_first(
    store: TurnStore, virtual: VirtualClock
) -> None:
    """Who bought more calls in mid-month is told when these run low, too; once each."""
    assert await Office(store, virtual).use("two", 10) == [
        ("month.spent", "ou_a"),
        ("month.spent", "ou_b"),
    ]
    raised = CAPS | {"two": {"api": 20}}
    more = Office(store, virtual, caps=raised)
    assert await more.use("two", 0) == [] and not more.saver.saving("two")
    assert [notice for notice, _ in await more.use("two", 6)] == ["month.save"] * 2
    again = Office(store, virtual, caps=raised)
    assert await again.use("two", 1) == [] and again.saver.saving("two")
    assert [notice for notice, _ in await again.use("two", 3)] == ["month.spent"] * 2
    lowered = Office(store, virtual, caps=raised | {"two": {"api": 15}})
    assert [notice for notice, _ in await lowered.use("two", 0)] == ["month.spent"] * 2


async def test_an_account_that_runs_out_after_the_other_is_told(
    store: TurnStore, virtual: VirtualClock
) -> None:
    """From then on nothing is answered any more, which the first notice did not say."""
    office = Office(store, virtual)
    assert [notice for notice, _ in await office.use("one", 100)] == ["month.spent"] * 2
    assert await office.use("one", 39, "message") == []
    assert [notice for notice, _ in await office.use("one", 11, "message")] == ["month.spent"] * 2
    assert "50 / 50" in office.told[0].notice_args["lines"]
    assert await Office(store, virtual).use("one", 1, "message") == []


async def test_what_the_platform_refuses_is_told_over_the_others_as_well(
    store: TurnStore, virtual: VirtualClock
) -> None:
    """Its own admins are out of reach: to write to them is a call like any other."""
    office = Office(store, virtual)
    office.saver.admins = frozenset({"feishu:ou_a", "dingtalk:s1"})
    office.calls.used_up("two", "api")
    assert set(await office.use("two", 0)) == {("month.refused", "ou_a"), ("month.refused", "s1")}
    assert {turn.bot for turn in office.told} == {"one", "two"}


# ---------------------------------------------------------------- the gate


def asked(bot: str, name: str, *, chat: str = "c", kind: Any = "chat", who: str = "p") -> Turn:
    new = NewTurn(
        id=name,
        kind=kind,
        bot=bot,
        platform="feishu",
        chat=chat,
        chat_kind="group",
        topic="",
        conversation=f"{bot}|{chat}|",
        lane="l",
        sender=Person(who),
        message_id=name,
        parts=(),
        address={},
        lang="zh",
        asked_at=0.0,
    )
    return Turn(new, 1)


def gate(store: TurnStore, clock: VirtualClock) -> Gate:
    calls = Calls(store, CAPS, clock)
    platforms: Any = {"one": Desk("dingtalk"), "two": Desk("feishu")}
    return Gate(calls, platforms, Access(frozenset({"feishu:ou_a"})), clock)


async def test_one_sentence_for_each_conversation_and_hour(
    store: TurnStore, virtual: VirtualClock
) -> None:
    door = gate(store, virtual)
    assert door.refusal(asked("two", "t0")) is None
    for _ in range(10):
        door.calls.count("two", "send", "api")
    first, second = door.refusal(asked("two", "t1")), door.refusal(asked("two", "t2"))
    assert first is not None and first.state == "refused" and "额度" in first.text
    assert second is not None and not second.text and second.proof == "month:t1"
    other = door.refusal(asked("two", "t3", chat="d"))
    assert other is not None and other.text
    shown = door.refusal(asked("two", "t4"), shown=True)
    assert shown is not None and shown.text
    await virtual.advance(ONCE)
    later = door.refusal(asked("two", "t5"))
    assert later is not None and later.text
    assert door.refusal(asked("one", "t6")) is None


async def test_admins_still_command(store: TurnStore, virtual: VirtualClock) -> None:
    door = gate(store, virtual)
    for _ in range(10):
        door.calls.count("two", "send", "api")
    assert door.refusal(asked("two", "a", kind="command", who="ou_a")) is None
    assert door.refusal(asked("two", "b", kind="command")) is not None
    assert door.refusal(asked("two", "c", who="ou_a")) is not None
    assert door.closed("two") and not door.closed("one")


# ---------------------------------------------------------------- what counts


class Book:
    """A bot.contract.Meter."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, CallKind]] = []
        self.used: list[CallKind] = []

    def count(self, api: str, kind: CallKind = "api") -> None:
        self.counts.append((api, kind))

    def used_up(self, kind: CallKind = "api") -> None:
        self.used.append(kind)


async def test_what_certainly_never_left_does_not_count(virtual: VirtualClock) -> None:
    """Of what was sent and never answered nobody knows: it counts."""
    book, http = Book(), Http(clock=virtual)
    async with FeishuSim(virtual) as sim:
        settings = FeishuSettings("bot", sim.app_id, sim.app_secret, base_url=sim.base_url)
        api = FeishuApi(settings, http, virtual, book)
        await api.bot_identity()
        sim.faults.order(CARD_CREATE, Fault("lose"))
        with pytest.raises(Uncertain):
            await api.create_card({"schema": "2.0"})
        sim.policy.quota = 0
        with pytest.raises(QuotaExhausted):
            await api.bot_identity()
    assert [api for api, _ in book.counts] == ["bot_info", "create", "bot_info"]
    assert book.used == ["api"]
    with pytest.raises(Transient):
        await api.bot_identity()
    assert len(book.counts) == 3
    await http.close()


async def test_a_dead_token_costs_the_call_twice(virtual: VirtualClock) -> None:
    book, http = Book(), Http(clock=virtual)
    async with FeishuSim(virtual) as sim:
        settings = FeishuSettings("bot", sim.app_id, sim.app_secret, base_url=sim.base_url)
        api = FeishuApi(settings, http, virtual, book)
        await api.bot_identity()
        sim.revoke_tokens()
        await api.bot_identity()
        assert len(book.counts) == 3 == len([c for c in sim.calls if c.route == BOT_INFO])
    await http.close()


async def test_an_identity_that_the_month_refuses_is_asked_for_twice_an_hour(
    virtual: VirtualClock,
) -> None:
    http, book = Http(clock=virtual), Book()
    async with FeishuSim(virtual) as sim:
        sim.policy.quota = 0
        settings = FeishuSettings("bot", sim.app_id, sim.app_secret, base_url=sim.base_url)
        platform = FeishuPlatform(settings, http, virtual, book)
        run = asyncio.create_task(platform.run(NoIntake()))
        for _ in range(360):
            await virtual.advance(10.0)
        assert platform.status.connected and platform.status.baffled
        assert 1 <= len(book.counts) <= 3
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await platform.close()
    await http.close()


@pytest.mark.parametrize("code", [11205, 99991672, 99991662])
async def test_an_identity_refused_for_good_is_asked_for_ever_more_rarely(
    virtual: VirtualClock, code: int
) -> None:
    """An app without the bot ability, or without the scope, is idle: two calls an hour."""
    http, book = Http(clock=virtual), Book()
    async with FeishuSim(virtual) as sim:
        refusal = Fault("status", status=400, body={"code": code, "msg": "no"})
        sim.faults.order_any((BOT_INFO,), refusal, math.inf)
        settings = FeishuSettings("bot", sim.app_id, sim.app_secret, base_url=sim.base_url)
        platform = FeishuPlatform(settings, http, virtual, book)
        run = asyncio.create_task(platform.run(NoIntake()))
        counts = []
        for _ in range(4):
            for _ in range(180):
                await virtual.advance(20.0)
                await answered(platform, virtual)
            counts.append(len(book.counts))
        first, *later = [after - before for before, after in pairwise([0, *counts])]
        assert platform.status.baffled and first <= 8 and max(later) <= 2
        sim.faults.clear()
        for _ in range(180):
            await virtual.advance(20.0)
            await answered(platform, virtual)
        assert not platform.status.baffled
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await platform.close()
    await http.close()


async def answered(platform: Any, clock: VirtualClock) -> None:
    """The pong of the last ping is here, however slow the machine is."""
    async with asyncio.timeout(10):
        while platform.status.last_frame < clock.monotonic() - 21:
            if not platform.status.connected:
                return
            await asyncio.sleep(0.001)


class NoIntake:
    """Nobody writes in this test."""

    async def message(self, message: Any) -> None: ...

    async def action(self, action: Any) -> ActionReply:
        return ActionReply()

    async def recalled(self, bot: str, chat: str, message_id: str) -> None: ...

    def gap(self, bot: str, since: float, until: float) -> None: ...
