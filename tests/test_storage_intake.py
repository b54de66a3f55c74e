"""What an event becomes: a turn, part of a waiting one, a late one, a repetition; and what
may still happen to a turn that waits. Written once; a further database is one more URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.playground.clock import START, VirtualClock
from bot.contract import (
    Accepted,
    Ending,
    Event,
    Handle,
    Moment,
    NewTurn,
    Person,
    QuotePart,
    TextPart,
    Turn,
    TurnStore,
)
from storage.store import open_store


@pytest.fixture(params=["sqlite"])
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queqiao.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(settle=0)


@pytest.fixture
async def store(url: str, clock: VirtualClock) -> AsyncIterator[TurnStore]:
    opened = await open_store(url, clock, durable=False)
    yield opened
    await opened.close()


def asked(id_: str, **changes: Any) -> NewTurn:
    base = NewTurn(
        id=id_,
        kind="chat",
        bot="b",
        platform="feishu",
        chat="c",
        chat_kind="group",
        topic="",
        conversation="conv",
        lane="lane",
        sender=Person("ou_1"),
        message_id=f"om_{id_}",
        parts=(TextPart(id_),),
        address={"at": id_},
        lang="zh",
        asked_at=START,
    )
    return replace(base, **changes)


async def accept(store: TurnStore, id_: str, join: float = 0.0, **changes: Any) -> Accepted:
    new = asked(id_, **changes)
    return await store.accept(Event(f"b:{new.message_id}", new, join=join))


async def read(store: TurnStore, id_: str) -> Turn:
    turn = await store.turn(id_)
    assert turn is not None
    return turn


async def finish(store: TurnStore, id_: str, *trail: Moment) -> Turn | None:
    return await store.finish(id_, Ending("answered", "x", delivery="delivered", trail=trail))


# ---------------------------------------------------------------- claimed


async def test_a_turn_knows_when_it_was_claimed(store: TurnStore, clock: VirtualClock) -> None:
    await clock.advance(3)
    accepted = await accept(store, "a")
    assert accepted.turn == await store.turn("a") and accepted.turn is not None
    assert accepted.turn.seen_at == START + 3 and not accepted.turn.ended


async def test_thoughts_are_kept_until_the_outcome_and_ended_says_the_end(store: TurnStore) -> None:
    await accept(store, "a")
    await store.start("a", 0)
    await store.checkpoint("a", "so far", "because")
    assert (await read(store, "a")).thoughts == "because"
    await store.decide("a", Ending("answered", "x", "because"))
    turn = await read(store, "a")
    assert turn.thoughts == "" and not turn.ended
    await finish(store, "a")
    assert (await read(store, "a")).ended


async def test_every_repetition_is_counted(store: TurnStore, clock: VirtualClock) -> None:
    await accept(store, "a")
    await store.accept(Event("b:ignored", None, "not_mentioned"))
    for _ in range(3):
        await clock.advance(15)
        assert not (await accept(store, "a")).fresh
        assert not (await store.accept(Event("b:ignored", None))).fresh
    (account,) = await store.accounts("om_a", ("b",))
    assert (account.repeats, account.repeated_at, account.seen_at) == (3, START + 45, START)
    assert (await store.backlog()).redelivered == 6


# ---------------------------------------------------------------- joined


async def test_a_message_joins_the_waiting_turn(store: TurnStore, clock: VirtualClock) -> None:
    await accept(store, "a")
    await clock.advance(2)
    quote = (QuotePart("q", "Ann"), TextPart("more"))
    joined = await accept(store, "b", join=2, parts=quote)
    assert joined.fresh and joined.joined and joined.head is None and not joined.full
    assert joined.turn is not None and joined.turn.id == "a"
    assert joined.turn.new.parts == (TextPart("a"), *quote)
    assert joined.turn == await store.turn("a") and await store.turn("b") is None
    again = await accept(store, "b", join=2)
    assert not again.fresh and again.turn is not None and again.turn.id == "a"
    assert await store.turn_of("b", "om_b") == await store.turn("a")
    (account,) = await store.accounts("om_b", ("b",))
    assert account.turn is not None and account.turn.id == "a"
    assert await finish(store, "a") is None
    ending = (await read(store, "a")).ending
    assert ending is not None and ending.trail == (Moment(START + 2, "joined", "om_b"),)


async def test_the_moment_of_joining_counts_anew(store: TurnStore, clock: VirtualClock) -> None:
    await accept(store, "a")
    for id_ in "bcd":
        await clock.advance(1.5)
        assert (await accept(store, id_, join=2)).joined
    await clock.advance(2.5)
    assert not (await accept(store, "e", join=2)).joined
    assert len((await read(store, "a")).new.parts) == 4


async def test_it_joins_the_newest_of_its_own(store: TurnStore) -> None:
    await accept(store, "a")
    await store.start("a", 0)
    await accept(store, "b")
    await accept(store, "c")
    await accept(store, "other", sender=Person("ou_2"))
    joined = await accept(store, "d", join=9)
    assert joined.turn is not None and joined.turn.id == "c"
    joined = await accept(store, "e", join=9, sender=Person("ou_2"))
    assert joined.turn is not None and joined.turn.id == "other"


async def test_what_nothing_joins(store: TurnStore) -> None:
    assert not (await accept(store, "first", join=9)).joined, "an empty lane"
    assert not (await accept(store, "stranger", join=9, sender=Person("ou_2"))).joined
    assert not (await accept(store, "elsewhere", join=9, lane="other")).joined
    assert not (await accept(store, "command", join=9, kind="command")).joined
    assert not (await accept(store, "again", join=9, replaces="first")).joined
    assert not (await accept(store, "b", join=9)).joined, "a repetition waits"
    assert not (await accept(store, "plain")).joined
    await store.start("first", 0)
    await finish(store, "first")
    await store.start("again", 0)
    for id_ in ("again", "b", "plain"):
        await store.start(id_, 0)
    assert not (await accept(store, "late", join=9)).joined, "all of them run"


async def test_a_decided_turn_is_closed_to_others(store: TurnStore) -> None:
    await accept(store, "a")
    await store.save_handle("a", 0, Handle("a-0", card_id="c"))
    assert await store.withdraw("a", "stopped")
    assert not (await accept(store, "b", join=9)).joined


async def test_a_joining_message_fills_no_lane(store: TurnStore) -> None:
    await accept(store, "a")
    joined = await store.accept(Event("b:om_b", asked("b"), depth=1, join=9))
    assert joined.joined and not joined.full
    full = await store.accept(Event("b:om_c", asked("c"), depth=1))
    assert full.full and full.turn is not None and full.turn.state == "refused"


# ---------------------------------------------------------------- late


async def test_a_late_message_is_stored_outside_its_lane(
    store: TurnStore, url: str, clock: VirtualClock
) -> None:
    late = await store.accept(Event("b:om_a", asked("a"), late=True))
    assert late.fresh and late.turn is not None and late.head is None and not late.full
    assert late.turn.state == "refused" and late.turn.ending is None and not late.turn.ended
    assert (await accept(store, "b")).head is not None, "the lane is still idle"
    await store.close()
    store = await open_store(url, clock, durable=False)
    try:
        assert [turn.id for turn in await store.recover()] == ["a", "b"]
        assert await store.finish("a", Ending("refused", "offered", delivery="delivered")) is None
        assert (await read(store, "a")).ended
    finally:
        await store.close()


# ---------------------------------------------------------------- while it waits


async def test_an_edit_rewrites_the_question_until_it_is_answered(
    store: TurnStore, clock: VirtualClock
) -> None:
    await accept(store, "a")
    await store.rewrite("a", (TextPart("better"),))
    await store.start("a", 0)
    await clock.advance(1)
    await store.rewrite("a", (TextPart("best"),))
    assert (await read(store, "a")).new.parts == (TextPart("best"),)
    await store.decide("a", Ending("answered", "x"))
    await store.rewrite("a", (TextPart("too late"),))
    await finish(store, "a")
    await store.rewrite("a", (TextPart("far too late"),))
    await store.rewrite("nobody", ())
    turn = await read(store, "a")
    assert turn.new.parts == (TextPart("best"),) and turn.ending is not None
    assert turn.ending.trail == (Moment(START, "edited"), Moment(START + 1, "edited"))


async def test_who_waits_without_a_card_ends_at_once(store: TurnStore, clock: VirtualClock) -> None:
    await accept(store, "a")
    await accept(store, "b")
    await clock.advance(1)
    stopped = await store.stop_waiting("lane", "ou_1")
    assert [turn.id for turn in stopped] == ["a", "b"]
    for turn in stopped:
        assert turn.ended and turn.ending is not None and turn.ending.delivery == "delivered"
        assert turn.ending.trail == (Moment(START + 1, "stopped"),)


async def test_a_card_of_one_who_waited_is_closed_by_its_lane(store: TurnStore) -> None:
    for id_ in "abc":
        await accept(store, id_)
        await store.save_handle(id_, 0, Handle(f"{id_}-0", card_id=f"card_{id_}"))
    await store.start("a", 0)
    assert await store.withdraw("c", "recalled")
    assert not await store.withdraw("c", "stopped"), "decided already"
    (stopped,) = await store.stop_waiting("lane", None)
    assert stopped.id == "b" and stopped.state == "queued" and not stopped.ended
    assert stopped.ending is not None and stopped.ending.state == "stopped"
    assert stopped.ending.delivery == "open"
    following = await finish(store, "a")
    for id_, state in (("b", "stopped"), ("c", "recalled")):
        assert following is not None and following.id == id_
        started = await store.start(id_, 5)
        assert started is not None and started.turn.ending is not None
        assert started.turn.attempt == 0 and started.turn.ending.state == state
        closed = replace(started.turn.ending, delivery="delivered", proof="card")
        following = await store.finish(id_, closed)
        assert (await read(store, id_)).state == state
    assert following is None


async def test_a_card_that_was_handed_over_half_full_keeps_its_text(store: TurnStore) -> None:
    await accept(store, "a")
    await store.start("a", 5)
    await store.save_handle("a", 0, Handle("a-0", card_id="c"))
    await store.hand_over("a", "half", "why")
    assert await store.withdraw("a", "stopped")
    started = await store.start("a", 5)
    assert started is not None and started.turn.ending is not None
    assert (started.turn.ending.text, started.turn.ending.reasoning) == ("half", "why")


async def test_a_turn_decided_meanwhile_starts_with_its_ending(store: TurnStore) -> None:
    await accept(store, "a")
    await store.start("a", 5)
    await store.decide("a", Ending("answered", "whole"))
    again = await store.start("a", 5)
    assert again is not None and again.turn.attempt == 1 and again.history == ()
    assert again.turn.ending == Ending("answered", "whole") and again.conversation.key == "conv"
