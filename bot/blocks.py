"""What the lines of a Markdown text are: fences, list items, headings, rows of tables, as
far as cutting and closing must know it (CommonMark 0.31, GFM). Pure.

A line is always without its line end. Two leniencies on purpose: a fence inside a list
ends at its closing line only, also when a badly indented line would end the list; and two
rows are a table even when their columns do not agree, because a platform that counts
tables may not compare them either. Fences inside quotes end with their quote by
themselves and are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

_MARKER = re.compile(r"[ \t]*+(?:[-*+]|\d{1,9}[.)])(?:[ \t]{1,4}+(?![ \t])|(?=[ \t]|\Z))")
_FENCE = re.compile(
    r"([ \t]*+)((?:(?:[-*+]|\d{1,9}[.)])[ \t]{1,4}+)*+)(`{3,}+|~{3,}+)(.*)", re.DOTALL
)
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|\Z)")
_CELL = re.compile(r":?-+:?")


@dataclass(frozen=True, slots=True)
class Fence:
    """An open fence. `indent` is white space only; `inside` is the column where the list
    item that holds the fence has its text, 0 outside lists."""

    indent: str
    marks: str
    info: str
    inside: int

    @property
    def closing(self) -> str:
        return self.indent + self.marks

    def closed_by(self, line: str) -> bool:
        body = line.strip(" \t")
        if len(body) < len(self.marks) or body.strip(self.marks[0]):
            return False
        return _width(line[: line.index(body)]) <= self.inside + 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line stands: in an open fence, in a list item whose text begins at column
    `inside`, below a blank line (or at the top)."""

    fence: Fence | None = None
    inside: int = 0
    blank: bool = True

    def after(self, line: str) -> Place:
        """The place of the line below `line`."""
        if self.fence is not None:
            return Place(None, self.inside, False) if self.fence.closed_by(line) else self
        if not self.inside and line[:1].isalpha():
            return _PROSE
        if fence := self.opened_by(line):
            return Place(fence, fence.inside, False)
        if not line.strip():
            return self if self.blank else replace(self, blank=True)
        inside = self._inside(line)
        if self.blank or inside != self.inside:
            return Place(None, inside, False)
        return self

    def opened_by(self, line: str) -> Fence | None:
        """The fence that this line opens, if the place is not inside one already."""
        found = fence_like(line)
        if found is None or _width(found[1]) > self.inside + 3:
            return None
        if found[3][0] == "`" and "`" in found[4]:
            return None
        width = _width(found[1] + found[2])
        inside = width if found[2] else min(self.inside, width)
        return Fence(" " * width, found[3], found[4].rstrip(" \t"), inside)

    def _inside(self, line: str) -> int:
        width = _width(line[: len(line) - len(line.lstrip(" \t"))])
        marker = _MARKER.match(line)
        if marker and width <= self.inside + 3:
            return _width(marker[0]) + (0 if marker[0][-1] in " \t" else 1)
        if self.blank and width < self.inside:
            return width if width >= 2 else 0
        return self.inside


_PROSE = Place(blank=False)
"""Below a line that begins with a letter, outside fences and lists: most lines are such."""


def _width(text: str) -> int:
    return len(text.expandtabs(4))


def fence_like(line: str) -> re.Match[str] | None:
    """A line that begins like a fence (indent, list markers, marks, rest), whether or not
    what follows the marks lets it be one."""
    if "```" not in line and "~~~" not in line:
        return None
    return _FENCE.match(line)


def closing_room(line: str) -> int:
    """Bytes that closing the fence takes which this line opens; 0 if it opens none. A line
    that only begins like a fence counts: that is known before its end is."""
    found = fence_like(line)
    return 1 + _width(found[1] + found[2]) + len(found[3]) if found else 0


def is_heading(line: str) -> bool:
    return _HEADING.match(line) is not None


def is_row(line: str) -> bool:
    """Whether a line outside fences may be a row of a table."""
    return "|" in line and not is_heading(line) and fence_like(line) is None


def is_delimiter(line: str) -> bool:
    """Whether the line makes the row above it the header of a table."""
    body = line.strip(" \t>")
    if "-" not in body or body.strip("|:- \t") or not ("|" in body or ":" in body):
        return False
    cells = body.removeprefix("|").removesuffix("|").split("|")
    return all(_CELL.fullmatch(cell.strip(" \t")) for cell in cells)


class Kind(Enum):
    PROSE = "prose"
    FENCE = "fence"
    CODE = "code"
    HEADER = "header"
    DELIMITER = "delimiter"
    ROW = "row"


TABLE = frozenset({Kind.HEADER, Kind.DELIMITER, Kind.ROW})


def kinds(lines: list[str]) -> Iterator[tuple[Kind, str]]:
    """Each line with what it is; a fence's own two lines are FENCE."""
    place, above = Place(), Kind.PROSE
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        before, place = place, place.after(line)
        if before.fence is not None:
            above = Kind.CODE if place.fence is not None else Kind.FENCE
        elif place.fence is not None:
            above = Kind.FENCE
        else:
            above = _tabular(above, line, following)
        yield above, line


def _tabular(above: Kind, line: str, following: str) -> Kind:
    if above is Kind.HEADER:
        return Kind.DELIMITER
    if not is_row(line):
        return Kind.PROSE
    if above in TABLE:
        return Kind.ROW
    return Kind.HEADER if is_delimiter(following) else Kind.PROSE
