"""The ladder that shows one part of a reply: AI card, Markdown by session webhook, Markdown
by OpenAPI (design.md 6; reference/dingtalk.md 12.6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from adapters.dingtalk.api import DingTalkApi
from adapters.dingtalk.codes import BROKEN_TEMPLATE, MINUTE
from adapters.dingtalk.left import NO_FRAMES, OPEN, end_card
from adapters.dingtalk.place import Journal, Place
from adapters.dingtalk.rungs import CardRung
from adapters.dingtalk.settings import DingTalkSettings
from adapters.dingtalk.whole import MessageRung
from adapters.skipping import Skipping
from bot.contract import (
    CallKind,
    Charge,
    Clock,
    Delivery,
    Handle,
    Json,
    Limits,
    Save,
    Snapshot,
    Step,
)
from bot.errors import (
    AuthError,
    BorderError,
    Bug,
    Gone,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    RefusedContent,
    TooBig,
    Transient,
)
from bot.texts import both

log = logging.getLogger(__name__)

RUNGS = ("card", "webhook", "openapi")

SKIP_SECONDS = 600.0
"""How long a rung is skipped after a refusal that concerns the whole app."""

CUTTABLE = 2000
"""Bytes up to which nobody cuts a text: a rung that finds so little too big is given up."""

LEFT_TRIES = 4
"""How often a card that was given up is tried to be closed."""

REFUSED = (PermissionDenied, QuotaExhausted, Gone, Bug, AuthError)
"""What makes a sink step down."""

Rung = CardRung | MessageRung


@dataclass(slots=True)
class Shared:
    """What all sinks of a bot share: the rungs that the app may not use now, whether the
    template has the failure state, and whether replies are to cost as few calls as can be."""

    clock: Clock
    until: dict[str, float] = field(default_factory=dict)
    skipping: Skipping = field(default_factory=Skipping)
    failable: bool = True
    saving: bool = False
    spent: frozenset[CallKind] = frozenset()

    def skip(self, rung: str, error: BorderError) -> None:
        """Skip `rung` for a while when the refusal would meet every reply, and name the
        missing right in the log. Other refusals concern one chat or card."""
        everywhere = (
            isinstance(error, QuotaExhausted)
            or error.code.startswith("Forbidden.AccessDenied.")
            or error.code in BROKEN_TEMPLATE
        )
        if not everywhere:
            return
        now = self.clock.monotonic()
        self.until[rung] = now + SKIP_SECONDS
        self.skipping.add(rung, error, now, self.until[rung])

    def skipped(self, rung: str) -> bool:
        """A permission is missing for it, or the month's calls that it counts as are used
        up (reference/dingtalk.md 5.7)."""
        kind: CallKind = "message" if rung == "webhook" else "api"
        return kind in self.spent or self.until.get(rung, float("-inf")) > self.clock.monotonic()


class DingTalkSink:
    """A bot.contract.ReplySink on DingTalk. `address` is what parse.py wrote."""

    def __init__(
        self,
        settings: DingTalkSettings,
        api: DingTalkApi,
        clock: Clock,
        shared: Shared,
        address: Json,
        handle: Handle,
        save: Save,
        attempt: int,
    ) -> None:
        self._settings, self._api, self._shared = settings, api, shared
        self._attempt, self._saving = attempt, shared.saving
        self._journal = Journal(handle, save)
        self._place = Place(api, clock, address)
        self._left_tries = 0
        self._rung = self._make(handle.rung if handle.rung in RUNGS else self._first(RUNGS))

    # ------------------------------------------------------------ rungs

    def _make(self, name: str) -> Rung:
        template = self._settings.template
        if name != "card" or template is None:
            return MessageRung("openapi" if name == "card" else name, self._place, self._journal)
        return CardRung(
            self._api,
            self._place,
            self._journal,
            template,
            self._settings.pace,
            self._attempt,
            self._shared.failable,
            self._saving,
        )

    def _first(self, names: tuple[str, ...]) -> str:
        """The highest of `names` that can be used now; the lowest when none can."""
        usable = [name for name in names if self._usable(name)]
        open_now = [name for name in usable if not self._shared.skipped(name)]
        return (open_now or usable or [names[-1]])[0]

    def _usable(self, name: str) -> bool:
        if name == "webhook":
            return self._place.webhook_open
        return self._place.reachable and (name != "card" or self._settings.template is not None)

    @property
    def limits(self) -> Limits:
        return self._rung.limits

    @property
    def handle(self) -> Handle:
        return self._journal.handle

    def charges(self, step: Step) -> tuple[Charge, ...]:
        if step == "finish" and self._unopened:
            return self._plain().charges(step)
        ending = self._ending() if step == "finish" else ()
        return (*self._rung.charges(step), *ending)

    def _ending(self) -> tuple[Charge, ...]:
        """What closing a card that was given up costs."""
        begun = self.handle.extra.get("left_open")
        frame = (self._api.charge("stream"),) if begun is OPEN else ()
        return (*frame, self._api.charge("update")) if begun else ()

    @property
    def _unopened(self) -> bool:
        """No card exists or may exist, so a last snapshot needs only one message."""
        return isinstance(self._rung, CardRung) and not self.handle.card_id

    def _plain(self) -> Rung:
        return self._make(self._first(RUNGS[1:]))

    # ------------------------------------------------------------ steps

    async def open(self, snapshot: Snapshot) -> None:
        while True:
            try:
                return await self._rung.open(snapshot)
            except REFUSED as error:
                await self._step_down(error)

    async def show(self, snapshot: Snapshot) -> None:
        await self._rung.show(snapshot)

    async def finish(self, snapshot: Snapshot) -> Delivery:
        if self._unopened:
            self._rung = self._plain()
        delivery = await self._deliver(snapshot)
        await self._close_left()
        return delivery

    async def _deliver(self, snapshot: Snapshot) -> Delivery:
        shown = snapshot
        while True:
            self._mark(neutral=shown is not snapshot)
            try:
                done = await self._rung.finish(shown)
                return replace(done, replaced=self._replaced(shown is not snapshot))
            except RefusedContent as error:
                log.warning("text refused by the content filter: %s", error)
                if shown is not snapshot:
                    await self._step_down(error)
                shown = self._neutral(snapshot)
            except BorderError as error:
                if not self._hopeless(error, shown):
                    raise
                await self._step_down(error)
            finally:
                self._learn()

    def _mark(self, *, neutral: bool) -> None:
        """What a message says that cannot change is in the journal before it leaves."""
        if isinstance(self._rung, MessageRung) and not self._rung.sent:
            extra = self._journal.note(replaced="content" if neutral else None)
            self._journal.forget(extra=extra)

    def _replaced(self, neutral: bool) -> str:
        sent = isinstance(self._rung, MessageRung) and "replaced" in self.handle.extra
        return "content" if neutral or sent else ""

    def _hopeless(self, error: BorderError, snapshot: Snapshot) -> bool:
        """Whether this rung will not show it, and the next one may."""
        if isinstance(error, RateLimited):
            return self._closed_for_long(error)
        if isinstance(error, TooBig):
            return len(snapshot.text.encode()) <= CUTTABLE
        return isinstance(error, REFUSED)

    def _learn(self) -> None:
        if isinstance(self._rung, CardRung):
            self._shared.failable = self._rung.failable

    def _closed_for_long(self, error: RateLimited) -> bool:
        """A webhook that was overrun stays closed for ten minutes (5.2); OpenAPI is open."""
        hook = self._rung.name == "webhook" and self._place.reachable
        return hook and error.retry_after >= MINUTE

    def _neutral(self, snapshot: Snapshot) -> Snapshot:
        """What the person sees instead of a refused text, which cannot be shown by
        repeating it (reference/dingtalk.md 12.6)."""
        words = both("error.content", ref=self.handle.key[:8])
        return replace(
            snapshot, text=words, reasoning="", note="", footer="", summary=words, state="failed"
        )

    async def _step_down(self, error: BorderError) -> None:
        """To the next rung that can be used; raises `error` when there is none."""
        name = self._rung.name
        self._shared.skip(name, error)
        below = RUNGS[RUNGS.index(name) + 1 :]
        if not any(self._usable(rung) for rung in below):
            raise error
        log.warning("rung %s given up: %s", name, error)
        self._rung = self._make(self._first(below))
        left = self.handle.card_id or self.handle.extra.get("left")
        extra = self._journal.note(
            left=left, left_open=self._left_open(), opened=None, ended=None, taken=None
        )
        await self._journal.put(rung=self._rung.name, card_id="", message_id="", extra=extra)

    def _left_open(self) -> object:
        """How far the closing of what is left behind has come; None when nothing is."""
        if not self.handle.card_id:
            return self.handle.extra.get("left_open")
        return NO_FRAMES if "ended" in self.handle.extra else OPEN

    async def _close_left(self) -> None:
        """The answer stands below a card that was given up: end that one too, or it waits
        for ever. What may pass is tried again with the next finish(), a few times."""
        if not self.handle.extra.get("left_open") or self._settings.template is None:
            return
        self._left_tries += 1
        try:
            await end_card(self._api, self._settings.template, self._journal)
        except BorderError as error:
            lasting = isinstance(error, AuthError | PermissionDenied | QuotaExhausted)
            if not lasting and self._left_tries < LEFT_TRIES:
                raise Transient(f"a card that was given up is open: {error.cause}") from error
            log.warning("a card that was given up stays open: %s", error)
        await self._journal.put(extra=self._journal.note(left_open=None))
