"""Long Markdown as parts that each fit into one card (need 13). Pure.

A part is filled line by line, and cut at the first character that does not fit any more.
Where it is cut depends only on the text up to that character: so a part that another one
follows never changes again, and growing text is cut like text that was there at once.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from bot.blocks import Place, closing_room, fence_like, is_delimiter, is_heading, is_row
from bot.breaks import break_in

BLOCK, LINE, HEADED, TORN = range(4)
"""Kinds of line beginnings to cut at, best first: where a block begins; any other; below a
heading, or before a blank line; where the first line of a fence or the header of a table
would lose what follows."""

LEAST_BYTES = 16
"""A smaller limit counts as this one: less has no room for a fence around one character."""


@dataclass(frozen=True, slots=True)
class Part:
    """The text from `start` to `end` (characters), with the Markdown that it needs before
    and behind to stand alone: a fence reopened and closed, the header of a table again."""

    start: int
    end: int
    opening: str = ""
    closing: str = ""


_TOP = Place()


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where one part ends and the next begins. `size`: bytes of the part up to here.
    `table`: the two header rows of the table that goes on; `in_row`: in the middle of a
    row of it."""

    at: int
    size: int = 0
    place: Place = _TOP
    table: str = ""
    in_row: bool = False

    def closing(self, text: str) -> str:
        if self.place.fence is None:
            return ""
        line_end = "" if text[self.at - 1] == "\n" else "\n"
        return line_end + self.place.fence.closing


class Cutter:
    """Cuts one growing text into parts of at most `max_bytes` bytes of UTF-8 each, and
    leaves room for complete() to close what is open in the last one. For cleaned text."""

    def __init__(self, max_bytes: int) -> None:
        self._limits = [(0, max_bytes)]
        self._starts = [_Cut(0)]
        self._sealed: list[Part] = []
        self._open = _Filling(self._starts[0], max_bytes)
        self._newest: tuple[str, list[Part]] = ("", [Part(0, 0)])

    def parts(self, text: str) -> list[Part]:
        """The parts of `text`, which begins with every text given before; at least one,
        and all but the last are final. Costs as much as what is new in the text."""
        while cut := self._open.overflow(text):
            start, opening = self._open.start, self._open.opening
            self._sealed.append(Part(start, cut.at, opening, cut.closing(text)))
            self._starts.append(cut)
            self._open = self._filling()
        last = Part(self._open.start, len(text), self._open.opening)
        self._newest = (text, [*self._sealed, last])
        return [*self._sealed, last]

    def size_of(self, index: int) -> int:
        """Bytes of the part as it was last cut. Raises IndexError when there is none."""
        text, parts = self._newest
        part = parts[index]
        return _bytes(f"{part.opening}{text[part.start : part.end]}{part.closing}")

    def shrink(self, index: int, size: int) -> None:
        """Part `index` was refused for its size: it and all later ones get at most `size`
        bytes from now on; those before it stay as they are."""
        self._limits.append((index, size))
        if index <= len(self._sealed):
            del self._sealed[index:], self._starts[index + 1 :]
            self._open = self._filling()

    def _filling(self) -> _Filling:
        index = len(self._sealed)
        limit = min(size for first, size in self._limits if first <= index)
        return _Filling(self._starts[index], limit)


