"""A reply as it is shown: snapshots, handles, limits, and the sink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bot.contract.base import (
    Json,
)


@dataclass(frozen=True, slots=True)
class Button:
    """`action` is stop, retry, continue, like or dislike; `turn` says of which turn."""

    action: str
    label: str
    turn: str


SnapshotState = Literal[
    "running", "answered", "failed", "stopped", "recalled", "refused", "continued"
]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one card shows at one moment: the whole, never a delta (law 3).

    `text` is the Markdown of this part so far. `reasoning` is folded; empty hides it.
    `status` is the line shown while there is no text yet. `note` is one line under the
    answer (an error, "stopped"). `footer` is small print. `summary` is the preview in
    the chat list. `state` is `running` until the last snapshot; `continued` closes a
    part whose text goes on in the next card.
    """

    text: str = ""
    reasoning: str = ""
    status: str = ""
    note: str = ""
    footer: str = ""
    summary: str = ""
    buttons: tuple[Button, ...] = ()
    state: SnapshotState = "running"


@dataclass(frozen=True, slots=True)
class Handle:
    """Where one part of a reply stands, as stored in the reply journal. A sink born
    with a handle goes on with the same card. `key` is the idempotency key, at most 40
    characters of [a-z0-9-], chosen before the first call and derived from the turn id,
    so a repeated send is recognised. `sequence` is the last card sequence that may have
    been used. `extra` is the adapter's own JSON."""

    key: str
    rung: str = ""
    card_id: str = ""
    message_id: str = ""
    sequence: int = 0
    extra: Json = field(default_factory=dict)


Save = Callable[[Handle], Awaitable[None]]
"""Commits a handle to the reply journal; returns when it is on disk."""


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` calls in any `seconds`."""

    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Charge:
    """One platform call counted in `bucket` (an API name, a chat, a card)."""

    bucket: str
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """How close together the shows of one part may be, in seconds. The second text comes
    `first` after the first one; every further gap is `factor` times the one before, up to
    a ceiling. The ceiling is `most` while the reply is younger than `steady`, then it
    rises in proportion to the reply's age, up to `last`.

    So the number of shows is bounded: over any stretch of a young reply it is at most
    the length over `most`, plus the few of one growth from `first` to `most`.
    """

    first: float
    factor: float = 1.0
    most: float = 0.0
    last: float = 0.0
    steady: float = 60.0

    def ceiling(self, age: float) -> float:
        """The widest gap of a reply that has been growing for `age` seconds."""
        most = max(self.first, self.most)
        risen = most * max(1.0, age / self.steady)
        return max(most, min(risen, self.last))

    def after(self, gap: float, idle: float = 0.0, age: float = 0.0) -> float:
        """The gap that follows `gap`, 0 for none yet. `idle`: how long after the end of
        that gap there was nothing new to show. A pause longer than the ceiling earns a
        narrower gap, so that what comes after it does not look stuck; it has saved more
        shows than the new growth costs."""
        ceiling = self.ceiling(age)
        between = gap + idle
        wider = gap * self.factor if between <= ceiling else gap * ceiling / between
        return max(self.first, min(wider, ceiling))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sink can show now; may change when it steps down its ladder.

    `pace`: how close together two shows may be. `max_bytes`: most UTF-8 bytes of `text`
    in one part. `tables`: most Markdown tables in one part. `streams`: false when nothing
    is shown between open() and finish(). `whole_markdown`: true when every show must be
    complete Markdown (open fences closed); false when shown text must stay a prefix of
    the next. `typed_until`: when the client has typed all of the last show, on the clock's
    monotonic(); None where it does not type.
    """

    pace: Pace
    max_bytes: int
    tables: int = 3
    streams: bool = True
    whole_markdown: bool = False
    typed_until: float | None = None


Step = Literal["open", "show", "finish"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """`delivered` only with proof (law 6): the provider's message or card id, or the
    zero code of a call that returns none. `unconfirmed` when a send without a key may
    or may not have arrived. `replaced`: "content" when the platform's filter refused the
    text, of a reply in parts that of any one, and a sentence that says so stands there."""

    state: Literal["delivered", "unconfirmed"]
    proof: str = ""
    replaced: str = ""


class ReplySink(Protocol):
    """One part of one reply, born aimed at its place. Never sleeps, never retries by
    itself except under the rules of the vendor's wire (token refresh, one reopen); it
    walks down its own ladder when a rung is refused for good.

    Raises of the BorderError family: RateLimited, Transient and Uncertain mean "call me
    again with the newest snapshot"; TooBig means "cut the text and call me again"; any
    other error means that the ladder is at its end.
    """

    @property
    def limits(self) -> Limits: ...

    @property
    def handle(self) -> Handle: ...

    def charges(self, step: Step) -> tuple[Charge, ...]:
        """The calls that this step will make now. A call that counts in several buckets
        has a charge for each; the card's or chat's has less room than the API's."""

    async def open(self, snapshot: Snapshot) -> None:
        """Put the card up. Repeating it after an error is safe. Does nothing where the
        rung shows only finished messages, or when the handle says it is open."""

    async def show(self, snapshot: Snapshot) -> None:
        """Show this snapshot; errors lose nothing, a later snapshot holds it all."""

    async def finish(self, snapshot: Snapshot) -> Delivery:
        """Show the last snapshot and close. Works on a reply that was never opened:
        then it is one plain message. Repeating it after an error is safe."""
