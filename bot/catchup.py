"""After a time in which nobody listened: fetch what was said, where the platform has a
history, and name to the operator what cannot be fetched (design.md 1)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bot.contract import (
    ChatPlatform,
    Clock,
    Gap,
    History,
    InboundMessage,
    Intake,
    Json,
    TurnStore,
)
from bot.errors import AuthError, BorderError, PermissionDenied, QuotaExhausted, StoreError
from bot.reply import RETRYABLE
from bot.tasks import TaskSet, until_stored

log = logging.getLogger(__name__)

SHORTEST = 10.0
"""Seconds; what falls into a shorter gap is delivered again by the platform soon."""

MARGIN = 15.0
"""Seconds fetched before the gap: an event may have been on its way."""

TOGETHER = 30.0
"""Seconds in which the gaps of a link that comes and goes become one."""

ACTIVE = 30 * 86_400.0
MOST_CHATS = 200
"""Chats fetched: those with a question in the last 30 days, newest first. Each costs a
call of the month."""

HEAR_EVERY = 60.0

HEAR_SECONDS = 2.0
"""How long the store may take for it; a shutdown does not wait for a store that hangs."""

STALE, SUSPECT_EVERY = 60.0, 600.0
"""Seconds: the age at which a pushed message proves that others were missed, and how often
that makes us look."""

RETRIES = (2.0, 10.0, 30.0, 60.0)
"""Seconds after each failed read of a history."""

NO_HISTORY = "这个平台不能取回历史消息 / this platform has no history to fetch"


@dataclass(eq=False)
class CatchUp:
    """`intake` gets what was fetched, exactly as what is pushed."""

    store: TurnStore
    platforms: Mapping[str, ChatPlatform]
    intake: Intake
    clock: Clock
    _fetched: set[str] = field(default_factory=set)
    _waiting: dict[str, tuple[float, float]] = field(default_factory=dict)
    _fetching: Counter[str] = field(default_factory=Counter)
    _suspected: dict[str, float] = field(default_factory=dict)
    _tasks: TaskSet = field(default_factory=TaskSet)

    # ------------------------------------------------------------ while all is well

    async def run(self) -> None:
        """Remember until when each bot heard, and fetch what was missed before this
        start; until cancelled."""
        for bot in self.platforms:
            await self._since_last_time(bot)
        while True:
            await self.clock.sleep(HEAR_EVERY)
            await self.remember()

    async def remember(self) -> None:
        """What is said from now on may be missed: until now every bot whose light is
        green heard, unless it is still fetching what it missed."""
        for bot, platform in self.platforms.items():
            if platform.status.hearing and not self._fetching[bot]:
                await self._remember(bot)

    async def _since_last_time(self, bot: str) -> None:
        heard = await until_stored(lambda: self.store.heard(bot), self.clock)
        if heard > 0:
            self.gap(bot, heard, self.clock.time())

    async def _remember(self, bot: str) -> None:
        try:
            async with self.clock.timeout(HEAR_SECONDS):
                await self.store.hear(bot, self.clock.time())
        except (StoreError, TimeoutError) as error:
            log.warning("not remembered that %s hears: %s", bot, str(error) or "timeout")

    # ------------------------------------------------------------ after a gap

    def gap(self, bot: str, since: float, until: float) -> None:
        """As bot.contract.Intake.gap."""
        waiting = self._waiting.get(bot)
        if waiting is not None:
            self._waiting[bot] = (min(waiting[0], since), max(waiting[1], until))
        elif until - since >= SHORTEST:
            self._waiting[bot] = (since, until)
            self._fetching[bot] += 1
            self._tasks.spawn(self._fetch_whole(bot), name=f"catch up {bot}")

    def suspect(self, message: InboundMessage) -> None:
        """A message that was pushed long after it was written: the link was deaf, though
        nothing else told so, and it is hardly the only one."""
        if message.fetched or message.age < STALE:
            return
        now, last = self.clock.monotonic(), self._suspected.get(message.bot, float("-inf"))
        if now - last < SUSPECT_EVERY:
            return
        self._suspected[message.bot] = now
        until = self.clock.time()
        self.gap(message.bot, until - message.age, until)

    async def _fetch_whole(self, bot: str) -> None:
        try:
            await self._fetch(bot)
        finally:
            self._fetching[bot] -= 1

    async def _fetch(self, bot: str) -> None:
        if bot in self._fetched:
            await self.clock.sleep(TOGETHER)
        self._fetched.add(bot)
        since, until = self._waiting.pop(bot)
        platform = self.platforms[bot]
        if not isinstance(platform, History):
            await self._miss(Gap(bot, "", since, until, NO_HISTORY))
            return
        chats = await self._chats(bot, until)
        log.info("%s was away %.0f s; looking at %d chats", bot, until - since, len(chats))
        told: set[str] = set()
        for chat, address in chats:
            try:
                await self._fetch_chat(platform, Gap(bot, chat, since, until, ""), address, told)
            except QuotaExhausted as error:
                await self._miss(Gap(bot, "", since, until, _why(error)))
                return  # every other chat would meet the same refusal

    async def _chats(self, bot: str, until: float) -> list[tuple[str, Json]]:
        since = until - ACTIVE
        found = await until_stored(lambda: self.store.addresses(bot, since), self.clock)
        return list(reversed(found))[:MOST_CHATS]

    async def _fetch_chat(self, platform: History, gap: Gap, address: Json, told: set[str]) -> None:
        """`told`: chats in which an answer owns up already."""
        try:
            found = await self._missed(platform, gap, address)
        except QuotaExhausted:
            raise
        except BorderError as error:
            await self._miss(replace(gap, why=_why(error)))
            return
        minutes = max(1, round(_span(gap) / 60))
        for message in found:
            away = 0 if gap.chat in told else minutes
            if not message.ignored and await self._hand_over(message, away):
                told.add(gap.chat)

    async def _missed(
        self, platform: History, gap: Gap, address: Json
    ) -> tuple[InboundMessage, ...]:
        """A failure that may pass is tried again: the platform may have just come back."""
        for pause in RETRIES:
            try:
                return await platform.missed(address, gap.since - MARGIN, gap.until)
            except RETRYABLE as error:
                log.info("history of %s not read yet: %s", gap.chat, error)
            await self.clock.sleep(pause)
        return await platform.missed(address, gap.since - MARGIN, gap.until)

    async def _hand_over(self, message: InboundMessage, minutes: int) -> bool:
        """Whether it was new: the first one tells how long we were away. A message that the
        store refuses would be lost: nobody sends it again."""

        async def take() -> bool:
            known = await self.store.turn_of(message.bot, message.message_id)
            await self.intake.message(replace(message, away=minutes))
            return known is None

        return await until_stored(take, self.clock)

    async def _miss(self, gap: Gap) -> None:
        log.warning("%s %s: nothing fetched for %.0f s: %s", gap.bot, gap.chat, _span(gap), gap.why)
        await until_stored(lambda: self.store.miss(gap), self.clock)

    async def close(self) -> None:
        await self._tasks.cancel()


def _span(gap: Gap) -> float:
    return gap.until - gap.since


def _why(error: BorderError) -> str:
    if isinstance(error, PermissionDenied) and error.scopes:
        scopes = " ".join(error.scopes)
        return f"缺少权限 {scopes} / missing scope {scopes}"
    if isinstance(error, PermissionDenied | AuthError | QuotaExhausted):
        return f"平台拒绝 / refused: {error}"
    return f"没有取到 / not fetched: {error}"
