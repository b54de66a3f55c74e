"""At the end of the month's calls: what is not answered any more, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.access import Access
from bot.calls import Calls
from bot.contract import ChatPlatform, Clock, Ending, NewTurn, Turn, Ways
from bot.endings import MONTH
from bot.texts import say

ONCE = 3_600.0
"""Seconds in which a conversation is told once that nothing is answered: telling it costs a
call as well. What is written there meanwhile counts as told by that sentence, which says so
(design.md law 1)."""

FREE = ("month.save", "month.spent", "month.refused")
"""Notices to the admins about the month itself."""

SAYS_WHY = "notice.quota"
"""A notice that gives the reason itself, in place of our sentence."""


@dataclass(frozen=True)
class Gate:
    """Asked before a turn is answered."""

    calls: Calls
    platforms: Mapping[str, ChatPlatform]
    access: Access
    clock: Clock
    _told: dict[str, tuple[float, str]] = field(default_factory=dict)

    def refusal(self, turn: Turn, *, shown: bool = False) -> Ending | None:
        """How the turn ends unanswered, or None when it may be answered. `shown`: a card of
        it is open, which has to say something. An ending without a text is told already."""
        new = turn.new
        if not self.closed(new.bot, new.address) or new.notice in FREE or self._commands(new):
            return None
        now = self.clock.monotonic()
        at, teller = self._told.get(new.conversation, (float("-inf"), ""))
        if now - at < ONCE and teller != turn.id and not shown:
            proof = f"{MONTH}:{teller}"
            return Ending("refused", error=MONTH, delivery="delivered", proof=proof)
        self._remember(new.conversation, now, turn.id)
        if new.notice == SAYS_WHY:
            return None
        return Ending("refused", text=say("notice.month", new.lang), error=MONTH)

    def closed(self, bot: str, address: Mapping[str, object] | None = None) -> bool:
        """Whether even a plain answer would cost calls that are used up; without an
        address, whether none of the bot's accounts has any left."""
        if not self.calls.limited(bot):
            return False
        standings = self.calls.standings(bot)
        left = {standing.kind for standing in standings if standing.level != "spent"}
        if address is None:
            return not left
        platform = self.platforms[bot]
        ways = platform.ways(address) if isinstance(platform, Ways) else frozenset({"api"})
        return bool(ways) and not left & ways

    def _commands(self, new: NewTurn) -> bool:
        """Admins can still look and act."""
        role = self.access.role(new.platform, new.sender, new.chat_kind)
        return new.kind == "command" and role == "admin"

    def _remember(self, conversation: str, now: float, turn: str) -> None:
        for key in [key for key, (at, _) in self._told.items() if now - at >= ONCE]:
            del self._told[key]
        self._told[conversation] = now, turn
