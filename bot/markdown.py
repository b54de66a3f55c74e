"""Model Markdown made ready for a chat: cleaned, cut, closed, previewed. Pure, and linear
in the text.

Cutting is bot/cutter.py; what a line is, bot/blocks.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bot.blocks import TABLE, Kind, Place, kinds
from bot.breaks import splits_character
from bot.cutter import Cutter, Part

__all__ = ["Cutter", "Part", "clean", "complete", "fit_tables", "preview"]

_UNSHOWABLE = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff"
_DIRTY = re.compile(rf"[{_UNSHOWABLE}\r\ud800-\udfff]")
_REMOVED = re.compile(rf"[{_UNSHOWABLE}]+")
_SURROGATE = re.compile(r"([\ud800-\udbff])[\udc00-\udfff]|[\ud800-\udfff]")
_HELD = re.compile(r"[\r\ud800-\udbff]\Z")


def clean(text: str) -> str:
    """The text without what no chat can show: line ends are LF, lone surrogates U+FFFD;
    control characters but LF and TAB, direction overrides and byte order marks are gone.
    An end whose meaning the next character decides (CR, the first half of a pair) is held
    back, so clean(a) is a prefix of clean(a + b)."""
    if not _DIRTY.search(text):
        return text
    text = _HELD.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _REMOVED.sub("", _SURROGATE.sub(_joined, text))


def _joined(found: re.Match[str]) -> str:
    if found[1] is None:
        return "\ufffd"
    return found[0].encode("utf-16", "surrogatepass").decode("utf-16")


def complete(text: str) -> str:
    """The text with its open fenced code block closed; otherwise the text itself."""
    if "```" not in text and "~~~" not in text:
        return text
    place = Place()
    for line in text.split("\n"):
        place = place.after(line)
    if place.fence is None:
        return text
    line_end = "" if text.endswith("\n") else "\n"
    return text + line_end + place.fence.closing


def fit_tables(text: str, tables: int) -> str:
    """The text with its first `tables` tables as they are, and each later one in a fence.
    A fence whose table reaches the end of the text is left open for complete(), so that
    growing text mostly stays a prefix of what follows."""
    if "|" not in text:
        return text
    sections = list(_sections(text.split("\n")))
    if sum(tabular for tabular, _ in sections) <= tables:
        return text
    out, seen = list[str](), 0
    for index, (tabular, lines) in enumerate(sections):
        seen += tabular
        if not tabular or seen <= tables:
            out += lines
            continue
        marks = _longer_fence(lines)
        at_the_end = sections[index + 1 : index + 3] in ([], [(False, [""])])
        out += [marks, *lines] if at_the_end else [marks, *lines, marks]
    return "\n".join(out)


def _sections(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """Runs of lines in order: (is a table, its lines)."""
    section, tabular = list[str](), False
    for kind, line in kinds(lines):
        if kind is Kind.HEADER or (tabular and kind not in TABLE):
            yield tabular, section
            section, tabular = [], kind is Kind.HEADER
        section.append(line)
    yield tabular, section


def _longer_fence(lines: list[str]) -> str:
    runs = [run for line in lines for run in re.findall("`+", line)]
    return "`" * max(3, 1 + max(map(len, runs), default=0))


# ---------------------------------------------------------------- preview

_LINK = re.compile(r"!?\[([^\[\]]*+)\]\([^()]*+\)")
_LINE_MARKS = re.compile(r"(?:[ \t]*+(?:>|#{1,6}(?=[ \t]|\Z)|[-*+](?=[ \t])))*+")
_RULE = re.compile(r"[-*_= \t]*+\Z")
_BAR = re.compile(r"(?<!\\)\|")
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
AT_CUT = 10
"""Characters in front of a cut that may be read otherwise without what follows it."""

_MARK = re.compile(
    r"\\([!-/:-@\[-`{-~])|`+|\*{2,}|~{2,}"
    r"|\*(?!(?<=[0-9A-Za-z]\*)[0-9A-Za-z])(?!(?<!\S\*)(?!\S))"  # not 2*3, not 2 * 3
    r"|(?<!\w)_++|(?<!_)_++(?!\w)"
)


def preview(text: str, limit: int = 100) -> str:
    """One plain line of at most `limit` characters for a chat list. Costs as much as what
    it shows, not as the text, because a growing reply is previewed at every update."""
    taken = 1000 + 40 * limit
    while True:
        plain = _beginning(_plain_lines(text[:taken], limit), limit)
        if len(plain) > limit or taken >= len(text):
            return _shortened(plain, limit)
        taken *= 4


def _beginning(lines: Iterator[str], limit: int) -> str:
    """The words of the lines, until they are longer than `limit`."""
    words, size = list[str](), -1
    for line in lines:
        more = line.split()
        words += more
        size += sum(map(len, more)) + len(more)
        if size > limit:
            break
    return " ".join(words)


def _plain_lines(text: str, limit: int) -> Iterator[str]:
    for kind, line in kinds(text.split("\n")):
        if kind is Kind.CODE:
            yield line
        elif kind not in (Kind.FENCE, Kind.DELIMITER):
            yield _plain_start(_BAR.sub(" ", line) if kind in TABLE else line, limit)


def _plain_start(line: str, limit: int) -> str:
    """As much of the plain line as is more than `limit` characters. What follows a cut
    changes the marks at the cut alone, unless a link is open there."""
    begin = line[: 4 * limit + 2 * AT_CUT]
    if len(begin) < len(line) and "[" not in begin:
        plain = _plain(begin)
        if len(" ".join(plain.split())) > limit + AT_CUT:
            return plain
    return _plain(line)


def _plain(line: str) -> str:
    """Prose without its marks; a link is its text."""
    if _RULE.match(line):
        return ""
    line = _BREAK.sub(" ", _LINE_MARKS.sub("", line, count=1))
    line = _LINK.sub(r"\1", _LINK.sub(r"\1", line))  # twice: an image may be a link's text
    return _MARK.sub(lambda found: found[1] or "", line)


def _shortened(plain: str, limit: int) -> str:
    if len(plain) <= limit:
        return plain
    at = limit - 1
    while at > 0 and splits_character(plain, at):
        at -= 1
    return f"{plain[:at].rstrip()}…"
