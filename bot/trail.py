"""What happened to each turn, moment by moment (law 8): kept in memory while it lives,
and handed to the store with its ending."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from bot.contract import Clock, Moment, Turn

KEPT = 1000
"""Trails remembered, more than are ever alive at once; a turn that has ended is also in
the store."""

MOST = 60
"""Moments of one trail; a turn that goes wrong for a day must not fill the memory."""


class Trails:
    """One trail a turn. Equal moments in a row become one that counts them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trails: OrderedDict[str, list[Moment]] = OrderedDict()
        self._turns: dict[str, Turn] = {}

    def begin(self, turn: Turn) -> None:
        """A turn was claimed, or is taken up again after a restart."""
        self._turns[turn.id] = turn
        earlier = turn.ending.trail if turn.ending else ()
        self._trails.setdefault(turn.id, list(earlier))
        self._trails.move_to_end(turn.id)
        while len(self._trails) > KEPT:
            gone, _ = self._trails.popitem(last=False)
            self._turns.pop(gone, None)

    def note(self, turn_id: str, what: str, detail: str = "") -> None:
        trail = self._trails.get(turn_id)
        if trail is None:
            return
        now = self._clock.time()
        last = trail[-1] if trail else None
        if last and last.what == what and not detail and (last.detail or "1").isdigit():
            trail[-1] = Moment(last.at, what, str(int(last.detail or "1") + 1))
        elif len(trail) < MOST:
            trail.append(Moment(now, what, detail))

    def learn(self, turn: Turn) -> None:
        """What the store noted of a turn that was ended while it waited."""
        trail = self._trails.get(turn.id)
        if trail is not None and turn.ending is not None:
            trail += [moment for moment in turn.ending.trail if moment not in trail]
            trail.sort(key=lambda moment: moment.at)

    def of(self, turn_id: str) -> tuple[Moment, ...]:
        return tuple(self._trails.get(turn_id, ()))

    def recent(self) -> Iterator[tuple[Turn, tuple[Moment, ...]]]:
        """The turns remembered, oldest first."""
        for turn_id, trail in list(self._trails.items()):
            yield self._turns[turn_id], tuple(trail)