class _Filling:
    """One part while it is being filled. Everything before `_at`, the beginning of a line,
    is in; `_best` holds the newest place to cut of each kind."""

    def __init__(self, cut: _Cut, limit: int) -> None:
        self.start = self._at = cut.at
        self._limit = max(limit, LEAST_BYTES)
        self.opening, self._place, head = _continued(cut, self._limit)
        self._size = _bytes(self.opening)
        self._best: dict[int, _Cut] = {}
        self._table = _Table(head, in_row=cut.in_row and bool(head))
        self._above: _Cut | None = None
        self._titled = self._opened = self._closed = False

    def overflow(self, text: str) -> _Cut | None:
        """Take in what is new; where to cut, if that is too much."""
        while True:
            room = self._limit - self._size
            stop = text.find("\n", self._at, self._at + room + 1)
            line = text[self._at : stop if stop >= 0 else self._at + room + 1]
            if self._need(line, stop >= 0) > room:
                return self._cut(text, line, room)
            if stop < 0:
                return None
            self._accept(line)

    def _need(self, line: str, whole: bool) -> int:
        """Bytes that must be free for this line and for closing the fence that it is in or
        may open. It never falls while a line grows: else the cut would depend on when one
        looks. Code leaves room for its closing line too, so that the next part does not
        begin with nothing but that."""
        size = _bytes(line)
        if fence := self._place.fence:
            if not line and not whole:
                return 0
            ends = not line.strip(" \t").strip(fence.marks[0])
            return size + (1 + _bytes(fence.closing)) * (1 if ends else 2)
        if room := closing_room(line):
            return size + room
        return size + int(whole)

    # ------------------------------------------------------------ lines that fit

    def _accept(self, line: str) -> None:
        offered = self._offer(line)
        was, self._place = self._place.fence, self._place.after(line)
        self._opened = was is None and self._place.fence is not None
        self._closed = was is not None and self._place.fence is None
        if was is None and self._table.take(line) and self._above is not None:
            self._best[BLOCK] = self._above
        self._above = offered if not self._titled else None
        if line.strip():
            self._titled = was is None and is_heading(line)
        self._size += _bytes(line) + 1
        self._at += len(line) + 1

    def _offer(self, line: str) -> _Cut | None:
        """The beginning of `line`, of which only a part may be seen, as a place to cut."""
        if self._at == self.start:
            return None
        goes_on = self._table.continues(line)
        cut = _Cut(self._at, self._size, self._place, self._table.head if goes_on else "")
        self._best[self._kind(line, goes_on)] = cut
        return cut

    def _kind(self, line: str, goes_on: bool) -> int:
        if self._place.fence is not None:
            return TORN if self._opened else LINE
        if goes_on:
            return TORN if self._table.fresh else LINE
        if not line.strip() or self._titled:
            return HEADED
        below_block = bool(self._table.head) or self._closed or self._place.blank
        if below_block or is_heading(line) or fence_like(line):
            return BLOCK
        return TORN if self._table.may_begin(line) else LINE

    # ------------------------------------------------------------ the line that does not

    def _cut(self, text: str, line: str, room: int) -> _Cut:
        fits = bisect_right(range(len(line) + 1), room, key=lambda n: self._need(line[:n], False))
        fits = max(fits - 1, 0)
        seen = text[self._at : self._at + fits + 1]
        self._offer(seen.rstrip("\n"))
        return self._chosen() or self._within(seen, fits)

    def _chosen(self) -> _Cut | None:
        """The best kind of place that leaves the part at least half full; code and rows
        may also leave it a quarter full, rather than be broken within a line."""
        lines = self._place.fence is not None or bool(self._table.head)
        for share in (2, 4) if lines else (2,):
            for kind in (BLOCK, LINE, HEADED, TORN):
                cut = self._best.get(kind)
                if cut and cut.size * share >= self._limit:
                    return cut
        return None

    def _within(self, line: str, fits: int) -> _Cut:
        """A place within the line, of which `fits` characters have room and one more is
        known."""
        if fits == 0 and self._best:
            return max(self._best.values(), key=lambda cut: cut.at)
        at = 1
        if fits > 1:
            half = self._limit // 2 - self._size
            low = bisect_right(range(fits - 1), half, key=lambda n: _bytes(line[:n])) - 1
            at = break_in(line, low if 0 < low < fits - 2 else 0, fits)
        kept = line[:at]
        table = self._table.head if self._table.continues(kept) else ""
        size = self._size + _bytes(kept)
        return _Cut(self._at + at, size, self._place.after(kept), table, bool(table))


class _Table:
    """The table that the lines so far end with. `head`: its header and delimiter rows with
    their line ends, empty outside tables; `fresh`: no row followed them yet; `in_row`: the
    next line is the rest of a row."""

    def __init__(self, head: str, *, in_row: bool) -> None:
        self.head, self._in_row = head, in_row
        self.fresh = False
        self._header = ""

    def continues(self, line: str) -> bool:
        """Whether the line, of which perhaps only the beginning is known, is a row."""
        if not self.head:
            return False
        if self._in_row or is_row(line):
            return True
        begins_with_bar = self.head.lstrip(" \t>").startswith("|")
        return not begins_with_bar and line.strip()[:1] not in ("", *"`~#>")

    def may_begin(self, line: str) -> bool:
        """Whether the line above and this one may be the two header rows of a table."""
        return bool(self._header) and line.lstrip(" \t>")[:1] in "|:-"

    def take(self, line: str) -> bool:
        """Go on below this whole line; true when it made a table of the line above."""
        if self.head and (self._in_row or is_row(line)):
            self._in_row = self.fresh = False
            return False
        begins = bool(self._header) and is_delimiter(line)
        self.head = f"{self._header}\n{line}\n" if begins else ""
        self.fresh, self._in_row = begins, False
        self._header = line if is_row(line) and not begins else ""
        return begins


def _continued(cut: _Cut, limit: int) -> tuple[str, Place, str]:
    """What a part begins with, its place and the head of its table. A fence with a long
    info string is reopened without it; what would fill too much of the part is left out."""
    if fence := cut.place.fence:
        for opening in (f"{fence.closing}{fence.info}\n", f"{fence.closing}\n"):
            if _bytes(opening) * 4 <= limit:
                return opening, cut.place, ""
        return "", Place(None, cut.place.inside), ""
    if cut.table and _bytes(cut.table) * 3 <= limit:
        return cut.table, cut.place, cut.table
    return "", cut.place, ""


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
