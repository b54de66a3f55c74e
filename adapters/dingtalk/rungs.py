"""The first rung: an AI card that grows (design.md 6; reference/dingtalk.md 6)."""

from __future__ import annotations

import logging
import uuid
from hashlib import sha256

from adapters.dingtalk.api import DingTalkApi
from adapters.dingtalk.card import (
    card_text,
    final_card_text,
    new_card,
    variables,
)
from adapters.dingtalk.codes import CARD_EXISTS, NO_STREAM, UNKNOWN
from adapters.dingtalk.place import Journal, Place
from adapters.dingtalk.settings import Template
from bot.contract import Charge, Delivery, Limits, Pace, Snapshot, Step, Window
from bot.errors import RETRYABLE, BorderError, TooBig, Uncertain

log = logging.getLogger(__name__)

CARD_BYTES = 6500
"""Bytes of answer in one card: about 3,000 Chinese characters in all gave blank cards
(reference/dingtalk.md 6.4), and thoughts, note and small print come on top."""

FRAME_BYTES = 8900
"""Bytes of one frame, everything included."""

CARD_TABLES = 20

FACTOR, MOST = 1.6, 20.0
"""How the gaps between two frames grow, in seconds: each frame is a call of the month's
(reference/dingtalk.md 5.7)."""

CARD_WINDOWS = (Window(1, 0.5),)
"""Frames of one card (reference/dingtalk.md 6.4)."""

REWRITTEN = "rewritten"
"""Stands for the digest of a last frame whose words an update has replaced since."""


