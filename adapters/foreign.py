"""Reading JSON that others wrote: every field is optional, absent, null and wrong types are
alike, and objects may come as JSON strings (reference/feishu.md 4.2, reference/dingtalk.md
4.2). Nothing here raises."""

from __future__ import annotations

import json
from typing import Any

import orjson

LARGEST = 1 << 63
"""Numbers beyond it are no ids."""


def at(value: object, *path: str) -> object:
    """What lies at `path`, or None; absent, null and wrong types are alike."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text_at(value: object, *path: str) -> str:
    """The string at `path` (an integer as its digits), or an empty string. Half an emoji,
    which no database takes, becomes a question mark."""
    for key in path:  # as at(), which a message would call fifty times for this
        if not isinstance(value, dict):
            return ""
        value = value.get(key)
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < LARGEST else ""
    return ""


def loads(text: str | bytes) -> object:
    """The JSON value in `text`, or None. Half an emoji and raw control characters, which
    strict JSON refuses, do not cost the message."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _loads_leniently(text)


def _loads_leniently(text: str | bytes) -> object:
    try:
        value = json.loads(text, strict=False)
        return orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def object_at(value: object, *path: str) -> dict[str, Any]:
    """The object at `path`, also when it is written as a JSON string; else an empty one."""
    found = at(value, *path)
    if isinstance(found, str):
        found = loads(found)
    return found if isinstance(found, dict) else {}


def items_at(value: object, *path: str) -> list[object]:
    """The list at `path`, also when it is written as a JSON string; else an empty one."""
    found = at(value, *path)
    if isinstance(found, str):
        found = loads(found)
    return found if isinstance(found, list) else []


def number_at(value: object, *path: str) -> float:
    """The finite number at `path`, also as digits in a string; else 0."""
    found = at(value, *path)
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return 0.0
    try:
        number = float(found)
    except (ValueError, OverflowError):
        return 0.0
    return number if abs(number) < float(LARGEST) else 0.0


def dumps(value: object) -> str:
    """JSON inside JSON: a string."""
    return orjson.dumps(value).decode()
