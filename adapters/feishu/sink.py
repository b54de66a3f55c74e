"""The ladder that shows one part of a reply: CardKit, card by PATCH, post or text
(design.md 6; reference/feishu.md 6.10)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from adapters.feishu.api import FeishuApi
from adapters.feishu.cardkit import CardKit
from adapters.feishu.codes import SCOPE_MISSING
from adapters.feishu.left import LeftBehind
from adapters.feishu.place import Journal, Place
from adapters.feishu.speed import Tempo
from adapters.feishu.whole import OneMessage, PatchCard
from adapters.skipping import Skipping
from bot.contract import Charge, Clock, Delivery, Handle, Json, Limits, Save, Snapshot, Step
from bot.errors import (
    RETRYABLE,
    BorderError,
    Bug,
    Gone,
    PermissionDenied,
    RefusedContent,
    TooBig,
)
from bot.texts import both

log = logging.getLogger(__name__)

RUNGS = ("cardkit", "patch", "text")

SKIP_SECONDS = 600.0
"""How long a rung is skipped after a missing permission refused it."""

CUTTABLE = 2000
"""Bytes up to which nobody cuts a text: a rung that finds so little too big is given up."""

Rung = CardKit | PatchCard | OneMessage


@dataclass(slots=True)
class Shared:
    """What all sinks of a bot share: the rungs that a missing permission closed, how fast
    its model speaks, and whether replies are to cost as few calls as can be."""

    clock: Clock
    until: dict[str, float] = field(default_factory=dict)
    skipping: Skipping = field(default_factory=Skipping)
    tempo: Tempo = field(default_factory=Tempo)
    saving: bool = False

    def skip(self, rung: str, error: PermissionDenied) -> None:
        """Skip `rung` for a while when a scope is missing, and name it in the log. Other
        refusals concern one chat."""
        if rung == RUNGS[-1] or error.code != SCOPE_MISSING:
            return
        now = self.clock.monotonic()
        self.until[rung] = now + SKIP_SECONDS
        self.skipping.add(rung, error, now, self.until[rung])

    def first(self) -> str:
        """The highest rung that is not skipped now. When calls are saved that is a card in
        a message, which takes one call to show and one to end: CardKit takes four."""
        now = self.clock.monotonic()
        rungs = RUNGS[1:] if self.saving else RUNGS
        return next((r for r in rungs if self.until.get(r, now) <= now), RUNGS[-1])


class FeishuSink:
    """A bot.contract.ReplySink on Feishu. `address` is what parse.py wrote."""

    def __init__(
        self,
        api: FeishuApi,
        clock: Clock,
        shared: Shared,
        pace: float,
        address: Json,
        handle: Handle,
        save: Save,
        attempt: int,
    ) -> None:
        self._api, self._clock, self._shared = api, clock, shared
        self._saving = shared.saving
        self._pace, self._attempt = pace, attempt
        self._journal = Journal(handle, save)
        self._place = Place(api, clock, address, self._journal)
        self._left = LeftBehind(api, self._journal, self._card)
        self._rung = self._make(handle.rung if handle.rung in RUNGS else shared.first())

    def _make(self, name: str) -> Rung:
        if name == "cardkit":
            return self._card()
        if name == "patch":
            return PatchCard(self._api, self._place, self._journal, self._pace)
        return OneMessage(self._place, self._journal)

    def _card(self) -> CardKit:
        return CardKit(
            self._api,
            self._clock,
            self._place,
            self._journal,
            self._pace,
            self._shared.tempo,
            self._attempt,
        )

    @property
    def limits(self) -> Limits:
        limits = self._rung.limits
        return replace(limits, streams=False) if self._saving else limits

    @property
    def handle(self) -> Handle:
        return self._journal.handle

    def charges(self, step: Step) -> tuple[Charge, ...]:
        if step == "finish" and self._unopened:
            return self._place.charges()
        left = self._left.charges() if step == "finish" else ()
        return (*self._rung.charges(step), *left)

    @property
    def _unopened(self) -> bool:
        """No card exists, so a last snapshot needs only one message."""
        return isinstance(self._rung, CardKit) and not self.handle.card_id

    async def open(self, snapshot: Snapshot) -> None:
        while True:
            try:
                return await self._rung.open(snapshot)
            except (PermissionDenied, Bug) as error:
                await self._step_down(error)

    async def show(self, snapshot: Snapshot) -> None:
        await self._rung.show(snapshot)

    async def finish(self, snapshot: Snapshot) -> Delivery:
        if self._unopened:
            self._rung = self._make("patch")
        delivery = await self._deliver(snapshot)
        await self._left.take_away(below=delivery.state == "delivered")
        return delivery

    async def _deliver(self, snapshot: Snapshot) -> Delivery:
        shown = snapshot
        while True:
            self._mark(neutral=shown is not snapshot)
            try:
                done = await self._finish_plainly_if_refused(shown)
                return replace(done, replaced=self._replaced(shown is not snapshot))
            except RefusedContent as error:
                log.warning("text refused by the content filter: %s", error)
                if shown is not snapshot:
                    await self._step_down(error)
                shown = self._neutral(snapshot)
            except BorderError as error:
                if self._in_doubt(error):
                    done = await self._end_in_doubt(error, shown)
                    return replace(done, replaced=self._replaced(shown is not snapshot))
                if not self._hopeless(error, shown):
                    raise
                await self._step_down(error)

    def _in_doubt(self, error: BorderError) -> bool:
        """The card cannot be sent any more, and an earlier try may have arrived."""
        sent = bool(self.handle.message_id) or not self._place.doubtful
        return isinstance(error, Gone) and not sent and isinstance(self._rung, CardKit)

    async def _end_in_doubt(self, error: BorderError, snapshot: Snapshot) -> Delivery:
        """For whoever sees it. Raises `error` when the card takes no words either, and when
        the question was recalled: nobody waits for proof then."""
        assert isinstance(self._rung, CardKit)
        log.warning("a card is ended that may have arrived: %s", error)
        try:
            await self._rung.step_aside(self.handle.card_id, snapshot)
        except RETRYABLE:
            raise
        except BorderError:
            raise error from None
        if snapshot.state == "recalled":
            raise error
        return Delivery("unconfirmed", self.handle.card_id)

    def _mark(self, *, neutral: bool) -> None:
        """What a message says that cannot change is in the journal before it leaves."""
        handle = self.handle
        if not handle.message_id and "sending_at" not in handle.extra:
            extra = self._journal.note(replaced="content" if neutral else None)
            self._journal.forget(extra=extra)

    def _replaced(self, neutral: bool) -> str:
        sent = isinstance(self._rung, OneMessage) and "replaced" in self.handle.extra
        return "content" if neutral or sent else ""

    def _hopeless(self, error: BorderError, snapshot: Snapshot) -> bool:
        """Whether this rung will never show it, and the next one may."""
        if isinstance(error, TooBig):
            return len(snapshot.text.encode()) <= CUTTABLE
        if isinstance(error, Gone):
            return bool(self.handle.message_id)
        return isinstance(error, PermissionDenied | Bug)

    def _neutral(self, snapshot: Snapshot) -> Snapshot:
        """What the person sees instead of a refused text, which cannot be shown by
        repeating it (reference/feishu.md 5.10)."""
        words = both("error.content", ref=self.handle.key[:8])
        return replace(
            snapshot, text=words, reasoning="", note="", footer="", summary=words, state="failed"
        )

    async def _finish_plainly_if_refused(self, snapshot: Snapshot) -> Delivery:
        """A card refused for its content is shown once more without any Markdown."""
        try:
            return await self._rung.finish(snapshot)
        except Bug as error:
            if self._rung.plainly or isinstance(self._rung, OneMessage):
                raise
            log.warning("card refused, shown without Markdown: %s", error)
            self._rung.plainly = True
            return await self._rung.finish(snapshot)

    async def _step_down(self, error: BorderError) -> None:
        """To the next rung; raises `error` when this was the last one."""
        name = self._rung.name
        if isinstance(error, PermissionDenied):
            self._shared.skip(name, error)
        if name == RUNGS[-1]:
            raise error
        log.warning("rung %s given up: %s", name, error)
        self._rung = self._make(RUNGS[RUNGS.index(name) + 1])
        extra = self._left.one_more()
        await self._journal.put(rung=self._rung.name, card_id="", message_id="", extra=extra)
