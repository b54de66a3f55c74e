"""What is said in answer to one request, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from adapters.playground.deepseek.asked import Asked

TroubleKind = Literal[
    "refuse",
    "html",
    "drop",
    "cut",
    "end",
    "stall",
    "empty",
    "interrupted",
    "filtered",
    "error",
    "garbage",
    "no_done",
    "queue",
]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One request goes wrong; the stream kinds do so after `after` pieces.

    `refuse`: answer `status` with the service's own body (and `retry_after` seconds as
    a header). `html`: a proxy's 502 page. `drop`: no answer, the connection is reset.
    `cut`: reset; `end`: a clean end without finish; `stall`: `seconds` of silence, then a
    clean end; `empty`: finish `stop` without text; `interrupted`: finish
    `insufficient_system_resource`; `filtered`: finish `content_filter`; `error`: an error
    object as an event; `garbage`: a data line that is no JSON, then on as usual;
    `no_done`: no [DONE]; `queue`: `seconds` of keep-alive before the first token, then on
    as usual.
    """

    kind: TroubleKind
    status: int = 503
    after: int = 5
    seconds: float = 0.0
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """An answer by pieces. `pace` is the seconds before each piece, `first` those before
    the first one. The reasoning is dropped when thinking is off. `finish` is told at
    the end, unless max_tokens ends the answer before (`length`)."""

    chunks: Sequence[str]
    reasoning: Sequence[str] = ()
    pace: float = 0.0
    first: float = 0.0
    finish: str = "stop"


Speaker = Callable[[Asked], Said | Awaitable[Said]]
Match = str | Callable[[Asked], bool]


@dataclass(slots=True)
class Script:
    """What to say when `match` (a part of the last question, or a test of the request)
    fits; `times` counts down, None for ever."""

    match: Match
    said: Said
    times: int | None = None

    def fits(self, asked: Asked) -> bool:
        if self.times == 0:
            return False
        if isinstance(self.match, str):
            return self.match in asked.question
        return self.match(asked)

    def take(self) -> Said:
        if self.times is not None:
            self.times -= 1
        return self.said


@dataclass(frozen=True, slots=True)
class Shape:
    """How the bytes of every stream look. `split`: one write ends in the middle of an
    event and of a character. `joined`: several events in one write. `trailing_usage`: usage in
    a chunk of its own, with no choices. `octet`: error bodies are application/octet-stream.
    `keep_alive`: seconds between two comments while nothing was said yet."""

    crlf: bool = False
    split: bool = False
    joined: bool = False
    trailing_usage: bool = False
    octet: bool = False
    keep_alive: float = 5.0
