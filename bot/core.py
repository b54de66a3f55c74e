"""The bot: what a message, a button or a recall means, and what becomes of it.

Each event is claimed in the store before its adapter acknowledges it (law 1). What
follows (a lane, a command's reply) runs in tasks of its own.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bot.answer import Answerer
from bot.commands import Call, Desk, answer, read
from bot.contract import (
    Accepted,
    ActionReply,
    CardAction,
    Event,
    InboundMessage,
    Json,
    NewTurn,
    Part,
    Person,
    QuotePart,
    TextPart,
    Turn,
    TurnKind,
    UnreadablePart,
    words_of,
)
from bot.prompts import unreadable
from bot.settings import Chat
from bot.tasks import TaskSet
from bot.texts import language_of, say

log = logging.getLogger(__name__)

QUOTE_CHARS = 20_000
"""A quote longer than this is cut; the person did not type it."""


class Bot:
    """Implements bot.contract.Intake."""

    def __init__(self, desk: Desk, answerer: Answerer) -> None:
        self._desk = desk
        self._store = desk.store
        self._lanes = desk.lanes
        self._answerer = answerer
        self._tasks = TaskSet()

    # ------------------------------------------------------------ intake

    async def message(self, message: InboundMessage) -> None:
        key = f"{message.bot}:{message.message_id}"
        if message.ignored:
            await self._store.accept(Event(key, None, reason=message.ignored))
            return
        turn = await self._turn(message)
        accepted = await self._store.accept(Event(key, turn, depth=self._desk.chat.depth))
        self._go_on(accepted)

    async def action(self, action: CardAction) -> ActionReply:
        turn = await self._store.turn(action.turn)
        lang = turn.new.lang if turn else "zh"
        if turn is None or (turn.new.bot, turn.new.chat) != (action.bot, action.chat):
            return ActionReply(say("gone.button", lang), "warning")
        if not self._may_press(turn, action.operator):
            return ActionReply(say("denied.button", lang), "warning")
        if action.action == "stop":
            return self._stop(turn)
        if action.action == "retry":
            return await self._retry(turn)
        return ActionReply()

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        turn = await self._store.turn_of(bot, message_id)
        if turn is None or turn.new.chat != chat:
            return
        running = self._lanes.find(turn.id)
        if running is not None:
            running.end("recalled")
        if await self._store.withdraw(turn.id, "recalled"):
            self._desk.receipts.over(turn)

    # ------------------------------------------------------------ start and end

    async def recover(self) -> int:
        """Go on with what an earlier process left; returns how many turns."""
        turns = await self._store.recover()
        for turn in turns:
            if turn.new.bot not in self._desk.platforms:
                log.warning("turn %s waits for the bot %s", turn.id, turn.new.bot)
            elif turn.new.kind == "chat" and turn.state != "refused":
                self._lanes.run(turn)
            else:
                self._tasks.spawn(self._tell(turn), name=f"tell {turn.id[:8]}")
        return len(turns)

    async def drain(self, grace: float) -> None:
        """Let running answers finish for `grace` seconds; the rest is handed over."""
        await self._lanes.drain(grace)
        if not await self._tasks.settle(grace):
            await self._tasks.cancel()
        await self._desk.receipts.close()

    # ------------------------------------------------------------ what it means

    async def _turn(self, message: InboundMessage) -> NewTurn:
        meaning = self._meaning(message)
        conversation = conversation_of(message, self._desk.chat)
        turn = NewTurn(
            id=uuid.uuid4().hex,
            kind=meaning.kind,
            bot=message.bot,
            platform=message.platform,
            chat=message.chat,
            chat_kind=message.chat_kind,
            topic=message.topic,
            conversation=conversation,
            lane=lane_of(conversation, message, self._desk.chat),
            sender=message.sender,
            message_id=message.message_id,
            parts=meaning.parts,
            address=message.address,
            lang=self._language(message),
            asked_at=message.sent_at or self._desk.clock.time(),
            notice=meaning.notice,
            notice_args=meaning.blanks,
        )
        return await self._asked_again(turn) if meaning.retry else turn

    def _language(self, message: InboundMessage) -> str:
        chosen = self._desk.chat.language
        return language_of(message.text, "zh") if chosen == "auto" else chosen

    def _meaning(self, message: InboundMessage) -> _Meaning:
        text, chat = message.text, self._desk.chat
        if len(text) > chat.message_chars:
            kept = (TextPart(text[:200]),)
            blanks = {"size": len(text), "limit": chat.message_chars}
            return _Meaning("notice", kept, "notice.too_long", blanks)
        if not text:
            return _wordless(message.parts)
        command = read(text)
        if command is None:
            return _Meaning("chat", tuple(_cut_quote(part) for part in message.parts))
        if command.name == "retry" and command.known:
            return _Meaning("chat", message.parts, retry=True)
        return _Meaning("command", message.parts)

    async def _asked_again(self, turn: NewTurn) -> NewTurn:
        """/retry: the asker's last question once more, answered where /retry stands."""
        last = await self._store.last_turn(turn.conversation, turn.sender.id)
        if last is None:
            return replace(turn, kind="notice", notice="notice.nothing_to_retry")
        return replace(turn, parts=last.new.parts, lang=last.new.lang, replaces=last.id)

    # ------------------------------------------------------------ what becomes of it

    def _go_on(self, accepted: Accepted) -> None:
        turn = accepted.turn
        if not accepted.fresh or turn is None:
            return
        if accepted.full:
            turn = _told_full(turn, accepted.waiting)
        if accepted.full or turn.new.kind != "chat":
            self._tasks.spawn(self._tell(turn), name=f"tell {turn.id[:8]}")
        elif accepted.head is not None:
            self._lanes.run(accepted.head)
        else:
            self._desk.receipts.waiting(turn)

    async def _tell(self, turn: Turn) -> None:
        async def words() -> str:
            if turn.new.kind == "command" and turn.state != "refused":
                return await self._command(turn.new)
            if turn.state == "refused" and not turn.new.notice:
                return say("notice.full", turn.new.lang, waiting=self._desk.chat.depth)
            return say(turn.new.notice, turn.new.lang, **_blanks(turn.new))

        await self._answerer.tell(turn, words)

    async def _command(self, turn: NewTurn) -> str:
        command = read(words_of(turn.parts))
        assert command is not None
        conversation = await self._store.conversation(turn.conversation)
        return await answer(self._desk, Call(turn, command, conversation))

    def _may_press(self, turn: Turn, operator: Person) -> bool:
        mine = {turn.new.sender.id, *turn.new.sender.also} & {operator.id, *operator.also}
        access = self._desk.access
        return bool(mine - {""}) or access.may_steer(
            turn.new.platform, operator, turn.new.chat_kind
        )

    def _stop(self, turn: Turn) -> ActionReply:
        running = self._lanes.find(turn.id)
        if running is None:
            return ActionReply(say("done.stop.nothing", turn.new.lang))
        running.end("stopped")
        return ActionReply(say("done.stop", turn.new.lang), "success")

    async def _retry(self, turn: Turn) -> ActionReply:
        if self._lanes.find(turn.id) is not None:
            return ActionReply(say("retry.running", turn.new.lang))
        again = replace(
            turn.new, id=uuid.uuid4().hex, replaces=turn.id, asked_at=self._desk.clock.time()
        )
        event = Event(f"{turn.new.bot}:retry:{turn.id}", again, depth=self._desk.chat.depth)
        accepted = await self._store.accept(event)
        self._go_on(accepted)
        if accepted.fresh:
            return ActionReply(say("done.retry", turn.new.lang), "success")
        return ActionReply(say("retry.running", turn.new.lang))


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: TurnKind
    parts: tuple[Part, ...]
    notice: str = ""
    blanks: Json = field(default_factory=dict)
    retry: bool = False


