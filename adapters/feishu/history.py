"""What was said, read back by REST: as if it had been pushed (reference/feishu.md 4.4, 5.6)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from adapters.feishu.api import FeishuApi
from adapters.feishu.parse import RECEIVE, parse
from adapters.feishu.reading import container, created_at, read_page
from adapters.feishu.settings import BotIdentity
from adapters.foreign import at, text_at
from bot.contract import Gap, InboundMessage, Json, Missed, Part
from bot.errors import BorderError, Bug, Gone, Transient
from bot.texts import beside

log = logging.getLogger(__name__)

CHAT_PAGES, THREAD_PAGES = 15, 5
"""Pages read of one container at most."""

THREADS = 10
"""Threads of one plain group read at most, because each costs a call of the month."""

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
        self._topics: dict[str, bool] = {}

    async def missed(self, addresses: Sequence[Json], since: float, until: float) -> Missed:
        """bot.contract.History.missed. The chat's container is read once. Of a plain group it
        shows only the root of each thread (5.6), so the threads of `addresses` are read as
        well, up to THREADS. Without the scope im:message.group_msg groups cannot be read:
        PermissionDenied names it."""
        me = self._me()
        if me is None:
            raise Transient("history: the bot's identity is not known yet")
        chat, kind = text_at(addresses[0], "chat_id"), text_at(addresses[0], "chat_type")
        if not chat:
            return Missed(())  # a person we wrote to; what they say has a chat
        reading = _Reading(self._bot, chat, max(0, math.floor(since)), math.ceil(until))
        await self._read_chat(reading)
        threads = await self._threads(chat, kind, addresses)
        reading.leave("gap.threads", max(0, len(threads) - THREADS))
        for thread in threads[:THREADS]:
            await self._read_thread(thread, reading)
        reading.leave("gap.hidden", reading.hidden)
        messages = {
            message.message_id: message
            for message in self._spoken(reading.items, kind, me)
            if reading.first <= message.sent_at <= reading.last
        }
        return Missed(
            tuple(sorted(messages.values(), key=lambda message: message.sent_at)), reading.left
        )

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

    async def _read_chat(self, reading: _Reading) -> None:
        """Newest first: of too much, the newest counts."""
        params = container("chat", reading.chat)
        params |= {"start_time": str(reading.first), "end_time": str(reading.last)}
        await self._walk(params, CHAT_PAGES, reading)

    async def _read_thread(self, thread: str, reading: _Reading) -> None:
        """It takes no time range (5.6). A thread that is gone or hidden costs only its own
        messages."""
        try:
            await self._walk(container("thread", thread), THREAD_PAGES, reading)
        except Gone as error:
            log.info("a thread is gone: %s", error)
        except Bug as error:
            log.warning("history of a thread not read: %s", error)
            reading.hidden += 1

    async def _walk(self, params: Json, most: int, reading: _Reading) -> None:
        """Page by page, until an item is older than the time asked for."""
        items: list[object] = []
        token, whole = "", False
        for _ in range(most):
            page = await read_page(self._api, "im/v1/messages", "list_messages", params, token)
            items += page.items
            token = page.next
            whole = not token or any(created_at(item) < reading.first * 1000 for item in page.items)
            if whole:
                break
        reading.items += reversed(items)
        if not whole:
            log.warning("history cut after %d pages of a %s", most, params["container_id_type"])
            reading.cut(min(map(created_at, items), default=1 << 62) / 1000)

    async def _threads(self, chat: str, kind: str, addresses: Sequence[Json]) -> list[str]:
        """The threads that the chat's container does not show: none of a topic group's."""
        found = [text_at(address, "thread_id") for address in addresses]
        threads = list(dict.fromkeys(filter(None, found)))
        return [] if threads and kind != "p2p" and await self._of_topics(chat) else threads

    async def _of_topics(self, chat: str) -> bool:
        """Whether it is a topic group, asked once (4.2); a chat that does not tell is read
        like a plain one, which costs a call for each of its threads."""
        if chat not in self._topics:
            try:
                path = f"im/v1/chats/{quote(chat, safe='')}"
                async with self._api.room(self._api.charge("chat_info")):
                    body = await self._api.call("GET", path, api="chat_info")
            except BorderError as error:
                log.info("kind of a chat not known: %s", error)
                return False
            kinds = text_at(body, "data", "chat_mode"), text_at(body, "data", "group_message_type")
            self._topics[chat] = kinds[0] == "topic" or kinds[1] == "thread"
        return self._topics[chat]

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


@dataclass(slots=True)
class _Reading:
    """What is read of a chat between two moments, in whole seconds, and what is not: `left`
    ends where everything was read, or where the time asked for ends."""

    bot: str
    chat: str
    first: int
    last: int
    items: list[object] = field(default_factory=list)
    hidden: int = 0
    left: Gap | None = None

    def cut(self, until: float) -> None:
        """Nothing older than this was read of a container."""
        self._leave(min(until, self.last), beside("gap.cut"))

    def leave(self, key: str, count: int) -> None:
        """So many threads were not read."""
        if count:
            self._leave(self.last, beside(key, count=count))

    def _leave(self, until: float, why: str) -> None:
        known = self.left or Gap(self.bot, self.chat, self.first, until, "")
        whys = dict.fromkeys(filter(None, (known.why, why)))
        self.left = replace(known, until=max(known.until, until), why="; ".join(whys))


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
