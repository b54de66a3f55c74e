"""At 80 % of the month's calls: the platforms answer sparingly by themselves, and the admins
are told, once (design.md 6; needs.md 25)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bot.calls import Calls, Standing
from bot.contract import (
    ChatPlatform,
    Clock,
    Event,
    Json,
    NewTurn,
    Person,
    Reach,
    Saving,
    TurnStore,
    Ways,
)
from bot.errors import StoreError
from bot.month import Mode, level_of
from bot.report_text import call_line

log = logging.getLogger(__name__)

AFTER_REFUSAL = 86_400.0
"""Seconds for which the platform's word that a quota is used up makes us save."""

FRESH = 5_400.0
"""Seconds for which the address of a private chat may hold a way that costs no API call
(reference/dingtalk.md 4.2)."""

Announce = Callable[[Event], Awaitable[None]]


@dataclass(eq=False)
class Saver:
    """`modes` holds every bot; `admins` are entries of Settings.admins; `lang` is theirs."""

    store: TurnStore
    calls: Calls
    platforms: Mapping[str, ChatPlatform]
    modes: Mapping[str, Mode]
    admins: frozenset[str]
    lang: str
    clock: Clock
    _told: set[str] = field(default_factory=set)

    # ------------------------------------------------------------ saving

    def saving(self, bot: str) -> bool:
        mode, level = self.modes[bot], self.calls.level(bot)
        kinds = [standing.kind for standing in self.calls.standings(bot)]
        refused = any(self.calls.refused(bot, kind, AFTER_REFUSAL) for kind in kinds)
        if level == "spent" or mode == "always":
            return True
        return mode == "auto" and (bool(level) or refused)

    def switch(self) -> None:
        """Tell the platforms how it stands now."""
        for bot, platform in self.platforms.items():
            if isinstance(platform, Saving):
                platform.save(self.saving(bot))
            if isinstance(platform, Ways):
                standings = self.calls.standings(bot)
                platform.spent(frozenset(s.kind for s in standings if _avoided(s)))

    async def look(self, announce: Announce) -> None:
        """Switch, and tell the admins what is new. `announce` claims an event and tells the
        notice that it holds."""
        self.switch()
        for bot in self.platforms:
            try:
                await self._look_at(bot, announce)
            except StoreError as error:
                log.warning("admins not told of the calls of %s yet: %s", bot, error)

    # ------------------------------------------------------------ telling

    async def _look_at(self, bot: str, announce: Announce) -> None:
        standings = self.calls.standings(bot)
        notice = _notice(standings)
        news = f"{bot}:{standings[0].month}:{notice}:{_about(standings, notice)}"
        if not notice or news in self._told:
            return
        people = self._people(bot)
        log.warning("%s, %d admins are told", news, len(people))
        for teller, person in people:
            await self._tell(teller, person, notice, f"{news}:{person}", standings, announce)
        self._told.add(news)

    def _people(self, bot: str) -> list[tuple[str, str]]:
        """(bot that tells, admin's id): the admins of this platform, else all others that
        can be reached; all of them when this platform may refuse to carry it."""
        own = self.platforms[bot]
        tellers = {p.platform: name for name, p in self.platforms.items() if isinstance(p, Reach)}
        if isinstance(own, Reach):
            tellers[own.platform] = bot
        known = [entry.partition(":")[::2] for entry in sorted(self.admins)]
        reached = [(platform, person) for platform, person in known if platform in tellers]
        near = [(platform, person) for platform, person in reached if platform == own.platform]
        chosen = reached if self.calls.refused(bot, "api") else near or reached
        return [(tellers[platform], person) for platform, person in chosen]

    async def _tell(
        self,
        teller: str,
        person: str,
        notice: str,
        name: str,
        standings: tuple[Standing, ...],
        announce: Announce,
    ) -> None:
        """Once for each `name`: the turn of the notice is the memory."""
        if await self.store.turn_of(teller, name) is not None:
            return
        lines = [call_line(s.json, self.lang) for s in standings if s.cap or s.refused]
        blanks = {"bot": standings[0].bot, "lines": "\n".join(lines)}
        turn = await self._turn(teller, person, notice, name, blanks)
        await announce(Event(f"{teller}:{name}", turn))

    async def _turn(
        self, teller: str, person: str, notice: str, name: str, blanks: Json
    ) -> NewTurn:
        platform = self.platforms[teller]
        assert isinstance(platform, Reach)
        now = self.clock.time()
        recent = dict(await self.store.addresses(teller, now - FRESH))
        return NewTurn(
            id=uuid.uuid4().hex,
            kind="notice",
            bot=teller,
            platform=platform.platform,
            chat=person,
            chat_kind="p2p",
            topic="",
            conversation=f"{teller}|{person}|",
            lane=f"{teller}|{person}|",
            sender=Person(person),
            message_id=name,
            parts=(),
            address=recent.get(person) or platform.to_person(person),
            lang=self.lang,
            asked_at=now,
            notice=notice,
            notice_args=blanks,
        )


def _avoided(standing: Standing) -> bool:
    """Whether to go another way. That pushes are used up does not say that a webhook is
    refused (reference/dingtalk.md 5.7, unsure): it is tried, and costs nothing when it is."""
    if standing.kind == "message":
        return level_of(standing.used, standing.cap) == "spent"
    return standing.level == "spent"


def _notice(standings: tuple[Standing, ...]) -> str:
    """The key of the notice that the worst of them deserves, or empty."""
    if any(standing.refused for standing in standings):
        return "month.refused"
    levels = {standing.level for standing in standings}
    return "month.spent" if "spent" in levels else "month.save" if "save" in levels else ""


def _about(standings: tuple[Standing, ...], notice: str) -> str:
    """What the notice says of which account: one that runs low later, or under another cap,
    is news; what the platform says does not depend on caps."""
    if notice == "month.refused":
        return "+".join(standing.kind for standing in standings if standing.refused)
    marked = [standing for standing in standings if standing.level]
    return "+".join(f"{standing.kind}-{standing.level}-{standing.cap}" for standing in marked)
