"""The world of the demo: who chats where, on both simulated platforms.

The page knows people and chats by short keys (`p0`, `feishu:group`, `dingtalk:p1`); the
platforms' own ids stay here.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from adapters.playground.deepseek import DeepSeekSim
from adapters.playground.troubles import Troubles
from adapters.playground.view import Bubble
from adapters.playground.watch import Employee, Watch
from bot.contract import Clock, Platform
from bot.texts import en, zh

Json = dict[str, Any]
Listener = Callable[[str, str, Json], None]
"""(kind, key, value): of one kind and key only the newest value matters."""

PEOPLE = ("林晓", "王磊", "陈静", "Alex")
"""The first one is the admin."""

GROUPS: dict[Platform, str] = {"feishu": "产品讨论组", "dingtalk": "项目协作群"}
LOOK_EVERY = 0.5
"""Seconds between two looks at the links and at what is still to go wrong."""


class ChatSim(Protocol):
    """A simulated platform, as far as the page needs it. `recall` is optional."""

    @property
    def links(self) -> Collection[Any]: ...

    def add_person(self, name: str) -> Any: ...

    def add_group(self, name: str, members: Any) -> Any: ...

    def p2p(self, person: Any) -> Any: ...

    async def say(
        self, chat: Any, person: Any, text: str, *, mention_bot: bool, mention_all: bool
    ) -> str: ...

    async def press(self, bubble_id: str, block_id: str, person: Any) -> Mapping[str, Any]: ...

    def bubbles(self, chat: Any) -> list[Bubble]: ...

    def subscribe(self) -> asyncio.Queue[tuple[str, Bubble]]: ...

    def cut_links(self) -> Any: ...


class Mistake(Exception):
    """The page asked for something that is not there (any more)."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One chat. `owner` is the person of a private chat, empty for a group."""

    key: str
    platform: Platform
    chat: Any
    title: str
    owner: str = ""


