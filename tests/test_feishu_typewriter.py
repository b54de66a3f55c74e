"""What a person sees of a typed card, and the speed that a card is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.feishu.speed import Gauge, Tempo, typewriter
from adapters.playground.feishu.typewriter import (
    Frame,
    longest_stall,
    longest_stall_over,
    visible,
)

E = "answer_md"
TENTH: dict[str, Any] = {"print_frequency_ms": {"default": 100}, "print_step": {"default": 2}}


def frame(at: float, text: str, *, typed: bool = True, **config: Any) -> Frame:
    return Frame(at, {E: text}, typed, {**TENTH, **config})


# ---------------------------------------------------------------- the render model


def test_a_continued_text_is_typed_step_by_step() -> None:
    frames = [frame(0.0, "", typed=False), frame(1.0, "abcde")]
    seen = [visible(frames, E, now) for now in (0.5, 1.0, 1.05, 1.1, 1.25, 1.3, 9.0)]
    assert seen == ["", "", "", "ab", "abcd", "abcde", "abcde"]


def test_without_a_config_the_client_types_fourteen_characters_a_second() -> None:
    frames = [Frame(0.0, {E: "x" * 100}, True)]
    assert len(visible(frames, E, 1.0)) == 14


@pytest.mark.parametrize(("strategy", "at_once"), [("fast", "abcdef"), ("delay", "ab")])
def test_a_new_text_shows_what_was_left_or_types_on(strategy: str, at_once: str) -> None:
    frames = [
        frame(0.0, "abcdef", print_strategy=strategy),
        frame(0.15, "abcdefgh", print_strategy=strategy),
    ]
    assert visible(frames, E, 0.1) == "ab"
    assert visible(frames, E, 0.15) == at_once


def test_another_text_and_another_card_appear_at_once() -> None:
    frames = [frame(0.0, "abc"), frame(1.0, "xyz")]
    assert visible(frames, E, 1.0) == "xyz"
    frames.append(frame(2.0, "xyz and all", typed=False))
    assert visible(frames, E, 2.0) == "xyz and all"


def test_a_stall_counts_only_while_there_is_something_to_see() -> None:
    """Typed by 1.2; more was written at 3.0 and sent at 3.5: half a second, and the first
    print after it. The three seconds before were the model's own."""
    frames = [frame(1.0, "abcd"), frame(3.5, "abcdef")]
    assert longest_stall(frames, E, [(0.9, 4), (3.0, 6)]) == pytest.approx(0.6)


def test_a_stall_begins_when_the_last_letter_was_typed() -> None:
    frames = [frame(0.0, "abcd"), frame(2.0, "abcdef")]
    assert longest_stall(frames, E, [(0.0, 4), (0.1, 6)]) == pytest.approx(1.9)


def test_the_wait_for_the_first_letter_counts() -> None:
    frames = [frame(0.0, "", typed=False), frame(2.0, "ab", typed=False)]
    assert longest_stall(frames, E, [(0.5, 2)]) == pytest.approx(1.5)


def test_a_card_that_is_still_typed_covers_for_the_next_one() -> None:
    """ab at 0.1, cd at 0.2, and the second card's text only at 1.5, typed by 1.6."""
    cards = [[frame(0.0, "abcd")], [frame(1.0, "", typed=False), frame(1.5, "ef")]]
    assert longest_stall_over(cards, E, [(0.0, 6)]) == pytest.approx(1.4)


# ---------------------------------------------------------------- the speed that is told


@given(st.floats(0.0, 5000.0))
def test_a_typewriter_is_a_little_slower_than_the_model(model: float) -> None:
    told = typewriter(model)
    assert told.step >= 1 and told.every_ms >= 40
    within = min(max(model, 2.5), 400.0)
    assert 0.75 * within <= told.speed <= 0.85 * within
    assert told.suits(within)
    assert not told.suits(within * 3) and not told.suits(within / 2)


def test_a_gauge_measures_what_was_shown_and_forgets_what_is_old() -> None:
    gauge = Gauge()
    for now in range(3):
        assert gauge.speed is None
        gauge.take(float(now), now * 30)
    assert gauge.speed == pytest.approx(30.0)
    assert gauge.cautious == pytest.approx(20.0), "as if it paused a second"
    for now in range(3, 40):
        gauge.take(float(now), 90 + (now - 3) * 60)
    assert gauge.speed == pytest.approx(60.0)


def test_a_gauge_tells_at_once_that_a_model_has_become_slower() -> None:
    gauge = Gauge()
    for now in range(6):
        gauge.take(now * 2.0, now * 160)
    assert gauge.lately == gauge.speed == pytest.approx(80.0) and not gauge.falling
    gauge.take(12.0, 820)
    assert gauge.lately == pytest.approx(10.0) and gauge.falling
    gauge.take(14.0, 840)
    assert gauge.lately == pytest.approx(10.0) and not gauge.falling
    assert gauge.speed is not None and gauge.speed > 30.0
    gauge.take(16.0, 1000)
    assert gauge.lately == gauge.speed, "faster is believed when all of it says so"


def test_a_pause_or_a_new_beginning_is_no_slowness() -> None:
    gauge = Gauge()
    for now in (0.0, 1.0, 2.0, 3.0):
        gauge.take(now, int(now * 40))
    gauge.take(60.0, 121)
    assert gauge.speed is None
    gauge.take(62.0, 201)
    assert gauge.speed == pytest.approx(40.0)
    gauge.take(63.0, 5)
    assert gauge.speed is None


def test_a_bot_learns_its_models_speed_from_card_to_card() -> None:
    tempo = Tempo()
    guess = tempo.speed
    tempo.learn(100.0)
    assert guess < tempo.speed == 100.0
    tempo.learn(50.0)
    assert 50.0 < tempo.speed < 100.0
