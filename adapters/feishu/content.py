"""The content of a message, by its type, as parts (reference/feishu.md 4.3). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters.foreign import at, loads, text_at
from bot.contract import Part, Person, TextPart, UnreadablePart

ALL = "@_all"
"""The placeholder of @all in a text; its mention is often absent (reference/feishu.md 4.2)."""

_KINDS = {
    "image": "image",
    "file": "file",
    "folder": "folder",
    "audio": "audio",
    "media": "video",
    "sticker": "sticker",
    "interactive": "card",
    "merge_forward": "forward",
    "share_chat": "share",
    "share_user": "share",
    "location": "location",
    "todo": "todo",
    "vote": "vote",
    "video_chat": "calendar",
    "share_calendar_event": "calendar",
    "calendar": "calendar",
    "general_calendar": "calendar",
    "hongbao": "redpacket",
    "system": "system",
}
_NAMES = ("file_name", "name", "topic", "summary", "title")

_CONTROLS = {code: None for code in (*range(9), 11, 12, *range(14, 32), 127)}
"""Control characters but tab, newline and carriage return; no one types them on purpose."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """Who a message mentions: `me` when it is this bot, `others` in order, and what each
    placeholder stands for (empty for this bot)."""

    me: bool = False
    others: tuple[Person, ...] = ()
    names: Mapping[str, str] | None = None

    @classmethod
    def read(cls, items: object, my_open_id: str) -> Mentions:
        """From `message.mentions`; `my_open_id` is empty while it is not known."""
        me, others, names = False, list[Person](), dict[str, str]()
        for item in items if isinstance(items, list) else []:
            key, name = text_at(item, "key"), text_at(item, "name")
            person = text_at(item, "id", "open_id") or text_at(item, "id")
            mine = bool(my_open_id) and person == my_open_id
            me = me or mine
            if key:
                names[key] = "" if mine else f"@{name}"
            if person and not mine and key != ALL:
                others.append(Person(person, name))
        return cls(me, tuple(others), names)

    def fill(self, text: str) -> str:
        """`text` with each placeholder replaced; `@_user_1` never hits `@_user_10`."""
        if not self.names and ALL not in text:
            return text
        names = {ALL: "@all", **(self.names or {})}
        keys = "|".join(re.escape(key) for key in sorted(names, key=len, reverse=True))

        def name_of(found: re.Match[str]) -> str:
            name = names[found[1]]
            return f"{name}{found[2]}" if name else ""

        return re.sub(rf"({keys})(?!\d)([ \u00a0]?)", name_of, text)


def talks_to_all(content: object) -> bool:
    """Whether the message says @all, in a text or in a post."""
    return isinstance(content, str) and ALL in content


def parts_of(message_type: str, content: object, mentions: Mentions) -> tuple[Part, ...]:
    """The parts of a message. `content` is the JSON string of the event; empty for a
    message that was recalled before it was delivered."""
    if not isinstance(content, str):
        return (UnreadablePart("broken"),)
    if not content.strip():
        return (UnreadablePart("empty"),)
    value = loads(content)
    if not isinstance(value, dict):
        return (UnreadablePart("broken"),)
    if message_type == "text":
        return _text(value, mentions)
    if message_type == "post":
        return _post(value, mentions)
    name = next((text for key in _NAMES if (text := text_at(value, key))), "")
    return (UnreadablePart(_KINDS.get(message_type, "unknown"), _clean(name)[:200]),)


def _text(value: Mapping[str, object], mentions: Mentions) -> tuple[Part, ...]:
    text = value.get("text")
    if not isinstance(text, str):
        return (UnreadablePart("broken"),)
    return _words(mentions.fill(text))


def _words(text: str) -> tuple[Part, ...]:
    text = _clean(text).strip()
    return (TextPart(text),) if text else ()


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)


# ---------------------------------------------------------------- posts


def _post(value: Mapping[str, object], mentions: Mentions) -> tuple[Part, ...]:
    """A rich text: one TextPart, then what could not be read. Inbound posts have no
    locale key, but one is understood (reference/feishu.md 4.3)."""
    if not isinstance(value.get("content"), list):
        value = next((v for v in value.values() if isinstance(v, Mapping)), value)
    rows = value.get("content")
    if not isinstance(rows, list):
        return (UnreadablePart("broken"),)
    elements = [row if isinstance(row, list) else [] for row in rows]
    lines = [text_at(value, "title"), *("".join(_inline(row, mentions)) for row in elements)]
    unread = [part for row in elements for part in _pictures(row)]
    return (*_words("\n".join(lines)), *unread)


def _inline(row: list[object], mentions: Mentions) -> Iterable[str]:
    for element in row:
        tag, text = text_at(element, "tag"), text_at(element, "text")
        if tag == "a":
            href = text_at(element, "href")
            yield f"[{text or href}]({href})" if href else text
        elif tag == "at":
            yield _at(element, mentions)
        elif tag == "emotion":
            yield f"[{text_at(element, 'emoji_type')}]"
        elif tag == "code_block":
            language = text_at(element, "language").lower()
            yield f"```{language}\n{text.rstrip()}\n```"
        elif tag == "hr":
            yield "---"
        else:
            yield mentions.fill(text)


def _at(element: object, mentions: Mentions) -> str:
    """A mention inside a post: its user_id is a placeholder, its name often empty."""
    user = text_at(element, "user_id")
    if user in (ALL, "all"):
        return "@all"
    name = (mentions.names or {}).get(user)
    return f"@{text_at(element, 'user_name')}" if name is None else name


def _pictures(row: list[object]) -> Iterable[Part]:
    for element in row:
        if at(element, "tag") == "img":
            yield UnreadablePart("image")
        elif at(element, "tag") == "media":
            yield UnreadablePart("video", text_at(element, "file_name")[:200])
