"""The whole house in one thread: the services that are simulated, and the real bot as a
process that can be killed."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import voice
from disk import Disk
from looping import Loops, SimClock, SimLoop
from plan import BUSY, Message, Plan

from adapters.playground.deepseek import DeepSeekSim, Said, Trouble
from adapters.playground.deepseek.asked import Asked, text_of
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.dingtalk.link import MESSAGES
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim
from adapters.playground.feishu.events import received
from adapters.playground.view import Bubble
from bot.app import App
from bot.settings import Chat, DingTalkBot, FeishuBot, ModelService, Settings
from storage.store import SqlTurnStore

PATIENCE = 4 * 3600.0
"""Seconds, after all is well again, in which everything must have come to rest."""


_ENDED = """
SELECT turn.id, platform, reply.message_id, card_id, extra FROM turn
JOIN reply ON turn_id = turn.id WHERE delivery <> 'undelivered' AND ended_at < ?
"""


class Calls(list[Any]):
    """A simulator's record of calls, which tells of each as it arrives."""

    def __init__(self, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, call: Any) -> None:
        super().append(call)
        self._tell(call)


@dataclass
class Asked_:
    """A message that somebody said: where, and what it was called there."""

    message: Message
    id: str
    chat: str
    thread: str
    command: str = ""

    @property
    def nonce(self) -> str:
        return "" if self.command else self.message.nonce


@dataclass
class Process:
    """One run of the bot. `app` is there once it has started."""

    loop: SimLoop
    disk: Disk
    app: App | None = None
    main: asyncio.Task[None] | None = None


