"""Reading JSON that others wrote: absent, null and wrong types are alike
(reference/feishu.md 4.2). Nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping

import orjson


def at(value: object, *path: str) -> object:
    """What lies at `path`, or None; absent, null and wrong types are alike."""
    for key in path:
        if not isinstance(value, Mapping):
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
    """The JSON value in `text`, or None."""
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeError):
        return None
