"""Whether Markdown leaves a code fence open."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")


def open_fence(markdown: str) -> bool:
    """True when a fence is open at the end; such a frame breaks the card's layout."""
    fence = ""
    for line in markdown.split("\n"):
        found = _FENCE.match(line)
        if not found:
            continue
        marks, rest = found.groups()
        if not fence:
            fence = "" if marks[0] == "`" and "`" in rest else marks
        elif marks[0] == fence[0] and len(marks) >= len(fence) and not rest.strip():
            fence = ""
    return bool(fence)
