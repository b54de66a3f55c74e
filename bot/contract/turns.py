"""A turn: one question and its answer, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bot.contract.base import (
    ChatKind,
    Json,
    Platform,
)
from bot.contract.inbound import (
    Part,
    Person,
)
from bot.contract.model import (
    Usage,
)
from bot.contract.showing import (
    Handle,
)

TurnState = Literal["queued", "running", "answered", "failed", "stopped", "recalled", "refused"]
TurnKind = Literal["chat", "command", "notice"]
DeliveryState = Literal["open", "delivered", "unconfirmed", "undelivered"]


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn as accepted. `kind` chat runs the model in its lane; command and notice
    bypass the lane and never reach the history. `notice` is what a notice says, as
    "key" of bot.texts with `notice_args`. `replaces` is the turn that Regenerate
    repeats."""

    id: str
    kind: TurnKind
    bot: str
    platform: Platform
    chat: str
    chat_kind: ChatKind
    topic: str
    conversation: str
    lane: str
    sender: Person
    message_id: str
    parts: tuple[Part, ...]
    address: Json
    lang: str
    asked_at: float
    notice: str = ""
    notice_args: Json = field(default_factory=dict)
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment in the life of a turn. `at` is seconds since the epoch; `what` is one of
    claimed, joined, repeated, acked, late, waiting, started, resumed, opened, shown,
    decided, closed, refused, stepped_down, replaced, retried, undelivered, stopped,
    recalled, edited; `detail` is for operators and holds no secret."""

    at: float
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn ended, stored before the final update and again with its proof. `trail`
    is what happened on the way, oldest first; what is stored only ever grows."""

    state: TurnState
    text: str = ""
    reasoning: str = ""
    note: str = ""
    footer: str = ""
    finish: str = ""
    model: str = ""
    usage: Usage = Usage()
    cost: float = 0.0
    error: str = ""
    delivery: DeliveryState = "open"
    proof: str = ""
    trail: tuple[Moment, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer, as stored. `no` is its place in the order of
    arrival, `seen_at` when it was claimed. `attempt` counts runs (0 before the first),
    `deaths` those of them that neither ended nor were handed over.
    `generation` is the part of the conversation it belongs to, set when it starts.
    `checkpoint` is the text that an earlier run had shown, `thoughts` the thinking that
    led to it. `handles` are the reply journal's rows, by part. `ending` is present once
    the outcome was decided, even when its delivery is unproven; `ended` once the turn is
    closed and its lane has moved on. `joined`: it holds more than one message."""

    new: NewTurn
    no: int
    state: TurnState = "queued"
    attempt: int = 0
    generation: int = 0
    checkpoint: str = ""
    handles: tuple[Handle, ...] = ()
    ending: Ending | None = None
    seen_at: float = 0.0
    thoughts: str = ""
    ended: bool = False
    deaths: int = 0
    joined: bool = False

    @property
    def id(self) -> str:
        return self.new.id


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be claimed. `key` is unique for ever: bot and message id for a
    message, bot and event id for anything else. `turn` is None for an event that is
    recorded but not answered, and `reason` then says why. `depth`: most turns waiting
    or running in the lane; one more is refused. `join`: seconds within which a message
    joins the same person's newest turn of the lane when that still waits unstarted and
    nothing but chat: one turn, several events. `late`: the turn is stored as refused
    and outside its lane, to be offered instead of run (design.md 5). `again`: when the
    lane is full nothing is recorded, and the same event may come again. `start`: when not
    negative, a turn that takes an idle lane begins to run in the same transaction, with
    so many exchanges of history at most."""

    key: str
    turn: NewTurn | None
    reason: str = ""
    depth: int = 20
    join: float = 0.0
    late: bool = False
    again: bool = False
    start: int = -1


@dataclass(frozen=True, slots=True)
class Accepted:
    """`fresh`: first time seen, and recorded. `full`: the lane was full, so the stored
    turn is `refused` and must be told so; there is none of an event that may come again.
    `head`: the turn to run now because this accept took an idle lane; None when a task of
    this process already owns the lane. `waiting`: how many turns stand before this one.
    `joined`: `turn` is an earlier one that now holds this message too. `started`: the
    head has begun to run, for Event.start."""

    fresh: bool
    turn: Turn | None = None
    full: bool = False
    head: Turn | None = None
    waiting: int = 0
    joined: bool = False
    started: Started | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What became of one event (law 8): when it was claimed, how often it came again and
    when last, why nobody answered it, or the turn that did."""

    key: str
    seen_at: float
    repeats: int = 0
    repeated_at: float = 0.0
    reason: str = ""
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a chat (or, with an empty `chat`, the whole bot) may have said what
    nobody heard, and why it could not be fetched. Seconds since the epoch."""

    bot: str
    chat: str
    since: float
    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is unfinished now. `oldest`: seconds since the epoch at which the oldest
    unanswered message was claimed, 0 when there is none. `deepest`: turns in the lane
    that has most. `redelivered`: events that came again, ever."""

    waiting: int = 0
    running: int = 0
    undelivered: int = 0
    unconfirmed: int = 0
    lanes: int = 0
    deepest: int = 0
    oldest: float = 0.0
    redelivered: int = 0


class Exchange(NamedTuple):
    """One finished turn as history shows it to the model."""

    turn: str
    speaker: Person
    question: tuple[Part, ...]
    answer: str
    reasoning: str = ""
    asked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is remembered of a conversation besides its turns. `choices` are settings
    made in the chat: model, persona, reasoning, lang. `generation` grows by /new."""

    key: str
    generation: int = 0
    choices: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Started:
    """A turn that begins to run: its row, its conversation and the turns finished
    before this moment, oldest first."""

    turn: Turn
    conversation: Conversation
    history: Sequence[Exchange]


@dataclass(frozen=True, slots=True)
class UsageTotal:
    turns: int = 0
    usage: Usage = Usage()
    cost: float = 0.0