class Scene:
    """Two platforms with the same people, one group each and a private chat for every
    person. `model` is None when the real service answers."""

    def __init__(
        self,
        feishu: ChatSim,
        dingtalk: ChatSim,
        clock: Clock,
        model: DeepSeekSim | None = None,
    ) -> None:
        self._sims: dict[Platform, ChatSim] = {"feishu": feishu, "dingtalk": dingtalk}
        self._clock, self._model = clock, model
        self._troubles = Troubles(self._sims, clock, model)
        self._watch: Watch | None = None
        self._people: dict[Platform, list[Any]] = {}
        self._places: dict[str, _Place] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._told: dict[tuple[str, str], Json] = {}
        self._listeners: list[Listener] = []
        self._tasks: list[asyncio.Task[None]] = []
        for platform in self._sims:
            self._furnish(platform)

    def _furnish(self, platform: Platform) -> None:
        sim = self._sims[platform]
        people = self._people[platform] = [sim.add_person(name) for name in PEOPLE]
        group = sim.add_group(GROUPS[platform], people)
        self._add(_Place(f"{platform}:group", platform, group, GROUPS[platform]))
        for number, person in enumerate(people):
            key = f"{platform}:p{number}"
            self._add(_Place(key, platform, sim.p2p(person), "鹊桥", owner=f"p{number}"))
            self._keys[platform, id_of(person)] = key  # as DingTalk's bots name the chat

    def _add(self, place: _Place) -> None:
        self._places[place.key] = place
        self._keys[place.platform, id_of(place.chat)] = place.key

    # life -----------------------------------------------------------------

    def employ(self, bot: Employee) -> None:
        """The bot that works here: the page tells how it is, and may pull its plug."""
        self._troubles.employ(bot)
        self._watch = Watch(bot, self._clock, self._tell_new, self._key_of, self._watched)
        self._tasks.append(asyncio.create_task(self._watch.run()))

    def _key_of(self, platform: str, chat: str) -> str | None:
        return self._keys.get((platform, chat))

    def _watched(self) -> bool:
        return bool(self._listeners)

    def start(self) -> None:
        """Listen to the platforms."""
        for platform, sim in self._sims.items():
            self._tasks.append(asyncio.create_task(self._pump(platform, sim.subscribe())))
        self._tasks.append(asyncio.create_task(self._look()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._troubles.close()

    async def _pump(self, platform: Platform, queue: asyncio.Queue[tuple[str, Bubble]]) -> None:
        while True:
            chat, bubble = await queue.get()
            key = self._keys.get((platform, chat))
            if key is not None:
                self._tell("bubble", f"{key} {bubble.id}", self._shown(key, bubble))

    async def _look(self) -> None:
        while True:
            self._troubles.tend()
            for platform, link in self._links().items():
                self._tell_new("link", platform, {"platform": platform, "state": link})
            self._tell_new("faults", "", self._troubles.as_json())
            await self._clock.sleep(LOOK_EVERY)

    def _tell_new(self, kind: str, key: str, value: Json) -> None:
        if self._told.get((kind, key)) != value:
            self._told[kind, key] = value
            self._tell(kind, key, value)

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Tell `listener` every change while the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _tell(self, kind: str, key: str, value: Json) -> None:
        for listener in list(self._listeners):
            listener(kind, key, value)

    # what the page shows ------------------------------------------------------

    def view(self) -> Json:
        """Everything, for a page that has just come."""
        return {
            "real": self._model is None,
            "people": [{"key": f"p{n}", "name": name} for n, name in enumerate(PEOPLE)],
            "chats": [self._chat(place) for place in self._places.values()],
            "links": self._links(),
            "faults": self._troubles.as_json(),
            "health": self._watch.health if self._watch else None,
            "trails": self._watch.trails if self._watch else {},
            "bubbles": [
                self._shown(place.key, bubble)
                for place in self._places.values()
                for bubble in self._sims[place.platform].bubbles(place.chat)
            ],
        }

    def _chat(self, place: _Place) -> Json:
        return {
            "key": place.key,
            "platform": place.platform,
            "title": place.title,
            "owner": place.owner,
            "members": 2 if place.owner else len(PEOPLE) + 1,
            "recall": hasattr(self._sims[place.platform], "recall"),
        }

    def _shown(self, key: str, bubble: Bubble) -> Json:
        platform = self._places[key].platform
        return bubble.as_json() | {
            "chat": key,
            "author": self._who(platform, bubble.author),
            "pings": [self._who(platform, ping) for ping in bubble.pings],
            "reset": bubble.author.startswith("bot:") and bubble.text.startswith(_RESETS),
        }

    def _who(self, platform: Platform, person: str) -> str:
        for number, known in enumerate(self._people[platform]):
            if id_of(known) == person:
                return f"p{number}"
        return "bot" if person.startswith("bot:") else person

    def _links(self) -> Mapping[Platform, str]:
        """up, down, or deaf: links are there, and nothing comes through."""
        return {platform: _link_state(sim.links) for platform, sim in self._sims.items()}

    @property
    def admins(self) -> list[str]:
        """The first person, as the settings name admins."""
        return [f"{platform}:{id_of(people[0])}" for platform, people in self._people.items()]

    # what the page does -----------------------------------------------------------

    async def say(self, key: str, person: str, text: str, *, bot: bool, everybody: bool) -> str:
        """A person writes into a chat; returns the bubble's id. Raises Mistake."""
        place, number = self._place(key), self._number(person)
        if place.owner not in ("", person):
            raise Mistake("not in this chat")
        group = not place.owner
        return await self._sims[place.platform].say(
            place.chat,
            self._people[place.platform][number],
            text,
            mention_bot=bot and group,
            mention_all=everybody and group,
        )

    async def press(self, key: str, bubble: str, block: str, person: str) -> Json:
        """A person touches a button; the toast to show, empty for none. Raises Mistake."""
        place, number = self._place(key), self._number(person)
        presser = self._people[place.platform][number]
        try:
            answer = await self._sims[place.platform].press(bubble, block, presser)
        except (KeyError, ValueError):
            raise Mistake("no such button") from None
        return _toast(answer)

    async def recall(self, key: str, bubble: str, person: str) -> None:
        """A person takes back a message of their own. Raises Mistake."""
        place, number = self._place(key), self._number(person)
        sim = self._sims[place.platform]
        take_back = getattr(sim, "recall", None)
        author = id_of(self._people[place.platform][number])
        mine = any(b.id == bubble and b.author == author for b in sim.bubbles(place.chat))
        if take_back is None or not mine:
            raise Mistake("not yours")
        done = take_back(bubble)
        if inspect.isawaitable(done):
            await done

    async def fault(self, name: str) -> None:
        """One thing goes wrong. Raises Mistake."""
        try:
            await self._troubles.cause(name)
        except KeyError:
            raise Mistake("no such fault") from None
        self._tell_new("faults", "", self._troubles.as_json())

    def _place(self, key: str) -> _Place:
        if key not in self._places:
            raise Mistake("no such chat")
        return self._places[key]

    def _number(self, person: str) -> int:
        keys = [f"p{number}" for number in range(len(PEOPLE))]
        if person not in keys:
            raise Mistake("no such person")
        return keys.index(person)


def _link_state(links: Collection[Any]) -> str:
    if not links:
        return "down"
    return "deaf" if all(getattr(link, "muted", False) for link in links) else "up"


def id_of(thing: Any) -> str:
    """The id of a person or chat, which a simulator may also name by its id alone."""
    return str(getattr(thing, "id", thing))


_RESETS = tuple(texts.SENTENCES["done.new.empty"].rstrip(".。") for texts in (zh, en))
"""How every answer to /new begins."""


def _toast(answer: Mapping[str, Any]) -> Json:
    toast = answer.get("toast", answer)
    if isinstance(toast, Mapping) and toast.get("content"):
        kind = toast.get("type", "info")
        return {"text": str(toast["content"]), "kind": str(kind)}
    if answer.get("error"):
        return {"text": "", "kind": "error", "error": str(answer["error"])}
    return {}
