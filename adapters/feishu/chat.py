"""One Feishu app as a chat platform: receiving, answering, and the optional powers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Literal

from adapters.feishu.api import FeishuApi
from adapters.feishu.codes import ALREADY_GONE
from adapters.feishu.history import FeishuHistory
from adapters.feishu.link import FeishuLink
from adapters.feishu.people import Names
from adapters.feishu.place import to_person
from adapters.feishu.receive import Receiver
from adapters.feishu.settings import BotIdentity, FeishuSettings
from adapters.feishu.sink import FeishuSink, Shared
from adapters.foreign import at, text_at
from adapters.http import Http
from adapters.link_words import report
from adapters.skipping import Skipping
from adapters.supervisor import Backoff, supervise
from bot.contract import (
    Budget,
    Clock,
    Handle,
    Intake,
    Json,
    LinkStatus,
    Meter,
    Missed,
    Part,
    Platform,
    ReplySink,
    Save,
    SkippedRung,
)
from bot.errors import RETRYABLE, BorderError, PermissionDenied, QuotaExhausted
from bot.texts import beside

log = logging.getLogger(__name__)

__all__ = ["BotIdentity", "FeishuPlatform", "FeishuSettings"]

HEAD_START = 30.0
"""Seconds that asking for the bot's identity may delay the connection; events wait on the
server for it (reference/feishu.md 2.7)."""

LASTING = (60.0, 3600.0)
"""Seconds after the first and the later refusals of the identity that only somebody who
repairs the app ends: each try counts against the month (needs.md 25), and a new connection
is a reason to try as well."""

QUOTA_SECONDS = 1800.0
"""Seconds after which the identity is asked for again when the month's calls are used up."""

MARKS = {"seen": "Get", "done": "DONE"}
"""emoji_type of a mark (reference/feishu.md appendix B)."""


