"""Pictures and lines that a person sends within a moment become one question: the turn
that the first of them began waits for the others."""

from __future__ import annotations

from bot.contract import Accepted, Clock, InboundMessage, UnreadablePart
from bot.settings import Chat

COMING = ""
"""Stands for a turn that is being claimed."""


class Gathering:
    """The turns that still wait for companions, each until a moment after the last one."""

    def __init__(self, chat: Chat, clock: Clock) -> None:
        self._chat, self._clock = chat, clock
        self._until: dict[str, float] = {}
        self._lanes: dict[str, str] = {}

    def seconds(self, message: InboundMessage, lane: str) -> float:
        """How far back this message looks for a turn to join, 0 for not at all: one
        without words joins what was said just now, and words join what is waiting. What
        is asked here is claimed next, so words behind it already know of it."""
        if self.starts(message):
            self._lanes.setdefault(lane, COMING)
            return self._chat.gather
        return self._chat.gather if self._waits(lane) else 0.0

    def _waits(self, lane: str) -> bool:
        """Whether somebody in this lane waits for companions."""
        turn_id = self._lanes.get(lane)
        if turn_id is None or turn_id == COMING:
            return turn_id is not None
        return self._until.get(turn_id, 0.0) > self._clock.monotonic()

    def starts(self, message: InboundMessage) -> bool:
        """Whether a turn of this message waits for companions."""
        if self._chat.gather <= 0:
            return False
        media = any(isinstance(part, UnreadablePart) for part in message.parts)
        return self._chat.gather_text or (media and not message.text)

    def claimed(self, message: InboundMessage, lane: str, accepted: Accepted) -> None:
        """What `seconds` was asked for has been claimed: its turn waits from now on, or
        longer when it waits already."""
        starts = self.starts(message)
        if starts and self._lanes.get(lane) == COMING:
            del self._lanes[lane]
        fresh = accepted.fresh and not accepted.full
        if fresh and accepted.turn is not None and (starts or accepted.joined):
            self._until[accepted.turn.id] = self._clock.monotonic() + self._chat.gather
            self._lanes[lane] = accepted.turn.id

    def unclaimed(self, lane: str) -> None:
        """What `seconds` was asked for could not be claimed."""
        if self._lanes.get(lane) == COMING:
            del self._lanes[lane]

    async def settled(self, turn_id: str, lane: str) -> None:
        """Returns when the turn has waited long enough."""
        while (left := self._until.get(turn_id, 0.0) - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        self._until.pop(turn_id, None)
        if self._lanes.get(lane) == turn_id:
            del self._lanes[lane]
