"""Where a reply goes, and what is written down about it before and after (design.md 5;
reference/dingtalk.md 5, 12)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from adapters.dingtalk.api import WEBHOOK_WINDOWS, DingTalkApi
from adapters.foreign import number_at, text_at
from bot.contract import CallKind, Charge, Clock, Handle, Json, Save
from bot.errors import Gone, StoreError

log = logging.getLogger(__name__)

WEBHOOK_SLACK = 30.0
"""Seconds before its end at which a session webhook is no longer used."""


class Journal:
    """The handle of one part and the way to disk."""

    def __init__(self, handle: Handle, save: Save) -> None:
        self.handle, self._save = handle, save

    async def intend(self, **changes: Any) -> None:
        """Change the handle and commit it, before a call that must not be forgotten.
        Raises StoreError: then the call must not be made."""
        before, self.handle = self.handle, replace(self.handle, **changes)
        try:
            await self._save(self.handle)
        except StoreError:
            self.handle = before
            raise

    async def put(self, **changes: Any) -> None:
        """Change the handle and commit it if the disk can: a live card is finished even
        when it cannot."""
        try:
            await self.intend(**changes)
        except StoreError as error:
            log.warning("reply journal not written: %s", error)
            self.forget(**changes)

    def forget(self, **changes: Any) -> None:
        """Change the handle; the next commit tells the disk."""
        self.handle = replace(self.handle, **changes)

    def note(self, **extra: object) -> dict[str, object]:
        """The handle's `extra` with changes; None removes a key."""
        merged = {**self.handle.extra, **extra}
        return {key: value for key, value in merged.items() if value is not None}


def to_person(staff: str, robot: str) -> Json:
    """The address of somebody who asked nothing: a private message by OpenAPI
    (reference/dingtalk.md 5.3)."""
    return {"conversationType": "1", "senderStaffId": staff, "robotCode": robot}


class Place:
    """The conversation and person that asked. `address` is what parse.py wrote, or
    to_person()."""

    def __init__(self, api: DingTalkApi, clock: Clock, address: Json) -> None:
        self._api, self._clock = api, clock
        self.conversation = text_at(address, "conversationId")
        self.group = text_at(address, "conversationType") == "2"
        self.staff = text_at(address, "senderStaffId")
        self.robot = text_at(address, "robotCode")
        self._url = text_at(address, "sessionWebhook")
        self._until = number_at(address, "sessionWebhookExpiredTime") / 1000.0

    @property
    def space(self) -> tuple[str, str]:
        """Where a card is delivered (reference/dingtalk.md 6.3)."""
        return ("IM_GROUP", self.conversation) if self.group else ("IM_ROBOT", self.staff)

    @property
    def reachable(self) -> bool:
        """Whether cards and OpenAPI messages can be aimed: a private chat needs the staff
        id (reference/dingtalk.md 4.2)."""
        return bool(self.conversation) if self.group else bool(self.staff)

    @property
    def webhook_open(self) -> bool:
        """Whether the session webhook lives and may be posted to (law 9)."""
        alive = self._clock.time() < self._until - WEBHOOK_SLACK
        return alive and bool(self._url) and self._api.may_post(self._url)

    @property
    def ways(self) -> frozenset[CallKind]:
        """As what a plain answer may count."""
        hook: set[CallKind] = {"message"} if self.webhook_open else set()
        return frozenset(hook | ({"api"} if self.reachable else set()))

    def webhook_charge(self) -> Charge:
        return Charge(self._bucket, WEBHOOK_WINDOWS)

    @property
    def _bucket(self) -> str:
        return f"dingtalk/webhook/{self.conversation}"

    def message_charge(self) -> Charge:
        return self._api.charge("group" if self.group else "oto")

    async def post_webhook(self, title: str, text: str) -> str:
        """A Markdown message by session webhook; its only proof is errcode 0 (law 6)."""
        if not self.webhook_open:
            raise Gone("webhook: expired, absent or not allowed")
        await self._api.webhook(self._url, self._bucket, title, text)
        return "errcode 0"

    async def post_message(self, title: str, text: str) -> str:
        """A Markdown message by OpenAPI; its processQueryKey."""
        if not self.reachable:
            raise Gone("message: no staff id to send to")
        if self.group:
            return await self._api.send_group(self.conversation, self.robot, title, text)
        return await self._api.send_person(self.staff, self.robot, title, text)
