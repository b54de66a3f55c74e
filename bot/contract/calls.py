"""What a bot asks of its platform in a month, counted."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from bot.contract.showing import Charge

CallKind = Literal["api", "message"]
"""What is billed apart: `api` is every call of the platform's API; `message` is DingTalk's
"Webhook & Stream": what it pushes to us and what we post to webhooks
(reference/dingtalk.md 5.7). Feishu knows `api` alone (reference/feishu.md 5.9)."""


@dataclass(frozen=True, slots=True)
class CallCount:
    """How many calls of one API a bot made in a month (YYYY-MM, in Beijing time)."""

    bot: str
    month: str
    kind: CallKind
    api: str
    count: int


class Meter(Protocol):
    """Where the adapter of one bot reports what goes out and comes in. Never raises,
    never waits."""

    def count(self, api: str, kind: CallKind = "api") -> None:
        """One request or push that counts against the month."""

    def used_up(self, kind: CallKind = "api") -> None:
        """The platform itself said that the month's calls of this kind are used up."""


class Budget(Protocol):
    """Where an adapter asks for what it calls beside the replies, whose calls the core
    charges itself: marks, looks into a history, recalls."""

    def room(self, charge: Charge) -> AbstractAsyncContextManager[None]:
        """Entered when the call may be made, and around it: a RateLimited that leaves it
        closes the bucket for a while."""
