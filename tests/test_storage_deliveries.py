"""Looking after replies, accounting for events, and what may have been missed. Written
once; a further database is one more URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.playground.clock import START, VirtualClock
from bot.contract import (
    Account,
    Backlog,
    Ending,
    Event,
    Gap,
    Moment,
    NewTurn,
    Person,
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
        lane=f"lane-{id_}",
        sender=Person("ou_1"),
        message_id=f"om_{id_}",
        parts=(TextPart(id_),),
        address={"at": id_},
        lang="zh",
        asked_at=START,
    )
    return replace(base, **changes)


async def accept(store: TurnStore, id_: str, **changes: Any) -> None:
    new = asked(id_, **changes)
    assert (await store.accept(Event(f"{new.bot}:{new.message_id}", new))).fresh


async def end(store: TurnStore, id_: str, delivery: Any = "delivered", **changes: Any) -> None:
    await store.finish(id_, Ending("answered", f"answer {id_}", delivery=delivery, **changes))


async def lost(store: TurnStore, *ids: str) -> None:
    for id_ in ids:
        await accept(store, id_)
        await end(store, id_, "undelivered")


def names(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.id for turn in turns]


# ---------------------------------------------------------------- deliveries


async def test_an_undelivered_reply_is_due_after_five_seconds(
    store: TurnStore, clock: VirtualClock
) -> None:
    await lost(store, "a")
    assert await store.due(clock.time() + 4.9) == ()
    await clock.advance(5)
    (turn,) = await store.due(clock.time())
    assert turn.id == "a" and turn.ended and turn.ending is not None
    assert turn.ending.delivery == "undelivered" and turn.ending.text == "answer a"


async def test_due_turns_come_oldest_first_and_few(store: TurnStore, clock: VirtualClock) -> None:
    for id_ in "abc":
        await lost(store, id_)
        await clock.advance(1)
    await store.postpone("a", START + 99)
    assert names(await store.due(START + 100)) == ["b", "c", "a"]
    assert names(await store.due(START + 100, limit=2)) == ["b", "c"]
    await store.postpone("b", None)
    assert names(await store.due(START + 10**9)) == ["c", "a"]
    assert names(await store.undelivered()) == ["c", "b", "a"], "it stays on the list"


async def test_a_reply_tried_again_keeps_its_ending(store: TurnStore) -> None:
    await accept(store, "a")
    first = Moment(START, "undelivered")
    await end(store, "a", "undelivered", trail=(first,))
    again = Moment(START + 5, "retried", "no network")
    await store.delivered("a", Ending("failed", "other", trail=(first, again)))
    turn = await store.turn("a")
    assert turn is not None and turn.ending is not None
    assert turn.ending.text == "answer a" and turn.state == "answered"
    assert turn.ending.trail == (first, again)
    await store.delivered("a", replace(turn.ending, delivery="delivered", proof="om_9"))
    turn = await store.turn("a")
    assert turn is not None and turn.ending is not None
    assert (turn.ending.delivery, turn.ending.proof) == ("delivered", "om_9")
    assert await store.due(START + 10**9) == () == await store.undelivered()
    await store.delivered("a", replace(turn.ending, delivery="undelivered", proof=""))
    await store.postpone("a", START)
    assert await store.turn("a") == turn, "a proof stands"
    assert await store.due(START + 10**9) == ()


async def test_an_answer_that_turns_out_to_be_none_leaves_the_history(store: TurnStore) -> None:
    await lost(store, "a", "b")
    none = Ending("failed", error="content", delivery="delivered", proof="om_9")
    await store.delivered("a", none)
    turn = await store.turn("a")
    assert turn is not None and turn.ending is not None
    assert (turn.state, turn.ending.state, turn.ending.error) == ("failed", "failed", "content")
    assert turn.ending.text == "answer a" and turn.ending.proof == "om_9"
    await accept(store, "c")
    started = await store.start("c", 10)
    assert started is not None
    assert [exchange.answer for exchange in started.history] == ["answer b"]
    await store.delivered("b", replace(none, delivery="undelivered"))
    await store.delivered("a", Ending("answered", delivery="delivered"))
    turn = await store.turn("a")
    assert turn is not None and turn.state == "failed", "a proof stands"


async def test_a_try_that_failed_is_due_when_the_caller_says(store: TurnStore) -> None:
    await lost(store, "a")
    turn = await store.turn("a")
    assert turn is not None and turn.ending is not None
    await store.delivered("a", turn.ending)
    assert names(await store.due(START + 5)) == ["a"]
    await store.postpone("a", START + 60)
    assert await store.due(START + 59) == ()
    assert names(await store.due(START + 60)) == ["a"]


async def test_an_unconfirmed_reply_is_listed_and_not_tried(store: TurnStore) -> None:
    await accept(store, "a")
    await end(store, "a", "unconfirmed", proof="?")
    await lost(store, "b")
    await accept(store, "c")
    await end(store, "c")
    assert names(await store.undelivered()) == ["b", "a"]
    assert names(await store.undelivered(limit=1)) == ["b"]
    assert names(await store.due(START + 10**9)) == ["b"]
    await store.delivered("b", Ending("answered", delivery="unconfirmed"))
    assert await store.due(START + 10**9) == ()


async def test_only_ended_turns_are_delivered_anew(store: TurnStore) -> None:
    await accept(store, "a")
    before = await store.turn("a")
    await store.delivered("a", Ending("answered", delivery="delivered"))
    await store.postpone("a", START)
    await store.delivered("nobody", Ending("answered"))
    assert await store.turn("a") == before


async def test_a_trail_only_grows(store: TurnStore) -> None:
    one, two, three = (Moment(START + n, what, "詳\0") for n, what in enumerate(("x", "y", "z")))
    await accept(store, "a")
    await store.decide("a", Ending("answered", "x", trail=(one, two)))
    await store.decide("a", Ending("answered", "x"))
    await end(store, "a", trail=(two, three))
    await store.finish("a", Ending("failed", trail=(one, replace(one, what="last"))))
    turn = await store.turn("a")
    assert turn is not None and turn.ending is not None
    assert [moment.what for moment in turn.ending.trail] == ["x", "y", "z", "last"]
    assert turn.ending.trail[0] == replace(one, detail="詳\ufffd")
    assert turn.ending.text == "answer a"


# ---------------------------------------------------------------- accounts


async def test_an_event_is_accounted_for_by_message_by_turn_and_by_key(
    store: TurnStore, clock: VirtualClock
) -> None:
    turn = "0123456789abcdef"
    await store.accept(Event("b:om_x", asked(turn, message_id="om_x")))
    await clock.advance(5)
    repeated = asked("fedcba9876543210", message_id="om_x", replaces=turn)
    await store.accept(Event("b:retry:1", repeated))
    await store.accept(Event("b:om_y", None, "at_all"))
    await store.accept(Event("other:om_x", asked("elsewhere", bot="other", message_id="om_x")))
    both = await store.accounts("om_x", ("b",))
    assert [account.key for account in both] == ["b:om_x", "b:retry:1"]
    assert [account.seen_at for account in both] == [START, START + 5]
    assert [account.turn and account.turn.id for account in both] == [turn, repeated.id]
    for name in (turn, turn[:8], "b:om_x"):
        found = await store.accounts(name, ("b", "other"))
        assert [account.key for account in found] == ["b:om_x"], name
    (clicked,) = await store.accounts("retry:1", ("b",))
    assert clicked.turn is not None and clicked.turn.id == repeated.id
    assert await store.accounts("om_y", ("b",)) == (Account("b:om_y", START + 5, reason="at_all"),)
    assert len(await store.accounts("om_x", ("b", "other"))) == 3


async def test_what_nobody_knows_has_no_account(store: TurnStore) -> None:
    await accept(store, "0123456789abcdef", message_id="om_x")
    for name in ("", "om_", "0123456", "0123456%", "0123456789abcdeg", "b:", "other:om_x"):
        assert await store.accounts(name, ("b",)) == (), name
    assert await store.accounts("om_x", ()) == () == await store.accounts("om_x", ("other",))
    assert await store.accounts("0123456789abcdef", ("other",)) == ()


async def test_a_turn_outlives_its_pruned_events(store: TurnStore, clock: VirtualClock) -> None:
    await accept(store, "0123456789abcdef", message_id="om_x")
    await clock.advance(100)
    assert await store.prune(START + 50) == 1
    for name in ("om_x", "01234567"):
        (account,) = await store.accounts(name, ("b",))
        assert (account.key, account.seen_at) == ("b:om_x", START)
        assert account.turn is not None


# ---------------------------------------------------------------- the backlog


async def test_the_backlog_counts_what_is_unfinished(store: TurnStore, clock: VirtualClock) -> None:
    assert await store.backlog() == Backlog()
    await accept(store, "done")
    await end(store, "done")
    await clock.advance(10)
    await accept(store, "a", lane="one")
    await store.start("a", 0)
    await clock.advance(10)
    for id_ in "bc":
        await accept(store, id_, lane="one")
    await accept(store, "d", lane="two")
    await accept(store, "x", kind="command")
    await lost(store, "lost")
    await accept(store, "perhaps")
    await end(store, "perhaps", "unconfirmed")
    assert await store.backlog() == Backlog(
        waiting=3,
        running=2,
        undelivered=1,
        unconfirmed=1,
        lanes=2,
        deepest=3,
        oldest=START + 10,
    )
    await end(store, "a")
    assert (await store.backlog()).oldest == START + 20


async def test_redeliveries_are_counted_for_ever(store: TurnStore, clock: VirtualClock) -> None:
    for number in range(1200):
        await store.accept(Event(f"k{number}", None, "x"))
        if number % 400 == 0:
            await store.accept(Event(f"k{number}", None, "x"))
    assert (await store.backlog()).redelivered == 3
    await clock.advance(100)
    assert await store.prune(START + 50) == 1200
    assert (await store.backlog()).redelivered == 3
    await store.accept(Event("k1", None, "x"))
    await store.accept(Event("k1", None, "x"))
    assert (await store.backlog()).redelivered == 4
    await clock.advance(100)
    await store.prune(START + 150)
    assert (await store.backlog()).redelivered == 4


# ---------------------------------------------------------------- what may have been missed


async def test_when_a_bot_was_last_known_to_hear(store: TurnStore) -> None:
    assert await store.heard("b") == 0
    await store.hear("b", START)
    await store.hear("b", START + 5)
    await store.hear("other", START + 9)
    assert await store.heard("b") == START + 5


async def test_addresses_are_the_newest_of_each_chat_and_topic(store: TurnStore) -> None:
    await accept(store, "old", chat="gone", asked_at=START - 1)
    await accept(store, "a", asked_at=START + 1)
    await accept(store, "b", asked_at=START + 2)
    await accept(store, "t", topic="t", kind="command", asked_at=START + 2)
    await accept(store, "p", chat="p", asked_at=START + 2)
    await accept(store, "x", bot="other", asked_at=START + 2)
    assert await store.addresses("b", START) == (
        ("c", {"at": "b"}),
        ("c", {"at": "t"}),
        ("p", {"at": "p"}),
    )
    assert await store.addresses("b", START + 2) == ()


async def test_gaps_newest_first_grown_and_pruned(store: TurnStore) -> None:
    old = Gap("b", "c", START - 20, START - 10, "no history")
    whole = Gap("b", "", START, START + 10, "no network")
    other = Gap("b2", "c", START, START + 5, "scope")
    for gap in (whole, old, other):
        await store.miss(gap)
    assert await store.gaps() == (whole, other, old)
    assert await store.gaps(limit=1) == (whole,)
    grown = replace(other, until=START + 60, why="still")
    await store.miss(grown)
    await store.miss(replace(other, until=START + 1, why="still"))
    assert await store.gaps() == (grown, whole, old), "it began at the same moment"
    assert await store.prune(START) == 0
    assert await store.gaps() == (grown, whole)
