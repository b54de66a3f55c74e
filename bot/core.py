"""The bot: what a message, a button or a recall means, and what becomes of it.

Each event is claimed in the store before its adapter acknowledges it (law 1). What
follows (a lane, a command's reply) runs in tasks of its own.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace

from bot.answer import Answerer
from bot.catchup import CatchUp
from bot.commands import Call, Desk, answer, read
from bot.contract import (
    Accepted,
    ActionReply,
    CardAction,
    Event,
    InboundMessage,
    NewTurn,
    Person,
    Turn,
    TurnState,
    words_of,
)
from bot.endings import AWAY
from bot.late import LateMessages, named_in, notice_of
from bot.meaning import Languages, conversation_of, lane_of, meaning_of
from bot.prompts import unreadable
from bot.tasks import TaskSet
from bot.texts import say
from bot.trail import Trails

log = logging.getLogger(__name__)

RETRIED = "done.retry"
"""The notice whose turns are asked again before it is told."""


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
        self._languages = Languages(desk.chat)
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
            blanks = {**turn.notice_args, "late": True}
            turn = replace(turn, kind="chat", notice="", notice_args=blanks)
        gathers = turn.kind == "chat" and not late
        join = gathering.seconds(message, turn.lane) if gathers else 0.0
        event = Event(
            key,
            turn,
            depth=self._desk.chat.depth,
            join=join,
            late=late,
            start=self._desk.chat.history_turns if gathers and not join else -1,
        )
        try:
            accepted = await self._store.accept(event, self._answerer.foresee)
        except BaseException:  # also when cancelled: nobody would answer what was foreseen
            gathering.unclaimed(turn.lane)
            self._answerer.forget(turn.id)
            raise
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
        elif chat in ("", turn.new.chat) and not await self._end(turn, "recalled"):
            await self._store.accept(Event(_recall_of(turn), None, reason="recalled"))

    async def _was_recalled(self, turn: Turn) -> bool:
        """Whether the question was taken back, perhaps after it had been answered."""
        known = await self._store.accounts(_recall_of(turn), (turn.new.bot,))
        return turn.state == "recalled" or bool(known)

    def gap(self, bot: str, since: float, until: float) -> None:
        self.catch_up.gap(bot, since, until)

    async def announce(self, event: Event) -> None:
        """Claim a notice of our own and tell it. Raises StoreError."""
        self._go_on(await self._store.accept(event))

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
                await self._seat(turn)
                self._lanes.run(turn)
            elif turn.new.kind == "chat" and turn.new.notice_args.get("late"):
                self._late.add(turn)
            else:
                self._spawn_tell(turn)
        return len(turns)

    async def _seat(self, head: Turn) -> None:
        """Those behind the head of a lane wait, and are told their position; the head,
        which may have waited before, does not any more."""
        self._desk.waiting.receipts.left(head)
        for ahead, turn in enumerate(await self._store.behind(head), 1):
            self._desk.waiting.enter(turn, ahead)

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
        meaning = meaning_of(message, self._desk.chat)
        conversation = conversation_of(message, self._desk.chat)
        away = AWAY if message.away and meaning.kind == "chat" else ""
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
            lang=self._languages.of(message),
            asked_at=message.sent_at or self._desk.clock.time(),
            notice=meaning.notice or away,
            notice_args=meaning.blanks or {"minutes": message.away},
        )
        return await self._asked_again(turn) if meaning.retry else turn

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
        self._note_acknowledged(turn.id)
        if accepted.full:
            turn = _told_full(turn, accepted.waiting)
        if late:
            self._late.add(turn)
        elif accepted.full or turn.new.kind != "chat":
            self._spawn_tell(turn)
        elif accepted.head is not None:
            self._lanes.run(accepted.head, accepted.started)
        elif not accepted.joined:
            self._desk.waiting.enter(turn, max(1, accepted.waiting))

    def _note_acknowledged(self, turn_id: str) -> None:
        """The adapter acknowledges as soon as its call returns, which is about then."""
        asyncio.get_running_loop().call_soon(self._trails.note, turn_id, "acked")

    def _spawn_tell(self, turn: Turn) -> None:
        self._tasks.spawn(self._tell(turn), name=f"tell {turn.id[:8]}")

    async def _tell(self, turn: Turn) -> None:
        async def words() -> str:
            if turn.new.kind == "command" and turn.state != "refused":
                return await self._command(turn)
            if turn.state == "refused" and turn.new.notice != "notice.full":
                return say("notice.full", turn.new.lang, waiting=self._desk.chat.depth)
            if turn.new.notice == RETRIED:
                asked = [await self._ask_again(turn_id) for turn_id in named_in(turn)]
                return _asked(asked, turn.new.lang)
            return say(turn.new.notice, turn.new.lang, **_blanks(turn.new))

        await self._answerer.tell(turn, words)

    async def _command(self, turn: Turn) -> str:
        command = read(words_of(turn.new.parts))
        assert command is not None
        conversation = await self._store.conversation(turn.new.conversation)
        return await answer(self._desk, Call(turn.new, command, conversation, turn.no))

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
        told = turn.state == "refused" and not turn.new.notice_args.get("late")
        if told or (running is not None and running.decided):
            return False
        if running is not None:
            running.end(state)
        shown = turn.id in self._desk.waiting.shown(turn.new.lane)
        ended = await self._store.withdraw(turn.id, state, shown=shown)
        if ended and running is None:
            self._desk.waiting.stopped(await self._store.turn(turn.id) or turn)
        return ended or running is not None

    async def _retry(self, turn: Turn) -> ActionReply:
        """Ask the question again; of a notice about late messages, all that it names."""
        running = self._lanes.find(turn.id)
        if running is not None and not running.decided:
            return ActionReply(say("retry.running", turn.new.lang))
        asked = [await self._ask_again(turn_id) for turn_id in named_in(turn) or (turn.id,)]
        fresh = any(one.fresh for one in asked)
        return ActionReply(_asked(asked, turn.new.lang), "success" if fresh else "info")

    async def _ask_again(self, turn_id: str) -> Accepted:
        turn = await self._store.turn(turn_id)
        if turn is None or await self._was_recalled(turn):
            return Accepted(fresh=False)
        new = replace(
            turn.new,
            id=uuid.uuid4().hex,
            kind="chat" if read(words_of(turn.new.parts)) is None else "command",
            replaces=turn.id,
            asked_at=self._desk.clock.time(),
            notice="",
            notice_args={},
        )
        depth = self._desk.chat.depth
        event = Event(f"{new.bot}:retry:{turn.id}", new, depth=depth, again=True)
        accepted = await self._store.accept(event)
        self._go_on(accepted)
        return accepted


def _recall_of(turn: Turn) -> str:
    """The event key of a recall that came when the turn had ended."""
    return f"{turn.new.bot}:{turn.new.message_id}:recalled"


def _asked(asked: list[Accepted], lang: str) -> str:
    """What became of questions that were asked again."""
    if any(one.full for one in asked):
        some = any(one.fresh for one in asked)
        return say("retry.some" if some else "retry.full", lang)
    if any(one.fresh for one in asked):
        return say("done.retry", lang)
    if all(one.turn is None for one in asked):
        return say("retry.recalled", lang)
    ended = all(one.turn is None or one.turn.ended for one in asked)
    return say("retry.done" if ended else "retry.running", lang)


def _blanks(turn: NewTurn) -> Mapping[str, object]:
    return {**turn.notice_args, "kinds": unreadable(turn.parts, turn.lang)}


def _told_full(turn: Turn, waiting: int) -> Turn:
    new = replace(turn.new, notice="notice.full", notice_args={"waiting": waiting})
    return replace(turn, new=new)
