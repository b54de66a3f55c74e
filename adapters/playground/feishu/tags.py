"""Tags inside texts: whom they notify, and what is left of them for the eye
(reference/feishu.md 5.3, 6.2)."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

Name = Callable[[str], str]
"""The display name of an open_id, or an empty string."""

_CODE = re.compile(
    r"^ {0,3}(([`~])\2{2,}).*?(?:^ {0,3}\1\2*[ \t]*$|\Z)|(`+)(?!`)[^\n]*?(?<!`)\3(?!`)",
    re.DOTALL | re.MULTILINE,
)
_AT = re.compile(r"<at\b([^<>]*?)/?>(?:[^<]*</at\s*>)?", re.IGNORECASE)
_ID = re.compile(r"\b(?:id|ids|user_id|open_id|email)\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s\"'>]+)", re.I)
_MARKUP = re.compile(
    r"</?(?:font|text_tag|person|link|local_datetime|number_tag|a|b|i|u|s|del|strong|em)\b[^<>]*>",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_IMAGE = re.compile(r"!\[([^\]\n]{0,300})\]\(([^)\s]*)\)")
_STYLE = re.compile(r"</?[bius]>", re.IGNORECASE)


def at_ids(text: str) -> list[str]:
    """Ids that at tags name, `all` for everybody; tags inside code count too, because
    whether Feishu reads them there is not documented."""
    found = []
    for tag in _AT.finditer(text):
        for value in _ID.findall(tag[1]):
            found += [part.strip() for part in value.strip("\"'").split(",") if part.strip()]
    return ["all" if name.lower() == "all" else name for name in found]


def seen_text(text: str, name: Name) -> str:
    """What is visible of the content of a `text` message; entities stay as they are."""
    return _STYLE.sub("", _named(text, name))


def seen_markdown(text: str, name: Name) -> str:
    """What is visible of Markdown: the source without tags, entities decoded. Code keeps
    its tags, except those that notify."""
    out, at = [], 0
    for code in _CODE.finditer(text):
        out += [_without_markup(_named(text[at : code.start()], name)), _named(code[0], name)]
        at = code.end()
    out.append(_without_markup(_named(text[at:], name)))
    return html.unescape("".join(out))


def image_keys(text: str) -> list[str]:
    """Targets of Markdown images outside code."""
    return [found[2] for found in _IMAGE.finditer(_CODE.sub("", text))]


def tables(text: str) -> int:
    """Markdown tables outside code: a row with a bar, a row of dashes under it, and what
    rows with a bar follow."""
    count, inside, above = 0, False, ""
    for row in _CODE.sub("", text).split("\n"):
        starts = not inside and "|" in above and "|" in row and bool(_DASHES.match(row))
        count += starts
        inside = starts or (inside and "|" in row)
        above = row
    return count


_DASHES = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")


def _without_markup(text: str) -> str:
    return _BREAK.sub("\n", _MARKUP.sub("", text))


def _named(text: str, name: Name) -> str:
    """At tags as the people see them."""

    def show(tag: re.Match[str]) -> str:
        ids = at_ids(tag[0])
        return " ".join("@" + _who(one, name) for one in ids)

    return _AT.sub(show, text)


def _who(one: str, name: Name) -> str:
    return "所有人" if one == "all" else name(one) or one
