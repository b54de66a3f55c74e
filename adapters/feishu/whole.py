"""The lower rungs: a card replaced as a whole, and a message that never changes
(reference/feishu.md 5.3, 5.4)."""

from __future__ import annotations

from adapters.feishu.api import FeishuApi
from adapters.feishu.card import TEXT_BYTES, fitting, post, text
from adapters.feishu.place import Journal, Place
from bot.contract import Charge, Delivery, Limits, Pace, Snapshot, Step, Window
from bot.errors import Bug

PATCH_PACE = 1.5
"""Least seconds between two replacements of a card (reference/feishu.md 6.10)."""

PATCH_FACTOR, PATCH_MOST, PATCH_LAST = 1.3, 4.0, 10.0
"""How the gaps between two replacements grow. Nothing is typed here, so a text stands still
for as long."""

PATCH_BYTES = POST_BYTES = TEXT_BYTES
"""Most bytes of an answer in one message: as many as in a card, so that a text is cut at the
same places on every rung (a post that was sent cannot change any more)."""

MESSAGE_WINDOWS = (Window(5, 1.0),)
"""Changes of one message (reference/feishu.md 5.8)."""


class PatchCard:
    """An interactive message whose card is replaced by PATCH. Last writer wins."""

    name = "patch"

    def __init__(self, api: FeishuApi, place: Place, journal: Journal, pace: float) -> None:
        self._api, self._place, self._journal = api, place, journal
        self._pace = Pace(max(pace, PATCH_PACE), PATCH_FACTOR, PATCH_MOST, PATCH_LAST)
        self.plainly = False

    @property
    def limits(self) -> Limits:
        return Limits(self._pace, PATCH_BYTES, whole_markdown=True)

    @property
    def _message(self) -> str:
        return self._journal.handle.message_id

    @property
    def _bucket(self) -> str:
        return f"feishu/message/{self._message}"

    def charges(self, step: Step) -> tuple[Charge, ...]:
        if self._message:
            one = self._api.charge("patch"), Charge(self._bucket, MESSAGE_WINDOWS)
            return () if step == "open" else one
        return () if self._place.stale or step == "show" else self._place.charges()

    async def open(self, snapshot: Snapshot) -> None:
        if not self._message and not self._place.stale:
            await self._send(snapshot)

    async def _send(self, snapshot: Snapshot) -> None:
        _, card = fitting(snapshot, plainly=self.plainly)
        await self._place.post(
            "-p", "interactive", card, anywhere=snapshot.state != "recalled", rung=self.name
        )

    async def show(self, snapshot: Snapshot) -> None:
        if self._message:
            await self._replace(snapshot)

    async def _replace(self, snapshot: Snapshot) -> None:
        _, card = fitting(snapshot, plainly=self.plainly)
        await self._api.patch(self._message, card, self._bucket)

    async def finish(self, snapshot: Snapshot) -> Delivery:
        """One message when nothing was sent; a send of unknown fate is repeated under its
        key and then replaced, because the key may bring back an older text."""
        if self._message:
            await self._replace(snapshot)
        elif self._place.stale:
            return Delivery("unconfirmed")
        else:
            doubtful = self._place.doubtful
            await self._send(snapshot)
            if doubtful:
                await self._replace(snapshot)
        return Delivery("delivered", self._message)


class OneMessage:
    """A post, or a text when the post is refused; only finish() shows anything."""

    name = "text"

    def __init__(self, place: Place, journal: Journal) -> None:
        self._place, self._journal = place, journal
        self.plainly = False

    @property
    def limits(self) -> Limits:
        return Limits(Pace(1.0), POST_BYTES, tables=99, streams=False, whole_markdown=True)

    def charges(self, step: Step) -> tuple[Charge, ...]:
        sent = self._journal.handle.message_id or self._place.stale
        return self._place.charges() if step == "finish" and not sent else ()

    async def open(self, snapshot: Snapshot) -> None:
        """Nothing: this rung shows only finished messages."""

    async def show(self, snapshot: Snapshot) -> None:
        """Nothing: this rung shows only finished messages."""

    async def finish(self, snapshot: Snapshot) -> Delivery:
        handle = self._journal.handle
        if not handle.message_id and self._place.stale:
            return Delivery("unconfirmed")
        if not handle.message_id:
            await self._send(snapshot)
        return Delivery("delivered", self._journal.handle.message_id)

    async def _send(self, snapshot: Snapshot) -> None:
        anywhere = snapshot.state != "recalled"
        try:
            await self._place.post("-t", "post", post(snapshot), anywhere=anywhere, rung=self.name)
        except Bug:
            await self._place.post("-t", "text", text(snapshot), anywhere=anywhere)
