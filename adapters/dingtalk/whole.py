"""The lower rungs: messages that are finished when they are sent (design.md 6;
reference/dingtalk.md 5)."""

from __future__ import annotations

import logging

from adapters.dingtalk.card import message_text, title
from adapters.dingtalk.place import Journal, Place
from adapters.dingtalk.rungs import CARD_BYTES
from bot.contract import Charge, Delivery, Limits, Pace, Snapshot, Step
from bot.errors import BorderError, Uncertain

log = logging.getLogger(__name__)

MESSAGE_BYTES = CARD_BYTES
"""Bytes of one message: long ones render badly (reference/dingtalk.md 5.2). As many as of a
card, so that a text is cut at the same places on every rung: a part that was sent cannot
change any more, and the next one goes on where it ended, after a restart too."""


class MessageRung:
    """A finished Markdown message without an idempotency key: sent again only when it
    certainly never left (law 6). By session webhook, or by OpenAPI."""

    def __init__(self, name: str, place: Place, journal: Journal) -> None:
        self.name, self._place, self._journal = name, place, journal
        self.limits = Limits(Pace(1.0), MESSAGE_BYTES, tables=0, streams=False, whole_markdown=True)

    def charges(self, step: Step) -> tuple[Charge, ...]:
        if step != "finish" or self._over is not None:
            return ()
        by_hook = self.name == "webhook"
        return (self._place.webhook_charge() if by_hook else self._place.message_charge(),)

    async def open(self, snapshot: Snapshot) -> None:
        """Nothing is shown before the end."""

    async def show(self, snapshot: Snapshot) -> None:
        """Nothing is shown before the end."""

    @property
    def _over(self) -> Delivery | None:
        """What an earlier send proved, or left open."""
        extra = self._journal.handle.extra
        if "sent" in extra:
            return Delivery("delivered", str(extra["sent"]))
        return Delivery("unconfirmed") if "sending" in extra else None

    @property
    def sent(self) -> bool:
        """It left, or may have."""
        return self._over is not None

    async def finish(self, snapshot: Snapshot) -> Delivery:
        if self._over is not None:
            return self._over
        await self._journal.intend(rung=self.name, extra=self._journal.note(sending=True))
        try:
            proof = await self._post(title(snapshot), message_text(snapshot))
        except Uncertain as error:
            log.warning("a message may or may not have arrived: %s", error)
            return Delivery("unconfirmed")
        except BorderError:
            await self._journal.put(extra=self._journal.note(sending=None))
            raise
        await self._journal.put(extra=self._journal.note(sending=None, sent=proof))
        return Delivery("delivered", proof)

    async def _post(self, title: str, text: str) -> str:
        if self.name == "webhook":
            return await self._place.post_webhook(title, text)
        return await self._place.post_message(title, text)
