"""Few calls and a text that seems to flow: whole answers in virtual time against the
simulators, with a network that takes its time, seen through the render model."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest

from adapters.dingtalk.chat import DingTalkPlatform
from adapters.dingtalk.parse import parse
from adapters.dingtalk.settings import DingTalkSettings
from adapters.feishu.card import ANSWER
from adapters.feishu.chat import FeishuPlatform
from adapters.feishu.settings import FeishuSettings
from adapters.http import Answer, Http
from adapters.playground.clock import TURNS, VirtualClock
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.dingtalk import wire as dingtalk
from adapters.playground.dingtalk.templates import SDK_MARKDOWN
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim
from adapters.playground.feishu import wire as feishu
from adapters.playground.feishu.typewriter import longest_stall_over
from bot.contract import (
    Button,
    Delivery,
    Handle,
    InboundMessage,
    Reactions,
    Saving,
    Snapshot,
)
from bot.pace import Pacer
from bot.reply import Reply

LATENCY = 0.15
STOP = (Button("stop", "停止", "t1"),)
THINKING = Snapshot(status="思考中…", buttons=STOP)
DONE = Snapshot(state="answered", footer="完", buttons=(Button("retry", "重新生成", "t1"),))
FLOWING = {
    "card_template_id": SDK_MARKDOWN,
    "card_content_key": "msgContent",
    "card_state_key": "",
}
STATELESS = {"card_state_key": ""}
ROBOT_TOPIC = "/v1.0/im/bot/messages/get"

Script = list[tuple[float, str]]
"""What the model says: (seconds since its first word, text)."""


class Wire(Http):
    """Counts what is on its way, so that virtual time can wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.over = 0

    async def call(self, *args: Any, **keys: Any) -> Answer:
        self.begun += 1
        try:
            return await super().call(*args, **keys)
        finally:
            self.over += 1


class PatientClock(VirtualClock):
    """Time moves on only when nothing is between the client and the simulator, however
    slow the machine is."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire
        self.calls: list[Any] = []

    def _quiet(self) -> bool:
        answered = sum(call.status != 0 for call in self.calls)
        return self._wire.begun == len(self.calls) and self._wire.over == answered

    async def _rest(self) -> None:
        while True:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if self._quiet():
                return
            await asyncio.sleep(0.001)


@dataclass
class Stage:
    """One chat on one platform, and an answer in it."""

    platform: Any
    clock: PatientClock
    sim: Any
    chat: Any
    address: Any
    token: str
    handles: dict[int, Handle] = field(default_factory=dict)
    written: list[tuple[float, int]] = field(default_factory=list)
    asked: int = 0
    pacer: Pacer = field(init=False)

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.clock)

    def reply(self, *, reasoning: bool = False, attempt: int = 1) -> Reply:
        handles = self.handles

        def make_sink(part: int) -> Any:
            async def save(handle: Handle) -> None:
                handles[part] = handle

            handle = handles.get(part, Handle(f"turn{self.asked}-{part}"))
            return self.platform.sink(self.address, handle, save, attempt)

        return Reply(
            make_sink,
            self.pacer,
            self.clock,
            THINKING,
            lambda *_: None,
            sealed=Snapshot(note="接下一张", state="continued"),
            show_reasoning=reasoning,
            earlier_parts=len(self.handles),
        )

    async def answer(
        self, said: Script, *, thoughts: Script = (), first: float = 1.0
    ) -> Delivery | None:
        """One answer from the question to the last call."""
        self.handles, self.written, self.asked = {}, [], self.asked + 1
        reply = self.reply(reasoning=bool(thoughts))
        reply.start()
        await self.clock.advance(first)
        await self.play(reply.add_reasoning, thoughts)
        await self.play(reply.add, said, note=True)
        return await self.until_done(reply)

    async def play(self, add: Any, said: Script, *, note: bool = False) -> None:
        begin, length = self.clock.monotonic(), 0
        for at, text in said:
            await self.clock.advance(max(0.0, begin + at - self.clock.monotonic()))
            add(text)
            length += len(text)
            if note:
                self.written.append((self.clock.monotonic(), length))

    async def until_done(self, reply: Reply, final: Snapshot = DONE) -> Delivery | None:
        delivery: Delivery | None = await self.pass_by(reply.close(final))
        return delivery

    async def pass_by(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What comes of it, while time passes."""
        task = asyncio.create_task(work)
        while not task.done():
            await self.clock.advance(0.05)
        return await task

    def spent(self) -> list[str]:
        """The routes of the calls so far, those of the token aside."""
        return [call.route for call in self.sim.calls if call.route != self.token]

    def bubbles(self) -> list[Any]:
        found: list[Any] = self.sim.bot_bubbles(self.chat)
        return found


