"""Makes the reply of a turn: its sinks aimed and journaled, its moments noted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from bot.contract import (
    ChatPlatform,
    Clock,
    Handle,
    ReplySink,
    Retraction,
    Snapshot,
    Turn,
    TurnStore,
)
from bot.pace import Pacer
from bot.reply import Reply
from bot.texts import say
from bot.trail import Trails


@dataclass(frozen=True)
class Replies:
    """Everything that a reply is made of. `spent`: whether a bot has no calls left to show
    how an answer grows."""

    store: TurnStore
    platforms: Mapping[str, ChatPlatform]
    pacer: Pacer
    trails: Trails
    clock: Clock
    spent: Callable[[str], bool] = lambda bot: False
    _alive: WeakValueDictionary[str, Reply] = field(default_factory=WeakValueDictionary)

    def make(self, turn: Turn, growing: Snapshot, *, folded: bool = False) -> Reply:
        """The turn's reply; it goes on with the cards that its journal names."""
        platform = self.platforms[turn.new.bot]

        def make_sink(part: int) -> ReplySink:
            async def save(handle: Handle) -> None:
                await self.store.save_handle(turn.id, part, handle)

            known = part < len(turn.handles)
            handle = turn.handles[part] if known else Handle(key=f"{turn.id}-{part}")
            return platform.sink(turn.new.address, handle, save, max(1, turn.attempt))

        reply = self._alive[turn.id] = Reply(
            make_sink,
            self.pacer,
            self.clock,
            growing,
            lambda what, detail: self.trails.note(turn.id, what, detail),
            sealed=Snapshot(note=say("card.continues", turn.new.lang), state="continued"),
            superseded=Snapshot(note=say("card.superseded", turn.new.lang)),
            show_reasoning=folded,
            earlier_parts=len(turn.handles),
            spent=lambda: self.spent(turn.new.bot),
        )
        return reply

    def open_cards(self, undelivered: Collection[Turn] = ()) -> int:
        """Cards that people see and nobody has closed: of those who wait or are being
        answered, and of `undelivered`, whose last one waits for the next try."""
        cards = {turn_id: reply.open_cards for turn_id, reply in self._alive.items()}
        for turn in undelivered:
            last = turn.handles[-1] if turn.handles else None
            stands = last is not None and bool(last.card_id or last.message_id)
            cards[turn.id] = max(int(stands), cards.get(turn.id, 0))
        return sum(cards.values())

    async def retract(self, turn: Turn, reply: Reply) -> bool:
        """Take back whatever was sent; False when something stays on the screen. What is on
        its way arrives first."""
        await reply.leave()
        if reply.untouched:
            return True
        self._alive.pop(turn.id, None)
        platform = self.platforms[turn.new.bot]
        if not isinstance(platform, Retraction):
            return False
        return all([await platform.retract(handle) for handle in reply.handles])
