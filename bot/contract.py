"""The vocabulary: every type that crosses a folder.

Values are frozen dataclasses; behaviours are small protocols. Times are seconds:
`*_at` is seconds since the epoch, durations are plain seconds. Every id is opaque and
whole (design.md law 7).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Json = Mapping[str, Any]
Platform = Literal["feishu", "dingtalk"]
ChatKind = Literal["p2p", "group"]


# ---------------------------------------------------------------- time


class Clock(Protocol):
    """Time as the program sees it; tests put a virtual one in its place."""

    def time(self) -> float:
        """Seconds since the epoch (wall clock; may jump)."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None: ...

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """Like asyncio.timeout, on this clock. Raises TimeoutError."""


# ---------------------------------------------------------------- inbound


@dataclass(frozen=True, slots=True)
class Person:
    """A verified sender. `also` holds further verified ids of the same person."""

    id: str
    name: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class QuotePart:
    """Text that the message quotes."""

    text: str
    author: str = ""


@dataclass(frozen=True, slots=True)
class UnreadablePart:
    """Something that cannot be read yet. `kind` is one of: image, file, folder, audio,
    video, sticker, card, forward, location, share, calendar, vote, todo, redpacket,
    system, empty, quota, broken, unknown."""

    kind: str
    name: str = ""


Part = TextPart | QuotePart | UnreadablePart


