"""One seed's story: played, checked, told."""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import checks
from house import House
from looping import Stuck
from plan import Plan

EXPECTED = (
    "final cannot be delivered",
    "store refused",
)
"""Errors in the log that the faults force."""


@dataclass
class Story:
    """`wrong`: a sentence about each thing that must not be. `lines`: what happened."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Ears(logging.Handler):
    """What the bot logs goes into the trace; an error that nobody expects is wrong."""

    def __init__(self, house: House) -> None:
        super().__init__(logging.INFO)
        self._house = house

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words += f" ({record.exc_info[1]!r})"
        if record.levelno >= logging.WARNING:
            self._house.tell(f"  {record.levelname.lower()} {record.name}: {words}")
        hung_up = record.name == "aiohttp.server" and "closing transport" in words
        if record.levelno >= logging.ERROR and not hung_up and not words.startswith(EXPECTED):
            self._house.blame(f"logged: {words}")


def tell(plan: Plan) -> Story:
    random.seed(plan.seed)
    folder = Path(tempfile.mkdtemp(prefix="queqiao-fuzz-"))
    house, story = House(plan, folder / "data"), Story(plan)
    ears = Ears(house)
    root = logging.getLogger()
    root.addHandler(ears)
    root.setLevel(logging.INFO)
    try:
        work = house.world.create_task(_play(house, story))
        house.loops.run(work.done)
        work.result()
    except Stuck as error:
        house.blame(f"stuck: {error}; {house.unrest()}")
    finally:
        root.removeHandler(ears)
        shutil.rmtree(folder, ignore_errors=True)
    story.wrong += house.wrong
    story.seconds = house.time
    story.lines = list(_lines(house)) + story.lines
    return story


async def _play(house: House, story: Story) -> None:
    await house.open()
    await house.play()
    truth = await checks.truth_of(house)
    story.wrong += checks.check(truth)
    story.lines += ["", "What became of each message:", *checks.fates(truth)]
    if not story.wrong and not house.wrong:
        await _afterwards(house, story)
    await house.close()


async def _afterwards(house: House, story: Story) -> None:
    """What was not delivered can be sent again now, and a restart changes nothing."""
    for turn_id in [
        t.id for t in (await checks.truth_of(house)).turns.values() if _stuck(house, t)
    ]:
        said = await house.on_bot(lambda app, turn_id=turn_id: app.office.resend(turn_id))
        house.tell(f"* the operator sends {turn_id[:8]} again: {said}")
    await house.stop()
    house.start()
    await house.rest()
    truth = await checks.truth_of(house)
    story.wrong += [f"after a restart: {words}" for words in checks.check(truth)]
    story.wrong += [
        f"after a re-send: {checks.label_of(t)} is undelivered"
        for t in truth.turns.values()
        if _stuck(house, t)
    ]


def _stuck(house: House, turn: checks.Turn) -> bool:
    """Undelivered for no good reason: a question that was recalled needs no answer."""
    if turn.new.message_id in house.recalled:
        return False
    return turn.ending is not None and turn.ending.delivery == "undelivered"


def _lines(house: House) -> Iterator[str]:
    calls = [(at, f"  → {name} {_call(call)}") for at, name, call in house.calls]
    for at, words in sorted([*house.trace, *calls], key=lambda line: line[0]):
        yield f"{at:10.3f} {words}"


def _call(call: object) -> str:
    status = getattr(call, "status", 0)
    code = getattr(call, "code", "")
    answer = f"{status or 'no answer'}" + (f" {code}" if code else "")
    return f"{getattr(call, 'route', '')}: {answer}"
