"""A send whose key is forgotten, looked for in the history of the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapters.feishu.api import FeishuApi
from adapters.feishu.card import fitting
from adapters.feishu.chat import FeishuPlatform
from adapters.feishu.lookback import Sought, look_back
from adapters.feishu.settings import FeishuSettings
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim, wire
from bot.contract import Handle, ReplySink, Snapshot
from bot.errors import BorderError, RateLimited, Transient

CARD, TEXT = "interactive", "text"


@dataclass
class Desk:
    """One chat, in which Ann has asked, and our app answers."""

    sim: FeishuSim
    clock: VirtualClock
    http: Http
    api: FeishuApi
    chat: Any
    ann: Any
    asked: str = ""
    keys: list[str] = field(default_factory=list)

    def key(self) -> str:
        self.keys.append(f"k{len(self.keys)}")
        return self.keys[-1]

    async def card(self) -> str:
        return await self.api.create_card(fitting(Snapshot(text="…"))[1])

    async def show(self, card: str, message: str = "") -> str:
        """A message that shows the card entity, as an answer to `message`."""
        content = {"type": "card", "data": {"card_id": card}}
        return (await self.api.reply(message or self.asked, CARD, content, self.key())).message_id

    async def write(self, kind: str = TEXT, message: str = "") -> str:
        """A message whose text or card goes along."""
        whole = fitting(Snapshot(text="answer"))[1]
        content = whole if kind == CARD else {"text": "answer"}
        return (await self.api.reply(message or self.asked, kind, content, self.key())).message_id

    def sought(self, since: float, **more: Any) -> Sought:
        known = {"chat": self.chat.id, "message": self.asked, "thread": "", "card": ""}
        rest = {"is_card": False, "since": since, "until": since + 3600.0, "loose": False}
        return Sought(**{**known, **rest, **more})


@pytest.fixture(params=["p2p", "group"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    clock = VirtualClock(settle=0.002)
    async with FeishuSim(clock) as sim:
        http = Http(clock=clock)
        settings = FeishuSettings("b", sim.app_id, sim.app_secret, base_url=sim.base_url)
        ann, bob = sim.add_person("Ann"), sim.add_person("Bob")
        chat = sim.p2p(ann) if request.param == "p2p" else sim.add_group("Team", [ann, bob])
        desk = Desk(sim, clock, http, FeishuApi(settings, http, clock), chat, ann)
        desk.asked = await sim.say(chat, ann, "question", mention_bot=True)
        await clock.advance(100)
        yield desk
        assert sim.violations == []
        await http.close()


async def test_a_card_is_known_by_its_entity(desk: Desk) -> None:
    """Among other answers to the same question, and though the clocks differ a little."""
    mine, other = await desk.card(), await desk.card()
    since = desk.clock.time() + 20
    await desk.show(other)
    await desk.write(CARD)
    sent = await desk.show(mine)
    await desk.clock.advance(4000)
    sought = desk.sought(since, card=mine, is_card=True)
    assert await look_back(desk.api, sought) == sent
    assert await look_back(desk.api, desk.sought(since, card="7", is_card=True)) == ""


@pytest.mark.parametrize("kind", [TEXT, CARD])
async def test_any_other_message_must_be_the_only_one_it_can_be(desk: Desk, kind: str) -> None:
    await desk.write(kind)
    await desk.clock.advance(200)
    since = desk.clock.time()
    sought = desk.sought(since, is_card=kind == CARD)
    other = await desk.sim.say(desk.chat, desk.ann, "another question", mention_bot=True)
    await desk.write(kind, other)
    await desk.write(CARD if kind == TEXT else TEXT)
    await desk.sim.say(desk.chat, desk.ann, "a person's answer", reply_to=desk.asked)
    await desk.clock.advance(5)
    assert await look_back(desk.api, sought) == "", "an older answer, and others'"
    sent = await desk.write(kind)
    assert await look_back(desk.api, sought) == sent
    await desk.write(kind)
    assert await look_back(desk.api, sought) is None, "which of the two?"


async def test_what_stands_just_before_the_send_is_not_taken_for_it(desk: Desk) -> None:
    """The part before it, or it itself by a clock that moved: nobody can tell."""
    await desk.write()
    await desk.clock.advance(5)
    assert await look_back(desk.api, desk.sought(desk.clock.time())) is None


async def test_feishu_s_clock_counts(desk: Desk) -> None:
    """Ours is two hours behind; the answer of the first read tells."""
    sent = await desk.write()
    behind = desk.clock.time() - 7200.0

    class Behind(VirtualClock):
        def time(self) -> float:
            return behind

    api = FeishuApi(desk.api._settings, desk.http, Behind())
    assert await look_back(api, desk.sought(behind - 1)) == sent


@pytest.mark.parametrize("kind", [TEXT, CARD])
async def test_an_answer_that_was_taken_back_is_neither_adopted_nor_repeated(
    desk: Desk, kind: str
) -> None:
    since, card = desk.clock.time(), await desk.card()
    sent = await (desk.show(card) if kind == CARD else desk.write())
    await desk.api.delete(sent)
    more = {"card": card, "is_card": True} if kind == CARD else {}
    assert await look_back(desk.api, desk.sought(since, **more)) is None


async def test_an_answer_straight_into_the_chat_is_known_by_its_entity_alone(desk: Desk) -> None:
    """As it is sent when the question was taken back."""
    since, card = desk.clock.time(), await desk.card()
    content = {"type": "card", "data": {"card_id": card}}
    sent = await desk.api.send(desk.chat.id, CARD, content, desk.key())
    await desk.sim.recall(desk.asked)
    shown = desk.sought(since, card=card, is_card=True)
    assert await look_back(desk.api, shown) == sent.message_id
    assert await look_back(desk.api, desk.sought(since, is_card=True)) is None
    assert await look_back(desk.api, desk.sought(since)) == "", "no text was sent"


async def test_a_thread_opened_since_is_looked_into(desk: Desk) -> None:
    """The chat's container would hide it; the parent is whatever opened the thread."""
    since, card = desk.clock.time(), await desk.card()
    thread = desk.sim.open_thread(desk.asked)
    shown = desk.sought(since, card=card, is_card=True)
    assert await look_back(desk.api, shown) == ""
    sent = await desk.show(card)
    assert desk.sim.world.messages[sent].thread == thread
    assert await look_back(desk.api, shown) == sent
    inside = desk.sought(since, card=card, is_card=True, thread=thread)
    desk.sim.calls.clear()
    assert await look_back(desk.api, inside) == sent
    assert len(desk.sim.calls_of(wire.LIST_MESSAGES)) == 1, "the chat has nothing of it"


