"""DingTalkSim: DingTalk on loopback, as far as a bot and the people around it can tell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from adapters.playground.dingtalk import messages, templates
from adapters.playground.dingtalk.backend import Backend
from adapters.playground.dingtalk.cards import Card, Cards
from adapters.playground.dingtalk.deliveries import Deliveries, Parcel
from adapters.playground.dingtalk.limits import Quota
from adapters.playground.dingtalk.link import CARD_CALLBACK, MESSAGES, Ack, Gateway, Link, Refusal
from adapters.playground.dingtalk.messages import Said
from adapters.playground.dingtalk.rest import Rest
from adapters.playground.dingtalk.robot import HoldBack, Robot, taken_back
from adapters.playground.dingtalk.tokens import Tokens
from adapters.playground.dingtalk.webhook import Webhooks
from adapters.playground.dingtalk.wire import Call, Policy
from adapters.playground.dingtalk.world import SimChat, SimPerson, World
from adapters.playground.door import Door
from adapters.playground.faults import Faults
from adapters.playground.view import Bubble
from bot.contract import Clock

POLL = 0.02
"""Seconds between two looks of wait_for at things this simulator does not know of."""


class DingTalkSim:
    """One organisation with one robot on an ephemeral port of 127.0.0.1.

    Chats and people may be given as objects or by id. Everything that happens later
    (pings, redelivery, expiry) follows `clock`; `policy` holds the switches, `quota`
    the month, `faults` HTTP faults by route name (adapters.playground.dingtalk.wire).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        seed: int = 0,
        client_id: str = "dingplayground",
        client_secret: str = "playground-secret",
        strict_limits: bool = True,
    ) -> None:
        world = World(clock, seed, robot_code=client_id)
        self._b = Backend(
            clock, world, Policy(), Faults(clock), client_id, client_secret, strict_limits
        )
        self._gateway = Gateway(self._b)
        self._deliveries = Deliveries(self._b, self._gateway)
        self._tokens, self._webhooks = Tokens(self._b), Webhooks(self._b)
        self._cards, self._robot = Cards(self._b), Robot(self._b)
        self._door: Door | None = None

    # life -------------------------------------------------------------

    async def start(self) -> None:
        rest = Rest(self._b, self._gateway, self._tokens, self._cards, self._robot, self._webhooks)
        self._door = Door(web.AppRunner(rest.app(), access_log=None, shutdown_timeout=0.5))
        await self._door.setup()
        self._b.base_url = f"http://127.0.0.1:{self._door.port}"

    async def close(self) -> None:
        await self._deliveries.stop()
        await self._gateway.stop()
        if self._door is not None:
            await self._door.close()
            self._door = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # what it is ---------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Both `https://api.dingtalk.com` and `https://oapi.dingtalk.com`."""
        return self._b.base_url

    @property
    def client_id(self) -> str:
        return self._b.client_id

    @property
    def client_secret(self) -> str:
        return self._b.client_secret

    @property
    def robot_code(self) -> str:
        return self._b.world.robot_code

    @property
    def card_template_id(self) -> str:
        return templates.PLAYGROUND

    @property
    def plain_template_id(self) -> str:
        """A template with `content` alone: no buttons, no failure state."""
        return templates.PLAIN

    @property
    def world(self) -> World:
        return self._b.world

    @property
    def policy(self) -> Policy:
        return self._b.policy

    @property
    def quota(self) -> Quota:
        return self._b.quota

    @property
    def faults(self) -> Faults:
        return self._b.faults

    @property
    def calls(self) -> list[Call]:
        return self._b.calls

    @property
    def violations(self) -> list[str]:
        return self._b.violations

    @property
    def acks(self) -> list[Ack]:
        return self._gateway.acks

    @property
    def lost(self) -> list[str]:
        """msgIds (or other keys) of what was pushed for the last time without an ack."""
        return self._gateway.lost

    @property
    def links(self) -> list[Link]:
        """Live WebSockets, oldest first."""
        return self._gateway.links

    @property
    def opened(self) -> int:
        """How many WebSockets were ever opened."""
        return self._gateway.opened

    # world ----------------------------------------------------------------

    def add_person(self, name: str, staff: bool = True) -> SimPerson:
        """`staff` false: an external member, whose messages carry no senderStaffId."""
        return self.world.add_person(name, staff)

    def add_group(self, name: str, members: list[SimPerson]) -> SimChat:
        return self.world.add_group(name, members)

    def p2p(self, person: SimPerson) -> SimChat:
        return self.world.p2p(person)

    def disband(self, chat: SimChat | str) -> None:
        """The group is gone: every send and delivery there is refused."""
        self.world.chat(chat).disbanded = True

    # acting -----------------------------------------------------------------

    async def say(
        self,
        chat: SimChat | str,
        person: SimPerson | str,
        text: str = "",
        *,
        mention_bot: bool = False,
        mention_all: bool = False,
        mentions: tuple[SimPerson, ...] = (),
        kind: str = "text",
        content: Any = None,
        quote: str | dict[str, Any] | None = None,
        overrides: dict[str, Any] | None = None,
        times: int = 1,
    ) -> str:
        """A person writes; returns the msgId, which is also the bubble's id. The bot
        hears it only where DingTalk lets it (messages.reaches_bot). `quote` is a bubble
        id or a whole `repliedMsg`; `times` above 1 delivers spontaneous duplicates."""
        place, author = self.world.chat(chat), self.world.person(person)
        said = Said(text, kind, mention_bot, mention_all, mentions, content, quote, overrides or {})
        data = messages.payload(self.world, place, author, said, self._webhooks.open(place.id))
        message_id = str(data["msgId"])
        self.world.inbound[message_id] = data
        blocks, pings = messages.shown(self.world, said)
        reply_to = quote if isinstance(quote, str) else ""
        self.world.put(message_id, place.id, author, blocks, pings=pings, reply_to=reply_to)
        if messages.reaches_bot(place, said):
            await self._push_message(data, times)
        return message_id

    async def _push_message(self, data: dict[str, Any], times: int) -> None:
        if not self.quota.take_hook():
            data = {k: v for k, v in data.items() if k not in ("text", "content")}
            data |= {"errorCode": 20001, "errorMessage": "消息推送额度已用完"}
        parcel = Parcel("CALLBACK", MESSAGES, _dumps(data), str(data["msgId"]))
        for _ in range(times):
            await self._deliveries.post(parcel)

    async def press(self, bubble_id: str, block_id: str, person: SimPerson | str) -> dict[str, Any]:
        """A person touches a button; returns the `response` of the ack (empty for null),
        after applying its card data. `{"error": …}` when nobody answered in time (2 s),
        the code was not 200, or the card was not created for Stream callbacks. Raises
        ValueError when no such button is visible."""
        card, author = self._cards.cards[bubble_id], self.world.person(person)
        if card.bubble is None or block_id not in [b.id for b in card.bubble.buttons()]:
            raise ValueError(f"no button {block_id!r} on this card")
        if not card.callbacks:
            self._b.blame(f"press: {card.id} was created without callbackType STREAM")
            return {"error": "no callback"}
        data = self._cards.callback(card, block_id, author)
        data["content"] = _dumps(data["content"])
        return self._pressed(card, author, await self._ask(CARD_CALLBACK, data, card.id))

    async def _ask(self, topic: str, data: dict[str, Any], key: str) -> Ack | None:
        seconds = self.policy.press_deadline
        push = await self._gateway.push("CALLBACK", topic, _dumps(data), key=key, deadline=seconds)
        return None if push is None else await self._gateway.answer(push)

    def _pressed(self, card: Card, person: SimPerson, ack: Ack | None) -> dict[str, Any]:
        if ack is None:
            return {"error": "timeout"}
        if ack.code != 200:
            return {"error": f"code {ack.code}"}
        response = ack.data.get("response") if isinstance(ack.data, dict) else None
        if not isinstance(response, dict):
            return {}
        self._cards.answered(card, person, response)
        return response

    async def deliver_raw(
        self, topic: str, data: Any, *, kind: str = "", key: str = "", **headers: str
    ) -> None:
        """Push any frame, to any live link when nobody subscribed to it. `data` that is
        a string goes as it is; the kind is EVENT for the topic `*`, else CALLBACK."""
        text = data if isinstance(data, str) else _dumps(data)
        kind = kind or ("EVENT" if topic == "*" else "CALLBACK")
        name = key or uuid.uuid4().hex
        await self._deliveries.post(Parcel(kind, topic, text, name, True, headers))

    async def deliver_event(self, event_type: str, data: dict[str, Any]) -> str:
        """Push an EVENT frame; returns its eventId."""
        event_id = uuid.uuid4().hex
        await self.deliver_raw(
            "*",
            data,
            key=event_id,
            eventId=event_id,
            eventType=event_type,
            eventBornTime=str(self._b.millis()),
            eventCorpId=self.world.corp_id,
            eventUnifiedAppId="playground",
        )
        return event_id

    async def recall(self, message_id: str) -> None:
        """A person takes a message back; the bot hears of it where the policy says so."""
        data = self.world.inbound[message_id]
        self.world.change(self.world.bubbles[message_id], taken_back)
        if self.policy.recall_events:
            event = {
                "msgId": message_id,
                "openConversationId": data["conversationId"],
                "robotCode": data["robotCode"],
                "operatTime": self._b.millis(),
            }
            await self.deliver_event("robot_msg_recall", event)

    async def send_garbage(self, text: str) -> None:
        """Put a raw text frame on every link."""
        for link in list(self.links):
            await link.ws.send_str(text)

    def add_file(self, name: str, data: bytes) -> str:
        """A download code for these bytes, to be used in a `content` override."""
        return messages.add_file(self.world, name, data)

    # links that go wrong --------------------------------------------------

    async def leave_links(self, reason: str = "connection is expired") -> None:
        """Send `disconnect`, push nothing more, close after `policy.leave_after`."""
        await self._gateway.leave(reason)

    def cut_links(self) -> int:
        """Every socket dies without a close frame; returns how many."""
        return self._gateway.cut()

    async def close_links(self, code: int = 1000) -> None:
        """A clean close, as at a restart of the gateway."""
        for link in list(self.links):
            await link.ws.close(code=code)

    def mute_links(self, *, half_open: bool = False) -> None:
        """The present links turn deaf: pongs go on, frames are pushed into the void.
        `half_open`: not even pongs, the peer's packets are no longer read."""
        for link in self.links:
            link.muted = True
            if half_open:
                link.transport.pause_reading()

    def refuse_links(self, status: int = 503, code: str = "ServiceUnavailable") -> None:
        """connections/open answers this to everybody until accept_links()."""
        self._gateway.refusal = Refusal(status, code)

    def accept_links(self) -> None:
        self._gateway.refusal = None

    async def go_away(self) -> None:
        """The network is gone: every socket dies, and new ones are refused."""
        if self._door is not None:
            await self._door.shut()

    async def come_back(self) -> None:
        if self._door is not None:
            await self._door.open()

    def renew_secret(self, secret: str) -> None:
        """The app's secret is made anew in the console."""
        self._b.client_secret = secret

    # refusals inside a good answer ------------------------------------------

    def refuse_deliveries(self, times: int = 1, reason: str = "spaceId is illegal") -> None:
        """The next card deliveries say `success: false` in `deliverResults`."""
        self._cards.refusals.extend([reason] * times)

    def hold_back(
        self,
        person: SimPerson | str,
        times: int = 1,
        field: str = "flowControlledStaffIdList",
    ) -> None:
        """The next 1:1 OpenAPI sends to this person end in `field` instead."""
        user = self.world.person(person).staff_id
        self._robot.held.extend([HoldBack(user, field)] * times)

    def revoke_tokens(self) -> None:
        self._tokens.revoke()

    # observing ---------------------------------------------------------------

    def bubbles(self, chat: SimChat | str) -> list[Bubble]:
        return self.world.in_chat(self.world.chat(chat).id)

    def bot_bubbles(self, chat: SimChat | str) -> list[Bubble]:
        """What the bot said there."""
        return [b for b in self.bubbles(chat) if b.author.startswith("bot:")]

    def open_cards(self) -> list[Bubble]:
        """Cards that still show that more will come."""
        return [b for b in self.world.bubbles.values() if b.streaming]

    def calls_of(self, route: str) -> list[Call]:
        return [call for call in self.calls if call.route == route]

    def subscribe(self) -> asyncio.Queue[tuple[str, Bubble]]:
        """(chat id, copy of the bubble) for every new bubble and every visible change."""
        queue: asyncio.Queue[tuple[str, Bubble]] = asyncio.Queue()
        self.world.watchers.append(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[tuple[str, Bubble]]) -> None:
        self.world.watchers.remove(queue)

    async def wait_for(self, predicate: Callable[[], Any], timeout: float = 5.0) -> Any:
        """The first true value of `predicate`; `timeout` is in real seconds. Raises
        TimeoutError."""
        async with asyncio.timeout(timeout):
            while not (value := predicate()):
                self.world.changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.world.changed.wait(), POLL)
        return value


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
