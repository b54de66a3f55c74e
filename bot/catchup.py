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
from bot.endings import AWAY
from bot.errors import (
    RETRYABLE,
    AuthError,
    BorderError,
    PermissionDenied,
    QuotaExhausted,
    StoreError,
)
from bot.tasks import TaskSet, until_stored
from bot.texts import beside

log = logging.getLogger(__name__)

MARGIN = 15.0
"""Seconds fetched before the gap: an event may have been on its way."""

TOGETHER = 30.0
"""Seconds in which the gaps of a link that comes and goes become one. A short gap waits for
as long, because the platform's own first repeat costs no call (reference/feishu.md 2.7)."""

GLANCE = 0.5
"""Seconds between two looks whether the light is green again."""

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far we look: at chats with a question in the last `days`, newest first, at most
    `chats` of them. Each costs a call of the month."""

    days: int
    chats: int


SHORT = 10.0
"""Seconds; in a shorter gap little was said, most of it where people are talking just now,
and most of that is pushed again. A link that comes and goes, or a restart, would use up a
month's calls if each gap were read as widely as a long one; so the operator is told which
chats were not looked at."""

NEAR, FAR = _Reach(1, 20), _Reach(30, 200)

ONE_LINE = 3600.0
"""Seconds between two short gaps that the operator sees in one line."""

HEAR_EVERY = 60.0

HEAR_SECONDS = 2.0
"""How long the store may take for it; a shutdown does not wait for a store that hangs."""

STALE, SUSPECT_EVERY = 60.0, 600.0
"""Seconds: the age at which a pushed message proves that others were missed, and how often
that makes us look."""

RETRIES = (2.0, 10.0, 30.0, 60.0)
"""Seconds before each further round of the chats whose history could not be read."""

Chats = dict[str, list[Json]]
"""By chat, one address of each topic, newest first."""


@dataclass(slots=True)
class _Flicker:
    """Short gaps of one bot that follow each other."""

    since: float
    until: float
    times: int = 0
    seconds: float = 0.0


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
    _flickers: dict[str, _Flicker] = field(default_factory=dict)
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
            if platform.status.hearing and not self.busy(bot):
                await self._remember(bot)

    def busy(self, bot: str) -> bool:
        """Whether it is still fetching what it missed."""
        return self._fetching[bot] > 0

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
        since = min(since, until)  # a clock may have been set back
        waiting = self._waiting.get(bot)
        if waiting is not None:
            self._waiting[bot] = (min(waiting[0], since), max(waiting[1], until))
        else:
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
        since, until = self._waiting[bot]
        if bot in self._fetched or until - since < SHORT:
            await self.clock.sleep(TOGETHER)
        self._fetched.add(bot)
        await self._until_green(bot)
        gap = Gap(bot, "", *self._waiting.pop(bot), "")
        platform = self.platforms[bot]
        if not isinstance(platform, History):
            await self._list(gap, beside("gap.no_history"))
            return
        reach = FAR if _span(gap) >= SHORT else NEAR
        known = await self._chats(gap, reach)
        chats = dict(list(known.items())[: reach.chats])
        await self._list(gap, _unread(reach, len(chats), len(known) - len(chats)))
        log.info("%s was away %.0f s; looking at %d chats", bot, _span(gap), len(chats))
        try:
            await self._read(platform, gap, chats)
        except QuotaExhausted as error:
            await self._miss(replace(gap, why=_why(error)))  # every chat would meet the same

    async def _until_green(self, bot: str) -> None:
        """Until then nothing can be fetched, and the gap grows."""
        status = self.platforms[bot].status
        if status.hearing:
            return
        while not status.hearing:
            await self.clock.sleep(GLANCE)
        self.gap(bot, self.clock.time(), self.clock.time())

    async def _chats(self, gap: Gap, reach: _Reach) -> Chats:
        since = gap.until - reach.days * DAY
        found = await until_stored(lambda: self.store.addresses(gap.bot, since), self.clock)
        chats: Chats = {}
        for chat, address in reversed(found):
            chats.setdefault(chat, []).append(address)
        return chats

    async def _read(self, platform: History, gap: Gap, chats: Chats) -> None:
        """A failure that may pass is tried again, because the platform may have just come
        back; but only when all others had their turn."""
        for pause in (0.0, *RETRIES):
            await self.clock.sleep(pause)
            failed: dict[str, BorderError] = {}
            for chat, addresses in chats.items():
                error = await self._read_chat(platform, replace(gap, chat=chat), addresses)
                if error is not None:
                    failed[chat] = error
            chats = {chat: chats[chat] for chat in failed}
            if not chats:
                return
        for chat, error in failed.items():
            await self._miss(replace(gap, chat=chat, why=_why(error)))

    async def _read_chat(
        self, platform: History, gap: Gap, addresses: list[Json]
    ) -> BorderError | None:
        """Hand over what was missed; returns the error if it may pass."""
        try:
            missed = await platform.missed(addresses, gap.since - MARGIN, gap.until)
        except QuotaExhausted:
            raise
        except RETRYABLE as error:
            log.info("history of %s not read yet: %s", gap.chat, error)
            return error
        except BorderError as error:
            await self._miss(replace(gap, why=_why(error)))
            return None
        if missed.left is not None:
            await self._miss(missed.left)
        minutes = max(1, round(_span(gap) / 60))
        for message in missed.messages:
            if not message.ignored and await self._hand_over(message, minutes):
                minutes = 0
        return None

    async def _hand_over(self, message: InboundMessage, minutes: int) -> bool:
        """Whether its answer will tell that we were away. A message that the store refuses
        would be lost: nobody sends it again."""

        async def take() -> bool:
            known = await self.store.turn_of(message.bot, message.message_id)
            await self.intake.message(replace(message, away=minutes))
            if known is not None or not minutes:
                return False
            turn = await self.store.turn_of(message.bot, message.message_id)
            return turn is not None and turn.new.notice == AWAY and turn.state != "refused"

        return await until_stored(take, self.clock)

    # ------------------------------------------------------------ what cannot be fetched

    async def _list(self, gap: Gap, why: str) -> None:
        """For the whole bot. Short gaps that follow each other are one line that grows: a
        hundred lines a day would hide the one that matters."""
        if _span(gap) >= SHORT:
            await self._miss(replace(gap, why=why))
            return
        line = self._flickers.get(gap.bot)
        if line is None or gap.since - line.until > ONE_LINE:
            line = self._flickers[gap.bot] = _Flicker(gap.since, gap.until)
        line.until, line.times = max(line.until, gap.until), line.times + 1
        line.seconds += _span(gap)
        if line.times > 1:
            times = beside("gap.times", count=line.times, seconds=round(line.seconds))
            why = f"{times}; {why}"
        await self._miss(Gap(gap.bot, "", line.since, line.until, why))

    async def _miss(self, gap: Gap) -> None:
        log.warning("%s %s: not all heard for %.0f s: %s", gap.bot, gap.chat, _span(gap), gap.why)
        await until_stored(lambda: self.store.miss(gap), self.clock)

    async def close(self) -> None:
        await self._tasks.cancel()


def _span(gap: Gap) -> float:
    return gap.until - gap.since


def _unread(reach: _Reach, read: int, left: int) -> str:
    """Which chats were not looked at: there always are some, because a chat is known by its
    questions alone."""
    others = beside("gap.others", days=reach.days, count=read)
    return f"{others}; {beside('gap.too_many', count=left)}" if left else others


def _why(error: BorderError) -> str:
    if isinstance(error, PermissionDenied) and error.scopes:
        return beside("gap.scopes", scopes=" ".join(error.scopes))
    if isinstance(error, PermissionDenied | AuthError | QuotaExhausted):
        return beside("gap.refused", why=error)
    return beside("gap.failed", why=error)
