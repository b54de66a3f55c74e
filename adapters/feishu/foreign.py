"""Reading JSON that others wrote: absent, null and wrong types are alike
(reference/feishu.md 4.2). Nothing here raises."""

from __future__ import annotations

import json

import orjson


def at(value: object, *path: str) -> object:
    """What lies at `path`, or None; absent, null and wrong types are alike."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text_at(value: object, *path: str) -> str:
    """The string at `path` (a number as its digits), or an empty string."""
    found = at(value, *path)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found) if abs(found) < 1 << 63 else ""
    return found if isinstance(found, str) else ""


def loads(text: str) -> object:
    """The JSON value in `text`, or None. Half an emoji and raw control characters, which
    strict JSON refuses, do not cost the message."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _loads_leniently(text)


def _loads_leniently(text: str) -> object:
    try:
        value = json.loads(text, strict=False)
        return orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
