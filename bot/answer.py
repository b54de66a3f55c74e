"""Answers one turn: the model's stream into the growing reply, then one closing step.

Every way out (done, failed, stopped, recalled, shut down) passes `_close`, which runs
to its end even when cancelled (law 5).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from bot import ledger
from bot.asking import Asking
from bot.contract import (
    Accepted,
    Clock,
    Ending,
    History,
    Snapshot,
    Started,
    Turn,
    TurnState,
    TurnStore,
)
from bot.deliveries import delivered, next_try, note_closed
from bot.endings import MONTH, Result, cause, final, footer, growing, outcome, wordless
from bot.errors import Gone, QueqiaoError, StoreError
from bot.gate import Gate
from bot.gather import Gathering
from bot.lanes import Running
from bot.replies import Replies
from bot.reply import Reply
from bot.run import Run
from bot.settings import Chat
from bot.tasks import to_the_end
from bot.texts import say
from bot.waiting import WaitingRoom

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_RUNS = 2
"""A turn whose run died this often is closed as failed (design.md 5)."""

REREAD_AFTER = 10.0
"""Seconds of waiting after which a question may have been edited meanwhile."""

REREAD_SECONDS = 3.0

STEPS = 3
"""Of the event loop, until a question has left by a connection that stands: first the
question, then the card."""


@dataclass(frozen=True)
class Answerer:
    """Everything that answering needs."""

    store: TurnStore
    replies: Replies
    asking: Asking
    waiting: WaitingRoom
    gathering: Gathering
    gate: Gate
    chat: Chat
    clock: Clock
    _foreseen: dict[str, Run] = field(default_factory=dict)

    # ------------------------------------------------------------ before it is claimed

    def foresee(self, accepted: Accepted) -> None:
        """Prepare the run of a turn that begins as soon as its claim is safe. Nothing of it
        is seen before `answer`; when the claim fails, `forget` it."""
        if accepted.started is not None:
            run = self._foreseen[accepted.started.turn.id] = self._run(accepted.started)
            run.prepare()

    def forget(self, turn_id: str) -> None:
        self._foreseen.pop(turn_id, None)

    # ------------------------------------------------------------ a turn in its lane

    async def answer(self, running: Running) -> Turn | None:
        """Answer the turn; returns the lane's next, or None when the lane is free or
        left to the next process. An unforeseen error ends this turn, never its lane."""
        try:
            return await self._answer(running)
        except Exception as error:
            log.exception("turn %s broke", running.turn.id)
            note = say("error.internal", running.turn.new.lang, ref=running.turn.id[:8])
            name = type(error).__name__
            broken = Ending("failed", note=note, error=name, delivery="undelivered")
            return await self._commit(running, broken)

    async def _answer(self, running: Running) -> Turn | None:
        turn = running.turn
        waited = await self.waiting.take(turn)
        await self.gathering.settled(turn.id, turn.new.lane)
        started = await self._begin(running)
        if started is None:
            return await self._gone(running, waited)
        run = self._begun(started, waited)
        running.hurry = lambda: run.reply.hurry()
        try:
            if self._must_run(run, waited):
                await self._work(running, run)
        finally:
            following = await to_the_end(self._close(running, run))
        return following

    async def _gone(self, running: Running, waited: Reply | None) -> Turn | None:
        """Ended by somebody before it began, or left to the next process."""
        ending = Ending(running.ended or "stopped")
        if waited is not None and running.leaving:
            await waited.leave()
        elif waited is not None:
            await self.waiting.end(running.turn, waited, ending)
        return None if running.leaving else await self._commit(running, ending)

    def _must_run(self, run: Run, waited: Reply | None) -> bool:
        turn = run.turn
        if turn.ending is not None or turn.deaths >= MOST_RUNS:
            return False
        if not turn.checkpoint:
            shown = waited is not None or any(handle.rung for handle in turn.handles)
            run.refusal = self.gate.refusal(turn, shown=shown)
        return run.refusal is None and wordless(turn) is None

    async def _begin(self, running: Running) -> Started | None:
        turn = running.turn
        if running.started is not None:
            return await self._reread(running, running.started)
        if turn.ending is None:
            started = await self._insist(
                running, lambda: self.store.start(turn.id, self.chat.history_turns)
            )
            return None if started is None else await self._reread(running, started)
        conversation = await self._insist(
            running, lambda: self.store.conversation(turn.new.conversation)
        )
        return None if conversation is None else Started(turn, conversation, ())

    async def _reread(self, running: Running, started: Started) -> Started:
        """A question that waited may have been edited: its newest words count. One that
        was put together of several messages stays as it is."""
        turn = started.turn
        platform = self.replies.platforms[turn.new.bot]
        fresh = turn.attempt == 1 and turn.ending is None and not turn.new.replaces
        if not fresh or self.clock.time() - turn.seen_at < REREAD_AFTER:
            return started
        if not isinstance(platform, History) or running.ended is not None:
            return started
        try:
            async with self.clock.timeout(REREAD_SECONDS):
                parts = await platform.reread(turn.new.address)
        except TimeoutError:
            return started
        if not parts or turn.joined or parts == turn.new.parts:
            return started
        await self._insist(running, lambda: self.store.rewrite(turn.id, parts))
        self.replies.trails.note(turn.id, "edited")
        return replace(started, turn=replace(turn, new=replace(turn.new, parts=parts)))

    def _begun(self, started: Started, waited: Reply | None) -> Run:
        turn = started.turn
        self.replies.trails.begin(turn)
        self.replies.trails.note(turn.id, "started" if turn.attempt < 2 else "resumed")
        foreseen = self._foreseen.pop(turn.id, None)
        if foreseen is not None and foreseen.started is started and waited is None:
            return foreseen
        return self._run(started, waited)

    def _run(self, started: Started, waited: Reply | None = None) -> Run:
        show = partial(self._reply, started, waited)
        return Run(started, show, self.asking, self.store, self.clock)

    def _reply(self, started: Started, waited: Reply | None) -> Reply:
        turn = started.turn
        look = growing(turn, say("card.thinking", turn.new.lang))
        folded = self.asking.reasoning(started) == "folded"
        if waited is None:
            return self.replies.make(turn, look, folded=folded)
        waited.retitle(look, folded=folded)
        return waited

    async def _work(self, running: Running, run: Run) -> None:
        running.work = asyncio.create_task(run.listen(), name="model")
        if running.ended is not None or running.leaving:
            running.work.cancel()  # before its first step: nothing is asked any more
        for _ in range(STEPS):
            await asyncio.sleep(0)
        run.reply.start()
        await asyncio.wait({running.work})

    # ------------------------------------------------------------ the closing step

    async def _close(self, running: Running, run: Run) -> Turn | None:
        await run.settle(running.work)
        if run.cancelled and running.ended is None:
            await self._hand_over(run)
            return None
        known = run.turn.ending or run.refusal or wordless(run.turn)
        ending = known or self._ending(running, run)
        running.decided = True
        if run.turn.ending is not None or not run.reply.text:
            run.reply.add(ending.text)
        await self._decide(run.turn, ending)
        ending = await self._deliver(run.turn, run.reply, ending)
        if ending.delivery == "undelivered" and running.leaving:
            return None
        return await self._commit(running, ending, run.reply)

    async def _hand_over(self, run: Run) -> None:
        """The next process goes on with this turn and its open card."""
        await run.reply.leave()
        try:
            await self.store.hand_over(run.turn.id, run.reply.text, run.reply.reasoning)
        except StoreError as error:
            log.warning("turn %s is left as it stands: %s", run.turn.id, error)

    def _ending(self, running: Running, run: Run) -> Ending:
        text = run.reply.text or run.turn.checkpoint
        ran = running.work is not None
        result = Result(text, run.finish, running.ended, ran, run.error)
        state, note = outcome(run.turn, result)
        model = run.model or self.asking.model_of(run.started)
        cost = ledger.cost(model, run.usage, self.clock.time())
        if run.error is not None:
            log.warning("turn %s failed: %s", run.turn.id, cause(run.error))
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
            error=cause(run.error),
        )

    def _footer(self, run: Run, model: str, cost: float) -> str:
        if not self.chat.footer:
            return ""
        seconds = self.clock.monotonic() - run.began_at
        return footer(run.turn.new.lang, model, seconds, run.usage, cost)

    async def _decide(self, turn: Turn, ending: Ending) -> None:
        """Keep the outcome before it is shown. When the disk says no, the card is still
        finished, and committed afterwards (design.md 8)."""
        self.replies.trails.note(turn.id, "decided", ending.state)
        if turn.ending is not None:
            return
        try:
            await self.store.decide(turn.id, ending)
        except StoreError as error:
            log.error("outcome of %s not kept yet: %s", turn.id, error)

    async def _deliver(self, turn: Turn, reply: Reply, ending: Ending) -> Ending:
        if ending.error == MONTH and not ending.text and reply.untouched:
            return replace(ending, delivery="delivered", proof=ending.proof or MONTH)
        try:
            if ending.state == "recalled" and await self.replies.retract(turn, reply):
                return replace(ending, delivery="delivered", proof="retracted")
            delivery = await reply.close(final(turn, ending))
        except Exception:
            log.exception("reply of %s could not be closed", turn.id)
            delivery = None
        if delivery is None and ending.state == "recalled" and _unseen(reply):
            return replace(ending, delivery="delivered", proof="retracted")
        if delivery is None:
            why = f" {cause(reply.failure)}" if reply.failure else ""
            self.replies.trails.note(turn.id, "undelivered", why.strip())
            return delivered(replace(ending, error=f"{ending.error}{why}".strip()), None)
        note_closed(self.replies.trails, turn.id, delivery)
        return delivered(ending, delivery)

    async def _commit(
        self, running: Running, ending: Ending, reply: Reply | None = None
    ) -> Turn | None:
        turn_id = running.turn.id
        whole = replace(ending, trail=self.replies.trails.of(turn_id))
        following = await self._insist(running, lambda: self.store.finish(turn_id, whole))
        if ending.delivery == "undelivered" and reply is not None and reply.hopeless:
            until = next_try(reply.failure, running.turn, self.clock.time())
            await self._insist(running, lambda: self.store.postpone(turn_id, until))
        if running.turn.new.kind == "chat" and running.turn.state != "refused":
            self.waiting.moved(running.turn)
        return following

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
        self.replies.trails.begin(turn)
        ending = turn.ending
        if ending is None or not ending.text:
            state: TurnState = "refused" if turn.state == "refused" else "answered"
            refusal = self.gate.refusal(turn)
            ending = refusal or Ending(state, text=await self._worded(turn, words))
            await self._decide(turn, ending)
        reply = self.replies.make(turn, Snapshot())
        reply.add(ending.text)
        ending = await self._deliver(turn, reply, ending)
        await self._commit(Running(turn), ending, reply)

    async def _worded(self, turn: Turn, words: Callable[[], Awaitable[str]]) -> str:
        try:
            return await words()
        except Exception as error:
            log.exception("turn %s could not be answered", turn.id)
            note = error.note if isinstance(error, QueqiaoError) else QueqiaoError.note
            return say(note, turn.new.lang, ref=turn.id[:8])


def _unseen(reply: Reply) -> bool:
    """The question is gone, and nothing of the reply ever arrived beside it."""
    sent = any(handle.message_id for handle in reply.handles)
    return isinstance(reply.failure, Gone) and not sent