@dataclass
class House:
    plan: Plan
    folder: Path
    trace: list[tuple[float, str]] = field(default_factory=list)
    said: list[Asked_] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    bot: Process | None = None

    def __post_init__(self) -> None:
        self.loops = Loops()
        self.clock = SimClock(self.loops.now)
        self.began = self.loops.now.seconds
        self.rng = Random(f"house {self.plan.seed}")
        self.world = self.loops.add()
        self.feishu = FeishuSim(self.clock, seed=self.plan.seed)
        self.dingtalk = DingTalkSim(self.clock, seed=self.plan.seed)
        self.deepseek = DeepSeekSim(self.clock, seed=self.plan.seed)
        self._cast: dict[str, list[Any]] = {}
        self._chats: dict[tuple[str, str], Any] = {}
        self._fuses: dict[str, float] = {}
        self._acting: set[asyncio.Task[None]] = set()
        self._away: set[str] = set()
        self._variants: Counter[str] = Counter()
        self._reader: sqlite3.Connection | None = None
        self._watching: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------ telling

    @property
    def time(self) -> float:
        return self.loops.now.seconds - self.began

    def tell(self, words: str) -> None:
        self.trace.append((self.time, words))

    def blame(self, words: str) -> None:
        if words not in self.wrong:
            self.wrong.append(words)
            self.tell(f"!!! {words}")

    def sim(self, platform: str) -> Any:
        return {"feishu": self.feishu, "dingtalk": self.dingtalk}[platform]

    # ------------------------------------------------------------ the services

    async def open(self) -> None:
        for name, sim in (("feishu", self.feishu), ("dingtalk", self.dingtalk)):
            sim._b.calls = Calls(lambda call, name=name: self._called(name, call))
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

    def chat(self, message: Message) -> Any:
        known = self._chats.get((message.platform, message.place))
        return known or self.sim(message.platform).p2p(self.person(message))

    def person(self, message: Message) -> Any:
        return self._cast[message.platform][message.person]

    def _called(self, platform: str, call: Any) -> None:
        self.calls.append((self.time, platform, call))
        fuse = f"{platform} {call.route}"
        if fuse in self._fuses and self.bot is not None:
            self.kill(self._fuses.pop(fuse), f"{fuse} has arrived")

    calls: list[tuple[float, str, Any]] = field(default_factory=list)

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
        """No card is open 30 s after its turn ended."""
        while True:
            await self.clock.sleep(10.0)
            for turn, platform, message, card, extra in self.query(_ENDED, self.clock.time() - 30):
                left = json.loads(extra).get("left") or []
                ids = {message, card, *([left] if isinstance(left, str) else left)}
                bubbles = self.sim(platform).world.bubbles
                if any(id_ in bubbles and bubbles[id_].streaming for id_ in ids):
                    self.blame(f"a {platform} card of turn {turn[:8]} is open 30 s after its end")

    # ------------------------------------------------------------ the model

    def _speak(self, asked: Asked) -> Said:
        asking = [m for m in asked.messages if m["role"] == "user"]
        here = _NonceList(voice.NONCE.findall(asked.question))
        nonce = here.last
        own = {s.message.nonce for s in self.said if self._room(s) == self._room_of(nonce)}
        for foreign in voice.nonces(" ".join(text_of(m) for m in asked.messages)) - own:
            self.blame(f"the prompt of {nonce} holds {foreign} of another conversation")
        text = self._text(nonce, asked.prefix or "")
        rng = Random(f"pace {self.plan.seed} {nonce} {len(asking)}")
        pace = rng.choice((0.0, 0.02, 0.1, 0.3))
        self.tell(f"  model is asked {nonce}" + (" to go on" if asked.prefix else ""))
        return Said(
            voice.chunks_of(text, self.plan.seed),
            voice.chunks_of(voice.thoughts_of(nonce), self.plan.seed),
            pace=pace,
            first=rng.choice((0.0, 0.3, 2.0)),
        )

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

    def _room(self, said: Asked_) -> tuple[Any, ...]:
        """The conversation that a message belongs to."""
        alone = self.plan.knobs.get("chat.memory") == "person" and said.message.place != "p2p"
        return said.chat, said.thread, said.message.person if alone else 0

    def _room_of(self, nonce: str) -> tuple[Any, ...]:
        return next((self._room(s) for s in self.said if s.message.nonce == nonce), ())

    # ------------------------------------------------------------ the bot

    @property
    def settings(self) -> Settings:
        knobs = self.plan.knobs
        template = knobs.get("template", "full")
        templates = {"full": self.dingtalk.card_template_id, "none": ""}
        return Settings(
            bots=(
                FeishuBot(
                    self.feishu.app_id, self.feishu.app_secret, base_url=self.feishu.base_url
                ),
                DingTalkBot(
                    self.dingtalk.client_id,
                    self.dingtalk.client_secret,
                    base_url=self.dingtalk.base_url,
                    oapi_base_url=self.dingtalk.base_url,
                    card_template_id=templates.get(template, self.dingtalk.plain_template_id),
                    card_state_key="state" if template == "full" else "",
                ),
            ),
            model=ModelService(
                self.deepseek.api_key, base_url=self.deepseek.base_url, **_of(knobs, "model")
            ),
            chat=Chat(grace=2.0, **_of(knobs, "chat")),
            data=self.folder,
            http=("127.0.0.1", 0),
        )

    @property
    def database(self) -> Path:
        return self.folder / "queqiao.db"

    def start(self) -> None:
        loop = self.loops.add(self._burnt)
        process = Process(loop, Disk(self.database, self.clock.time, self.rng))
        self.bot = process
        self.tell("the bot starts")
        process.main = loop.create_task(self._main(process))

    async def _main(self, process: Process) -> None:
        try:
            await process.disk.open()
            app = App(self.settings, SqlTurnStore(process.disk, self.clock), self.clock)
            await app.start()
        except Exception as error:
            self.blame(f"the bot did not start: {error!r}")
            raise
        process.app = app

    def _burnt(self) -> None:
        self.kill(self._down, "its fuse has burnt down")

    _down = 1.0

    def kill(self, down: float, why: str) -> None:
        """The plug is pulled; it comes back after `down` seconds."""
        process, self.bot = self.bot, None
        if process is None:
            return
        self.tell(f"kill -9: {why}")
        self._end(process)
        self.world.call_later(down, self._back)

    def _end(self, process: Process) -> None:
        process.loop.kill()
        process.disk.kill()
        self.loops.bury(process.loop)

    def _back(self) -> None:
        if self.bot is None:
            self.start()

    async def on_bot(self, work: Callable[[App], Awaitable[Any]]) -> Any:
        """Do something in the bot's process, and wait for it."""
        process = self.bot
        while process is None or process.app is None:
            await asyncio.sleep(0.05)
            process = self.bot
        task = process.loop.create_task(_awaited(work(process.app)))
        while not task.done():
            await asyncio.sleep(0.02)
        return task.result()

    async def stop(self) -> None:
        """SIGTERM, and until it is gone."""
        process = self.bot
        if process is None or process.app is None:
            return
        self.tell("SIGTERM")
        with suppress(Exception):
            await self.on_bot(lambda app: app.close())
        if self.bot is process:
            self.bot = None
            self._end(process)
            self.tell("the bot has ended")

    # ------------------------------------------------------------ what people do

    async def do_say(self, message: Message) -> None:
        await self._say(message, f"问 {message.nonce}：请回答", message.times)

    async def do_command(self, message: Message, command: str) -> None:
        await self._say(message, command, 1, command=command)

    async def _say(self, message: Message, text: str, times: int, command: str = "") -> None:
        sim, chat = self.sim(message.platform), self.chat(message)
        more: dict[str, Any] = {"mention_bot": message.place != "p2p", "times": times}
        thread = self._thread(message, command)
        if thread:
            more["thread"] = thread
        if command == "[image]":
            more["kind"] = "image" if message.platform == "feishu" else "picture"
        entry = Asked_(message, "", chat.id, thread, command)
        self.said.append(entry)
        entry.id = await sim.say(chat, self.person(message), text, **more)
        entry.thread = sim.world.bubbles[entry.id].thread if message.platform == "feishu" else ""

    def _thread(self, message: Message, command: str) -> str:
        of = message.number if command else message.thread_of
        found = [s.thread for s in self.said if s.message.number == of and not s.command]
        return found[0] if found and message.place == "topic" else ""

    def asked(self, message: Message) -> Asked_ | None:
        found = [s for s in self.said if s.message is message and not s.command and s.id]
        return found[0] if found else None

    async def do_recall(self, message: Message) -> None:
        asked = self.asked(message)
        if asked is not None:
            self.recalled.add(asked.id)
            await self.feishu.recall(asked.id)

    recalled: set[str] = field(default_factory=set)

    async def do_again(self, message: Message) -> None:
        asked = self.asked(message)
        if asked is None:
            return
        if message.platform == "feishu":
            event = received(self.feishu._b, self.feishu.world.messages[asked.id])
            await self.feishu.deliver_event("im.message.receive_v1", event)
        else:
            await self.dingtalk.deliver_raw(MESSAGES, self.dingtalk.world.inbound[asked.id])

    async def do_press(self, message: Message, label: str) -> None:
        asked, sim = self.asked(message), self.sim(message.platform)
        words = {"stop": "停止", "retry": "重新生成"}[label]
        for bubble in sim.bot_bubbles(self.chat(message)) if asked else ():
            mine = asked.id == bubble.reply_to or message.nonce in bubble.text
            blocks = [b.id for b in bubble.buttons() if b.text == words]
            if mine and blocks:
                seen = await sim.press(bubble.id, blocks[0], self.person(message))
                self.tell(f"  the presser sees {seen}")
                return

    # ------------------------------------------------------------ what goes wrong

    async def do_fault(self, platform: str, route: str, fault: Fault, times: int) -> None:
        self.sim(platform).faults.order(route, fault, times)

    async def do_trouble(self, trouble: Trouble, times: int) -> None:
        self.deepseek.order(trouble, times)

    async def do_link(self, platform: str, what: str) -> None:
        sim = self.sim(platform)
        if what == "cut":
            sim.cut_links()
        elif what == "leave" and platform == "dingtalk":
            await sim.leave_links()
        elif what in ("mute", "half-open"):
            sim.mute_links(half_open=what == "half-open")
        else:
            await sim.close_links(1006 if what == "leave" else 1000)

    async def do_away(self, platform: str, seconds: float) -> None:
        if platform in self._away:
            return
        self._away.add(platform)
        await self.sim(platform).go_away()
        await self.clock.sleep(seconds)
        await self.sim(platform).come_back()
        self._away.discard(platform)

    async def do_revoke(self, platform: str) -> None:
        self.sim(platform).revoke_tokens()

    async def do_refuse(self, code: int, seconds: float) -> None:
        self.feishu.refuse_in(self._chats["feishu", "group"], code)
        await self.clock.sleep(seconds)
        self.feishu.refuse_in(self._chats["feishu", "group"], 0)

    async def do_kill(self, down: float, turns: int, route: str) -> None:
        if self.bot is None:
            return
        if route:
            self._fuses[route] = down
        elif turns:
            self._down = down
            self.bot.loop.watchful.fuse = turns
        else:
            self.kill(down, "now")

    async def do_restart(self, down: float) -> None:
        await self.stop()
        await self.clock.sleep(down)
        self._back()

    # ------------------------------------------------------------ a whole story

    async def play(self) -> None:
        """Until everything that was to happen has happened, and has come to rest."""
        self.start()
        for action in self.plan.actions:
            await self.clock.sleep(action.at - self.time)
            self.tell(f"* {action.words}")
            work = getattr(self, f"do_{action.do}")(*action.args)
            task = asyncio.create_task(work)
            self._acting.add(task)
            task.add_done_callback(self._acted)
        await self.clock.sleep(max(BUSY - self.time, 0.0))
        await self.heal()
        await self.rest()

    def _acted(self, task: asyncio.Task[None]) -> None:
        self._acting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.blame(f"the fuzz itself: {task.exception()!r}")
            logging.getLogger("fuzz").error("", exc_info=task.exception())

    async def heal(self) -> None:
        while self._acting:
            await self.clock.sleep(0.5)
        self._fuses.clear()
        for sim in (self.feishu, self.dingtalk):
            sim.faults.clear()
        self.deepseek.clear_orders()
        for process in filter(None, (self.bot,)):
            process.loop.watchful.fuse = -1
        self.tell("* all is well again")

    async def rest(self) -> None:
        until, quiet = self.time + PATIENCE, 0
        while self.time < until and quiet < 5:
            await self.clock.sleep(10.0)
            busy = self.unrest()
            quiet = 0 if busy else quiet + 1
        if quiet < 5:
            self.blame(f"no rest after {PATIENCE:.0f} s: {self.unrest()}")
        self.tell("* everything is at rest")

    def unrest(self) -> str:
        """What is not over yet."""
        if self.bot is None or self.bot.app is None:
            return "the bot is not up"
        open_turns = self.query(
            "SELECT id FROM turn WHERE ended_at IS NULL OR retry_at IS NOT NULL"
        )
        if open_turns:
            return f"turns {', '.join(row[0][:8] for row in open_turns)}"
        acks = self.feishu.acks
        waiting = [e for e, at in acks.items() if at is None and e not in self.feishu.lost]
        if waiting:
            return f"{len(waiting)} events of Feishu are not acknowledged"
        if self.dingtalk._deliveries._tasks:
            return "DingTalk delivers again"
        return f"{self.deepseek.open_streams} answers" if self.deepseek.open_streams else ""

    def query(self, statement: str, *values: Any) -> list[Any]:
        if self._reader is None:
            if not self.database.exists():
                return []
            self._reader = sqlite3.connect(self.database)
        return self._reader.execute(statement, values).fetchall()

    async def close(self) -> None:
        await self.stop()
        for task in self._watching:
            task.cancel()
        for sim in (self.feishu, self.dingtalk, self.deepseek):
            await sim.close()


class _NonceList(list[str]):
    @property
    def last(self) -> str:
        return self[-1] if self else ""


def _of(knobs: dict[str, Any], table: str) -> dict[str, Any]:
    found = {key.partition("."): value for key, value in knobs.items()}
    return {name: value for (first, _, name), value in found.items() if first == table}


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


def _short(name: str) -> str:
    return name if len(name) < 16 else f"{name[:6]}…{name[-6:]}"