@asynccontextmanager
async def on_feishu(**keys: Any) -> AsyncIterator[Stage]:
    wire = Wire()
    clock = PatientClock(wire)
    async with FeishuSim(clock) as sim:
        clock.calls = sim.calls
        sim.policy.latency = LATENCY
        person = sim.add_person("人")
        chat = sim.p2p(person)
        message = await sim.say(chat, person, "问")
        settings = FeishuSettings("feishu", sim.app_id, sim.app_secret, sim.base_url, **keys)
        platform = FeishuPlatform(settings, wire, clock)
        address = {"chat_id": chat.id, "message_id": message}
        try:
            yield Stage(platform, clock, sim, chat, address, feishu.TOKEN)
        finally:
            await wire.close()


@asynccontextmanager
async def on_dingtalk(**keys: Any) -> AsyncIterator[Stage]:
    wire = Wire()
    clock = PatientClock(wire)
    async with DingTalkSim(clock) as sim:
        clock.calls = sim.calls
        slow = Fault("delay", LATENCY)
        routes = (dingtalk.CARD_CREATE_DELIVER, dingtalk.CARD_STREAM, dingtalk.CARD_UPDATE)
        sim.faults.order_any(routes, slow, math.inf)
        person = sim.add_person("人")
        chat = sim.p2p(person)
        message = await sim.say(chat, person, "问")
        origin = {"base_url": sim.base_url, "oapi_base_url": sim.base_url}
        card = {"card_template_id": sim.card_template_id, "card_state_key": "state"}
        settings = DingTalkSettings(
            "ding", sim.client_id, sim.client_secret, **{**origin, **card, **keys}
        )
        platform = DingTalkPlatform(settings, wire, clock)
        asked = parse(ROBOT_TOPIC, sim.world.inbound[message], "ding", sim.client_id)
        assert isinstance(asked, InboundMessage)
        try:
            yield Stage(platform, clock, sim, chat, asked.address, dingtalk.TOKEN)
        finally:
            await wire.close()


# ---------------------------------------------------------------- how models speak


def even(speed: float, seconds: float, every: float = 0.1) -> Script:
    """The same speed all the time."""
    said, done = [], 0
    for number in range(int(seconds / every) + 1):
        length = int(speed * number * every) + 1 - done
        done += length
        said.append((number * every, "x" * length))
    return said


def bursty(speed: float, seconds: float, seed: int) -> Script:
    """Up to a second between two pieces, some long and some short."""
    rng, at, said = Random(seed), 0.0, [(0.0, "x")]
    while at < seconds:
        between = rng.choice((0.02, 0.1, 0.4, 1.0))
        at += between
        said.append((at, "x" * max(1, round(speed * between * rng.uniform(0.7, 1.3)))))
    return said


def changing(*parts: tuple[float, float], every: float = 0.1) -> Script:
    """One speed after the other, each for so many seconds; 0 is a pause."""
    said, at, length = [], 0.0, 1.0
    for speed, seconds in parts:
        for _ in range(round(seconds / every)):
            length += speed * every
            if length >= 1.0:
                said.append((at, "x" * int(length)))
                length -= int(length)
            at += every
    return said


