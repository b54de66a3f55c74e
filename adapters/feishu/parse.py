"""Event payloads to what the core understands (reference/feishu.md 4). Pure; never raises,
whatever the payload is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.feishu.content import Mentions, parts_of, talks_to_all
from adapters.feishu.settings import BotIdentity
from adapters.foreign import at, loads, text_at
from bot.contract import CardAction, ChatKind, InboundMessage, Person

RECEIVE = "im.message.receive_v1"
RECALLED = "im.message.recalled_v1"
ACTION = "card.action.trigger"

ACTIONS = frozenset({"stop", "retry", "continue", "like", "dislike"})


@dataclass(frozen=True, slots=True)
class Recalled:
    """A person took a message back (reference/feishu.md 4.5)."""

    chat: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing for the core, and why."""

    reason: str


Parsed = InboundMessage | CardAction | Recalled | Nothing


def event_type(payload: Mapping[str, Any]) -> str:
    """The `header.event_type` of a schema 2.0 payload, or an empty string."""
    return text_at(payload, "header", "event_type")


def is_group_message(payload: Mapping[str, Any]) -> bool:
    """Whether the bot's identity is needed to read this payload."""
    return (
        event_type(payload) == RECEIVE
        and text_at(payload, "event", "message", "chat_type") != "p2p"
    )


def parse(payload: Mapping[str, Any], bot: str, me: BotIdentity | None) -> Parsed:
    """One decoded event payload, schema 2.0 (reference/feishu.md 4.1). `bot` is the bot's
    name in this program; `me` is None while Feishu has not told who it is."""
    kind = event_type(payload)
    if kind == RECEIVE:
        return _message(payload, bot, me)
    if kind == ACTION:
        return _action(payload, bot)
    if kind == RECALLED:
        return _recalled(payload)
    return Nothing(f"event {kind[:80]!r} is not used" if kind else "no event type")


# ---------------------------------------------------------------- messages


def _message(payload: Mapping[str, Any], bot: str, me: BotIdentity | None) -> Parsed:
    event = at(payload, "event")
    message = at(event, "message")
    message_id, chat = text_at(message, "message_id"), text_at(message, "chat_id")
    sender = _person(at(event, "sender", "sender_id"))
    if not message_id or not chat or sender is None:
        return Nothing("a message without message_id, chat_id or sender")
    kind: ChatKind = "p2p" if text_at(message, "chat_type") == "p2p" else "group"
    mentions = Mentions.read(at(message, "mentions"), me.open_id if me else "")
    return InboundMessage(
        bot=bot,
        platform="feishu",
        message_id=message_id,
        chat=chat,
        chat_kind=kind,
        sender=sender,
        parts=parts_of(text_at(message, "message_type"), at(message, "content"), mentions),
        address=_address(message, message_id, chat, kind),
        topic=text_at(message, "thread_id"),
        mentions=mentions.others,
        sent_at=_seconds(text_at(message, "create_time")),
        ignored=_ignored(event, kind, sender, mentions, me),
    )


def _address(message: object, message_id: str, chat: str, kind: ChatKind) -> dict[str, object]:
    """All that answering in place needs (reference/feishu.md 4.2, 5.3)."""
    thread = text_at(message, "thread_id")
    return {
        "chat_id": chat,
        "chat_type": kind,
        "message_id": message_id,
        "thread_id": thread,
        "root_id": text_at(message, "root_id"),
        "parent_id": text_at(message, "parent_id"),
        "reply_in_thread": bool(thread),
        "create_time": text_at(message, "create_time"),
    }


def _ignored(
    event: object, kind: ChatKind, sender: Person, mentions: Mentions, me: BotIdentity | None
) -> str:
    """Why nobody asked us, or an empty string (reference/feishu.md 4.2)."""
    if me is not None and sender.id == me.open_id:
        return "own_message"
    if text_at(event, "sender", "sender_type") not in ("user", ""):
        return "from_bot"
    if kind == "p2p" or mentions.me:
        return ""
    if talks_to_all(at(event, "message", "content")):
        return "at_all"
    return "not_mentioned" if me is not None else "identity_unknown"


def _person(ids: object) -> Person | None:
    """A verified sender: the open_id, and the other ids as `also`."""
    open_id = text_at(ids, "open_id")
    if not open_id:
        return None
    also = (text_at(ids, "user_id"), text_at(ids, "union_id"))
    return Person(open_id, also=tuple(other for other in also if other))


def _recalled(payload: Mapping[str, Any]) -> Parsed:
    chat, message = text_at(payload, "event", "chat_id"), text_at(payload, "event", "message_id")
    return Recalled(chat, message) if message else Nothing("a recall without message_id")


# ---------------------------------------------------------------- buttons


def _action(payload: Mapping[str, Any], bot: str) -> Parsed:
    """A pressed button (reference/feishu.md 4.6); its value is an object or a string."""
    event = at(payload, "event")
    operator = _person(at(event, "operator"))
    chat = text_at(event, "context", "open_chat_id")
    event_id = text_at(payload, "header", "event_id")
    if operator is None or not chat or not event_id:
        return Nothing("a card action without operator, chat or event_id")
    value = at(event, "action", "value")
    if isinstance(value, str):
        value = loads(value)
    action, turn = text_at(value, "action"), text_at(value, "turn")
    if action not in ACTIONS or not turn:
        return Nothing("a card action that is not of our buttons")
    return CardAction(bot, "feishu", event_id, chat, operator, action, turn)


def _seconds(milliseconds: str) -> float:
    """Milliseconds since the epoch as seconds; 0.0 for anything else."""
    if not (milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) <= 15):
        return 0.0
    return int(milliseconds) / 1000
