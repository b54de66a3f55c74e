"""A card that was given up while people see it (reference/dingtalk.md 6.4, 6.5)."""

from __future__ import annotations

import logging
import uuid

from adapters.dingtalk.api import DingTalkApi
from adapters.dingtalk.card import variables
from adapters.dingtalk.place import Journal
from adapters.dingtalk.settings import Template
from bot.contract import Snapshot
from bot.errors import BorderError, RateLimited, Transient, Uncertain
from bot.texts import both

log = logging.getLogger(__name__)

OPEN, TAKEN, NO_FRAMES = True, "taken", "no frames"
"""How far `left_open` in the journal says its closing got: not begun; the last frame was
taken, and variables may lag behind; it takes no frames, and only an update can end it."""


async def end_card(api: DingTalkApi, template: Template, journal: Journal) -> None:
    """Close the card that the journal calls `left_open`: it says that the answer follows.
    Where it takes no frames, an update ends it. Repeating this after an error sends no
    frame to a card that may be finished. Raises BorderError."""
    track, words = journal.handle.key, both("card.continues")
    params = variables(Snapshot(state="continued"), template)
    if journal.handle.extra.get("left_open") is OPEN:
        taken = await _last_frame(api, template, track, words)
        if params or not taken:
            extra = journal.note(left_open=TAKEN if taken else NO_FRAMES)
            await journal.put(extra=extra)
    if journal.handle.extra.get("left_open") == NO_FRAMES:
        params |= {template.content_key: words, "flowStatus": "3"}
    if params:
        await api.update_card(track, params)


async def _last_frame(api: DingTalkApi, template: Template, track: str, words: str) -> bool:
    """False when the card takes no frames."""
    guid = uuid.uuid5(uuid.NAMESPACE_OID, f"{track}|left").hex
    try:
        await api.stream_card(track, template.content_key, words, guid, final=True, failed=False)
    except (RateLimited, Transient, Uncertain):
        raise
    except BorderError as error:
        log.info("a card that was given up takes no frame: %s", error)
        return False
    return True
