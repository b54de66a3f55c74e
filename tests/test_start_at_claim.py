"""A question that finds its lane idle begins to run in the transaction that claims it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.playground.clock import VirtualClock
from bot.contract import (
    Accepted,
    Conversation,
    Ending,
    Event,
    Started,
    Turn,
    TurnStore,
)
from bot.lanes import Lanes, Running
from storage.store import open_store
from tests.asking import asked


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queqiao.db"


@pytest.fixture
async def store(url: str) -> AsyncIterator[TurnStore]:
    opened = await open_store(url, VirtualClock(settle=0), durable=False)
    yield opened
    await opened.close()


async def claim(store: TurnStore, id_: str, start: int = 10, replaces: str = "") -> Accepted:
    new = asked(id_, conversation="conv", replaces=replaces)
    return await store.accept(Event(f"b:{new.message_id}", new, start=start))


async def answered(store: TurnStore, id_: str) -> Turn | None:
    return await store.finish(id_, Ending("answered", f"答 {id_}", delivery="delivered"))


async def test_what_is_begun_is_what_start_would_have_begun(store: TurnStore):
    await claim(store, "t1")
    await answered(store, "t1")
    accepted = await claim(store, "t2")
    started = accepted.started
    assert started is not None and accepted.fresh and accepted.head == started.turn
    assert (started.turn.state, started.turn.attempt, started.turn.deaths) == ("running", 1, 0)
    assert [exchange.answer for exchange in started.history] == ["答 t1"]
    assert await store.turn("t2") == started.turn
    await answered(store, "t2")
    later = await claim(store, "t3", start=-1)
    assert later.started is None and later.head is not None and later.head.state == "queued"
    by_itself = await store.start("t3", 10)
    assert by_itself is not None
    assert (by_itself.turn.state, by_itself.turn.attempt) == ("running", 1)
    assert by_itself.conversation == started.conversation


async def test_it_belongs_to_the_present_part_of_the_conversation(store: TurnStore):
    await claim(store, "t1")
    await answered(store, "t1")
    await store.cut("conv")
    started = (await claim(store, "t2")).started
    assert started is not None
    assert started.turn.generation == started.conversation.generation == 1
    assert started.history == ()


async def test_a_question_asked_again_does_not_see_its_own_answer(store: TurnStore):
    for name in ("t1", "t2"):
        await claim(store, name)
        await answered(store, name)
    started = (await claim(store, "t3", replaces="t2")).started
    assert started is not None
    assert [exchange.turn for exchange in started.history] == ["t1"]


async def test_who_comes_behind_another_waits(store: TurnStore):
    await claim(store, "t1")
    behind = await claim(store, "t2")
    assert (behind.started, behind.head, behind.waiting) == (None, None, 1)
    assert behind.turn is not None and behind.turn.state == "queued"
    following = await answered(store, "t1")
    assert following is not None and following.id == "t2"


async def test_after_a_crash_it_is_begun_again(url: str):
    store = await open_store(url, VirtualClock(settle=0), durable=False)
    await claim(store, "t1")
    await store.close()
    store = await open_store(url, VirtualClock(settle=0), durable=False)
    (left,) = await store.recover()
    again = await store.start(left.id, 10)
    await store.close()
    assert again is not None
    assert (again.turn.id, again.turn.attempt, again.turn.deaths) == ("t1", 2, 1)


async def test_a_lane_knows_at_once_what_runs_in_it():
    answers = asyncio.Event()

    async def answer(running: Running) -> Turn | None:
        await answers.wait()
        return None

    lanes = Lanes(answer)
    turn = Turn(asked("t1"), 1, "running", 1)
    lanes.run(turn, Started(turn, Conversation("conv"), ()))
    running = lanes.find("t1")
    assert running is not None and running.started is not None and running.started.turn is turn
    answers.set()
    await lanes.drain(5.0)
    assert lanes.find("t1") is None


async def test_at_shutdown_what_has_begun_is_handed_over_and_nothing_else():
    seen: list[tuple[str, bool]] = []

    async def answer(running: Running) -> Turn | None:
        seen.append((running.turn.id, running.leaving))
        return None

    lanes = Lanes(answer)
    await lanes.drain(0.0)
    begun, queued = Turn(asked("t1"), 1, "running", 1), Turn(asked("t2", "other"), 2)
    lanes.run(begun, Started(begun, Conversation("conv"), ()))
    lanes.run(queued)
    await lanes.drain(5.0)
    assert seen == [("t1", True)]
    assert len(lanes) == 0