def words_of(parts: tuple[Part, ...]) -> str:
    """The words the person typed, parts joined by newlines."""
    return "\n".join(part.text for part in parts if isinstance(part, TextPart)).strip()


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One message as the platform delivered it, decided in the adapter's parse.py alone.

    `address` is the adapter's own JSON object: all it needs to answer in the right
    place after a restart. The core stores it and hands it back, and never looks inside.
    `ignored` is the reason why nobody asked us (not_mentioned, at_all,
    identity_unknown, own_message, from_bot); empty when the message is for us. `age` is
    how old the message was when it came, in seconds by the platform's own clock, 0 when
    that is not known (design.md 5). `fetched`: read back from the history, not pushed.
    `away`: minutes that the answer owns up to having missed, 0 for none.
    """

    bot: str
    platform: Platform
    message_id: str
    chat: str
    chat_kind: ChatKind
    sender: Person
    parts: tuple[Part, ...]
    address: Json
    topic: str = ""
    mentions: tuple[Person, ...] = ()
    sent_at: float = 0.0
    ignored: str = ""
    age: float = 0.0
    fetched: bool = False
    away: int = 0

    @property
    def text(self) -> str:
        return words_of(self.parts)


@dataclass(frozen=True, slots=True)
class CardAction:
    """A button was pressed. All ids come from the verified event, except `turn`, which
    comes from the card and is checked against chat and operator by the core.
    `action` is one of the Button actions."""

    bot: str
    platform: Platform
    event_id: str
    chat: str
    operator: Person
    action: str
    turn: str


@dataclass(frozen=True, slots=True)
class ActionReply:
    """What the person who pressed sees at once; an empty toast shows nothing."""

    toast: str = ""
    kind: Literal["info", "success", "warning", "error"] = "info"


class Intake(Protocol):
    """What an adapter hands its events to. Each method returns when the event is safe
    on disk: that moment, and no earlier, is the moment to acknowledge. Raises
    StoreError when it could not be made safe: then do not acknowledge."""

    async def message(self, message: InboundMessage) -> None: ...

    async def action(self, action: CardAction) -> ActionReply: ...

    async def recalled(self, bot: str, chat: str, message_id: str) -> None: ...

    def gap(self, bot: str, since: float, until: float) -> None:
        """Nothing was heard for certain between these moments (seconds since the epoch
        by the platform's clock): what was said then may have to be fetched."""


# ---------------------------------------------------------------- showing a reply


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
class Limits:
    """What a sink can show now; may change when it steps down its ladder.

    `pace`: least seconds between two shows. `max_bytes`: most UTF-8 bytes of `text` in
    one part. `tables`: most Markdown tables in one part. `streams`: false when only
    finish() shows anything. `whole_markdown`: true when every show must be complete
    Markdown (open fences closed); false when shown text must stay a prefix of the next.
    """

    pace: float
    max_bytes: int
    tables: int = 3
    streams: bool = True
    whole_markdown: bool = False


Step = Literal["open", "show", "finish"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """`delivered` only with proof (law 6): the provider's message or card id, or the
    zero code of a call that returns none. `unconfirmed` when a send without a key may
    or may not have arrived."""

    state: Literal["delivered", "unconfirmed"]
    proof: str = ""


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
        """The calls that this step will make now."""

    async def open(self, snapshot: Snapshot) -> None:
        """Put the card up. Repeating it after an error is safe. Does nothing where the
        rung shows only finished messages, or when the handle says it is open."""

    async def show(self, snapshot: Snapshot) -> None:
        """Show this snapshot; errors lose nothing, a later snapshot holds it all."""

    async def finish(self, snapshot: Snapshot) -> Delivery:
        """Show the last snapshot and close. Works on a reply that was never opened:
        then it is one plain message. Repeating it after an error is safe."""


class ChatPlatform(Protocol):
    """One bot on one chat platform."""

    @property
    def bot(self) -> str: ...

    @property
    def platform(self) -> Platform: ...

    @property
    def status(self) -> LinkStatus: ...

    async def run(self, intake: Intake) -> None:
        """Receive until cancelled; loses its link and finds it again by itself."""

    def sink(self, address: Json, handle: Handle, save: Save, attempt: int) -> ReplySink:
        """A sink aimed at `address`. `attempt` (1, 2, …) is the run of the turn; card
        sequences of a later attempt are above those of an earlier one."""

    async def close(self) -> None: ...


@runtime_checkable
class Reactions(Protocol):
    """Optional power: a mark on the person's own message. Best effort, never raises a
    BorderError to the caller."""

    async def react(self, address: Json, mark: Literal["seen", "done"]) -> str:
        """Returns a token to take the mark back, or an empty string."""

    async def unreact(self, address: Json, token: str) -> None: ...


@runtime_checkable
class People(Protocol):
    """Optional power: names of people in a chat."""

    async def name_of(self, address: Json, person: str) -> str:
        """The person's display name, or an empty string; never raises a BorderError."""


@runtime_checkable
class History(Protocol):
    """Optional power: reading back what was said."""

    async def missed(self, address: Json, since: float, until: float) -> tuple[InboundMessage, ...]:
        """What people said in the address's chat (and topic) between these moments, in
        seconds since the epoch by the platform's clock, oldest first: parsed as if it
        had been pushed, with `fetched` and `age` set. Our own and recalled messages are
        left out. Raises BorderError; PermissionDenied names the missing scopes."""

    async def reread(self, address: Json) -> tuple[Part, ...] | None:
        """The question's parts as they read now; None when that cannot be told. Never
        raises a BorderError."""


@runtime_checkable
class Retraction(Protocol):
    """Optional power: taking back what we sent."""

    async def retract(self, handle: Handle) -> bool:
        """Whether this part of a reply is no longer seen by anybody; never raises a
        BorderError."""


@dataclass(slots=True)
class LinkStatus:
    """How one long connection is doing; written by the link, read by health.

    `connected`: a socket is up. `suspect`: it may be deaf, and no fresh one is up yet.
    `auth_failed`: the platform refused our credentials, and no dial succeeded since; true
    beside a green light when only a successor was refused. `cause`: why it is red, in
    words (Chinese / English), empty when green; `detail`: the last failure in the terms of
    the wire.
    Seconds of clock.monotonic(), 0 for never: `since` (`connected` changed), `last_frame`
    (any frame, pongs too), `last_event` (of the application), `proven` (the last proof of
    hearing: an event, a server's frame where it counts, a fresh connection).
    Counts: `connects` (connections that came up; planned rotations too), `reconnects`
    (losses and deaf times that have ended), `attempts` (dials that failed since one
    succeeded).
    """

    name: str
    connected: bool = False
    suspect: bool = False
    auth_failed: bool = False
    cause: str = "starting"
    detail: str = ""
    since: float = 0.0
    last_frame: float = 0.0
    last_event: float = 0.0
    proven: float = 0.0
    connects: int = 0
    reconnects: int = 0
    attempts: int = 0

    @property
    def hearing(self) -> bool:
        """The green light: what is said now reaches us, as far as can be known."""
        return self.connected and not self.suspect


# ---------------------------------------------------------------- the model


@dataclass(frozen=True, slots=True)
class Prompt:
    """One message to the model. `reasoning` is an assistant turn's earlier thinking,
    sent back verbatim where the service wants it (reference/models.md 1.4)."""

    role: Literal["system", "user", "assistant"]
    text: str
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """`prefix`: the last prompt is an assistant message to be continued."""

    model: str
    prompts: tuple[Prompt, ...]
    thinking: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    user: str = ""
    stream: bool = True
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the service billed them; `cached` is part of `prompt`, `reasoning` is
    part of `completion`."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class UsageDelta:
    usage: Usage
    model: str = ""


@dataclass(frozen=True, slots=True)
class FinishDelta:
    """The last delta of a whole answer. `reason`: stop, length, content_filter."""

    reason: str


Delta = TextDelta | ReasoningDelta | UsageDelta | FinishDelta


class ChatModel(Protocol):
    """A model service."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        """Deltas until FinishDelta. Closing the generator (or cancelling the task)
        closes the socket at once. Raises of the BorderError family, with a note for the
        person; a stream that ends without a finish raises Transient("…cut…")."""

    async def close(self) -> None: ...


@runtime_checkable
class ContinuesPrefix(Protocol):
    """Optional power: an answer that broke off can be continued."""

    def continues_prefix(self, model: str) -> bool:
        """Whether a request with `prefix` for this model can be answered."""


# ---------------------------------------------------------------- turns


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
    decided, closed, refused, stepped_down, retried, undelivered, stopped, recalled,
    edited; `detail` is for operators and holds no secret."""

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
    closed and its lane has moved on."""

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
    and outside its lane, to be offered instead of run (design.md 5)."""

    key: str
    turn: NewTurn | None
    reason: str = ""
    depth: int = 20
    join: float = 0.0
    late: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """`fresh`: first time seen. `full`: the lane was full, so the stored turn is
    `refused` and must be told so. `head`: the turn to run now because this accept took
    an idle lane; None when a task of this process already owns the lane. `waiting`:
    how many turns stand before this one. `joined`: `turn` is an earlier one that now
    holds this message too."""

    fresh: bool
    turn: Turn | None = None
    full: bool = False
    head: Turn | None = None
    waiting: int = 0
    joined: bool = False


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


@dataclass(frozen=True, slots=True)
class Exchange:
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
    history: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class UsageTotal:
    turns: int = 0
    usage: Usage = Usage()
    cost: float = 0.0


class TurnStore(Protocol):
    """What is remembered. Every method returns after its commit. Raises StoreError."""

    async def accept(self, event: Event) -> Accepted:
        """Claim the event and its lane in one transaction (engine.md 4, accept)."""

    async def start(self, turn_id: str, history: int) -> Started | None:
        """queued → running, attempt + 1, with at most `history` exchanges, whose beginning
        moves on in steps of a quarter of it; None when the turn has ended meanwhile. A
        turn whose outcome was decided meanwhile comes with its ending and no new attempt."""

    async def rewrite(self, turn_id: str, parts: tuple[Part, ...]) -> None:
        """The question was edited before it was answered."""

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
        (engine.md 4, finish). A turn that has ended already keeps its ending; its lane
        still moves on."""

    async def stop_waiting(
        self, lane: str, sender: str | None, state: TurnState = "stopped"
    ) -> tuple[Turn, ...]:
        """End the queued turns of the lane (only this sender's unless None). One that
        has a card already is decided but not ended: its lane closes the card."""

    async def withdraw(self, turn_id: str, state: TurnState) -> bool:
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

    async def usage(
        self, *, since: float, conversation: str = "", sender: str = ""
    ) -> UsageTotal: ...

    # looking after deliveries

    async def undelivered(self, limit: int = 100) -> tuple[Turn, ...]:
        """Ended turns whose reply is undelivered or unconfirmed, newest first."""

    async def due(self, now: float, limit: int = 20) -> tuple[Turn, ...]:
        """Ended turns with an undelivered reply whose next try is due, oldest first."""

    async def postpone(self, turn_id: str, until: float | None) -> None:
        """The next try of an undelivered reply; None: not again by itself."""

    async def delivered(self, turn_id: str, ending: Ending) -> None:
        """A reply of an ended turn was tried again: store its delivery, proof and trail."""

    # law 8

    async def accounts(self, message_id: str, bots: tuple[str, ...]) -> tuple[Account, ...]:
        """What became of this message (or other event), for each of `bots`; a turn's id,
        or its first 8 or more characters, finds its events too."""

    async def backlog(self) -> Backlog: ...

    # what may have been missed

    async def heard(self, bot: str) -> float:
        """When the bot was last known to hear, seconds since the epoch; 0 for never."""

    async def hear(self, bot: str, at: float) -> None: ...

    async def addresses(self, bot: str, since: float) -> tuple[tuple[str, Json], ...]:
        """(chat, newest address) for each chat and topic of this bot in which a turn was
        asked after `since`."""

    async def miss(self, gap: Gap) -> None: ...

    async def gaps(self, limit: int = 100) -> tuple[Gap, ...]:
        """Newest first."""

    # care

    async def prune(self, before: float) -> int:
        """Forget event keys and gaps older than `before`, in small batches; returns how
        many keys."""

    async def backup(self, path: str) -> None:
        """A consistent copy of everything in the file `path` (made anew, mode 0600),
        while others read and write."""

    async def close(self) -> None: ...


# ---------------------------------------------------------------- the operator


@dataclass(frozen=True, slots=True)
class Metric:
    """One number for whoever watches. `kind` is counter or gauge, `help` one line of
    English, `labels` (name, value) pairs."""

    name: str
    value: float
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[tuple[str, str], ...] = ()


class Operator(Protocol):
    """What whoever runs the bot may ask of the running process. Answers are JSON objects,
    and hold no secret. Raises StoreError."""

    async def problems(self) -> list[str]:
        """Why the bot does not hear or could not answer now, a sentence each in Chinese
        and English; empty when it could."""

    async def metrics(self) -> list[Metric]: ...

    async def status(self) -> Json:
        """{ready, problems, version, uptime (s), bots: [{name, platform, connected, cause,
        silent (s since the last event, null for never), reconnects}], backlog: {…},
        undelivered: [{turn, bot, chat, sender, at, state, error, question, answer}],
        gaps: [{bot, chat, since, until, why}]}"""

    async def live(self) -> Json:
        """For the playground: {ready, problems, turns: [{id, platform, chat, message_id,
        state, moments: [{at, what, detail}]}]}, the newest turns last."""

    async def why(self, message_id: str) -> Json:
        """{accounts: [{key, seen_at, repeats, repeated_at, reason, turn: null | {id, kind,
        state, attempt, chat, sender, delivery, proof, error, replies: [{part, rung,
        card_id, message_id, sequence}], moments: [{at, what, detail}]}}]}"""

    async def resend(self, turn_id: str) -> Json:
        """Deliver an undelivered or unconfirmed answer now: {delivery, error}."""

    async def backup(self, path: str) -> Json:
        """Write a backup to `path` on this machine: {path, bytes}."""
