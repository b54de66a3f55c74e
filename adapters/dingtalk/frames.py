"""Frames of the Stream connection: decoded, and answered (reference/dingtalk.md 2.3-2.5).
Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapters.foreign import at, dumps, loads, text_at

MESSAGES = "/v1.0/im/bot/messages/get"
CARD_CALLBACK = "/v1.0/card/instances/callback"
TOPICS = (MESSAGES, CARD_CALLBACK)
"""The CALLBACK topics that are subscribed (reference/dingtalk.md 3)."""

EVENTS = "*"
"""The topic of every EVENT."""

RECALL = "robot_msg_recall"
"""The eventType of a recall. Whether it is pushed for a person's message, and names it as
`msgId`, is not certain (reference/dingtalk.md 3)."""

OK, UNKNOWN_TOPIC, FAILED = 200, 404, 500
"""Codes of an acknowledgement (reference/dingtalk.md 2.5)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame from the server. `kind` is SYSTEM, EVENT or CALLBACK; `data` is the JSON
    text as it came; `message_id` may be empty, then no answer is wanted. `event`: the
    eventType of an EVENT."""

    kind: str
    topic: str
    message_id: str
    data: str
    event: str = ""


def decode(text: str | bytes) -> Frame:
    """One text frame. Raises ValueError for junk, never with its content."""
    value = loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{len(text)} characters that are no JSON object")
    kind, headers = text_at(value, "type"), at(value, "headers")
    if not kind or not isinstance(headers, dict):
        raise ValueError("a frame without type or headers")
    data = value.get("data", "")
    if not isinstance(data, str):
        data = dumps(data)
    topic, event = text_at(headers, "topic"), text_at(headers, "eventType")
    return Frame(kind, topic, text_at(headers, "messageId"), data, event)


def payload(frame: Frame) -> dict[str, Any]:
    """The object in `data`. Raises ValueError."""
    value = loads(frame.data)
    if not isinstance(value, dict):
        raise ValueError(f"data of {len(frame.data)} characters is no JSON object")
    return value


def ack(frame: Frame, data: str, code: int = OK) -> str:
    """The answer to a frame; `data` is JSON text (reference/dingtalk.md 2.5)."""
    words = {OK: "OK", UNKNOWN_TOPIC: "topic not found"}.get(code, "failed")
    headers = {"messageId": frame.message_id, "contentType": "application/json"}
    return dumps({"code": code, "message": words, "headers": headers, "data": data})


def response(value: dict[str, Any] | None) -> str:
    """The `data` of a CALLBACK's answer; for a card the change it shows (2.5)."""
    return dumps({"response": value})


def event_later() -> str:
    """The same for one that is to come again (2.5)."""
    return dumps({"status": "LATER", "message": "later"})


def event_taken() -> str:
    """The `data` of an EVENT's answer (2.5)."""
    return dumps({"status": "SUCCESS", "message": "ok"})
