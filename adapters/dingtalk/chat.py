"""One DingTalk app as a chat platform: receiving, answering, marks on messages."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from adapters.dingtalk.api import DingTalkApi
from adapters.dingtalk.link import DingTalkLink
from adapters.dingtalk.place import Place, to_person
from adapters.dingtalk.receive import Receiver
from adapters.dingtalk.settings import DingTalkSettings
from adapters.dingtalk.sink import DingTalkSink, Shared
from adapters.foreign import text_at
from adapters.http import Http
from adapters.meter import Unmetered
from adapters.skipping import Skipping
from adapters.supervisor import supervise
from bot.contract import (
    Budget,
    CallKind,
    Clock,
    Handle,
    InboundMessage,
    Intake,
    Json,
    LinkStatus,
    Meter,
    Platform,
    ReplySink,
    Save,
    SkippedRung,
)
from bot.errors import AuthError, BorderError, PermissionDenied, QuotaExhausted
from bot.texts import beside, both

log = logging.getLogger(__name__)

__all__ = ["DingTalkPlatform", "DingTalkSettings"]

MARKS = {"seen": "👀", "done": "✅"}
"""Emotions may be any short text (reference/dingtalk.md 7)."""

REACT_AFTER = (0.0, 0.4, 1.2)
RECALL_AFTER = (0.0, 1.5, 5.0)
"""Seconds before each try: right after receipt the call may fail (reference/dingtalk.md 7)."""


class DingTalkPlatform:
    """A bot.contract.ChatPlatform with the powers Reactions, which does nothing unless
    `receipts` is set because each mark costs a counted call, Saving, Reach and Ways. `http`
    stays its owner's."""

    platform: Platform = "dingtalk"

    def __init__(
        self,
        settings: DingTalkSettings,
        http: Http,
        clock: Clock,
        meter: Meter | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._meter = meter or Unmetered()
        self._api = DingTalkApi(settings, http, clock, self._meter, budget)
        self._skipping = Skipping(settings.bot)
        self._shared = Shared(clock, skipping=self._skipping)
        self._status = LinkStatus(
            settings.bot, cause=beside("link.starting"), since=clock.monotonic()
        )

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
        """Receive until cancelled."""
        robot = self._settings.client_id
        receiver = Receiver(
            self.bot,
            robot,
            intake,
            self._clock,
            self._apologise,
            age=self._age,
            meter=self._meter,
        )
        try:
            await self._receive(receiver, intake)
        finally:
            await receiver.close()

    async def _receive(self, receiver: Receiver, intake: Intake) -> None:
        def gap(since: float, until: float) -> None:
            intake.gap(self.bot, since, until)

        idle = self._settings.rotate
        if self._settings.transport == "sdk":
            from adapters.dingtalk.sdk_link import run_sdk

            await run_sdk(self._settings, receiver, self._status, self._clock, gap=gap, idle=idle)
            return
        link = DingTalkLink(self._settings, self._http, self._clock, receiver)
        try:
            await supervise(link.session, self._status, self._clock, gap=gap, idle=idle)
        finally:
            await link.close()

    def _age(self, moment: float) -> float:
        """How many seconds ago a moment was by DingTalk's own clock; 0 when unknown."""
        return self._http.age(self._settings.base_url, moment)

    async def _apologise(self, message: InboundMessage) -> None:
        """Ask to send it again: DingTalk may not redeliver (law 1). Raises BorderError."""
        place = Place(self._api, self._clock, message.address)
        words = both("error.store", ref=message.message_id[-8:])
        by_hook = place.webhook_open
        post = place.post_webhook if by_hook else place.post_message
        async with self._api.room(place.webhook_charge() if by_hook else place.message_charge()):
            await post(words.partition("\n")[0], words.replace("\n", "\n\n"))

    # ------------------------------------------------------------ answering

    def sink(self, address: Json, handle: Handle, save: Save, attempt: int) -> ReplySink:
        """A sink aimed at the conversation of `address` (adapters/dingtalk/parse.py)."""
        return DingTalkSink(
            self._settings,
            self._api,
            self._clock,
            self._shared,
            address,
            handle,
            save,
            attempt,
        )

    def save(self, on: bool) -> None:
        """As bot.contract.Saving: a reply is then a card and its end, and no message is
        marked."""
        self._shared.saving = on

    def to_person(self, person: str) -> Json:
        """As bot.contract.Reach."""
        return to_person(person, self._settings.client_id)

    def ways(self, address: Json) -> frozenset[CallKind]:
        """As bot.contract.Ways: a session webhook is no API call (reference/dingtalk.md 5.7)."""
        return Place(self._api, self._clock, address).ways

    def spent(self, kinds: frozenset[CallKind]) -> None:
        """As bot.contract.Ways."""
        self._shared.spent = kinds

    async def react(self, address: Json, mark: Literal["seen", "done"]) -> str:
        """An emotion on the person's message; its name, or an empty string."""
        name = MARKS[mark]
        if not self._settings.receipts or self._shared.saving:
            return ""
        return name if await self._tried(self._api.emotion, address, name, REACT_AFTER) else ""

    async def unreact(self, address: Json, token: str) -> None:
        """Take an emotion back; `token` is what react() returned."""
        if token and not self._shared.saving:
            await self._tried(self._api.recall_emotion, address, token, RECALL_AFTER)

    async def wipe(self, address: Json, mark: Literal["seen", "done"]) -> None:
        """An emotion's name is all that it takes; one that is not there is refused."""
        if self._settings.receipts and not self._shared.saving:
            await self._tried(self._api.recall_emotion, address, MARKS[mark], RECALL_AFTER[:1])

    async def _tried(
        self,
        call: Callable[[str, str, str, str], Awaitable[None]],
        address: Json,
        name: str,
        delays: tuple[float, ...],
    ) -> bool:
        """Whether one of the tries succeeded; failures are ignored (reference/dingtalk.md 7)."""
        message = text_at(address, "msgId")
        conversation = text_at(address, "conversationId")
        for delay in delays:
            await self._clock.sleep(delay)
            try:
                await call(text_at(address, "robotCode"), conversation, message, name)
            except (AuthError, PermissionDenied, QuotaExhausted) as error:
                log.info("no emotion: %s", error)
                return False
            except BorderError as error:
                log.info("no emotion yet: %s", error)
            else:
                return True
        return False

    async def close(self) -> None:
        """Nothing of ours outlives run(); the HTTP pool belongs to who made it."""
