"""What of a Markdown text is code for certain (CommonMark 0.31, GFM). Pure.

A platform's reader of Markdown is not documented: it may or may not follow fences inside
list items and quotes, end a list at a badly indented line, or let a code span reach into
the next line. So all readings are followed at once, and only what each of them takes for
code is code. Whoever escapes foreign text escapes the rest.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

LINE = re.compile(r"[^\n]*\n|[^\n]+")
"""Lines with their ends. Only a line feed ends one: U+2028 and the like do not."""

_MARKS = re.compile(
    r"((?:[ \t>]|[-*+][ \t]|\d{1,9}[.)][ \t])*+)(`{3,}+|~{3,}+)([^\n]*)",
)
_TICKS = re.compile(r"`+")
_MANY = 8
"""Readings of one place that are told apart."""


class Kind(Enum):
    CODE = "code"
    DOUBTFUL = "doubtful"
    """A code span of its line that another reading may tear apart."""
    PROSE = "prose"
    UNDECIDED = "undecided"
    """The end of a growing text, of which later characters decide whether it is code."""


@dataclass(frozen=True, slots=True)
class Fence:
    """An open fence: its marks, and the column where they stand."""

    marks: str
    column: int

    def closing(self, marked: Marked) -> bool:
        """Whether a line of marks may close the fence, wherever it stands."""
        alike = marked.marks[0] == self.marks[0] and len(marked.marks) >= len(self.marks)
        return alike and not marked.rest.strip()

    def left_by(self, line: str) -> bool:
        """Whether the line may end the list item that may hold the fence."""
        body = line.lstrip(" \t")
        return self.column >= 2 and bool(body.strip("\n")) and _indent(line) < self.column


@dataclass(frozen=True, slots=True)
class Marked:
    """A line that begins with a fence's marks: what stands before and behind them."""

    before: str
    marks: str
    rest: str

    @property
    def bare(self) -> bool:
        """Whether nothing before the marks speaks against a fence."""
        return len(self.before) <= 3 and not self.before.strip(" ")

    @property
    def opening(self) -> bool:
        """Whether what is behind the marks lets them open a fence."""
        return not (self.marks[0] == "`" and "`" in self.rest)


_Place = Fence | None
_LOST = Fence("", 0)
"""Too many readings to follow: nothing is certain any more."""

_HTML = Fence("<", 0)
"""A block that begins with a lone break, the only tag that escaping may leave, and ends at
a blank line."""

_BREAK = re.compile(r"[ \t>]*+(?:(?:[-*+]|\d{1,9}[.)])[ \t>]++)*+<br\s*/?>\s*\Z", re.IGNORECASE)

_TOP: frozenset[_Place] = frozenset({None})


def marked(line: str) -> Marked | None:
    """The line's fence marks, behind any list and quote markers."""
    if "```" not in line and "~~~" not in line:
        return None
    found = _MARKS.match(line)
    return Marked(found[1], found[2], found[3]) if found else None


def width(text: str) -> int:
    """Columns that a beginning of a line takes."""
    return len(text.expandtabs(4))


def _indent(line: str) -> int:
    return width(line[: len(line) - len(line.lstrip(" \t"))])


def parts(text: str, *, growing: bool = False) -> Iterator[tuple[Kind, str]]:
    """The text in pieces, in order; together they are the whole text. With `growing` a
    last line without its end is not complete, and its last piece is the one that the next
    characters belong to; an UNDECIDED piece is always the last."""
    places, torn = _TOP, False
    for line in LINE.findall(text):
        whole = not growing or line.endswith("\n")
        before, places = places, _below(places, line)
        if _sure(before) and not any(place and place.left_by(line) for place in before):
            yield Kind.CODE, line
        else:
            torn = yield from _inline(line, torn, whole)
        torn = torn or _HTML in places
        torn = torn and not _sure(places) and bool(line.strip(" \t\n"))


def _sure(places: frozenset[_Place]) -> bool:
    return places.isdisjoint((None, _LOST, _HTML))


def _below(places: frozenset[_Place], line: str) -> frozenset[_Place]:
    """Where the line below may stand, if this one may stand at `places`."""
    marks = marked(line)
    if marks is None and places == _TOP and "<" not in line:
        return places
    found = frozenset(place for above in places for place in _next(above, line, marks))
    return found if len(found) <= _MANY else frozenset({_LOST})


def _next(place: _Place, line: str, marks: Marked | None) -> Iterator[_Place]:
    if place is None:
        yield from _opened(marks)
        if _BREAK.match(line):
            yield _HTML
    elif place == _LOST:
        yield place
    elif place == _HTML:
        yield from _after_html(line)
    else:
        yield from _fenced(place, line, marks)


def _after_html(line: str) -> Iterator[_Place]:
    """Which white space makes a line blank is read in two ways."""
    if line.strip(" \t\n"):
        yield _HTML
    if not line.strip():
        yield None


def _fenced(fence: Fence, line: str, marks: Marked | None) -> Iterator[_Place]:
    if fence.left_by(line):  # or the item that holds it, if any, begins further left
        yield from _opened(marks)
        fence = Fence(fence.marks, _indent(line))
    closing = marks is not None and fence.closing(marks)
    if closing:
        yield None
    if not (closing and marks and marks.bare and not marks.rest.strip(" \t")):
        yield fence


def _opened(marks: Marked | None) -> Iterator[_Place]:
    if marks is None or not (marks.bare and marks.opening and "|" not in marks.rest):
        yield None  # with a bar it may be the head of a table
    if marks is not None:
        yield Fence(marks.marks, width(marks.before))


# ---------------------------------------------------------------- code spans


def _inline(line: str, torn: bool, whole: bool) -> Generator[tuple[Kind, str], None, bool]:
    """The pieces of a line outside fences. `torn`: a mark above in the paragraph may reach
    into this line; returns whether one may reach into the next."""
    runs = [found.span() for found in _TICKS.finditer(line)]
    partners = _partners(runs)
    index = at = 0
    while index < len(runs):
        start, partner = runs[index][0], partners[index]
        end = runs[partner][1] if partner else 0
        if not whole and not 0 < end < len(line):
            yield Kind.PROSE, line[at:start]
            yield Kind.UNDECIDED, line[start:]
            return torn
        torn = torn or not partner or line[start - 1 : start] == "\\"
        if partner:
            torn = torn or "|" in line[start:end] or line[runs[partner][0] - 1] == "\\"
            yield Kind.PROSE, line[at:start]
            yield Kind.DOUBTFUL if torn else Kind.CODE, line[start:end]
            at, index = end, partner
        index += 1
    yield Kind.PROSE, line[at:]
    return torn


def _partners(runs: Iterable[tuple[int, int]]) -> list[int]:
    """For each run of backticks the index of the next one as long, 0 if there is none."""
    last: dict[int, int] = {}
    found = []
    for index, (start, end) in reversed(list(enumerate(runs))):
        found.append(last.get(end - start, 0))
        last[end - start] = index
    return found[::-1]
