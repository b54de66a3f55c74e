"""For an adapter whose calls nobody counts or holds back."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from bot.contract import CallKind, Charge


class Unmetered:
    """A bot.contract.Meter that forgets everything."""

    def count(self, api: str, kind: CallKind = "api") -> None: ...

    def used_up(self, kind: CallKind = "api") -> None: ...


class Unlimited:
    """A bot.contract.Budget that has room for everything."""

    def room(self, charge: Charge) -> AbstractAsyncContextManager[None]:
        return nullcontext()
