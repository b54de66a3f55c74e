"""What a robot message says, by its msgtype (reference/dingtalk.md 4.3, 4.4). Pure, and
nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.foreign import at, items_at, number_at, object_at, text_at
from bot.contract import Part, QuotePart, TextPart, UnreadablePart

KINDS = {
    "picture": "image",
    "image": "image",
    "audio": "audio",
    "voice": "audio",
    "video": "video",
    "file": "file",
    "chatRecord": "forward",
    "interactiveCard": "card",
    "actionCard": "card",
    "feedCard": "card",
    "link": "card",
    "location": "location",
}
"""Kinds of UnreadablePart by msgtype."""

QUOTA_USED_UP = 20001
"""errorCode of a message that came without its content (reference/dingtalk.md 4.2)."""

NAME_CHARS = 120


def parts_of(data: Mapping[str, Any]) -> tuple[Part, ...]:
    """The message's quote, if it has one, and what the person wrote or sent."""
    kind = text_at(data, "msgtype")
    if _without_content(data):
        return (UnreadablePart("quota" if used_up(data) else "broken"),)
    own = _own_parts(kind, data)
    return (*_quote(data), *own) if own else (*_quote(data), UnreadablePart("empty"))


def used_up(data: Mapping[str, Any]) -> bool:
    """The month's pushes are spent, and so the message came without its content."""
    return number_at(data, "errorCode") == QUOTA_USED_UP and _without_content(data)


def _without_content(data: Mapping[str, Any]) -> bool:
    return data.get("text") is None and data.get("content") is None


def _own_parts(kind: str, data: Mapping[str, Any]) -> list[Part]:
    if kind == "text":
        return _words(_plain_text(data))
    if kind == "markdown":
        return _words(_plain_text(data) or text_at(object_at(data, "content"), "text"))
    content = object_at(data, "content")
    if kind == "richText":
        return _rich_parts(content, data)
    if kind in ("audio", "voice"):
        return _words(text_at(content, "recognition")) or [UnreadablePart("audio")]
    name = text_at(content, "fileName")[:NAME_CHARS] if kind == "file" else ""
    return [UnreadablePart(KINDS.get(kind, "unknown"), name)]


def _plain_text(data: Mapping[str, Any]) -> str:
    """`text.content`; the text object, or the text itself, may be a string (4.2)."""
    found = text_at(object_at(data, "text"), "content")
    return found or text_at(object_at(data, "content"), "content") or text_at(data, "text")


def _words(text: str) -> list[Part]:
    """A linked @name is cut out by DingTalk and leaves a leading space; a literal @name is
    the person's own text and stays (reference/dingtalk.md 4.3, 12.10)."""
    text = text.strip()
    return [TextPart(text)] if text else []


# ---------------------------------------------------------------- rich text


def _rich_parts(content: object, data: Mapping[str, Any]) -> list[Part]:
    """Runs of text joined to one part, pictures in their place."""
    items = items_at(content, "richText")
    if items and _repeats_the_mention(items[0], data):
        items = items[1:]
    parts: list[Part] = []
    run = ""
    for item in items:
        run += _rich_words(item, text_at(data, "chatbotUserId"))
        unreadable = _rich_thing(item)
        if unreadable is not None:
            parts += [*_words(run), unreadable]
            run = ""
    return parts + _words(run)


def _rich_words(item: object, bot: str) -> str:
    if text_at(item, "type") == "at":
        name, user = text_at(item, "atName"), text_at(item, "atUserId")
        return "" if not name or (bot and user == bot) else f"@{name.lstrip('@')} "
    return text_at(item, "text")


def _rich_thing(item: object) -> UnreadablePart | None:
    """An item may hold text and a downloadCode at once (reference/dingtalk.md 4.3)."""
    kind = text_at(item, "type")
    if text_at(item, "downloadCode") or text_at(item, "pictureDownloadCode"):
        return UnreadablePart(KINDS.get(kind, "image"))
    if kind in KINDS:
        return UnreadablePart(KINDS[kind])
    known = kind in ("", "at", "emoji", "skill") or bool(text_at(item, "text"))
    return None if known else UnreadablePart("unknown")


def _repeats_the_mention(item: object, data: Mapping[str, Any]) -> bool:
    """HarmonyOS repeats `@Bot` as the first text (reference/dingtalk.md 4.3): a lone @word
    in a message that mentions nobody but the bot."""
    text, users = text_at(item, "text").strip(), items_at(data, "atUsers")
    lone = text.startswith("@") and len(text.split()) == 1 and not text_at(item, "type")
    bot = text_at(data, "chatbotUserId")
    return lone and bool(bot) and [text_at(user, "dingtalkId") for user in users] == [bot]


# ---------------------------------------------------------------- quotes


def _quote(data: Mapping[str, Any]) -> list[Part]:
    """`repliedMsg` lies beside the text (reference/dingtalk.md 4.4)."""
    for holder in ("text", "content"):
        quoted = object_at(object_at(data, holder), "repliedMsg")
        if quoted:
            return _quoted(quoted)
    return []


def _quoted(quoted: Mapping[str, Any]) -> list[Part]:
    kind, content = text_at(quoted, "msgType"), object_at(quoted, "content")
    if kind == "richText":
        text = "".join(_rich_words(item, "") for item in items_at(content, "richText"))
    else:
        text = text_at(content, "text") or text_at(content, "content") or _bare(quoted, kind)
    text = (text or text_at(content, "recognition")).strip()
    if text:
        return [QuotePart(text)]
    name = text_at(content, "fileName")[:NAME_CHARS]
    return [UnreadablePart(KINDS.get(kind, "unknown"), name)]


def _bare(quoted: Mapping[str, Any], kind: str) -> str:
    """Quoted text whose content is the string itself."""
    found = at(quoted, "content")
    return found if isinstance(found, str) and kind in ("text", "markdown") else ""
