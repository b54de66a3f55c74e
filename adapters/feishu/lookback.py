"""Whether a send of unknown fate arrived: our own message, looked for in the history when its
key is forgotten (design.md 5; reference/feishu.md 4.4, 5.6)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from urllib.parse import quote

from adapters.feishu.api import FeishuApi
from adapters.feishu.reading import container, created_at, read_page
from adapters.foreign import at, text_at
from bot.errors import BorderError, Gone, RateLimited, Transient, Uncertain

log = logging.getLogger(__name__)

PAGES = 15
"""Pages read at most; a busier hour cannot be told apart."""

SLACK = 60.0
"""Seconds before the send in which a message may still be it, should a clock have moved."""

MOST_CARDS = 20
"""Messages asked for their card at most; each costs a call."""


@dataclass(frozen=True, slots=True)
class Sought:
    """What was sent at some moment between `since` and `until` (our clock), as an answer to
    `message` or, when that is `loose`, straight into the chat. `card` is the entity that it
    shows, empty when its card or text went along."""

    chat: str
    message: str
    thread: str
    card: str
    is_card: bool
    since: float
    until: float
    loose: bool


async def look_back(api: FeishuApi, sought: Sought) -> str | None:
    """The id of the message; empty when it certainly never arrived; None when nobody can
    tell. A card entity proves itself. Any other message must be the only one that it can be,
    because what is adopted will be overwritten. Raises RateLimited and Transient: ask again."""
    try:
        question = await _question(api, sought)
        ahead = api.ahead()  # known by now
        theirs = replace(sought, since=sought.since + ahead, until=sought.until + ahead)
        ours = await _candidates(api, theirs, question)
        if ours is None or not sought.card:
            return None if ours is None else _the_only(ours, theirs)
        return await _by_card(api, ours, theirs)
    except (RateLimited, Transient):
        raise
    except BorderError as error:
        log.warning("history tells nothing of a send: %s", error)
        return None


async def _question(api: FeishuApi, sought: Sought) -> object:
    """The question as it stands now; None when it is gone."""
    if not sought.message:
        return None
    path = f"im/v1/messages/{quote(sought.message, safe='')}"
    try:
        page = await read_page(api, path, "get_message", {})
    except Gone:
        return None
    found = [item for item in page.items if text_at(item, "message_id") == sought.message]
    return found[0] if found and at(found[0], "deleted") is not True else None


async def _candidates(api: FeishuApi, sought: Sought, question: object) -> list[object] | None:
    """Our messages that may be it; None when there is too much to read. A thread may have been
    opened on the question since: the chat's container would hide what stands in it (5.6)."""
    thread = sought.thread or text_at(question, "thread_id")
    found: list[object] = []
    if thread:
        inside = await _items(api, container("thread", thread), sought)
        if inside is None:
            return None
        found += inside
    if not sought.thread:
        params = container("chat", sought.chat)
        params["start_time"] = str(max(0, math.floor(sought.since - SLACK)))
        params["end_time"] = str(math.ceil(sought.until))
        beside = await _items(api, params, sought)
        if beside is None:
            return None
        parents = {sought.message, ""} if sought.loose or question is None else {sought.message}
        found += [item for item in beside if text_at(item, "parent_id") in parents]
    ours = {text_at(i, "message_id"): i for i in found if _may_be(i, sought, api.app_id)}
    return list(ours.values())


async def _items(api: FeishuApi, params: dict[str, str], sought: Sought) -> list[object] | None:
    items: list[object] = []
    token, oldest = "", (sought.since - SLACK) * 1000
    for _ in range(PAGES):
        page = await read_page(api, "im/v1/messages", "list_messages", params, token)
        items += page.items
        token = page.next
        if not token or any(created_at(item) < oldest for item in page.items):
            return items
    log.warning("history is too long to find a send in it")
    return None


def _may_be(item: object, sought: Sought, app_id: str) -> bool:
    return (
        text_at(item, "sender", "sender_type") == "app"
        and text_at(item, "sender", "id") == app_id
        and (text_at(item, "msg_type") == "interactive") == sought.is_card
        and sought.since - SLACK <= created_at(item) / 1000 <= sought.until
    )


async def _by_card(api: FeishuApi, items: list[object], sought: Sought) -> str | None:
    if len(items) > MOST_CARDS:
        return None
    for item in items:
        message = text_at(item, "message_id")
        try:
            card = await api.card_of(message)
        except Uncertain as error:  # reading again changes nothing
            raise Transient(error.cause, code=error.code) from error
        except Gone:
            card = ""  # another kind of card
        if card == sought.card:
            return None if at(item, "deleted") is True else message
    return ""


def _the_only(items: list[object], sought: Sought) -> str | None:
    """In a thread the parent of an answer is whatever opened the thread (4.2), so there it
    may be anybody's."""
    if not items:
        return ""
    one = items[0]
    sure = len(items) == 1 and text_at(one, "parent_id") == sought.message != ""
    after = created_at(one) / 1000 >= sought.since
    return text_at(one, "message_id") if sure and after and at(one, "deleted") is not True else None
