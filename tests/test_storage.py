"""The contract of a TurnStore, written once; a further database is one more URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.playground.clock import START, VirtualClock
from bot.contract import (
    Ending,
    Event,
    Handle,
    NewTurn,
    Person,
    QuotePart,
    TextPart,
    Turn,
    TurnStore,
    UnreadablePart,
    Usage,
)
from storage import codec
from storage.store import open_store


@pytest.fixture(params=["sqlite"])
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/queqiao.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def store(url: str, clock: VirtualClock) -> AsyncIterator[TurnStore]:
    opened = await open_store(url, clock, durable=False)
    yield opened
    await opened.close()


def asked(id_: str, **changes: Any) -> NewTurn:
    base = NewTurn(
        id=id_,
        kind="chat",
        bot="bot-1",
        platform="feishu",
        chat="oc_1",
        chat_kind="group",
        topic="",
        conversation="conv",
        lane="lane",
        sender=Person("ou_1", "Ann", ("on_1",)),
        message_id=f"om_{id_}",
        parts=(TextPart(f"question {id_}"),),
        address={"chat": "oc_1", "deep": [1, {"x": None}]},
        lang="zh",
        asked_at=START,
    )
    return replace(base, **changes)


async def accept(store: TurnStore, id_: str, **changes: Any) -> Turn | None:
    """Accept; the lane's head when this accept took an idle lane."""
    accepted = await store.accept(Event(f"bot-1:{id_}", asked(id_, **changes)))
    assert accepted.fresh
    return accepted.head


async def answer(
    store: TurnStore, id_: str, text: str = "", state: Any = "answered"
) -> Turn | None:
    assert await store.start(id_, 10) is not None
    return await store.finish(id_, Ending(state, text or f"answer {id_}", delivery="delivered"))


async def ask(store: TurnStore, id_: str, **changes: Any) -> None:
    """A whole turn, in a lane of its own."""
    await accept(store, id_, **{"lane": f"lane-{id_}", **changes})
    await answer(store, id_)


async def history_of(store: TurnStore, id_: str, most: int = 10, **changes: Any) -> list[str]:
    await accept(store, id_, **{"lane": f"lane-{id_}", **changes})
    started = await store.start(id_, most)
    assert started is not None
    return [exchange.turn for exchange in started.history]


# ---------------------------------------------------------------- accept


async def test_first_takes_the_lane_and_the_second_waits(store: TurnStore) -> None:
    first = await store.accept(Event("k1", asked("a")))
    second = await store.accept(Event("k2", asked("b")))
    assert first.turn is not None and first.head == first.turn == await store.turn("a")
    assert first.turn.new == asked("a") and first.waiting == 0
    assert second.head is None and second.waiting == 1 and second.turn is not None


async def test_an_event_is_claimed_once(store: TurnStore) -> None:
    await store.accept(Event("k", asked("a")))
    again = await store.accept(Event("k", asked("other")))
    assert not again.fresh and again.head is None and again.turn is not None
    assert again.turn.id == "a" and await store.turn("other") is None


async def test_a_double_does_not_take_an_idle_lane(store: TurnStore) -> None:
    await store.accept(Event("k", asked("a")))
    assert await answer(store, "a") is None
    await store.accept(Event("k", asked("a")))
    assert await accept(store, "b") is not None


async def test_an_event_without_a_turn_is_remembered(store: TurnStore) -> None:
    event = Event("k", None, "not_mentioned")
    assert (await store.accept(event)).fresh
    again = await store.accept(event)
    assert not again.fresh and again.turn is None


async def test_a_full_lane_refuses(store: TurnStore) -> None:
    await accept(store, "a")
    await accept(store, "b")
    third = await store.accept(Event("k3", asked("c"), depth=2))
    assert third.full and third.head is None and third.turn is not None
    assert third.turn.state == "refused" and third.turn.ending is None
    following = await answer(store, "a")
    assert following is not None and following.id == "b"
    assert await answer(store, "b") is None
    assert await store.finish("c", Ending("refused", "full", delivery="delivered")) is None
    told = await store.turn("c")
    assert told is not None and told.ending is not None and told.state == "refused"


