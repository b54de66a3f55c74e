"""The first rung: a CardKit card whose text the client types (reference/feishu.md 6)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache

from adapters.feishu.api import FeishuApi
from adapters.feishu.card import ANSWER, TEXT_BYTES, Card, Face, config, fitting, streaming
from adapters.feishu.codes import CARD_NOT_YET, SEQUENCE, STREAM_CLOSED
from adapters.feishu.place import Journal, Place
from adapters.feishu.speed import Gauge, Tempo, Typewriter, typewriter
from bot.contract import Charge, Clock, Delivery, Limits, Pace, Snapshot, Step, Window
from bot.errors import BorderError, Bug, Gone, RateLimited, Transient, Uncertain

log = logging.getLogger(__name__)

CARD_WINDOWS = (Window(10, 1.0),)
"""Operations on one card (reference/feishu.md 5.8)."""

RENEW_AFTER = 480.0
"""Seconds after which streaming mode is opened again; it closes by itself at 600
(reference/feishu.md 6.6)."""

FACTOR, MOST, LAST = 1.28, 3.7, 10.0
"""How the gaps between two texts grow, in seconds. The client types each text over the gap
that follows it, so the gaps may be wide, but no one much wider than the one before."""

RETUNES = 2
"""How often a card is told another typing speed, a call each. The last one is kept for a
slower one: too slow a typewriter jumps a little, too fast a one stands still."""

NEVER = float("-inf")

ATTEMPT = 1 << 20
"""Room for the sequences of one run; a later run's are all above (design.md 5)."""

BLOCK = 256
"""Sequences promised on disk at a time."""

PATIENCE = 6
"""How often a new card may be reported as not visible yet (reference/feishu.md 6.7)."""

Write = Callable[[int, str], Awaitable[None]]


