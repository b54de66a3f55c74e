"""What was said, read back by REST: as if it had been pushed (reference/feishu.md 4.4, 5.6)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from adapters.feishu.api import FeishuApi
from adapters.feishu.foreign import at, text_at
from adapters.feishu.parse import RECEIVE, parse
from adapters.feishu.reading import read_page
from adapters.feishu.settings import BotIdentity
from bot.contract import InboundMessage, Json, Part
from bot.errors import BorderError, Bug, Gone, Transient

log = logging.getLogger(__name__)

PAGE_SIZE = 50
"""The most there is (reference/feishu.md 5.6)."""

CHAT_PAGES, THREAD_PAGES = 15, 5
"""Pages read of one container at most: 20 calls, and a thousand messages, in all."""

_SAME = (
    *("message_id", "root_id", "parent_id", "thread_id"),
    *("create_time", "chat_id", "mentions"),
)
"""Keys that a message of REST and one of an event share; the ids of mentions differ, and
content.Mentions reads both."""


class FeishuHistory:
    """The History power of one app. `me` tells who the bot is, None while that is not known;
    `age` how many seconds ago a moment was for Feishu."""

    def __init__(
        self,
        api: FeishuApi,
        bot: str,
        me: Callable[[], BotIdentity | None],
        age: Callable[[float], float],
    ) -> None:
        self._api, self._bot, self._me, self._age = api, bot, me, age

    async def missed(self, address: Json, since: float, until: float) -> tuple[InboundMessage, ...]:
        """bot.contract.History.missed. Of the chat container a plain group shows only the
        root of each thread, so the thread of `address` is read as well (5.6). Without the
        scope im:message.group_msg groups cannot be read: PermissionDenied names it."""
        me = self._me()
        if me is None:
            raise Transient("history: the bot's identity is not known yet")
        if not text_at(address, "chat_id"):
            return ()  # a person we wrote to; what they say has a chat
        first, last = max(0, math.floor(since)), math.ceil(until)
        found = [
            *await self._in_chat(text_at(address, "chat_id"), first, last),
            *await self._in_thread(text_at(address, "thread_id"), first),
        ]
        messages = {
            message.message_id: message
            for message in self._spoken(found, text_at(address, "chat_type"), me)
            if first <= message.sent_at <= last
        }
        return tuple(sorted(messages.values(), key=lambda message: message.sent_at))

    async def reread(self, address: Json) -> tuple[Part, ...] | None:
        """bot.contract.History.reread. The answer for a merged forward holds its children as
        well, after it (5.6)."""
        asked, me = text_at(address, "message_id"), self._me()
        if not asked or me is None:
            log.info("question not read again: %s", "no id" if me else "identity unknown")
            return None
        try:
            page = await read_page(
                self._api, f"im/v1/messages/{quote(asked, safe='')}", "get_message", {}
            )
        except BorderError as error:
            log.info("question not read again: %s", error)
            return None
        for message in self._spoken(page.items, text_at(address, "chat_type"), me):
            if message.message_id == asked:
                return message.parts
        log.info("question not read again: it is gone")
        return None

    # ------------------------------------------------------------ containers

    async def _in_chat(self, chat: str, first: int, last: int) -> list[object]:
        """Items of a chat between two moments, in whole seconds, oldest first."""
        params = _container("chat", chat, "ByCreateTimeAsc")
        params |= {"start_time": str(first), "end_time": str(last)}
        return await self._walk(params, CHAT_PAGES)

    async def _in_thread(self, thread: str, first: int) -> list[object]:
        """Items of a thread, newest first, because it takes no time range (5.6). A thread
        that is gone or hidden costs only its own messages."""
        if not thread:
            return []
        params = _container("thread", thread, "ByCreateTimeDesc")
        try:
            return await self._walk(params, THREAD_PAGES, before=first * 1000)
        except (Gone, Bug) as error:
            log.warning("history of a thread not read: %s", error)
            return []

    async def _walk(self, params: Json, most: int, before: int = 0) -> list[object]:
        """Page by page, until an item is older than `before` (milliseconds)."""
        items: list[object] = []
        token = ""
        for _ in range(most):
            page = await read_page(self._api, "im/v1/messages", "list_messages", params, token)
            items += page.items
            token = page.next
            if not token or any(_created(item) < before for item in page.items):
                return items
        log.warning("history cut after %d pages of a %s", most, params["container_id_type"])
        return items

    # ------------------------------------------------------------ items

    def _spoken(
        self, items: Iterable[object], chat_type: str, me: BotIdentity
    ) -> Iterable[InboundMessage]:
        """Those that a person said and did not take back."""
        for item in items:
            if not by_person(item):
                continue
            parsed = parse(as_event(item, chat_type), self._bot, me)
            if isinstance(parsed, InboundMessage):
                yield replace(parsed, fetched=True, age=self._age(parsed.sent_at))


def as_event(item: object, chat_type: str) -> dict[str, Any]:
    """An item of REST in the shape of an event (reference/feishu.md 4.2, 4.4); REST does not
    tell the chat's type."""
    message = {key: at(item, key) for key in _SAME}
    message |= {
        "chat_type": chat_type,
        "message_type": at(item, "msg_type"),
        "content": at(item, "body", "content"),
    }
    open_id = text_at(item, "sender", "id_type") == "open_id"
    sender = {
        "sender_id": {"open_id": text_at(item, "sender", "id") if open_id else ""},
        "sender_type": at(item, "sender", "sender_type"),
    }
    return {"header": {"event_type": RECEIVE}, "event": {"sender": sender, "message": message}}


def by_person(item: object) -> bool:
    """Whether a person said it in this chat: no app, no notice of the system, nothing that
    was taken back, no child of a merged forward (reference/feishu.md 4.4)."""
    return (
        isinstance(item, Mapping)
        and text_at(item, "sender", "sender_type") == "user"
        and text_at(item, "msg_type") != "system"
        and item.get("deleted") is not True
        and not text_at(item, "upper_message_id")
    )


def _container(kind: str, container: str, order: str) -> dict[str, str]:
    return {
        "container_id_type": kind,
        "container_id": container,
        "sort_type": order,
        "page_size": str(PAGE_SIZE),
    }


def _created(item: object) -> int:
    """Milliseconds since the epoch; an item without them ends nothing."""
    text = text_at(item, "create_time")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 1 << 62
