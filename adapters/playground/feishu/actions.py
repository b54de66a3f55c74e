"""Buttons: the event of a press, and what its answer does (reference/feishu.md 4.6, 6.9)."""

from __future__ import annotations

from typing import Any

from adapters.playground.feishu import events
from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.cards import Cards, Entity
from adapters.playground.feishu.link import Push
from adapters.playground.feishu.wire import Refused
from adapters.playground.feishu.world import SimPerson

Json = dict[str, Any]

NOT_SET_UP, TIMED_OUT, FAILED, BAD_ANSWER, BAD_CARD = 200340, 200341, 200671, 200672, 200673
"""What the client shows (3.2)."""

TOASTS = {"info", "success", "warning", "error"}


def event(backend: Backend, entity: Entity, block_id: str, person: SimPerson, chat: str) -> Json:
    """The `event` of card.action.trigger. Raises ValueError when nobody could press that
    button, or pressing it would tell the bot nothing."""
    button = entity.picture.buttons.get(block_id)
    if button is None:
        raise ValueError(f"no button {block_id!r} on this card")
    if button.get("disabled"):
        raise ValueError(f"button {block_id!r} is disabled")
    action: Json = {"value": _value(button), "tag": "button", "timezone": "Asia/Shanghai"}
    if button.get("name"):
        action["name"] = button["name"]
    operator = events.ids_of(backend, person) | {"tenant_key": backend.world.tenant_key}
    return {
        "operator": operator,
        "token": backend.world.fresh("c-"),
        "action": action,
        "host": "im_message",
        "context": {"open_message_id": entity.message_id, "open_chat_id": chat},
    }


def _value(button: Json) -> Any:
    """The callback's value; schema 1.0 buttons carry it themselves."""
    for behavior in button.get("behaviors", []):
        if behavior.get("type") == "callback":
            return behavior.get("value", {})
    if "value" in button:
        return button["value"]
    raise ValueError("this button calls nobody back")


def outcome(cards: Cards, entity: Entity, push: Push) -> Json:
    """What the person who pressed sees."""
    if push.status in ("timeout", "lost", "unsent"):
        return {"error": TIMED_OUT}
    if not push.good:
        return {"error": BAD_ANSWER if push.status == "malformed" else FAILED}
    answer = {} if push.answer is None else push.answer
    toast = answer.get("toast", {}) if isinstance(answer, dict) else None
    if not isinstance(toast, dict) or (toast and toast.get("type", "info") not in TOASTS):
        return {"error": BAD_ANSWER}
    if answer.get("card") and not _apply(cards, entity, answer["card"]):
        return {"error": BAD_CARD}
    return toast


def _apply(cards: Cards, entity: Entity, card: Any) -> bool:
    """Show the card of an answer; while streaming it is ignored (6.1)."""
    data = card.get("data") if isinstance(card, dict) and card.get("type") == "raw" else None
    if not isinstance(data, dict) or data.get("schema") != entity.card.get("schema"):
        return False
    try:
        cards.sound_in_message(data)
    except Refused:
        return False
    if not entity.streaming:
        cards.replace(entity, data)
    return True
