"""What a bot may put into a message (reference/feishu.md 5.3)."""

from __future__ import annotations

import re
from typing import Any

from adapters.playground.feishu.wire import Ask, Refused, as_object

Json = dict[str, Any]

TEXT_BYTES, CARD_BYTES = 150 * 1024, 30 * 1024

_LOCALE = re.compile(r"[a-z]{2}_[a-z]{2}")
_ALONE = {"md", "img", "media"}
_POST_TAGS = {"text", "a", "at", "emotion", "hr", "code_block"} | _ALONE
_KEYS = {
    "image": ("image_key", "img_"),
    "sticker": ("file_key", "file_"),
    "file": ("file_key", "file_"),
    "audio": ("file_key", "file_"),
    "media": ("file_key", "file_"),
    "share_chat": ("chat_id", "oc_"),
    "share_user": ("user_id", "ou_"),
}
TYPES = {"text", "post", "interactive", *_KEYS}


def read(ask: Ask, kinds: set[str] = TYPES) -> tuple[str, Json]:
    """The msg_type and the parsed content of a send, reply or edit. Raises Refused."""
    kind = ask.text("msg_type")
    if kind not in kinds:
        raise _bad(f"msg_type {kind} is not supported")
    content = parse(ask.text("content"))
    if ask.size > (TEXT_BYTES if kind == "text" else CARD_BYTES):
        raise Refused(230025, "The length of the message content reaches its limit.", blame=True)
    if kind == "text":
        _text(content)
    elif kind == "post":
        _post(content)
    elif kind in _KEYS:
        key, prefix = _KEYS[kind]
        if not str(content.get(key, "")).startswith(prefix):
            raise _bad(f"invalid {key}")
    return kind, content


def parse(content: str) -> Json:
    """The content string. Raises Refused 230001."""
    try:
        return as_object(content)
    except ValueError:
        raise _bad("content is not a string in json format") from None


def _bad(why: str) -> Refused:
    return Refused(
        230001, f"Your request contains an invalid request parameter, {why}.", blame=True
    )


def _text(content: Json) -> None:
    words = content.get("text")
    if not isinstance(words, str) or not words:
        raise _bad("text is empty")


def _post(content: Json) -> None:
    if not content or any(not _LOCALE.fullmatch(locale) for locale in content):
        raise _bad("post has no locale")
    for post in content.values():
        rows = post.get("content") if isinstance(post, dict) else None
        if not isinstance(rows, list) or not rows:
            raise _bad("post content is empty")
        for row in rows:
            _paragraph(row)


def _paragraph(row: Any) -> None:
    if not isinstance(row, list) or not all(isinstance(piece, dict) for piece in row):
        raise _bad("a paragraph is not a list of elements")
    tags = [piece.get("tag") for piece in row]
    if any(tag not in _POST_TAGS for tag in tags):
        raise _bad("unknown tag in post")
    if len(tags) > 1 and _ALONE & set(tags):
        raise _bad("md, img and media stand alone in their paragraph")
    for piece in row:
        if piece["tag"] == "a" and not re.match(r"https?://\S+$", str(piece.get("href", ""))):
            raise _bad("invalid href")
