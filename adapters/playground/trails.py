"""The way of the newest turns of each chat, put together from one look after another: a
bot that was killed has forgotten what it did before, the page should not (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.live import LiveTurn, Step

Json = dict[str, Any]

KEPT = 3
"""Turns remembered of each chat."""

OPEN = ("queued", "running")
"""States of a turn that is not over."""

KILLED = "killed"
"""What a moment is called at which the bot died; the bot itself cannot tell."""


@dataclass(slots=True)
class Trail:
    """`state` is empty for a turn that the bot no longer speaks of."""

    id: str
    message: str
    state: str = ""
    steps: dict[tuple[float, str], Step] = field(default_factory=dict)

    @property
    def begun(self) -> float:
        return min((step.at for step in self.steps.values()), default=0.0)

    def as_json(self) -> Json:
        steps = sorted(self.steps.values(), key=lambda step: step.at)
        moments = [{"at": s.at, "what": s.what, "detail": s.detail} for s in steps]
        return {"id": self.id, "message": self.message, "state": self.state, "moments": moments}


class Trails:
    """By chat, under the key that the page knows it by."""

    def __init__(self) -> None:
        self._chats: dict[str, dict[str, Trail]] = defaultdict(dict)

    def take(self, turns: Iterable[tuple[str, LiveTurn]]) -> None:
        """Everything that the bot speaks of now, as (chat key, turn)."""
        named: set[str] = set()
        for key, turn in turns:
            named.add(turn.id)
            trail = self._chats[key].setdefault(turn.id, Trail(turn.id, turn.message))
            trail.state = turn.state
            trail.steps |= {(step.at, step.what): step for step in turn.steps}
        for trail in self._all():
            if trail.id not in named and trail.state in OPEN:
                trail.state = ""
        for key, trails in self._chats.items():
            newest = sorted(trails.values(), key=lambda trail: trail.begun)[-KEPT:]
            self._chats[key] = {trail.id: trail for trail in newest}

    def killed(self, at: float) -> None:
        """The bot died, in the middle of whatever is not over."""
        for trail in self._all():
            if trail.state in OPEN:
                trail.steps[at, KILLED] = Step(at, KILLED)

    def _all(self) -> list[Trail]:
        return [trail for trails in self._chats.values() for trail in trails.values()]

    def as_json(self) -> dict[str, list[Json]]:
        """The turns of each chat, the newest one last."""
        return {
            key: [trail.as_json() for trail in trails.values()]
            for key, trails in self._chats.items()
        }
