"""Foreign text made safe and readable in DingTalk's two Markdown dialects (law 11;
reference/dingtalk.md 5.4, 5.6, 6.3). Pure.

A zero-width space breaks what would act: `dtmd:` links, which make the person who taps
them say something, every other address that is no web page, and tags, of which `<a atId>`
pings. What is code for certain keeps its characters, except where one of these could hide
in it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby, pairwise
from urllib.parse import unquote

from adapters.markdown_code import LINE, Fence, Kind, marked, parts, width

BREAK = "\u200b"

_COLON = r"(?::|%3a|&colon;|&#0*58;?|&#x0*3a;?)"
_SLASH = r"(?:/|\\|%2f|&sol;|&#0*47;?|&#x0*2f;?)"
_ACTING = re.compile(rf"(dtmd|dingtalk)(?=\s*{_COLON}\s*{_SLASH})", re.IGNORECASE)
_HEAD = 300
"""Characters of an address that are read: its scheme is in front."""
_LINK = re.compile(
    rf"\](?=\(\s*+<?([^)\s>]{{0,{_HEAD}}}))|\](?=:[ \t]*+(?:\n[ \t]*+)?<?([^\s>]{{1,{_HEAD}}}))"
)
_RETURN = re.compile(r"\r\n?")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_PATH = re.compile(r"[a-z0-9+.-]*[/?#]", re.IGNORECASE)
_NOISE = re.compile(r"[\s\\\u0000-\u0020\u200b-\u200f\u2060\ufeff]+")

_TAG = re.compile(r"<(?=[A-Za-z/!?])(?!(?:br\s*/?|https?://[^\s<>]+|mailto:[^\s<>]+)>)", re.I)
_ANCHOR = re.compile(r"<(?=\s*+(?:/\s*+)?a\b)", re.IGNORECASE)
_AT_ID = re.compile(r"\bat_?id\b", re.IGNORECASE)

PAGES = frozenset({"http", "https", "mailto", "tel"})
"""Schemes a link of the model may have."""

_ACTORS = frozenset({"dtmd", "dingtalk"})


def safe(text: str) -> str:
    """Model Markdown that can ping nobody and act for nobody."""
    pieces = parts(_RETURN.sub("\n", text))  # a reader may take it for a line's end
    runs = groupby(pieces, key=lambda piece: piece[0] is Kind.CODE)
    return "".join(_run(code, "".join(part for _, part in run)) for code, run in runs)


def _run(code: bool, text: str) -> str:
    return _code(text) if code else _prose(text)


def _prose(text: str) -> str:
    text = _LINK.sub(lambda found: _link(found, None), text)
    return _TAG.sub(f"<{BREAK}", _ACTING.sub(rf"\1{BREAK}", text))


def _code(text: str) -> str:
    text = _LINK.sub(lambda found: _link(found, _ACTORS), text)
    text = _ACTING.sub(rf"\1{BREAK}", text)
    return ">".join(_unpinged(piece) for piece in text.split(">"))


def _unpinged(text: str) -> str:
    """Text without `>`; every anchor that an at id follows is broken."""
    ids = [found.start() for found in _AT_ID.finditer(text)]
    end = ids[-1] if ids else 0
    return _ANCHOR.sub(f"<{BREAK}", text[:end]) + text[end:]


def _link(found: re.Match[str], forbidden: frozenset[str] | None) -> str:
    """The bracket before an address; broken when the address is no web page, or inside
    code when it is one of `forbidden`. Neither may be hidden behind the head."""
    head = found[1] or found[2] or ""
    target = _NOISE.sub("", html.unescape(unquote(head)))
    scheme = _SCHEME.match(target)
    if scheme is None:
        bad = len(head) == _HEAD and not _PATH.match(target)
    elif forbidden is None:
        bad = scheme[1].lower() not in PAGES
    else:
        bad = scheme[1].lower() in forbidden
    return f"]{BREAK}" if bad else "]"


# ---------------------------------------------------------------- dialects


def _blocks(text: str) -> Iterator[tuple[bool, str]]:
    """(is fenced, lines) in order, in the likeliest reading: fences in list items count,
    those in quotes do not; an open fence reaches to the end."""
    fence, block = None, ""
    for line in LINE.findall(text):
        marks = marked(line)
        if fence is None and marks and marks.opening and ">" not in marks.before:
            yield False, block
            fence, block = Fence(marks.marks, width(marks.before)), line
        elif fence and marks and fence.closing(marks) and width(marks.before) <= fence.column + 3:
            yield True, block + line
            fence, block = None, ""
        else:
            block += line
    yield bool(fence), block


_SPECIAL_LINE = re.compile(r"\s*$|\s*(?:[-*+]|\d+[.)])(?:\s|$)|\s{0,3}(?:#|>|\||={3,}|-{3,})|\s{4}")
_BROKEN = re.compile(r"(?:  |\\|<br\s*/?>)$", re.IGNORECASE)
_DELIMITER = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")


def with_breaks(text: str, mark: str) -> str:
    """Single line breaks between two lines of prose made visible by `mark`: `<br>` in cards,
    two spaces in messages (reference/dingtalk.md 5.6)."""
    return "".join(block if fenced else _broken(block, mark) for fenced, block in _blocks(text))


def _broken(block: str, mark: str) -> str:
    lines = block.split("\n")
    for number, (line, following) in enumerate(pairwise(lines)):
        tabular = "|" in line and _DELIMITER.match(following)
        prose = not _SPECIAL_LINE.match(line) and not _SPECIAL_LINE.match(following)
        if prose and not tabular and not _BROKEN.search(line):
            lines[number] = line.rstrip() + mark
    return "\n".join(lines)


def without_tables(text: str) -> str:
    """Each row of a table as a list item: messages know no tables (5.6)."""
    return "".join(block if fenced else _listed(block) for fenced, block in _blocks(text))


def _listed(block: str) -> str:
    lines, out, at = block.split("\n"), list[str](), 0
    while at < len(lines):
        table = at + 1 < len(lines) and "|" in lines[at] and "-" in lines[at + 1]
        if not (table and _DELIMITER.match(lines[at + 1])):
            out.append(lines[at])
            at += 1
            continue
        head, at = _cells(lines[at]), at + 2
        while at < len(lines) and "|" in lines[at]:
            out.append(_item(head, _cells(lines[at])))
            at += 1
    return "\n".join(out)


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _item(head: list[str], cells: list[str]) -> str:
    pairs = [(head[i] if i < len(head) else "", cell) for i, cell in enumerate(cells) if cell]
    return "- " + "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs)
