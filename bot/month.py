"""The month as it is billed: its name, its length, what it will have cost, and how near its
end of calls is (design.md 6; needs.md 25). Pure."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import Literal

BEIJING = timezone(timedelta(hours=8))
"""Days and months of a bill begin at midnight in Beijing, where prices and quotas are set."""

FLOOR = 86_400.0
"""Seconds of a month that must have gone before its pace is believed: a busy first hour is
no busy month."""

Level = Literal["", "save", "spent"]
"""How far a month is used up: `save` from 80 %, `spent` from 100 %."""

Mode = Literal["auto", "always", "never"]
"""When to save: from 80 % on, at any time, or not before the cap is reached: at its end
answers are plain, or refused, whatever was chosen."""

LEVELS: tuple[Level, ...] = ("", "save", "spent")


def month_of(at: float) -> str:
    """YYYY-MM of a moment in seconds since the epoch. Whole seconds, because a moment just
    before midnight would be rounded into the next month."""
    return datetime.fromtimestamp(math.floor(at), BEIJING).strftime("%Y-%m")


def bounds(month: str) -> tuple[float, float]:
    """When the month begins and when the next one does, in seconds since the epoch."""
    year, number = map(int, month.split("-"))
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    begin = datetime(year, number, 1, tzinfo=BEIJING)
    return begin.timestamp(), datetime(*following, 1, tzinfo=BEIJING).timestamp()


def forecast(used: int, at: float) -> int:
    """How much will have been used when the month ends, at the pace it has had until `at`;
    never less than `used`."""
    begin, end = bounds(month_of(at))
    gone = max(at - begin, FLOOR)
    return max(used, round(used * (end - begin) / gone))


def level_of(used: int, cap: int) -> Level:
    """`cap` 0 is no cap."""
    if cap <= 0 or used * 5 < cap * 4:
        return ""
    return "spent" if used >= cap else "save"


def worst(levels: list[Level]) -> Level:
    return max(levels, key=LEVELS.index, default="")
