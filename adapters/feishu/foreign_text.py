"""Foreign text made safe for Feishu's Markdown (law 11; reference/feishu.md 5.3, 6.2). Pure.

Outside code every `<` that could open a tag becomes `&lt;`, so that no model can ping a
person or draw a component. Code keeps its characters, except before the tags that could
ping: whether Feishu reads tags inside code is not documented. Images need an uploaded
key, so each becomes a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`\n]*$)|~{3,})", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_TAG = re.compile(r"<(?=[A-Za-z/])")
_PING = re.compile(r"<(?=/?(?:at|person)(?![A-Za-z0-9]))", re.IGNORECASE)
_IMAGE = re.compile(r"!\[(\]?)")
_TICKS = re.compile(r"`+")
_PENDING = re.compile(r"(?:<(?:/?[A-Za-z]{0,6})?|!\[?)\Z")
"""An end that the next character may turn into a tag or an image."""

_SPECIAL = re.compile(r"[&<>*_~`\[\]()#|!\\$+]")


def literal(text: str) -> str:
    """Text of which nothing is interpreted: every Markdown character as an entity."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text)


def plain(text: str) -> str:
    """Text for a message of type text, where only `<at …>` means something
    (reference/feishu.md 5.3): a zero-width space breaks it."""
    return _PING.sub("<\u200b", text)


def safe(text: str, *, growing: bool = False) -> str:
    """Model Markdown as Feishu may read it. With `growing`, an end whose meaning the next
    characters decide is held back, so that the result for a text is always a prefix of
    the result for any longer text (reference/feishu.md 6.5)."""
    return "".join(_lines(text, growing))


def _lines(text: str, growing: bool) -> Iterator[str]:
    fence = ""
    for line in _LINE.findall(text):
        whole = not growing or line.endswith("\n")
        if fence:
            if whole and _closes(line, fence):
                fence = ""
            yield _code(line, whole)
            continue
        opening = _FENCE.match(line)
        if opening and whole:
            fence = opening[1]
        yield _prose(line, whole)


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]} and not line.startswith("    ")


def _code(line: str, whole: bool) -> str:
    return _PING.sub("&lt;", line if whole else _held(line))


def _held(line: str) -> str:
    return _PENDING.sub("", line)


def _prose(line: str, whole: bool) -> str:
    """One line outside fences; an inline code span keeps its characters."""
    out, at = [], 0
    for start, end in _spans(line, whole):
        out.append(_marked(line[at:start]))
        if end is None:
            return "".join(out) + _undecided(line[start:])
        out.append(_code(line[start:end], True))
        at = end
    rest = line[at:]
    return "".join(out) + _marked(rest if whole else _held(rest))


def _marked(text: str) -> str:
    text = _TAG.sub("&lt;", text)
    return _IMAGE.sub(lambda found: "[\U0001f5bc]" if found[1] else "[", text)


def _undecided(text: str) -> str:
    """What may or may not be inside code yet: shown up to the first character whose
    treatment depends on it."""
    found = re.search(r"<|!(?=\[|\Z)", text)
    return text[: found.start()] if found else text


def _spans(line: str, whole: bool) -> Iterator[tuple[int, int | None]]:
    """The code spans of a line; the end is None for one that is still open."""
    runs = [found.span() for found in _TICKS.finditer(line)]
    index = 0
    while index < len(runs):
        start, end = runs[index]
        closing = next((i for i in range(index + 1, len(runs)) if _size(runs[i]) == end - start), 0)
        settled = whole or (closing and runs[closing][1] < len(line))
        if not settled:
            yield start, None
            return
        if closing:
            yield start, runs[closing][1]
            index = closing
        index += 1


def _size(run: tuple[int, int]) -> int:
    return run[1] - run[0]
