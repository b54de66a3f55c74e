"""Histories kept in memory say what the database says, however a conversation went on."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sqlalchemy import Connection

from bot.contract import Ending, Event, Exchange, Person, TextPart
from storage import history, intake
from storage.recent import OVERHEAD, Kept, Recent
from storage.store import SqlTurnStore
from tests.asking import asked

PART = ("conversation", 0)


def exchange(name: int) -> Exchange:
    return Exchange(str(name), Person("p"), (TextPart("q"),), f"answer {name}")


def kept(*names: int, size: int = 1) -> Kept:
    places = [(name, name * 10) for name in names]
    return Kept(places, tuple(map(exchange, names)), (size,) * len(names))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ((1, 2, 3), (1, 2, 3)),
        ((1, 2, 3, 4), (1, 2, 3)),
        ((2, 3, 4), (2, 3)),
        ((3, 4, 5), (3,)),
        ((1, 3, 4), (1,)),
        ((1, 2), (1, 2)),
        ((4, 5), ()),
        ((0, 1, 2), ()),
    ],
)
def test_the_beginning_that_agrees_is_known(wanted: Any, found: Any) -> None:
    recent = Recent()
    recent.keep(PART, kept(1, 2, 3))
    known = recent.known(PART, kept(*wanted).places)
    assert (list(known.places), *known[1:]) == kept(*found)
    assert recent.known(("conversation", 1), kept(*wanted).places).exchanges == ()


def test_a_turn_in_the_place_of_another_is_not_taken_for_it() -> None:
    recent = Recent()
    recent.keep(PART, kept(1, 2, 3))
    assert recent.known(PART, [(1, 10), (9, 20), (3, 30)]).exchanges == (exchange(1),)


def test_what_was_read_longest_ago_goes_when_there_is_too_much() -> None:
    recent = Recent(chars=100)
    for number, names in enumerate([(1, 2), (3,), (4, 5)]):
        recent.keep(("c", number), kept(*names, size=25))
    assert not knows(recent, 0, 1, 2)
    assert knows(recent, 1, 3) and knows(recent, 2, 4, 5)
    recent.keep(("c", 1), kept(3, 6, 7, 8, 9, size=25))
    assert not knows(recent, 1, 3) and not knows(recent, 2, 4, 5)


def knows(recent: Recent, number: int, *names: int) -> bool:
    return bool(recent.known(("c", number), kept(*names).places).places)


async def test_only_what_is_new_is_read_again(store: SqlTurnStore) -> None:
    read: list[int] = []
    for number in range(12):
        await answer(store, f"t{number}")
        started = await begin(store, f"q{number}")
        assert [e.turn for e in started] == [f"t{n}" for n in range(number + 1)]
        read.append(len(getattr(started, "_rows", ())))
        await store.finish(f"q{number}", Ending("failed"))
    assert read == [1] * 12
    columns = 't{0}answer t{0}["ou_1",""][{{"text":"t{0}"}}]'
    sizes = tuple(OVERHEAD + len(columns.format(number)) for number in range(12))
    assert (await kept_of(store)).sizes == sizes


async def test_the_beginning_of_a_long_history_moves_in_steps(store: SqlTurnStore) -> None:
    """The model service's cache of it stays good in between (design.md 7)."""
    begins = []
    for number in range(40):
        read = await begin(store, f"t{number}", 16)
        assert len(read) == min(number, 16 - (-number % 4 if number > 16 else 0))
        begins.append(read[0].turn if read else "")
        await store.finish(f"t{number}", Ending("answered", text="answer"))
    moves = [n for n in range(2, 40) if begins[n] != begins[n - 1]]
    assert moves == [17, 21, 25, 29, 33, 37]


@pytest.mark.parametrize("seed", range(30))
async def test_what_is_kept_and_what_is_stored_are_the_same(store: SqlTurnStore, seed: int) -> None:
    dice, names = random.Random(seed), []
    for number in range(60):
        name, most = f"t{number}", dice.choice((0, 1, 3, 8, 200))
        again = dice.choice(names) if names and dice.random() < 0.25 else ""
        read = await begin(store, name, most, replaces=again)
        if dice.random() < 0.8:  # else nobody reads it
            assert list(read) == await stored(store, name, most)
        if dice.random() < 0.1:
            await store.cut("lane")
        state = dice.choice(("answered", "answered", "stopped", "failed"))
        await store.finish(
            name, Ending(state, text=f"answer {name}" if dice.random() < 0.9 else "")
        )
        if dice.random() < 0.1:
            await store.delivered(name, Ending("failed", error="refused"))
        names.append(name)


async def begin(store: SqlTurnStore, name: str, most: int = 200, **changes: Any) -> Any:
    """Claimed and begun at once, or, every other time, one after the other."""
    at_once = int(name[1:]) % 2 == 0
    start = most if at_once else -1
    accepted = await store.accept(Event(name, asked(name, **changes), start=start))
    assert (accepted.started is not None) == at_once
    started = accepted.started or await store.start(name, most)
    assert started is not None
    return started.history


async def answer(store: SqlTurnStore, name: str) -> None:
    await store.accept(Event(name, asked(name)))
    await store.start(name, 0)
    await store.finish(name, Ending("answered", text=f"answer {name}"))


async def stored(store: SqlTurnStore, name: str, most: int) -> list[Exchange]:
    """As somebody reads it who has kept nothing."""
    turn = await store.turn(name)
    assert turn is not None

    def work(connection: Connection) -> list[Exchange]:
        mine = connection.info.pop("recent", None)
        try:
            root = intake._root_of(connection, turn.new)
            return list(history.exchanges(connection, turn, root, most))
        finally:
            connection.info["recent"] = mine or Recent()

    return await store.database.run(work)


async def kept_of(store: SqlTurnStore) -> Kept:
    return await store.database.run(lambda c: c.info["recent"]._kept[("lane", 0)])
