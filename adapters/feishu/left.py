"""What a step down the ladder left on the screen: a card with half a text and a Stop button,
above the answer (design.md 6; reference/feishu.md 5.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from adapters.feishu.api import FeishuApi
from adapters.feishu.card import fitting
from adapters.feishu.cardkit import CardKit
from adapters.feishu.codes import ALREADY_GONE
from adapters.feishu.place import Journal
from bot.contract import Charge, Json, Snapshot
from bot.errors import RETRYABLE, BorderError, Transient
from bot.texts import both

log = logging.getLogger(__name__)

TRIES = 4
"""How often what was left is tried to be taken away."""


class LeftBehind:
    """Of one part of a reply. In the journal `left` names the messages, which a recall takes
    back too, and `left_open` what is still to be taken away, as pairs of a message id and a
    card id: the first is empty when a card's send is of unknown fate, the second when the
    card is the message's own. `revive` makes a CardKit on the journal."""

    def __init__(self, api: FeishuApi, journal: Journal, revive: Callable[[], CardKit]) -> None:
        self._api, self._journal, self._revive = api, journal, revive
        self._tries = 0

    @property
    def _messages(self) -> list[object]:
        left = self._journal.handle.extra.get("left")
        return list(left) if isinstance(left, list) else []

    @property
    def _open(self) -> list[tuple[str, str]]:
        pairs = self._journal.handle.extra.get("left_open")
        return [(str(m), str(c)) for m, c in pairs] if isinstance(pairs, list) else []

    def charges(self) -> tuple[Charge, ...]:
        """A call each."""
        return tuple(self._api.charge("delete") for _ in self._open)

    def one_more(self) -> Json:
        """The handle's `extra` when the message and card in use are given up. What nobody
        can have seen is not left behind."""
        handle = self._journal.handle
        message, card = handle.message_id, handle.card_id
        seen = message or (card and "sending_at" in handle.extra)
        pairs = [*self._open, *([(message, card)] if seen else [])]
        return self._journal.note(
            left=[*self._messages, *filter(None, [message])] or None,
            left_open=[list(pair) for pair in pairs] or None,
            sending_at=None,
        )

    async def take_away(self, *, below: bool) -> None:
        """Once the answer stands `below`: each message is deleted; where that is refused it
        says that the answer follows. Without an answer it only comes to rest. What may pass
        is raised as Transient, a few times."""
        if not self._open:
            return
        self._tries += 1
        for message, card in self._open:
            try:
                gone = await self._one(message, card, below)
            except RETRYABLE as error:
                if self._tries < TRIES:
                    raise Transient(f"a card that was given up is open: {error.cause}") from error
                log.warning("a card that was given up stays open: %s", error)
                continue
            if gone:
                left = [known for known in self._messages if known != message]
                self._journal.forget(extra=self._journal.note(left=left or None))
        await self._journal.put(extra=self._journal.note(left_open=None))

    async def _one(self, message: str, card: str, below: bool) -> bool:
        """Whether it is gone. Raises what may pass."""
        if below and message and await self._deleted(message):
            return True
        try:
            if card:
                await self._revive().step_aside(card, _follows() if below else None)
            elif below:
                await self._api.patch(message, fitting(_follows())[1])
        except RETRYABLE:
            raise
        except BorderError as error:
            log.warning("a card that was given up stays as it is: %s", error)
        return False

    async def _deleted(self, message: str) -> bool:
        try:
            await self._api.delete(message)
        except RETRYABLE:
            raise
        except BorderError as error:
            if error.code not in ALREADY_GONE:
                log.info("a card that was given up cannot be deleted: %s", error)
                return False
        return True


def _follows() -> Snapshot:
    """What a card says whose answer stands below it. It has no buttons."""
    return Snapshot(note=both("card.continues"), state="continued")
