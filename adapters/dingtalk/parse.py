"""The data of a CALLBACK frame as what it means to the bot (reference/dingtalk.md 4, 6.6).
Pure, and nothing here raises: every field is optional, whatever the documentation says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.dingtalk.content import parts_of
from adapters.dingtalk.frames import CARD_CALLBACK, MESSAGES, RECALL
from adapters.foreign import items_at, number_at, object_at, text_at
from bot.contract import (
    CardAction,
    ChatKind,
    InboundMessage,
    Json,
    Person,
    TextPart,
)

ACTIONS = {
    "stop": "stop",
    "retry": "retry",
    "continue": "continue",
    "like": "like",
    "dislike": "dislike",
    "feedback_up": "like",
    "feedback_down": "dislike",
}
"""Our actions by what a template may call them (reference/dingtalk.md 6.6)."""

EVERYBODY = ("@所有人", "@all")
NAME_CHARS = 64
LATEST = 1e14
"""Milliseconds; a later createAt is junk."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Not for us to act on, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """A person took a message back (frames.RECALL)."""

    message_id: str


Event = InboundMessage | CardAction | Recalled


def parse(topic: str, data: object, bot: str, robot: str) -> Event | Nothing:
    """`bot` is our name for the app, `robot` its client id, which stands in for an absent
    robotCode (reference/dingtalk.md 4.2)."""
    if not isinstance(data, dict):
        return Nothing("broken")
    if topic == MESSAGES:
        return _message(data, bot, robot)
    if topic == CARD_CALLBACK:
        return _action(data, bot)
    if topic == RECALL:
        return _recall(data)
    return Nothing("unknown_topic")


def _recall(data: Mapping[str, Any]) -> Recalled | Nothing:
    """One that names only a processQueryKey is of a message of ours."""
    message_id = text_at(data, "msgId")
    return Recalled(message_id) if message_id else Nothing("recall of no person's message")


# ---------------------------------------------------------------- messages


def _message(data: Mapping[str, Any], bot: str, robot: str) -> InboundMessage | Nothing:
    message_id, conversation = text_at(data, "msgId"), text_at(data, "conversationId")
    sender = _sender(data)
    if not message_id or not conversation or not sender.id:
        return Nothing("broken: no msgId, conversationId or sender")
    kind = _kind(data)
    parts = parts_of(data)
    words = " ".join(part.text for part in parts if isinstance(part, TextPart))
    return InboundMessage(
        bot=bot,
        platform="dingtalk",
        message_id=message_id,
        chat=chat_of(kind, conversation, sender.id),
        chat_kind=kind,
        sender=sender,
        parts=parts,
        address=_address(data, kind, robot),
        mentions=_mentions(data),
        sent_at=_seconds(data, "createAt"),
        ignored=_ignored(data, kind, words),
    )


def chat_of(kind: ChatKind, conversation: str, person: str) -> str:
    """A group is its conversation, a private chat its person: a pressed button names a
    private chat by the person alone (reference/dingtalk.md 6.3, 12.3)."""
    return conversation if kind == "group" else person


def _kind(data: Mapping[str, Any]) -> ChatKind:
    """conversationType alone tells (4.2); where it is absent, a word about mentions does."""
    kind = text_at(data, "conversationType")
    if kind in ("1", "2"):
        return "group" if kind == "2" else "p2p"
    return "group" if "isInAtList" in data else "p2p"


def _sender(data: Mapping[str, Any]) -> Person:
    """The staff id where there is one, else the encrypted id (4.2)."""
    ids = (
        text_at(data, "senderStaffId"),
        text_at(data, "senderId"),
        text_at(data, "senderUnionId"),
    )
    return _person(ids, text_at(data, "senderNick"))


def _person(ids: tuple[str, ...], name: str = "") -> Person:
    known = tuple(dict.fromkeys(filter(None, ids)))
    name = "".join(c for c in name if c.isprintable())[:NAME_CHARS]
    return Person(known[0], name, known[1:]) if known else Person("")


def _mentions(data: Mapping[str, Any]) -> tuple[Person, ...]:
    """Who was mentioned besides the bot (reference/dingtalk.md 4.2)."""
    bot = text_at(data, "chatbotUserId")
    people = []
    for user in items_at(data, "atUsers"):
        ids = (text_at(user, "staffId"), text_at(user, "dingtalkId"), text_at(user, "unionId"))
        if any(ids) and (not bot or ids[1] != bot):
            people.append(_person(ids))
    return tuple(people)


def _ignored(data: Mapping[str, Any], kind: ChatKind, words: str) -> str:
    bot = text_at(data, "chatbotUserId")
    if bot and text_at(data, "senderId") == bot:
        return "own_message"
    if kind == "p2p" or _mentioned(data, bot):
        return ""
    return "at_all" if any(mark in words for mark in EVERYBODY) else "not_mentioned"


def _mentioned(data: Mapping[str, Any], bot: str) -> bool:
    """@all does not count (reference/dingtalk.md 4.3)."""
    if data.get("isInAtList") is True or text_at(data, "isInAtList") == "true":
        return True
    ids = [text_at(user, "dingtalkId") for user in items_at(data, "atUsers")]
    return bool(bot) and bot in ids


def _address(data: Mapping[str, Any], kind: ChatKind, robot: str) -> Json:
    """Everything that answering needs, under DingTalk's own names; the webhook's end is in
    milliseconds since the epoch (reference/dingtalk.md 4.2, 12.5)."""
    return {
        "conversationId": text_at(data, "conversationId"),
        "conversationType": "2" if kind == "group" else "1",
        "senderStaffId": text_at(data, "senderStaffId"),
        "robotCode": text_at(data, "robotCode") or robot,
        "msgId": text_at(data, "msgId"),
        "sessionWebhook": text_at(data, "sessionWebhook"),
        "sessionWebhookExpiredTime": number_at(data, "sessionWebhookExpiredTime"),
    }


def _seconds(data: Mapping[str, Any], key: str) -> float:
    millis = number_at(data, key)
    return millis / 1000.0 if 0 < millis < LATEST else 0.0


# ---------------------------------------------------------------- buttons


def _action(data: Mapping[str, Any], bot: str) -> CardAction | Nothing:
    """A pressed button (reference/dingtalk.md 6.6)."""
    private = object_at(object_at(data, "content"), "cardPrivateData")
    params = object_at(private, "params")
    names = [text_at(params, "action"), *_texts(items_at(private, "actionIds"))]
    action = next((ACTIONS[name] for name in names if name in ACTIONS), "")
    user, turn = text_at(data, "userId"), text_at(params, "turn")
    if not action or not user or not turn:
        return Nothing("a button that is not ours")
    return CardAction(
        bot=bot,
        platform="dingtalk",
        event_id=f"{text_at(data, 'outTrackId')}:{action}:{user}",
        chat=_chat_of_card(data, user),
        operator=Person(user),
        action=action,
        turn=turn,
    )


def _chat_of_card(data: Mapping[str, Any], user: str) -> str:
    """Only a group's callback is sure to name its conversation (reference/dingtalk.md 6.6);
    a private card was delivered to this very person (6.3)."""
    kind: ChatKind = "group" if text_at(data, "spaceType") == "IM_GROUP" else "p2p"
    return chat_of(kind, text_at(data, "spaceId"), user)


def _texts(items: list[object]) -> list[str]:
    return [item for item in items if isinstance(item, str)]
