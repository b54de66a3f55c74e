"""What Feishu refuses in a card (reference/feishu.md 5.10, 6.1, 6.2, 6.4, 6.8)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adapters.playground.feishu.render import elements_of, markdown_of, walk
from adapters.playground.feishu.tags import at_ids, image_keys, tables
from adapters.playground.feishu.wire import Policy, Refused, dumps

Json = dict[str, Any]

MOST_BYTES = 30 * 1024
MOST_ELEMENTS = 200
MOST_TABLES = 5
ELEMENT_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,19}")

_ROOT = {"schema", "config", "card_link", "header", "body"}
_CONFIG = {
    *("streaming_mode", "streaming_config", "summary", "locales", "enable_forward"),
    *("update_multi", "width_mode", "use_custom_translation", "enable_forward_interaction"),
    "style",
}
_HEADER = {
    "title",
    "subtitle",
    "text_tag_list",
    "i18n_text_tag_list",
    "template",
    "icon",
    "padding",
}
_BODY = {
    *("elements", "direction", "padding", "horizontal_spacing", "horizontal_align"),
    *("vertical_spacing", "vertical_align"),
}
_EVERY = {"tag", "element_id", "margin"}
_TEXT = {"content", "text_size", "text_color", "text_align", "lines", "i18n_content", "icon"}
_BOX = {"direction", "horizontal_spacing", "horizontal_align", "vertical_spacing", "vertical_align"}
_PROPERTIES: dict[str, set[str] | None] = {
    "markdown": _TEXT,
    "plain_text": _TEXT,
    "lark_md": _TEXT,
    "div": {"text", "icon", "width", "fields"},
    "hr": set(),
    "img": None,
    "img_combination": None,
    "person": None,
    "person_list": None,
    "chart": None,
    "table": None,
    "audio": None,
    "column_set": {"columns", "flex_mode", "background_style", "action"} | _BOX,
    "column": {"elements", "width", "weight", "background_style", "padding", "action"} | _BOX,
    "collapsible_panel": {
        *("expanded", "header", "elements", "border", "padding", "background_color"),
        *_BOX,
    },
    "interactive_container": None,
    "form": {"name", "elements", "padding", *_BOX},
    "button": {
        *("text", "type", "size", "width", "icon", "hover_tips", "disabled", "disabled_tips"),
        *("confirm", "behaviors", "name", "required", "form_action_type"),
    },
    "input": None,
    "overflow": None,
    "select_static": None,
    "multi_select_static": None,
    "select_person": None,
    "multi_select_person": None,
    "select_img": None,
    "date_picker": None,
    "picker_time": None,
    "picker_datetime": None,
    "checker": None,
}
"""Properties by tag beside those of every tag; None: not looked at."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint in both dialects: `sub` inside 230099 when a message carries the card,
    `kit` from CardKit."""

    sub: int
    kit: int
    path: str
    text: str
    blame: bool = True

    def in_message(self) -> Refused:
        msg = (
            f"Failed to create card content, ext=ErrCode: {self.sub}; "
            f"ErrPath: {self.path}; ErrMsg: {self.text}; ErrorValue: "
        )
        return Refused(230099, msg, blame=self.blame)

    def in_kit(self) -> Refused:
        if self.kit == 230099:
            return self.in_message()
        return Refused(self.kit, f"ErrMsg: {self.text};", blame=self.blame)


def problem(card: Json, policy: Policy, known: frozenset[str]) -> Problem | None:
    """The first thing wrong with a card, or None. `known` are the ids that an at tag may
    name."""
    return next(_problems(card, policy, known), None)


def _problems(card: Json, policy: Policy, known: frozenset[str]) -> Iterator[Problem]:
    if card.get("schema") == "2.0":
        yield from _outline(card)
        yield from _components(card)
    elif not isinstance(card.get("elements"), list):
        yield Problem(200621, 300303, "ROOT", "parse card json err, please check the card")
    yield from _sizes(card, policy)
    yield from _references(card, known)


def _outline(card: Json) -> Iterator[Problem]:
    parts = (
        ("ROOT", card, _ROOT),
        ("ROOT -> config", card.get("config", {}), _CONFIG),
        ("ROOT -> header", card.get("header", {}), _HEADER),
        ("ROOT -> body", card.get("body", {}), _BODY),
    )
    for path, part, allowed in parts:
        if not isinstance(part, dict):
            yield _broken(path, "is not an object")
            return
        for key in part.keys() - allowed:
            yield _broken(path, f"unknown property {key}")
    if not isinstance(card.get("body", {}).get("elements"), list):
        yield Problem(200621, 300307, "ROOT -> body", "card elements is empty")
    if card.get("config", {}).get("update_multi", True) is not True:
        yield Problem(200621, 300302, "ROOT -> config", "update_multi must be true")


def _broken(path: str, text: str) -> Problem:
    return Problem(200621, 200220, path, f"parse card json err, please check: {text}")


def _components(card: Json) -> Iterator[Problem]:
    seen: set[str] = set()
    for number, element in enumerate(walk(elements_of(card))):
        tag = element.get("tag")
        path = f"ROOT -> body -> elements -> [{number}](tag: {tag})"
        if tag not in _PROPERTIES:
            text = f"cards of schema V2 no longer support this capability; unsupported tag {tag}"
            yield Problem(200861, 200220, path, text)
            continue
        yield from _component(element, _PROPERTIES[tag], path, seen)


def _component(
    element: Json, allowed: set[str] | None, path: str, seen: set[str]
) -> Iterator[Problem]:
    if allowed is not None:
        for key in element.keys() - allowed - _EVERY:
            yield _broken(path, f"unknown property {key}")
    name = element.get("element_id")
    if name is not None:
        if not isinstance(name, str) or not ELEMENT_ID.fullmatch(name) or name in seen:
            yield Problem(300301, 300301, path, f"element_id {name} is repeated or malformed")
        seen.add(str(name))
    if element.get("tag") in ("markdown", "plain_text") and not isinstance(
        element.get("content"), str
    ):
        yield _broken(path, "content is not a string")


def _sizes(card: Json, policy: Policy) -> Iterator[Problem]:
    if _count(card) > MOST_ELEMENTS:
        yield Problem(11310, 300305, "ROOT", "element exceeds the limit")
    drawn = sum(1 for element in walk(elements_of(card)) if element.get("tag") == "table")
    written = sum(tables(text) for text in markdown_of(card))
    if drawn > MOST_TABLES or written > policy.markdown_tables:
        yield Problem(11310, policy.table_code, "ROOT", "card table number over limit")
    if len(dumps(card).encode()) > MOST_BYTES:
        yield Problem(200860, 200860, "ROOT", "card content exceeds 30 KB")


def _count(value: Any) -> int:
    """Components and text nodes: everything with a tag."""
    if isinstance(value, list):
        return sum(_count(item) for item in value)
    if not isinstance(value, dict):
        return 0
    return ("tag" in value) + sum(_count(item) for item in value.values())


def _references(card: Json, known: frozenset[str]) -> Iterator[Problem]:
    for text in markdown_of(card):
        if any(one not in known for one in at_ids(text)):
            words = "There is an invalid user resource(at/person) in your card"
            yield Problem(100290, 200220, "ROOT", words)
        if any(not key.startswith("img_") for key in image_keys(text)):
            yield Problem(200570, 200220, "ROOT", "card contains invalid image keys")
