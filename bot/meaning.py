"""What a message means: a question, a command or something that gets one sentence; in
which language, in whose memory and in whose order. Pure but for the languages heard."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from bot.commands.read import read
from bot.contract import InboundMessage, Json, Part, QuotePart, TextPart, TurnKind, UnreadablePart
from bot.settings import Chat
from bot.texts import language_of

SPEAKERS = 10_000
"""People whose language is remembered."""

QUOTE_CHARS = 20_000
"""A quote longer than this is cut; the person did not type it."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """`kind`, `parts` and `notice` are the turn's; `blanks` fill the notice in. `retry`: the
    asker's last question is to be asked again."""

    kind: TurnKind
    parts: tuple[Part, ...]
    notice: str = ""
    blanks: Json = field(default_factory=dict)
    retry: bool = False


def meaning_of(message: InboundMessage, chat: Chat) -> Meaning:
    text = message.text
    if len(text) > chat.message_chars:
        kept = (TextPart(text[:200]),)
        blanks = {"size": len(text), "limit": chat.message_chars}
        return Meaning("notice", kept, "notice.too_long", blanks)
    if not text:
        return _wordless(message.parts)
    command = read(text)
    if command is None:
        return Meaning("chat", tuple(_cut_quote(part) for part in message.parts))
    if command.name == "retry" and command.known:
        return Meaning("chat", message.parts, retry=True)
    return Meaning("command", message.parts)


def _wordless(parts: tuple[Part, ...]) -> Meaning:
    """A message without words: what cannot be read may wait for words that follow, and
    the rest gets one clear sentence (needs.md 2)."""
    kinds = [part.kind for part in parts if isinstance(part, UnreadablePart)]
    for kind in ("broken", "quota"):
        if kind in kinds:
            return Meaning("notice", parts, f"notice.{kind}")
    if all(kind == "empty" for kind in kinds):
        return Meaning("notice", parts, "notice.empty")
    return Meaning("chat", parts)


def _cut_quote(part: Part) -> Part:
    if isinstance(part, QuotePart) and len(part.text) > QUOTE_CHARS:
        return replace(part, text=part.text[:QUOTE_CHARS] + "…")
    return part


def conversation_of(message: InboundMessage, chat: Chat) -> str:
    """Whose memory (law 2): bot, chat and topic, whole; a setting adds the person."""
    key = f"{message.bot}|{message.chat}|{message.topic}"
    alone = chat.memory == "person" and message.chat_kind == "group"
    return f"{key}|{message.sender.id}" if alone else key


def lane_of(conversation: str, message: InboundMessage, chat: Chat) -> str:
    """Whose order (law 2): in a group each person's questions, or by setting the chat's."""
    each = chat.lane == "person" and chat.memory == "chat" and message.chat_kind == "group"
    return f"{conversation}|{message.sender.id}" if each else conversation


class Languages:
    """The language in which to answer a person."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._spoken: OrderedDict[tuple[str, str], str] = OrderedDict()

    def of(self, message: InboundMessage) -> str:
        """That of the words; a command has none of its own and gets the one in which the
        person last spoke here."""
        if self._chat.language != "auto":
            return self._chat.language
        who, text = (message.chat, message.sender.id), message.text
        spoken = language_of(text, "") if text else ""
        if spoken and read(text) is None:
            self._spoken[who] = spoken
            self._spoken.move_to_end(who)
            if len(self._spoken) > SPEAKERS:
                self._spoken.popitem(last=False)
        elif spoken == "zh":
            return "zh"
        return self._spoken.get(who, "zh")
