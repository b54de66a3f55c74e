"""Where a reply goes, under which key, and what is written down about it before and after
(design.md 5; reference/feishu.md 5.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters.feishu.api import FeishuApi, Sent
from adapters.feishu.codes import NO_TARGET, NO_THREAD
from adapters.feishu.lookback import SLACK, Sought, look_back
from adapters.foreign import text_at
from bot.contract import Charge, Clock, Handle, Json, Save, Window
from bot.errors import BorderError, Gone, StoreError, Transient, Uncertain

log = logging.getLogger(__name__)

KEY_LIVES = 3500.0
"""Seconds for which Feishu recognises a repeated uuid: an hour, less some slack."""

CHAT_WINDOWS = (Window(5, 1.0),)
"""Sends to one chat, shared by all bots in it (reference/feishu.md 5.8)."""


class Journal:
    """The handle of one part and the way to disk."""

    def __init__(self, handle: Handle, save: Save) -> None:
        self.handle, self._save = handle, save

    async def intend(self, **changes: Any) -> None:
        """Change the handle and commit it, before a call that must not be forgotten.
        Raises StoreError: then the call must not be made."""
        self.handle = replace(self.handle, **changes)
        await self._save(self.handle)

    async def put(self, **changes: Any) -> None:
        """Change the handle and commit it if the disk can: a live card is finished even
        when it cannot, and a forgotten change costs at most a repetition under its key."""
        try:
            await self.intend(**changes)
        except StoreError as error:
            log.warning("reply journal not written: %s", error)

    def forget(self, **changes: Any) -> None:
        """Change the handle; the next commit tells the disk."""
        self.handle = replace(self.handle, **changes)

    def note(self, **extra: object) -> dict[str, object]:
        """The handle's `extra` with changes; None removes a key."""
        merged = {**self.handle.extra, **extra}
        return {key: value for key, value in merged.items() if value is not None}


ID_TYPES = {"ou_": "open_id", "on_": "union_id"}
"""What kind of id a person's is, by its beginning; any other is the tenant's user_id
(reference/feishu.md 0)."""


def to_person(person: str) -> Json:
    """The address of somebody who asked nothing: a private message (reference/feishu.md 5.3)."""
    return {"person": person, "person_type": ID_TYPES.get(person[:3], "user_id")}


class Place:
    """The chat, topic and message that asked. `address` is what parse.py wrote, or
    to_person()."""

    def __init__(self, api: FeishuApi, clock: Clock, address: Json, journal: Journal) -> None:
        self._api, self._clock, self._journal = api, clock, journal
        self._chat = text_at(address, "chat_id") or text_at(address, "person")
        self._chat_type = text_at(address, "person_type") or "chat_id"
        self._message = text_at(address, "message_id")
        self._thread = text_at(address, "thread_id")
        self._in_thread = bool(address.get("reply_in_thread"))
        self._lost = False

    @property
    def stale(self) -> bool:
        """A send of unknown fate must not be repeated: its key is forgotten, and the history
        does not tell whether it arrived."""
        return self._lost

    @property
    def doubtful(self) -> bool:
        """A send was begun whose fate nobody knows."""
        return "sending_at" in self._journal.handle.extra

    def charges(self) -> tuple[Charge, ...]:
        """What one message here costs."""
        api = "reply" if self._replies else "send"
        return self._api.charge(api), Charge(self._bucket, CHAT_WINDOWS)

    @property
    def _bucket(self) -> str:
        return f"feishu/chat/{self._chat}"

    @property
    def _replies(self) -> bool:
        return bool(self._message) and not self._journal.handle.extra.get("to_chat")

    async def post(
        self, suffix: str, msg_type: str, content: Json, *, anywhere: bool, **changes: object
    ) -> str:
        """One message under the key plus `suffix`; returns its id. The intent is on disk,
        with `changes` of the handle, before the call. Without `anywhere`, a recalled
        question is Gone instead of answered in the chat. A send of unknown fate whose key is
        forgotten is looked for first; Uncertain when that tells nothing, and `stale` from
        then on."""
        found = await self._found_again(msg_type, content)
        if found:
            extra = self._journal.note(sending_at=None)
            await self._journal.put(message_id=found, extra=extra, **changes)
            return found
        doubtful = self.doubtful
        begun = self._journal.handle.extra.get("sending_at") or self._clock.time()
        await self._journal.intend(extra=self._journal.note(sending_at=begun), **changes)
        uuid = f"{self._journal.handle.key}{suffix}"
        try:
            sent = await self._deliver(msg_type, content, uuid, anywhere)
        except Uncertain:
            raise
        except BorderError:
            if not doubtful:  # else an earlier try may have arrived
                await self._journal.put(extra=self._journal.note(sending_at=None))
            raise
        extra = self._journal.note(sending_at=None)
        await self._journal.put(message_id=sent.message_id, extra=extra)
        return sent.message_id

    async def _found_again(self, msg_type: str, content: Json) -> str:
        """The message of a send whose key is forgotten; empty when there is none, and the
        next send is the first."""
        since = self._journal.handle.extra.get("sending_at")
        if not isinstance(since, int | float) or self._clock.time() - since <= KEY_LIVES:
            return ""
        sought = Sought(
            chat=self._chat,
            message=self._message,
            thread=self._thread,
            card=text_at(content, "data", "card_id"),
            is_card=msg_type == "interactive",
            since=since,
            until=since + KEY_LIVES + SLACK,
            loose=not self._replies,
        )
        found = await look_back(self._api, sought)
        if found is None:
            self._lost = True
            raise Uncertain("nobody can tell whether a message arrived")
        log.info("a send of unknown fate %s", "had arrived" if found else "never arrived")
        if not found:
            self._journal.forget(extra=self._journal.note(sending_at=None))
        return found

    async def _deliver(self, msg_type: str, content: Json, uuid: str, anywhere: bool) -> Sent:
        """One call, because the budget gave room for one: where another way is left after a
        refusal, it is for the next try."""
        if not self._replies:
            return await self._to_chat(msg_type, content, uuid)
        try:
            return await self._reply(msg_type, content, uuid)
        except BorderError as error:
            if error.code in NO_THREAD and self._in_thread:
                self._in_thread = False
            elif error.code not in NO_TARGET:
                raise
            elif self._thread or not anywhere:
                raise Gone(error.cause, code=error.code) from error
            else:
                self._journal.forget(extra=self._journal.note(to_chat=True))
            raise Transient(f"another way is tried: {error.cause}", code=error.code) from error

    async def _reply(self, msg_type: str, content: Mapping[str, Any], uuid: str) -> Sent:
        return await self._api.reply(
            self._message,
            msg_type,
            content,
            uuid,
            in_thread=self._in_thread,
            place=self._bucket,
        )

    async def _to_chat(self, msg_type: str, content: Json, uuid: str) -> Sent:
        return await self._api.send(
            self._chat, msg_type, content, uuid, self._bucket, of=self._chat_type
        )
