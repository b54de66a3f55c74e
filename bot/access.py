"""Who may do what. Decided from verified ids alone, never from names or card values."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

from bot.contract import ChatKind, Person, Platform

Role = Literal["admin", "owner", "member"]


class Access:
    """`admins` are entries such as `feishu:ou_…` or `dingtalk:staffId`, compared whole."""

    def __init__(self, admins: Set[str]) -> None:
        self._admins = frozenset(admins)

    @property
    def anybody(self) -> bool:
        """Whether any admin is set at all."""
        return bool(self._admins)

    def role(self, platform: Platform, person: Person, chat_kind: ChatKind) -> Role:
        """An admin is one everywhere; in a private chat its person is the owner."""
        ids = (person.id, *person.also)
        if any(f"{platform}:{known}" in self._admins for known in ids if known):
            return "admin"
        return "owner" if chat_kind == "p2p" else "member"

    def may_steer(self, platform: Platform, person: Person, chat_kind: ChatKind) -> bool:
        """May change what concerns the whole chat: its memory, model, persona."""
        return self.role(platform, person, chat_kind) != "member"


def entry_of(platform: Platform, person: Person) -> str:
    """How this person is written in QUEQIAO_ADMINS."""
    return f"{platform}:{person.id}"
