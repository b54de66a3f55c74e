"""One Feishu app as a chat platform: receiving, answering, marks on messages."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from adapters.feishu.api import FeishuApi
from adapters.feishu.foreign import text_at
from adapters.feishu.link import FeishuLink
from adapters.feishu.receive import Receiver
from adapters.feishu.settings import BotIdentity, FeishuSettings
from adapters.feishu.sink import FeishuSink, Skips
from adapters.http import Http
from adapters.supervisor import Backoff, supervise
from bot.contract import Clock, Handle, Intake, Json, LinkStatus, Platform, ReplySink, Save
from bot.errors import BorderError

log = logging.getLogger(__name__)

__all__ = ["BotIdentity", "FeishuPlatform", "FeishuSettings"]

HEAD_START = 30.0
"""Seconds that asking for the bot's identity may delay the connection; events wait on the
server for it (reference/feishu.md 2.7)."""

MARKS = {"seen": "Get", "done": "DONE"}
"""emoji_type of a mark (reference/feishu.md appendix B)."""


class FeishuPlatform:
    """A bot.contract.ChatPlatform with the Reactions power. `http` stays its owner's."""

    platform: Platform = "feishu"

    def __init__(self, settings: FeishuSettings, http: Http, clock: Clock) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._api = FeishuApi(settings, http, clock)
        self._skips = Skips(clock)
        self._status = LinkStatus(settings.bot, since=clock.monotonic())

    @property
    def bot(self) -> str:
        return self._settings.bot

    @property
    def status(self) -> LinkStatus:
        return self._status

    # ------------------------------------------------------------ receiving

    async def run(self, intake: Intake) -> None:
        """Learn who we are, then receive until cancelled."""
        receiver = Receiver(self.bot, intake, self._clock)
        identity = asyncio.create_task(self._identify(receiver))
        try:
            await self._give_head_start(identity)
            await self._receive(receiver)
        finally:
            identity.cancel()
            await asyncio.gather(identity, return_exceptions=True)
            await receiver.close()

    async def _give_head_start(self, identity: asyncio.Task[None]) -> None:
        try:
            async with self._clock.timeout(HEAD_START):
                await asyncio.shield(identity)
        except TimeoutError:
            log.warning("connecting before the bot's identity is known")

    async def _receive(self, receiver: Receiver) -> None:
        if self._settings.transport == "sdk":
            from adapters.feishu.sdk_link import run_sdk

            await run_sdk(self._settings, receiver, self._status, self._clock)
            return
        link = FeishuLink(self._settings, self._http, self._clock, receiver)
        try:
            await supervise(link.session, self._status, self._clock)
        finally:
            await link.close()

    async def _identify(self, receiver: Receiver) -> None:
        """Ask until it is known: once per process (reference/feishu.md 5.2)."""
        backoff = Backoff()
        while receiver.identity is None:
            try:
                receiver.identity = await self._api.bot_identity()
            except BorderError as error:
                log.warning("bot identity: %s", error)
                if not self._status.connected:
                    self._status.cause = str(error)
                await self._clock.sleep(backoff.delay(error))

    # ------------------------------------------------------------ answering

    def sink(self, address: Json, handle: Handle, save: Save, attempt: int) -> ReplySink:
        """A sink aimed at the message of `address` (adapters/feishu/parse.py)."""
        return FeishuSink(
            self._api,
            self._clock,
            self._skips,
            self._settings.pace,
            address,
            handle,
            save,
            attempt,
        )

    async def react(self, address: Json, mark: Literal["seen", "done"]) -> str:
        """A reaction on the person's message; its id, or an empty string."""
        message = text_at(address, "message_id")
        try:
            return await self._api.add_reaction(message, MARKS[mark]) if message else ""
        except BorderError as error:
            log.info("no reaction: %s", error)
            return ""

    async def unreact(self, address: Json, token: str) -> None:
        """Take a reaction back; `token` is what react() returned."""
        message = text_at(address, "message_id")
        if not message or not token:
            return
        try:
            await self._api.remove_reaction(message, token)
        except BorderError as error:
            log.info("reaction stays: %s", error)

    async def close(self) -> None:
        """Nothing of ours outlives run(); the HTTP pool belongs to who made it."""
