"""Pictures and lines that a person sends within a moment become one question: the turn
that the first of them began waits for the others."""

from __future__ import annotations

from bot.contract import Clock, InboundMessage, UnreadablePart
from bot.settings import Chat


class Gathering:
    """The turns that still wait for companions, each until a moment after the last one."""

    def __init__(self, chat: Chat, clock: Clock) -> None:
        self._chat, self._clock = chat, clock
        self._until: dict[str, float] = {}
        self._lanes: dict[str, str] = {}

    def seconds(self, message: InboundMessage, lane: str) -> float:
        """How far back this message looks for a turn to join, 0 for not at all: one
        without words joins what was said just now, and words join what is waiting."""
        if self._chat.gather <= 0:
            return 0.0
        joins = self.starts(message) or lane in self._lanes
        return self._chat.gather if joins else 0.0

    def starts(self, message: InboundMessage) -> bool:
        """Whether a turn of this message waits for companions."""
        if self._chat.gather <= 0:
            return False
        media = any(isinstance(part, UnreadablePart) for part in message.parts)
        return self._chat.gather_text or (media and not message.text)

    def hold(self, turn_id: str, lane: str) -> None:
        """Wait from now on; or longer, when it already waits."""
        self._until[turn_id] = self._clock.monotonic() + self._chat.gather
        self._lanes[lane] = turn_id

    async def settled(self, turn_id: str, lane: str) -> None:
        """Returns when the turn has waited long enough."""
        while (left := self._until.get(turn_id, 0.0) - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        self._until.pop(turn_id, None)
        if self._lanes.get(lane) == turn_id:
            del self._lanes[lane]
