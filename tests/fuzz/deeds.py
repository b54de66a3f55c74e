"""What people do in the town, and what goes wrong there: a method for each kind of action."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from plan import Action, Message, Plan
from town import Spoken, Town

from adapters.playground.deepseek import Trouble
from adapters.playground.dingtalk.link import MESSAGES
from adapters.playground.faults import Fault
from adapters.playground.feishu.events import received
from bot.contract import Clock

LABELS = {"stop": "停止", "retry": "重新生成"}


class Deeds(Town):
    """`act` begins an action of the plan; `heal` ends all that is wrong."""

    def __init__(self, plan: Plan, folder: Path, clock: Clock) -> None:
        super().__init__(plan, folder, clock)
        self._away: set[str] = set()
        self._acting: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ what people do

    def act(self, action: Action) -> None:
        """Begin what the action says."""
        self.tell(f"* {action.words}")
        task = asyncio.create_task(getattr(self, f"do_{action.do}")(*action.args))
        self._acting.add(task)
        task.add_done_callback(self._acted)

    def _acted(self, task: asyncio.Task[None]) -> None:
        self._acting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.blame(f"the fuzz itself: {task.exception()!r}")
            logging.getLogger("fuzz").error("", exc_info=task.exception())

    async def heal(self) -> None:
        """From now on all is well."""
        while self._acting:
            await self.clock.sleep(0.5)
        for sim in (self.feishu, self.dingtalk):
            sim.faults.clear()
        self.deepseek.clear_orders()
        self.tell("* all is well again")

    async def do_say(self, message: Message) -> None:
        await self._say(message, f"问 {message.nonce}：请回答", message.times)

    async def do_command(self, message: Message, command: str) -> None:
        await self._say(message, command, 1, command=command)

    async def _say(self, message: Message, text: str, times: int, command: str = "") -> None:
        sim, chat = self.sim(message.platform), self._chat(message)
        more: dict[str, Any] = {"mention_bot": message.place != "p2p", "times": times}
        thread = self._thread(message, command)
        if thread:
            more["thread"] = thread
        if command == "[image]":
            more["kind"] = "image" if message.platform == "feishu" else "picture"
        said = Spoken(message, chat.id, thread, command=command)
        self.said.append(said)
        said.id = await sim.say(chat, self._person(message), text, **more)
        said.thread = sim.world.bubbles[said.id].thread if message.platform == "feishu" else ""

    def _chat(self, message: Message) -> Any:
        known = self._chats.get((message.platform, message.place))
        return known or self.sim(message.platform).p2p(self._person(message))

    def _person(self, message: Message) -> Any:
        return self._cast[message.platform][message.person]

    def _thread(self, message: Message, command: str) -> str:
        of = message.number if command else message.thread_of
        found = [s.thread for s in self.said if s.message.number == of and not s.command]
        return found[0] if found and message.place == "topic" else ""

    def _spoken(self, message: Message) -> Spoken | None:
        found = [s for s in self.said if s.message is message and not s.command and s.id]
        return found[0] if found else None

    async def do_recall(self, message: Message) -> None:
        said = self._spoken(message)
        if said is not None:
            self.recalled.add(said.id)
            await self.feishu.recall(said.id)

    async def do_again(self, message: Message) -> None:
        said = self._spoken(message)
        if said is None:
            return
        if message.platform == "feishu":
            event = received(self.feishu._b, self.feishu.world.messages[said.id])
            await self.feishu.deliver_event("im.message.receive_v1", event)
        else:
            await self.dingtalk.deliver_raw(MESSAGES, self.dingtalk.world.inbound[said.id])

    async def do_press(self, message: Message, label: str) -> None:
        said, sim = self._spoken(message), self.sim(message.platform)
        for bubble in sim.bot_bubbles(self._chat(message)) if said else ():
            mine = said.id == bubble.reply_to or message.nonce in bubble.text
            blocks = [b.id for b in bubble.buttons() if b.text == LABELS[label]]
            if mine and blocks:
                seen = await sim.press(bubble.id, blocks[0], self._person(message))
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