@pytest.mark.parametrize("kind", ["command", "notice"])
async def test_commands_and_notices_bypass_the_lane(store: TurnStore, kind: Any) -> None:
    await accept(store, "a")
    aside = await store.accept(Event("k", asked("x", kind=kind, notice="n", notice_args={"n": 1})))
    assert aside.fresh and aside.head is None and aside.waiting == 0
    assert aside.turn is not None and aside.turn.new.notice_args == {"n": 1}
    assert await store.finish("x", Ending("answered", "done")) is None
    assert await accept(store, "b") is None
    following = await answer(store, "a")
    assert following is not None and following.id == "b"
    assert await history_of(store, "h") == ["a"]


# ---------------------------------------------------------------- a run


async def test_start_counts_attempts_and_sets_the_part(store: TurnStore) -> None:
    await accept(store, "a")
    await store.cut("conv")
    started = await store.start("a", 5)
    assert started is not None
    assert (started.turn.state, started.turn.attempt, started.turn.generation) == ("running", 1, 1)
    assert started.conversation.generation == 1
    await store.cut("conv")
    again = await store.start("a", 5)
    assert again is not None and (again.turn.attempt, again.turn.generation) == (2, 1)


async def test_start_of_ended_or_unknown(store: TurnStore) -> None:
    await accept(store, "a")
    assert await store.withdraw("a", "recalled")
    assert await store.start("a", 5) is None
    assert await store.start("nobody", 5) is None


async def test_the_journal_and_the_checkpoint_come_back(store: TurnStore) -> None:
    await accept(store, "a")
    await store.start("a", 5)
    handle = Handle("a-1", "card", "card_1", "om_9", 7, {"k": [1]})
    await store.save_handle("a", 1, replace(handle, sequence=1))
    await store.save_handle("a", 1, handle)
    await store.checkpoint("a", "so far", "thinking")
    turn = await store.turn("a")
    assert turn is not None and turn.checkpoint == "so far" and turn.ending is None
    assert turn.handles == (Handle("a-0"), handle)


async def test_a_decided_ending_stands_and_a_late_checkpoint_does_not(store: TurnStore) -> None:
    await accept(store, "a")
    await store.start("a", 5)
    ending = Ending(
        "answered", "whole", "why", "note", "footer", "stop", "m", Usage(4, 3, 2, 1), 0.25, "e"
    )
    await store.decide("a", ending)
    await store.checkpoint("a", "who", "")
    turn = await store.turn("a")
    assert turn is not None and turn.ending == ending and turn.checkpoint == ""
    assert turn.state == "running"
    proven = replace(ending, delivery="delivered", proof="om_1")
    await store.finish("a", proven)
    turn = await store.turn("a")
    assert turn is not None and turn.ending == proven and turn.state == "answered"


async def test_an_ended_turn_keeps_its_ending_and_hands_the_next_out_once(store: TurnStore) -> None:
    for id_ in "abc":
        await accept(store, id_)
    following = await answer(store, "a")
    assert following is not None and following.id == "b"
    assert await store.finish("a", Ending("failed", "other")) is None
    kept = await store.turn("a")
    assert kept is not None and kept.ending is not None and kept.ending.text == "answer a"
    following = await answer(store, "b")
    assert following is not None and following.id == "c"


async def test_a_lane_is_free_after_its_last(store: TurnStore) -> None:
    await accept(store, "a")
    assert await answer(store, "a") is None
    head = await accept(store, "b")
    assert head is not None and head.id == "b"


# ---------------------------------------------------------------- ended while waiting


async def test_stop_waiting_ends_the_senders_own(store: TurnStore) -> None:
    await accept(store, "a")
    await accept(store, "b")
    await accept(store, "c", sender=Person("ou_2"))
    await store.start("a", 5)
    stopped = await store.stop_waiting("lane", "ou_1")
    assert [turn.id for turn in stopped] == ["b"]
    assert stopped[0].state == "stopped" and stopped[0].ending is not None
    assert stopped[0].ending.delivery == "delivered"
    following = await store.finish("a", Ending("answered", "x"))
    assert following is not None and following.id == "c"
    assert [turn.id for turn in await store.stop_waiting("lane", None)] == ["c"]


