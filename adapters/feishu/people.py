"""What people are called: learned from mentions for free, else from the member list of the
chat, because events do not name their sender (reference/feishu.md 4.2, 5.6)."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import TypeVar
from urllib.parse import quote

from adapters.feishu.api import FeishuApi
from adapters.feishu.codes import SCOPE_MISSING
from adapters.feishu.reading import read_page
from adapters.foreign import text_at
from bot.contract import Clock, Json, Person
from bot.errors import BorderError, PermissionDenied, RateLimited, Transient

log = logging.getLogger(__name__)

MOST = 10_000
"""Names kept, and unknown people kept, at most; the longest unused one goes first."""

WAIT_SECONDS = 2.0
"""How long a name is waited for; the list that is being read goes on and is kept."""

UNKNOWN_SECONDS = 3600.0
"""How long a person whom the list does not hold, or a chat without a list, is not asked for."""

CLOSED_SECONDS = 600.0
"""How long nothing is asked after a missing scope."""

SOON_SECONDS = 60.0
"""How long a chat is not asked for after a failure that may pass."""

PAGES, PAGE_SIZE = 5, 100

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Names:
    """The People power of one app."""

    def __init__(self, api: FeishuApi, clock: Clock) -> None:
        self._api, self._clock = api, clock
        self._names: OrderedDict[str, str] = OrderedDict()
        self._rests: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._closed_until = 0.0
        self._told = False
        self._reading: dict[str, asyncio.Task[None]] = {}

    def learn(self, people: Iterable[Person]) -> None:
        """Remember the names that somebody carried."""
        for person in people:
            if person.id and person.name:
                _keep(self._names, person.id, person.name)

    async def name_of(self, address: Json, person: str) -> str:
        """bot.contract.People.name_of. One call or a few an hour at most for each chat with
        people nobody has named yet."""
        chat = text_at(address, "chat_id")
        if person not in self._names and self._may_ask(chat, person):
            await self._ask(chat, person)
        if person in self._names:
            self._names.move_to_end(person)
        return self._names.get(person, "")

    async def close(self) -> None:
        """Stop reading."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------ asking

    def _may_ask(self, chat: str, person: str) -> bool:
        if not chat or not person:
            return False
        rests = (self._rests.get(key, 0.0) for key in ((chat, ""), (chat, person)))
        return max(self._closed_until, *rests) <= self._clock.monotonic()

    async def _ask(self, chat: str, person: str) -> None:
        """Wait for the list of the chat, which all who ask share."""
        task = self._reading.get(chat)
        if task is None:
            task = asyncio.create_task(self._read(chat))
            self._reading[chat] = task
            task.add_done_callback(lambda _: self._reading.pop(chat, None))
        try:
            async with self._clock.timeout(WAIT_SECONDS):
                await asyncio.shield(task)
        except TimeoutError:
            log.info("the member list is slow, somebody stays without a name")
            return
        if person not in self._names and self._may_ask(chat, person):
            self._rest(chat, person, UNKNOWN_SECONDS)

    def _rest(self, chat: str, person: str, seconds: float) -> None:
        """Do not ask for this person there, or for anybody when `person` is empty."""
        _keep(self._rests, (chat, person), self._clock.monotonic() + seconds)

    async def _read(self, chat: str) -> None:
        """Learn who is in a chat; errors only say when to ask again."""
        try:
            whole = await self._walk(chat)
        except PermissionDenied as error:
            self._refused(chat, error)
        except (RateLimited, Transient) as error:
            log.info("names not read: %s", error)
            self._rest(chat, "", SOON_SECONDS)
        except BorderError as error:
            log.info("names not read: %s", error)
            self._rest(chat, "", UNKNOWN_SECONDS)
        else:
            if not whole:
                self._rest(chat, "", UNKNOWN_SECONDS)

    async def _walk(self, chat: str) -> bool:
        """Whether the list came to its end; a page may have any size (5.6)."""
        path = f"im/v1/chats/{quote(chat, safe='')}/members"
        params = {"member_id_type": "open_id", "page_size": str(PAGE_SIZE)}
        token = ""
        for _ in range(PAGES):
            page = await read_page(self._api, path, "members", params, token)
            self.learn(Person(text_at(m, "member_id"), text_at(m, "name")) for m in page.items)
            token = page.next
            if not token:
                return True
        return False

    def _refused(self, chat: str, error: PermissionDenied) -> None:
        """A missing scope concerns every chat, any other refusal this one."""
        if not error.scopes and error.code != SCOPE_MISSING:
            log.info("names not read: %s", error)
            self._rest(chat, "", UNKNOWN_SECONDS)
            return
        self._closed_until = self._clock.monotonic() + CLOSED_SECONDS
        if not self._told:
            self._told = True
            scopes = " ".join(error.scopes) or "unknown"
            log.warning("names of people stay unknown, missing scope: %s", scopes)


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MOST:
        kept.popitem(last=False)