def _wordless(parts: tuple[Part, ...]) -> _Meaning:
    """A message without words: one clear sentence for what it is (needs.md 2)."""
    kinds = [part.kind for part in parts if isinstance(part, UnreadablePart)]
    for kind in ("broken", "quota"):
        if kind in kinds:
            return _Meaning("notice", parts, f"notice.{kind}")
    if all(kind == "empty" for kind in kinds):
        return _Meaning("notice", parts, "notice.empty")
    return _Meaning("notice", parts, "notice.unreadable")


def _blanks(turn: NewTurn) -> Mapping[str, object]:
    return {**turn.notice_args, "kinds": unreadable(turn.parts, turn.lang)}


def _told_full(turn: Turn, waiting: int) -> Turn:
    new = replace(turn.new, notice="notice.full", notice_args={"waiting": waiting})
    return replace(turn, new=new)


def _cut_quote(part: Part) -> Part:
    if isinstance(part, QuotePart) and len(part.text) > QUOTE_CHARS:
        return replace(part, text=part.text[:QUOTE_CHARS] + "…")
    return part


def conversation_of(message: InboundMessage, chat: Chat) -> str:
    """Whose memory (law 2): bot, chat and topic, whole; a setting adds the person."""
    key = f"{message.bot}|{message.chat}|{message.topic}"
    alone = chat.memory == "person" and message.chat_kind == "group"
    return f"{key}|{message.sender.id}" if alone else key


def lane_of(conversation: str, message: InboundMessage, chat: Chat) -> str:
    """Whose order (law 2): in a group each person's questions, or by setting the chat's."""
    each = chat.lane == "person" and chat.memory == "chat" and message.chat_kind == "group"
    return f"{conversation}|{message.sender.id}" if each else conversation
