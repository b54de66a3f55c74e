"""From what shall be said to what goes over the wire, piece by piece. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from adapters.playground.deepseek import tokens
from adapters.playground.deepseek.answer import Said, Trouble
from adapters.playground.deepseek.asked import Asked

Channel = Literal["reasoning", "text"]
Ending = Literal["finish", "reset", "end", "stall", "error"]


@dataclass(frozen=True, slots=True)
class Plan:
    """`parts` in order, then `ending`; `garbage` is the place of a broken line, or -1.
    Tokens are what the parts are worth."""

    parts: tuple[tuple[Channel, str], ...]
    finish: str = "stop"
    ending: Ending = "finish"
    garbage: int = -1
    done: bool = True

    @property
    def text(self) -> str:
        return self._joined("text")

    @property
    def reasoning(self) -> str:
        return self._joined("reasoning")

    def _joined(self, channel: Channel) -> str:
        return "".join(piece for where, piece in self.parts if where == channel)

    def tokens(self, channel: Channel | None = None) -> int:
        return sum(worth(piece) for where, piece in self.parts if channel in (None, where))


def worth(piece: str) -> int:
    """A piece is one token unless it is longer than a token can be."""
    return max(1, tokens.count(piece))


def plan(asked: Asked, said: Said, trouble: Trouble | None) -> Plan:
    """What this request gets."""
    text: Iterable[str] = said.chunks
    if asked.prefix is not None:
        text = _after(said.chunks, asked.prefix)
    for stop in asked.stops:
        text = _before(list(text), stop)
    thoughts = said.reasoning if asked.thinking else ()
    parts: list[tuple[Channel, str]] = [("reasoning", piece) for piece in thoughts if piece]
    parts += [("text", piece) for piece in text if piece]
    kept = list(_within(parts, asked.max_tokens))
    finish = said.finish if len(kept) == len(parts) else "length"
    return _spoiled(Plan(tuple(kept), finish), trouble)


def _after(chunks: Iterable[str], prefix: str) -> Iterator[str]:
    """The rest of a text that begins with `prefix`; all of any other text."""
    whole = list(chunks)
    skip = len(prefix) if "".join(whole).startswith(prefix) else 0
    for piece in whole:
        yield piece[skip:]
        skip = max(0, skip - len(piece))


def _before(chunks: list[str], stop: str) -> Iterator[str]:
    at = "".join(chunks).find(stop)
    left = at if at >= 0 else sum(map(len, chunks))
    for piece in chunks:
        yield piece[:left]
        left = max(0, left - len(piece))


def _within(parts: Iterable[tuple[Channel, str]], most: int) -> Iterator[tuple[Channel, str]]:
    spent = 0
    for channel, piece in parts:
        spent += worth(piece)
        if spent > most:
            return
        yield channel, piece


_ENDINGS: dict[str, Ending] = {"cut": "reset", "end": "end", "stall": "stall", "error": "error"}
_FINISHES = {"interrupted": "insufficient_system_resource", "filtered": "content_filter"}


def _spoiled(whole: Plan, trouble: Trouble | None) -> Plan:
    if trouble is None:
        return whole
    part = whole.parts[: trouble.after]
    if trouble.kind in _ENDINGS:
        return Plan(part, ending=_ENDINGS[trouble.kind])
    if trouble.kind in _FINISHES:
        return Plan(part, finish=_FINISHES[trouble.kind])
    if trouble.kind == "empty":
        return Plan(())
    if trouble.kind == "garbage":
        return replace(whole, garbage=trouble.after)
    return replace(whole, done=trouble.kind != "no_done")
