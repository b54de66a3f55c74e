"""The bot: what a message, a button or a recall means, and what becomes of it.

Each event is claimed in the store before its adapter acknowledges it (law 1). What
follows (a lane, a command's reply) runs in tasks of its own.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bot.answer import Answerer
from bot.catchup import CatchUp
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
    TurnState,
    UnreadablePart,
    words_of,
)
from bot.late import LateMessages, named_in, notice_of
from bot.prompts import unreadable
from bot.settings import Chat
from bot.tasks import TaskSet
from bot.texts import language_of, say
from bot.trail import Trails

log = logging.getLogger(__name__)

SPEAKERS = 10_000
"""People whose language is remembered."""

RETRIED = "done.retry"
"""The notice whose turns are asked again before it is told."""

QUOTE_CHARS = 20_000
"""A quote longer than this is cut; the person did not type it."""


class Bot:
    """Implements bot.contract.Intake."""

    def __init__(self, desk: Desk, answerer: Answerer, trails: Trails) -> None:
        self._desk = desk
        self._store = desk.store
        self._lanes = desk.lanes
        self._answerer = answerer
        self._trails = trails
        self._late = LateMessages(desk.store, desk.clock, self._tell)
        self._tasks = TaskSet()
        self._spoken: OrderedDict[tuple[str, str], str] = OrderedDict()
        self.catch_up = CatchUp(desk.store, desk.platforms, self, desk.clock)

    # ------------------------------------------------------------ intake

    async def message(self, message: InboundMessage) -> None:
        key = f"{message.bot}:{message.message_id}"
        if message.ignored:
            await self._store.accept(Event(key, None, reason=message.ignored))
            return
        turn = await self._turn(message)
        gathering = self._answerer.gathering
        late = turn.kind != "notice" and message.age > self._desk.chat.late
        if late:
            turn = replace(turn, kind="chat")
        gathers = turn.kind == "chat" and not late
        event = Event(
            key,
            turn,
            depth=self._desk.chat.depth,
            join=gathering.seconds(message, turn.lane) if gathers else 0.0,
            late=late,
        )
        accepted = await self._store.accept(event)
        if accepted.fresh:
            self.catch_up.suspect(message)
        if gathers:
            gathering.claimed(message, turn.lane, accepted)
        self._go_on(accepted, late=late)

    async def action(self, action: CardAction) -> ActionReply:
        turn = await self._store.turn(action.turn)
        lang = turn.new.lang if turn else "zh"
        if turn is None or (turn.new.bot, turn.new.chat) != (action.bot, action.chat):
            return ActionReply(say("gone.button", lang), "warning")
        if not await self._may_press(turn, action.operator):
            return ActionReply(say("denied.button", lang), "warning")
        if action.action == "stop":
            return await self._stop(turn)
        if action.action == "retry":
            return await self._retry(turn)
        return ActionReply()

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        turn = await self._store.turn_of(bot, message_id)
        if turn is None:
            # It may still be on its way: then it is recognised, and not answered.
            await self._store.accept(Event(f"{bot}:{message_id}", None, reason="recalled"))
        elif turn.new.chat == chat:
            await self._end(turn, "recalled")

    def gap(self, bot: str, since: float, until: float) -> None:
        self.catch_up.gap(bot, since, until)

    # ------------------------------------------------------------ start and end

    async def recover(self) -> int:
        """Go on with what an earlier process left; returns how many turns."""
        turns = await self._store.recover()
        for turn in turns:
            if turn.new.bot not in self._desk.platforms:
                log.warning("turn %s waits for the bot %s", turn.id, turn.new.bot)
                continue
            self._trails.begin(turn)
            if turn.new.kind == "chat" and turn.state != "refused":
                self._lanes.run(turn)
            elif turn.new.kind == "chat" and self._came_late(turn):
                self._late.add(turn)
            else:
                self._spawn_tell(turn)
        return len(turns)

    def _came_late(self, turn: Turn) -> bool:
        """Why this question was refused: the other reason is a full lane."""
        return turn.seen_at - turn.new.asked_at > self._desk.chat.late

    async def drain(self, grace: float) -> None:
        """Let running answers finish for `grace` seconds; the rest is handed over."""
        await self.catch_up.close()
        await self._late.close()
        await self._lanes.drain(grace)
        await self._desk.waiting.close()
        if not await self._tasks.settle(grace):
            await self._tasks.cancel()
        await self._desk.waiting.receipts.close()

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
            notice=meaning.notice or ("card.away" if message.away else ""),
            notice_args=meaning.blanks or {"minutes": message.away},
        )
        return await self._asked_again(turn) if meaning.retry else turn

    def _language(self, message: InboundMessage) -> str:
        """That of the words; a command has none of its own and gets the one in which the
        person last spoke here."""
        if self._desk.chat.language != "auto":
            return self._desk.chat.language
        who = (message.chat, message.sender.id)
        command = read(message.text) is not None
        spoken = language_of(message.text, "") if message.text else ""
        if not command and spoken:
            self._spoken[who] = spoken
            self._spoken.move_to_end(who)
            if len(self._spoken) > SPEAKERS:
                self._spoken.popitem(last=False)
        elif spoken == "zh":
            return "zh"
        return self._spoken.get(who, "zh")

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
        """/retry: the asker's last question once more, answered where /retry stands; when
        that came too late, all that was offered with it, each in its own place."""
        last = await self._store.last_turn(turn.conversation, turn.sender.id)
        if last is None:
            return replace(turn, kind="notice", notice="notice.nothing_to_retry")
        notice = await self._store.turn(notice_of(last))
        if notice is not None:
            offered = {"turns": named_in(notice)}
            return replace(turn, kind="notice", notice=RETRIED, notice_args=offered)
        return replace(turn, parts=last.new.parts, lang=last.new.lang, replaces=last.id)

    # ------------------------------------------------------------ what becomes of it

    def _go_on(self, accepted: Accepted, *, late: bool = False) -> None:
        turn = accepted.turn
        if turn is None:
            return
        if not accepted.fresh:
            self._trails.note(turn.id, "repeated")
            return
        self._trails.begin(turn)
        self._trails.note(turn.id, "joined" if accepted.joined else "late" if late else "claimed")
        self._tasks.spawn(self._acknowledged(turn.id), name="ack")
        if accepted.full:
            turn = _told_full(turn, accepted.waiting)
        if late:
            self._late.add(turn)
        elif accepted.full or turn.new.kind != "chat":
            self._spawn_tell(turn)
        elif accepted.head is not None:
            self._lanes.run(accepted.head)
        elif not accepted.joined:
            self._desk.waiting.enter(turn, max(1, accepted.waiting))

    async def _acknowledged(self, turn_id: str) -> None:
        """The adapter acknowledges as soon as its call returns, which is before this."""
        self._trails.note(turn_id, "acked")

    def _spawn_tell(self, turn: Turn) -> None:
        self._tasks.spawn(self._tell(turn), name=f"tell {turn.id[:8]}")

    async def _tell(self, turn: Turn) -> None:
        async def words() -> str:
            if turn.new.kind == "command" and turn.state != "refused":
                return await self._command(turn.new)
            if turn.state == "refused" and turn.new.notice != "notice.full":
                return say("notice.full", turn.new.lang, waiting=self._desk.chat.depth)
            if turn.new.notice == RETRIED:
                for turn_id in named_in(turn):
                    await self._ask_again(turn_id)
            return say(turn.new.notice, turn.new.lang, **_blanks(turn.new))

        await self._answerer.tell(turn, words)

    async def _command(self, turn: NewTurn) -> str:
        command = read(words_of(turn.parts))
        assert command is not None
        conversation = await self._store.conversation(turn.conversation)
        return await answer(self._desk, Call(turn, command, conversation))

    async def _may_press(self, turn: Turn, operator: Person) -> bool:
        """Who asked, whoever's late question the notice names, or who may steer."""
        named = [await self._store.turn(turn_id) for turn_id in named_in(turn)]
        askers = [one.new.sender for one in (turn, *named) if one is not None]
        known = {operator.id, *operator.also} - {""}
        if any(known & {asker.id, *asker.also} for asker in askers):
            return True
        return self._desk.access.may_steer(turn.new.platform, operator, turn.new.chat_kind)

    async def _stop(self, turn: Turn) -> ActionReply:
        if await self._end(turn, "stopped"):
            return ActionReply(say("done.stop", turn.new.lang), "success")
        return ActionReply(say("done.stop.nothing", turn.new.lang))

    async def _end(self, turn: Turn, state: TurnState) -> bool:
        """End the turn wherever it stands; False when it has ended already."""
        running = self._lanes.find(turn.id)
        if running is not None and running.decided:
            return False
        if running is not None:
            running.end(state)
        ended = await self._store.withdraw(turn.id, state)
        if ended and running is None:
            self._desk.waiting.stopped(await self._store.turn(turn.id) or turn)
        return ended or running is not None

    async def _retry(self, turn: Turn) -> ActionReply:
        """Ask the question again; of a notice about late messages, all that it names."""
        running = self._lanes.find(turn.id)
        if running is not None and not running.decided:
            return ActionReply(say("retry.running", turn.new.lang))
        ids = named_in(turn) or (turn.id,)
        fresh = [await self._ask_again(turn_id) for turn_id in ids]
        if any(fresh):
            return ActionReply(say("done.retry", turn.new.lang), "success")
        return ActionReply(say("retry.running", turn.new.lang))

    async def _ask_again(self, turn_id: str) -> bool:
        turn = await self._store.turn(turn_id)
        if turn is None:
            return False
        new = replace(
            turn.new,
            id=uuid.uuid4().hex,
            kind="chat" if read(words_of(turn.new.parts)) is None else "command",
            replaces=turn.id,
            asked_at=self._desk.clock.time(),
            notice="",
            notice_args={},
        )
        event = Event(f"{new.bot}:retry:{turn.id}", new, depth=self._desk.chat.depth)
        accepted = await self._store.accept(event)
        self._go_on(accepted)
        return accepted.fresh


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: TurnKind
    parts: tuple[Part, ...]
    notice: str = ""
    blanks: Json = field(default_factory=dict)
    retry: bool = False


def _wordless(parts: tuple[Part, ...]) -> _Meaning:
    """A message without words: what cannot be read may wait for words that follow, and
    the rest gets one clear sentence (needs.md 2)."""
    kinds = [part.kind for part in parts if isinstance(part, UnreadablePart)]
    for kind in ("broken", "quota"):
        if kind in kinds:
            return _Meaning("notice", parts, f"notice.{kind}")
    if all(kind == "empty" for kind in kinds):
        return _Meaning("notice", parts, "notice.empty")
    return _Meaning("chat", parts)


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
