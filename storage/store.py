"""The TurnStore: bot.contract's methods, each one transaction in the store's thread."""

from __future__ import annotations

import uuid

from bot.contract import (
    Accepted,
    Clock,
    Conversation,
    Ending,
    Event,
    Handle,
    Started,
    Turn,
    TurnState,
    TurnStore,
    UsageTotal,
)
from storage import history as past
from storage import turns
from storage.database import Database
from storage.sqlite import path_of

PRUNE_TOGETHER = 500
"""Event keys forgotten in one transaction; others are served in between."""


async def open_store(url: str, clock: Clock, *, durable: bool = True) -> TurnStore:
    """The store at `url` (`sqlite:///folder/queqiao.db`; both are made when missing),
    with its schema up to date. `durable` false does not flush: for tests only.

    Raises StoreError for another kind of URL or an unwritable file, StoreLocked when a
    process holds the store, StoreTooNew when a newer version wrote it.
    """
    database = Database(path_of(url), durable=durable)
    await database.open()
    return SqlTurnStore(database, clock)


class SqlTurnStore:
    """A bot.contract.TurnStore. `owner` is this process in the lanes' rows: another one
    at every start, so what an earlier process held is recognised."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.owner = uuid.uuid4().hex
        self._clock = clock

    # ------------------------------------------------------------ the life of a turn

    async def accept(self, event: Event) -> Accepted:
        now = self._clock.time()
        return await self.database.run(lambda c: turns.accept(c, self.owner, now, event))

    async def start(self, turn_id: str, history: int) -> Started | None:
        return await self.database.run(lambda c: turns.start(c, turn_id, history))

    async def save_handle(self, turn_id: str, part: int, handle: Handle) -> None:
        await self.database.run(lambda c: turns.save_handle(c, turn_id, part, handle))

    async def checkpoint(self, turn_id: str, text: str, reasoning: str) -> None:
        await self.database.run(lambda c: turns.checkpoint(c, turn_id, text, reasoning))

    async def decide(self, turn_id: str, ending: Ending) -> None:
        await self.database.run(lambda c: turns.decide(c, turn_id, ending))

    async def finish(self, turn_id: str, ending: Ending) -> Turn | None:
        now = self._clock.time()
        return await self.database.run(lambda c: turns.finish(c, self.owner, now, turn_id, ending))

    async def stop_waiting(
        self, lane: str, sender: str | None, state: TurnState = "stopped"
    ) -> tuple[Turn, ...]:
        now = self._clock.time()
        return await self.database.run(lambda c: turns.stop_waiting(c, now, lane, sender, state))

    async def withdraw(self, turn_id: str, state: TurnState) -> bool:
        now = self._clock.time()
        return await self.database.run(lambda c: turns.withdraw(c, now, turn_id, state))

    async def recover(self) -> tuple[Turn, ...]:
        return await self.database.run(lambda c: turns.recover(c, self.owner))

    # ------------------------------------------------------------ conversations

    async def conversation(self, key: str) -> Conversation:
        return await self.database.run(lambda c: past.read_conversation(c, key))

    async def cut(self, key: str) -> int:
        return await self.database.run(lambda c: past.cut(c, key))

    async def choose(self, key: str, name: str, value: str) -> None:
        await self.database.run(lambda c: past.choose(c, key, name, value))

    # ------------------------------------------------------------ looking back

    async def turn(self, turn_id: str) -> Turn | None:
        return await self.database.run(lambda c: turns.read_turn(c, turn_id))

    async def turn_of(self, bot: str, message_id: str) -> Turn | None:
        return await self.database.run(
            lambda c: turns.read_turn(c, past.asked_by(c, bot, message_id) or "")
        )

    async def last_turn(self, conversation: str, sender: str = "") -> Turn | None:
        return await self.database.run(
            lambda c: turns.read_turn(c, past.newest_ended(c, conversation, sender) or "")
        )

    async def usage(self, *, since: float, conversation: str = "", sender: str = "") -> UsageTotal:
        return await self.database.run(lambda c: past.usage(c, since, conversation, sender))

    # ------------------------------------------------------------ care

    async def prune(self, before: float) -> int:
        total = 0
        while True:
            gone = await self.database.run(lambda c: past.forget_events(c, before, PRUNE_TOGETHER))
            total += gone
            if gone < PRUNE_TOGETHER:
                return total

    async def close(self) -> None:
        await self.database.close()