def stall(stage: Stage, cards: int = 1) -> float:
    """Of the newest answer, which stands in so many cards."""
    frames = [stage.sim.card(bubble.id).frames for bubble in stage.bubbles()[-cards:]]
    return longest_stall_over(frames, ANSWER, stage.written)


# ---------------------------------------------------------------- Feishu


@pytest.mark.parametrize("speed", [15, 40, 80, 160])
async def test_a_minute_on_feishu_flows_with_thirty_calls(speed: int) -> None:
    async with on_feishu() as stage:
        await stage.answer(even(speed, 60.0))
        assert len(stage.spent()) <= 30
        assert stall(stage) < 1.2
        assert stage.sim.violations == [] and stage.sim.open_cards() == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("speed", [30, 90])
async def test_a_model_that_speaks_in_bursts_flows_too(speed: int, seed: int) -> None:
    async with on_feishu() as stage:
        await stage.answer(bursty(speed, 60.0, seed))
        assert len(stage.spent()) <= 30
        assert stall(stage) < 1.2


UNEVEN = {
    "slow": ((6, 60),),
    "slower and slower": ((160, 20), (8, 40)),
    "much slower": ((80, 30), (10, 30)),
    "a little slower": ((40, 30), (15, 30)),
    "faster": ((10, 30), (80, 30)),
    "now so, now so": ((80, 10), (10, 10)) * 3,
    "long pauses": (*((40, 8), (0, 10)) * 3, (40, 6)),
    "short pauses": ((60, 2), (0, 1.5)) * 17,
}


@pytest.mark.parametrize("parts", UNEVEN.values(), ids=UNEVEN)
async def test_a_model_that_changes_its_speed_flows_too(parts: Any) -> None:
    async with on_feishu() as stage:
        await stage.answer(changing(*parts))
        assert len(stage.spent()) <= 30
        assert stall(stage) < 1.2


@pytest.mark.parametrize("speed", [15, 40, 80, 160])
async def test_three_seconds_on_feishu_take_ten_calls(speed: int) -> None:
    async with on_feishu() as stage:
        await stage.answer(even(speed, 3.0))
        assert len(stage.spent()) <= 10
        assert stall(stage) < 1.2


@pytest.mark.parametrize("speed", [15, 160])
async def test_the_second_answer_is_typed_at_the_speed_of_the_first(speed: int) -> None:
    async with on_feishu() as stage:
        await stage.answer(even(speed, 20.0))
        told = stage.sim.calls_of(feishu.CARD_SETTINGS)
        before = len(stage.spent())
        await stage.answer(even(speed, 20.0))
        assert len(told) == 2, "another speed, and the end"
        assert len(stage.spent()) - before < before, "nothing to learn any more"
        assert stall(stage) < 1.2


async def test_another_model_on_the_same_bot_flows_too() -> None:
    async with on_feishu() as stage:
        for speed in (160, 15, 160):
            before = len(stage.spent())
            await stage.answer(even(speed, 60.0))
            assert len(stage.spent()) - before <= 30
            assert stall(stage) < 1.2


async def test_thoughts_under_a_fold_cost_no_frames_of_the_answer() -> None:
    async with on_feishu() as stage:
        await stage.answer(even(60, 30.0), thoughts=even(60, 30.0))
        assert len(stage.spent()) <= 30
        assert stall(stage) < 1.2
        [bubble] = stage.bubbles()
        frames = stage.sim.card(bubble.id).frames
        lengths = {len(frame.texts.get("reason_md", "")) for frame in frames}
        assert 5 <= len(lengths) <= 12, "they grow, but without haste"


async def test_what_comes_after_a_long_pause_is_not_held_back() -> None:
    async with on_feishu() as stage:
        later = [(at + 50.0, text) for at, text in even(40, 10.0)]
        await stage.answer([*even(40, 20.0), *later])
        assert len(stage.spent()) <= 30
        assert stall(stage) < 1.2


