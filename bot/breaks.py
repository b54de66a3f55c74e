"""Where one long line may be broken in two. Pure, and linear in the line."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

NEARBY = 200
"""Characters before the end in which an unclosed code span or link still counts as one
that will be closed."""

_SENTENCE = re.compile(
    r"[。！？；…]++[”’」』）】》\"')\]*_]*+[ \t]*+"
    r"|(?<![.!?;:])[.!?;:]++[”’\"')\]*_]*+[ \t]++"
)
_SPACE = re.compile(r"[ \t\u3000]++")
_TICKS = re.compile(r"`++")
_LINK = re.compile(r"!?\[[^\[\]]*+(?:\Z|\](?:\Z|\([^()]*+(?:\)|\Z)))")
_ADDRESS = re.compile(r"https?://[!-~]*+|h(?:tt?(?:ps?:?/?)?)?\Z")
_ACTIVE = frozenset("`~#>|+-=")
"""Characters that may mean something else at the beginning of a line."""

_JOINER = "\u200d"


def break_in(line: str, low: int, high: int) -> int:
    """The best position p in low < p <= high to break `line`, of which at least one
    character stands behind `high`: after a sentence, else after white space, else between
    two characters; outside code spans and links where that is possible."""
    for careful in (True, False):
        good = _Good(line, _spans(line) if careful else [], careful)
        for pattern in (_SENTENCE, _SPACE):
            if found := _last(pattern, good, low, high):
                return found
        if found := _between(good, low, high):
            return found
    return high


def splits_character(text: str, at: int) -> bool:
    """Whether a cut at `at` would part what is seen as one character, or a backslash from
    what it escapes. Only text[at] and what stands before it decides."""
    before, behind = text[at - 1], text[at]
    if before in ("\\", _JOINER) or behind == _JOINER or _extends(behind):
        return True
    return _is_flag(behind) and _flags_before(text, at) % 2 == 1


def _extends(char: str) -> bool:
    if char < "\u0300":
        return False
    return (
        unicodedata.category(char) in ("Mn", "Mc", "Me")
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
        or "\u1160" <= char <= "\u11ff"
    )


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _flags_before(text: str, at: int) -> int:
    start = at
    while start > 0 and _is_flag(text[start - 1]):
        start -= 1
    return at - start


# ---------------------------------------------------------------- candidates

_Spans = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Good:
    """Positions in `line` that part neither a character nor a span; if `careful`, no mark
    like ** either, and not standing before a character that may begin a block."""

    line: str
    spans: _Spans
    careful: bool

    def __contains__(self, at: int) -> bool:
        before, behind = self.line[at - 1], self.line[at]
        if self.careful and (behind in _ACTIVE or (behind == before and behind in "*_")):
            return False
        return not _around(self.spans, at) and not splits_character(self.line, at)


def _last(pattern: re.Pattern[str], good: _Good, low: int, high: int) -> int:
    """The last end of `pattern` that is a good place, else 0."""
    ends = [found.end() for found in pattern.finditer(good.line, low)]
    return next((at for at in reversed(ends) if low < at <= high and at in good), 0)


def _between(good: _Good, low: int, high: int) -> int:
    """The last good place of all, else 0."""
    at = high
    while at > low and at not in good:
        span = _around(good.spans, at)
        at = span[0] if span else at - 1
    return at if at > low else 0


def _around(spans: _Spans, at: int) -> tuple[int, int] | None:
    """The span that a cut at `at` would part."""
    index = bisect_right(spans, at, key=lambda span: span[1])
    if index < len(spans) and spans[index][0] < at:
        return spans[index]
    return None


def _spans(line: str) -> _Spans:
    """Code spans, links and bare addresses, sorted, without overlap."""
    merged: _Spans = []
    for start, end in sorted((*_code_spans(line), *_links(line))):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _code_spans(line: str) -> Iterator[tuple[int, int]]:
    runs = [found.span() for found in _TICKS.finditer(line)]
    partner, newest = [-1] * len(runs), dict[int, int]()
    for index in range(len(runs) - 1, -1, -1):
        size = runs[index][1] - runs[index][0]
        partner[index] = newest.get(size, -1)
        newest[size] = index
    index = 0
    while index < len(runs):
        start = runs[index][0]
        if partner[index] >= 0:
            index = partner[index]
            yield start, runs[index][1]
        elif start > len(line) - NEARBY:
            yield start, len(line) + 1
        index += 1


def _links(line: str) -> Iterator[tuple[int, int]]:
    for found in _LINK.finditer(line):
        whole = found[0].endswith(")")
        if whole or found.start() > len(line) - NEARBY:
            yield found.start(), found.end() if whole else len(line) + 1
    for found in _ADDRESS.finditer(line):
        open_end = found.end() == len(line)
        yield found.start(), found.end() + open_end
