"""Messages and cards as the person sees them (reference/feishu.md 5.3, 6.1, 6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.feishu.tags import Name, at_ids, seen_markdown, seen_text
from adapters.playground.view import Block

Json = dict[str, Any]

SMALL = frozenset({"notation", "x-small", "small"})
"""text_size of small print."""


@dataclass(slots=True)
class Picture:
    """What a message shows. `buttons` maps a block's id to the button element."""

    blocks: list[Block] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    buttons: dict[str, Json] = field(default_factory=dict)

    def ping(self, ids: list[str]) -> None:
        self.pings += [one for one in ids if one not in self.pings]


# ---------------------------------------------------------------- messages


def of_message(msg_type: str, content: Json, name: Name) -> Picture:
    """A message of the bot that is no card."""
    if msg_type == "text":
        words = str(content.get("text", ""))
        picture = Picture([Block("markdown", text=seen_text(words, name))])
        picture.ping(at_ids(words))
        return picture
    if msg_type == "post":
        return _post(content, name)
    return Picture([Block("markdown", text=f"[{msg_type}]")])


def _post(content: Json, name: Name) -> Picture:
    picture = Picture()
    locale = next(iter(content.values()))
    rows = [_row(row, picture, name) for row in locale.get("content", [])]
    title = locale.get("title", "")
    words = "\n".join([title, *rows] if title else rows)
    picture.blocks.append(Block("markdown", text=words))
    return picture


def _row(row: list[Json], picture: Picture, name: Name) -> str:
    return "".join(_piece(piece, picture, name) for piece in row)


def _piece(piece: Json, picture: Picture, name: Name) -> str:
    tag = piece.get("tag")
    if tag == "md":
        words = str(piece.get("text", ""))
        picture.ping(at_ids(words))
        return seen_markdown(words, name)
    if tag == "at":
        picture.ping([str(piece.get("user_id"))])
        return "@" + (name(str(piece.get("user_id"))) or str(piece.get("user_id")))
    if tag == "a":
        return f"[{piece.get('text', '')}]({piece.get('href', '')})"
    if tag == "code_block":
        return f"```{piece.get('language', '')}\n{piece.get('text', '')}\n```"
    return {"hr": "---", "img": "[image]", "media": "[media]"}.get(
        str(tag), str(piece.get("text", ""))
    )


# ---------------------------------------------------------------- cards


def of_card(card: Json, name: Name) -> Picture:
    """A card of schema 1.0 or 2.0."""
    picture = Picture()
    title = words_of(card.get("header", {}).get("title"), name)
    if title:
        picture.blocks.append(Block("small", text=title))
    for element in elements_of(card):
        _draw(element, picture, name)
    for text in _markdowns(elements_of(card)):
        picture.ping(at_ids(text))
    return picture


def elements_of(card: Json) -> list[Json]:
    """The elements at the root of a card."""
    body = card.get("body", card)
    found = body.get("elements", []) if isinstance(body, dict) else []
    return found if isinstance(found, list) else []


def words_of(text: Any, name: Name) -> str:
    """A text object; plain_text is never interpreted."""
    if not isinstance(text, dict):
        return ""
    content = str(text.get("content", ""))
    return content if text.get("tag") == "plain_text" else seen_markdown(content, name)


def _draw(element: Json, picture: Picture, name: Name) -> None:
    draw = _BRUSHES.get(str(element.get("tag")))
    if draw is not None:
        draw(element, picture, name)
        return
    for child in children(element):
        _draw(child, picture, name)


def _markdown(element: Json, picture: Picture, name: Name) -> None:
    _text(picture, words_of(element, name), element.get("text_size"))


def _div(element: Json, picture: Picture, name: Name) -> None:
    text = element.get("text")
    if isinstance(text, dict):
        _markdown(text, picture, name)
    for text in children(element):
        _markdown(text, picture, name)


def _note(element: Json, picture: Picture, name: Name) -> None:
    _text(picture, "".join(words_of(e, name) for e in children(element)), "notation")


def _rule(_: Json, picture: Picture, __: Name) -> None:
    picture.blocks.append(Block("divider"))


def _image(_: Json, picture: Picture, __: Name) -> None:
    picture.blocks.append(Block("markdown", text="[image]"))


def _text(picture: Picture, words: str, size: Any) -> None:
    if words.strip():
        picture.blocks.append(Block("small" if size in SMALL else "markdown", text=words))


def _panel(element: Json, picture: Picture, name: Name) -> None:
    inside = Picture()
    for child in children(element):
        _draw(child, inside, name)
    words = "\n".join(b.text for b in inside.blocks if b.kind in ("markdown", "small"))
    title = words_of(element.get("header", {}).get("title"), name)
    picture.blocks.append(Block("panel", text=words, title=title))
    picture.blocks += [block for block in inside.blocks if block.kind == "button"]
    picture.buttons |= inside.buttons


def _button(element: Json, picture: Picture, name: Name) -> None:
    """Named by its element_id or name; else by its number."""
    key = element.get("element_id") or element.get("name") or f"button-{len(picture.buttons)}"
    while key in picture.buttons:
        key += "-again"
    picture.buttons[key] = element
    picture.blocks.append(Block("button", text=words_of(element.get("text"), name), id=key))


_BRUSHES = {
    "markdown": _markdown,
    "plain_text": _markdown,
    "div": _div,
    "collapsible_panel": _panel,
    "button": _button,
    "hr": _rule,
    "img": _image,
    "note": _note,
}
"""By tag; other tags are containers."""


def children(element: Json) -> list[Json]:
    """The elements directly inside a container; of the fields of a div, their texts."""
    found: list[Any] = []
    for key in ("elements", "columns", "actions", "fields"):
        inner = element.get(key)
        if isinstance(inner, list):
            found += [_text_of(child) if key == "fields" else child for child in inner]
    return [child for child in found if isinstance(child, dict)]


def _text_of(field: Any) -> Any:
    return field.get("text") if isinstance(field, dict) else None


def walk(elements: list[Json]) -> Iterator[Json]:
    """Every component, containers before what is inside."""
    for element in elements:
        yield element
        yield from walk(children(element))


def _markdowns(elements: list[Json]) -> Iterator[str]:
    for element in walk(elements):
        for text in (element, element.get("text"), element.get("header", {})):
            yield from _source(text)
        if isinstance(element.get("header"), dict):
            yield from _source(element["header"].get("title"))


def _source(text: Any) -> Iterator[str]:
    if isinstance(text, dict) and text.get("tag") in ("markdown", "lark_md"):
        yield str(text.get("content", ""))


def markdown_of(card: Json) -> list[str]:
    """Every Markdown source in a card's body."""
    return list(_markdowns(elements_of(card)))
