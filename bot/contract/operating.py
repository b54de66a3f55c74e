"""What whoever runs the bot may ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from bot.contract.base import (
    Json,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number for whoever watches. `kind` is counter or gauge, `help` one line of
    English, `labels` (name, value) pairs."""

    name: str
    value: float
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that whoever runs the bot must know. `key` names it for as long as it lasts,
    `words` say it in Chinese and English; `bot`: whose connection is broken. It is told
    once it has lasted `after` seconds, and is over after `calm` seconds without it. `red`:
    it makes the bot not ready; the end of anything else nobody can see. `to_admins`:
    false when the admins hear of it otherwise."""

    key: str
    words: str
    bot: str = ""
    after: float = 120.0
    calm: float = 60.0
    red: bool = True
    to_admins: bool = True


class Operator(Protocol):
    """What whoever runs the bot may ask of the running process. Answers are JSON objects,
    and hold no secret. Raises StoreError."""

    async def problems(self) -> list[str]:
        """Why the bot does not hear or could not answer now, a sentence each in Chinese
        and English; empty when it could."""

    async def metrics(self) -> list[Metric]: ...

    async def status(self) -> Json:
        """{ready, problems, version, uptime (s), bots: [{name, platform, connected, cause,
        silent (s since the last event, null for never), reconnects, skipped: [{name,
        scopes, why}] (ways of replying)}], backlog: {…},
        undelivered: [{turn, bot, chat, sender, at, state, error, question, answer}],
        gaps: [{bot, chat, since, until, why}], calls: [{bot, month (YYYY-MM), kind (api or
        message), used, cap (0 for none, null when unknown), forecast, level ("", save or
        spent), refused, saving, apis: {name: count}}]}"""

    async def live(self) -> Json:
        """For the playground: {ready, problems, turns: [{id, platform, chat, message_id,
        state, moments: [{at, what, detail}]}]}, the newest turns last."""

    async def why(self, message_id: str) -> Json:
        """{accounts: [{key, seen_at, repeats, repeated_at, reason, turn: null | {id, kind,
        state, attempt, chat, sender, delivery, proof, error, replies: [{part, rung,
        card_id, message_id, sequence}], moments: [{at, what, detail}]}}]}"""

    async def resend(self, turn_id: str) -> Json:
        """Deliver an undelivered or unconfirmed answer now: {delivery, error}."""

    async def backup(self, path: str) -> Json:
        """Write a backup to `path` on this machine: {path, bytes}."""