async def test_ten_minutes_take_no_hundred_calls() -> None:
    async with on_feishu() as stage:
        await stage.answer(even(20, 600.0, every=0.25))
        assert 60 <= len(stage.spent()) <= 95
        assert stall(stage) < 1.2
        assert stage.sim.violations == [] and stage.sim.open_cards() == []


@pytest.mark.parametrize(
    ("letter", "seconds", "cards", "most"),
    [("字", 60, 2, 31), ("x", 120, 2, 52), ("字", 120, 4, 54)],
)
async def test_further_cards_bring_their_own_calls_and_no_more(
    letter: str, seconds: float, cards: int, most: int
) -> None:
    async with on_feishu() as stage:
        await stage.answer([(at, letter * len(text)) for at, text in even(160, seconds)])
        assert len(stage.bubbles()) == cards
        assert len(stage.spent()) <= most
        assert stall(stage, cards=cards) < 1.2
        assert stage.sim.violations == [] and stage.sim.open_cards() == []


async def test_an_impatient_operator_shortens_the_first_gap_only() -> None:
    async with on_feishu(pace=0.2) as stage:
        await stage.answer(even(40, 60.0))
        frames = stage.sim.card(stage.bubbles()[0].id).frames
        gaps = [b.at - a.at for a, b in itertools.pairwise(frames[1:-1])]
        assert gaps[0] == pytest.approx(0.2 + LATENCY, abs=0.11)
        assert max(gaps) == pytest.approx(3.7 + LATENCY, abs=0.11 + LATENCY)


async def test_without_a_typewriter_the_replacements_are_few() -> None:
    async with on_feishu() as stage:
        stage.sim.policy.missing_scopes = {"cardkit:card:write"}
        await stage.answer(even(40, 60.0))
        calls = stage.spent()
        assert calls.count(feishu.PATCH) > 10 and len(calls) <= 25
        times = [call.at for call in stage.sim.calls_of(feishu.PATCH)]
        gaps = [b - a for a, b in itertools.pairwise(times[:-1])]
        assert min(gaps) >= 1.5 and max(gaps) < 5.0


# ---------------------------------------------------------------- DingTalk


@pytest.mark.parametrize("speed", [15, 40, 60])
async def test_a_minute_on_dingtalk_takes_twelve_calls(speed: int) -> None:
    async with on_dingtalk() as stage:
        await stage.answer(even(speed, 60.0))
        assert len(stage.spent()) <= 12
        times = [call.at for call in stage.sim.calls_of(dingtalk.CARD_STREAM)]
        gaps = [b - a for a, b in itertools.pairwise(times[:-1])]
        assert all(b > 1.3 * a for a, b in itertools.pairwise(gaps)), "ever wider"
        assert stage.sim.violations == [] and stage.sim.open_cards() == []


async def test_a_second_card_on_dingtalk_keeps_the_wide_gaps() -> None:
    async with on_dingtalk() as stage:
        await stage.answer([(at, "字" * len(text)) for at, text in even(60, 60.0)])
        assert len(stage.bubbles()) == 2
        assert len(stage.spent()) <= 14
        assert stage.sim.violations == [] and stage.sim.open_cards() == []


async def test_a_template_with_its_own_flow_takes_twelve_calls_too() -> None:
    async with on_dingtalk(**FLOWING) as stage:
        await stage.answer(even(40, 60.0))
        assert len(stage.spent()) <= 12
        assert stage.sim.violations == [] and stage.sim.open_cards() == []


async def test_thoughts_on_dingtalk_stay_within_twelve_calls() -> None:
    async with on_dingtalk() as stage:
        await stage.answer(even(40, 30.0), thoughts=even(40, 30.0))
        assert len(stage.spent()) <= 12


