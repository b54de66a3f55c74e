"""Reading from Feishu: one object, or a list a page at a time (reference/feishu.md 5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.feishu.api import FeishuApi
from adapters.foreign import at, text_at
from bot.errors import Transient, Uncertain

PAGE_SIZE = 50
"""The most messages that a page can have (5.6)."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some items; `next` is the token of the following page, empty on the last one."""

    items: tuple[object, ...]
    next: str = ""


async def read_page(
    api: FeishuApi, path: str, name: str, params: Mapping[str, str], token: str = ""
) -> Page:
    """One GET whose answer has `data.items`; `name` is its budget (FeishuApi.bucket). Raises
    of the BorderError family, but never Uncertain: reading again changes nothing."""
    query = {**params, "page_token": token} if token else params
    try:
        async with api.room(api.charge(name)):
            body = await api.call("GET", path, api=name, params=query)
    except Uncertain as error:
        raise Transient(error.cause, code=error.code) from None
    items = at(body, "data", "items")
    more = at(body, "data", "has_more") is True
    return Page(
        tuple(items) if isinstance(items, list) else (),
        text_at(body, "data", "page_token") if more else "",
    )


def container(kind: str, name: str) -> dict[str, str]:
    """The query for the messages of a chat or a thread, newest first (5.6)."""
    return {
        "container_id_type": kind,
        "container_id": name,
        "sort_type": "ByCreateTimeDesc",
        "page_size": str(PAGE_SIZE),
    }


def created_at(item: object) -> int:
    """Milliseconds since the epoch of a message; one without them counts as new."""
    text = text_at(item, "create_time")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 1 << 62
