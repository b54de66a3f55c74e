"""What the bot's control socket says of itself (bot.contract.Operator.live), as values.

Another process wrote it: whatever does not have the right shape is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import orjson

TURNS, MOMENTS, PROBLEMS = 400, 100, 20
"""Most of each that are read; of turns the newest ones, which come last."""

LONGEST = 400
"""Characters of one string."""


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a turn: `at` in seconds since the epoch, `what` as in
    bot.contract.Moment."""

    at: float
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LiveTurn:
    """`platform` and `chat` are the platform's own names; `state` as in bot.contract."""

    id: str
    platform: str
    chat: str
    message: str
    state: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Live:
    """How the bot is. `problems` are sentences, Chinese / English."""

    ready: bool
    problems: tuple[str, ...]
    turns: tuple[LiveTurn, ...]


def read_live(raw: bytes) -> Live | None:
    """None when it is not the JSON object that Operator.live describes."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("ready"), bool):
        return None
    problems = [p[:LONGEST] for p in _list(found, "problems") if isinstance(p, str) and p]
    turns = [_turn(item) for item in _list(found, "turns")[-TURNS:]]
    known = tuple(turn for turn in turns if turn is not None)
    return Live(found["ready"], tuple(problems[:PROBLEMS]), known)


def _turn(item: Any) -> LiveTurn | None:
    if not isinstance(item, dict):
        return None
    name, platform, chat = _text(item, "id"), _text(item, "platform"), _text(item, "chat")
    if not (name and platform and chat):
        return None
    steps = [_step(one) for one in _list(item, "moments")[-MOMENTS:]]
    known = tuple(step for step in steps if step is not None)
    return LiveTurn(name, platform, chat, _text(item, "message_id"), _text(item, "state"), known)


def _step(item: Any) -> Step | None:
    if not isinstance(item, dict):
        return None
    at, what = item.get("at"), _text(item, "what")
    if not isinstance(at, int | float) or isinstance(at, bool) or not what:
        return None
    return Step(float(at), what, _text(item, "detail")) if math.isfinite(at) else None


def _list(holder: dict[str, Any], key: str) -> list[Any]:
    value = holder.get(key)
    return value if isinstance(value, list) else []


def _text(holder: dict[str, Any], key: str) -> str:
    value = holder.get(key)
    return value[:LONGEST] if isinstance(value, str) else ""