async def test_stop_waiting_leaves_what_was_asked_later(store: TurnStore) -> None:
    for id_ in "abc":
        await accept(store, id_)
    middle = await store.turn("b")
    assert middle is not None
    stopped = await store.stop_waiting("lane", None, before=middle.no)
    assert [turn.id for turn in stopped] == ["a"]


async def test_an_event_that_may_come_again_leaves_a_full_lane_as_it_was(
    store: TurnStore,
) -> None:
    await accept(store, "a")
    event = Event("bot-1:retry:x", asked("x"), depth=1, again=True)
    for _ in range(2):
        accepted = await store.accept(event)
        assert (accepted.fresh, accepted.full, accepted.turn) == (False, True, None)
    assert await store.turn("x") is None
    await store.start("a", 5)
    await store.finish("a", Ending("answered", "x"))
    accepted = await store.accept(event)
    assert accepted.fresh and accepted.head is not None and accepted.head.id == "x"


async def test_who_waits_behind_a_turn(store: TurnStore) -> None:
    for id_ in "abc":
        await accept(store, id_)
    await accept(store, "elsewhere", lane="other")
    await store.withdraw("b", "stopped")
    head = await store.turn("a")
    assert head is not None
    assert [turn.id for turn in await store.behind(head)] == ["c"]


async def test_a_head_stopped_before_its_start_moves_the_lane_on(store: TurnStore) -> None:
    await accept(store, "a")
    await store.stop_waiting("lane", None, "recalled")
    await accept(store, "b")
    assert await store.start("a", 5) is None
    following = await store.finish("a", Ending("stopped"))
    assert following is not None and following.id == "b"
    ended = await store.turn("a")
    assert ended is not None and ended.state == "recalled"


async def test_withdraw_only_what_waits(store: TurnStore) -> None:
    await accept(store, "a")
    await accept(store, "b")
    await store.start("a", 5)
    assert not await store.withdraw("a", "recalled")
    assert await store.withdraw("b", "recalled")
    assert not await store.withdraw("b", "stopped")
    assert not await store.withdraw("nobody", "stopped")
    assert await store.finish("a", Ending("answered", "x")) is None


# ---------------------------------------------------------------- history


async def test_history_holds_the_newest_answers_oldest_first(store: TurnStore) -> None:
    for id_ in "abcd":
        await ask(store, id_)
    await accept(store, "e", lane="l")
    await answer(store, "e", state="failed")
    await accept(store, "f", lane="l")
    await answer(store, "f", "half", state="stopped")
    await accept(store, "g", lane="l")
    await store.start("g", 0)
    await store.finish("g", Ending("stopped", " \n"))
    assert await history_of(store, "h", 3) == ["c", "d", "f"]
    assert await history_of(store, "i", 0) == []
    assert await history_of(store, "j", conversation="elsewhere") == []


async def test_an_exchange_holds_question_and_answer(store: TurnStore) -> None:
    await ask(store, "a")
    await accept(store, "b")
    started = await store.start("b", 5)
    assert started is not None
    (exchange,) = started.history
    assert exchange.speaker == asked("a").sender and exchange.question == asked("a").parts
    assert exchange.answer == "answer a"


async def test_cut_begins_a_new_part(store: TurnStore) -> None:
    await ask(store, "a")
    await accept(store, "late", lane="late")
    await store.start("late", 5)
    assert await store.cut("conv") == 1
    await store.finish("late", Ending("answered", "belongs to the old part"))
    await ask(store, "b")
    assert await history_of(store, "c") == ["b"]
    assert await store.cut("conv") == 1 and await store.cut("conv") == 0


async def test_a_repeated_question_replaces_its_answer_in_place(store: TurnStore) -> None:
    await ask(store, "a")
    await ask(store, "b")
    assert await history_of(store, "a2", replaces="a") == ["b"]
    assert await history_of(store, "before") == ["a", "b"]
    await store.finish("a2", Ending("answered", "better"))
    assert await history_of(store, "c") == ["a2", "b"]
    await ask(store, "a3", replaces="a")
    await ask(store, "a4", replaces="a2")
    assert await history_of(store, "d") == ["a4", "b"]


async def test_a_failed_repetition_leaves_the_old_answer(store: TurnStore) -> None:
    await ask(store, "a")
    await accept(store, "a2", replaces="a")
    await answer(store, "a2", state="failed")
    assert await history_of(store, "c") == ["a"]


