"""Two platforms, a model service, the people who write, and whoever watches them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import voice
from plan import Message, Plan

from adapters.playground.deepseek import DeepSeekSim, Said
from adapters.playground.deepseek.asked import Asked, text_of
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.feishu import FeishuSim
from adapters.playground.offers import drop_half_open
from adapters.playground.view import Bubble
from bot.contract import Clock, TurnStore

_ENDED = """
SELECT turn.id, platform, reply.message_id, card_id, extra FROM turn
JOIN reply ON turn_id = turn.id WHERE delivery <> 'undelivered' AND ended_at < ?
"""

_UNFINISHED = "SELECT id FROM turn WHERE ended_at IS NULL OR retry_at IS NOT NULL"


class Calls(list[Any]):
    """A simulator's record of calls, which tells of each as it arrives."""

    def __init__(self, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, call: Any) -> None:
        super().append(call)
        self._tell(call)


@dataclass
class Spoken:
    """A message that somebody said: where, and what it is called there. `command`: what
    was said beside the message, instead of its question."""

    message: Message
    chat: str
    thread: str = ""
    id: str = ""
    command: str = ""

    @property
    def name(self) -> str:
        nonce = self.message.nonce
        return f"{self.command} beside {nonce}" if self.command else nonce


class Town(ABC):
    """`trace` is what happened, `wrong` what must not happen and did."""

    def __init__(self, plan: Plan, folder: Path, clock: Clock) -> None:
        self.plan, self.folder, self.clock = plan, folder, clock
        self._began = clock.monotonic()
        self.trace: list[tuple[float, str]] = []
        self.calls: list[tuple[float, str, Any]] = []
        self.said: list[Spoken] = []
        self.wrong: list[str] = []
        self.recalled: set[str] = set()
        self.restarts = -1
        self.feishu = FeishuSim(clock, seed=plan.seed)
        self.dingtalk = DingTalkSim(clock, seed=plan.seed)
        self.deepseek = DeepSeekSim(clock, seed=plan.seed)
        self._cast: dict[str, list[Any]] = {}
        self._chats: dict[tuple[str, str], Any] = {}
        self._variants: Counter[str] = Counter()
        self._watching: list[asyncio.Task[None]] = []
        self._reader: sqlite3.Connection | None = None

    # ------------------------------------------------------------ the bot

    @property
    @abstractmethod
    def up(self) -> bool:
        """Whether the bot runs."""

    @abstractmethod
    async def read(self, work: Callable[[TurnStore], Awaitable[None]]) -> None:
        """Look into the bot's store."""

    def called(self, platform: str, call: Any) -> None:
        """A call has arrived at a platform."""
        self.calls.append((self.time, platform, call))

    # ------------------------------------------------------------ telling

    @property
    def time(self) -> float:
        return self.clock.monotonic() - self._began

    def tell(self, words: str) -> None:
        self.trace.append((self.time, words))

    @property
    def given_up(self) -> bool:
        """Whether the app itself was refused the calls that close a card."""
        return any("given up stays open" in words for _, words in self.trace)

    def blame(self, words: str) -> None:
        if words not in self.wrong:
            self.wrong.append(words)
            self.tell(f"!!! {words}")

    def sim(self, platform: str) -> Any:
        return {"feishu": self.feishu, "dingtalk": self.dingtalk}[platform]

    # ------------------------------------------------------------ opening hours

    async def open(self) -> None:
        for name, sim in (("feishu", self.feishu), ("dingtalk", self.dingtalk)):
            sim._b.calls = Calls(lambda call, name=name: self.called(name, call))
            await sim.start()
            self._furnish(name, sim)
            self._watching.append(asyncio.create_task(self._watch(name, sim.subscribe())))
        self._watching.append(asyncio.create_task(self._look()))
        await self.deepseek.start()
        self.deepseek.answer_with(self._speak)

    def _furnish(self, name: str, sim: Any) -> None:
        for knob, value in self.plan.knobs.items():
            platform, _, key = knob.partition(".")
            if platform == name:
                setattr(sim.policy, key, set(value) if key == "missing_scopes" else value)
        people = self._cast[name] = [sim.add_person(f"人{n}") for n in range(3)]
        self._chats[name, "group"] = sim.add_group("群", people)
        if name == "feishu":
            self._chats[name, "topic"] = sim.add_group("话题群", people, topic=True)

    async def close(self) -> None:
        for task in self._watching:
            task.cancel()
        for sim in (self.feishu, self.dingtalk, self.deepseek):
            await sim.close()

    # ------------------------------------------------------------ watching

    async def _watch(self, platform: str, queue: asyncio.Queue[tuple[str, Bubble]]) -> None:
        """What anybody sees at any moment stays in its own chat."""
        while True:
            chat, bubble = await queue.get()
            if not bubble.author.startswith("bot:"):
                continue
            seen = voice.nonces(" ".join(f"{b.title} {b.text}" for b in bubble.blocks))
            own = {said.message.nonce for said in self.said if said.chat == chat}
            for nonce in seen - own:
                self.blame(f"{nonce} is seen in a foreign chat: {platform} {bubble.id}")
            state = "gone" if bubble.recalled else "open" if bubble.streaming else "closed"
            words = f"{len(voice.letters(bubble.text))} letters"
            self.tell(f"    {platform} {_short(bubble.id)} {bubble.kind} {state}, {words}")

    async def _look(self) -> None:
        """No card is open 30 s after its turn ended. And what platforms do by themselves."""
        while True:
            await self.clock.sleep(10.0)
            drop_half_open(self.feishu)
            drop_half_open(self.dingtalk)
            for turn, platform, message, card, extra in self.query(_ENDED, self.clock.time() - 30):
                left = json.loads(extra).get("left") or []
                ids = {message, card, *([left] if isinstance(left, str) else left)}
                bubbles = self.sim(platform).world.bubbles
                open_still = any(id_ in bubbles and bubbles[id_].streaming for id_ in ids)
                if open_still and not self.given_up:
                    self.blame(f"a {platform} card of turn {turn[:8]} is open 30 s after its end")

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Rows of the bot's database."""
        file = self.folder / "queqiao.db"
        if self._reader is None:
            if not file.exists():
                return []
            self._reader = sqlite3.connect(file)
        try:
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.OperationalError:
            return []  # not yet a database

    def unrest(self) -> str:
        """What is not over yet; empty when everything is at rest."""
        if not self.up:
            return "the bot is not up"
        unfinished = [row[0][:8] for row in self.query(_UNFINISHED)]
        if unfinished:
            return f"turns {', '.join(unfinished)}"
        lost = self.feishu.lost
        if any(at is None and event not in lost for event, at in self.feishu.acks.items()):
            return "Feishu waits for acknowledgements"
        if self.dingtalk._deliveries._tasks:
            return "DingTalk delivers again"
        return f"{self.deepseek.open_streams} answers" if self.deepseek.open_streams else ""

    # ------------------------------------------------------------ the model

    def _speak(self, asked: Asked) -> Said:
        nonce = voice.NONCE.findall(asked.question)[-1]
        here = next((self._room(s) for s in self.said if s.message.nonce == nonce), ())
        own = {s.message.nonce for s in self.said if self._room(s) == here}
        for foreign in voice.nonces(" ".join(text_of(m) for m in asked.messages)) - own:
            self.blame(f"the prompt of {nonce} holds {foreign} of another conversation")
        self.tell(f"  model is asked {nonce}" + (" to go on" if asked.prefix else ""))
        text, seed = self._text(nonce, asked.prefix or ""), self.plan.seed
        rng = Random(f"pace {seed} {nonce} {self._variants[nonce]}")
        thoughts = voice.chunks_of(voice.thoughts_of(nonce), seed)
        pace, first = rng.choice((0.0, 0.02, 0.1, 0.3)), rng.choice((0.0, 0.3, 2.0))
        return Said(voice.chunks_of(text, seed), thoughts, pace=pace, first=first)

    def _text(self, nonce: str, begun: str) -> str:
        """Another answer each time, unless one is to be continued."""
        for text in self.texts(nonce):
            if begun and text.startswith(begun):
                return text
        self._variants[nonce] += 1
        return self.texts(nonce)[-1]

    def texts(self, nonce: str) -> list[str]:
        """All that the model began to answer."""
        seed = self.plan.seed
        return [voice.text_of(nonce, seed, number) for number in range(self._variants[nonce])]

    def _room(self, said: Spoken) -> tuple[Any, ...]:
        """The conversation that a message belongs to."""
        alone = self.plan.knobs.get("chat.memory") == "person" and said.message.place != "p2p"
        return said.chat, said.thread, said.message.person if alone else 0


def _short(name: str) -> str:
    return name if len(name) < 16 else f"{name[:6]}…{name[-6:]}"
