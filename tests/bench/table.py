"""The figures of one run: their arithmetic, the table, the file that later runs compare
with. Pure, but for reading and writing that file."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1


def at(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of them lie (nearest rank); None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. `ratio` is native to the floor, or to what `base` names. `most` is what
    `ratio` (when there is one), else `native`, should not exceed; None for no target."""

    key: str
    unit: str
    native: float | None
    sdk: float | None = None
    floor: float | None = None
    most: float | None = None
    base: str = "floor"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return ratio(self.native, self.floor)

    @property
    def met(self) -> bool | None:
        judged = self.native if self.floor is None else self.ratio
        return None if self.most is None or judged is None else judged <= self.most

    def change(self, before: float | None) -> float | None:
        """Share by which native differs from an earlier run's, 0.1 for a tenth more."""
        found = ratio(self.native, before)
        return None if found is None else found - 1.0


def as_json(figures: Iterable[Figure], about: Mapping[str, Any]) -> str:
    rows = {
        figure.key: {
            "unit": figure.unit,
            "native": figure.native,
            "sdk": figure.sdk,
            "floor": figure.floor,
            "ratio": figure.ratio,
            "most": figure.most,
        }
        for figure in figures
    }
    return json.dumps({"format": FORMAT, **about, "figures": rows}, ensure_ascii=False, indent=1)


def read(path: Path) -> dict[str, float]:
    """The native figures of an earlier run by key; empty when there is none to read."""
    try:
        value = json.loads(path.read_text())
        rows = value["figures"] if value["format"] == FORMAT else {}
        known = {key: row["native"] for key, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {key: float(native) for key, native in known.items() if native is not None}


HEAD = ("", "unit", "native", "sdk", "floor", "ratio", "target", "", "last", "change")


def render(figures: Sequence[Figure], earlier: Mapping[str, float]) -> str:
    """The table. A figure over its target is marked, and that is all that happens to it."""
    rows = [HEAD, *(_row(figure, earlier.get(figure.key)) for figure in figures)]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            _padded(cell, width, left=number in (0, 1))
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(figure: Figure, before: float | None) -> tuple[str, ...]:
    change = figure.change(before)
    target = "" if figure.most is None else f"<= {_number(figure.most)}"
    if target and figure.floor is not None:
        target += "x"
    mark = {None: "", True: "ok", False: "over"}[figure.met]
    base = "" if figure.base == "floor" else f" ({figure.base})"
    return (
        f"{figure.key}{base}",
        figure.unit,
        _number(figure.native),
        _number(figure.sdk),
        _number(figure.floor),
        "" if figure.ratio is None else f"{figure.ratio:.2f}x",
        target,
        mark,
        _number(before),
        "" if change is None else f"{change:+.0%}",
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def _width(text: str) -> int:
    """Columns of a terminal; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _padded(text: str, width: int, *, left: bool) -> str:
    room = " " * (width - _width(text))
    return text + room if left else room + text
