"""Prompts, deltas, and a model service."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable


class Prompt(NamedTuple):
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
        """Deltas until FinishDelta. Nothing leaves before the first is asked for; what can
        be prepared until then, is. Closing the generator (or cancelling the task) closes
        the socket at once. Raises of the BorderError family, with a note for the
        person; a stream that ends without a finish raises Transient("…cut…")."""

    async def close(self) -> None: ...


@runtime_checkable
class ContinuesPrefix(Protocol):
    """Optional power: an answer that broke off can be continued."""

    def continues_prefix(self, model: str) -> bool:
        """Whether a request with `prefix` for this model can be answered."""
