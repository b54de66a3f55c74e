"""Answers one turn: the model's stream into the growing reply, then one closing step.

Every way out (done, failed, stopped, recalled, shut down) passes `_close`, which runs
to its end even when cancelled (law 5).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from bot import ledger
from bot.contract import (
    Button,
    ChatModel,
    ChatPlatform,
    Clock,
    Delta,
    Ending,
    FinishDelta,
    Handle,
    ModelRequest,
    ReasoningDelta,
    ReplySink,
    Snapshot,
    SnapshotState,
    Started,
    TextDelta,
    Turn,
    TurnState,
    TurnStore,
    UnreadablePart,
    Usage,
    UsageDelta,
)
from bot.errors import QueqiaoError, StoreError
from bot.lanes import Running
from bot.markdown import clean
from bot.pace import Pacer
from bot.personas import Personas
from bot.prompts import compose, unreadable
from bot.receipts import Receipts
from bot.reply import Reply
from bot.settings import Chat, ModelService
from bot.tasks import to_the_end
from bot.texts import say

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_RUNS = 2
"""A turn whose run died this often is closed as failed (design.md 5)."""

CHECKPOINT_SECONDS = 2.0


class _Run:
    """One run of one turn: what the model has said so far, and how it ended."""

    def __init__(self, started: Started, reply: Reply, clock: Clock) -> None:
        self.started = started
        self.turn = started.turn
        self.reply = reply
        self.began_at = clock.monotonic()
        self.kept_at = self.began_at
        self.usage = Usage()
        self.model = ""
        self.finish = ""
        self.error: BaseException | None = None
        self.cancelled = False
        self.keeping: asyncio.Task[None] | None = None

    def take(self, delta: Delta) -> None:
        if isinstance(delta, TextDelta):
            self.reply.add(delta.text)
        elif isinstance(delta, ReasoningDelta):
            self.reply.add_reasoning(delta.text)
        elif isinstance(delta, UsageDelta):
            self.usage, self.model = delta.usage, delta.model or self.model
        elif isinstance(delta, FinishDelta):
            self.finish = delta.reason

    async def settle(self, work: asyncio.Task[None] | None) -> None:
        """End the work, if it has not ended by itself, and keep how it ended."""
        if work is None:
            return
        work.cancel()
        await asyncio.wait({work})
        self.cancelled = work.cancelled()
        self.error = None if self.cancelled else work.exception()
        if self.keeping is not None:
            await asyncio.wait({self.keeping})


@dataclass(frozen=True)
class Answerer:
    """Everything that answering needs."""

    store: TurnStore
    platforms: Mapping[str, ChatPlatform]
    model: ChatModel
    pacer: Pacer
    personas: Personas
    receipts: Receipts
    chat: Chat
    service: ModelService
    clock: Clock

    # ------------------------------------------------------------ a turn in its lane

    async def answer(self, running: Running) -> Turn | None:
        """Answer the turn; returns the lane's next, or None when the lane is free or
        left to the next process. An unforeseen error ends this turn, never its lane."""
        self.receipts.over(running.turn)
        try:
            return await self._answer(running)
        except Exception as error:
            log.exception("turn %s broke", running.turn.id)
            broken = Ending("failed", error=type(error).__name__, delivery="undelivered")
            return await self._commit(running, broken)

    async def _answer(self, running: Running) -> Turn | None:
        started = await self._begin(running)
        if started is None:
            if running.leaving:
                return None
            return await self._commit(running, Ending(running.ended or "stopped"))
        run = self._run(started)
        running.hurry = run.reply.hurry
        try:
            if started.turn.ending is None and started.turn.attempt <= MOST_RUNS:
                await self._work(running, run)
        finally:
            following = await to_the_end(self._close(running, run))
        return following

    async def _begin(self, running: Running) -> Started | None:
        turn = running.turn
        if turn.ending is not None:
            conversation = await self._insist(
                running, lambda: self.store.conversation(turn.new.conversation)
            )
            return None if conversation is None else Started(turn, conversation, ())
        return await self._insist(
            running, lambda: self.store.start(turn.id, self.chat.history_turns)
        )

    def _run(self, started: Started) -> _Run:
        turn = started.turn
        stop = Button("stop", say("button.stop", turn.new.lang), turn.id)
        growing = Snapshot(status=say("card.thinking", turn.new.lang), buttons=(stop,))
        reply = self._reply(turn, growing, folded=self._reasoning(started) == "folded")
        return _Run(started, reply, self.clock)

    def _reply(self, turn: Turn, growing: Snapshot, *, folded: bool = False) -> Reply:
        platform = self.platforms[turn.new.bot]

        def make_sink(part: int) -> ReplySink:
            async def save(handle: Handle) -> None:
                await self.store.save_handle(turn.id, part, handle)

            known = part < len(turn.handles)
            handle = turn.handles[part] if known else Handle(key=f"{turn.id}-{part}")
            return platform.sink(turn.new.address, handle, save, max(1, turn.attempt))

        return Reply(
            make_sink,
            self.pacer,
            self.clock,
            growing,
            show_reasoning=folded,
            earlier_parts=len(turn.handles),
        )

    async def _work(self, running: Running, run: _Run) -> None:
        run.reply.start()
        running.work = asyncio.create_task(self._listen(run), name="model")
        if running.ended is not None or running.leaving:
            running.work.cancel()
        await asyncio.wait({running.work})

    async def _listen(self, run: _Run) -> None:
        async with aclosing(self.model.stream(self._request(run.started))) as deltas:
            async for delta in deltas:
                run.take(delta)
                self._keep(run)

    def _request(self, started: Started) -> ModelRequest:
        new = started.turn.new
        choices = started.conversation.choices
        persona = str(choices.get("persona") or self.chat.persona)
        return ModelRequest(
            model=str(choices.get("model") or self.service.model),
            prompts=compose(
                started, self.personas.text(persona), max_tokens=self.chat.history_tokens
            ),
            thinking=self._reasoning(started) != "off",
            max_tokens=self.service.max_tokens,
            user=f"{new.platform}:{new.sender.id}",
            stream=self.service.stream,
        )

    def _reasoning(self, started: Started) -> str:
        return str(started.conversation.choices.get("reasoning") or self.chat.reasoning)

    def _keep(self, run: _Run) -> None:
        """A checkpoint every now and then; the stream does not wait for the disk."""
        now = self.clock.monotonic()
        busy = run.keeping is not None and not run.keeping.done()
        if not busy and now - run.kept_at >= CHECKPOINT_SECONDS:
            run.kept_at = now
            run.keeping = asyncio.create_task(self._checkpoint(run), name="checkpoint")

    async def _checkpoint(self, run: _Run) -> None:
        try:
            await self.store.checkpoint(run.turn.id, run.reply.text, run.reply.reasoning)
        except StoreError as error:
            log.warning("checkpoint of %s not kept: %s", run.turn.id, error)

    # ------------------------------------------------------------ the closing step

    async def _close(self, running: Running, run: _Run) -> Turn | None:
        await run.settle(running.work)
        if run.cancelled and running.ended is None:
            await run.reply.leave()
            await self._checkpoint(run)
            return None
        ending = run.turn.ending or self._ending(running, run)
        if run.turn.ending is not None or not run.reply.text:
            run.reply.add(ending.text)
        await self._decide(run.turn, ending)
        ending = await self._deliver(run.turn, run.reply, ending)
        if ending.delivery == "undelivered" and running.leaving:
            return None
        return await self._commit(running, ending)

    def _ending(self, running: Running, run: _Run) -> Ending:
        state, note = self._outcome(running, run)
        text = run.reply.text or run.turn.checkpoint
        model = run.model or self._request_model(run.started)
        cost = ledger.cost(model, run.usage, self.clock.time())
        return Ending(
            state=state,
            text=text,
            reasoning=run.reply.reasoning,
            note=note,
            footer=self._footer(run, model, cost) if state == "answered" else "",
            finish=run.finish,
            model=model,
            usage=run.usage,
            cost=cost,
            error=_cause(run.error),
        )

    def _request_model(self, started: Started) -> str:
        return str(started.conversation.choices.get("model") or self.service.model)

    def _outcome(self, running: Running, run: _Run) -> tuple[TurnState, str]:
        """The turn's state and the line under its answer."""
        lang, ref = run.turn.new.lang, run.turn.id[:8]
        if running.ended is not None:
            return running.ended, say(f"card.{running.ended}", lang)
        if running.work is None:
            return "failed", say("card.interrupted", lang, ref=ref)
        if run.error is not None:
            return "failed", _complaint(run, run.error)
        if not clean(run.reply.text).strip():
            return "failed", say("model.empty", lang, ref=ref)
        return "answered", self._remark(run)

    def _remark(self, run: _Run) -> str:
        lang, parts = run.turn.new.lang, run.turn.new.parts
        remarks = []
        if run.finish in ("length", "content_filter"):
            remarks.append(say({"length": "card.length"}.get(run.finish, "card.filtered"), lang))
        if any(isinstance(part, UnreadablePart) for part in parts):
            remarks.append(say("card.unread", lang, kinds=unreadable(parts, lang)))
        return " ".join(remarks)

    def _footer(self, run: _Run, model: str, cost: float) -> str:
        if not self.chat.footer:
            return ""
        lang, used = run.turn.new.lang, run.usage.prompt + run.usage.completion
        seconds = f"{self.clock.monotonic() - run.began_at:.1f}"
        bits = [model, say("footer.seconds", lang, seconds=seconds)]
        if used:
            bits.append(say("footer.tokens", lang, tokens=used))
        if cost:
            bits.append(say("footer.cost", lang, cost=f"{cost:.4f}"))
        return " · ".join(bits)

    async def _decide(self, turn: Turn, ending: Ending) -> None:
        """Keep the outcome before it is shown. When the disk says no, the card is still
        finished, and committed afterwards (design.md 8)."""
        if turn.ending is not None:
            return
        try:
            await self.store.decide(turn.id, ending)
        except StoreError as error:
            log.error("outcome of %s not kept yet: %s", turn.id, error)

    async def _deliver(self, turn: Turn, reply: Reply, ending: Ending) -> Ending:
        try:
            delivery = await reply.close(_final(turn, ending))
        except Exception:
            log.exception("reply of %s could not be closed", turn.id)
            delivery = None
        if delivery is None:
            return replace(ending, delivery="undelivered")
        return replace(ending, delivery=delivery.state, proof=delivery.proof)

    async def _commit(self, running: Running, ending: Ending) -> Turn | None:
        return await self._insist(running, lambda: self.store.finish(running.turn.id, ending))

    async def _insist(self, running: Running, step: Callable[[], Awaitable[T]]) -> T | None:
        """Until the store can; None only when the next process is to go on."""
        delay = 0.25
        while True:
            try:
                return await step()
            except StoreError as error:
                log.error("store refused, trying again in %.2f s: %s", delay, error)
            if running.leaving:
                return None
            await self.clock.sleep(delay)
            delay = min(delay * 2, 2.0)

    # ------------------------------------------------------------ a turn outside lanes

    async def tell(self, turn: Turn, words: Callable[[], Awaitable[str]]) -> None:
        """Answer a command or a notice with the text that `words` gives; a turn whose
        text was decided before a crash repeats that text."""
        ending = turn.ending
        if ending is None or not ending.text:
            state: TurnState = "refused" if turn.state == "refused" else "answered"
            ending = Ending(state, text=await self._worded(turn, words))
            await self._decide(turn, ending)
        reply = self._reply(turn, Snapshot())
        reply.add(ending.text)
        ending = await self._deliver(turn, reply, ending)
        await self._insist(Running(turn), lambda: self.store.finish(turn.id, ending))

    async def _worded(self, turn: Turn, words: Callable[[], Awaitable[str]]) -> str:
        try:
            return await words()
        except Exception as error:
            log.exception("turn %s could not be answered", turn.id)
            note = error.note if isinstance(error, QueqiaoError) else QueqiaoError.note
            return say(note, turn.new.lang, ref=turn.id[:8])


def _final(turn: Turn, ending: Ending) -> Snapshot:
    """The closing of the card: its note, small print and the button to ask again."""
    again = Button("retry", say("button.retry", turn.new.lang), turn.id)
    offered = turn.new.kind == "chat" and ending.state in ("answered", "failed", "stopped")
    return Snapshot(
        note=ending.note,
        footer=ending.footer,
        buttons=(again,) if offered else (),
        state=cast(SnapshotState, ending.state),
    )


def _complaint(run: _Run, error: BaseException) -> str:
    """What went wrong, for the person; with a part of the answer it says that it was cut."""
    if not isinstance(error, QueqiaoError):
        log.error("turn %s failed", run.turn.id, exc_info=error)
    note = error.note if isinstance(error, QueqiaoError) else QueqiaoError.note
    lang = run.turn.new.lang
    why = say(note, lang, ref=run.turn.id[:8])
    return say("card.cut", lang, why=why) if run.reply.text else why


def _cause(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(error) if isinstance(error, QueqiaoError) else type(error).__name__
