"""bot/tasks.py: closing steps that cancellation cannot cut, and tasks nobody forgets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import pytest

from bot.tasks import TaskSet, to_the_end


class Step:
    """A closing step that goes on when the test says so."""

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.ended = False
        self.error: BaseException | None = None

    async def __call__(self) -> str:
        self.begun.set()
        await self.go.wait()
        await asyncio.sleep(0)
        self.ended = True
        if self.error is not None:
            raise self.error
        return "closed"


async def running(work: Awaitable[str], step: Step) -> asyncio.Task[str]:
    task = asyncio.ensure_future(work)
    await step.begun.wait()
    return task  # type: ignore[return-value]


async def turns_of_the_loop(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---------------------------------------------------------------- to_the_end


async def test_without_trouble_it_is_an_await() -> None:
    step = Step()
    step.go.set()
    assert await to_the_end(step()) == "closed"
    step.error = ValueError("why")
    with pytest.raises(ValueError, match="why"):
        await to_the_end(step())


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_cancelled_it_ends_the_step_first(times: int) -> None:
    step = Step()
    task = await running(to_the_end(step()), step)
    for _ in range(times):
        task.cancel()
        await turns_of_the_loop()
        assert not task.done() and not step.ended
    step.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.ended and task.cancelled()


async def test_cancelled_before_its_first_step() -> None:
    """The caller was cancelled but has not noticed when it comes here."""
    step = Step()

    async def caller() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await to_the_end(step())

    task = await running(caller(), step)
    step.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.ended


async def test_cancelled_in_the_turn_of_the_loop_in_which_the_step_ends() -> None:
    step = Step()
    task = await running(to_the_end(step()), step)
    step.go.set()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.ended


async def test_a_step_that_fails_while_cancelled_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = Step()
    step.error = ValueError("disk full")
    task = await running(to_the_end(step()), step)
    task.cancel()
    await turns_of_the_loop()
    step.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "disk full" in caplog.text


async def test_a_step_that_is_cancelled_itself_ends_the_wait() -> None:
    async def step() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(to_the_end(step()), 5)


async def test_a_timeout_around_it_waits_and_is_still_a_timeout() -> None:
    step = Step()

    async def caller() -> str:
        async with asyncio.timeout(0):
            return await to_the_end(step())

    task = await running(caller(), step)
    await turns_of_the_loop(20)
    assert not task.done()
    step.go.set()
    with pytest.raises(TimeoutError):
        await task
    assert step.ended


async def test_a_task_group_that_breaks_waits_for_the_step() -> None:
    step = Step()

    async def breaks() -> None:
        await step.begun.wait()
        raise RuntimeError("sibling")

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(to_the_end(step()))
            tasks.create_task(breaks())

    task = asyncio.create_task(group())
    await step.begun.wait()
    await turns_of_the_loop(20)
    assert not task.done()
    step.go.set()
    with pytest.raises(ExceptionGroup) as caught:
        await task
    assert step.ended
    assert [str(error) for error in caught.value.exceptions] == ["sibling"]


async def test_in_a_finally_it_runs_between_the_work_and_the_cancellation() -> None:
    step, order = Step(), list[str]()

    async def turn() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            order.append(await to_the_end(step()))
        return ""

    task = asyncio.create_task(turn())
    await turns_of_the_loop()
    task.cancel()
    await step.begun.wait()
    step.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["closed"]


# ---------------------------------------------------------------- TaskSet


async def test_a_task_is_held_until_it_is_done() -> None:
    tasks, go = TaskSet(), asyncio.Event()
    task = tasks.spawn(go.wait(), name="waits")
    assert task.get_name() == "waits" and len(tasks) == 1
    go.set()
    assert await tasks.settle(5)
    assert task.done() and len(tasks) == 0


async def test_a_failure_is_logged_once_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("why")

    tasks = TaskSet()
    tasks.spawn(fails(), name="mark")
    assert await tasks.settle(5)
    (record,) = caplog.records
    assert "mark" in record.getMessage() and "why" in caplog.text


async def test_settling_gives_up_after_its_time_and_harms_nobody() -> None:
    tasks, go = TaskSet(), asyncio.Event()
    task = tasks.spawn(go.wait())
    assert not await tasks.settle(0)
    assert not await tasks.settle(0.01)
    assert not task.done() and len(tasks) == 1
    go.set()
    assert await tasks.settle(5)


async def test_settling_nothing_is_done_at_once() -> None:
    assert await TaskSet().settle(0)


async def test_settling_waits_for_what_the_tasks_spawn() -> None:
    tasks, seen = TaskSet(), list[int]()

    async def chain(left: int) -> None:
        await asyncio.sleep(0)
        seen.append(left)
        if left:
            tasks.spawn(chain(left - 1))

    tasks.spawn(chain(3))
    assert await tasks.settle(5)
    assert seen == [3, 2, 1, 0]


async def test_cancelling_waits_until_every_one_has_cleaned_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks, cleaned = TaskSet(), list[int]()

    async def works(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns_of_the_loop(number)
            cleaned.append(number)

    for number in range(4):
        tasks.spawn(works(number))
    await turns_of_the_loop()
    await tasks.cancel()
    assert sorted(cleaned) == [0, 1, 2, 3] and len(tasks) == 0
    assert not caplog.records, "a cancellation is no failure"
    await tasks.cancel()


async def test_cancelling_survives_one_that_fails_on_its_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def spiteful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("on the way out")

    tasks = TaskSet()
    tasks.spawn(spiteful())
    await turns_of_the_loop()
    await tasks.cancel()
    assert len(tasks) == 0 and "on the way out" in caplog.text


async def test_many_tasks_leave_nothing_behind() -> None:
    tasks = TaskSet()
    before = asyncio.all_tasks()
    for _ in range(500):
        tasks.spawn(turns_of_the_loop())
    assert await tasks.settle(30)
    await turns_of_the_loop()
    assert asyncio.all_tasks() == before