class CardRung:
    """An AI card (reference/dingtalk.md 6). Its outTrackId is the handle's key, so creating
    it again is recognised; each frame's guid follows from what the frame says, so that a
    repeated frame is recognised too. `failable`: the template has the failure state.
    `saving`: nothing is shown between the first call and the last, which is one. What a
    card was created for stays with it, whoever ends it.

    A card that had its last frame takes no other (6.4), so the journal says `ended`, with a
    digest of that frame's words, before a part is ended whose reply goes on: whoever writes
    the answer anew changes such a part by an update. `taken` says that the platform
    confirmed that frame, and only the variables may lag behind."""

    name = "card"

    def __init__(
        self,
        api: DingTalkApi,
        place: Place,
        journal: Journal,
        template: Template,
        pace: float,
        attempt: int,
        failable: bool,
        saving: bool,
    ) -> None:
        self._api, self._place, self._journal, self._saving = api, place, journal, saving
        handle = journal.handle
        self._still = "still" in handle.extra if handle.card_id else saving
        self._template = template.still if self._still else template
        self._attempt, self.failable = attempt, failable
        self.limits = Limits(
            Pace(pace, FACTOR, MOST, MOST),
            CARD_BYTES,
            CARD_TABLES,
            streams=not saving,
            whole_markdown=True,
        )
        self._shown = ""
        self._params: dict[str, str] = {}
        self._flowing = False
        self._ended = ""
        self._given = str(handle.extra.get("ended", ""))
        self._taken = False

    @property
    def _track(self) -> str:
        return self._journal.handle.key

    @property
    def _opened(self) -> bool:
        return bool(self._journal.handle.extra.get("opened"))

    # ------------------------------------------------------------ charges

    def charges(self, step: Step) -> tuple[Charge, ...]:
        """The create, the frame or the closing; a card that is not open yet, or whose
        flowStatus must move, costs one call more."""
        create = () if self._opened else (self._api.charge("create"),)
        if step == "open":
            return create
        update = self._api.charge("update")
        if step == "finish" and self._ends_at_once:
            return (*create, update)
        frame = (
            Charge(f"dingtalk/card/{self._track}", CARD_WINDOWS),
            self._api.charge("stream"),
        )
        flow = (update,) if self._template.flow and not self._flowing else ()
        if step == "show":
            return () if self._over else (*flow, *frame)
        closing = (update,) if self._template.flow or self._template.state_key else ()
        if self._ended:
            return closing
        return (*create, *flow, *(closing or (update,) * bool(self._given)), *frame)

    # ------------------------------------------------------------ steps

    async def open(self, snapshot: Snapshot) -> None:
        """Create and deliver. A create of unknown fate is repeated: `cardAlreadyExist`
        counts as opened (design.md 5). The card of such a one stays on record, whatever
        the repetition meets."""
        if self._opened:
            return
        doubtful = bool(self._journal.handle.card_id)
        extra = self._journal.note(still=self._still or None)
        await self._journal.intend(rung=self.name, card_id=self._track, extra=extra)
        carrier, params = "", variables(snapshot, self._template)
        try:
            carrier = await self._api.create_card(
                new_card(
                    snapshot, self._template, self._track, self._place.space, self._place.robot
                )
            )
        except BorderError as error:
            if error.code != CARD_EXISTS:
                if not doubtful and not isinstance(error, Uncertain):
                    self._journal.forget(card_id="")
                raise
            log.info("card %s stands already", self._track)
            params = {}  # it shows what an earlier create said
        self._params = params
        extra = self._journal.note(opened=True)
        await self._journal.put(message_id=carrier, extra=extra)

    async def show(self, snapshot: Snapshot) -> None:
        """One frame, or one update when only other variables changed. A card that has had
        its last frame keeps what it says until the end."""
        if self._over:
            return
        text = card_text(snapshot, self._template)
        if text and text != self._shown:
            await self._flow()
            await self._frame(text, final=False, failed=False)
            self._shown = text
            return
        await self._update(variables(snapshot, self._template))

    async def finish(self, snapshot: Snapshot) -> Delivery:
        """The last frame, then state, buttons and small print. Repeating it after an error
        goes on where it stopped."""
        text = final_card_text(snapshot, self._template)
        if len(text.encode()) > FRAME_BYTES:
            raise TooBig("the card's text is too long")
        await self.open(snapshot)
        if self._ends_at_once:
            return await self._end_at_once(snapshot, text)
        if self._given not in ("", _digest(text)):
            return await self._rewrite(snapshot, text)
        if self._ended != text:
            await self._end(snapshot, text)
        await self._close(self._closing(snapshot, text))
        return self._proof

    @property
    def _proof(self) -> Delivery:
        handle = self._journal.handle
        return Delivery("delivered", handle.message_id or handle.card_id)

    @property
    def _ends_at_once(self) -> bool:
        """From spinner to end in one call, flowStatus 3 with the whole text, because no
        frame came before (reference/dingtalk.md 6.5). A card whose template has no
        flowStatus is ended by a last frame, which is one call as well."""
        unseen = self._saving and self._still and not self._flowing
        return unseen and self._template.flow

    async def _end_at_once(self, snapshot: Snapshot, text: str) -> Delivery:
        await self._update(self._whole(snapshot, text))
        return self._proof

    def _whole(self, snapshot: Snapshot, text: str) -> dict[str, str]:
        """The variables that end a card without a frame."""
        status = "5" if snapshot.state == "failed" else "3"
        return {"flowStatus": status, self._template.content_key: text}

    # ------------------------------------------------------------ the last frame

    @property
    def _over(self) -> bool:
        """The card may have had its last frame, in this run or an earlier one."""
        return "ended" in self._journal.handle.extra

    async def _end(self, snapshot: Snapshot, text: str) -> None:
        """The last frame. One of unknown fate, or of an earlier run, is repeated under its
        guid; one that is refused ends nothing."""
        if self._journal.handle.extra.get("taken"):
            self._taken, self._ended = True, text
            return
        before, self._given = self._given, _digest(text)
        if snapshot.state == "continued" and not self._over:
            await self._journal.put(extra=self._journal.note(ended=self._given))
        try:
            self._taken = await self._last_frame(text, failed=snapshot.state == "failed")
        except Uncertain:
            raise
        except BorderError:
            self._given = before
            self._journal.forget(extra=self._journal.note(ended=before or None))
            raise
        self._ended = text

    async def _rewrite(self, snapshot: Snapshot, text: str) -> Delivery:
        """Other words in a card that has had its last frame."""
        if self._given != REWRITTEN:
            self._given, self._ended, self._taken = REWRITTEN, "", False
            await self._journal.put(extra=self._journal.note(ended=REWRITTEN, taken=None))
        await self._update(variables(snapshot, self._template) | self._whole(snapshot, text))
        return self._proof

    # ------------------------------------------------------------ calls

    async def _frame(self, text: str, *, final: bool, failed: bool) -> None:
        if len(text.encode()) > FRAME_BYTES:
            raise TooBig("the card's text is too long")
        run = "last" if final or failed else self._attempt
        guid = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._track}|{run}|{failed}|{text}").hex
        await self._api.stream_card(
            self._track,
            self._template.content_key,
            text,
            guid,
            final=final,
            failed=failed,
        )

    async def _last_frame(self, text: str, *, failed: bool) -> bool:
        """False when the card takes no more frames: finished by an earlier run, or gone,
        which the update after it tells (reference/dingtalk.md 6.4)."""
        await self._flow()
        failed = failed and self.failable
        try:
            await self._frame(text, final=not failed, failed=failed)
        except BorderError as error:
            if error.code == UNKNOWN and failed:
                log.info("the template has no failure state: %s", error)
                self.failable = False
                return await self._last_frame(text, failed=False)
            if error.code != NO_STREAM:
                raise
            return False
        return True

    async def _flow(self) -> None:
        """flowStatus 2, which some templates want before the first frame (6.5)."""
        if self._template.flow and not self._flowing:
            await self._api.update_card(self._track, {"flowStatus": "2"})
            self._flowing = True

    async def _update(self, params: dict[str, str]) -> None:
        if params != self._params:
            await self._api.update_card(self._track, params)
            self._params = params

    def _closing(self, snapshot: Snapshot, text: str) -> dict[str, str]:
        params = variables(snapshot, self._template)
        if self._template.flow or not self._taken:
            params |= self._whole(snapshot, text)
        return params

    async def _close(self, params: dict[str, str]) -> None:
        """Once the last frame was taken the text stands: a refusal for good costs the
        buttons, not the delivery, in whichever run it comes."""
        try:
            await self._update(params)
        except RETRYABLE:
            if self._taken and not self._journal.handle.extra.get("taken"):
                extra = self._journal.note(ended=self._given, taken=True)
                await self._journal.put(extra=extra)
            raise
        except BorderError as error:
            if not self._taken:
                raise
            log.warning("the card's state stays behind: %s", error)


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