class FeishuPlatform:
    """A bot.contract.ChatPlatform with the powers Reactions, People, History, Retraction,
    Saving and Reach.
    `http` stays its owner's."""

    platform: Platform = "feishu"

    def __init__(
        self,
        settings: FeishuSettings,
        http: Http,
        clock: Clock,
        meter: Meter | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._api = FeishuApi(settings, http, clock, meter, budget)
        self._skipping = Skipping(settings.bot)
        self._shared = Shared(clock, skipping=self._skipping)
        self._status = LinkStatus(
            settings.bot, cause=beside("link.starting"), since=clock.monotonic()
        )
        self._connected = asyncio.Event()
        self._me: BotIdentity | None = None
        self._names = Names(self._api, clock)
        self._history = FeishuHistory(self._api, settings.bot, lambda: self._me, self._age)

    @property
    def bot(self) -> str:
        return self._settings.bot

    @property
    def status(self) -> LinkStatus:
        return self._status

    @property
    def skipped(self) -> tuple[SkippedRung, ...]:
        """The power Ladder."""
        return self._skipping.at(self._clock.monotonic())

    # ------------------------------------------------------------ receiving

    async def run(self, intake: Intake) -> None:
        """Learn who we are, then receive until cancelled."""
        receiver = Receiver(self.bot, intake, self._clock, age=self._age, learn=self._names.learn)
        identity = asyncio.create_task(self._know_ourselves(receiver, intake))
        try:
            await self._give_head_start(identity)
            await self._receive(receiver, intake)
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

    async def _receive(self, receiver: Receiver, intake: Intake) -> None:
        def gap(since: float, until: float) -> None:
            intake.gap(self.bot, since, until)

        idle = self._settings.rotate
        status, clock, up = self._status, self._clock, self._connected.set
        if self._settings.transport == "sdk":
            from adapters.feishu.sdk_link import run_sdk

            await run_sdk(self._settings, receiver, status, clock, gap=gap, up=up, idle=idle)
            return
        link = FeishuLink(self._settings, self._http, clock, receiver)
        try:
            await supervise(link.session, status, clock, gap=gap, up=up, idle=idle)
        finally:
            await link.close()

    async def _know_ourselves(self, receiver: Receiver, intake: Intake) -> None:
        """Red until our identity is known, though the link is well: group messages are
        refused meanwhile, and may have been pushed for the last time."""
        self._status.baffled = beside("link.nameless", why="…")
        receiver.identity = await self._identify()
        self._status.baffled = ""
        if receiver.refused_since is not None:
            intake.gap(self.bot, receiver.refused_since, self._clock.time())

    async def _identify(self) -> BotIdentity:
        """Ask until it is known: once per process (reference/feishu.md 5.2). A connection
        that came up shows that it is time to ask: group messages wait for the answer."""
        backoff, patient = Backoff(), Backoff(first=LASTING[0], cap=LASTING[1])
        while self._me is None:
            try:
                self._me = await self._api.bot_identity()
            except QuotaExhausted as error:
                log.warning("bot identity: %s", error)
                await self._clock.sleep(QUOTA_SECONDS)
            except BorderError as error:
                log.warning("bot identity: %s", error)
                if not self._status.connected and not isinstance(error, PermissionDenied):
                    report(self._status, error)
                self._status.baffled = beside("link.nameless", why=error)
                passing = isinstance(error, RETRYABLE)
                delay = backoff.delay(error) if passing else patient.delay(None)
                await self._until_connected(delay)
        return self._me

    async def _until_connected(self, seconds: float) -> None:
        self._connected.clear()
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                await self._connected.wait()

    def _age(self, moment: float) -> float:
        """How many seconds ago a moment was by Feishu's own clock; 0 when unknown."""
        return self._http.age(self._settings.base_url, moment)

    # ------------------------------------------------------------ answering

    def sink(self, address: Json, handle: Handle, save: Save, attempt: int) -> ReplySink:
        """A sink aimed at the message of `address` (adapters/feishu/parse.py)."""
        return FeishuSink(
            self._api,
            self._clock,
            self._shared,
            self._settings.pace,
            address,
            handle,
            save,
            attempt,
        )

    def save(self, on: bool) -> None:
        """As bot.contract.Saving: a reply is then a card in a message and its replacement,
        and no message is marked."""
        self._shared.saving = on

    def to_person(self, person: str) -> Json:
        """As bot.contract.Reach."""
        return to_person(person)

    async def retract(self, handle: Handle) -> bool:
        """Take back the messages of one part of a reply: the one in use, and those that a
        step down the ladder left behind (reference/feishu.md 5.4). What was never sent is
        seen by nobody; a send of unknown fate may be."""
        left = at(handle.extra, "left")
        gone = bool(handle.message_id) or "sending_at" not in handle.extra
        for message in [handle.message_id, *(left if isinstance(left, list) else [])]:
            if message:
                gone = await self._take_back(str(message)) and gone
        return gone

    async def _take_back(self, message: str) -> bool:
        try:
            async with self._api.room(self._api.charge("delete")):
                await self._api.delete(message)
        except BorderError as error:
            if error.code in ALREADY_GONE:
                return True
            log.warning("message stays: %s", error)
            return False
        return True

    # ------------------------------------------------------------ reading

    async def missed(self, addresses: Sequence[Json], since: float, until: float) -> Missed:
        """What people said meanwhile (adapters/feishu/history.py)."""
        missed = await self._history.missed(addresses, since, until)
        for message in missed.messages:
            self._names.learn(message.mentions)
        return missed

    async def reread(self, address: Json) -> tuple[Part, ...] | None:
        """The question as it reads now, or None (adapters/feishu/history.py)."""
        return await self._history.reread(address)

    async def name_of(self, address: Json, person: str) -> str:
        """What a person in this chat is called, or "" (adapters/feishu/people.py)."""
        return await self._names.name_of(address, person)

    # ------------------------------------------------------------ marks

    async def react(self, address: Json, mark: Literal["seen", "done"]) -> str:
        """A reaction on the person's message; its id, or an empty string."""
        message = "" if self._shared.saving else text_at(address, "message_id")
        try:
            return await self._api.add_reaction(message, MARKS[mark]) if message else ""
        except BorderError as error:
            log.info("no reaction: %s", error)
            return ""

    async def unreact(self, address: Json, token: str) -> None:
        """Take a reaction back; `token` is what react() returned."""
        message = text_at(address, "message_id")
        if not message or not token or self._shared.saving:
            return
        try:
            await self._api.remove_reaction(message, token)
        except BorderError as error:
            log.info("reaction stays: %s", error)

    async def wipe(self, address: Json, mark: Literal["seen", "done"]) -> None:
        """Take back our own reaction. Without the scope to look for it, it is put up once
        more, which gives the id of one that stands (reference/feishu.md 5.5)."""
        message = "" if self._shared.saving else text_at(address, "message_id")
        if not message:
            return
        try:
            tokens = await self._api.own_reactions(message, MARKS[mark])
        except PermissionDenied:
            tokens = [await self.react(address, mark)]
        except BorderError as error:
            log.info("reactions not read: %s", error)
            return
        for token in tokens:
            await self.unreact(address, token)

    async def close(self) -> None:
        """The HTTP pool belongs to who made it."""
        await self._names.close()
