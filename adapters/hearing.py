"""How long a connection is believed to hear: the thresholds of every link, and who judges
by them (pure).

Pongs prove the socket, never the hearing (design.md 1). The hearing is proven by an
application event, by the server's own application frames where it sends any, or by a fresh
connection.
"""

from __future__ import annotations

import math
from typing import Literal

PING_EVERY = 20.0
"""Seconds between two WebSocket pings of ours."""

SILENCE = 50.0
"""Seconds without any frame, not even a pong, that prove a socket dead."""

IDLE = 1800.0
"""Seconds without an application event after which a fresh connection is opened: the
self-test of a silent link. It costs the request that opens it, twice an hour; a setting may
switch it off (0), and then only traffic finds a link that answers pings and is deaf."""

ACTIVE = 600.0
"""Seconds after an application event in which the link counts as in use, …"""

QUIET = 95.0
"""… and silence of the application, of so many seconds, is answered by a fresh connection:
with the time to open it, a deaf link in use is left within two minutes."""

OVERDUE = 15.0
"""Seconds that a fresh connection may be waited for before the status says so."""

JUMP = 30.0
"""Seconds by which the wall clock may leave the monotonic one between two looks."""

LINGER = 5.0
"""Seconds that a connection is still read when its successor is up: the server goes on
pushing to both."""

NO_LINGER = 0.5
"""The same for one that was found deaf: what is pushed to it is lost."""


class Hearing:
    """One connection, `opened` at a moment that is a proof of its own. Every moment is
    given, in seconds of a monotonic clock. `idle` stands for IDLE; 0 is never."""

    def __init__(self, opened: float, idle: float = IDLE) -> None:
        self._idle = idle or math.inf
        self._event = self._sign = opened
        self._within = self._expected = math.inf

    def event(self, now: float) -> None:
        """The application was heard."""
        self._event = self._sign = now
        self._expected = now + self._within

    def sign(self, now: float, within: float = math.inf) -> None:
        """The server sent an application frame of its own; the next one, or an event, is
        expected `within` seconds."""
        self._sign, self._within = now, within
        self._expected = now + within

    def expect(self, by: float) -> None:
        """A question was asked that a server in order answers by this moment."""
        self._expected = min(self._expected, by)

    def answered(self) -> None:
        """It did; which says nothing about the hearing."""
        self._expected = math.inf

    def doubt(self, last_event: float) -> tuple[float, Literal["quiet", "deaf"]]:
        """From which moment on it is not believed any more, and whether it is found deaf
        then, or only quiet for long. `last_event` is the link's, on whatever connection."""
        quiet, active = self._event + self._idle, self._sign + QUIET
        if active <= last_event + ACTIVE:
            quiet = min(quiet, active)
        return (self._expected, "deaf") if self._expected <= quiet else (quiet, "quiet")