class CardKit:
    """One card entity and its message. `pace`: seconds from the first text to the second;
    `tempo`: how fast the bot's model speaks. `plainly` shows text without Markdown."""

    name = "cardkit"

    def __init__(
        self,
        api: FeishuApi,
        clock: Clock,
        place: Place,
        journal: Journal,
        pace: float,
        tempo: Tempo,
        attempt: int,
    ) -> None:
        self._api, self._clock, self._place, self._journal = api, clock, place, journal
        self._pace, self._tempo = pace, tempo
        self._gauge, self._typewriter = Gauge(), typewriter(tempo.speed)
        self._retunes = RETUNES
        self._learned = False
        self._saved = journal.handle.sequence
        self._sequence = max(self._saved, attempt * ATTEMPT)
        self._typing, self._typed_until = True, NEVER
        self._shown: Face | None = None
        self._streams_since = float("-inf")
        self._invisible = 0
        self._closed_with: Card | None = None
        self._given_up = ""
        self.plainly = False

    @property
    def limits(self) -> Limits:
        limits = _limits(self._pace, self._typing)
        if not self._typing or self._typed_until == limits.typed_until:
            return limits
        return replace(limits, typed_until=self._typed_until)

    @property
    def _card(self) -> str:
        return self._given_up or self._journal.handle.card_id

    @property
    def _on_screen(self) -> bool:
        return bool(self._journal.handle.message_id)

    def charges(self, step: Step) -> tuple[Charge, ...]:
        if step == "open":
            return self._opening()
        mine = Charge(f"feishu/card/{self._card}", CARD_WINDOWS)
        if step == "finish":
            writes = (self._api.charge("update"), self._api.charge("settings"), mine, mine)
            return (*self._opening(), *writes)
        renew = (self._api.charge("settings"), mine) if self._untimely else ()
        return (*renew, *self._showing(), mine)

    def _opening(self) -> tuple[Charge, ...]:
        if self._on_screen or self._place.stale:
            return ()
        create = () if self._card else (self._api.charge("create"),)
        return (*create, *self._place.charges())

    def _showing(self) -> tuple[Charge, ...]:
        """One call: typing once there is an answer, else perhaps a new card."""
        if not self._typing:
            return (self._api.charge("update"),)
        if self._shown is not None and ANSWER in self._shown.texts:
            return (self._api.charge("content"),)
        return self._api.charge("content"), self._api.charge("update")

    # ------------------------------------------------------------ opening

    async def open(self, snapshot: Snapshot) -> None:
        if self._on_screen:
            return
        if not self._card:
            await self._create(snapshot)
        if not self._place.stale:
            await self._send(snapshot)

    async def _create(self, snapshot: Snapshot) -> None:
        shown, card = fitting(snapshot, typing=self._typewriter)
        card_id = await self._api.create_card(card)
        self._shown, self._streams_since = shown, self._clock.monotonic()
        self._saved = self._sequence + BLOCK
        await self._journal.put(rung=self.name, card_id=card_id, sequence=self._saved)

    async def _send(self, snapshot: Snapshot) -> None:
        revived = self._place.doubtful
        content = {"type": "card", "data": {"card_id": self._card}}
        try:
            message_id = await self._place.post(
                "-c", "interactive", content, anywhere=snapshot.state != "recalled"
            )
        except Transient as error:
            if error.code != CARD_NOT_YET:
                raise
            self._invisible += 1
            if self._invisible >= PATIENCE:
                raise Bug(error.cause, code=error.code) from error
            raise
        if revived:
            await self._adopt(message_id)

    async def _adopt(self, message_id: str) -> None:
        """A repeated send returned the first message: write to the card that it shows."""
        try:
            card_id = await self._api.card_of(message_id)
        except BorderError:
            return
        if card_id and card_id != self._card:
            self._shown = None
            await self._journal.put(card_id=card_id)

    # ------------------------------------------------------------ showing

    async def show(self, snapshot: Snapshot) -> None:
        typing = self._wanted if self._typing else None
        shown, card = fitting(snapshot, typing=typing, plainly=self.plainly)
        known = self._shown
        if known is not None and (shown.frame, shown.texts) == (known.frame, known.texts):
            return
        if self._untimely:
            await self._open_streaming()
        element = self._typed(shown)
        if element:
            await self._type(element, shown.texts[element])
        else:
            await self._update(card)
            self._typewriter = typing or self._typewriter
        self._shown = shown
        self._measure(len(shown.texts.get(ANSWER, "")), _length(known) if element else None)

    def _measure(self, length: int, before: int | None) -> None:
        """So long is the answer shown now; it is typed from `before` on, if it is typed."""
        now = self._clock.monotonic()
        typed = length - (length if before is None else before)
        self._typed_until = now + typed / self._typewriter.speed
        if length:
            self._gauge.take(now, length)

    # ------------------------------------------------------------ streaming mode

    @property
    def _wanted(self) -> Typewriter:
        speed = self._gauge.cautious
        return self._typewriter if speed is None else typewriter(speed)

    @property
    def _untimely(self) -> bool:
        """Streaming mode must be opened again, or the card be told another speed."""
        expiring = self._clock.monotonic() - self._streams_since > RENEW_AFTER
        return self._typing and (expiring or (self._retunes > 0 and self._mistuned))

    @property
    def _mistuned(self) -> bool:
        speed = self._gauge.lately
        if speed is None or self._typewriter.suits(speed):
            return False
        if self._retunes < 2 and self._gauge.falling:
            return False
        faster = self._wanted.speed > self._typewriter.speed
        return self._wanted != self._typewriter and not (faster and self._retunes < 2)

    def _typed(self, shown: Face) -> str:
        """The one element whose text changed, or an empty string when the card must be
        replaced."""
        known = self._shown
        if known is None or not self._typing or shown.frame != known.frame:
            return ""
        changed = [key for key, text in shown.texts.items() if text != known.texts[key]]
        return changed[0] if len(changed) == 1 else ""

    async def _type(self, element: str, text: str) -> None:
        async def write(sequence: int, uuid: str) -> None:
            await self._api.card_content(self._card, element, text, sequence, uuid)

        try:
            await self._reopening(write)
        except Bug as error:
            self._typing, self._shown = False, None
            raise Transient(f"typewriter given up: {error.cause}", code=error.code) from error

    async def _reopening(self, write: Write) -> None:
        """A write that opens streaming mode again, once, when it was closed."""
        try:
            await self._write(write)
        except BorderError as error:
            if error.code not in STREAM_CLOSED:
                raise
            await self._open_streaming()
            await self._write(write)

    async def _open_streaming(self) -> None:
        """Anew, with the speed that suits now: one call does both."""
        wanted = self._wanted
        await self._settings(streaming(wanted))
        self._retunes -= wanted != self._typewriter
        self._typewriter, self._streams_since = wanted, self._clock.monotonic()

    # ------------------------------------------------------------ closing

    async def finish(self, snapshot: Snapshot) -> Delivery:
        self._teach()
        await self.open(snapshot)
        shown, card = fitting(snapshot, plainly=self.plainly)
        if card != self._closed_with:
            await self._confirm(self._update(card))
            self._closed_with = card
        await self._close_streaming(shown)
        message_id = self._journal.handle.message_id
        if not message_id:
            return Delivery("unconfirmed", self._card)
        return Delivery("delivered", message_id)

    def _teach(self) -> None:
        """What this card has learned about the model, once."""
        if self._gauge.speed is not None and not self._learned:
            self._tempo.learn(self._gauge.speed)
            self._learned = True

    async def _close_streaming(self, shown: Face) -> None:
        """Said twice, because whether replacing the card closes the mode is not
        documented; a refusal costs nothing, for the text is complete."""
        closed = config(shown.summary)
        changes = {key: closed[key] for key in ("streaming_mode", "summary")}
        try:
            await self._confirm(self._settings(changes))
        except (RateLimited, Transient, Uncertain):
            raise
        except BorderError as error:
            log.warning("streaming mode closes by itself: %s", error)

    async def step_aside(self, card_id: str, last: Snapshot | None) -> None:
        """Bring a card that was given up to rest: it shows `last`, if that is given and not
        refused, and its animation ends. Raises BorderError."""
        self._given_up, told = card_id, False
        if last is not None:
            try:
                await self._update(fitting(last)[1])
                told = True
            except (RateLimited, Transient, Uncertain):
                raise
            except BorderError as error:
                log.info("a card that was given up takes no words: %s", error)
        try:
            await self._settings({"streaming_mode": False})
        except Bug as error:
            if not told:
                raise
            log.warning("streaming mode closes by itself: %s", error)

    async def _confirm(self, write: Awaitable[None]) -> None:
        """A last write; one that the card says it has had counts (design.md 5)."""
        try:
            await write
        except Gone as error:
            if error.code != SEQUENCE:
                raise

    # ------------------------------------------------------------ sequences

    async def _update(self, card: Card) -> None:
        async def write(sequence: int, uuid: str) -> None:
            await self._api.card_update(self._card, card, sequence, uuid)

        await self._write(write)

    async def _settings(self, changes: Card) -> None:
        async def write(sequence: int, uuid: str) -> None:
            await self._api.card_settings(self._card, changes, sequence, uuid)

        await self._write(write)

    async def _write(self, write: Write) -> None:
        """One write with the next sequence. When the card is ahead of us, one jump; when
        it still is, another run owns it: Gone."""
        for jump in (0, BLOCK * 4):
            self._sequence += jump
            sequence = await self._next()
            try:
                return await write(sequence, f"{self._journal.handle.key}-{sequence}")
            except BorderError as error:
                if error.code != SEQUENCE:
                    raise
                cause = error.cause
        raise Gone(cause, code=SEQUENCE)

    async def _next(self) -> int:
        """Never used before, and on disk before it is used."""
        self._sequence += 1
        if self._sequence > self._saved:
            self._saved = self._sequence + BLOCK
            await self._journal.put(sequence=self._saved)
        return self._sequence


def _length(shown: Face | None) -> int:
    return 0 if shown is None else len(shown.texts.get(ANSWER, ""))


@lru_cache(maxsize=16)
def _limits(pace: float, typing: bool) -> Limits:
    first = pace if typing else max(pace, 1.0)
    even = Pace(first, FACTOR, MOST, LAST)
    typed_until = NEVER if typing else None
    return Limits(even, TEXT_BYTES, whole_markdown=not typing, typed_until=typed_until)
