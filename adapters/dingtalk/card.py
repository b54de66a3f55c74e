"""A snapshot as DingTalk shows it: variables of a card, one Markdown text, a title. Pure
(reference/dingtalk.md 5.2, 5.6, 6.2)."""

from __future__ import annotations

import re

from adapters.dingtalk.foreign_text import safe, with_breaks, without_tables
from adapters.dingtalk.settings import Template
from adapters.foreign import dumps
from bot.contract import Json, Snapshot

TITLE_CHARS = 60
NOTHING = "—"
"""Stands where a card must end and nothing was written: empty content is refused (6.4)."""

FOLDED_BYTES = 1000
"""Bytes of reasoning inside the text of a card; longer thoughts show their end."""

PANEL_BYTES = 3000
"""Bytes of reasoning in a variable of its own."""

_MARKS = re.compile(r"\]\([^)]*\)|[#*_`~>\[\]|]+|https?://\S+")


def card_text(snapshot: Snapshot, template: Template) -> str:
    """What streams into the content variable. With a state variable that is the answer
    alone; otherwise the thoughts, status, note and small print too."""
    if template.state_key:
        return _card_markdown(snapshot.text)
    return _stacked(snapshot, _card_markdown(snapshot.text))


def final_card_text(snapshot: Snapshot, template: Template) -> str:
    """The same for the last frame, which must not be empty (6.4)."""
    return card_text(snapshot, template) or safe(snapshot.note) or NOTHING


def variables(snapshot: Snapshot, template: Template) -> dict[str, str]:
    """The other variables, all of them strings (6.2); none without a state variable. A
    card that offers no buttons says `continued`, the state in which templates show none."""
    if not template.state_key:
        return {}
    turn = {"turn": snapshot.buttons[0].turn} if snapshot.buttons else {}
    note = snapshot.note if snapshot.text or snapshot.state == "running" else ""
    return {
        template.state_key: snapshot.state if snapshot.buttons else "continued",
        "status": "" if snapshot.text else snapshot.status,
        "reasoning": _tail(safe(snapshot.reasoning), PANEL_BYTES),
        "note": safe(note),
        "footer": safe(snapshot.footer),
        **turn,
    }


def new_card(
    snapshot: Snapshot, template: Template, track: str, space: tuple[str, str], robot: str
) -> Json:
    """The body of createAndDeliver; `space` is IM_GROUP and the conversation, or IM_ROBOT and
    the person's staff id (6.3). Nobody is ever mentioned by it."""
    kind, place = space
    params = {
        template.content_key: card_text(snapshot, template),
        "config": dumps({"autoLayout": True}),
        **variables(snapshot, template),
    }
    if template.unmoved:
        params[template.unmoved] = "continued"
    if template.flow:
        params["flowStatus"] = "1"
    model = "imGroupOpen" if kind == "IM_GROUP" else "imRobotOpen"
    deliver = {"robotCode": robot, "extension": {"dynamicSummary": "true"}}
    if kind == "IM_ROBOT":
        deliver["spaceType"] = "IM_ROBOT"
    return {
        "cardTemplateId": template.id,
        "outTrackId": track,
        "callbackType": "STREAM",
        "userIdType": 1,
        "cardData": {"cardParamMap": params},
        f"{model}SpaceModel": {
            "supportForward": True,
            "lastMessageI18n": {"ZH_CN": title(snapshot), "EN_US": title(snapshot)},
        },
        "openSpaceId": f"dtv1.card//{kind}.{place}",
        f"{model}DeliverModel": deliver,
    }


def message_text(snapshot: Snapshot) -> str:
    """A finished message: no tables, two spaces before a line break (5.6)."""
    text = with_breaks(without_tables(safe(snapshot.text)), "  ")
    return _stacked(snapshot, text) or NOTHING


def title(snapshot: Snapshot) -> str:
    """The line in the chat list: short, without Markdown, never empty (5.2)."""
    source = snapshot.summary or snapshot.text or snapshot.note or snapshot.status
    plain = " ".join(safe(_MARKS.sub(" ", source[:1000])).split())
    return plain[:TITLE_CHARS] or "…"


def _card_markdown(text: str) -> str:
    return with_breaks(safe(text), "<br>")


def _stacked(snapshot: Snapshot, text: str) -> str:
    """Thoughts as a quote, the text or the status line, the note, the small print."""
    thoughts = _tail(safe(snapshot.reasoning).strip(), FOLDED_BYTES)
    quote = "\n".join(f"> {line}" for line in thoughts.split("\n")) if thoughts else ""
    parts = (quote, text or safe(snapshot.status), safe(snapshot.note), safe(snapshot.footer))
    return "\n\n".join(part for part in parts if part)


def _tail(text: str, size: int) -> str:
    """At most about `size` bytes of the end."""
    raw = text.encode()
    return text if len(raw) <= size else "…" + raw[-size:].decode("utf-8", "ignore")
