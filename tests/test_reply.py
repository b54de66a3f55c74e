"""The growing reply against a card of its own, in virtual time: when it is shown, and that
the newest wins."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest

from adapters.playground.clock import VirtualClock
from bot.contract import Charge, Delivery, Handle, Limits, Pace, Snapshot, Step, Window
from bot.errors import Bug, PermissionDenied, RateLimited, Transient
from bot.pace import Pacer, Priority
from bot.reply import Reply

PACE = 0.3


@dataclass
class Card:
    """A sink whose calls take `seconds` and fail as ordered."""

    clock: VirtualClock
    seconds: float = 0.0
    failures: list[Exception] = field(default_factory=list)
    shown: list[tuple[float, str]] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    finished: list[Snapshot] = field(default_factory=list)
    flying: int = 0
    crowded: bool = False
    limits: Limits = field(default_factory=lambda: Limits(Pace(PACE), 10_000))
    handle: Handle = field(default_factory=lambda: Handle("k"))

    def charges(self, step: Step) -> tuple[Charge, ...]:
        return ()

    async def _call(self) -> None:
        self.flying += 1
        self.crowded |= self.flying > 1
        try:
            if self.seconds:
                await self.clock.sleep(self.seconds)
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self.flying -= 1

    async def open(self, snapshot: Snapshot) -> None:
        await self._call()
        self.opened.append(self.clock.monotonic())

    async def show(self, snapshot: Snapshot) -> None:
        await self._call()
        self.shown.append((self.clock.monotonic(), snapshot.text))

    async def finish(self, snapshot: Snapshot) -> Delivery:
        await self._call()
        self.finished.append(snapshot)
        return Delivery("delivered", "m")


def reply_on(card: Card) -> Reply:
    clock = card.clock
    return Reply(lambda part: card, Pacer(clock), clock, Snapshot(status="…"), lambda *_: None)


async def speak(reply: Reply, clock: VirtualClock, chunks: int, every: float) -> None:
    for number in range(chunks):
        reply.add(f"{number} ")
        await clock.advance(every)


async def test_the_first_text_comes_within_a_pace_of_the_first_chunk() -> None:
    clock = VirtualClock(settle=0.0)
    card = Card(clock)
    reply = reply_on(card)
    reply.start()
    await clock.advance(2.0)
    assert card.opened == [0.0] and not card.shown
    first = clock.monotonic()
    await speak(reply, clock, 400, 0.02)
    assert card.shown[0][0] - first <= PACE
    times = [at for at, _ in card.shown]
    assert all(b - a >= PACE - 1e-6 for a, b in itertools.pairwise(times))
    assert len(times) >= 400 * 0.02 / PACE * 0.8
    await reply.close(Snapshot(state="answered"))
    assert card.finished[-1].text == "".join(f"{n} " for n in range(400))


async def test_every_text_grows_from_the_one_before_and_none_is_sent_twice() -> None:
    clock = VirtualClock(settle=0.0)
    card = Card(clock, seconds=0.7)
    reply = reply_on(card)
    reply.start()
    await speak(reply, clock, 200, 0.05)
    texts = [text for _, text in card.shown]
    assert all(b.startswith(a) and a != b for a, b in itertools.pairwise(texts))
    closing = asyncio.ensure_future(reply.close(Snapshot(state="answered")))
    await clock.advance(5.0)
    assert (await closing) == Delivery("delivered", "m")
    assert not card.crowded, "one call in flight"


@pytest.mark.parametrize(
    ("refusals", "grows"),
    [([Bug("x")] * 2, True), ([Bug("x")] * 3, False), ([PermissionDenied("x")], False)],
)
async def test_a_refused_update_does_not_stop_the_next(
    refusals: list[Exception], grows: bool
) -> None:
    clock = VirtualClock(settle=0.0)
    card = Card(clock)
    reply = reply_on(card)
    reply.start()
    await clock.advance(1.0)
    card.failures = list(refusals)
    await speak(reply, clock, 100, 0.1)
    assert card.failures == [] and bool(card.shown) == grows
    await reply.close(Snapshot(state="answered"))
    assert card.finished[-1].text == "".join(f"{n} " for n in range(100))


async def test_a_failed_update_loses_nothing_and_the_next_holds_it_all() -> None:
    clock = VirtualClock(settle=0.0)
    card = Card(clock, failures=[Transient("x"), RateLimited("y", retry_after=0.5)])
    reply = reply_on(card)
    reply.start()
    await clock.advance(1.0)
    await speak(reply, clock, 50, 0.05)
    assert card.shown and card.shown[-1][1].startswith("0 1 2 ")
    await reply.close(Snapshot(state="answered"))
    assert card.finished[-1].text == "".join(f"{n} " for n in range(50))


async def test_a_final_is_repeated_until_it_is_proven_and_no_longer_than_it_may() -> None:
    clock = VirtualClock(settle=0.0)
    card = Card(clock, failures=[])
    reply = reply_on(card)
    reply.add("all of it")
    card.failures = [Transient("down")] * 3
    closing = asyncio.ensure_future(reply.close(Snapshot(state="answered")))
    await clock.advance(30.0)
    assert (await closing) == Delivery("delivered", "m")

    card.failures = [Transient("down")] * 100
    again = reply_on(card)
    again.add("all of it")
    start = clock.monotonic()
    closing = asyncio.ensure_future(again.close(Snapshot(state="answered"), patience=20.0))
    await clock.advance(21.0)
    assert (await closing) is None and isinstance(again.failure, Transient)
    assert clock.monotonic() - start <= 21.0


# ---------------------------------------------------------------- the pace


GROWING = Pace(0.4, 2.0, 6.4, 6.4)


def growing_card(clock: VirtualClock, pace: Pace = GROWING) -> Card:
    return Card(clock, limits=Limits(pace, 10_000))


def gaps(card: Card) -> list[float]:
    return [round(b - a, 2) for (a, _), (b, _) in itertools.pairwise(card.shown)]


async def test_the_gaps_grow_and_neither_a_status_nor_a_restart_resets_them() -> None:
    clock = VirtualClock(settle=0.0)
    card = growing_card(clock)
    reply = reply_on(card)
    reply.start()
    await speak(reply, clock, 700, 0.01)
    assert gaps(card)[:3] == [0.4, 0.8, 1.6]
    reply.retitle(Snapshot(status="anew", note="?"))
    reply.restart()
    await speak(reply, clock, 2000, 0.01)
    assert gaps(card)[3:] == [3.2, 6.4, 6.4, 6.4]


async def test_thoughts_are_renewed_rarely_and_the_first_text_cuts_their_wait_short() -> None:
    clock = VirtualClock(settle=0.0)
    card = growing_card(clock)
    reply = Reply(
        lambda part: card,
        Pacer(clock),
        clock,
        Snapshot(status="…"),
        lambda *_: None,
        show_reasoning=True,
    )
    reply.start()
    for _ in range(100):
        reply.add_reasoning("hm ")
        await clock.advance(0.1)
    assert [round(at, 1) for at, _ in card.shown] == [0.1, 6.5]
    reply.add("So")
    await clock.advance(0.01)
    assert card.shown[-1] == (pytest.approx(10.0, abs=0.01), "So")
    await speak(reply, clock, 30, 0.1)
    assert gaps(card)[2:] == [0.4, 0.8, 1.6], "the text has its own gaps"


async def test_a_place_in_the_line_that_moves_is_shown_at_growing_gaps() -> None:
    clock = VirtualClock(settle=0.0)
    card = growing_card(clock)
    reply = reply_on(card)
    reply.start()
    for place in range(100, 0, -1):
        reply.retitle(Snapshot(status=f"{place} ahead"))
        await clock.advance(0.1)
    assert gaps(card) == [0.4, 0.8, 1.6, 3.2]


async def test_a_refusal_of_unknown_reach_holds_up_its_card_alone() -> None:
    @dataclass
    class Charged(Card):
        def charges(self, step: Step) -> tuple[Charge, ...]:
            mine = Charge("card", (Window(10, 1.0),))
            api = (Window(50, 1.0), Window(1000, 60.0))
            return (Charge("settings", api), mine, Charge("content", api), mine)

    clock = VirtualClock(settle=0.0)
    card = Charged(clock, failures=[RateLimited("slow down", retry_after=5.0)])
    pacer = Pacer(clock)
    reply = Reply(lambda part: card, pacer, clock, Snapshot(), lambda *_: None)
    reply.start()
    await clock.advance(1.0)

    async def free(bucket: str) -> bool:
        window = (Window(50, 1.0),)
        asking = asyncio.create_task(pacer.grant((Charge(bucket, window),), Priority.UPDATE, 0.0))
        await clock.advance(0.01)
        granted = asking.done()
        asking.cancel()
        return granted

    assert await free("settings") and await free("content") and not await free("card")
    await reply.leave()


async def test_without_a_card_nothing_is_sent_before_the_text_stands() -> None:
    """A message in its place cannot be changed when the next run words it anew."""
    clock = VirtualClock(settle=0.0)
    card = Card(clock, failures=[PermissionDenied("x")], limits=Limits(Pace(PACE), 300))
    reply = reply_on(card)
    reply.start()
    await clock.advance(1.0)
    await speak(reply, clock, 400, 0.05)
    assert (card.opened, card.shown, card.finished) == ([], [], [])
    await reply.close(Snapshot(state="answered"))
    assert len(card.finished) > 3
    words = " ".join(part.text for part in card.finished).split()
    assert words == [str(n) for n in range(400)]


async def test_what_was_written_while_the_budget_was_waited_for_is_shown_with_the_rest() -> None:
    """The frame says what is newest when it leaves, not when its room was asked for."""

    @dataclass
    class Charged(Card):
        def charges(self, step: Step) -> tuple[Charge, ...]:
            return (Charge("api", (Window(1, 5.0),)),) if step == "show" else ()

    clock = VirtualClock(settle=0.0)
    card = Charged(clock)
    reply = reply_on(card)
    reply.start()
    await speak(reply, clock, 40, 0.25)
    await reply.leave()
    assert [round(at, 1) for at, _ in card.shown] == [0.0, 5.1]
    assert card.shown[1][1].split()[-1] == "20", "what was said at 5.0, and nothing older"
