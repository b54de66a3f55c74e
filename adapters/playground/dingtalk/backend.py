"""What every part of the simulated platform shares."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapters.playground.dingtalk.limits import Quota
from adapters.playground.dingtalk.wire import Call, Policy
from adapters.playground.dingtalk.world import World
from adapters.playground.faults import Faults
from bot.contract import Clock


@dataclass(slots=True)
class Backend:
    """`violations` are sentences about a client that broke a rule the real platform
    enforces or punishes silently; a good client leaves the list empty. `base_url` is
    known once the server listens."""

    clock: Clock
    world: World
    policy: Policy
    faults: Faults
    client_id: str
    client_secret: str
    strict_limits: bool
    quota: Quota = field(default_factory=Quota)
    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    base_url: str = ""

    def blame(self, words: str) -> None:
        self.violations.append(words)

    def millis(self) -> int:
        return int(self.clock.time() * 1000)
