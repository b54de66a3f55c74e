"""Which ways of replying an app may not use now: told once per incident in the log, and kept
for whoever asks (design.md 6)."""

from __future__ import annotations

import logging

from bot.contract import SkippedRung
from bot.errors import BorderError, PermissionDenied

log = logging.getLogger(__name__)

QUIET = 3_600.0
"""Seconds after the end of a skip within which the same refusal is the same incident: a
rung is tried again when somebody asks, not by itself."""


class Skipping:
    """The refused rungs of one bot. Times are seconds of clock.monotonic()."""

    def __init__(self, bot: str = "") -> None:
        self._bot = bot
        self._refused: dict[str, tuple[float, SkippedRung]] = {}

    def add(self, rung: str, error: BorderError, now: float, until: float) -> None:
        """`rung` was refused for everybody and is skipped until then."""
        scopes = error.scopes if isinstance(error, PermissionDenied) else ()
        since, known = self._refused.get(rung, (float("-inf"), None))
        skipped = SkippedRung(rung, scopes, str(error))
        self._refused[rung] = until, skipped
        if known is None or known.scopes != scopes or now > since + QUIET:
            missing = " ".join(scopes) or "-"
            log.warning(
                "%s: %s is skipped; missing rights: %s (%s)", self._bot, rung, missing, error
            )

    def at(self, now: float) -> tuple[SkippedRung, ...]:
        """Those that are skipped at this moment."""
        return tuple(skipped for until, skipped in self._refused.values() if until > now)
