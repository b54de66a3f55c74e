"""What comes in: messages, pressed buttons, and whom adapters hand them to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from bot.contract.base import (
    ChatKind,
    Json,
    Platform,
)


@dataclass(frozen=True, slots=True)
class Person:
    """A verified sender. `also` holds further verified ids of the same person."""

    id: str
    name: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class QuotePart:
    """Text that the message quotes."""

    text: str
    author: str = ""


@dataclass(frozen=True, slots=True)
class UnreadablePart:
    """Something that cannot be read yet. `kind` is one of: image, file, folder, audio,
    video, sticker, card, forward, location, share, calendar, vote, todo, redpacket,
    system, empty, quota, broken, unknown."""

    kind: str
    name: str = ""


Part = TextPart | QuotePart | UnreadablePart


def words_of(parts: tuple[Part, ...]) -> str:
    """The words the person typed, parts joined by newlines."""
    return "\n".join([part.text for part in parts if isinstance(part, TextPart)]).strip()


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One message as the platform delivered it, decided in the adapter's parse.py alone.

    `address` is the adapter's own JSON object: all it needs to answer in the right
    place after a restart. The core stores it and hands it back, and never looks inside.
    `ignored` is the reason why nobody asked us (not_mentioned, at_all,
    identity_unknown, own_message, from_bot); empty when the message is for us. `age` is
    how old the message was when it came, in seconds by the platform's own clock, 0 when
    that is not known (design.md 5). `fetched`: read back from the history, not pushed.
    `away`: minutes that an answer to it may own up to having missed, 0 for none.
    """

    bot: str
    platform: Platform
    message_id: str
    chat: str
    chat_kind: ChatKind
    sender: Person
    parts: tuple[Part, ...]
    address: Json
    topic: str = ""
    mentions: tuple[Person, ...] = ()
    sent_at: float = 0.0
    ignored: str = ""
    age: float = 0.0
    fetched: bool = False
    away: int = 0

    @property
    def text(self) -> str:
        return words_of(self.parts)


@dataclass(frozen=True, slots=True)
class CardAction:
    """A button was pressed. All ids come from the verified event, except `turn`, which
    comes from the card and is checked against chat and operator by the core.
    `action` is one of the Button actions."""

    bot: str
    platform: Platform
    event_id: str
    chat: str
    operator: Person
    action: str
    turn: str


@dataclass(frozen=True, slots=True)
class ActionReply:
    """What the person who pressed sees at once; an empty toast shows nothing."""

    toast: str = ""
    kind: Literal["info", "success", "warning", "error"] = "info"


class Intake(Protocol):
    """What an adapter hands its events to. Each method returns when the event is safe
    on disk: that moment, and no earlier, is the moment to acknowledge. Raises
    StoreError when it could not be made safe: then do not acknowledge."""

    async def message(self, message: InboundMessage) -> None: ...

    async def action(self, action: CardAction) -> ActionReply: ...

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        """A person took this message back. `chat` is empty where the event does not say it
        as messages do."""

    def gap(self, bot: str, since: float, until: float) -> None:
        """Nothing was heard for certain between these moments (seconds since the epoch
        by the platform's clock): what was said then may have to be fetched."""
