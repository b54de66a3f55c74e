"""A bot on a chat platform, what it may offer besides, and how its link is doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from bot.contract.base import (
    Json,
    Platform,
)
from bot.contract.calls import (
    CallKind,
)
from bot.contract.inbound import (
    InboundMessage,
    Intake,
    Part,
)
from bot.contract.showing import (
    Handle,
    ReplySink,
    Save,
)
from bot.contract.turns import (
    Gap,
)


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

    async def wipe(self, address: Json, mark: Literal["seen", "done"]) -> None:
        """Take back a mark that an earlier process may have left: its token is lost."""


@dataclass(frozen=True, slots=True)
class SkippedRung:
    """A way of replying that the app may not use now. `scopes`: what it lacks, as the
    platform names it, empty when it does not; `why` is for operators."""

    name: str
    scopes: tuple[str, ...] = ()
    why: str = ""


@runtime_checkable
class Ladder(Protocol):
    """Optional power: telling which ways of replying are skipped now, and why."""

    @property
    def skipped(self) -> tuple[SkippedRung, ...]: ...


@runtime_checkable
class People(Protocol):
    """Optional power: names of people in a chat."""

    async def name_of(self, address: Json, person: str) -> str:
        """The person's display name, or an empty string; never raises a BorderError."""


@dataclass(frozen=True, slots=True)
class Missed:
    """What a history gave back. `messages`: oldest first, parsed as if they had been pushed,
    with `fetched` and `age` set; our own and recalled ones are left out. `left`: the part of
    the time, or of the chat, that was not read, and why; None when all was."""

    messages: tuple[InboundMessage, ...]
    left: Gap | None = None


@runtime_checkable
class History(Protocol):
    """Optional power: reading back what was said."""

    async def missed(self, addresses: Sequence[Json], since: float, until: float) -> Missed:
        """What people said in one chat between these moments, in seconds since the epoch by
        the platform's clock. `addresses`: one or more, all of that chat, of which each may
        stand in another topic, the most recent first. Raises BorderError; PermissionDenied
        names the missing scopes."""

    async def reread(self, address: Json) -> tuple[Part, ...] | None:
        """The question's parts as they read now; None when that cannot be told. Never
        raises a BorderError."""


@runtime_checkable
class Retraction(Protocol):
    """Optional power: taking back what we sent."""

    async def retract(self, handle: Handle) -> bool:
        """Whether this part of a reply is no longer seen by anybody; never raises a
        BorderError."""


@runtime_checkable
class Reach(Protocol):
    """Optional power: writing to a person who asked nothing."""

    def to_person(self, person: str) -> Json:
        """The address of a person, by an id as QUEQIAO_ADMINS names it, for sink()."""


@runtime_checkable
class Ways(Protocol):
    """Optional power: an answer can go more than one way, and these count apart."""

    def ways(self, address: Json) -> frozenset[CallKind]:
        """As what a plain answer to `address` may count. Without this power: `api`."""

    def spent(self, kinds: frozenset[CallKind]) -> None:
        """Nothing is left of these this month: go another way where there is one."""


@dataclass(slots=True)
class LinkStatus:
    """How one long connection is doing; written by the link, read by health.

    `connected`: a socket is up. `suspect`: it may be deaf, and no fresh one is up yet.
    `auth_failed`: the platform refused our credentials, and no dial succeeded since; true
    beside a green light when only a successor was refused. `cause`: why the link is red,
    in words (Chinese / English), empty when it is not; `detail`: the last failure in the
    terms of the wire. `baffled`: why what arrives cannot be understood though the link is
    well, in such words, empty when it can.
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
    baffled: str = ""
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
        return self.connected and not self.suspect and not self.baffled

    @property
    def why_red(self) -> str:
        """Why there is no green light, in words; empty when there is one."""
        return self.cause or self.baffled


@runtime_checkable
class Saving(Protocol):
    """Optional power: answers that cost as few calls as can be."""

    def save(self, on: bool) -> None: ...
