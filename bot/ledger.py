"""What an answer cost: dated prices and peak hours. Pure.

Source: reference/models.md 1.10, the price pages of 2026-11-15 in both currencies. The tier
is that of the moment of the request; whether the service looks at its beginning or its
end is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

from bot.contract import Usage

BEIJING = timezone(timedelta(hours=8))
PEAK_FACTOR = 2.0
PEAK_HOURS = ((9, 12), (14, 18))
"""Beijing hours, first inclusive, last exclusive, Monday to Friday."""


@dataclass(frozen=True, slots=True)
class Price:
    """Off-peak, per million tokens, from `since` (Beijing date) on."""

    since: date
    cached: float
    fresh: float
    output: float


_FROM = date(2026, 11, 15)

PRICES: dict[tuple[str, str], tuple[Price, ...]] = {
    ("deepseek-flash", "CNY"): (Price(_FROM, 0.02, 1.0, 4.0),),
    ("deepseek-flash", "USD"): (Price(_FROM, 0.003, 0.15, 0.60),),
    ("deepseek-v4-pro", "CNY"): (Price(_FROM, 0.15, 4.5, 13.5),),
    ("deepseek-v4-pro", "USD"): (Price(_FROM, 0.022, 0.66, 1.98),),
}
"""Oldest first. A moment before the first date is charged at the first price."""

BILLED_AS = {
    "deepseek-v4-flash": "deepseek-flash",
    "deepseek-v4-flash-vision-exp": "deepseek-flash",
    "deepseek-chat": "deepseek-flash",
    "deepseek-reasoner": "deepseek-flash",
}
"""Other names under which a model is asked for (reference/models.md 1.2)."""


def _days(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


HOLIDAYS = frozenset(
    day
    for first, last in (
        (date(2026, 1, 1), date(2026, 1, 3)),
        (date(2026, 2, 15), date(2026, 2, 23)),
        (date(2026, 4, 4), date(2026, 4, 6)),
        (date(2026, 5, 1), date(2026, 5, 5)),
        (date(2026, 6, 19), date(2026, 6, 21)),
        (date(2026, 9, 25), date(2026, 9, 27)),
        (date(2026, 10, 1), date(2026, 10, 7)),
    )
    for day in _days(first, last)
)
"""Chinese public holidays, off-peak all day. A year that is not listed has none, so its
holidays are charged as work days: never too little."""


def priced(model: str) -> bool:
    """Whether the cost of this model is known; a cost of an unpriced model is 0."""
    return (BILLED_AS.get(model, model), "CNY") in PRICES


def cost(model: str, usage: Usage, at: float, currency: str = "CNY") -> float:
    """Money for `usage` of a request at `at` (seconds since the epoch), in CNY or USD;
    0.0 when the price is not known."""
    prices = PRICES.get((BILLED_AS.get(model, model), currency))
    if prices is None:
        return 0.0
    moment = datetime.fromtimestamp(at, UTC).astimezone(BEIJING)
    price = _valid(prices, moment.date())
    cached = min(usage.cached, usage.prompt)
    fresh = usage.prompt - cached
    money = cached * price.cached + fresh * price.fresh + usage.completion * price.output
    return money / 1_000_000 * (PEAK_FACTOR if is_peak(at) else 1.0)


def is_peak(at: float) -> bool:
    """Whether `at` (seconds since the epoch) is charged twice."""
    moment = datetime.fromtimestamp(at, UTC).astimezone(BEIJING)
    if moment.weekday() >= 5 or moment.date() in HOLIDAYS:
        return False
    return any(first <= moment.hour < last for first, last in PEAK_HOURS)


def _valid(prices: tuple[Price, ...], day: date) -> Price:
    return next((price for price in reversed(prices) if price.since <= day), prices[0])