async def test_ten_minutes_on_dingtalk_take_forty_calls() -> None:
    async with on_dingtalk() as stage:
        await stage.answer(even(10, 600.0, every=0.5))
        assert len(stage.spent()) <= 40


# ---------------------------------------------------------------- saving calls


PLACES = [
    on_feishu,
    on_dingtalk,
    partial(on_dingtalk, **FLOWING),
    partial(on_dingtalk, **STATELESS),
]


@pytest.mark.parametrize("place", PLACES)
async def test_a_saved_answer_is_two_calls(place: Any) -> None:
    async with place() as stage:
        assert isinstance(stage.platform, Saving)
        stage.platform.save(True)
        reply = stage.reply()
        reply.start()
        await stage.clock.advance(1.0)
        [card] = stage.bubbles()
        assert "思考中" in str(card.blocks) and len(stage.spent()) == 1, "it is being worked on"
        await stage.play(reply.add, even(40, 60.0))
        assert len(stage.spent()) == 1, "no frames in between"
        delivery = await stage.until_done(reply)
        assert delivery is not None and delivery.state == "delivered"
        assert len(stage.spent()) == 2
        [card] = stage.bubbles()
        assert card.text.startswith("x" * 2401) and "思考中" not in str(card.blocks)
        assert not any(button.text == "停止" for button in card.buttons())
        assert not card.streaming and stage.sim.violations == []


@pytest.mark.parametrize("place", PLACES)
async def test_saving_ends_with_the_next_answer(place: Any) -> None:
    async with place() as stage:
        stage.platform.save(True)
        await stage.answer(even(40, 5.0))
        stage.platform.save(False)
        before = len(stage.spent())
        await stage.answer(even(40, 5.0))
        assert len(stage.spent()) - before > 4
        assert len(stage.bubbles()) == 2 and stage.sim.open_cards() == []


