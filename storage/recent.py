"""Histories asked for lately, kept as they were read: a turn that stands in a history never
changes, so the next question of a conversation reads only what was said since."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Connection

from bot.contract import Exchange

CHARS = 4_000_000
"""What is kept at most, in characters."""

OVERHEAD = 300
"""As how many characters an exchange counts besides its words."""

Part = tuple[str, int]
"""A conversation and its generation."""

Place = tuple[int, int]
"""The number of a turn and where it stands in the history (turn.no, turn.done)."""


class Kept(NamedTuple):
    """Neighbours in a history, oldest first: their places, themselves, their sizes in
    characters."""

    places: Sequence[Place] = ()
    exchanges: tuple[Exchange, ...] = ()
    sizes: tuple[int, ...] = ()


def size_of(row: Sequence[Any]) -> int:
    """Of an exchange whose columns are `row`."""
    return OVERHEAD + sum(len(column) for column in row if isinstance(column, str))


class Recent:
    """Of one connection: asked in the store's thread, added to by whoever reads a history.
    Only what a transaction that came to its end has read may be kept."""

    def __init__(self, chars: int = CHARS) -> None:
        self._most, self._chars = chars, 0
        self._kept: OrderedDict[Part, Kept] = OrderedDict()
        self._lock = Lock()

    def known(self, part: Part, places: Sequence[Place]) -> Kept:
        """What is kept of the beginning of `places`, which is not empty."""
        with self._lock:
            kept = self._kept.get(part)
        if kept is None or places[0] not in kept.places:
            return Kept()
        start = kept.places.index(places[0])
        pairs = zip(kept.places[start:], places, strict=False)
        end = start + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return Kept(places[: end - start], kept.exchanges[start:end], kept.sizes[start:end])

    def keep(self, part: Part, kept: Kept) -> None:
        """In place of what is kept of this part."""
        with self._lock:
            self._drop(part)
            self._kept[part] = kept
            self._chars += sum(kept.sizes)
            while self._chars > self._most:
                self._drop(next(iter(self._kept)))

    def _drop(self, part: Part) -> None:
        self._chars -= sum(self._kept.pop(part, Kept()).sizes)


def recent_of(connection: Connection) -> Recent:
    """It goes when the connection goes."""
    found: Recent | None = connection.info.get("recent")
    if found is None:
        found = connection.info["recent"] = Recent()
    return found
