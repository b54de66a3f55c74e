"""What is remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from bot.contract.base import (
    Json,
)
from bot.contract.calls import (
    CallCount,
)
from bot.contract.inbound import (
    Part,
)
from bot.contract.showing import (
    Handle,
)
from bot.contract.turns import (
    Accepted,
    Account,
    Backlog,
    Conversation,
    Ending,
    Event,
    Gap,
    Started,
    Turn,
    TurnState,
    UsageTotal,
)

Foresee = Callable[[Accepted], object]


class TurnStore(Protocol):
    """What is remembered. Every method returns after its commit. Raises StoreError, and
    then nothing was stored. Writes to a turn that was decided, has ended or is unknown
    change nothing, unless the method says otherwise. By itself the store adds to trails:
    joined, edited, and stopped or recalled of a turn that waited."""

    async def accept(self, event: Event, foresee: Foresee | None = None) -> Accepted:
        """Claim the event and its lane in one transaction (engine.md 4, accept). One that
        comes again is counted. `foresee` may be called with what is being returned before
        it is safe, so that its answer can be prepared meanwhile: nothing of it may have an
        effect before this returns."""

    async def start(self, turn_id: str, history: int) -> Started | None:
        """queued → running, attempt + 1, with at most `history` exchanges, whose beginning
        moves on in steps of a quarter of it; None when the turn has ended meanwhile. A
        turn whose outcome was decided meanwhile comes with its ending and no new attempt."""

    async def rewrite(self, turn_id: str, parts: tuple[Part, ...]) -> None:
        """The question was edited before its outcome was decided: these are all its
        parts."""

    async def save_handle(self, turn_id: str, part: int, handle: Handle) -> None:
        """Write one row of the reply journal."""

    async def checkpoint(self, turn_id: str, text: str, reasoning: str) -> None:
        """Keep the text so far, for a run that has to go on after a crash."""

    async def hand_over(self, turn_id: str, text: str, reasoning: str) -> None:
        """A last checkpoint of a run that leaves its turn to the next process: running →
        queued, so that its end is not counted as a death."""

    async def decide(self, turn_id: str, ending: Ending) -> None:
        """Store the outcome before the final update is sent."""

    async def finish(self, turn_id: str, ending: Ending) -> Turn | None:
        """Close turn and reply, write history, free the lane or return its next head
        (engine.md 4, finish). A turn that has ended already keeps its ending, but for a
        trail that grew; its lane still moves on. An undelivered reply is due in 5 s."""

    async def stop_waiting(
        self,
        lane: str,
        sender: str | None,
        state: TurnState = "stopped",
        shown: Collection[str] = (),
        before: int | None = None,
    ) -> tuple[Turn, ...]:
        """End the queued turns of the lane (only this sender's unless None; only those
        whose `no` is below `before`). One that has a card already is decided but not
        ended: its lane closes the card. `shown`: ids of turns whose card is perhaps on
        its way, which count as having one."""

    async def behind(self, turn: Turn) -> tuple[Turn, ...]:
        """Those that wait behind this turn in its lane, in order."""

    async def withdraw(self, turn_id: str, state: TurnState, *, shown: bool = False) -> bool:
        """The same for this turn if it is still queued; False when it runs or has ended."""

    async def recover(self) -> tuple[Turn, ...]:
        """At start: what an earlier process left, as the turns to run now: the head of
        every lane, and every unfinished turn outside lanes."""

    async def conversation(self, key: str) -> Conversation: ...

    async def cut(self, key: str) -> int:
        """/new: begin a new part; returns how many exchanges the old one had."""

    async def choose(self, key: str, name: str, value: str) -> None:
        """Set one of the conversation's choices; an empty value removes it."""

    async def turn(self, turn_id: str) -> Turn | None: ...

    async def turn_of(self, bot: str, message_id: str) -> Turn | None:
        """The turn that this message asked."""

    async def last_turn(self, conversation: str, sender: str = "") -> Turn | None:
        """The newest ended chat turn of the conversation's present part, asked by
        `sender` unless that is empty."""

    async def unfinished(self, lane: str, sender: str) -> Turn | None:
        """The turn of this sender that runs in the lane, else the newest that waits there."""

    async def usage(
        self, *, since: float, conversation: str = "", sender: str = ""
    ) -> UsageTotal: ...

    # looking after deliveries

    async def undelivered(self, limit: int = 100) -> tuple[Turn, ...]:
        """Ended turns whose reply is undelivered or unconfirmed, newest first."""

    async def due(self, now: float, limit: int = 20) -> tuple[Turn, ...]:
        """Ended turns with an undelivered reply whose next try is due, most overdue first;
        they stay due until postponed or delivered."""

    async def postpone(self, turn_id: str, until: float | None) -> None:
        """The next try of an undelivered reply; None: not again by itself."""

    async def delivered(self, turn_id: str, ending: Ending) -> None:
        """A reply of an ended turn was tried again: store its delivery, proof and trail,
        and nothing else of the ending, unless an answer has become a failure with an error:
        then it leaves the history. What is delivered stays so."""

    # law 8

    async def accounts(self, message_id: str, bots: tuple[str, ...]) -> tuple[Account, ...]:
        """What became of this message (or other event), for each of `bots`, oldest first,
        with the events that asked it anew; a turn's id, or its first 8 or more characters,
        finds its events too, and a whole event key its event."""

    async def backlog(self) -> Backlog: ...

    # what may have been missed

    async def heard(self, bot: str) -> float:
        """When the bot was last known to hear, seconds since the epoch; 0 for never."""

    async def hear(self, bot: str, at: float) -> None: ...

    async def addresses(self, bot: str, since: float) -> tuple[tuple[str, Json], ...]:
        """(chat, newest address) for each chat and topic of this bot in which a turn was
        asked after `since`, the most recent last."""

    async def miss(self, gap: Gap) -> None:
        """Remember the gap. One of the same bot and chat that began at the same moment is
        the same gap: it grows, and takes the newer reason."""

    async def gaps(self, limit: int = 100) -> tuple[Gap, ...]:
        """Those that ended last first."""

    # what the month has cost

    async def count_calls(self, more: tuple[CallCount, ...], month: str) -> tuple[CallCount, ...]:
        """Add these to what is counted, and return all counts of `month`; those of every
        process that shares the database."""

    # care

    async def prune(self, before: float) -> int:
        """Forget event keys and gaps older than `before`, in small batches; returns how
        many keys."""

    async def backup(self, path: str) -> None:
        """A consistent copy of everything in the file `path` (made anew, mode 0600), while
        others read and write; once begun it is finished. Raises StoreError for a path that
        is the database's own or cannot be written, and while another copy is made; `path`
        is then as it was."""

    async def close(self) -> None: ...
