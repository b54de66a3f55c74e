"""adapters/connection.py: what the status says, and when something may be missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from adapters.connection import Connection, Link
from adapters.hearing import IDLE, JUMP, LINGER, OVERDUE, PING_EVERY, QUIET, SILENCE
from adapters.link_words import report
from adapters.playground.clock import START, VirtualClock
from adapters.supervisor import Crowded
from bot.contract import LinkStatus
from bot.errors import AuthError, PermissionDenied, Transient
from bot.texts import say


class Rig:
    def __init__(self) -> None:
        self.clock = VirtualClock(settle=0)
        self.status = LinkStatus("x")
        self.gaps: list[tuple[float, float]] = []
        self.ups = 0
        self.link = Link(self.status, self.clock, self._gap, self._up)
        self.pings: list[float] = []

    def _gap(self, since: float, until: float) -> None:
        self.gaps.append((since - START, until - START))

    def _up(self) -> None:
        self.ups += 1

    def up(self) -> Connection:
        connection = Connection(self.link)
        connection.up()
        return connection

    def watch(self, connection: Connection) -> asyncio.Task[None]:
        async def ping() -> None:
            self.pings.append(self.clock.monotonic())

        return asyncio.create_task(connection.watch(ping))

    async def alive(self, connection: Connection, seconds: float) -> None:
        """Every second a frame that proves the socket."""
        for _ in range(int(seconds)):
            await self.clock.advance(1)
            connection.frame()


@pytest.fixture
def rig() -> Rig:
    return Rig()


# ---------------------------------------------------------------- the watch


async def test_it_pings_on_time_and_notices_a_dead_socket(rig: Rig) -> None:
    task = rig.watch(rig.up())
    await rig.clock.advance(SILENCE - 0.1)
    assert rig.pings == [0.0, PING_EVERY, 2 * PING_EVERY] and not task.done()
    await rig.clock.advance(0.1)
    with pytest.raises(Transient, match="dead") as caught:
        await task
    assert caught.value.note == "link.dead"


async def test_a_link_may_be_more_patient(rig: Rig) -> None:
    connection = rig.up()
    connection.patience = 150.0
    task = rig.watch(connection)
    await rig.clock.advance(149)
    assert not task.done()
    connection.patience = 20.0
    await rig.clock.advance(0)
    assert task.done() and task.exception() is not None


async def test_it_ends_when_its_successor_is_up_and_nothing_more_can_come(rig: Rig) -> None:
    old = rig.up()
    task = rig.watch(old)
    await rig.clock.advance(1)
    old.leaving()
    rig.up()
    await rig.clock.advance(LINGER - 0.1)
    assert not task.done()
    await rig.clock.advance(0.1)
    assert task.done() and task.exception() is None
    assert rig.link.ended(old, None)
    assert rig.status.hearing and rig.gaps == [] and rig.ups == 2


async def test_silence_of_the_application_asks_for_a_successor(rig: Rig) -> None:
    connection = rig.up()
    task = rig.watch(connection)
    await rig.alive(connection, IDLE - 1)
    assert not connection.left.is_set()
    await rig.alive(connection, 1)
    assert connection.left.is_set() and rig.status.hearing and not task.done()
    await rig.alive(connection, OVERDUE - 1)
    assert rig.status.hearing, "planned, so no red light unless it takes long"
    await rig.alive(connection, 1)
    assert rig.status.suspect and say("link.deaf", "en") in rig.status.cause
    connection.event()
    assert rig.status.hearing and rig.status.cause == ""
    await rig.alive(connection, QUIET + OVERDUE - 1)
    assert rig.status.hearing
    await rig.alive(connection, 1)
    assert rig.status.suspect, "and again, as long as nobody comes"
    rig.up()
    assert rig.status.hearing
    task.cancel()


async def test_a_quiet_link_in_use(rig: Rig) -> None:
    connection = rig.up()
    task = rig.watch(connection)
    await rig.alive(connection, 10)
    connection.event()
    await rig.alive(connection, QUIET - 1)
    assert not connection.left.is_set()
    await rig.alive(connection, 1)
    assert connection.left.is_set()
    task.cancel()


async def test_signs_that_stop_are_deafness_from_the_last_one_on(rig: Rig) -> None:
    old = rig.up()
    task = rig.watch(old)
    await rig.alive(old, 30)
    old.sign(90.0)
    await rig.alive(old, 89)
    assert rig.status.hearing
    await rig.alive(old, 1)
    assert rig.status.suspect and old.left.is_set()
    await rig.alive(old, 5)
    rig.up()
    assert rig.gaps == [(30.0, 125.0)] and rig.status.reconnects == 1
    await rig.clock.advance(1)
    assert task.done(), "what is still pushed to it is lost anyway"
    rig.link.ended(old, None)
    assert len(rig.gaps) == 1


async def test_a_question_without_an_answer_is_noticed_between_two_pings(rig: Rig) -> None:
    connection = rig.up()
    task = rig.watch(connection)
    await rig.clock.advance(1)
    connection.expect(5.0)
    await rig.clock.advance(5)
    assert connection.left.is_set()
    task.cancel()


# ---------------------------------------------------------------- gaps


def lost() -> Transient:
    return Transient("socket closed, code 1006", note="link.closed")


async def test_the_first_connection_has_no_gap(rig: Rig) -> None:
    failed = Connection(rig.link)
    assert not rig.link.ended(failed, lost())
    await rig.clock.advance(100)
    rig.up()
    assert rig.gaps == [] and rig.status.reconnects == 0


async def test_a_gap_reaches_from_the_last_frame_to_the_next_connection(rig: Rig) -> None:
    connection = rig.up()
    await rig.clock.advance(10)
    connection.frame()
    await rig.clock.advance(5)
    assert rig.link.ended(connection, lost())
    assert not rig.status.connected and "reconnecting" in rig.status.cause
    assert (rig.status.since, rig.status.detail) == (15.0, "socket closed, code 1006")
    await rig.clock.advance(100)
    rig.up()
    assert rig.gaps == [(10.0, 115.0)]
    assert (rig.status.since, rig.status.connects, rig.status.reconnects) == (115.0, 2, 1)


async def test_one_gap_for_many_losses(rig: Rig) -> None:
    first = rig.up()
    await rig.clock.advance(10)
    rig.link.ended(first, lost())
    for _ in range(5):
        rig.link.ended(Connection(rig.link), lost())
    await rig.clock.advance(10)
    rig.up()
    assert rig.gaps == [(0.0, 20.0)]


async def test_the_old_one_ends_before_its_successor_is_up(rig: Rig) -> None:
    old = rig.up()
    await rig.clock.advance(10)
    old.leaving(12.0, deaf=True)
    await rig.clock.advance(5)
    old.frame()  # it still answers pings
    await rig.clock.advance(5)
    rig.link.ended(old, None)
    assert not rig.status.connected
    rig.up()
    assert rig.gaps == [(0.0, 20.0)], "from the last frame before it said goodbye"


async def test_the_successor_dies_while_the_old_one_lingers(rig: Rig) -> None:
    old = rig.up()
    old.leaving()
    new = rig.up()
    await rig.clock.advance(1)
    rig.link.ended(new, lost())
    assert not rig.status.connected, "the old one is on its way out"
    rig.link.ended(old, None)
    assert rig.status.detail == "socket closed, code 1006"
    rig.up()
    assert len(rig.gaps) == 1


async def test_a_replaced_connection_that_was_dead_already_leaves_a_gap(rig: Rig) -> None:
    old = rig.up()
    await rig.clock.advance(35)
    old.leaving()
    rig.up()
    await rig.clock.advance(LINGER)
    rig.link.ended(old, None)
    assert rig.gaps == [(0.0, 40.0)] and rig.status.hearing


async def test_who_is_told_of_a_gap_cannot_break_the_link(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(since: float, until: float) -> None:
        raise RuntimeError("a bug in the core")

    link = Link(rig.status, rig.clock, broken)
    first = Connection(link)
    first.up()
    link.ended(first, lost())
    Connection(link).up()
    assert rig.status.hearing and "could not be handed on" in caplog.text


# ---------------------------------------------------------------- the wall clock


@pytest.mark.parametrize("look", [lambda connection: connection.frame(), None])
async def test_a_jump_makes_the_link_suspect_at_once(
    rig: Rig, look: Callable[[Connection], None] | None
) -> None:
    old = rig.up()
    task = rig.watch(old)
    await rig.clock.advance(10)
    old.frame()
    rig.clock.jump(8 * 3600)
    if look is None:
        await rig.clock.advance(PING_EVERY)
    else:
        look(old)
    assert old.left.is_set() and rig.status.suspect and rig.status.connected
    assert say("link.jumped", "zh") in rig.status.cause
    rig.up()
    [(since, until)] = rig.gaps
    assert since == 10.0 and until >= 8 * 3600 + 10
    assert rig.status.hearing
    task.cancel()


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_the_earlier_reading_of_two_counts(rig: Rig, jump: float) -> None:
    old = rig.up()
    await rig.clock.advance(10)
    rig.clock.jump(jump)
    rig.link.look()
    rig.up()
    assert rig.gaps == [(min(0.0, jump), 10.0 + jump)]
    assert old.left.is_set()


async def test_a_step_back_while_nothing_is_up(rig: Rig) -> None:
    old = rig.up()
    await rig.clock.advance(10)
    rig.link.ended(old, lost())
    rig.clock.jump(-3600)
    await rig.clock.advance(10)
    rig.up()
    assert rig.gaps == [(-3600.0, -3580.0)]


async def test_a_jump_during_a_dial_is_noticed(rig: Rig) -> None:
    old = rig.up()
    await rig.clock.advance(10)
    old.leaving()
    successor = Connection(rig.link)
    rig.clock.jump(3600)
    successor.up()
    assert rig.gaps == [(0.0, 3610.0)] and rig.status.hearing


async def test_a_proof_after_a_jump_is_a_proof(rig: Rig) -> None:
    connection = rig.up()
    rig.clock.jump(3600)
    connection.frame()
    assert rig.status.suspect
    connection.sign()
    assert rig.status.hearing and connection.left.is_set()


async def test_nothing_is_green_that_is_not_connected(rig: Rig) -> None:
    """The last words of an old connection while the newest one has died."""
    old = rig.up()
    old.leaving()
    new = rig.up()
    rig.link.suspect("link.jumped")
    rig.link.ended(new, lost())
    old.event()
    assert not rig.status.hearing and rig.status.cause


async def test_small_steps_are_no_jump(rig: Rig) -> None:
    connection = rig.up()
    for _ in range(20):
        rig.clock.jump(JUMP)
        connection.frame()
    assert not connection.left.is_set()


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (AuthError("code 514"), "link.refused"),
        (AuthError("code 403", note="link.forbidden"), "link.forbidden"),
        (PermissionDenied("HTTP 400"), "link.forbidden"),
        (Crowded("code 1000040350"), "link.crowded"),
        (Transient("dial: TimeoutError", note="link.unreachable"), "link.unreachable"),
        (Transient("code 1", note="link.busy"), "link.busy"),
        (OSError("ticket=canary"), "link.unreachable"),
        (KeyError("canary"), "link.broken"),
        (None, "link.unreachable"),
    ],
)
def test_every_failure_has_words(rig: Rig, error: Exception | None, key: str) -> None:
    rig.link.failed(error)
    assert rig.status.cause == f"{say(key, 'zh')} / {say(key, 'en')}"
    assert rig.status.detail and "canary" not in rig.status.detail
    assert rig.status.auth_failed == isinstance(error, AuthError)
    assert rig.status.attempts == 1


async def test_a_refused_successor_leaves_the_light_green_and_is_loud(rig: Rig) -> None:
    connection = rig.up()
    rig.link.failed(AuthError("code 514"))
    rig.link.failed(Transient("dial: TimeoutError"))
    assert rig.status.hearing and rig.status.cause == ""
    assert rig.status.auth_failed and rig.status.attempts == 2
    rig.link.ended(connection, lost())
    report(rig.status, AuthError("code 514"))
    assert say("link.refused", "en") in rig.status.cause
    rig.up()
    assert not rig.status.auth_failed and rig.status.attempts == 0


async def test_a_late_report_of_a_connection_that_is_over_changes_nothing(rig: Rig) -> None:
    """A client's thread may still speak."""
    connection = Connection(rig.link)
    rig.link.ended(connection, lost())
    connection.up()
    assert (rig.status.connected, rig.status.connects) == (False, 0)
