"""FeishuSim: Feishu on loopback, as far as a bot and the people around it can tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from adapters.playground.door import Door
from adapters.playground.faults import Faults
from adapters.playground.feishu import actions, events
from adapters.playground.feishu.backend import Backend
from adapters.playground.feishu.cards import Cards, Entity, Paint
from adapters.playground.feishu.deliveries import Deliveries, new_event_id
from adapters.playground.feishu.events import RECALLED, RECEIVED, Said
from adapters.playground.feishu.gateway import Gateway, Refusal
from adapters.playground.feishu.limits import Windows
from adapters.playground.feishu.link import Link, Push
from adapters.playground.feishu.marks import Marks
from adapters.playground.feishu.messages import Messages
from adapters.playground.feishu.rest import Rest
from adapters.playground.feishu.tokens import Tokens
from adapters.playground.feishu.wire import Call, Policy
from adapters.playground.feishu.world import Place, SimChat, SimMessage, SimPerson, World
from adapters.playground.view import Bubble
from bot.contract import Clock

POLL = 0.02
"""Seconds between two looks of wait_for at things this simulator does not know of."""


class FeishuSim:
    """One tenant with one app on an ephemeral port of 127.0.0.1.

    Chats and people may be given as objects or by id; a message's id is its bubble's id.
    Everything that happens later (redelivery, expiry) follows `clock`; `policy` holds the
    switches, `faults` HTTP faults by route name (adapters.playground.feishu.wire).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        seed: int = 0,
        app_id: str = "cli_a8playground",
        app_secret: str = "playground-secret",
        strict_limits: bool = True,
    ) -> None:
        world = World(clock, seed, app_id)
        self._b = Backend(
            clock,
            world,
            Policy(),
            Faults(clock),
            app_id,
            app_secret,
            strict_limits,
            Windows(clock),
        )
        self._gateway = Gateway(self._b)
        self._deliveries = Deliveries(self._b, self._gateway)
        self._tokens, self._cards = Tokens(self._b), Cards(self._b)
        self._messages = Messages(self._b, self._cards)
        self._marks = Marks(self._b, self._messages)
        self._door: Door | None = None

    # life -------------------------------------------------------------

    async def start(self) -> None:
        rest = Rest(self._b, self._gateway, self._tokens, self._cards, self._messages, self._marks)
        self._door = Door(web.AppRunner(rest.app(), access_log=None, shutdown_timeout=0.5))
        await self._door.setup()
        self._b.base_url = f"http://127.0.0.1:{self._door.port}"

    async def close(self) -> None:
        await self._b.stop()
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
        """Stands for https://open.feishu.cn."""
        return self._b.base_url

    @property
    def app_id(self) -> str:
        return self._b.app_id

    @property
    def app_secret(self) -> str:
        return self._b.app_secret

    @property
    def bot_open_id(self) -> str:
        return self.world.bot_open_id

    @property
    def world(self) -> World:
        return self._b.world

    @property
    def policy(self) -> Policy:
        return self._b.policy

    @property
    def faults(self) -> Faults:
        return self._b.faults

    @property
    def calls(self) -> list[Call]:
        return self._b.calls

    @property
    def violations(self) -> list[str]:
        """Limits and rules that the client broke, a sentence each."""
        return self._b.violations

    @property
    def acks(self) -> dict[str, float | None]:
        """By event_id: when it was acknowledged (seconds since the epoch), or None."""
        return self._deliveries.acks

    @property
    def lost(self) -> list[str]:
        """event_ids that were given up after the last repeat."""
        return self._deliveries.lost

    @property
    def pushes(self) -> list[Push]:
        """Every delivery with its fate, as the developer console lists them."""
        return self._gateway.pushes

    @property
    def paints(self) -> list[Paint]:
        """Every change of a streamed element: typed on, or painted anew."""
        return self._cards.paints

    @property
    def links(self) -> list[Link]:
        """Live WebSockets, oldest first."""
        return self._gateway.links

    @property
    def opened(self) -> int:
        """How many WebSockets were ever opened."""
        return self._gateway.opened

    # world ----------------------------------------------------------------

    def add_person(self, name: str) -> SimPerson:
        return self.world.add_person(name)

    def add_group(self, name: str, members: list[SimPerson], *, topic: bool = False) -> SimChat:
        """`topic`: a topic group, where every message opens a topic or stands in one."""
        return self.world.add_group(name, members, topic=topic)

    def p2p(self, person: SimPerson | str) -> SimChat:
        return self.world.p2p(person)

    def refuse_in(self, chat: SimChat | str, code: int) -> None:
        """Every send into the chat meets `code` (230002 removed, 232009 dissolved, 230035
        muted, 230013 outside the availability range); 0 ends that."""
        self.world.chat(chat).refusal = code

    def open_thread(self, message_id: str) -> str:
        """Somebody opens a thread on a message; its thread id."""
        return self.world.open_thread(self.world.messages[message_id])

    # acting -----------------------------------------------------------------

    async def say(
        self,
        chat: SimChat | str,
        person: SimPerson | str,
        text: str = "",
        *,
        mention_bot: bool = False,
        mention_all: bool = False,
        mentions: tuple[SimPerson, ...] | list[SimPerson] = (),
        thread: str = "",
        reply_to: str = "",
        kind: str = "text",
        content: str | dict[str, Any] | None = None,
        times: int = 1,
        event_id: str = "",
    ) -> str:
        """A person writes; returns the message id. The bot hears it only where the scopes
        let it (events.reaches_bot). `content` replaces what `kind` would be made of; a
        `@Name` in `text` becomes the mention's place. `times` above 1 delivers duplicates
        of the same event. Returns without waiting for an acknowledgement."""
        place, author = self.world.chat(chat), self.world.person(person)
        said = Said(text, kind, mention_bot, mention_all, tuple(mentions), content)
        message = self._write(place, author, said, self._place(place, thread, reply_to))
        if events.reaches_bot(self._b, place, said):
            event = events.received(self._b, message)
            await self._post(RECEIVED, event, event_id or new_event_id(), times)
        return message.id

    def _write(self, chat: SimChat, author: SimPerson, said: Said, place: Place) -> SimMessage:
        content, mentions = events.content_of(self._b, said)
        message = SimMessage(
            self.world.fresh("om_"),
            chat.id,
            author,
            said.kind,
            content,
            self._b.clock.time(),
            place.root,
            place.parent,
            place.thread,
            mentions,
        )
        blocks = events.shown(said, mentions, content)
        self.world.put(message, blocks=blocks, pings=events.pings_of(said))
        return message

    def _place(self, chat: SimChat, thread: str, reply_to: str) -> Place:
        if reply_to:
            return self.world.place_beside(self.world.messages[reply_to], bool(thread))
        return self.world.in_thread(thread) if thread else self.world.new_place(chat)

    async def _post(
        self, event_type: str, event: dict[str, Any], event_id: str, times: int = 1
    ) -> None:
        payload = events.envelope(self._b, event_type, event_id, event)
        for _ in range(times):
            await self._deliveries.post(payload)

    async def press(self, bubble_id: str, block_id: str, person: SimPerson | str) -> dict[str, Any]:
        """A person touches a button; the toast they see (`type`, `content`), empty for
        none, `{"error": code}` where the client shows an error code (3.2). A card in the
        answer is applied. Raises KeyError or ValueError when there is no such button."""
        entity = self._entity(bubble_id)
        chat = self.world.messages[bubble_id].chat
        event = actions.event(self._b, entity, block_id, self.world.person(person), chat)
        payload = events.envelope(self._b, events.ACTION, new_event_id(), event)
        return actions.outcome(self._cards, entity, await self._deliveries.ask(payload))

    def _entity(self, message_id: str) -> Entity:
        return self._cards.entities[self.world.messages[message_id].card_id]

    async def recall(self, message_id: str, *, by: str = "message_owner") -> None:
        """A person takes a message back; the bot hears of it where the client lets it see."""
        message = self.world.messages[message_id]
        self._messages.take_back(message, 230011)
        event = {
            "message_id": message.id,
            "chat_id": message.chat,
            "recall_time": str(self._b.millis()),
            "recall_type": by,
        }
        await self._post(RECALLED, event, new_event_id())

    def edit(self, message_id: str, text: str) -> None:
        """A person changes a text of theirs; nobody is told (4.2)."""
        self._messages.rewrite(self.world.messages[message_id], "text", {"text": text})

    async def react(self, message_id: str, person: SimPerson | str, emoji: str) -> None:
        """A person puts a reaction on a message."""
        author, message = self.world.person(person), self.world.messages[message_id]
        self._marks.put(message, emoji, author)
        event = {
            "message_id": message.id,
            "reaction_type": {"emoji_type": emoji},
            "operator_type": "user",
            "user_id": events.ids_of(self._b, author),
            "action_time": str(self._b.millis()),
        }
        await self._post(events.REACTION, event, new_event_id())

    async def deliver_raw(self, payload: dict[str, Any]) -> None:
        """Push any event payload, with repeats like every other."""
        await self._deliveries.post(payload)

    async def deliver_event(self, event_type: str, event: dict[str, Any]) -> str:
        """Push an event of any type; returns its event_id."""
        event_id = new_event_id()
        await self._post(event_type, event, event_id)
        return event_id

    async def send_garbage(self, data: bytes) -> None:
        """Put raw bytes on every link as one binary message."""
        for link in list(self.links):
            await link.ws.send_bytes(data)

    # links that go wrong --------------------------------------------------

    def cut_links(self) -> int:
        """Every socket dies without a close frame; returns how many."""
        links = list(self.links)
        for link in links:
            link.cut()
        return len(links)

    async def close_links(self, code: int = 1000) -> None:
        """A clean close, as at a restart of the gateway."""
        for link in list(self.links):
            await link.ws.close(code=code)

    def mute_links(self, *, pongs: bool = False, half_open: bool = False) -> None:
        """The present links turn deaf: events go into the void, and so do pongs unless
        `pongs`. `half_open`: the peer's packets are no longer read either."""
        for link in self.links:
            link.muted, link.pongs = True, pongs
            if half_open:
                link.transport.pause_reading()

    def refuse_links(
        self, code: int = 1000040350, *, status: int = 200, handshake: bool = False
    ) -> None:
        """Discovery answers `code` to everybody (or only HTTP `status`, when it is not
        200) until accept_links(). `handshake`: discovery is fine, the upgrade is refused.
        Live links stay."""
        self._gateway.refusal = Refusal(code, status, handshake)

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
        self._b.app_secret = secret

    def revoke_tokens(self) -> None:
        """Tokens die early; the next call meets 99991663."""
        self._tokens.revoke()

    # observing ---------------------------------------------------------------

    def bubbles(self, chat: SimChat | str) -> list[Bubble]:
        return self.world.in_chat(self.world.chat(chat).id)

    def bot_bubbles(self, chat: SimChat | str) -> list[Bubble]:
        """What the bot said there and did not take back."""
        mine = [b for b in self.bubbles(chat) if b.author.startswith("bot:")]
        return [b for b in mine if not b.recalled]

    def open_cards(self) -> list[str]:
        """Message ids of the cards that still show that more will come."""
        return [b.id for b in self.world.bubbles.values() if b.streaming]

    def card(self, message_id: str) -> Entity:
        """The card behind a message. Raises KeyError."""
        return self._entity(message_id)

    def preview(self, message_id: str) -> str:
        """The line in the chat list (6.1)."""
        message = self.world.messages[message_id]
        entity = self._cards.entities.get(message.card_id)
        if entity is None:
            return self.world.bubbles[message_id].text
        return entity.summary or ("[生成中...]" if entity.streaming else "[卡片]")

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
