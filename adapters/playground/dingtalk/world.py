"""People, chats and what stands in them."""

from __future__ import annotations

import asyncio
import base64
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adapters.playground.view import Block, Bubble
from bot.contract import Clock


@dataclass(frozen=True, slots=True)
class SimPerson:
    """`staff_id` is empty for an external member (reference/dingtalk.md 4.2);
    `sender_id` is the encrypted `$:LWCP_v1:$…` id that every message carries."""

    name: str
    staff_id: str
    sender_id: str
    union_id: str

    @property
    def id(self) -> str:
        return self.staff_id or self.sender_id


@dataclass(slots=True)
class SimChat:
    """`kind` is "1" for a private chat with the bot, "2" for a group."""

    id: str
    kind: str
    title: str
    members: list[SimPerson]
    disbanded: bool = False


@dataclass(slots=True)
class SimFile:
    """Bytes behind a download code."""

    name: str
    data: bytes
    until: float


@dataclass(slots=True)
class World:
    """Every list is in the order of arrival. `inbound` holds the payload of each message
    a person sent, by msgId; `carriers` the processQueryKey of each card, by outTrackId."""

    clock: Clock
    seed: int
    robot_code: str
    bot_name: str = "鹊桥"
    corp_id: str = "dingplayground"
    people: dict[str, SimPerson] = field(default_factory=dict)
    chats: dict[str, SimChat] = field(default_factory=dict)
    inbound: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, SimFile] = field(default_factory=dict)
    bubbles: dict[str, Bubble] = field(default_factory=dict)
    carriers: dict[str, str] = field(default_factory=dict)
    watchers: list[asyncio.Queue[tuple[str, Bubble]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    rng: random.Random = field(init=False)
    bot_sender_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.bot_sender_id = "$:LWCP_v1:$" + self._secret(12)

    # ids -----------------------------------------------------------

    def _secret(self, size: int) -> str:
        return base64.b64encode(self.rng.randbytes(size)).decode()

    def new_id(self, prefix: str = "") -> str:
        """An opaque id like the platform's: case-sensitive base64 with `/ + =`."""
        return prefix + "/+" + self._secret(16)

    # people and chats ---------------------------------------------

    def add_person(self, name: str, staff: bool = True) -> SimPerson:
        staff_id = f"{self.rng.randrange(10**13, 10**14)}" if staff else ""
        person = SimPerson(
            name, staff_id, "$:LWCP_v1:$" + self._secret(12), self._secret(12).rstrip("=") + "iE"
        )
        self.people[person.id] = person
        return person

    def add_group(self, title: str, members: list[SimPerson]) -> SimChat:
        chat = SimChat(self.new_id("cid"), "2", title, list(members))
        self.chats[chat.id] = chat
        return chat

    def p2p(self, person: SimPerson) -> SimChat:
        for chat in self.chats.values():
            if chat.kind == "1" and chat.members == [person]:
                return chat
        chat = SimChat(self.new_id("cid"), "1", person.name, [person])
        self.chats[chat.id] = chat
        return chat

    def chat(self, chat: SimChat | str) -> SimChat:
        return self.chats[chat] if isinstance(chat, str) else chat

    def person(self, person: SimPerson | str) -> SimPerson:
        return self.people[person] if isinstance(person, str) else person

    # bubbles -------------------------------------------------------

    def put(
        self,
        bubble_id: str,
        chat: str,
        author: SimPerson | None,
        blocks: list[Block],
        **fields: Any,
    ) -> Bubble:
        """A new bubble; the bot's own when `author` is None."""
        bubble = Bubble(
            id=bubble_id,
            chat=chat,
            author=author.id if author else f"bot:{self.robot_code}",
            name=author.name if author else self.bot_name,
            at=self.clock.time(),
            blocks=blocks,
            **fields,
        )
        self.bubbles[bubble_id] = bubble
        self.tell(bubble)
        return bubble

    def change(self, bubble: Bubble, alter: Callable[[Bubble], None]) -> None:
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
