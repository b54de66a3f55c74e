"""The platform's pace as a value, and its keeping for one card."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.contract import Limits, Pace
from bot.rhythm import EARLY, STILL, Rhythm

seconds = st.floats(0.05, 5.0)


@st.composite
def paces(draw: st.DrawFn) -> Pace:
    first = draw(seconds)
    most = first * draw(st.floats(1.0, 20.0))
    return Pace(first, draw(st.floats(1.05, 2.0)), most, most * draw(st.floats(1.0, 4.0)))


def growth(pace: Pace) -> int:
    """How many gaps are narrower than the widest of a young reply."""
    return math.ceil(math.log(pace.most / pace.first, pace.factor))


@given(paces(), st.floats(0.0, 0.5), st.integers(1, 400))
def test_the_gaps_never_shrink_while_there_is_always_something_new(
    pace: Pace, latency: float, shows: int
) -> None:
    gap, age, gaps = 0.0, 0.0, []
    for _ in range(shows):
        gap = pace.after(gap, 0.0, age)
        gaps.append(gap)
        age += gap + latency
    assert gaps[0] == pace.first
    assert all(b >= a for a, b in itertools.pairwise(gaps))
    assert all(b <= a * pace.factor + 1e-9 for a, b in itertools.pairwise(gaps))
    assert max(gaps) <= pace.ceiling(age) <= pace.last


@given(paces(), st.lists(st.floats(0.0, 60.0), min_size=1, max_size=300))
def test_whatever_the_pauses_the_shows_are_as_few(pace: Pace, pauses: list[float]) -> None:
    """A pause may be followed by narrow gaps only as far as it has saved shows."""
    gap, age = 0.0, 0.0
    for shown, idle in enumerate(pauses, start=1):
        gap = pace.after(gap, idle if gap else 0.0, age)
        assert pace.first <= gap <= pace.ceiling(age)
        assert shown <= age / pace.most + growth(pace) + 2
        age += gap + idle


@pytest.mark.parametrize(
    ("pace", "minute", "ten"),
    [(Pace(0.4, 1.25, 3.5, 10.0), 24, 85), (Pace(1.0, 1.6, 20.0, 20.0), 8, 35)],
)
def test_the_shows_of_a_minute_and_of_ten(pace: Pace, minute: int, ten: int) -> None:
    def shows(until: float) -> int:
        age = gap = 0.0
        for number in itertools.count(1):
            gap = pace.after(gap, 0.0, age)
            age += gap
            if age > until:
                return number
        raise AssertionError

    assert (shows(60.0), shows(600.0)) == (minute, ten)


def test_after_a_minute_the_ceiling_rises_slowly_and_not_for_ever() -> None:
    pace = Pace(0.4, 1.25, 3.5, 10.0)
    ceilings = [pace.ceiling(age) for age in (0.0, 60.0, 120.0, 3600.0)]
    assert ceilings == [3.5, 3.5, 7.0, 10.0]
    assert Pace(2.0).ceiling(3600.0) == 2.0, "a pace that does not grow"
    assert Pace(5.0, 1.25, 3.5, 10.0).ceiling(0.0) == 5.0, "never below the operator's own"


def test_the_first_text_waits_for_no_gap_of_lines_or_thoughts() -> None:
    pace, rhythm = Pace(1.0, 2.0, 8.0, 8.0), Rhythm()
    assert rhythm.due("thoughts", pace, 0.0) == float("-inf"), "the first ones come at once"
    for now in (10.0, 20.0, 30.0):
        rhythm.tried("thoughts", pace, 0.0, 0.0, now)
    assert rhythm.due("thoughts", pace, 0.0) == 38.0
    assert rhythm.due("line", pace, 0.0) == 34.0
    assert rhythm.due("first", pace, 0.0) == 31.0
    rhythm.tried("first", pace, 0.0, 0.0, 31.0)
    assert rhythm.due("text", pace, 0.0) == 32.0
    rhythm.tried("text", pace, 0.0, 0.0, 32.0)
    assert rhythm.due("text", pace, 0.0) == 34.0


def test_a_text_comes_early_when_the_client_has_nothing_left_to_type() -> None:
    pace, rhythm = Pace(0.4, 2.0, 4.0, 8.0), Rhythm(shown_at=10.0, text_gap=3.0)
    untyped, typed = Limits(pace, 1000), Limits(pace, 1000, typed_until=10.5)
    assert rhythm.needed("text", untyped, 0.0) == rhythm.due("text", pace, 0.0) == 13.0
    assert rhythm.needed("text", typed, 0.0) == 10.5 + STILL
    assert rhythm.needed("thoughts", typed, 0.0) == 14.0
    assert rhythm.needed("text", Limits(pace, 1000, typed_until=20.0), 0.0) == 13.0
    assert rhythm.needed("text", Limits(pace, 1000, typed_until=0.0), 0.0) == 10.4
    rhythm.tried("text", pace, 0.0, 0.0, 10.5 + STILL)
    assert (rhythm.early, rhythm.text_gap) == (1, 3.0), "it is no reason for wider gaps"


@given(paces(), st.floats(0.0, 600.0))
def test_few_texts_come_early(pace: Pace, length: float) -> None:
    """Even when the client always stands still the even gaps have the last word."""
    rhythm, now = Rhythm(shown_at=0.0, text_gap=pace.first), 0.0
    limits = Limits(pace, 1000, typed_until=float("-inf"))
    shows = 0
    while now < length:
        now = rhythm.needed("text", limits, now)
        rhythm.tried("text", pace, now, 0.0, now)
        shows += 1
    most = EARLY * max(1.0, length / pace.steady) + 1
    assert rhythm.early <= most
    assert shows - rhythm.early <= growth(pace) + length / pace.first + 1