@pytest.mark.parametrize("saving", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("place", PLACES)
async def test_a_card_left_by_a_killed_run_is_ended_whoever_saves(
    place: Any, saving: tuple[bool, bool]
) -> None:
    async with place() as stage:
        stage.platform.save(saving[0])
        killed = stage.reply()
        killed.start()
        await stage.clock.advance(1.0)
        await stage.play(killed.add, even(40, 3.0))
        await stage.pass_by(killed.leave())
        stage.platform.save(saving[1])
        again = stage.reply(attempt=2)
        again.start()
        await stage.play(again.add, even(40, 5.0))
        delivery = await stage.until_done(again)
        assert delivery is not None and delivery.state == "delivered"
        [card] = stage.bubbles()
        assert card.text.startswith("x" * 201) and "思考中" not in str(card.blocks)
        assert not any(button.text == "停止" for button in card.buttons())
        assert stage.sim.open_cards() == [] and stage.sim.violations == []


@pytest.mark.parametrize("saving", [(True, False), (False, True)])
async def test_a_card_whose_creation_was_cut_off_ends_as_it_was_created(
    saving: tuple[bool, bool],
) -> None:
    """Killed between the create and its answer: the journal knows the intent alone."""
    async with on_dingtalk() as stage:
        stage.platform.save(saving[0])
        killed = stage.reply()
        killed.start()
        await stage.clock.advance(LATENCY / 2)
        intent = stage.handles[0]
        await stage.pass_by(killed.leave())
        stage.handles[0] = intent
        stage.platform.save(saving[1])
        again = stage.reply(attempt=2)
        again.start()
        await stage.play(again.add, even(40, 3.0))
        await stage.until_done(again)
        [card] = stage.bubbles()
        assert "opened" not in intent.extra and card.text.startswith("x" * 121)
        assert not any(button.text == "停止" for button in card.buttons())
        assert stage.sim.open_cards() == []


@pytest.mark.parametrize("place", PLACES)
async def test_a_failed_answer_is_two_calls_and_says_so(place: Any) -> None:
    async with place() as stage:
        stage.platform.save(True)
        reply = stage.reply()
        reply.start()
        await stage.clock.advance(1.0)
        await stage.until_done(reply, Snapshot(state="failed", note="出错了"))
        assert len(stage.spent()) == 2
        [card] = stage.bubbles()
        assert "出错了" in str(card.blocks) and stage.sim.open_cards() == []


@pytest.mark.parametrize("place", PLACES)
async def test_a_notice_stays_one_call(place: Any) -> None:
    async with place() as stage:
        stage.platform.save(True)
        reply = stage.reply()
        reply.add("好的")
        await stage.until_done(reply, Snapshot(state="answered"))
        assert len(stage.spent()) == 1 and len(stage.bubbles()) == 1


async def test_a_long_saved_answer_goes_on_in_further_messages() -> None:
    async with on_feishu() as stage:
        stage.platform.save(True)
        await stage.answer(even(900, 40.0))
        assert len(stage.bubbles()) == 3 and len(stage.spent()) == 4
        assert stage.sim.open_cards() == []


@pytest.mark.parametrize("place", [on_feishu, partial(on_dingtalk, receipts=True)])
async def test_no_message_is_marked_while_calls_are_saved(place: Any) -> None:
    async with place() as stage:
        assert isinstance(stage.platform, Reactions)
        token = await stage.pass_by(stage.platform.react(stage.address, "seen"))
        assert token and len(stage.spent()) == 1
        stage.platform.save(True)
        assert await stage.platform.react(stage.address, "done") == ""
        await stage.platform.unreact(stage.address, token)
        assert len(stage.spent()) == 1


# ---------------------------------------------------------------- the whole house

WRITES = {
    *(feishu.REPLY, feishu.SEND, feishu.PATCH, feishu.CARD_CREATE, *feishu.CARD_OPERATIONS),
    *(dingtalk.CARD_CREATE_DELIVER, dingtalk.CARD_STREAM, dingtalk.CARD_UPDATE, dingtalk.WEBHOOK),
}


def writes(sim: Any) -> list[str]:
    return [call.route for call in sim.calls if call.route in WRITES]


@pytest.mark.parametrize(("platform", "most"), [("feishu", 30), ("dingtalk", 12)])
async def test_a_minute_from_the_model_to_the_card(house: Any, platform: str, most: int) -> None:
    house.feishu_keys, house.dingtalk_keys = {}, {"card_state_key": "state"}
    house.deepseek.script("问", ["字" * 30] * 60, pace=1.0)
    await house.start()
    room, begun = house.room(platform), house.clock.monotonic()
    message = await room.say("问")
    await house.clock.hurry(lambda: house.deepseek.finished, step=0.25)
    await house.ended(platform, message)
    minutes = (house.clock.monotonic() - begun) / 60.0
    assert room.answers()[0].text.startswith("字" * 1800)
    assert len(writes(room.sim)) <= most * max(1.0, minutes), "a slow machine makes it longer"


@pytest.mark.parametrize("platform", ["feishu", "dingtalk"])
async def test_a_process_killed_while_saving_leaves_one_closed_card(
    house: Any, platform: str
) -> None:
    house.feishu_keys["saver"] = house.dingtalk_keys["saver"] = "always"
    house.deepseek.script("问", ["一", "二", "三"] * 20, pace=0.2)
    await house.start()
    room = house.room(platform)
    message = await room.say("问")
    await house.clock.hurry(lambda: room.answers(), step=0.1)
    await house.crash()
    assert len(writes(room.sim)) == 1
    house.deepseek.script("问", ["一", "二", "三"])
    await house.start()
    await house.clock.hurry(lambda: house.deepseek.finished, step=0.1)
    turn = await house.ended(platform, message)
    assert turn.ending.delivery == "delivered" and len(room.answers()) == 1
    assert room.sim.open_cards() == [] and house.complaints(paced=False) == []
