"""Foreign text made safe for Feishu's Markdown (law 11; reference/feishu.md 5.3, 6.2). Pure.

Outside code every `<` that could open a tag becomes `&lt;`, so that no model can ping a
person or draw a component. What is code for certain keeps its characters, except before
the tags that could ping: whether Feishu reads tags inside code is not documented. In a
code span that another reading of the line may tear apart no tag that Feishu knows
survives. Images need an uploaded key, so each becomes a link.
"""

from __future__ import annotations

import re

from adapters.markdown_code import Kind, parts

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_KNOWN = re.compile(
    r"<(?=[!?]|/?(?:at|person|font|text_tag|number_tag|local_datetime|link|button|record|chart"
    r"|table|column_set|column|form|input|select\w*|audio|video|raw|highlight|img|image|a|b|i|u|s"
    r"|del|ins|strong|em|mark|br|hr|p|div|span|pre|code|ul|ol|li|sub|sup|h[1-6])(?![A-Za-z0-9]))",
    re.IGNORECASE,
)
"""Tags of Feishu's Markdown (reference/feishu.md 6.2), names of components, and HTML."""

_PING = re.compile(r"<(?=/?(?:at|person)(?![A-Za-z0-9]))", re.IGNORECASE)
_IMAGE = re.compile(r"!\[(\]?)")
_RETURN = re.compile(r"\r\n?")
_PENDING = re.compile(r"(?:<(?:/?[A-Za-z]{0,6}|!\[?)|!\[?)\Z")
"""An end that the next character may turn into a tag or an image."""
_UNDECIDED = re.compile(r"<|!(?=\[|\Z)")

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
    if growing:
        text = text.removesuffix("\r")
    text = _RETURN.sub("\n", text)  # a reader may take it for a line's end
    pieces = list(parts(text, growing=growing))
    if growing and pieces and pieces[-1][0] is not Kind.UNDECIDED:
        kind, last = pieces[-1]
        pieces[-1] = kind, _PENDING.sub("", last)
    return "".join(_TREATMENTS[kind](piece) for kind, piece in pieces)


def _code(text: str) -> str:
    return _PING.sub("&lt;", text)


def _doubtful(text: str) -> str:
    return _unpictured(_KNOWN.sub("&lt;", text))


def _prose(text: str) -> str:
    return _unpictured(_TAG.sub("&lt;", text))


def _unpictured(text: str) -> str:
    return _IMAGE.sub(lambda found: "[\U0001f5bc]" if found[1] else "[", text)


def _undecided(text: str) -> str:
    """Shown up to the first character whose treatment depends on what the text is."""
    found = _UNDECIDED.search(text)
    return text[: found.start()] if found else text


_TREATMENTS = {
    Kind.CODE: _code,
    Kind.DOUBTFUL: _doubtful,
    Kind.PROSE: _prose,
    Kind.UNDECIDED: _undecided,
}
