"""For an adapter whose calls nobody counts."""

from __future__ import annotations

from bot.contract import CallKind


class Unmetered:
    """A bot.contract.Meter that forgets everything."""

    def count(self, api: str, kind: CallKind = "api") -> None: ...

    def used_up(self, kind: CallKind = "api") -> None: ...
