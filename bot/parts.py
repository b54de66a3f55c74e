"""The parts of one reply: the text cut into cards, and what each of them shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from bot.contract import Delivery, Handle, ReplySink, Snapshot
from bot.errors import TooBig
from bot.markdown import Cutter, clean, complete, fit_tables, preview
from bot.markdown import Part as Piece
from bot.rhythm import Rhythm

SMALLEST_PART = 1000
"""Bytes below which a refusal for size is no longer answered by cutting."""

MakeSink = Callable[[int], ReplySink]


@dataclass(slots=True)
class Part:
    """One card of the reply. `refusals` of its updates in all; `broken`: no more are tried.
    `done` is what finish() proved, for the snapshot `shown`."""

    sink: ReplySink
    shown: Snapshot | None = None
    rhythm: Rhythm = field(default_factory=Rhythm)
    opened: bool = False
    refusals: int = 0
    broken: bool = False
    done: Delivery | None = None

    @property
    def worded(self) -> bool:
        return self.shown is not None and bool(self.shown.text)


class Parts:
    """Made as they are needed; the first one at once. `earlier`: how many a run before
    this one left."""

    def __init__(self, make_sink: MakeSink, earlier: int) -> None:
        self._make_sink, self._earlier = make_sink, earlier
        self._parts = [Part(make_sink(0))]
        self._tables: int | None = None
        self._cleaned = ("", "")
        self.restart()

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    def __len__(self) -> int:
        """Those that exist, an earlier run's included."""
        return max(self._earlier, len(self._parts))

    @property
    def last(self) -> int:
        """The index of the newest that this run made."""
        return len(self._parts) - 1

    def at(self, index: int) -> Part:
        while len(self._parts) <= index:
            self._parts.append(Part(self._make_sink(len(self._parts))))
        return self._parts[index]

    @property
    def handles(self) -> tuple[Handle, ...]:
        return tuple(self.at(index).sink.handle for index in range(len(self)))

    # ------------------------------------------------------------ the text

    def restart(self) -> None:
        """The text begins anew."""
        self._cutter = Cutter(self._parts[0].sink.limits.max_bytes)

    def cut(self, text: str) -> list[Piece]:
        return self._cutter.parts(self._clean(text))

    def _clean(self, text: str) -> str:
        """Remembered, because each show asks several times for the same text."""
        if self._cleaned[0] is not text:
            self._cleaned = (text, clean(text))
        return self._cleaned[1]

    def snapshot(
        self, index: int, pieces: list[Piece], text: str, base: Snapshot, thoughts: str
    ) -> Snapshot:
        """What part `index` shows of the whole `text`, besides what `base` says."""
        limits = self.at(index).sink.limits
        words = _visible(pieces[index], self._clean(text)) if index < len(pieces) else ""
        words = fit_tables(words, limits.tables if self._tables is None else self._tables)
        if limits.whole_markdown or base.state != "running":
            words = complete(words)
        return replace(
            base,
            text=words,
            reasoning=clean(thoughts) if index == 0 else "",
            status="" if words else base.status,
            summary=preview(words) or base.summary or base.note or base.status,
        )

    def learn(self, index: int, error: TooBig) -> bool:
        """The platform refused the size: show less in one card from now on. False when
        there is nothing left to leave out."""
        limits = self.at(index).sink.limits
        keep = limits.tables if self._tables is None else self._tables
        if error.what == "tables" and keep > 0:
            self._tables = keep - 1
            return True
        size = self._cutter.size_of(index) // 2
        if size < SMALLEST_PART:
            return False
        self._cutter.shrink(index, size)
        return True


def _visible(piece: Piece, text: str) -> str:
    return f"{piece.opening}{text[piece.start : piece.end]}{piece.closing}"
