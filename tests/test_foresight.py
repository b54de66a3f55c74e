"""While a claim is being written to disk its answer is prepared, and nothing more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from bot.answer import REREAD_AFTER
from bot.contract import Accepted, Event, InboundMessage, Person, TextPart
from bot.errors import StoreError
from storage.store import SqlTurnStore
from tests.asking import asked
from tests.conftest import House, Room

# ---------------------------------------------------------------- the store


async def test_what_comes_is_told_before_it_is_safe(store: SqlTurnStore):
    told: list[tuple[Accepted, int]] = []
    before = store.database.commits

    def foresee(accepted: Accepted) -> None:
        told.append((accepted, len(told)))

    accepted = await store.accept(Event("k", asked("t", "t"), start=10), foresee)
    assert [one for one, _ in told] == [accepted] and accepted.started is not None
    assert store.database.commits == before + 1


async def test_it_is_told_while_the_disk_is_written(store: SqlTurnStore):
    """The commit waits for what was foreseen: so it had not been done before."""
    seen = asyncio.Event()
    commits: list[int] = []

    def foresee(value: int) -> None:
        commits.append(store.database.commits)
        seen.set()

    before = store.database.commits
    assert await store.database.run(lambda c: 7, foresee) == 7
    await asyncio.wait_for(seen.wait(), 5.0)
    assert commits[0] in (before, before + 1)
    assert len(commits) == 1


def doomed(connection: Connection) -> str:
    """Fails at COMMIT, no sooner: a row whose parent is not there."""
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON").close()
    connection.exec_driver_sql("INSERT INTO reply (turn_id, part, key) VALUES ('?', 0, 'k')")
    return "done"


async def test_what_was_foreseen_may_come_to_nothing(store: SqlTurnStore):
    told: list[str] = []
    with pytest.raises(StoreError):
        await store.database.run(doomed, told.append)
    assert told == ["done"]
    assert await store.database.run(replies) == 0
    assert (await store.accept(Event("k", asked("t", "t")))).fresh, "work goes on"


def replies(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM reply").scalar_one())


async def test_in_a_crowd_nothing_is_foreseen(store: SqlTurnStore):
    """One wake-up for all of them is worth more than being early."""
    told: list[Accepted] = []
    events = [Event(f"k{n}", asked(f"t{n}", f"t{n}"), start=10) for n in range(40)]
    found = await asyncio.gather(*(store.accept(event, told.append) for event in events))
    assert all(one.started for one in found) and len(told) < len(found)


async def test_what_cannot_be_done_is_not_foreseen(store: SqlTurnStore):
    def impossible(connection: Connection) -> str:
        raise ValueError("no")

    told: list[str] = []
    with pytest.raises(StoreError):
        await store.database.run(impossible, told.append)
    await asyncio.sleep(0)
    assert told == []


async def test_nothing_is_foreseen_for_who_has_gone_away(store: SqlTurnStore):
    """Cancelled while it was being claimed: the claim stands, and nobody will answer it."""
    told: list[Accepted] = []
    database, begun, go_on = store.database, threading.Event(), threading.Event()
    transact = database._transact

    def slow(connection: Connection, work: Callable[[], None]) -> None:
        def waiting() -> None:
            begun.set()
            go_on.wait()
            work()

        transact(connection, waiting)

    database._transact = slow  # type: ignore[method-assign]
    claim = asyncio.ensure_future(store.accept(Event("k", asked("t", "t"), start=10), told.append))
    await asyncio.to_thread(begun.wait)
    claim.cancel()
    go_on.set()
    await asyncio.wait({claim})
    assert await store.turn("t") is not None
    assert told == []


# ---------------------------------------------------------------- the whole house


def fails_at_commit(store: Any, times: int) -> list[int]:
    """The next `times` transactions come to nothing at their very end; returns a list that
    holds how many are left."""
    left, transact = [times], store.database._transact

    def failing(connection: Connection, work: Callable[[], None]) -> None:
        def doomed_after() -> None:
            work()
            if left[0] > 0:
                left[0] -= 1
                doomed(connection)

        transact(connection, doomed_after)

    store.database._transact = failing
    return left


def slow_at_commit(store: Any) -> threading.Event:
    """Each job has a transaction of its own, and one that has a turn to store ends only
    when the event is set."""
    go_on, database = threading.Event(), store.database
    transact, gather = database._transact, database._gather

    def slow(connection: Connection, work: Callable[[], None]) -> None:
        def held_up() -> None:
            work()
            if connection.exec_driver_sql("SELECT count(*) FROM turn").scalar_one():
                go_on.wait()

        transact(connection, held_up)

    database._transact = slow
    database._gather = lambda job: gather(None) if job is None else [job]
    return go_on


def at_rest(room: Room) -> bool:
    bubbles = room.answers()
    return len(bubbles) == 1 and bool(bubbles[0].text) and not bubbles[0].streaming


@pytest.mark.parametrize("platform", ["feishu", "dingtalk"])
async def test_nothing_leaves_before_the_claim_is_safe(house: House, platform: str):
    app = await house.start()
    room = Room(house, platform, "p2p", 1)
    calls = len(room.sim.calls)
    left = fails_at_commit(app.store, 3)
    await room.say("鹊桥是什么？")
    while left[0] > 0:
        assert not house.deepseek.requests and len(room.sim.calls) == calls
        await asyncio.sleep(0.01)
    await house.clock.hurry(lambda: at_rest(room), 0.1)
    assert len(house.deepseek.requests) == 1
    assert app.answerer._foreseen == {}


async def test_a_claim_that_does_not_succeed_leaves_nothing_prepared(house: House):
    """The platform sends the message again, some seconds later."""
    app = await house.start()
    room = Room(house, "feishu", "p2p", 1)
    fails_at_commit(app.store, 10)
    await room.say("鹊桥是什么？")
    await room.sim.wait_for(lambda: any(not push.good for push in room.sim.pushes), 10.0)
    assert app.answerer._foreseen == {} and not house.deepseek.requests
    await house.clock.hurry(lambda: house.deepseek.requests)
    await house.clock.hurry(lambda: at_rest(room), 0.1)
    assert len(house.deepseek.requests) == 1
    assert app.answerer._foreseen == {}


async def test_a_claim_that_is_given_up_leaves_nothing_prepared(house: House):
    """As at a shutdown on a slow disk; the next process answers."""
    app = await house.start()
    go_on = slow_at_commit(app.store)
    claim = asyncio.ensure_future(app.bot.message(said("om_1")))
    await house.feishu.wait_for(lambda: app.answerer._foreseen)
    claim.cancel()
    await asyncio.wait({claim})
    left = dict(app.answerer._foreseen)
    go_on.set()
    assert left == {}
    turn = await house.turn("feishu", "om_1")
    assert turn is not None and turn.state == "running" and not house.deepseek.requests


async def test_what_was_prepared_is_not_asked_when_the_question_was_edited_meanwhile(house: House):
    """The claim takes so long that the question is read again."""
    app = await house.start()
    room = Room(house, "feishu", "p2p", 1)
    go_on = slow_at_commit(app.store)
    question = await room.say("鹊桥是什么？")
    await room.sim.wait_for(lambda: app.answerer._foreseen)
    room.sim.edit(question, "鹊桥在哪里？")
    house.clock.leap(REREAD_AFTER + 1.0)
    go_on.set()
    await room.answer()
    (asked,) = house.deepseek.requests
    assert "鹊桥在哪里？" in str(asked) and "鹊桥是什么？" not in str(asked)
    assert app.answerer._foreseen == {}


def said(id_: str) -> InboundMessage:
    return InboundMessage(
        bot="feishu",
        platform="feishu",
        message_id=id_,
        chat="oc_1",
        chat_kind="p2p",
        sender=Person("ou_1"),
        parts=(TextPart("鹊桥是什么？"),),
        address={},
    )
