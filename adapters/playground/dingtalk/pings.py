"""Whom a bot's message notifies, and which links in it act when touched."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`", re.DOTALL)
_ACTING = re.compile(r"dtmd://", re.IGNORECASE)
_AT_TAG = re.compile(r"<a\s[^>]*\batId\s*=\s*[\"']?([^\s\"'>]+)", re.IGNORECASE)


def live_links(markdown: str) -> list[str]:
    """`["dtmd"]` when a dtmd link stands outside code: a tap would make the person say
    something (reference/dingtalk.md 5.4). Bare addresses count, to be on the safe side."""
    return ["dtmd"] if _ACTING.search(_CODE.sub("", markdown)) else []


def webhook_pings(at: Any, text: str) -> list[str]:
    """An @ needs the id in `at` and the literal `@id` in the text (reference 5.2)."""
    if not isinstance(at, dict):
        return []
    pings = ["all"] if at.get("isAtAll") is True else []
    ids = [user for user in at.get("atUserIds") or [] if isinstance(user, str) and user]
    return pings + [user for user in ids if f"@{user}" in text]


def delivery_pings(model: Any) -> list[str]:
    """`atUserIds` of a card's deliver model: `{"0123": "Alice"}` or `{"@ALL": "@ALL"}`."""
    at = model.get("atUserIds") if isinstance(model, dict) else None
    if not isinstance(at, dict):
        return []
    return ["all" if user == "@ALL" else user for user in at]


def card_pings(markdown: str) -> list[str]:
    """`<a atId=…>` in a card's Markdown. Whether the tag alone notifies is unsure
    (reference 6.3 wants `cardAtUserIds` too); here it does, to be on the safe side."""
    plain = _CODE.sub("", markdown)
    found = ["all" if user.upper() == "@ALL" else user for user in _AT_TAG.findall(plain)]
    return found + live_links(markdown)
