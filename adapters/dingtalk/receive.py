"""From a decoded frame to the intake, and back to the acknowledgement (law 1).

Both transports end here: the own link and the official SDK.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from adapters.dingtalk.content import used_up
from adapters.dingtalk.frames import CARD_CALLBACK, MESSAGES
from adapters.dingtalk.parse import Event, Nothing, Recalled, parse
from adapters.meter import Unmetered
from bot.contract import ActionReply, CardAction, Clock, InboundMessage, Intake, Meter
from bot.errors import BorderError, StoreError
from bot.texts import both

log = logging.getLogger(__name__)

T = TypeVar("T")

MESSAGE_SECONDS = 2.4
"""How long a message's claim may take; DingTalk waits 3 s (reference/dingtalk.md 2.6)."""

ACTION_SECONDS = 1.6
"""How long a button's may; DingTalk waits 2 s (2.6)."""

APOLOGIES = 1000
"""Messages whose apology is remembered, so that a redelivery brings no second one."""

PUSHES = {MESSAGES: "push", CARD_CALLBACK: "button"}
"""As what a frame counts; any other is an event."""

OnFrame = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]
Apologise = Callable[[InboundMessage], Awaitable[None]]
Claim = asyncio.Future[dict[str, Any] | None]


def _unknown(sent_at: float) -> float:
    """An age that nobody can tell."""
    return 0.0


class _Slow(StoreError):
    """The claim goes on, too late for the acknowledgement."""

    def __init__(self, claim: Claim) -> None:
        super().__init__("the claim is slow")
        self.claim = claim


class Receiver:
    """Hands events to the intake. `apologise` tells a chat that a message could not be
    stored; DingTalk may not send it again (reference/dingtalk.md 2.6). `age` is how many
    seconds ago a moment was by DingTalk's own clock (design.md 5). `meter` hears of every
    push, repeated ones too: each counts as "Webhook & Stream" (5.7)."""

    def __init__(
        self,
        bot: str,
        robot: str,
        intake: Intake,
        clock: Clock,
        apologise: Apologise,
        *,
        age: Callable[[float], float] = _unknown,
        meter: Meter | None = None,
    ) -> None:
        self._bot, self._robot = bot, robot
        self._intake, self._clock, self._apologise = intake, clock, apologise
        self._age = age
        self._meter = meter or Unmetered()
        self._live: set[asyncio.Task[Any]] = set()
        self._sorry: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, topic: str, data: dict[str, Any]) -> dict[str, Any] | None:
        """Returns when the event is safe; for a button with what its presser sees. Raises
        StoreError when the message must not be acknowledged as taken."""
        self._count(topic, data)
        parsed = parse(topic, data, self._bot, self._robot)
        if isinstance(parsed, Nothing):
            level = logging.WARNING if parsed.reason.startswith("broken") else logging.INFO
            log.log(level, "callback without effect: %s", parsed.reason)
            return None
        if isinstance(parsed, InboundMessage):
            parsed = replace(parsed, age=self._age(parsed.sent_at))
        try:
            return await self._until_safe(parsed)
        except StoreError as error:
            log.error("event not acknowledged, the store failed: %s", error)
            if isinstance(parsed, InboundMessage):
                self._say_sorry(parsed, error.claim if isinstance(error, _Slow) else None)
            if not isinstance(parsed, CardAction):
                raise
            return seen(ActionReply(both("error.busy", ref=parsed.turn[:8]), "error"))

    def _count(self, topic: str, data: dict[str, Any]) -> None:
        """A message without its content says that the quota for pushes is spent (4.2); it
        is not billed any more."""
        if topic == MESSAGES and isinstance(data, dict) and used_up(data):
            self._meter.used_up("message")
        else:
            self._meter.count(PUSHES.get(topic, "event"), "message")

    async def _until_safe(self, parsed: Event) -> dict[str, Any] | None:
        """Repeat a failed claim in memory while the acknowledgement can wait."""
        seconds = ACTION_SECONDS if isinstance(parsed, CardAction) else MESSAGE_SECONDS
        deadline, delay = self._clock.monotonic() + seconds, 0.1
        while True:
            left = deadline - self._clock.monotonic()
            try:
                return await self._within(left, parsed)
            except StoreError:
                if delay >= deadline - self._clock.monotonic():
                    raise
            await self._clock.sleep(delay)
            delay *= 2

    async def _within(self, seconds: float, parsed: Event) -> dict[str, Any] | None:
        """A claim that is too slow is not acknowledged, but goes on: cancelling it could
        leave a message stored and never run; its repetition is recognised."""
        task = self._spawn(self._hand_over(parsed))
        try:
            async with self._clock.timeout(seconds):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise _Slow(task) from error

    async def _hand_over(self, parsed: Event) -> dict[str, Any] | None:
        if isinstance(parsed, InboundMessage):
            await self._intake.message(parsed)
            return None
        if isinstance(parsed, Recalled):
            await self._intake.recalled(self._bot, "", parsed.message_id)
            return None
        return seen(await self._intake.action(parsed))

    # ------------------------------------------------------------ apologies

    def _say_sorry(self, message: InboundMessage, claim: Claim | None) -> None:
        """Once a message, and only to who asked us."""
        if message.ignored or message.message_id in self._sorry:
            return
        self._sorry[message.message_id] = None
        if len(self._sorry) > APOLOGIES:
            self._sorry.popitem(last=False)
        self._spawn(self._tell(message, claim))

    async def _tell(self, message: InboundMessage, claim: Claim | None) -> None:
        """A claim that succeeds after all needs no apology."""
        if claim is not None:
            await asyncio.wait({claim})
            if not claim.cancelled() and claim.exception() is None:
                return
        try:
            await self._apologise(message)
        except BorderError as error:
            log.warning("nobody could be told that a message was lost: %s", error)

    # ------------------------------------------------------------ tasks

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._live.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._live.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("claim ended: %s", type(error).__name__)

    async def close(self, seconds: float = 3.0) -> None:
        """Let the claims under way end; cancel what is left after `seconds`."""
        try:
            async with self._clock.timeout(seconds):
                await asyncio.gather(*self._live, return_exceptions=True)
        except TimeoutError:
            log.warning("claims cut off at shutdown")


def seen(reply: ActionReply) -> dict[str, Any]:
    """What the presser of a button sees. DingTalk knows no toast: a template may show the
    private variables `toast` and `toastKind` (reference/dingtalk.md 2.5)."""
    if not reply.toast:
        return {}
    params = {"toast": reply.toast, "toastKind": reply.kind}
    return {
        "cardUpdateOptions": {"updateCardDataByKey": True, "updatePrivateDataByKey": True},
        "userPrivateData": {"cardParamMap": params},
    }