async def test_a_history_that_is_too_long_tells_nothing(desk: Desk) -> None:
    since = desk.clock.time()
    for number in range(751):
        await desk.sim.say(desk.chat, desk.ann, str(number))
    await desk.clock.advance(4000)
    assert await look_back(desk.api, desk.sought(since)) is None
    assert len(desk.sim.calls_of(wire.LIST_MESSAGES)) == 15


@pytest.mark.parametrize("route", [wire.GET_MESSAGE, wire.LIST_MESSAGES, wire.ID_CONVERT])
async def test_what_may_pass_is_asked_again_and_what_will_not_tells_nothing(
    desk: Desk, route: str
) -> None:
    since, card = desk.clock.time(), await desk.card()
    sent = await desk.show(card)
    sought = desk.sought(since, card=card, is_card=True)
    for fault, error in (
        (Fault("html"), Transient),
        (Fault("status", status=429, body={"code": 99991400}), RateLimited),
    ):
        desk.sim.faults.order(route, fault)
        with pytest.raises(error):
            await look_back(desk.api, sought)
    for code in (99991672, 99991403):
        desk.sim.faults.order(route, Fault("status", status=400, body={"code": code}))
        assert await look_back(desk.api, sought) is None
    assert await look_back(desk.api, sought) == sent


# ---------------------------------------------------------------- through the sink


@pytest.mark.parametrize("rung", ["cardkit", "patch", "text"])
@pytest.mark.parametrize("arrived", [True, False])
async def test_every_rung_looks_before_it_sends_anew(desk: Desk, rung: str, arrived: bool) -> None:
    """What arrived is shown as it should be now, but for a text, which cannot change."""
    settings = FeishuSettings("b", desk.sim.app_id, desk.sim.app_secret, base_url=desk.sim.base_url)
    platform = FeishuPlatform(settings, desk.http, desk.clock)
    address = {"chat_id": desk.chat.id, "chat_type": desk.chat.kind, "message_id": desk.asked}
    saved = [Handle("t1-0", rung=rung)]

    async def save(handle: Handle) -> None:
        saved.append(handle)

    def sink() -> ReplySink:
        return platform.sink(address, saved[-1], save, 1)

    desk.sim.faults.order(wire.REPLY, Fault("lose" if arrived else "drop"), times=9)
    first = sink()
    with pytest.raises(BorderError):
        await first.open(Snapshot(text="half"))
        await first.finish(Snapshot(text="half", state="answered"))
    desk.sim.faults.clear()
    assert len(desk.sim.bot_bubbles(desk.chat)) == arrived
    await desk.clock.advance(3600)
    sent = len(desk.sim.calls_of(wire.REPLY))
    delivery = await sink().finish(Snapshot(text="whole", state="answered"))
    (bubble,) = desk.sim.bot_bubbles(desk.chat)
    assert (delivery.state, delivery.proof) == ("delivered", bubble.id)
    assert bubble.text == ("half" if arrived and rung == "text" else "whole")
    assert len(desk.sim.calls_of(wire.REPLY)) == sent + (not arrived)
    assert "sending_at" not in saved[-1].extra
