"""What commands work with, and the table that finds the one who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bot.access import Access, entry_of
from bot.commands.read import Command
from bot.contract import ChatPlatform, Clock, Conversation, NewTurn, Operator, TurnStore
from bot.lanes import Lanes
from bot.personas import Personas
from bot.settings import Chat, ModelService
from bot.texts import say
from bot.waiting import WaitingRoom


@dataclass(frozen=True)
class Desk:
    """Everything a command may touch."""

    store: TurnStore
    lanes: Lanes
    platforms: Mapping[str, ChatPlatform]
    access: Access
    personas: Personas
    waiting: WaitingRoom
    office: Operator
    chat: Chat
    model: ModelService
    clock: Clock
    started_at: float
    version: str


@dataclass(frozen=True)
class Call:
    """One command as it was asked. `conversation` is that of the asker, `no` the place of
    the command in the order of arrival."""

    turn: NewTurn
    command: Command
    conversation: Conversation
    no: int

    def say(self, key: str, **blanks: object) -> str:
        return say(key, self.turn.lang, **blanks)

    def choice(self, name: str, otherwise: str) -> str:
        """What this chat has chosen, or the default."""
        return str(self.conversation.choices.get(name) or otherwise)


Handler = Callable[[Desk, Call], Awaitable[str]]
"""Does what the command says and returns the reply. Doing it twice must do no harm: a
crash between deed and reply repeats it."""


def may_steer(desk: Desk, call: Call) -> bool:
    """Whether the asker may change what concerns everybody in this chat. Where each
    person has a memory of their own, nobody else is concerned."""
    if desk.chat.memory == "person":
        return True
    turn = call.turn
    return desk.access.may_steer(turn.platform, turn.sender, turn.chat_kind)


def denied(desk: Desk, call: Call) -> str:
    """Why not, and what would help."""
    if desk.access.anybody:
        return call.say("denied.group")
    return call.say("denied.nobody", who=entry_of(call.turn.platform, call.turn.sender))
