"""Several processes on one database: leases, take-over, audit and both fences, with two
stores on one Database and a clock moved by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from adapters.playground.clock import VirtualClock
from bot.contract import Accepted, Ending, Event, Handle, NewTurn, Person, Turn
from storage.database import Database
from storage.leases import Beat, Lease
from storage.store import SqlTurnStore
from tests.asking import asked

LEASE = Lease(seconds=10, beat=2.5, margin=2, most=3, version="0.2")


class House:
    """One database with its own clock, and replicas with theirs."""

    def __init__(self, database: Database, clock: VirtualClock) -> None:
        self.database = database
        self.clock = clock

    async def replica(self, clock: VirtualClock | None = None) -> SqlTurnStore:
        store = SqlTurnStore(self.database, clock or self.clock, LEASE)
        assert await store.beat(()) == Beat()
        return store

    async def sql(self, statement: str) -> list[Any]:
        def work(connection: Connection) -> list[Any]:
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

        return await self.database.run(work)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = VirtualClock(settle=0)
    database = Database(tmp_path / "x.db", durable=False, now=clock.time)
    await database.open()
    yield House(database, clock)
    await database.close()


def in_a_group(id_: str, lane: str = "lane", **changes: Any) -> NewTurn:
    return asked(id_, lane, chat_kind="group", **changes)


async def accept(store: SqlTurnStore, id_: str, lane: str = "lane", **changes: Any) -> Accepted:
    return await store.accept(Event(f"b:{id_}", in_a_group(id_, lane, **changes)))


async def beats(house: House, seconds: float, *stores: SqlTurnStore) -> list[Beat]:
    """Let time pass while these beat; their last beats."""
    last: list[Beat] = []
    for _ in range(int(seconds / LEASE.beat)):
        await house.clock.advance(LEASE.beat)
        last = [await store.beat(list(store.me.lanes)) for store in stores]
    return last


def ids(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.id for turn in turns]


# ---------------------------------------------------------------- take-over


async def test_what_a_dead_replica_held_is_taken_over_after_its_lease(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await accept(first, "b")
    assert await first.start("a", 5) is not None
    await first.checkpoint("a", "half", "why")
    assert (await beats(house, 7.5, second))[0] == Beat()
    (taken,) = await beats(house, 2.5, second)
    assert ids(taken.heads) == ["a"] and taken.heads[0].checkpoint == "half"
    assert await house.sql("SELECT epoch, owner FROM lane") == [(1, second.me.id)]
    started = await second.start("a", 5)
    assert started is not None and started.turn.attempt == 2
    following = await second.finish("a", Ending("answered", "x", delivery="delivered"))
    assert following is not None and following.id == "b"


async def test_nothing_is_owned_before_the_first_beat(house: House) -> None:
    early = SqlTurnStore(house.database, house.clock, LEASE)
    queued, aside = await accept(early, "a"), await accept(early, "x", kind="command")
    assert queued.fresh and queued.head is None and queued.turn is not None
    assert not early.may_speak() and aside.turn is not None
    found = await early.beat(())
    assert ids(found.heads) == ["a", "x"]
    assert early.may_speak(queued.turn) and early.may_speak(aside.turn)


async def test_recover_is_the_first_beat(house: House) -> None:
    first = await house.replica()
    await accept(first, "a")
    second = SqlTurnStore(house.database, house.clock, LEASE)
    assert await second.recover() == (), "what lives is left alone"
    await house.clock.advance(10)
    third = SqlTurnStore(house.database, house.clock, LEASE)
    assert ids(await third.recover()) == ["a"]


async def test_a_round_is_limited(house: House) -> None:
    first = await house.replica()
    for number in range(5):
        await accept(first, f"q{number}", f"lane-{number}")
        await accept(first, f"x{number}", kind="notice")
    second = await house.replica()
    await beats(house, 7.5, second)
    taken = [(await beats(house, 2.5, second))[0].heads for _ in range(3)]
    assert [len(heads) for heads in taken] == [6, 4, 0]
    assert {turn.id for heads in taken for turn in heads} == {
        f"{letter}{number}" for letter in "qx" for number in range(5)
    }


async def test_turns_outside_lanes_are_taken_over_too(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "x", kind="command")
    await accept(first, "late", kind="command")
    refused = await first.accept(Event("b:r", in_a_group("r"), late=True))
    (taken,) = await beats(house, 10, second)
    assert ids(taken.heads) == ["x", "late", "r"]
    assert refused.turn is not None and not first.may_speak(refused.turn)
    await first.decide("x", Ending("answered", "too late"))
    assert await first.finish("x", Ending("answered", "too late")) is None
    turn = await second.turn("x")
    assert turn is not None and turn.ending is None and not turn.ended
    await second.finish("x", Ending("answered", "told"))
    turn = await second.turn("x")
    assert turn is not None and turn.ended


# ---------------------------------------------------------------- the fences


async def test_a_replica_falls_silent_before_its_lease_ends(house: House) -> None:
    store = await house.replica()
    await house.clock.advance(7.9)
    assert store.may_speak()
    await house.clock.advance(0.1)
    assert not store.may_speak()
    await store.beat(())
    assert store.may_speak()
    house.clock.jump(-3600)
    await house.clock.advance(8)
    assert not store.may_speak(), "a wall clock that went back helps nobody"


async def test_the_fence_counts_from_the_sending_of_a_beat(house: House) -> None:
    store = await house.replica()
    loop, begun, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(_: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(10)

    holding = asyncio.create_task(house.database.run(hold))
    await begun.wait()
    beating = asyncio.create_task(store.beat(()))
    await asyncio.sleep(0)
    await house.clock.advance(6)
    release.set()
    await asyncio.gather(holding, beating)
    await house.clock.advance(1.9)
    assert store.may_speak()
    await house.clock.advance(0.1)
    assert not store.may_speak()


async def test_who_slept_longer_than_the_lease_writes_nothing_and_speaks_nothing(
    house: House,
) -> None:
    first, second = await house.replica(), await house.replica()
    head = (await accept(first, "a")).head
    assert head is not None and await first.start("a", 5) is not None
    await beats(house, 10, second)
    before = await house.sql("SELECT * FROM turn"), await house.sql("SELECT * FROM lane")
    assert not first.may_speak(head)
    await first.save_handle("a", 0, Handle("a-0", card_id="c"))
    await first.checkpoint("a", "late", "late")
    await first.decide("a", Ending("answered", "late"))
    assert await first.start("a", 5) is None
    assert await first.finish("a", Ending("answered", "late")) is None
    assert before == (await house.sql("SELECT * FROM turn"), await house.sql("SELECT * FROM lane"))
    assert await house.sql("SELECT * FROM reply") == []
    old = first.me.id
    woken = await first.beat(["lane"])
    assert woken == Beat(lost=("lane",)) and first.me.id != old
    assert first.may_speak() and not first.may_speak(head)
    assert await first.beat(()) == Beat()


async def test_who_slept_alone_takes_its_own_up_again_as_another(house: House) -> None:
    store = await house.replica()
    head = (await accept(store, "a")).head
    assert head is not None and await store.start("a", 5) is not None
    await house.clock.advance(60)
    assert await store.beat(["lane"]) == Beat(lost=("lane",))
    again = await store.beat(())
    assert ids(again.heads) == ["a"] and store.may_speak(head)
    assert await store.finish("a", Ending("answered", "x")) is None
    assert await house.sql("SELECT count(*) FROM lane") == [(0,)]


async def test_a_write_that_comes_too_late_takes_the_voice_away(house: House) -> None:
    """Owner and epoch are both asked: here the owner is still the same."""
    store = await house.replica()
    head = (await accept(store, "a")).head
    assert head is not None and store.may_speak(head)
    await house.sql("UPDATE lane SET epoch = epoch + 1")
    await store.checkpoint("a", "late", "")
    assert not store.may_speak(head) and store.may_speak()
    turn = await store.turn("a")
    assert turn is not None and turn.checkpoint == ""


async def test_an_ended_head_moves_only_its_own_lane_on(house: House) -> None:
    store = await house.replica()
    await accept(store, "a")
    await accept(store, "b")
    await store.withdraw("a", "recalled")
    await house.sql("UPDATE lane SET epoch = epoch + 1")
    assert await store.finish("a", Ending("recalled")) is None
    assert await house.sql("SELECT head FROM lane") == [("a",)]


async def test_a_lane_that_another_took_is_lost_at_the_next_beat(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await house.sql(f"UPDATE lane SET epoch = 1, owner = '{second.me.id}'")
    assert await first.beat(["lane"]) == Beat(lost=("lane",))


async def test_a_lane_without_a_row_is_lost_at_the_second_beat(house: House) -> None:
    """At the first it may be one that a finish has freed just now."""
    store = await house.replica()
    await accept(store, "a")
    await house.sql("DELETE FROM lane")
    await house.sql("UPDATE turn SET queue = NULL")
    assert await store.beat(["lane"]) == Beat()
    assert await store.beat(["lane"]) == Beat(lost=("lane",))


# ---------------------------------------------------------------- clocks


async def test_a_replica_with_a_wrong_clock_takes_over_nothing(house: House) -> None:
    wrong = VirtualClock(settle=0)
    wrong.jump(3600)
    first, second = await house.replica(), await house.replica(wrong)
    await accept(first, "a")
    assert await second.beat(()) == Beat()
    assert second.may_speak()


async def test_a_clock_that_was_set_silences_until_the_next_beat(house: House) -> None:
    """A machine that slept looks the same: its steady clock stands still meanwhile."""
    clock = VirtualClock(settle=0)
    store = await house.replica(clock)
    head = (await accept(store, "a")).head
    assert head is not None and store.may_speak(head)
    clock.jump(3600)
    assert not store.may_speak(head)
    assert await store.beat(["lane"]) == Beat() and store.may_speak(head)


async def test_late_by_the_databases_clock_is_late(house: House) -> None:
    """A machine that slept: its own clock says that no time passed."""
    asleep = VirtualClock(settle=0)
    store = await house.replica(asleep)
    await accept(store, "a")
    await house.clock.advance(11)
    old = store.me.id
    assert await store.beat(["lane"]) == Beat(lost=("lane",)) and store.me.id != old


async def test_late_by_its_own_clock_is_late(house: House) -> None:
    fast = VirtualClock(settle=0)
    store = await house.replica(fast)
    await accept(store, "a")
    await fast.advance(10)
    assert await store.beat(["lane"]) == Beat(lost=("lane",))
    assert ids((await store.beat(())).heads) == ["a"], "its earlier self holds nothing now"


# ---------------------------------------------------------------- races


async def test_one_event_to_both_at_once_is_one_turn(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    for number in range(20):
        key, lane = f"e{number}", f"lane-{number}"
        both = await asyncio.gather(*(accept(store, key, lane) for store in (first, second)))
        assert sorted(accepted.fresh for accepted in both) == [False, True]
        heads = [accepted.head for accepted in both if accepted.head is not None]
        assert ids(tuple(heads)) == [key]
        owner = first if both[0].fresh else second
        assert await owner.start(key, 0) is not None
        assert await owner.finish(key, Ending("answered", "x")) is None
        both = await asyncio.gather(*(accept(store, key, lane) for store in (first, second)))
        assert not any(accepted.fresh or accepted.head for accepted in both)
    assert await house.sql("SELECT count(*) FROM lane") == [(0,)], "no lane leaks"


async def test_equal_keys_in_one_batch(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    stores = [first, second] * 5
    many = await asyncio.gather(*(accept(store, "a") for store in stores))
    assert sum(accepted.fresh for accepted in many) == 1
    assert sum(accepted.head is not None for accepted in many) == 1
    assert await house.sql("SELECT repeats FROM inbox") == [(9,)]


async def test_accept_racing_release(house: House) -> None:
    """Either the finish sees the newcomer or the newcomer finds the lane idle."""
    first, second = await house.replica(), await house.replica()
    (await accept(first, "e0")), (await first.start("e0", 0))
    owner, other = first, second
    for number in range(1, 60):
        finish = owner.finish(f"e{number - 1}", Ending("answered", "x"))
        arrive = accept(other, f"e{number}")
        if number % 2:
            following, accepted = await asyncio.gather(finish, arrive)
        else:
            accepted, following = await asyncio.gather(arrive, finish)
        assert (following is None) == (accepted.head is not None), "nobody or both run it"
        if accepted.head is not None:
            owner, other = other, owner
        assert await owner.start(f"e{number}", 0) is not None


async def test_take_over_racing_accept(house: House) -> None:
    """The head comes from the database, never from the event in hand."""
    dead, second, third = [await house.replica() for _ in range(3)]
    await accept(dead, "a")
    await accept(dead, "b")
    await beats(house, 7.5, second, third)
    await house.clock.advance(2.5)
    taken, also, arrived = await asyncio.gather(second.beat(()), third.beat(()), accept(third, "c"))
    assert ids(taken.heads) + ids(also.heads) == ["a"]
    assert arrived.head is None and arrived.waiting == 2


async def test_an_idle_lane_with_a_queue_starts_at_its_oldest(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await first.release()
    arrived = await accept(second, "b")
    assert arrived.head is not None and arrived.head.id == "a" and arrived.waiting == 1
    following = await second.finish("a", Ending("answered", "x"))
    assert following is not None and following.id == "b"


async def test_a_full_lane_left_by_another_is_taken_and_the_newcomer_refused(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await first.release()
    full = await second.accept(Event("b:b", in_a_group("b"), depth=1))
    assert full.full and full.head is not None and full.head.id == "a"
    assert full.turn is not None and second.may_speak(full.turn)


async def test_a_due_reply_is_handed_to_one(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await first.finish("a", Ending("answered", "x", delivery="undelivered"))
    await house.clock.advance(5)
    now = house.clock.time()
    found = await asyncio.gather(first.due(now), second.due(now))
    assert sorted(len(turns) for turns in found) == [0, 1]
    await second.save_handle("a", 0, Handle("a-0", message_id="m"))
    await second.delivered("a", Ending("answered", delivery="delivered", proof="m"))
    await first.save_handle("a", 0, Handle("a-0", message_id="late"))
    assert await house.sql("SELECT message_id FROM reply") == [("m",)]


# ---------------------------------------------------------------- the audit


async def test_a_lane_nobody_works_on_is_run_after_two_beats(house: House) -> None:
    store = await house.replica()
    await accept(store, "a")
    assert await store.beat(["lane"]) == Beat()
    assert await store.beat(()) == Beat()
    assert ids((await store.beat(())).heads) == ["a"]
    assert await store.beat(["lane"]) == Beat()
    assert await store.beat(()) == Beat(), "two beats running, not two beats ever"


async def test_a_lane_that_was_taken_anew_is_no_forgotten_one(house: House) -> None:
    store = await house.replica()
    await accept(store, "a")
    assert await store.beat(()) == Beat()
    await house.sql("UPDATE lane SET epoch = 7")
    store.me.lanes["lane"] = 7
    assert await store.beat(()) == Beat()
    assert ids((await store.beat(())).heads) == ["a"]


async def test_an_empty_lane_that_nobody_works_on_is_freed(house: House) -> None:
    store = await house.replica()
    await accept(store, "a")
    await store.withdraw("a", "recalled")
    for _ in range(2):
        assert await store.beat(()) == Beat()
    assert (await accept(store, "b")).head is not None


async def test_a_turn_outside_lanes_is_audited_when_it_is_told(house: House) -> None:
    store = await house.replica()
    await accept(store, "x", kind="command")
    for _ in range(3):
        assert await store.beat(()) == Beat()
    for _ in range(2):
        assert await store.beat((), ["x"]) == Beat()
    assert await store.beat((), ()) == Beat()
    assert ids((await store.beat((), ())).heads) == ["x"]


# ---------------------------------------------------------------- stop from elsewhere


async def test_a_running_turn_is_stopped_through_another_replica(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await accept(first, "b")
    await accept(first, "c", sender=Person("ou_2"))
    await first.start("a", 5)
    stopped = await second.stop_waiting("lane", "ou_1")
    assert ids(stopped) == ["b"]
    assert (await first.beat(["lane"])).stops == (("a", "stopped"),)
    following = await first.finish("a", Ending("stopped"))
    assert following is not None and following.id == "c"
    assert await first.beat(["lane"]) == Beat(), "the wish was for the turn before"
    assert await house.sql("SELECT stop_to, stop_as FROM lane") == [(None, "")]


async def test_only_the_senders_running_turn_is_stopped(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await first.start("a", 5)
    assert await second.stop_waiting("lane", "ou_2") == ()
    assert await first.beat(["lane"]) == Beat()
    assert not await second.withdraw("a", "recalled")
    assert (await first.beat(["lane"])).stops == (("a", "recalled"),)


async def test_a_stop_outlives_the_owner(house: House) -> None:
    """The new owner closes the card and asks no model."""
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await first.start("a", 5)
    await first.checkpoint("a", "half", "why")
    await second.withdraw("a", "stopped")
    (taken,) = await beats(house, 10, second)
    (head,) = taken.heads
    assert head.ending == Ending("stopped", "half", "why")
    started = await second.start("a", 5)
    assert started is not None and started.turn.attempt == 1
    assert started.turn.ending == head.ending


async def test_a_stop_outlives_a_clean_release(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await first.start("a", 5)
    await second.withdraw("a", "recalled")
    await first.release()
    (head,) = (await second.beat(())).heads
    assert head.ending is not None and head.ending.state == "recalled"


# ---------------------------------------------------------------- leaving


async def test_a_clean_end_hands_over_at_once(house: House) -> None:
    first, second = await house.replica(), await house.replica()
    await accept(first, "a")
    await accept(first, "x", kind="command")
    await first.release()
    assert not first.may_speak()
    assert (await accept(first, "late", "other")).head is None
    assert ids((await second.beat(())).heads) == ["a", "x", "late"]
    assert await house.sql("SELECT id, version FROM replica") == [(second.me.id, "0.2")]
    assert await first.finish("a", Ending("answered", "late")) is None
    turn = await second.turn("a")
    assert turn is not None and not turn.ended


async def test_the_dead_are_forgotten_in_the_end(house: House) -> None:
    await house.replica()
    second = await house.replica()
    await beats(house, 97.5, second)
    assert await house.sql("SELECT count(*) FROM replica") == [(2,)]
    await beats(house, 5, second)
    assert await house.sql("SELECT id FROM replica") == [(second.me.id,)]


async def test_without_a_lease_there_are_no_beats_and_no_fence(house: House) -> None:
    alone = SqlTurnStore(house.database, house.clock)
    head = (await accept(alone, "a")).head
    await house.clock.advance(10**6)
    assert head is not None and alone.may_speak(head)
    await alone.checkpoint("a", "still mine", "")
    turn = await alone.turn("a")
    assert turn is not None and turn.checkpoint == "still mine"
    assert await house.sql("SELECT count(*) FROM replica") == [(0,)]
