"""Small parts of the core on their own: trails, endings, lanes, what gathers, what is late."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.playground.clock import START, VirtualClock
from bot.contract import (
    Accepted,
    Delivery,
    Ending,
    InboundMessage,
    Moment,
    Person,
    TextPart,
    Turn,
    UnreadablePart,
    Usage,
)
from bot.deliveries import delivered
from bot.endings import LATE, Result, cause, final, footer, growing, outcome, wordless
from bot.errors import Bug, Transient
from bot.gather import Gathering
from bot.lanes import Lanes, Running
from bot.late import named_in, notice_of
from bot.settings import Chat
from bot.trail import KEPT, MOST, Trails
from tests.asking import asked


def turn(name: str = "t1", lane: str = "lane", **keys: Any) -> Turn:
    new = asked(
        f"{name:0<32}",
        lane,
        conversation="v",
        sender=Person("p"),
        message_id=f"m-{name}",
        parts=(TextPart("问题"),),
    )
    return Turn(replace(new, **keys), no=1)


# ---------------------------------------------------------------- trails


def whats(trails: Trails, of: Turn) -> list[tuple[str, str]]:
    return [(moment.what, moment.detail) for moment in trails.of(of.id)]


async def test_equal_moments_in_a_row_become_one_that_counts_them(virtual: VirtualClock) -> None:
    trails, one = Trails(virtual), turn()
    trails.begin(one)
    for what in ("claimed", "shown", "shown", "shown", "closed", "shown"):
        await virtual.advance(1.0)
        trails.note(one.id, what)
    assert whats(trails, one) == [("claimed", ""), ("shown", "3"), ("closed", ""), ("shown", "")]
    assert [moment.at - START for moment in trails.of(one.id)] == [1.0, 2.0, 5.0, 6.0]


def test_a_moment_with_a_detail_stands_alone(virtual: VirtualClock) -> None:
    trails, one = Trails(virtual), turn()
    trails.begin(one)
    for detail in ("card → webhook", "webhook → openapi"):
        trails.note(one.id, "stepped_down", detail)
    trails.note(one.id, "stepped_down")
    assert len(trails.of(one.id)) == 3


def test_a_trail_goes_on_where_the_store_left_it(virtual: VirtualClock) -> None:
    trails = Trails(virtual)
    earlier = (Moment(START - 9, "claimed"), Moment(START - 8, "undelivered"))
    one = replace(turn(), ending=Ending("answered", trail=earlier))
    trails.begin(one)
    trails.begin(one)
    trails.note(one.id, "retried")
    assert [moment.what for moment in trails.of(one.id)] == ["claimed", "undelivered", "retried"]


def test_what_the_store_noted_is_learned_once(virtual: VirtualClock) -> None:
    trails, one = Trails(virtual), turn()
    trails.begin(one)
    trails.note(one.id, "claimed")
    ended = replace(one, ending=Ending("recalled", trail=(Moment(START, "recalled"),)))
    for _ in range(2):
        trails.learn(ended)
    trails.learn(replace(turn("unknown"), ending=ended.ending))
    assert whats(trails, one) == [("claimed", ""), ("recalled", "")]


def test_trails_are_bounded(virtual: VirtualClock) -> None:
    trails, one = Trails(virtual), turn()
    trails.begin(one)
    for number in range(5 * MOST):
        trails.note(one.id, "put off", f"{number} s")
    assert len(trails.of(one.id)) == MOST
    for number in range(KEPT):
        trails.begin(turn(f"n{number}x"))
    assert trails.of(one.id) == () and len(list(trails.recent())) == KEPT
    trails.note(one.id, "closed")
    assert trails.of(one.id) == (), "a turn that is forgotten stays so"


# ---------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("result", "state", "words"),
    [
        (Result("答", "stop"), "answered", ""),
        (Result("答", "length"), "answered", "长度上限"),
        (Result("答", "content_filter"), "answered", "审核"),
        (Result(""), "failed", "没有给出回答"),
        (Result(" \n\t"), "failed", "没有给出回答"),
        (Result("半", stopped="stopped"), "stopped", "已停止"),
        (Result("", stopped="recalled"), "recalled", "撤回"),
        (Result("半", ran=False), "failed", "多次打断"),
        (Result("半", error=Transient("x", note="model.cut")), "failed", "中断"),
        (Result("", error=Transient("x", note="model.cut")), "failed", "中途断开"),
        (Result("", error=ValueError("secret")), "failed", "意外"),
        (Result("半", stopped="stopped", error=Bug("x")), "stopped", "已停止"),
    ],
)
def test_how_a_run_ends_in_words(result: Result, state: str, words: str) -> None:
    got, note = outcome(turn(), result)
    assert got == state and words in note and "secret" not in note
    assert bool(note) == bool(words)


def test_what_could_not_be_read_is_said_under_the_answer() -> None:
    parts = (TextPart("这是？"), UnreadablePart("image"), UnreadablePart("image"))
    state, note = outcome(turn(parts=parts), Result("答", "stop"))
    assert state == "answered" and note.count("图片") == 1


def test_a_question_without_words_gets_one_sentence() -> None:
    ending = wordless(turn(parts=(UnreadablePart("image"), UnreadablePart("audio"))))
    assert ending is not None and ending.state == "refused"
    assert "图片" in ending.text and "语音" in ending.text
    assert wordless(turn()) is None


@pytest.mark.parametrize(
    ("ending", "labels", "note"),
    [
        (Ending("answered", "答"), ["重新生成"], ""),
        (Ending("failed", note="坏了"), ["重新生成"], "坏了"),
        (Ending("stopped"), ["重新生成"], "已停止。"),
        (Ending("stopped", "半", note="自己的话"), ["重新生成"], "自己的话"),
        (Ending("recalled"), [], "提问已撤回，回答到此为止。"),
        (Ending("refused", "不读图"), [], ""),
    ],
)
def test_the_closed_card(ending: Ending, labels: list[str], note: str) -> None:
    card = final(turn(), ending)
    assert [button.label for button in card.buttons] == labels
    assert (card.note, card.state) == (note, ending.state)


def test_the_buttons_name_their_turn() -> None:
    one = turn()
    (stop,) = growing(one, "…").buttons
    (again,) = final(one, Ending("answered", "答")).buttons
    (late,) = final(turn(kind="notice", notice=LATE), Ending("answered", "…")).buttons
    assert (stop.action, again.action, late.action) == ("stop", "retry", "retry")
    assert {stop.turn, again.turn} == {one.id} and late.label == "现在回答"
    assert final(turn(kind="command"), Ending("answered", "…")).buttons == ()


def test_the_small_print() -> None:
    usage = Usage(prompt=10, completion=5)
    assert footer("zh", "m", 1.25, usage, 0.00012) == "m · 1.2 秒 · 15 tokens · ¥0.0001"
    assert footer("en", "m", 2.0, Usage(), 0.0) == "m · 2.0 s"


def test_the_cause_for_the_log_tells_only_our_own_words() -> None:
    assert cause(Transient("connection lost")) == "connection lost"
    assert cause(ValueError("a secret of a library")) == "ValueError"
    assert cause(None) == ""


def test_an_ending_with_what_came_of_its_delivery() -> None:
    ending = Ending("answered", "答")
    assert delivered(ending, None).delivery == "undelivered"
    proven = delivered(ending, Delivery("delivered", "om_1"))
    assert (proven.delivery, proven.proof, proven.text) == ("delivered", "om_1", "答")


# ---------------------------------------------------------------- lanes


class Desk:
    """Lanes whose turns end when they are told to."""

    def __init__(self) -> None:
        self.lanes = Lanes(self._answer)
        self.following: dict[str, Turn] = {}
        self.begun: list[str] = []
        self.left: list[str] = []
        self.free = asyncio.Event()

    async def _answer(self, running: Running) -> Turn | None:
        name = running.turn.id[:2]
        self.begun.append(name)
        running.work = asyncio.create_task(self._work())
        await asyncio.wait({running.work})
        if running.leaving:
            self.left.append(name)
            return None
        return self.following.get(name)

    async def _work(self) -> None:
        await self.free.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_lane_in_order_and_lanes_side_by_side() -> None:
    desk = Desk()
    desk.following["t1"] = turn("t2")
    desk.lanes.run(turn("t1"))
    desk.lanes.run(turn("u1", lane="other"))
    await settled()
    assert sorted(desk.begun) == ["t1", "u1"] and len(desk.lanes) == 2
    running = desk.lanes.find(turn("t1").id)
    assert running is not None and desk.lanes.find(turn("t2").id) is None
    desk.free.set()
    await settled()
    assert desk.begun[-1] == "t2" and len(desk.lanes) == 0


async def test_the_first_reason_to_end_counts() -> None:
    running = Running(turn())
    running.work = asyncio.create_task(asyncio.sleep(60))
    running.end("stopped")
    running.end("recalled")
    await asyncio.wait({running.work})
    assert running.ended == "stopped" and running.work.cancelled()


async def test_a_turn_that_is_handed_over_is_not_stopped_any_more() -> None:
    running = Running(turn())
    hurried: list[bool] = []
    running.hurry = lambda: hurried.append(True)
    running.hand_over()
    running.end("stopped")
    assert running.leaving and running.ended is None and hurried == [True]


async def test_draining_hands_over_what_does_not_end_in_time() -> None:
    desk = Desk()
    desk.following["t1"] = turn("t2")
    desk.lanes.run(turn("t1"))
    await settled()
    await desk.lanes.drain(0.01)
    assert (desk.begun, desk.left) == (["t1"], ["t1"]) and len(desk.lanes) == 0


async def test_draining_begins_nothing_new() -> None:
    desk = Desk()
    desk.following["t1"] = turn("t2")
    desk.lanes.run(turn("t1"))
    await settled()
    draining = asyncio.create_task(desk.lanes.drain(30.0))
    await settled()
    desk.free.set()
    await draining
    assert (desk.begun, desk.left) == (["t1"], [])


# ---------------------------------------------------------------- gathering


def message(*parts: Any) -> InboundMessage:
    return InboundMessage("b", "feishu", "m", "c", "p2p", Person("p"), parts, {})


PICTURE, LINE = message(UnreadablePart("image")), message(TextPart("看"))


def claimed(name: str = "t1", *, joined: bool = False, fresh: bool = True) -> Accepted:
    return Accepted(fresh, turn(name), joined=joined)


async def test_words_look_for_a_picture_only_while_one_waits(virtual: VirtualClock) -> None:
    gathering = Gathering(Chat(gather=1.5), virtual)
    assert gathering.seconds(LINE, "lane") == 0.0
    assert gathering.seconds(PICTURE, "lane") == 1.5
    assert gathering.seconds(LINE, "lane") == 1.5, "the picture is being claimed"
    gathering.claimed(PICTURE, "lane", claimed())
    assert gathering.seconds(LINE, "lane") == 1.5 and gathering.seconds(LINE, "other") == 0.0
    await virtual.advance(1.6)
    assert gathering.seconds(LINE, "lane") == 0.0


async def test_a_picture_that_came_before_holds_nothing(virtual: VirtualClock) -> None:
    gathering = Gathering(Chat(gather=1.5), virtual)
    gathering.seconds(PICTURE, "lane")
    gathering.claimed(PICTURE, "lane", claimed(fresh=False))
    assert gathering.seconds(LINE, "lane") == 0.0
    await gathering.settled(turn().id, "lane")


async def test_each_companion_prolongs_the_wait(virtual: VirtualClock) -> None:
    gathering = Gathering(Chat(gather=1.5), virtual)
    gathering.seconds(PICTURE, "lane")
    gathering.claimed(PICTURE, "lane", claimed())
    waiting = asyncio.create_task(gathering.settled(turn().id, "lane"))
    await virtual.advance(1.0)
    gathering.claimed(LINE, "lane", claimed(joined=True))
    await virtual.advance(1.0)
    assert not waiting.done()
    await virtual.advance(0.6)
    assert waiting.done() and gathering.seconds(LINE, "lane") == 0.0


async def test_lines_alone_wait_for_nobody(virtual: VirtualClock) -> None:
    gathering = Gathering(Chat(gather=1.5), virtual)
    gathering.claimed(LINE, "lane", claimed())
    await gathering.settled(turn().id, "lane")
    assert not gathering.starts(message(TextPart("看"), UnreadablePart("image")))
    assert Gathering(Chat(gather=1.5, gather_text=True), virtual).starts(LINE)
    assert not Gathering(Chat(gather=0.0, gather_text=True), virtual).starts(LINE)


# ---------------------------------------------------------------- late


def test_a_notice_and_the_turns_that_it_names_find_each_other() -> None:
    notice = turn("n1", kind="notice", notice=LATE, notice_args={"turns": ["a", "b"]})
    told = Ending("refused", error="late", delivery="delivered", proof=f"late:{notice.id}")
    assert named_in(notice) == ("a", "b") and named_in(turn()) == ()
    assert notice_of(replace(turn(), ending=told)) == notice.id
    for other in (None, Ending("refused"), replace(told, error=""), replace(told, proof="om_1")):
        assert notice_of(replace(turn(), ending=other)) == ""
