"""The ladder of a DingTalk reply, on the simulator and its faults; and foreign text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dingtalk.card import NOTHING, card_text, final_card_text, message_text, title
from adapters.dingtalk.chat import DingTalkPlatform, DingTalkSettings
from adapters.dingtalk.foreign_text import BREAK, safe, with_breaks, without_tables
from adapters.dingtalk.frames import MESSAGES
from adapters.dingtalk.parse import parse
from adapters.dingtalk.rungs import CARD_BYTES, FRAME_BYTES
from adapters.dingtalk.settings import Template
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import DingTalkSim, templates, wire
from adapters.playground.dingtalk.pings import card_pings, live_links
from adapters.playground.dingtalk.sim import SimChat, SimPerson
from adapters.playground.faults import Fault
from bot.contract import Button, Delivery, Handle, InboundMessage, ReplySink, Snapshot
from bot.errors import BorderError, RateLimited, StoreError, TooBig, Transient, Uncertain

STOP, RETRY = (Button(name, name, "turn1") for name in ("stop", "retry"))
THINKING = Snapshot(status="思考中…", buttons=(STOP,))
HALF = Snapshot(text="half", buttons=(STOP,))
WHOLE = Snapshot(
    text="the whole", note="a note", footer="small", buttons=(RETRY,), state="answered"
)


@dataclass
class Desk:
    """A simulator, a platform on it, and the journal that a process leaves behind."""

    sim: DingTalkSim
    clock: VirtualClock
    http: Http
    platform: DingTalkPlatform
    alice: SimPerson
    group: SimChat
    journal: list[Handle] = field(default_factory=list)

    def settings(self, **changes: Any) -> DingTalkSettings:
        given: dict[str, Any] = {
            "base_url": self.sim.base_url,
            "oapi_base_url": self.sim.base_url,
            "card_template_id": self.sim.card_template_id,
            "card_state_key": "state",
        }
        return DingTalkSettings(
            "ding", self.sim.client_id, self.sim.client_secret, **(given | changes)
        )

    def use(self, **changes: Any) -> None:
        self.platform = DingTalkPlatform(self.settings(**changes), self.http, self.clock)

    async def asked(self, chat: SimChat | None = None, who: SimPerson | None = None) -> Any:
        """The address of a fresh question."""
        chat, who = chat or self.group, who or self.alice
        message = await self.sim.say(chat, who, "hi", mention_bot=chat.kind == "2")
        data = self.sim.world.inbound[message]
        parsed = parse(MESSAGES, data, "ding", self.sim.client_id)
        assert isinstance(parsed, InboundMessage)
        return parsed.address

    def sink(self, address: Any, handle: Handle | None = None, attempt: int = 1) -> ReplySink:
        async def save(kept: Handle) -> None:
            self.journal.append(kept)

        return self.platform.sink(address, handle or Handle("turn1-0"), save, attempt)

    async def spaced(self, step: Any) -> Any:
        """What the pacer does: frames of one card half a second apart."""
        await self.clock.advance(0.6)
        return await step

    def shown(self, chat: SimChat | None = None) -> list[str]:
        return [bubble.text for bubble in self.sim.bot_bubbles(chat or self.group)]

    def routes(self) -> list[str]:
        return [call.route for call in self.sim.calls if call.route != wire.TOKEN]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    clock, http = VirtualClock(settle=0.002), Http()
    async with DingTalkSim(clock) as sim:
        alice = sim.add_person("Alice")
        group = sim.add_group("Devs", [alice])
        desk = Desk(sim, clock, http, None, alice, group)  # type: ignore[arg-type]
        desk.use()
        yield desk
        await http.close()


def break_route(desk: Desk, route: str, times: int = 1, **fault: Any) -> None:
    desk.sim.faults.order(route, Fault(**fault), times)


# ---------------------------------------------------------------- the card


async def test_a_card_grows_and_ends(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    assert sink.limits.streams and sink.limits.whole_markdown
    await sink.open(THINKING)
    [bubble] = desk.sim.bot_bubbles(desk.group)
    assert [b.id for b in bubble.buttons()] == ["stop"] and "思考中…" in str(bubble)
    await desk.spaced(sink.show(HALF))
    assert "half" in desk.shown()[0]
    proof = await desk.spaced(sink.finish(WHOLE))
    [bubble] = desk.sim.bot_bubbles(desk.group)
    assert "the whole" in bubble.text and [b.id for b in bubble.buttons()] == ["retry"]
    assert [b.text for b in bubble.blocks if b.kind == "small"] == ["a note", "small"]
    carrier = desk.sim.world.carriers["turn1-0"]
    assert proof == Delivery("delivered", carrier)
    assert desk.sim.open_cards() == [] and desk.sim.violations == []


async def test_the_handle_is_on_disk_before_the_create(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    assert (desk.journal[0].rung, desk.journal[0].card_id) == ("card", "turn1-0")
    assert "opened" not in desk.journal[0].extra
    assert desk.journal[-1].extra["opened"] and desk.journal[-1] == sink.handle


async def test_without_a_journal_no_card(desk: Desk) -> None:
    async def broken(handle: Handle) -> None:
        raise StoreError("full")

    sink = desk.platform.sink(await desk.asked(), Handle("turn1-0"), broken, 1)
    with pytest.raises(StoreError):
        await sink.open(THINKING)
    assert desk.shown() == []


async def test_a_button_of_the_card_comes_back_with_its_turn(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    [card] = desk.sim._cards.cards.values()
    assert card.params["turn"] == "turn1" and card.callbacks
    assert all(isinstance(value, str) for value in card.params.values())


async def test_a_reply_without_buttons_shows_none(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(Snapshot(status="…"))
    await desk.spaced(sink.finish(Snapshot(text="sealed", state="answered")))
    [bubble] = desk.sim.bot_bubbles(desk.group)
    assert bubble.buttons() == []


async def test_thoughts_alone_are_one_update(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    await sink.show(replace(THINKING, reasoning="hm"))
    await sink.show(replace(THINKING, reasoning="hm"))
    assert desk.routes() == [wire.CARD_CREATE_DELIVER, wire.CARD_UPDATE]
    [bubble] = desk.sim.bot_bubbles(desk.group)
    assert any(b.kind == "panel" and b.text == "hm" for b in bubble.blocks)


async def test_a_template_with_content_alone_shows_everything_there(desk: Desk) -> None:
    desk.use(card_template_id=desk.sim.plain_template_id, card_state_key="")
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    assert desk.shown() == ["思考中…"]
    await desk.spaced(sink.finish(replace(WHOLE, reasoning="why\nnot")))
    assert desk.shown() == ["> why\n> not\n\nthe whole\n\na note\n\nsmall"]
    assert desk.sim.open_cards() == [] and desk.sim.violations == []


async def test_a_failed_card_without_a_failure_state_is_finished(desk: Desk) -> None:
    desk.use(card_template_id=desk.sim.plain_template_id, card_state_key="")
    failed = Snapshot(note="went wrong", state="failed")
    for key in ("turn1-0", "turn2-0"):
        sink = desk.sink(await desk.asked(), Handle(key))
        await sink.open(THINKING)
        proof = await desk.spaced(sink.finish(failed))
        assert proof.state == "delivered"
    assert desk.shown() == ["went wrong"] * 2 and desk.sim.open_cards() == []
    refused = [call for call in desk.sim.calls_of(wire.CARD_STREAM) if call.status == 500]
    assert len(refused) == 1  # learned for the second card


async def test_a_failed_card_with_a_failure_state(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    await desk.spaced(sink.finish(Snapshot(note="went wrong", buttons=(RETRY,), state="failed")))
    last = desk.sim.calls_of(wire.CARD_STREAM)[-1].body
    assert (last["isError"], last["isFinalize"], last["isFull"]) == (True, False, True)
    assert desk.shown() == ["went wrong"] and desk.sim.open_cards() == []


async def test_a_card_with_nothing_to_say_still_ends(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    await desk.spaced(sink.finish(Snapshot(state="answered")))
    assert desk.shown() == [NOTHING] and desk.sim.open_cards() == []


async def test_a_template_with_flow_status(desk: Desk) -> None:
    desk.use(
        card_template_id=templates.SDK_MARKDOWN, card_content_key="msgContent", card_state_key=""
    )
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    await desk.spaced(sink.show(HALF))
    await desk.spaced(sink.finish(replace(WHOLE, note="", footer="")))
    flows = [
        call.body["cardData"]["cardParamMap"]["flowStatus"]
        for call in desk.sim.calls
        if call.route in (wire.CARD_UPDATE, wire.CARD_CREATE_DELIVER)
    ]
    assert flows == ["1", "2", "3"]
    assert desk.shown() == ["the whole"] and desk.sim.violations == []


async def test_in_private_the_card_goes_to_the_person(desk: Desk) -> None:
    chat = desk.sim.p2p(desk.alice)
    sink = desk.sink(await desk.asked(chat))
    await sink.open(THINKING)
    await desk.spaced(sink.finish(WHOLE))
    assert len(desk.shown(chat)) == 1 and desk.shown() == []
    body = desk.sim.calls_of(wire.CARD_CREATE_DELIVER)[0].body
    assert body["openSpaceId"] == f"dtv1.card//IM_ROBOT.{desk.alice.staff_id}"


async def test_too_much_text_is_refused_here_already(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    big = replace(HALF, text="字" * FRAME_BYTES)
    for step in (sink.show(big), sink.finish(big)):
        with pytest.raises(TooBig):
            await step
    assert CARD_BYTES < FRAME_BYTES and wire.CARD_STREAM not in desk.routes()


# ---------------------------------------------------------------- after a crash


async def test_a_lost_answer_to_the_create(desk: Desk) -> None:
    address = await desk.asked()
    sink = desk.sink(address)
    break_route(desk, wire.CARD_CREATE_DELIVER, kind="lose")
    with pytest.raises(Uncertain):
        await sink.open(THINKING)
    assert len(desk.shown()) == 1  # it stands all the same
    await sink.open(THINKING)
    proof = await desk.spaced(sink.finish(WHOLE))
    assert proof == Delivery("delivered", "turn1-0")
    assert len(desk.shown()) == 1 and desk.sim.open_cards() == []


async def test_a_card_that_stands_already_gets_the_state_it_never_had(desk: Desk) -> None:
    """The create whose answer was lost showed the running state; the final finds it so."""
    sink = desk.sink(await desk.asked())
    break_route(desk, wire.CARD_CREATE_DELIVER, kind="lose")
    with pytest.raises(Uncertain):
        await sink.open(THINKING)
    await desk.spaced(sink.finish(WHOLE))
    [bubble] = desk.sim.bot_bubbles(desk.group)
    assert [button.id for button in bubble.buttons()] == ["retry"]
    assert [b.text for b in bubble.blocks if b.kind == "small"] == ["a note", "small"]


async def test_a_card_that_may_stand_is_the_one_that_is_finished(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    break_route(desk, wire.CARD_CREATE_DELIVER, kind="lose")
    with pytest.raises(Uncertain):
        await sink.open(THINKING)
    assert (await desk.spaced(sink.finish(WHOLE))).state == "delivered"
    assert len(desk.shown()) == 1 and wire.WEBHOOK not in desk.routes()


async def test_a_card_that_certainly_does_not_stand_becomes_a_message(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    body = {"code": "system.busy", "message": "busy"}
    break_route(desk, wire.CARD_CREATE_DELIVER, kind="status", status=500, body=body)
    with pytest.raises(Transient):
        await sink.open(THINKING)
    assert (await sink.finish(WHOLE)).state == "delivered"
    assert len(desk.shown()) == 1 and desk.routes()[-1] == wire.WEBHOOK


async def test_another_process_goes_on_with_the_card(desk: Desk) -> None:
    address = await desk.asked()
    first = desk.sink(address)
    await first.open(THINKING)
    await desk.spaced(first.show(HALF))
    second = desk.sink(address, desk.journal[-1], attempt=2)
    await second.open(THINKING)
    await desk.spaced(second.show(HALF))
    await desk.spaced(second.finish(WHOLE))
    assert len(desk.shown()) == 1 and "the whole" in desk.shown()[0]
    assert len(desk.sim.calls_of(wire.CARD_CREATE_DELIVER)) == 1
    assert desk.sim.violations == []


async def test_a_final_of_unknown_fate_is_repeated_by_the_next_process(desk: Desk) -> None:
    address = await desk.asked()
    first = desk.sink(address)
    await first.open(THINKING)
    break_route(desk, wire.CARD_STREAM, 2, kind="lose")  # aiohttp repeats a PUT once
    with pytest.raises(Uncertain):
        await desk.spaced(first.finish(WHOLE))
    second = desk.sink(address, desk.journal[-1], attempt=2)
    await second.open(THINKING)
    assert (await desk.spaced(second.finish(WHOLE))).state == "delivered"
    assert len(desk.shown()) == 1 and desk.sim.violations == []
    [bubble] = desk.sim.bot_bubbles(desk.group)
    assert [b.id for b in bubble.buttons()] == ["retry"]


async def test_a_card_that_an_earlier_run_finished_otherwise(desk: Desk) -> None:
    address = await desk.asked()
    first = desk.sink(address)
    await first.open(THINKING)
    await desk.spaced(first.finish(WHOLE))
    second = desk.sink(address, desk.journal[-1], attempt=2)
    other = replace(WHOLE, text="another ending")
    assert (await desk.spaced(second.finish(other))).state == "delivered"
    assert "another ending" in desk.shown()[0] and len(desk.shown()) == 1


async def test_a_closing_that_failed_half_way_goes_on(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    qps = {"code": wire.QPS_CODE, "message": "slow"}
    break_route(desk, wire.CARD_UPDATE, kind="status", status=403, body=qps)
    with pytest.raises(RateLimited):
        await desk.spaced(sink.finish(WHOLE))
    assert (await sink.finish(WHOLE)).state == "delivered"
    assert len(desk.sim.calls_of(wire.CARD_STREAM)) == 1 and desk.sim.violations == []


async def test_a_state_that_stays_behind_costs_no_second_message(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    desk.sim.quota.api_limit = desk.sim.quota.api + 1
    assert (await desk.spaced(sink.finish(WHOLE))).state == "delivered"
    assert desk.shown() == ["the whole"] and desk.sim.open_cards() == []


SEALED = replace(WHOLE, text="first half", note="", footer="", state="continued")


@pytest.mark.parametrize("after", ["refuse", "swallow"])
@pytest.mark.parametrize("template", ["state", "content alone"])
async def test_a_sealed_part_that_is_worded_anew_shows_the_new_words(
    desk: Desk, after: Any, template: str
) -> None:
    """Nobody knows whether a card that had its last frame refuses the next or swallows it
    (reference/dingtalk.md 6.4), so it gets none, and nothing while the new text grows."""
    desk.sim.policy.after_finalize = after
    if template != "state":
        desk.use(card_template_id=desk.sim.plain_template_id, card_state_key="")
    address = await desk.asked()
    killed = desk.sink(address)
    await killed.open(THINKING)
    await desk.spaced(killed.finish(SEALED))
    for attempt, words in enumerate(("other words", "first half"), start=2):
        later = desk.sink(address, desk.journal[-1], attempt)
        await later.open(THINKING)
        made = len(desk.routes())
        await desk.spaced(later.show(replace(HALF, text=words[:5])))
        assert later.charges("show") == () and len(desk.routes()) == made
        done = await desk.spaced(later.finish(replace(SEALED, text=words)))
        assert done.state == "delivered" and desk.shown() == [words]
    assert desk.sim.open_cards() == [] and desk.sim.violations == []


@pytest.mark.parametrize("after", ["refuse", "swallow"])
async def test_a_part_is_ended_though_its_last_frame_was_lost_with_the_process(
    desk: Desk, after: Any
) -> None:
    """The journal is written before the frame: with the same words the frame is repeated."""
    desk.sim.policy.after_finalize = after
    address = await desk.asked()
    killed = desk.sink(address)
    await killed.open(THINKING)
    break_route(desk, wire.CARD_STREAM, 2, kind="drop")
    with pytest.raises((Uncertain, Transient)):
        await desk.spaced(killed.finish(SEALED))
    assert len(desk.sim.open_cards()) == 1
    later = desk.sink(address, desk.journal[-1], attempt=2)
    await later.open(THINKING)
    await desk.spaced(later.finish(SEALED))
    assert desk.shown() == ["first half"] and desk.sim.open_cards() == []
    await desk.spaced(desk.sink(address, desk.journal[-1], attempt=3).finish(SEALED))
    assert desk.sim.violations == []


async def test_a_sealed_part_whose_words_are_refused_is_ended_by_a_frame(desk: Desk) -> None:
    desk.sim.policy.unsafe_words.add("first half")
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    await desk.spaced(sink.finish(SEALED))
    assert desk.sim.calls_of(wire.CARD_STREAM)[-1].body["isError"]
    assert "turn1-0"[:8] in desk.shown()[0] and desk.sim.open_cards() == []


async def test_an_ordinary_answer_costs_the_journal_nothing_more(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    written = len(desk.journal)
    await desk.spaced(sink.finish(WHOLE))
    assert len(desk.journal) == written


@pytest.mark.parametrize("after", ["refuse", "swallow"])
async def test_a_text_that_stands_is_delivered_though_its_state_never_moves(
    desk: Desk, after: Any
) -> None:
    """The last frame was confirmed. Its state met trouble that might pass, and in the next
    try a refusal for good: that costs the buttons, not the delivery, and no second message."""
    desk.sim.policy.after_finalize = after
    address = await desk.asked()
    sink = desk.sink(address)
    await sink.open(THINKING)
    busy = {"code": "system.busy", "message": "busy"}
    break_route(desk, wire.CARD_UPDATE, kind="status", status=500, body=busy)
    with pytest.raises(Transient):
        await desk.spaced(sink.finish(WHOLE))
    gone = {"code": "unauthorized", "message": "no"}
    break_route(desk, wire.CARD_UPDATE, kind="status", status=403, body=gone)
    later = desk.sink(address, desk.journal[-1], attempt=2)
    made = len(desk.sim.calls_of(wire.CARD_STREAM))
    assert (await desk.spaced(later.finish(WHOLE))).state == "delivered"
    assert len(desk.sim.calls_of(wire.CARD_STREAM)) == made
    assert desk.shown() == ["the whole"] and desk.sim.violations == []


async def test_without_a_journal_no_message(desk: Desk) -> None:
    full = True

    async def save(handle: Handle) -> None:
        if full:
            raise StoreError("full")

    desk.use(card_template_id="")
    sink = desk.platform.sink(await desk.asked(), Handle("turn1-0"), save, 1)
    with pytest.raises(StoreError):
        await sink.finish(WHOLE)
    assert desk.shown() == []
    full = False
    assert (await sink.finish(WHOLE)).state == "delivered"


# ---------------------------------------------------------------- the ladder


async def test_never_opened_is_one_plain_message(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    proof = await sink.finish(WHOLE)
    assert proof == Delivery("delivered", "errcode 0")
    assert desk.routes() == [wire.WEBHOOK]
    assert "the whole" in desk.shown()[0] and "a note" in desk.shown()[0]


async def test_without_a_template_only_the_end_is_shown(desk: Desk) -> None:
    desk.use(card_template_id="")
    sink = desk.sink(await desk.asked())
    assert not sink.limits.streams and sink.charges("open") == ()
    await sink.open(THINKING)
    await sink.show(HALF)
    assert desk.shown() == []
    assert await sink.finish(WHOLE) == Delivery("delivered", "errcode 0")
    assert await sink.finish(WHOLE) == Delivery("delivered", "errcode 0")
    assert len(desk.shown()) == 1  # a keyless message is never repeated


async def test_an_expired_webhook_leaves_openapi(desk: Desk) -> None:
    desk.use(card_template_id="")
    address = await desk.asked()
    await desk.clock.advance(desk.sim.policy.webhook_seconds)
    sink = desk.sink(address)
    proof = await sink.finish(WHOLE)
    assert desk.routes() == [wire.GROUP_SEND] and proof.proof
    private = desk.sim.p2p(desk.alice)
    sink = desk.sink({**await desk.asked(private), "sessionWebhook": ""})
    assert (await sink.finish(WHOLE)).state == "delivered"
    assert desk.routes()[-1] == wire.OTO_SEND and len(desk.shown(private)) == 1


async def test_a_webhook_that_was_closed_early(desk: Desk) -> None:
    desk.use(card_template_id="")
    sink = desk.sink(await desk.asked())
    break_route(
        desk, wire.WEBHOOK, kind="status", status=200, body={"errcode": 300001, "errmsg": "session"}
    )
    assert (await sink.finish(WHOLE)).state == "delivered"
    assert desk.routes() == [wire.WEBHOOK, wire.GROUP_SEND]
    assert desk.journal[-1].rung == "openapi" and len(desk.shown()) == 1


async def test_a_webhook_that_was_overrun_is_passed_by(desk: Desk) -> None:
    desk.use(card_template_id="")
    sink = desk.sink(await desk.asked())
    break_route(
        desk,
        wire.WEBHOOK,
        kind="status",
        status=200,
        body={"errcode": 130101, "errmsg": "too fast"},
    )
    assert (await sink.finish(WHOLE)).state == "delivered"
    assert desk.routes() == [wire.WEBHOOK, wire.GROUP_SEND]


async def test_a_foreign_webhook_is_not_used(desk: Desk) -> None:
    desk.use(card_template_id="")
    address = {**await desk.asked(), "sessionWebhook": "http://127.0.0.1:9/steal"}
    assert (await desk.sink(address).finish(WHOLE)).state == "delivered"
    assert desk.routes() == [wire.GROUP_SEND]


@pytest.mark.parametrize("template", ["", "own"])
async def test_an_external_member_is_reached_by_webhook_alone(desk: Desk, template: str) -> None:
    guest = desk.sim.add_person("Guest", staff=False)
    private = desk.sim.p2p(guest)
    address = await desk.asked(private, guest)
    if not template:
        desk.use(card_template_id="")
    assert (await desk.sink(address).finish(WHOLE)).state == "delivered"
    assert desk.routes() == [wire.WEBHOOK]
    with pytest.raises(BorderError):
        await desk.sink({**address, "sessionWebhook": ""}, Handle("turn2-0")).finish(WHOLE)


async def test_a_missing_right_is_learned_for_ten_minutes(desk: Desk) -> None:
    desk.sim.policy.missing_scopes.add("Card.Instance.Write")
    address = await desk.asked()
    for key in ("turn1-0", "turn2-0"):
        sink = desk.sink(address, Handle(key))
        await sink.open(THINKING)
        assert not sink.limits.streams
        assert (await sink.finish(WHOLE)).state == "delivered"
    assert len(desk.sim.calls_of(wire.CARD_CREATE_DELIVER)) == 1
    await desk.clock.advance(601)
    desk.sim.policy.missing_scopes.clear()
    sink = desk.sink(await desk.asked(), Handle("turn3-0"))
    assert sink.limits.streams


async def test_a_month_used_up_in_the_middle_of_an_answer(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    desk.sim.quota.api_limit = desk.sim.quota.api
    assert (await desk.spaced(sink.finish(WHOLE))).state == "delivered"
    assert "the whole" in desk.shown()[-1] and desk.journal[-1].extra["left"] == "turn1-0"


@pytest.mark.parametrize("after", ["refuse", "swallow"])
async def test_a_card_given_up_gets_no_frame_after_its_end(desk: Desk, after: Any) -> None:
    """It takes no frames, and the answer to the update that ended it was lost."""
    desk.sim.policy.after_finalize = after
    address = await desk.asked()
    sink = desk.sink(address)
    await sink.open(THINKING)
    denied = {"code": "chatbotId.notAllow.sendOTO", "message": "no"}
    break_route(desk, wire.CARD_STREAM, 2, kind="status", status=403, body=denied)
    break_route(desk, wire.CARD_UPDATE, 2, kind="lose")  # aiohttp repeats a PUT once
    with pytest.raises(Transient, match="given up is open"):
        await desk.spaced(sink.finish(WHOLE))
    assert desk.sim.open_cards() == []
    later = desk.sink(address, desk.journal[-1], attempt=2)
    frames = len(desk.sim.calls_of(wire.CARD_STREAM))
    assert (await desk.spaced(later.finish(WHOLE))).state == "delivered"
    assert len(desk.sim.calls_of(wire.CARD_STREAM)) == frames and desk.sim.violations == []
    card, answer = desk.sim.bot_bubbles(desk.group)
    assert "the whole" in answer.text and card.buttons() == []
    assert "left_open" not in desk.journal[-1].extra


async def test_a_card_that_could_not_be_delivered(desk: Desk) -> None:
    desk.sim.refuse_deliveries()
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    assert (await sink.finish(WHOLE)).state == "delivered"
    assert len(desk.shown()) == 1 and desk.routes()[-1] == wire.WEBHOOK
    assert desk.sink(await desk.asked(), Handle("turn2-0")).limits.streams  # one card's affair


async def test_a_refused_text_is_replaced_by_a_word(desk: Desk) -> None:
    desk.sim.policy.unsafe_words.add("the whole")
    sink = desk.sink(await desk.asked())
    await sink.open(THINKING)
    done = await desk.spaced(sink.finish(WHOLE))
    assert (done.state, done.replaced) == ("delivered", "content")
    assert "the whole" not in desk.shown()[0] and desk.sim.open_cards() == []
    assert "turn1-0"[:8] in desk.shown()[0]
    desk.sim.policy.unsafe_words.clear()
    again = desk.sink(await desk.asked(), Handle("turn2-0"))
    assert (await desk.spaced(again.finish(WHOLE))).replaced == ""


async def test_a_message_that_says_so_instead_is_known_by_the_next_process(desk: Desk) -> None:
    """It cannot be refused again, because it is never sent again."""
    desk.use(card_template_id="")
    desk.sim.policy.unsafe_words.add("the whole")
    address = await desk.asked()
    assert (await desk.sink(address).finish(WHOLE)).replaced == "content"
    later = desk.sink(address, desk.journal[-1], attempt=2)
    assert (await later.finish(WHOLE)).replaced == "content" and len(desk.shown()) == 1


async def test_a_message_of_unknown_fate_is_not_repeated(desk: Desk) -> None:
    desk.use(card_template_id="")
    address = await desk.asked()
    sink = desk.sink(address)
    break_route(desk, wire.WEBHOOK, kind="lose")
    assert await sink.finish(WHOLE) == Delivery("unconfirmed")
    assert await sink.finish(WHOLE) == Delivery("unconfirmed")
    later = desk.sink(address, desk.journal[-1], attempt=2)
    assert later.charges("finish") == ()
    assert await later.finish(WHOLE) == Delivery("unconfirmed")
    assert len(desk.shown()) == 1


async def test_a_message_that_never_left_is_sent_again(desk: Desk) -> None:
    desk.use(card_template_id="")
    sink = desk.sink(await desk.asked())
    break_route(
        desk, wire.WEBHOOK, kind="status", status=200, body={"errcode": -1, "errmsg": "busy"}
    )
    with pytest.raises(BorderError):
        await sink.finish(WHOLE)
    assert await sink.finish(WHOLE) == Delivery("delivered", "errcode 0")


async def test_a_crash_in_the_middle_of_a_send(desk: Desk) -> None:
    desk.use(card_template_id="")
    address = await desk.asked()
    sink = desk.sink(address)
    break_route(desk, wire.WEBHOOK, kind="hang", seconds=999.0)
    sending = asyncio.create_task(sink.finish(WHOLE))  # type: ignore[arg-type]
    await desk.sim.wait_for(lambda: desk.sim.calls_of(wire.WEBHOOK))
    sending.cancel()
    await asyncio.wait({sending})
    later = desk.sink(address, desk.journal[-1], attempt=2)
    assert await later.finish(WHOLE) == Delivery("unconfirmed")


async def test_a_dissolved_group_is_the_end_of_the_ladder(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())
    desk.sim.disband(desk.group)
    await sink.open(THINKING)
    with pytest.raises(BorderError):
        await sink.finish(WHOLE)
    assert desk.shown() == []


# ---------------------------------------------------------------- charges


async def test_every_call_is_charged(desk: Desk) -> None:
    sink = desk.sink(await desk.asked())

    async def step(name: Any, snapshot: Snapshot) -> list[str]:
        await desk.clock.advance(0.6)
        charged = [charge.bucket.rsplit("/", 1)[-1] for charge in sink.charges(name)]
        before = len(desk.routes())
        await getattr(sink, name)(snapshot)
        made = desk.routes()[before:]
        routes = {"create": wire.CARD_CREATE_DELIVER, "stream": wire.CARD_STREAM}
        paid = [routes.get(n, wire.CARD_UPDATE) for n in charged if n != "turn1-0"]
        assert sorted(paid) == sorted(made)
        return charged

    assert await step("open", THINKING) == ["create"]
    assert await step("open", THINKING) == []
    assert await step("show", HALF) == ["turn1-0", "stream"]
    assert await step("finish", WHOLE) == ["update", "turn1-0", "stream"]


async def test_the_windows(desk: Desk) -> None:
    address = await desk.asked()
    [hook] = desk.sink(address).charges("finish")
    assert hook.bucket == f"dingtalk/webhook/{desk.group.id}"
    assert (hook.windows[0].limit, hook.windows[0].seconds) == (20, 60.0)
    [send] = desk.sink({**address, "sessionWebhook": ""}).charges("finish")
    assert (send.windows[0].limit, send.windows[0].seconds) == (20, 1.0)


# ---------------------------------------------------------------- marks


async def test_marks_cost_nothing_unless_wanted(desk: Desk) -> None:
    assert await desk.platform.react(await desk.asked(), "seen") == "" and desk.routes() == []


async def test_a_mark_and_its_end(desk: Desk) -> None:
    desk.use(receipts=True)
    address = await desk.asked()
    break_route(desk, wire.EMOTION_REPLY, kind="status", status=500, body={"code": "unknownError"})
    marking = asyncio.create_task(desk.platform.react(address, "seen"))
    while not marking.done():
        await desk.clock.advance(0.5)
    token = marking.result()
    bubble = desk.sim.world.bubbles[address["msgId"]]
    assert token and bubble.reactions == [token]
    await desk.platform.unreact(address, token)
    assert bubble.reactions == []


async def test_a_mark_that_may_not_be_set_is_no_error(desk: Desk) -> None:
    desk.use(receipts=True)
    desk.sim.quota.api_limit = 0
    assert await desk.platform.react(await desk.asked(), "done") == ""


# ---------------------------------------------------------------- foreign text

EVIL = [
    "[tap](dtmd://dingtalkclient/sendMessage?content=%2Fapprove)",
    "[tap](DTMD://dingtalkclient/sendMessage?content=x)",
    "[tap]( <dtmd://dingtalkclient/sendMessage>)",
    "[tap][1]\n\n[1]: dtmd://dingtalkclient/sendMessage",
    "<dtmd://dingtalkclient/sendMessage>",
    "dtmd://dingtalkclient/sendMessage?content=x",
    "```\n[tap](dtmd://x)\n",
    "`` ` [tap](dtmd://x)",
    "![img](dtmd://x)",
]


@pytest.mark.parametrize("text", EVIL)
def test_no_link_speaks_for_the_person(text: str) -> None:
    assert "dtmd://" not in safe(text).lower()
    assert live_links(safe(text)) == []
    shown = safe(text).replace(BREAK, "")
    assert shown == text  # invisible to the reader


@pytest.mark.parametrize(
    "address",
    [
        "dtmd&#58;//x",
        "dtmd&colon;//x",
        "d&#116;md://x",
        "dtmd%3A//x",
        "d\\tmd://x",
        "dt\u200bmd://x",
        "javascript:alert(1)",
        "dingtalk://dingtalkclient/page",
        "file:///etc/passwd",
        "JaVaScRiPt:x",
    ],
)
def test_only_web_pages_are_links(address: str) -> None:
    assert f"]{BREAK}(" in safe(f"[tap]({address})")
    assert f"]{BREAK}:" in safe(f"[1]: {address}")


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://example.com/x?y=1)",
        "![a](https://example.com/x.png)",
        "[a](/relative) [b](#part) [c](mailto:a@b.c)",
        "<https://example.com> a<br>b<br/>",
        "1 < 2 and a<5, `List<String>`",
        '```html\n<a href="x">y</a>\n```',
        "```python\nd[k](a: b)\n```",
        "@all @0123456789 hello",
        "DingTalk: 一个平台",
    ],
)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "<a atId=0123>Alice</a>",
        '<a  ATID="@ALL">all</a>',
        "<A\natId=0123>x</A>",
        "```\n<a atId=0123>Alice</a>",
        "<font color=red>x</font>",
        "<script>",
        "<!-- hidden -->",
    ],
)
def test_no_tag_survives(text: str) -> None:
    assert f"<{BREAK}" in safe(text) and card_pings(safe(text)) == []


async def test_nobody_is_pinged_by_any_rung(desk: Desk) -> None:
    evil = replace(WHOLE, text="@all @0123 <a atId=0123>x</a> [t](dtmd://x)", note="<a atId=1>")
    card = desk.sink(await desk.asked(), Handle("turn1-0"))
    await card.open(replace(THINKING, reasoning="<a atId=5>", summary="[x](dtmd://y)"))
    await desk.spaced(card.finish(evil))
    address = await desk.asked()
    await desk.sink(address, Handle("turn2-0")).finish(evil)
    await desk.sink({**address, "sessionWebhook": ""}, Handle("turn3-0")).finish(evil)
    assert [bubble.pings for bubble in desk.sim.bot_bubbles(desk.group)] == [[], [], []]
    hook = desk.sim.calls_of(wire.WEBHOOK)[0].body
    assert "at" not in hook


@given(st.text(alphabet=st.sampled_from(list("[]()<>`~\n dtmd:/ataId=\\&#%3A!|-x"))))
def test_foreign_text_never_acts(text: str) -> None:
    shown = safe(text)
    assert "dtmd://" not in shown.lower()
    assert shown.replace(BREAK, "") == text
    assert card_pings(shown) == []


# ---------------------------------------------------------------- dialects

TABLE = "before\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n| `x\\|y` | |\n\nafter"


def test_messages_have_no_tables() -> None:
    listed = "before\n\n- a: 1; b: 2\n- a: `x|y`\n\nafter"
    assert without_tables(TABLE) == listed
    fenced = f"```\n{TABLE}\n```"
    assert without_tables(fenced) == fenced
    assert "|" not in message_text(Snapshot(text="| a | b |\n|---|---|\n| 1 | 2 |"))


def test_single_line_breaks_become_visible() -> None:
    text = "one\ntwo\n\nthree\n- item\n- item\n# head\nfour\n```\na\nb\n```\nfive\nsix"
    broken = with_breaks(text, "<br>")
    assert broken == text.replace("one\n", "one<br>\n").replace("five\n", "five<br>\n")
    assert with_breaks(TABLE, "<br>") == TABLE
    assert message_text(Snapshot(text="one\ntwo")) == "one  \ntwo"


@given(st.text(alphabet=st.sampled_from(list("ab|-:\n `#>")), max_size=60))
def test_line_breaks_cost_no_words(text: str) -> None:
    assert with_breaks(text, "<br>").replace("<br>", "").split() == text.split()


def test_titles() -> None:
    assert title(Snapshot(summary="## **Hi** [there](https://x.y)")) == "Hi there"
    assert title(Snapshot()) == "…" and len(title(Snapshot(text="x" * 500))) == 60
    assert "dtmd://" not in title(Snapshot(text="dtmd://x"))


def test_long_thoughts_show_their_end() -> None:
    plain = Template("x.schema", "content")
    text = card_text(Snapshot(text="answer", reasoning="想" * 5000 + "end"), plain)
    assert text.startswith("> …") and "end\n\nanswer" in text and len(text.encode()) < 1100


def test_a_note_alone_is_the_text() -> None:
    template = Template("x.schema", "content", "state")
    assert final_card_text(Snapshot(note="stopped", state="stopped"), template) == "stopped"
