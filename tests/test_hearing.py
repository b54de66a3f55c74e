"""adapters/hearing.py: from when on a connection is not believed any more."""

from __future__ import annotations

import math
import random

import pytest

from adapters.hearing import ACTIVE, IDLE, QUIET, Hearing

NEVER = -math.inf


def test_a_fresh_connection_is_believed_for_half_an_hour() -> None:
    assert Hearing(100.0).doubt(NEVER) == (100.0 + IDLE, "quiet")
    assert IDLE <= 1800


def test_a_link_in_use_is_doubted_within_two_minutes() -> None:
    hearing = Hearing(0.0)
    hearing.event(50.0)
    assert hearing.doubt(50.0) == (50.0 + QUIET, "quiet")
    assert 90 <= QUIET <= 105


def test_the_chat_counts_as_in_use_for_ten_minutes_on_whatever_connection() -> None:
    assert ACTIVE == 600
    last_event = 1_000.0
    edge = last_event + ACTIVE - QUIET
    assert Hearing(edge).doubt(last_event) == (edge + QUIET, "quiet")
    assert Hearing(edge + 1).doubt(last_event) == (edge + 1 + IDLE, "quiet")


def test_a_sign_of_the_server_calms_a_link_in_use_but_not_for_ever() -> None:
    hearing = Hearing(0.0)
    for now in range(0, 1_775, 25):
        hearing.sign(float(now))
    assert hearing.doubt(1_500.0) == (IDLE, "quiet"), "half an hour without an event"
    assert hearing.doubt(NEVER) == (IDLE, "quiet")


def test_signs_that_stop_mean_deafness() -> None:
    hearing = Hearing(0.0)
    hearing.sign(30.0, 90.0)
    assert hearing.doubt(NEVER) == (120.0, "deaf")
    hearing.event(100.0)
    assert hearing.doubt(NEVER) == (190.0, "deaf"), "an event is as good"
    hearing.sign(180.0, 90.0)
    assert hearing.doubt(NEVER) == (270.0, "deaf")


def test_a_question_wants_its_answer() -> None:
    hearing = Hearing(0.0)
    hearing.expect(30.0)
    hearing.expect(130.0)
    assert hearing.doubt(NEVER) == (30.0, "deaf"), "the first one counts"
    hearing.answered()
    assert hearing.doubt(NEVER) == (IDLE, "quiet"), "and is no proof of hearing"
    hearing.expect(230.0)
    hearing.event(201.0)
    assert hearing.doubt(NEVER) == (201.0 + IDLE, "quiet")


@pytest.mark.parametrize("seed", range(30))
def test_doubt_always_comes(seed: int) -> None:
    """Whatever happened: never later than half an hour after the last proof."""
    chance = random.Random(seed)
    now, hearing, last_event = 0.0, Hearing(0.0), NEVER
    for _ in range(200):
        now += chance.uniform(0, 300)
        step = chance.randrange(4)
        if step == 0:
            hearing.event(now)
            last_event = now
        elif step == 1:
            hearing.sign(now, chance.choice([math.inf, 90.0]))
        elif step == 2:
            hearing.expect(now + 30)
        else:
            hearing.answered()
        moment, reason = hearing.doubt(last_event)
        assert moment <= max(0.0, last_event) + IDLE
        assert reason in ("quiet", "deaf")