async def test_a_repetition_in_a_new_part_stands_at_its_end(store: TurnStore) -> None:
    await ask(store, "a")
    await store.cut("conv")
    await ask(store, "b")
    await ask(store, "a2", replaces="a")
    assert await history_of(store, "c") == ["b", "a2"]


# ---------------------------------------------------------------- looking back


async def test_choices_are_set_and_removed(store: TurnStore) -> None:
    await store.choose("conv", "model", "x")
    await store.choose("conv", "lang", "en")
    await store.choose("conv", "model", "")
    await store.cut("conv")
    known = await store.conversation("conv")
    assert known.choices == {"lang": "en"} and known.generation == 1
    assert (await store.conversation("other")).generation == 0


async def test_last_turn_is_of_the_present_part(store: TurnStore) -> None:
    await ask(store, "a")
    await ask(store, "b", sender=Person("ou_2"))
    await store.accept(Event("k", asked("x", kind="command")))
    await store.finish("x", Ending("answered", "told"))
    await accept(store, "running")
    await store.start("running", 1)
    newest, mine = await store.last_turn("conv"), await store.last_turn("conv", "ou_1")
    assert newest is not None and newest.id == "b"
    assert mine is not None and mine.id == "a"
    await store.cut("conv")
    assert await store.last_turn("conv") is None
    await accept(store, "w", lane="w")
    await store.withdraw("w", "stopped")
    newest = await store.last_turn("conv")
    assert newest is not None and newest.id == "w"


async def test_unfinished_is_what_runs_else_what_waits_last(store: TurnStore) -> None:
    assert await store.unfinished("lane", "ou_1") is None
    for name in ("a", "b", "c"):
        await accept(store, name)
    await accept(store, "other", sender=Person("ou_2"))
    waits = await store.unfinished("lane", "ou_1")
    assert waits is not None and waits.id == "c"
    await store.start("a", 1)
    runs = await store.unfinished("lane", "ou_1")
    assert runs is not None and runs.id == "a"
    for name in ("a", "b", "c"):
        await store.finish(name, Ending("answered"))
    assert await store.unfinished("lane", "ou_1") is None


async def test_turn_of_a_message(store: TurnStore) -> None:
    await ask(store, "a")
    await ask(store, "a2", message_id="om_a")
    found = await store.turn_of("bot-1", "om_a")
    assert found is not None and found.id == "a2"
    assert await store.turn_of("bot-2", "om_a") is None
    assert await store.turn_of("bot-1", "") is None


async def test_usage_sums_what_ran(store: TurnStore, clock: VirtualClock) -> None:
    for number, id_ in enumerate("abc"):
        await accept(store, id_, lane=id_, sender=Person(f"ou_{number % 2}"))
        await store.start(id_, 0)
        await store.finish(id_, Ending("answered", "x", usage=Usage(10, 5, 4, 3), cost=0.5))
        await clock.advance(10)
    await store.accept(Event("k", asked("x", kind="command")))
    await store.finish("x", Ending("answered", "told"))
    total = await store.usage(since=START)
    assert total.turns == 3 and total.usage == Usage(30, 15, 12, 9) and total.cost == 1.5
    assert (await store.usage(since=START + 5)).turns == 2
    assert (await store.usage(since=START, sender="ou_0", conversation="conv")).turns == 2
    assert (await store.usage(since=START, conversation="other")).turns == 0


async def test_prune_forgets_old_keys_only(store: TurnStore, clock: VirtualClock) -> None:
    for number in range(1203):
        await store.accept(Event(f"old-{number}", None, "x"))
    await clock.advance(100)
    await store.accept(Event("new", None, "x"))
    assert await store.prune(START + 50) == 1203
    assert (await store.accept(Event("old-7", None))).fresh
    assert not (await store.accept(Event("new", None))).fresh


# ---------------------------------------------------------------- after a restart


