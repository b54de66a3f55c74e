"""One seed's story: played, checked, told."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import checks
from checks import Truth
from house import House
from looping import Stuck
from machine import Machine
from plan import Plan
from town import Town

from bot.contract import Turn
from bot.late import named_in

EXPECTED = ("final cannot be delivered", "store refused", "incident: ")
"""Errors in the log that the faults force."""


@dataclass
class Story:
    """`wrong`: a sentence about each thing that must not be. `lines`: what happened."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0


def tell(plan: Plan) -> Story:
    """In one thread, hours in seconds."""
    random.seed(plan.seed)
    folder = Path(tempfile.mkdtemp(prefix="queqiao-fuzz-"))
    house, story = House(plan, folder / "data"), Story(plan)
    ears = Ears(house)
    try:
        work = house.world.create_task(_play_house(house, story))
        house.loops.run(work.done)
        work.result()
    except Stuck as error:
        house.blame(f"stuck: {error}; {house.unrest()}")
    finally:
        ears.close()
        shutil.rmtree(folder, ignore_errors=True)
    return _ended(house, story)


def tell_real(plan: Plan) -> Story:
    """In real time, with a process that is killed."""
    folder = Path(tempfile.mkdtemp(prefix="queqiao-fuzz-"))
    story = Story(plan)
    try:
        return _ended(asyncio.run(_play_machine(story, folder)), story)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ended(town: Town, story: Story) -> Story:
    story.wrong += town.wrong
    story.seconds = town.time
    story.lines = list(_lines(town)) + story.lines
    return story


# ---------------------------------------------------------------- acts


async def _play_house(house: House, story: Story) -> None:
    await house.open()
    await house.play()
    truth = await _checked(house, story)
    if not story.wrong and not house.wrong:
        await _send_again(house, truth)
        await house.stop()
        house.start()
        await house.rest()
        truth = await _checked(house, story, "after a re-send and a restart: ")
        stuck = [turn for turn in truth.turns.values() if _stuck(house, truth, turn)]
        story.wrong += [f"sent again in vain: {checks.label_of(turn)}" for turn in stuck]
    await house.close()


async def _play_machine(story: Story, folder: Path) -> Machine:
    machine = Machine(story.plan, folder / "data")
    await machine.open()
    try:
        await machine.play()
        await _checked(machine, story)
    finally:
        await machine.close()
    return machine


async def _checked(town: Town, story: Story, when: str = "") -> Truth:
    truth = await checks.truth_of(town)
    story.wrong += [f"{when}{words}" for words in checks.check(truth)]
    story.lines = ["", "What became of each message:", *checks.fates(truth)]
    return truth


async def _send_again(house: House, truth: Truth) -> None:
    """The operator's action for what was not delivered."""
    for turn in truth.turns.values():
        if _stuck(house, truth, turn):
            said = await house.on_bot(lambda app, id_=turn.id: app.office.resend(id_))
            house.tell(f"* the operator sends {turn.id[:8]} again: {said}")


def _stuck(house: House, truth: Truth, turn: Turn) -> bool:
    """Undelivered, and not because a question was taken back."""
    ending = turn.ending
    if ending is None or ending.delivery != "undelivered":
        return False
    asked = [turn, *(truth.turns[id_] for id_ in named_in(turn) if id_ in truth.turns)]
    return not any(one.new.message_id in house.recalled for one in asked)


# ---------------------------------------------------------------- what is told


class Ears(logging.Handler):
    """What the bot logs goes into the trace; an error that nobody expects is wrong."""

    def __init__(self, town: Town) -> None:
        super().__init__(logging.WARNING)
        self._town = town
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words += f" ({record.exc_info[1]!r})"
        self._town.tell(f"  {record.levelname.lower()} {record.name}: {words}")
        hung_up = record.name == "aiohttp.server" and "closing transport" in words
        if record.levelno >= logging.ERROR and not hung_up and not words.startswith(EXPECTED):
            self._town.blame(f"logged: {words}")

    def close(self) -> None:
        logging.getLogger().removeHandler(self)
        super().close()


def _lines(town: Town) -> Iterator[str]:
    calls = [(at, f"  → {name} {_call(call)}") for at, name, call in town.calls]
    for at, words in sorted([*town.trace, *calls], key=lambda line: line[0]):
        yield f"{at:10.3f} {words}"


def _call(call: object) -> str:
    status, code = getattr(call, "status", 0), getattr(call, "code", "")
    answer = f"{status or 'no answer'}" + (f" {code}" if code else "")
    return f"{getattr(call, 'route', '')}: {answer}"
