"""bot/ledger.py: dated prices, peak hours, the split of a prompt."""

from __future__ import annotations

from datetime import datetime

import pytest

from bot.contract import Usage
from bot.ledger import BEIJING, PRICES, Price, _valid, cost, is_peak, priced

MILLION = 1_000_000
NIGHT = datetime(2026, 11, 24, 22, 0, tzinfo=BEIJING).timestamp()
NOON_RUSH = datetime(2026, 11, 24, 10, 0, tzinfo=BEIJING).timestamp()


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=BEIJING).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usage", "yuan"),
    [
        (Usage(prompt=MILLION), 1.0),
        (Usage(prompt=MILLION, cached=MILLION), 0.02),
        (Usage(prompt=MILLION, cached=500_000), 0.51),
        (Usage(completion=MILLION), 4.0),
        (Usage(completion=MILLION, reasoning=MILLION), 4.0),
        (Usage(), 0.0),
    ],
)
def test_flash_off_peak(usage: Usage, yuan: float):
    assert cost("deepseek-flash", usage, NIGHT) == pytest.approx(yuan)


def test_pro_and_dollars():
    usage = Usage(prompt=2 * MILLION, cached=MILLION, completion=MILLION)
    assert cost("deepseek-v4-pro", usage, NIGHT) == pytest.approx(0.15 + 4.5 + 13.5)
    assert cost("deepseek-v4-pro", usage, NIGHT, "USD") == pytest.approx(0.022 + 0.66 + 1.98)


def test_peak_costs_double():
    usage = Usage(prompt=100, cached=40, completion=9)
    assert cost("deepseek-flash", usage, NOON_RUSH) == pytest.approx(
        2 * cost("deepseek-flash", usage, NIGHT)
    )


@pytest.mark.parametrize(
    ("moment", "peak"),
    [
        (at(2026, 11, 24, 8, 59, 59), False),
        (at(2026, 11, 24, 9, 0), True),
        (at(2026, 11, 24, 11, 59, 59), True),
        (at(2026, 11, 24, 12, 0), False),
        (at(2026, 11, 24, 13, 59, 59), False),
        (at(2026, 11, 24, 14, 0), True),
        (at(2026, 11, 24, 17, 59, 59), True),
        (at(2026, 11, 24, 18, 0), False),
        (at(2026, 11, 28, 10, 0), False),
        (at(2026, 11, 29, 15, 0), False),
        (at(2026, 10, 1, 10, 0), False),
        (at(2026, 10, 7, 10, 0), False),
        (at(2026, 10, 8, 10, 0), True),
    ],
)
def test_peak_hours(moment: float, peak: bool):
    assert is_peak(moment) is peak


def test_more_cached_than_prompt_never_costs_less_than_nothing():
    assert cost("deepseek-flash", Usage(prompt=10, cached=MILLION), NIGHT) >= 0


def test_other_names_of_flash_cost_the_same():
    usage = Usage(prompt=MILLION)
    for name in ("deepseek-v4-flash", "deepseek-v4-flash-vision-exp", "deepseek-chat"):
        assert priced(name)
        assert cost(name, usage, NIGHT) == pytest.approx(1.0)


def test_what_has_no_price_costs_nothing():
    assert not priced("qwen3:8b")
    assert cost("qwen3:8b", Usage(prompt=MILLION), NIGHT) == 0.0
    assert cost("deepseek-flash", Usage(prompt=MILLION), NIGHT, "EUR") == 0.0


def test_prices_are_chosen_by_date():
    day = datetime(2026, 11, 15).date()
    later = datetime(2027, 3, 1).date()
    old, new = Price(day, 1, 1, 1), Price(later, 2, 2, 2)
    assert _valid((old, new), datetime(2027, 2, 28).date()) is old
    assert _valid((old, new), later) is new
    assert _valid((old, new), datetime(2025, 1, 1).date()) is old


def test_every_list_of_prices_is_in_order():
    for prices in PRICES.values():
        assert list(prices) == sorted(prices, key=lambda price: price.since)
