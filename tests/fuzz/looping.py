"""Time that jumps: event loops whose clock moves on only when nobody has anything to do.

The simulated services live in one loop, each run of the bot in another, all in one thread
and over real sockets of this machine. A loop runs until it would block; when all of them
would, the clock goes to the next moment that somebody waits for. So hours pass in seconds,
and a seed always tells the same story. A loop that is never run again is a process that was
killed: nothing in it is tidied up.
"""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

EPOCH = 1_795_500_000.0
"""Where the wall clock begins: 2026-11-24."""

FAR = 1.0
"""Seconds: before a longer jump the sockets get a moment of real time."""

REST = 0.0002
"""That moment, in real seconds."""


THOUGHT = 1e-6
"""Seconds that each turn of a loop takes."""


class Killed(BaseException):
    """The process of this loop is killed here."""


class Stuck(Exception):
    """Nobody waits for anything, and what was to happen has not happened."""


@dataclass
class Now:
    """Seconds of the monotonic clock, the same for everybody."""

    seconds: float = 1000.0


class Watchful(selectors.DefaultSelector):
    """Stops its loop instead of blocking. `wakes`: seconds until the loop's next timer, None
    for no timer. `fuse`: how many turns the loop still has before it is killed, negative for
    no end."""

    def __init__(self, now: Now) -> None:
        super().__init__()
        self.now = now
        self.stop: Callable[[], None] = lambda: None
        self.wakes: float | None = None
        self.busy = False
        self.fuse = -1

    def select(self, timeout: float | None = None) -> list[Any]:
        if self.fuse == 0:
            raise Killed
        self.fuse = max(-1, self.fuse - 1)
        events = super().select(0)
        if events or timeout == 0:
            self.busy = True
            self.now.seconds += THOUGHT
        else:
            self.wakes = timeout
            self.stop()
        return events


class SimLoop(asyncio.SelectorEventLoop):
    """One process's loop. `died` is called when its fuse has burnt down."""

    def __init__(self, now: Now, died: Callable[[], None] = lambda: None) -> None:
        self._sim_now, self._died = now, died
        self.watchful = Watchful(now)
        super().__init__(self.watchful)
        self.watchful.stop = self.stop

    def time(self) -> float:
        return self._sim_now.seconds

    def run_a_while(self) -> bool:
        """Run until it would block; whether it had anything to do."""
        self.watchful.busy = False
        try:
            self.run_forever()
        except Killed:
            self._died()
        return self.watchful.busy

    def kill(self) -> None:
        """Close the sockets as the system does for a process that is gone. What the loop's
        objects hold stays open as /dev/null, so that no number is closed twice."""
        null = os.open(os.devnull, os.O_RDWR)
        own = {self._csock.fileno(), self._ssock.fileno()}  # type: ignore[attr-defined]
        for key in list(self.watchful.get_map().values()):
            if key.fd not in own:
                os.dup2(null, key.fd)
        os.close(null)


GRAVEYARD: list[SimLoop] = []


@dataclass
class Loops:
    """All loops that live, in the order in which they run."""

    now: Now = field(default_factory=Now)
    live: list[SimLoop] = field(default_factory=list)

    def add(self, died: Callable[[], None] = lambda: None) -> SimLoop:
        loop = SimLoop(self.now, died)
        self.live.append(loop)
        return loop

    def bury(self, loop: SimLoop) -> None:
        """Run it never again. Nothing of it may be collected: that would run its `finally`
        blocks."""
        gc.disable()
        self.live.remove(loop)
        GRAVEYARD.append(loop)

    def run(self, until: Callable[[], bool], *, real_seconds: float = 300.0) -> None:
        """Let time pass until `until()`. Raises Stuck."""
        end = time.monotonic() + real_seconds
        while not until():
            if not any([loop.run_a_while() for loop in list(self.live)]) and not until():
                self._jump()
            if time.monotonic() > end:
                raise Stuck(f"no end after {real_seconds:.0f} real seconds")

    def _jump(self) -> None:
        waits = [loop.watchful.wakes for loop in self.live if loop.watchful.wakes is not None]
        if not waits:
            raise Stuck("nobody waits for anything")
        if min(waits) > FAR:
            time.sleep(REST)
            if any([loop.run_a_while() for loop in list(self.live)]):
                return
        self.now.seconds += max(min(waits), 1e-6)


@dataclass(frozen=True)
class SimClock:
    """The bot's and the simulators' bot.contract.Clock."""

    now: Now

    def time(self) -> float:
        return EPOCH + self.now.seconds

    def monotonic(self) -> float:
        return self.now.seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)
