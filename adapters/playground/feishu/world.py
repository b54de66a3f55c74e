"""People, chats and what stands in them."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.view import Bubble
from bot.contract import Clock


@dataclass(frozen=True, slots=True)
class SimPerson:
    """The three ids of one person (reference/feishu.md 0); `id` is the open_id."""

    name: str
    id: str
    union_id: str
    user_id: str

    @property
    def open_id(self) -> str:
        return self.id


@dataclass(slots=True)
class SimChat:
    """`kind` is p2p or group. `topic`: every message opens a topic or stands in one.
    `threads` false: replies cannot open a thread. `refusal`: what every send meets, such
    as 230002 (bot removed), 232009 (dissolved), 230035 (muted); 0 for none."""

    id: str
    kind: str
    title: str
    members: list[SimPerson]
    topic: bool = False
    threads: bool = True
    refusal: int = 0


@dataclass(slots=True)
class SimMessage:
    """One message. `author` is None for the bot's own. `mentions` are the objects of the
    event (reference/feishu.md 4.2); `card_id` names the entity it shows; `gone` is the code
    that a reply meets when it was recalled (230011) or deleted (230110); `edits` counts."""

    id: str
    chat: str
    author: SimPerson | None
    msg_type: str
    content: str
    at: float
    root: str = ""
    parent: str = ""
    thread: str = ""
    mentions: list[dict[str, Any]] = field(default_factory=list)
    card_id: str = ""
    gone: int = 0
    updated_at: float = 0.0
    edits: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands (reference/feishu.md 4.2)."""

    root: str = ""
    parent: str = ""
    thread: str = ""


@dataclass(slots=True)
class World:
    """Every collection is in the order of arrival; messages and bubbles share their ids."""

    clock: Clock
    seed: int
    app_id: str
    bot_name: str = "鹊桥"
    people: dict[str, SimPerson] = field(default_factory=dict)
    chats: dict[str, SimChat] = field(default_factory=dict)
    messages: dict[str, SimMessage] = field(default_factory=dict)
    bubbles: dict[str, Bubble] = field(default_factory=dict)
    watchers: list[asyncio.Queue[tuple[str, Bubble]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    rng: random.Random = field(init=False)
    bot_open_id: str = field(init=False)
    tenant_key: str = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"feishu {self.seed}")
        self.bot_open_id = "ou_" + self.hex(32)
        self.tenant_key = self.hex(16)

    # ids -----------------------------------------------------------

    def hex(self, digits: int) -> str:
        return f"{self.rng.getrandbits(digits * 4):0{digits}x}"

    def fresh(self, prefix: str) -> str:
        """An opaque id; the moment is in it, so that two runs of a demo never share one."""
        return f"{prefix}{self.hex(20)}{int(self.clock.time() * 1000) & 0xFFFFFFFFFFFF:012x}"

    # people and chats ---------------------------------------------

    def add_person(self, name: str) -> SimPerson:
        person = SimPerson(name, "ou_" + self.hex(32), "on_" + self.hex(32), self.hex(8))
        self.people[person.id] = person
        return person

    def add_group(self, title: str, members: list[SimPerson], *, topic: bool = False) -> SimChat:
        return self._add(SimChat("oc_" + self.hex(32), "group", title, list(members), topic))

    def p2p(self, person: SimPerson | str) -> SimChat:
        owner = self.person(person)
        for chat in self.chats.values():
            if chat.kind == "p2p" and chat.members == [owner]:
                return chat
        return self._add(SimChat("oc_" + self.hex(32), "p2p", owner.name, [owner]))

    def _add(self, chat: SimChat) -> SimChat:
        self.chats[chat.id] = chat
        return chat

    def chat(self, chat: SimChat | str) -> SimChat:
        return self.chats[chat] if isinstance(chat, str) else chat

    def person(self, person: SimPerson | str) -> SimPerson:
        return self.people[person] if isinstance(person, str) else person

    def name_of(self, open_id: str) -> str:
        """A display name, or an empty string for nobody known here."""
        if open_id == self.bot_open_id:
            return self.bot_name
        return self.people[open_id].name if open_id in self.people else ""

    # threads -------------------------------------------------------

    def opener(self, thread: str) -> SimMessage:
        """The message that opened a thread. Raises KeyError."""
        for message in self.messages.values():
            if message.thread == thread:
                return message
        raise KeyError(thread)

    def open_thread(self, message: SimMessage) -> str:
        """The thread of a message; opened on it when it has none."""
        if not message.thread:
            message.thread = self.fresh("omt_")
            bubble = self.bubbles[message.id]
            self.change(bubble, lambda b: setattr(b, "thread", message.thread))
        return message.thread

    def new_place(self, chat: SimChat) -> Place:
        """Of a message that answers nothing: in a topic group it opens a topic."""
        return Place(thread=self.fresh("omt_")) if chat.topic else Place()

    def in_thread(self, thread: str) -> Place:
        """Of a message said in a thread. Raises KeyError."""
        opener = self.opener(thread).id
        return Place(opener, opener, thread)

    def place_beside(self, target: SimMessage, in_thread: bool) -> Place:
        """Of a reply: in the target's thread when it has one or `in_thread` opens it."""
        if target.thread or in_thread:
            return self.in_thread(self.open_thread(target))
        return Place(target.root or target.id, target.id)

    # bubbles -------------------------------------------------------

    def put(self, message: SimMessage, **fields: Any) -> Bubble:
        """A new message and its bubble."""
        author = message.author
        bubble = Bubble(
            id=message.id,
            chat=message.chat,
            author=author.id if author else f"bot:{self.app_id}",
            name=author.name if author else self.bot_name,
            at=message.at,
            thread=message.thread,
            reply_to=message.parent,
            **fields,
        )
        self.messages[message.id] = message
        self.bubbles[bubble.id] = bubble
        self.tell(bubble)
        return bubble

    def change(self, bubble: Bubble, alter: Callable[[Bubble], object]) -> None:
        """Alter a bubble and count a frame when the person can see the difference."""
        before = copy.deepcopy(bubble)
        alter(bubble)
        if bubble != before:
            bubble.frames += 1
            self.tell(bubble)

    def tell(self, bubble: Bubble) -> None:
        self.changed.set()
        for queue in self.watchers:
            queue.put_nowait((bubble.chat, copy.deepcopy(bubble)))

    def in_chat(self, chat: str) -> list[Bubble]:
        return [bubble for bubble in self.bubbles.values() if bubble.chat == chat]
