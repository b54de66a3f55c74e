"""One run of one turn: the model's stream into the growing reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import cached_property

from bot.asking import Asking, continued
from bot.contract import (
    Clock,
    Delta,
    Ending,
    FinishDelta,
    ModelRequest,
    ReasoningDelta,
    Started,
    TextDelta,
    TurnStore,
    Usage,
    UsageDelta,
)
from bot.errors import BorderError, StoreError
from bot.reply import Reply

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 2.0


class Run:
    """What the model has said so far, and how it ended. Its reply is made by `show` when it
    is needed: after the model was asked."""

    def __init__(
        self,
        started: Started,
        show: Callable[[], Reply],
        asking: Asking,
        store: TurnStore,
        clock: Clock,
    ) -> None:
        self.started, self.turn, self._show = started, started.turn, show
        self._asking, self._store, self._clock = asking, store, clock
        self.began_at = self._kept_at = clock.monotonic()
        self.usage = Usage()
        self.model = ""
        self.finish = ""
        self.refusal: Ending | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self._prepared: AsyncGenerator[Delta, None] | None = None
        self._spoke = False
        self._keeping: asyncio.Task[None] | None = None

    @cached_property
    def reply(self) -> Reply:
        return self._show()

    def prepare(self) -> None:
        """Write the question down, for a run that begins at the beginning."""
        self._prepared = self._asking.model.stream(self._asking.request(self.started))

    async def listen(self) -> None:
        """Go on from the checkpoint of an earlier run where the service can, else from
        the beginning."""
        if self._prepared is not None:
            await self._hear(self._prepared)
        else:
            await self._ask()

    async def _ask(self) -> None:
        request = self._asking.request(self.started)
        goes_on = bool(self.turn.checkpoint) and self._asking.continues(request.model)
        if not goes_on or not await self._go_on(request):
            await self._hear(self._asking.model.stream(request))

    async def _go_on(self, request: ModelRequest) -> bool:
        """False when the answer must be written anew: also when nothing was added, because
        an answer that is whole and a service that fails look the same then."""
        self.reply.add(self.turn.checkpoint)
        self.reply.add_reasoning(self.turn.thoughts)
        why = "nothing was added"
        try:
            await self._hear(self._asking.model.stream(continued(request, self.turn)))
        except BorderError as error:
            if self._spoke:
                raise
            why = str(error)
        if self.reply.text != self.turn.checkpoint:
            return True
        log.info("turn %s begins anew: %s", self.turn.id, why)
        self.reply.restart()
        return False

    async def _hear(self, stream: AsyncGenerator[Delta, None]) -> None:
        try:
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    self._take(delta)
                    self._keep()
        except BorderError as error:
            self._asking.health.failed(self.turn.id, error)
            raise
        self._asking.health.answered()

    def _take(self, delta: Delta) -> None:
        self._spoke = True
        if isinstance(delta, TextDelta):
            self.reply.add(delta.text)
        elif isinstance(delta, ReasoningDelta):
            self.reply.add_reasoning(delta.text)
        elif isinstance(delta, UsageDelta):
            self.usage, self.model = delta.usage, delta.model or self.model
        elif isinstance(delta, FinishDelta):
            self.finish = delta.reason

    def _keep(self) -> None:
        """A checkpoint every now and then; the stream does not wait for the disk."""
        now = self._clock.monotonic()
        busy = self._keeping is not None and not self._keeping.done()
        if not busy and now - self._kept_at >= CHECKPOINT_SECONDS:
            self._kept_at = now
            self._keeping = asyncio.create_task(self._checkpoint(), name="checkpoint")

    async def _checkpoint(self) -> None:
        try:
            await self._store.checkpoint(self.turn.id, self.reply.text, self.reply.reasoning)
        except StoreError as error:
            log.warning("checkpoint of %s not kept: %s", self.turn.id, error)

    async def settle(self, work: asyncio.Task[None] | None) -> None:
        """End the work, if it has not ended by itself, and keep how it ended."""
        if work is None:
            return
        work.cancel()
        await asyncio.wait({work})
        self.cancelled = work.cancelled()
        self.error = None if self.cancelled else work.exception()
        if self._keeping is not None:
            await asyncio.wait({self._keeping})
