"""The growing reply of one turn and the loop that shows it.

Snapshots, not deltas (law 3): the newest wins, one call is in flight per card, unchanged
text is not sent. A text too long for one card goes on in the next part. Closing shows
the whole text and is repeated until the platform has proven it or the time is up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from bot.contract import Clock, Delivery, Handle, Snapshot
from bot.errors import (
    RETRYABLE,
    AuthError,
    BorderError,
    Bug,
    PermissionDenied,
    RateLimited,
    StoreError,
    TooBig,
    Transient,
)
from bot.flight import Flight, Note
from bot.markdown import Part as Piece
from bot.pace import Pacer, Priority
from bot.parts import MakeSink, Part, Parts
from bot.rhythm import News
from bot.tasks import pause

log = logging.getLogger(__name__)

FINAL_SECONDS = 60.0
"""How long a final is retried in the lane (design.md 5)."""

MOST_REFUSALS = 3
"""Updates of one card that may be refused for what they say before no more are tried: the
next text may pass (needs.md 11). Other refusals are for good."""

WHOLE_SECONDS = 3600.0
"""Bounds every wait of a reply that nobody has begun to close."""

PASSING = (*RETRYABLE, AuthError, PermissionDenied)
"""What may be over some minutes later: the last two when somebody repairs the app. A quota
that is used up is not, and asking again costs of it (bot/deliveries.py does so rarely)."""


class Reply:
    """One turn's reply. `running` is what a card shows besides the text while it grows
    (status line, Stop button), `sealed` what one shows whose text goes on in the next, and
    `superseded` what one shows that an earlier run left and this one has no use for.
    `failure` is why the last close() delivered nothing. While `spent`, only the end is shown."""

    def __init__(
        self,
        make_sink: MakeSink,
        pacer: Pacer,
        clock: Clock,
        running: Snapshot,
        note: Note,
        *,
        sealed: Snapshot | None = None,
        superseded: Snapshot | None = None,
        show_reasoning: bool = False,
        earlier_parts: int = 0,
        spent: Callable[[], bool] | None = None,
    ) -> None:
        self._clock = clock
        self._running = running
        self._note = note
        self._sealed = sealed or Snapshot(state="continued")
        self._superseded = superseded or Snapshot(state="continued")
        self.failure: BorderError | None = None
        self._show_reasoning = show_reasoning
        self._spent = spent or (lambda: False)
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._parts = Parts(make_sink, earlier_parts)
        self._grown = asyncio.Event()
        self._news = asyncio.Event()
        self._began_at: float | None = None
        self._loop: asyncio.Task[None] | None = None
        self._flight = Flight(pacer, clock, note)
        self._hurried = asyncio.Event()
        self._deadline = clock.monotonic() + WHOLE_SECONDS

    # ------------------------------------------------------------ growing

    def add(self, text: str) -> None:
        if not self._pieces:
            self._news.set()
        self._pieces.append(text)
        self._grown.set()

    def add_reasoning(self, text: str) -> None:
        self._thoughts.append(text)
        if self._show_reasoning:
            self._grown.set()

    def retitle(self, running: Snapshot, *, folded: bool | None = None) -> None:
        """Show this besides the text from now on."""
        self._running = running
        if folded is not None:
            self._show_reasoning = folded
        self._news.set()
        self._grown.set()

    def restart(self) -> None:
        """Forget the text: the answer is written anew into the same cards."""
        self._pieces, self._thoughts = [], []
        self._parts.restart()

    @property
    def handles(self) -> tuple[Handle, ...]:
        """Where each part stands, those of earlier runs included."""
        return self._parts.handles

    @property
    def untouched(self) -> bool:
        """Nothing was ever sent."""
        return not any(handle.rung for handle in self.handles)

    @property
    def open_cards(self) -> int:
        """Cards that are on the screen and not closed yet."""
        live = (part for part in self._parts if part.opened and part.done is None)
        return sum(part.sink.limits.streams for part in live)

    @property
    def grows(self) -> bool:
        """Something is seen of it before its end."""
        return self._parts.at(0).sink.limits.streams

    @property
    def hopeless(self) -> bool:
        """The last close() met a refusal that repeating it cannot change."""
        return self.failure is not None and not isinstance(self.failure, PASSING)

    @property
    def text(self) -> str:
        """The model's text so far, whole."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def reasoning(self) -> str:
        if len(self._thoughts) > 1:
            self._thoughts = ["".join(self._thoughts)]
        return self._thoughts[0] if self._thoughts else ""

    # ------------------------------------------------------------ showing

    def start(self) -> None:
        """Put the card up now and show the text as it grows, until close(). Starting a
        reply that is already shown does nothing."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._show_loop(), name="show")

    async def _show_loop(self) -> None:
        await self._open(self._parts.at(0), self._snapshot(0, self._cut()))
        while True:
            await self._grown.wait()
            self._grown.clear()
            await self._show_newest()

    async def _show_newest(self) -> None:
        if not self._parts.at(self._parts.last).sink.limits.streams:
            return  # what cannot be changed is sent once, when the text stands
        if self._spent():
            return  # what calls there may be are for the ends of answers
        pieces = self._cut()
        last = len(pieces) - 1
        for index in range(self._parts.last, last):
            if not self._parts.at(index).opened:
                return  # a message in its place could not be changed any more
            await self._seal(index, pieces)
            following = self._parts.at(index + 1)
            following.rhythm.follow(self._parts.at(index).rhythm)
            await self._open(following, self._snapshot(index + 1, pieces))
        part = self._parts.at(last)
        if not part.broken and part.sink.limits.streams:
            idle = max(0.0, self._clock.monotonic() - self._due(part))
            await self._wait_for_pace(part)
            await self._show(part, last, idle)

    async def _show(self, part: Part, index: int, idle: float) -> None:
        try:
            priority = Priority.UPDATE if part.worded else Priority.FIRST
            grant = await self._flight.room(part.sink, "show", priority, part.rhythm.shown_at)
            pieces = self._cut()
            snapshot = self._snapshot(index, pieces)
            if index < len(pieces) - 1:
                self._grown.set()
                return grant.give_back()
            if snapshot == part.shown:
                return grant.give_back()
            await self._flight.call(part.sink, "show", snapshot, grant)
        except TooBig as error:
            part.broken = not self._parts.learn(index, error)
            self._grown.set()
        except RETRYABLE as error:
            log.debug("update put off: %s", error)
            self._tried(part, idle)
            self._grown.set()
        except BorderError as error:
            part.refusals += 1
            part.broken = not isinstance(error, Bug) or part.refusals >= MOST_REFUSALS
            what = "given up, the final will tell" if part.broken else "put off"
            log.warning("updates %s: %s", what, error)
            self._tried(part, idle)
            self._grown.set()
        else:
            self._tried(part, idle)
            part.shown = snapshot
            self._note("shown", "")

    # ------------------------------------------------------------ the pace

    async def _wait_for_pace(self, part: Part) -> None:
        """Until its next show is due. While there is no text, the first one is news."""
        while (wait := self._wait(part)) > 0:
            if self._pieces:
                await self._clock.sleep(wait)
            else:
                self._news.clear()
                await pause(wait, self._news, self._clock)

    def _due(self, part: Part) -> float:
        return part.rhythm.due(self._what(part), part.sink.limits.pace, self._age)

    def _wait(self, part: Part) -> float:
        needed = part.rhythm.needed(self._what(part), part.sink.limits, self._age)
        return needed - self._clock.monotonic()

    def _what(self, part: Part) -> News:
        if self._pieces:
            return "text" if part.worded else "first"
        old = part.shown
        return "line" if old is None or old.status != self._running.status else "thoughts"

    def _tried(self, part: Part, idle: float) -> None:
        now, what = self._clock.monotonic(), self._what(part)
        if self._began_at is None and self._pieces:
            self._began_at = now
        part.rhythm.tried(what, part.sink.limits.pace, self._age, idle, now)

    @property
    def _age(self) -> float:
        """Seconds for which the text has been growing."""
        return 0.0 if self._began_at is None else self._clock.monotonic() - self._began_at

    # ------------------------------------------------------------ one call

    async def _open(self, part: Part, snapshot: Snapshot) -> None:
        """Until it is open, or the ladder says that it cannot be."""
        delay = 0.25
        while not part.opened:
            try:
                at = part.rhythm.shown_at
                grant = await self._flight.room(part.sink, "open", Priority.FIRST, at)
                await self._flight.call(part.sink, "open", snapshot, grant)
            except (*RETRYABLE, StoreError) as error:
                log.info("opening put off: %s", error)
                await self._clock.sleep(delay)
                delay = min(delay * 2, 5.0)
            except BorderError as error:
                log.warning("card cannot be opened: %s", error)
                part.broken = True
                return
            else:
                self._opened(part, snapshot)

    def _opened(self, part: Part, snapshot: Snapshot) -> None:
        """What the card shows of the text is not certain: an earlier run may have opened
        it. A fresh one that begins with text need not say it twice at once."""
        part.opened, part.shown = True, replace(snapshot, text="")
        if snapshot.text and part is not self._parts.at(0):
            part.rhythm.shown_at = self._clock.monotonic()
        handle = part.sink.handle
        if part.sink.limits.streams or handle.card_id or handle.message_id:
            self._note("opened", handle.rung)

    async def _seal(self, index: int, pieces: list[Piece]) -> None:
        """Close a part whose text goes on in the next one; close() repeats what fails."""
        try:
            await self._finish(index, self._snapshot(index, pieces))
        except BorderError as error:
            log.info("part %d is sealed later: %s", index, error)

    # ------------------------------------------------------------ parts

    def _cut(self) -> list[Piece]:
        return self._parts.cut(self.text)

    def _snapshot(self, index: int, pieces: list[Piece], final: Snapshot | None = None) -> Snapshot:
        """What part `index` shows now; `final` is the closing of the whole reply."""
        base = (final or self._running) if index >= len(pieces) - 1 else self._sealed
        thoughts = self.reasoning if self._show_reasoning else ""
        return self._parts.snapshot(index, pieces, self.text, base, thoughts)

    # ------------------------------------------------------------ closing

    async def close(self, final: Snapshot, patience: float = FINAL_SECONDS) -> Delivery | None:
        """Show the whole text with `final`'s state, note, footer and buttons, and close
        every part. Returns the proof, or None when it could not be delivered within
        `patience` seconds; `failure` then says why."""
        await self._stop_showing()
        self._deadline = self._clock.monotonic() + patience
        delay = 0.5
        while True:
            try:
                return await self._finish_all(final)
            except StoreError as error:
                self.failure = Transient(f"journal not written: {error}")
            except BorderError as error:
                self.failure = error
                if not isinstance(error, RETRYABLE):
                    log.error("final cannot be delivered: %s", error)
                    return None
            wait = self.failure.retry_after if isinstance(self.failure, RateLimited) else delay
            delay = min(delay * 2, 8.0)
            log.info("final put off %.1f s: %s", wait, self.failure)
            if self._hurried.is_set() or self._clock.monotonic() + wait > self._deadline:
                return None
            await pause(wait, self._hurried, self._clock)

    def hurry(self) -> None:
        """Shutdown: try what is being tried to its end, and nothing after it."""
        self._hurried.set()

    async def leave(self) -> None:
        """Stop showing and leave the card open for the next process."""
        await self._stop_showing()

    async def _stop_showing(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait({self._loop})
            if not self._loop.cancelled() and self._loop.exception() is not None:
                log.error("show loop broke", exc_info=self._loop.exception())
        await self._flight.landed()

    async def _finish_all(self, final: Snapshot) -> Delivery:
        index = 0
        while index < len(pieces := self._cut()) or index == 0:
            try:
                await self._finish(index, self._snapshot(index, pieces, final))
            except TooBig as error:
                if not self._parts.learn(index, error):
                    raise
                continue
            index += 1
        await self._supersede(index, final)
        return self._proof(index)

    async def _finish(self, index: int, snapshot: Snapshot) -> None:
        part = self._parts.at(index)
        if part.done is not None and part.shown == snapshot:
            return
        grant = await self._flight.final_room(
            part.sink, part.rhythm.shown_at, self._deadline, self._hurried
        )
        done = await self._flight.call(part.sink, "finish", snapshot, grant)
        assert isinstance(done, Delivery)
        part.done, part.shown, part.opened = done, snapshot, True

    async def _supersede(self, used: int, final: Snapshot) -> None:
        """Close cards that an earlier run, or a text since cut otherwise, left open."""
        for index in range(used, len(self._parts)):
            await self._finish(index, replace(self._superseded, state=final.state))

    def _proof(self, used: int) -> Delivery:
        parts = [self._parts.at(index) for index in range(used)]
        done = [part.done for part in parts if part.done is not None]
        proven = all(delivery.state == "delivered" for delivery in done)
        proof = " ".join(delivery.proof for delivery in done)
        replaced = next(filter(None, (delivery.replaced for delivery in done)), "")
        return Delivery("delivered" if proven else "unconfirmed", proof, replaced)
