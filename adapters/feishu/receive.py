"""From a decoded event to the intake, and back to the acknowledgement (law 1).

Both transports end here: the own link and the official SDK.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from adapters.feishu.parse import (
    ACTION,
    Nothing,
    Recalled,
    event_type,
    is_group_message,
    parse,
)
from adapters.feishu.settings import BotIdentity
from adapters.foreign import text_at
from bot.contract import ActionReply, CardAction, Clock, InboundMessage, Intake, Person
from bot.errors import StoreError, Transient
from bot.texts import both

log = logging.getLogger(__name__)

ACK_SECONDS = 2.4
"""How long an event is worked on before it is refused; Feishu waits 3 s (2.7)."""

Event = InboundMessage | CardAction | Recalled
Payload = Mapping[str, Any]
OnPayload = Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]


def _nobody(people: Iterable[Person]) -> None:
    """Learn nothing."""


def _unknown(sent_at: float) -> float:
    """An age that nobody can tell."""
    return 0.0


class Receiver:
    """Hands events to the intake. `identity` is None until Feishu has told who we are:
    until then group messages are refused however long it takes, because one that was
    claimed without being understood could neither come again nor be fetched. `refused_since`
    is when the oldest of them was sent, in seconds since the epoch, None while there is none.
    `age` is how many seconds ago a moment was by Feishu's own clock (design.md 5); `learn`
    gets the people whom messages name."""

    def __init__(
        self,
        bot: str,
        intake: Intake,
        clock: Clock,
        *,
        age: Callable[[float], float] = _unknown,
        learn: Callable[[Iterable[Person]], None] = _nobody,
    ) -> None:
        self._bot, self._intake, self._clock = bot, intake, clock
        self._age, self._learn = age, learn
        self._live: set[asyncio.Future[dict[str, Any] | None]] = set()
        self.identity: BotIdentity | None = None
        self.refused_since: float | None = None

    async def __call__(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Returns when the event is safe; for a card action with the answer that the
        person sees (reference/feishu.md 6.9). Raises StoreError or Transient when it must
        not be acknowledged."""
        if self.identity is None and is_group_message(payload):
            self._refuse(payload)
        parsed = parse(payload, self._bot, self.identity)
        if isinstance(parsed, Nothing):
            log.info("event without effect: %s", parsed.reason)
            return None
        if isinstance(parsed, InboundMessage):
            self._learn(parsed.mentions)
            parsed = replace(parsed, age=self._age(parsed.sent_at))
        try:
            return await self._until_safe(parsed)
        except StoreError as error:
            log.error("event not acknowledged, the store failed: %s", error)
            if event_type(payload) == ACTION:
                return toast(ActionReply(_apology(payload), "error"))
            raise

    def _refuse(self, payload: Payload) -> NoReturn:
        parsed, now = parse(payload, self._bot, None), self._clock.time()
        sent_at = parsed.sent_at if isinstance(parsed, InboundMessage) else 0.0
        self.refused_since = min(self.refused_since or now, sent_at or now)
        raise Transient("the bot's identity is not known yet")

    async def _until_safe(self, parsed: Event) -> dict[str, Any] | None:
        """Repeat a failed claim in memory while the acknowledgement can wait."""
        deadline, delay = self._clock.monotonic() + ACK_SECONDS, 0.1
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
        task = asyncio.ensure_future(self._hand_over(parsed))
        self._live.add(task)
        task.add_done_callback(self._over)
        try:
            async with self._clock.timeout(seconds):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise StoreError("the claim is slow") from error

    def _over(self, task: asyncio.Future[dict[str, Any] | None]) -> None:
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

    async def _hand_over(self, parsed: Event) -> dict[str, Any] | None:
        if isinstance(parsed, InboundMessage):
            await self._intake.message(parsed)
        elif isinstance(parsed, Recalled):
            await self._intake.recalled(self._bot, parsed.chat, parsed.message_id)
        else:
            return toast(await self._intake.action(parsed))
        return None


def toast(reply: ActionReply) -> dict[str, Any]:
    """The answer to a card action (reference/feishu.md 6.9)."""
    if not reply.toast:
        return {}
    return {"toast": {"type": reply.kind, "content": reply.toast}}


def _apology(payload: Payload) -> str:
    """The language of the person is not known here: both."""
    return both("error.busy", ref=text_at(payload, "header", "event_id")[-8:])
