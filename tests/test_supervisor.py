"""adapters/supervisor.py on a clock that stands still, and that clock itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from adapters.playground.clock import START, VirtualClock
from adapters.supervisor import STABLE, Backoff, Connection, supervise
from bot.contract import LinkStatus
from bot.errors import AuthError, PermissionDenied, Transient

CAP, SLOW = 30.0, 100.0


class Rig:
    """A supervised link whose every session does what the test says."""

    def __init__(self) -> None:
        self.clock = VirtualClock(settle=0)
        self.status = LinkStatus("feishu")
        self.connections: list[Connection] = []
        self.dialled: list[float] = []
        self.open = 0
        self.most_open = 0
        self.plan: Callable[[Connection, int], object] = lambda connection, number: None
        self.endings: list[asyncio.Future[None]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, plan: Callable[[Connection, int], object]) -> None:
        self.plan = plan
        self.tasks.append(asyncio.create_task(supervise(self.session, self.status, self.clock)))
        await self.clock.advance(0)

    async def session(self, connection: Connection) -> None:
        """Dials, does what `plan` says (an exception to raise, or None), and lives."""
        number = len(self.connections)
        self.connections.append(connection)
        self.dialled.append(self.clock.monotonic())
        ending = asyncio.get_running_loop().create_future()
        self.endings.append(ending)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            outcome = self.plan(connection, number)
            if isinstance(outcome, BaseException):
                raise outcome
            await ending
        finally:
            self.open -= 1

    def end(self, number: int, error: BaseException | None = None) -> None:
        if error is None:
            self.endings[number].set_result(None)
        else:
            self.endings[number].set_exception(error)

    def gaps(self) -> list[float]:
        pairs = zip(self.dialled, self.dialled[1:], strict=False)
        return [later - earlier for earlier, later in pairs]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    random.seed(7)
    rig = Rig()
    yield rig
    for task in rig.tasks:
        task.cancel()
    await asyncio.gather(*rig.tasks, return_exceptions=True)


def up(connection: Connection, number: int) -> None:
    connection.up()


def fails(connection: Connection, number: int) -> BaseException:
    return Transient("cannot connect")


# ---------------------------------------------------------------- delays


@pytest.mark.parametrize("seed", range(20))
def test_delays_are_fast_first_then_double_up_to_the_cap(seed: int) -> None:
    random.seed(seed)
    backoff = Backoff(first=0.5, cap=CAP)
    steps = [min(CAP, 0.5 * 2**n) for n in range(200)]
    for step in steps:
        assert step / 2 <= backoff.delay(Transient("x")) <= step
    backoff.reset()
    assert backoff.delay(None) <= 0.5


def test_delays_are_jittered() -> None:
    random.seed(1)
    delays = {Backoff().delay(None) for _ in range(50)}
    assert len(delays) == 50
    assert max(delays) - min(delays) > 0.1, "many clients do not come back in one moment"


@pytest.mark.parametrize("error", [AuthError("refused"), PermissionDenied("no scope")])
def test_refused_credentials_are_retried_slowly_but_retried(error: Exception) -> None:
    random.seed(3)
    backoff = Backoff(slow=SLOW)
    delays = [backoff.delay(error) for _ in range(100)]
    assert all(SLOW * 0.75 <= delay <= SLOW * 1.25 for delay in delays)
    assert backoff.delay(Transient("x")) <= 0.5, "they say nothing about the network"


# ---------------------------------------------------------------- sessions


async def test_it_dials_at_once_and_again_and_again(rig: Rig) -> None:
    await rig.start(fails)
    assert rig.dialled == [0.0]
    await rig.clock.advance(24 * 3_600)
    assert not rig.tasks[0].done()
    for step, gap in zip((0.5, 1, 2, 4, 8, 16, 30, 30, 30), rig.gaps(), strict=False):
        assert step / 2 <= gap <= step
    assert all(CAP / 2 <= gap <= CAP for gap in rig.gaps()[7:])
    assert rig.most_open == 1
    assert rig.connections[0] is not rig.connections[1]


async def test_a_link_that_lived_long_comes_back_fast(rig: Rig) -> None:
    await rig.start(lambda connection, number: fails(connection, number) if number < 6 else None)
    await rig.clock.advance(200)
    number = len(rig.dialled) - 1
    assert number == 6
    rig.connections[number].up()
    await rig.clock.advance(STABLE + 1)
    rig.end(number, Transient("closed"))
    await rig.clock.advance(0.5)
    assert len(rig.dialled) == 8


async def test_a_link_that_falls_at_once_backs_off_although_it_was_up(rig: Rig) -> None:
    def flaps(connection: Connection, number: int) -> BaseException:
        connection.up()
        return Transient("closed")

    await rig.start(flaps)
    await rig.clock.advance(3_600)
    assert rig.gaps()[-1] >= CAP / 2
    assert len(rig.dialled) < 3_600 / (CAP / 2) + 10


async def test_refused_credentials_are_not_hammered(rig: Rig) -> None:
    await rig.start(lambda connection, number: AuthError("app secret refused"))
    await rig.clock.advance(3_600)
    assert 3_600 / (SLOW * 1.25) <= len(rig.dialled) <= 3_600 / (SLOW * 0.75) + 1
    assert rig.status.detail == "app secret refused"
    assert rig.status.auth_failed and "credentials refused" in rig.status.cause


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug of ours"),
        OSError(101, "Network is unreachable"),
        TimeoutError(),
        ExceptionGroup("several", [ValueError("x")]),
        asyncio.CancelledError(),
    ],
)
async def test_nothing_that_a_session_raises_ends_it(rig: Rig, error: BaseException) -> None:
    await rig.start(lambda connection, number: error if number < 3 else up(connection, number))
    await rig.clock.advance(10)
    assert not rig.tasks[0].done()
    assert len(rig.dialled) == 4 and rig.status.connected


async def test_a_session_that_closes_cleanly_is_dialled_again(rig: Rig) -> None:
    await rig.start(up)
    rig.end(0)
    await rig.clock.advance(0)
    assert (rig.status.connected, rig.status.detail) == (False, "closed")
    await rig.clock.advance(0.5)
    assert len(rig.dialled) == 2 and rig.status.connected


async def test_the_wall_clock_does_not_matter(rig: Rig) -> None:
    await rig.start(lambda connection, number: fails(connection, number) if number < 5 else None)
    await rig.clock.advance(100)
    assert len(rig.dialled) == 6
    rig.connections[5].up()
    rig.clock.jump(10 * 86_400)
    rig.end(5, Transient("closed"))
    await rig.clock.advance(7.9)
    assert len(rig.dialled) == 6, "ten days on the wall are no stable minute"
    rig.clock.jump(-20 * 86_400)
    await rig.clock.advance(10)
    assert len(rig.dialled) == 7


# ---------------------------------------------------------------- make before break


async def test_the_successor_comes_while_the_old_one_still_listens(rig: Rig) -> None:
    await rig.start(up)
    await rig.clock.advance(STABLE + 1)
    rig.connections[0].leaving()
    await rig.clock.advance(0)
    assert len(rig.dialled) == 2 and rig.open == 2
    assert rig.dialled[1] == STABLE + 1, "without a delay"
    assert rig.status.connected
    rig.connections[0].event()
    assert rig.status.last_event == rig.clock.monotonic(), "the old one is still heard"
    rig.end(0, Transient("closed by server"))
    await rig.clock.advance(60)
    assert rig.open == 1 and len(rig.dialled) == 2
    assert rig.status.connected, "the end of the old one is not the end of the link"


async def test_leaving_twice_opens_one_successor(rig: Rig) -> None:
    await rig.start(up)
    await rig.clock.advance(STABLE + 1)
    rig.connections[0].leaving()
    rig.connections[0].leaving()
    await rig.clock.advance(0)
    rig.connections[0].leaving()
    await rig.clock.advance(60)
    assert len(rig.dialled) == 2


async def test_a_successor_that_fails_is_tried_again_while_the_old_one_listens(rig: Rig) -> None:
    await rig.start(
        lambda connection, number: (
            fails(connection, number) if 0 < number < 4 else up(connection, number)
        )
    )
    await rig.clock.advance(STABLE + 1)
    rig.connections[0].leaving()
    await rig.clock.advance(20)
    assert len(rig.dialled) == 5 and rig.open == 2


async def test_one_early_goodbye_costs_no_time(rig: Rig) -> None:
    await rig.start(up)
    await rig.clock.advance(1)
    rig.connections[0].leaving()
    await rig.clock.advance(0)
    assert rig.gaps() == [1.0]


async def test_a_server_that_sends_everybody_away_is_not_dialled_in_a_circle(rig: Rig) -> None:
    def leaves(connection: Connection, number: int) -> None:
        connection.up()
        connection.leaving()

    await rig.start(leaves)
    await rig.clock.advance(600)
    assert len(rig.dialled) < 40
    assert not rig.tasks[0].done()


# ---------------------------------------------------------------- status


async def test_status_says_how_it_is_in_words(rig: Rig) -> None:
    status = rig.status
    assert (status.connected, status.cause, status.connects) == (False, "starting", 0)
    await rig.start(
        lambda connection, number: (
            Transient("cannot connect: ClientConnectorError")
            if number == 0
            else up(connection, number)
        )
    )
    assert (status.connected, status.detail) == (False, "cannot connect: ClientConnectorError")
    assert status.cause == "连不上平台 / cannot reach the platform"
    assert status.attempts == 1
    await rig.clock.advance(0.5)
    assert (status.connected, status.cause, status.connects) == (True, "", 1)
    assert (status.detail, status.attempts, status.proven) == ("", 0, rig.dialled[1])
    assert status.since == status.last_frame == rig.dialled[1]
    assert status.last_event == 0.0, "a handshake is no proof of hearing"
    since = rig.clock.monotonic()
    await rig.clock.advance(10)
    rig.connections[1].frame()
    assert (status.last_frame, status.last_event) == (since + 10, 0.0)
    await rig.clock.advance(5)
    rig.connections[1].event()
    assert status.last_frame == status.last_event == since + 15
    assert status.since == rig.dialled[1]


async def test_status_and_log_quote_no_payload_of_an_unknown_error(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(lambda connection, number: OSError("wss://host?ticket=canary-42"))
    assert rig.status.detail == "OSError"
    assert "feishu" in caplog.text and "canary-42" not in caplog.text


async def test_a_bug_leaves_its_traceback_in_the_log(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(lambda connection, number: KeyError("x"))
    assert any(record.exc_info for record in caplog.records)


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("moment", ["dialling", "up", "waiting", "leaving"])
async def test_cancelled_it_leaves_no_task(moment: str) -> None:
    before, rig = asyncio.all_tasks(), Rig()
    plans: dict[str, Callable[[Connection, int], object]] = {"up": up, "waiting": fails}
    await rig.start(plans.get(moment, lambda connection, number: None))
    if moment == "leaving":
        rig.connections[0].leaving()
        await rig.clock.advance(0)
        assert rig.open == 2
    await stopped(rig.tasks[0])
    assert rig.open == 0
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_it_waits_until_the_session_has_closed_its_socket() -> None:
    clock, closed = VirtualClock(settle=0), list[str]()

    async def session(connection: Connection) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append("socket")

    task = asyncio.create_task(supervise(session, LinkStatus("x"), clock))
    await clock.advance(0)
    await stopped(task)
    assert closed == ["socket"]


# ---------------------------------------------------------------- the virtual clock


async def test_sleepers_wake_in_order_each_at_its_own_moment() -> None:
    clock, woken = VirtualClock(settle=0), list[tuple[str, float]]()

    async def sleeps(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeps(*args)) for args in (("a", 3, 1), ("b", 2, 2), ("c", 9))]
    await clock.advance(5)
    assert woken == [("b", 2.0), ("a", 3.0), ("b", 4.0), ("a", 4.0)]
    assert (clock.monotonic(), clock.time()) == (5.0, START + 5)
    await clock.advance(4)
    assert woken[-1] == ("c", 9.0)
    await asyncio.gather(*tasks)


async def test_time_stands_still_and_only_the_wall_jumps() -> None:
    clock = VirtualClock(settle=0)
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0.01)
    clock.jump(3_600)
    await clock.advance(0)
    assert not task.done()
    assert (clock.monotonic(), clock.time()) == (0.0, START + 3_600)
    await clock.sleep(0)
    await clock.sleep(-1)
    task.cancel()
    await clock.advance(2)
    assert task.cancelled() and clock.monotonic() == 2.0


async def test_a_timeout_of_the_virtual_clock() -> None:
    clock = VirtualClock(settle=0)

    async def bounded(seconds: float) -> str:
        async with clock.timeout(seconds):
            await clock.sleep(5)
        return "in time"

    late, early = asyncio.create_task(bounded(4)), asyncio.create_task(bounded(6))
    await clock.advance(3.9)
    assert not late.done()
    await clock.advance(10)
    with pytest.raises(TimeoutError):
        await late
    assert await early == "in time"
