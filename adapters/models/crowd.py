"""How often each of many live streams is read.

A wake-up costs more than what it brings: at fifty words a second from five hundred streams,
one for every word would take more than a processor. Cards show a new text three times a
second at most, so with many streams the words of a moment are taken together.
"""

from __future__ import annotations

from dataclasses import dataclass

FEW = 16
"""So many streams are read at once, whenever something comes."""

READS = 1250.0
"""Reads a second of all streams together."""

LONGEST = 0.4
"""Seconds that a stream rests at most."""


@dataclass(slots=True, eq=False)
class Crowd:
    """The streams of one process; `live` are open now."""

    live: int = 0

    @property
    def rest(self) -> float:
        """Seconds that a stream leaves its socket alone after a read, 0 for not at all."""
        return min(LONGEST, self.live / READS) if self.live > FEW else 0.0