async def test_recover_takes_heads_and_what_stands_outside(
    store: TurnStore, url: str, clock: VirtualClock
) -> None:
    await accept(store, "a")
    await accept(store, "b")
    await store.start("a", 5)
    await store.save_handle("a", 0, Handle("a-0", card_id="c"))
    await store.decide("a", Ending("answered", "whole"))
    await store.accept(Event("kx", asked("x", kind="command")))
    await store.accept(Event("kr", asked("r"), depth=1))
    await accept(store, "gone", lane="other")
    await store.stop_waiting("other", None)
    await accept(store, "next", lane="other")
    await ask(store, "ended")
    assert await store.recover() == ()
    await store.close()
    later = await open_store(url, clock, durable=False)
    try:
        assert await accept(later, "c") is None, "the lane still waits to be recovered"
        assert (await later.accept(Event("kn", asked("n", kind="command")))).turn is not None
        turns = {turn.id: turn for turn in await later.recover()}
        assert list(turns) == ["a", "x", "r", "next"]
        assert turns["a"].ending is not None and turns["a"].handles[0].card_id == "c"
        assert turns["a"].attempt == 1 and turns["r"].state == "refused"
        assert await later.recover() == ()
        following = await later.finish("a", Ending("answered", "whole"))
        assert following is not None and following.id == "b"
        following = await answer(later, "b")
        assert following is not None and following.id == "c"
    finally:
        await later.close()


# ---------------------------------------------------------------- hostile text

words = st.text(st.characters() | st.sampled_from("\0\ud800\udfff"), max_size=30)
parts = st.lists(
    st.builds(TextPart, words)
    | st.builds(QuotePart, words, words)
    | st.builds(UnreadablePart, words, words),
    max_size=4,
).map(tuple)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
people = st.builds(Person, words, words, st.lists(words, max_size=2).map(tuple))


def _same(value: Any) -> Any:
    return codec.load(codec.dump(value))


@given(parts, people, st.dictionaries(words, json, max_size=3), words)
def test_a_turn_comes_back_as_it_went(parts: Any, person: Any, address: Any, text: str) -> None:
    new = asked("a", parts=parts, sender=person, address=address, topic=text)
    row = codec.new_to_row(new)
    back = codec.new_from_row(row)
    assert codec.new_to_row(back) == row
    assert back.topic == codec.sound(text) and back.address == _same(address)
    assert back.parts == tuple(
        type(part)(*(codec.sound(value) for value in astuple(part))) for part in parts
    )


@given(st.text())
def test_sound_text_is_kept(text: str) -> None:
    assert codec.sound(text) == text.replace("\0", "\ufffd")
    assert _same([text]) == [codec.sound(text)]


async def test_junk_is_stored_and_found_again(store: TurnStore) -> None:
    junk = "\0x\ud800\ud83d\ude00"
    clean = "\ufffdx\ufffd😀"
    await store.accept(Event(junk, asked(junk, parts=(TextPart(junk),), address={junk: junk})))
    assert not (await store.accept(Event(junk, asked(junk)))).fresh
    await store.start(junk, 5)
    await store.checkpoint(junk, junk, junk)
    await store.save_handle(junk, 0, Handle(junk, extra={"x": junk}))
    await store.finish(junk, Ending("answered", junk * 20_000, error=junk))
    turn = await store.turn(junk)
    assert turn is not None and turn.ending is not None
    assert turn.new.parts == (TextPart(clean),) and turn.new.address == {clean: clean}
    assert turn.ending.text == clean * 20_000 and turn.handles[0].extra == {"x": clean}


async def test_only_a_run_that_died_counts_as_a_death(store: TurnStore) -> None:
    await accept(store, "a")
    begun = await store.start("a", 0)
    assert begun is not None and (begun.turn.attempt, begun.turn.deaths) == (1, 0)
    await store.hand_over("a", "so far", "thinking")
    again = await store.start("a", 0)
    assert again is not None and (again.turn.attempt, again.turn.deaths) == (2, 0)
    assert (again.turn.checkpoint, again.turn.thoughts) == ("so far", "thinking")
    once_more = await store.start("a", 0)
    assert once_more is not None and (once_more.turn.attempt, once_more.turn.deaths) == (3, 1)


async def test_a_turn_that_is_decided_is_not_handed_over(store: TurnStore) -> None:
    await accept(store, "a")
    await store.start("a", 0)
    await store.decide("a", Ending("answered", text="done"))
    await store.hand_over("a", "late", "")
    turn = await store.turn("a")
    assert turn is not None and turn.ending is not None and turn.ending.text == "done"
    assert turn.state == "running"
