"""A question as the core claims it, for tests of the store and of the core."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adapters.playground.clock import START
from bot.contract import NewTurn, Person, TextPart


def asked(id_: str, lane: str = "lane", **changes: Any) -> NewTurn:
    """Said in private; its conversation is its lane unless `changes` say otherwise."""
    plain = NewTurn(
        id=id_,
        kind="chat",
        bot="b",
        platform="feishu",
        chat="c",
        chat_kind="p2p",
        topic="",
        conversation=lane,
        lane=lane,
        sender=Person("ou_1"),
        message_id=f"om_{id_}",
        parts=(TextPart(id_),),
        address={},
        lang="zh",
        asked_at=START,
    )
    return replace(plain, **changes)
