"""Snapshots as cards, posts and texts (reference/feishu.md 6.1, 6.2, 5.3). Pure.

Everything a model or a person wrote passes foreign_text.py; only this file writes tags.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.feishu.api import dumps
from adapters.feishu.foreign_text import literal, plain, safe
from adapters.feishu.speed import Typewriter
from bot.contract import Button, Snapshot
from bot.errors import TooBig

ANSWER, REASONING, STATUS = "answer_md", "reason_md", "status_md"
"""The elements whose text grows (element_id, reference/feishu.md 6.2)."""

CARD_BYTES = 29_000
"""Most bytes of a card as it travels; the platform's limit is 30 KB for the request body
(reference/feishu.md 5.3, 6.4)."""

CHAR_BYTES = 7
"""Most bytes of one character as a card travels, JSON inside JSON: a control character."""

FRAME_BYTES = 6_000
"""More than a card takes besides its texts."""

TEXT_BYTES = 15_000
"""Most bytes of an answer in one card: 30 KB of request less reasoning, escapes and frame."""

REASONING_BYTES = (8000, 2000, 0)
"""How much of the reasoning a card holds: the first that leaves room for the answer."""

SUMMARY_CHARS = 120

_LOOK = {"stop": "danger", "retry": "default", "continue": "primary"}
_PANEL_TITLE = "💭 思考过程 · Reasoning"

Card = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Face:
    """What a card shows: `texts` by element id, and `frame`, everything else. Two faces
    with one frame differ only in text that the client can type."""

    texts: dict[str, str]
    note: str
    footer: str
    buttons: tuple[Button, ...]
    summary: str

    @property
    def frame(self) -> tuple[object, ...]:
        return (tuple(self.texts), self.note, self.footer, self.buttons)

    @property
    def surely_fits(self) -> bool:
        """So short that it need not be measured."""
        words = sum(map(len, self.texts.values())) + len(self.note) + len(self.footer)
        return words * CHAR_BYTES + FRAME_BYTES <= CARD_BYTES


def face(
    snapshot: Snapshot, *, growing: bool = False, plainly: bool = False, room: int = CARD_BYTES
) -> Face:
    """The face of a snapshot. `growing`: each text stays a prefix of the next one.
    `plainly`: no Markdown at all, for a card that was refused for its content. `room`:
    most bytes of reasoning, out of what the whole card may have."""
    words = literal(snapshot.text) if plainly else safe(snapshot.text, growing=growing)
    thoughts = _first_bytes(snapshot.reasoning, room)
    thoughts = literal(thoughts) if plainly else safe(thoughts, growing=growing)
    texts = {
        REASONING: thoughts,
        ANSWER: words,
        STATUS: "" if words.strip() else literal(snapshot.status),
    }
    return Face(
        {key: _sound(text) for key, text in texts.items() if text.strip()},
        _sound(literal(snapshot.note)),
        _sound(literal(snapshot.footer)),
        snapshot.buttons,
        summary(snapshot),
    )


def fitting(
    snapshot: Snapshot, *, typing: Typewriter | None = None, plainly: bool = False
) -> tuple[Face, Card]:
    """The face and the card of a snapshot, with as much reasoning as has room. `typing`:
    the card grows, and the client types it so. Raises TooBig when even no reasoning is
    too much."""
    for room in REASONING_BYTES:
        shown = face(snapshot, growing=typing is not None, plainly=plainly, room=room)
        card = draw(shown, typing)
        if shown.surely_fits or len(dumps(dumps(card)).encode()) <= CARD_BYTES:
            return shown, card
    raise TooBig("the card is over 30 KB before it is sent", what="bytes")


def draw(shown: Face, typing: Typewriter | None = None) -> Card:
    """A card of schema 2.0 (reference/feishu.md 6.1)."""
    elements: list[Card] = []
    if REASONING in shown.texts:
        elements.append(_panel(shown.texts[REASONING]))
    elements += [_markdown(shown.texts[key], key) for key in (ANSWER,) if key in shown.texts]
    elements += [_small(shown.texts[key], key) for key in (STATUS,) if key in shown.texts]
    elements += [_small(text, key) for text, key in _small_print(shown) if text]
    if shown.buttons:
        elements.append(_row(shown.buttons))
    return {
        "schema": "2.0",
        "config": config(shown.summary, typing),
        "body": {"elements": elements or [_markdown(" ", ANSWER)]},
    }


def config(preview: str, typing: Typewriter | None = None) -> Card:
    """The config of a card; the summary is the preview in the chat list."""
    settings: Card = {"update_multi": True, **streaming(typing), "summary": {"content": preview}}
    return settings


def streaming(typing: Typewriter | None) -> Card:
    """What the config says of streaming mode."""
    if typing is None:
        return {"streaming_mode": False}
    return {"streaming_mode": True, "streaming_config": typing.config}


def summary(snapshot: Snapshot) -> str:
    """The preview, plain and short."""
    words = snapshot.summary or snapshot.text or snapshot.note or snapshot.status
    return _sound(plain(" ".join(words[: SUMMARY_CHARS * 2].split())[:SUMMARY_CHARS]))


# ---------------------------------------------------------------- elements


def _markdown(content: str, element: str) -> Card:
    return {"tag": "markdown", "element_id": element, "content": content}


def _small(content: str, element: str) -> Card:
    return {**_markdown(content, element), "text_size": "notation"}


def _small_print(shown: Face) -> tuple[tuple[str, str], ...]:
    return ((shown.note, "note_md"), (shown.footer, "footer_md"))


def _panel(content: str) -> Card:
    return {
        "tag": "collapsible_panel",
        "element_id": "reasoning",
        "expanded": False,
        "header": {"title": {"tag": "plain_text", "content": _PANEL_TITLE}},
        "elements": [_small(content, REASONING)],
    }


def _row(buttons: tuple[Button, ...]) -> Card:
    columns = [
        {"tag": "column", "width": "auto", "elements": [_button(button, index)]}
        for index, button in enumerate(buttons)
    ]
    return {"tag": "column_set", "element_id": "buttons", "columns": columns}


def _button(button: Button, index: int) -> Card:
    return {
        "tag": "button",
        "element_id": f"btn_{index}",
        "type": _LOOK.get(button.action, "text"),
        "size": "small",
        "text": {"tag": "plain_text", "content": button.label},
        "behaviors": [
            {"type": "callback", "value": {"action": button.action, "turn": button.turn}}
        ],
    }


# ---------------------------------------------------------------- without a card


def post(snapshot: Snapshot) -> Card:
    """A post whose answer is Markdown (tag md alone in its paragraph, 5.3)."""
    rows = [_sound(safe(snapshot.text)), *_tail(snapshot, literal)]
    content = [[{"tag": "md", "text": text}] for text in rows if text.strip()]
    return {"zh_cn": {"title": "", "content": content or [[{"tag": "text", "text": "…"}]]}}


def text(snapshot: Snapshot) -> Card:
    """A plain text message."""
    rows = [_sound(plain(snapshot.text)), *_tail(snapshot, plain)]
    return {"text": "\n\n".join(row for row in rows if row.strip()) or "…"}


def _tail(snapshot: Snapshot, escape: Callable[[str], str]) -> list[str]:
    return [_sound(escape(line)) for line in (snapshot.note, snapshot.footer)]


# ---------------------------------------------------------------- sizes


def _first_bytes(words: str, room: int) -> str:
    """The first `room` bytes of a text, with a mark when some are missing; a longer text
    that is already over the limit gives the same result, so shown text never changes."""
    raw = words.encode("utf-8", "replace")
    if len(raw) <= room:
        return words
    return raw[:room].decode("utf-8", "ignore") + "\n…" if room else ""


def _sound(words: str) -> str:
    """Text that JSON can carry: no lone surrogates."""
    return words.encode("utf-8", "replace").decode()
