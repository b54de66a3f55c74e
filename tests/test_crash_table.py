"""The crash table of design.md 5, row by row. A crash here: every task of the bot dies at
once, nothing more is written or sent; then the same data folder is opened again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from adapters.playground.deepseek import Trouble
from adapters.playground.dingtalk import wire as ding
from adapters.playground.faults import Fault
from adapters.playground.feishu import wire as lark
from bot.contract import Turn
from bot.serving import serve_until_stopped

PLATFORMS = ("feishu", "dingtalk")
PIECES = tuple(f"第{n}段。" for n in range(12))
TEXT = "".join(PIECES)
ALWAYS = 999


async def until(house: Any, true: Callable[[], Any], seconds: float = 20.0) -> Any:
    return await house.feishu.wait_for(true, seconds)


async def stored(house: Any, platform: str, message: str, true: Callable[[Turn], Any]) -> Turn:
    """The turn once it is so; time is hurried."""
    async with asyncio.timeout(20):
        while True:
            turn: Turn | None = await house.turn(platform, message)
            if turn is not None and true(turn):
                return turn
            house.clock.leap(0.25)
            await asyncio.sleep(0.01)


async def hurried(house: Any, platform: str, message: str) -> Turn:
    """The turn once it has ended; time is hurried."""
    return await stored(house, platform, message, lambda turn: turn.ended)


async def no_double(house: Any, room: Any) -> None:
    """Nothing more comes of it, whatever the platform sends again."""
    count, asked = len(room.answers()), len(house.deepseek.requests)
    for _ in range(4):
        house.clock.leap(8.0)
        await asyncio.sleep(0.03)
    assert (len(room.answers()), len(house.deepseek.requests)) == (count, asked)
    assert house.complaints(paced=False) == []


@asynccontextmanager
async def stuck(house: Any) -> AsyncIterator[None]:
    """The store works on something: what is written now is committed afterwards, unless
    whoever asked for it is dead by then."""
    loop, begun, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(_: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(20)

    holding = asyncio.create_task(house.app.store.database.run(hold))
    await begun.wait()
    try:
        yield
    finally:
        release.set()
        await asyncio.gather(holding, return_exceptions=True)


async def crash_while_stuck(house: Any) -> None:
    """Dead before the commit of what waits now."""
    dying = asyncio.create_task(house.crash())
    await asyncio.sleep(0.2)
    assert not dying.done()
    house.dying = dying


# ---------------------------------------------------------------- the claim


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_before_the_claim_commits(house: Any, platform: str) -> None:
    """Not acknowledged, so it comes again."""
    house.deepseek.script("问", ["答"])
    await house.start()
    room = house.room(platform)
    async with stuck(house):
        message = await room.say("问")
        await asyncio.sleep(0.2)
        await crash_while_stuck(house)
    await house.dying
    assert not any(acked(house, platform))
    await house.start()
    assert await house.turn(platform, message) is None
    house.clock.leap(20.0)
    assert (await hurried(house, platform, message)).ending.text == "答"
    assert (await room.answer()).text == "答"
    await no_double(house, room)


def acked(house: Any, platform: str) -> list[bool]:
    if platform == "feishu":
        return [at is not None for at in house.feishu.acks.values()]
    return [ack.good for ack in house.dingtalk.acks]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_after_the_claim_and_before_the_acknowledgement(house: Any, platform: str) -> None:
    """The acknowledgement never arrives: what comes again is recognised."""
    house.deepseek.script("问", ["答"], first=4.0)
    await house.start()
    room = house.room(platform)
    unheard = list(room.sim.links)
    for link in unheard:
        link.transport.pause_reading()
    message = await room.say("问")
    first = await stored(house, platform, message, lambda turn: turn.seen_at)
    await house.crash()
    assert not any(acked(house, platform))
    for link in unheard:
        link.cut()
    await until(house, lambda: not room.sim.links)
    await house.start()
    turn = await hurried(house, platform, message)
    assert turn.id == first.id
    await house.clock.hurry(lambda: any(acked(house, platform)), most=400.0)
    assert (await room.answer()).text == "答"
    await no_double(house, room)
    (account,) = (await house.app.office.why(message))["accounts"]
    assert account["repeats"] >= 1


# ---------------------------------------------------------------- waiting


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_queued_behind_another(house: Any, platform: str) -> None:
    for number in range(4):
        house.deepseek.script(f"问{number}", [f"答{number}"], first=1.0)
    await house.start()
    room = house.room(platform)
    messages = [await room.say(f"问{n}") for n in range(4)]
    for message in messages:
        await stored(house, platform, message, lambda turn: turn.seen_at)
    await house.crash()
    await house.start()
    turns = [await hurried(house, platform, message) for message in messages]
    assert [turn.ending.text for turn in turns if turn.ending] == [f"答{n}" for n in range(4)]
    found = await house.settled(room.answers, 4)
    assert [b.text for b in found] == [f"答{n}" for n in range(4)]
    asked = [request.question.split("\n")[-1] for request in house.deepseek.requests]
    assert [q for n, q in enumerate(asked) if q not in asked[:n]] == [f"问{n}" for n in range(4)]
    await no_double(house, room)


# ---------------------------------------------------------------- nothing visible yet


@pytest.mark.parametrize(
    ("platform", "route"), [("feishu", lark.CARD_CREATE), ("dingtalk", ding.CARD_CREATE_DELIVER)]
)
async def test_running_with_nothing_visible(house: Any, platform: str, route: str) -> None:
    house.deepseek.script("问", PIECES, pace=0.5)
    await house.start()
    room = house.room(platform)
    room.sim.faults.order(route, Fault("hang", seconds=1e6), ALWAYS)
    message = await room.say("问")
    await until(house, lambda: room.sim.calls_of(route) and house.deepseek.open_streams)
    await house.crash()
    room.sim.faults.clear()
    assert room.answers() == []
    await house.start()
    turn = await hurried(house, platform, message)
    assert (turn.attempt, turn.ending.delivery) == (2, "delivered")
    assert (await room.answer()).text == TEXT
    await no_double(house, room)


# ---------------------------------------------------------------- while opening


def keys(house: Any) -> set[str]:
    calls = [*house.feishu.calls_of(lark.REPLY), *house.feishu.calls_of(lark.SEND)]
    return {call.body["uuid"] for call in calls}


@pytest.mark.parametrize("arrived", [True, False])
async def test_the_answer_to_the_send_is_lost(house: Any, arrived: bool) -> None:
    """Sent again under the same key, whether or not it had arrived: one card, filled."""
    house.deepseek.script("问", PIECES, pace=0.5)
    await house.start()
    room = house.room("feishu")
    fault = Fault("lose") if arrived else Fault("hang", seconds=1e6)
    house.feishu.faults.order(lark.REPLY, fault, ALWAYS)
    message = await room.say("问")
    await until(house, lambda: room.answers() if arrived else house.feishu.calls_of(lark.REPLY))
    await house.crash()
    house.feishu.faults.clear()
    await house.start()
    turn = await hurried(house, "feishu", message)
    card = await room.answer()
    assert card.text == TEXT and turn.ending.proof == card.id
    assert turn.ending.delivery == "delivered" and len(keys(house)) == 1
    await no_double(house, room)


async def too_old(house: Any, kind: str, fault: Fault) -> tuple[Any, str, int]:
    """The room, the question, and how many sends there were, when a process begins more than
    an hour after a send of unknown fate: its key is forgotten."""
    house.deepseek.script("问", PIECES, pace=0.5)
    await house.start()
    room = house.room("feishu", kind)
    house.feishu.faults.order(lark.REPLY, fault, ALWAYS)
    message = await room.say("问")
    arrived = fault.kind == "lose"
    await until(house, lambda: room.answers() if arrived else house.feishu.calls_of(lark.REPLY))
    await house.crash()
    house.feishu.faults.clear()
    house.clock.leap(4000.0)
    return room, message, len(house.feishu.calls_of(lark.REPLY))


@pytest.mark.parametrize("kind", ["p2p", "group"])
@pytest.mark.parametrize("arrived", [True, False])
async def test_a_send_too_old_to_be_repeated_is_looked_for(
    house: Any, arrived: bool, kind: str
) -> None:
    """Found in the history it is filled; certainly absent it is sent anew."""
    room, message, sent = await too_old(house, kind, Fault("lose" if arrived else "drop"))
    await house.start()
    turn = await hurried(house, "feishu", message)
    card = await room.answer()
    assert card.text == TEXT and turn.ending.proof == card.id
    assert turn.ending.delivery == "delivered"
    assert len(house.feishu.calls_of(lark.REPLY)) == sent + (0 if arrived else 1)
    await no_double(house, room)


async def test_an_old_send_that_nobody_can_look_for_is_told_to_the_operator(house: Any) -> None:
    """Without the scope for a group's history: the card is filled, nothing is sent."""
    room, message, sent = await too_old(house, "group", Fault("lose"))
    house.feishu.policy.missing_scopes = {"im:message.group_msg"}
    await house.start()
    turn = await hurried(house, "feishu", message)
    assert turn.ending.delivery == "unconfirmed"
    assert (await room.answer()).text == TEXT
    assert len(house.feishu.calls_of(lark.REPLY)) == sent
    (listed,) = (await house.app.office.status())["undelivered"]
    assert listed["turn"] == turn.id


@pytest.mark.parametrize("arrived", [True, False])
async def test_the_answer_to_a_dingtalk_create_is_lost(house: Any, arrived: bool) -> None:
    house.deepseek.script("问", PIECES, pace=0.5)
    await house.start()
    room = house.room("dingtalk")
    fault = Fault("lose") if arrived else Fault("hang", seconds=1e6)
    house.dingtalk.faults.order(ding.CARD_CREATE_DELIVER, fault, ALWAYS)
    message = await room.say("问")
    creates = lambda: house.dingtalk.calls_of(ding.CARD_CREATE_DELIVER)  # noqa: E731
    await until(house, lambda: room.answers() if arrived else creates())
    await house.crash()
    house.dingtalk.faults.clear()
    await house.start()
    turn = await hurried(house, "dingtalk", message)
    assert turn.ending.delivery == "delivered"
    assert (await room.answer()).text == TEXT
    assert len({call.body["outTrackId"] for call in creates()}) == 1
    await no_double(house, room)


# ---------------------------------------------------------------- half filled


async def half(house: Any, platform: str, pace: float = 0.5) -> tuple[Any, str]:
    """A room and a question whose answer has a checkpoint and goes on."""
    house.deepseek.script("问", PIECES, pace=pace)
    await house.start()
    room = house.room(platform)
    message = await room.say("问")
    await stored(house, platform, message, lambda turn: turn.checkpoint)
    await until(house, lambda: room.answers()[0].text)
    return room, message


def sequences(house: Any) -> list[int]:
    calls = [call for call in house.feishu.calls if call.route in lark.CARD_OPERATIONS]
    return [call.body["sequence"] for call in calls]


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_half_filled_is_continued_from_the_checkpoint(house: Any, platform: str) -> None:
    room, message = await half(house, platform)
    checkpoint = (await house.turn(platform, message)).checkpoint
    card = room.answers()[0].id
    before = sequences(house)
    await house.crash()
    await house.start()
    turn = await hurried(house, platform, message)
    assert [b.id for b in room.answers()] == [card] and room.answers()[0].text == TEXT
    assert (turn.ending.text, turn.ending.delivery, turn.attempt) == (TEXT, "delivered", 2)
    first, second = house.deepseek.requests
    assert first.prefix is None and second.prefix.startswith(checkpoint)
    after = sequences(house)[len(before) :]
    if platform == "feishu":
        assert min(after) > max(before) + 1000 and after == sorted(set(after))
    await no_double(house, room)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_half_filled_is_written_anew_where_nothing_is_continued(
    house: Any, platform: str
) -> None:
    room, message = await half(house, platform)
    card = room.answers()[0].id
    await house.crash()
    house.deepseek.order(Trouble("refuse", status=400))
    house.deepseek.script("问", ["完全", "不同", "的回答"])
    await house.start()
    turn = await hurried(house, platform, message)
    assert [b.id for b in room.answers()] == [card]
    assert room.answers()[0].text == turn.ending.text == "完全不同的回答"
    assert house.deepseek.requests[-1].prefix is None
    await no_double(house, room)


async def test_a_card_that_takes_nothing_more_gives_way_to_a_message(house: Any) -> None:
    room, message = await half(house, "feishu")
    card = room.answers()[0].id
    await house.crash()
    gone = Fault("status", status=400, body={"code": 200750, "msg": "older than 14 days"})
    house.feishu.faults.order_any(lark.CARD_OPERATIONS, gone, ALWAYS)
    await house.start()
    turn = await hurried(house, "feishu", message)
    (new,) = room.answers()
    assert card != new.id == turn.ending.proof and new.text == TEXT
    assert turn.ending.delivery == "delivered"


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_stopped_right_before_the_crash_stays_stopped(house: Any, platform: str) -> None:
    room, message = await half(house, platform)
    room.sim.faults.order_any(
        (*lark.CARD_OPERATIONS, ding.CARD_UPDATE, ding.CARD_STREAM), Fault("drop"), ALWAYS
    )
    await room.say("/stop")
    await stored(house, platform, message, lambda turn: turn.ending)
    await house.crash()
    room.sim.faults.clear()
    await house.start()
    turn = await hurried(house, platform, message)
    assert turn.state == "stopped" and len(house.deepseek.requests) == 1
    card = next(b for b in room.answers() if "段" in b.text)
    assert "已停止" in card.small and not card.streaming


# ---------------------------------------------------------------- the last update

FINALS = {
    "feishu": (lark.CARD_UPDATE, lark.CARD_SETTINGS),
    "dingtalk": (ding.CARD_UPDATE,),
}


@pytest.mark.parametrize("kind", ["lose", "drop"])
@pytest.mark.parametrize("platform", PLATFORMS)
async def test_the_final_update_is_not_confirmed(house: Any, platform: str, kind: Any) -> None:
    house.deepseek.script("问", PIECES[:3])
    await house.start()
    room = house.room(platform)
    room.sim.faults.order_any(FINALS[platform], Fault(kind), ALWAYS)
    message = await room.say("问")
    await stored(house, platform, message, lambda turn: turn.ending)
    calls = lambda: [c for r in FINALS[platform] for c in room.sim.calls_of(r)]  # noqa: E731
    await until(house, calls)
    await house.crash()
    room.sim.faults.clear()
    count = len(calls())
    await house.start()
    turn = await hurried(house, platform, message)
    assert (turn.state, turn.ending.delivery) == ("answered", "delivered")
    assert len(calls()) > count and len(house.deepseek.requests) == 1
    card = await room.answer()
    assert card.text == turn.ending.text == "".join(PIECES[:3])
    assert [b.text for b in card.buttons()] == ["重新生成"]
    await no_double(house, room)


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_the_final_update_is_confirmed_and_the_row_is_not_committed(
    house: Any, platform: str
) -> None:
    """The idempotent final is repeated once; "already finished" counts as confirmed."""
    house.deepseek.script("问", PIECES[:3])
    await house.start()
    room = house.room(platform)
    last = FINALS[platform][-1]
    room.sim.faults.order(last, Fault("delay", seconds=600.0))
    message = await room.say("问")
    await until(house, lambda: room.sim.calls_of(last))
    async with stuck(house):
        house.clock.leap(600.0)
        await until(house, lambda: room.sim.calls_of(last)[-1].status)
        await asyncio.sleep(0.3)
        await crash_while_stuck(house)
    await house.dying
    count = len(room.sim.calls_of(last))
    await house.start()
    turn = await hurried(house, platform, message)
    assert turn.ending.delivery == "delivered" and len(house.deepseek.requests) == 1
    assert len(room.sim.calls_of(last)) > count
    assert (await room.answer()).text == "".join(PIECES[:3])
    await no_double(house, room)


async def test_a_keyless_final_is_never_repeated(house: Any) -> None:
    """The process died while the webhook was called: nobody knows whether it arrived."""
    house.dingtalk_keys["card_template_id"] = ""
    house.deepseek.script("问", PIECES[:3])
    await house.start()
    room = house.room("dingtalk")
    house.dingtalk.faults.order(ding.WEBHOOK, Fault("hang", seconds=1e6), ALWAYS)
    message = await room.say("问")
    await until(house, lambda: house.dingtalk.calls_of(ding.WEBHOOK))
    await house.crash()
    house.dingtalk.faults.clear()
    await house.start()
    turn = await hurried(house, "dingtalk", message)
    assert (turn.state, turn.ending.delivery) == ("answered", "unconfirmed")
    assert len(house.dingtalk.calls_of(ding.WEBHOOK)) == 1 and room.answers() == []
    (listed,) = (await house.app.office.status())["undelivered"]
    assert listed["turn"] == turn.id
    await no_double(house, room)


async def test_a_command_and_a_notice_are_answered_after_a_crash(house: Any) -> None:
    await house.start()
    room = house.room("feishu")
    house.feishu.faults.order_any((lark.REPLY, lark.SEND), Fault("drop"), ALWAYS)
    messages = [await room.say("/whoami"), await room.say("", kind="text", content={"text": ""})]
    for message in messages:
        await stored(house, "feishu", message, lambda turn: turn.ending)
    await house.crash()
    house.feishu.faults.clear()
    await house.start()
    for message in messages:
        assert (await hurried(house, "feishu", message)).ending.delivery == "delivered"
    await room.answer(2)
    await no_double(house, room)


# ---------------------------------------------------------------- runs that die


async def test_a_turn_whose_run_died_twice_is_closed(house: Any) -> None:
    room, message = await half(house, "feishu")
    await house.crash()
    house.deepseek.script("问", PIECES, first=1e6)
    await house.start()
    await stored(house, "feishu", message, lambda turn: turn.attempt == 2)
    await until(house, lambda: house.deepseek.open_streams)
    await house.crash()
    asked = len(house.deepseek.requests)
    after = house.deepseek
    after.script("之后", ["好答"])
    await house.start()
    turn = await hurried(house, "feishu", message)
    assert turn.state == "failed" and len(house.deepseek.requests) == asked
    card = await room.answer()
    assert turn.id[:8] in card.small + card.text and "第0段" in card.text
    assert not house.feishu.open_cards()
    await room.say("之后")
    assert (await room.answer(2)).text == "好答"


async def test_a_graceful_hand_over_is_no_death(house: Any) -> None:
    room, message = await half(house, "feishu")
    for run in range(2, 5):
        await house.restart()
        await stored(house, "feishu", message, lambda turn, run=run: turn.attempt == run)
    turn = await hurried(house, "feishu", message)
    assert turn.state == "answered" and (await room.answer()).text == TEXT
    assert turn.deaths == 0


async def test_a_restart_lets_short_answers_finish(house: Any) -> None:
    """Within the grace period; nothing is heard meanwhile."""
    house.deepseek.script("问", ["答"], first=0.1)
    await house.start()
    room = house.room("feishu")
    message = await room.say("问")
    await until(house, lambda: house.deepseek.open_streams)
    await house.stop()
    assert (await room.answer()).text == "答"
    await house.start()
    turn = await house.turn("feishu", message)
    assert turn.ended and turn.attempt == 1


# ---------------------------------------------------------------- real processes


class Process:
    """`queqiao run` between the simulators, on the folder of the house."""

    def __init__(self, house: Any, *program: str) -> None:
        self.house = house
        feishu, dingtalk, model = house.feishu, house.dingtalk, house.deepseek
        env = {
            "PATH": os.environ.get("PATH", ""),
            "FEISHU_APP_ID": feishu.app_id,
            "FEISHU_APP_SECRET": feishu.app_secret,
            "FEISHU_BASE_URL": feishu.base_url,
            "DINGTALK_CLIENT_ID": dingtalk.client_id,
            "DINGTALK_CLIENT_SECRET": dingtalk.client_secret,
            "DINGTALK_BASE_URL": dingtalk.base_url,
            "DEEPSEEK_API_KEY": model.api_key,
            "DEEPSEEK_BASE_URL": model.base_url,
            "QUEQIAO_DATA": str(house.folder),
            "QUEQIAO_HTTP": "127.0.0.1:0",
        }
        self.handle = subprocess.Popen(
            [sys.executable, *(program or ("-m", "bot", "run"))],
            cwd=Path(__file__).parent.parent,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def up(self) -> None:
        sims = self.house
        await until(sims, lambda: sims.feishu.links and sims.dingtalk.links, 60)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.handle.wait, 60)


@pytest.fixture
async def process(house: Any) -> AsyncIterator[Process]:
    running = Process(house)
    try:
        yield running
    finally:
        running.handle.kill()
        running.handle.wait()


async def test_sigterm_lets_answers_finish_and_ends_well(house: Any, process: Process) -> None:
    house.deepseek.script("问", ["一", "二", "三"], pace=0.5)
    await process.up()
    room = house.room("feishu")
    await room.say("问")
    await until(house, lambda: house.deepseek.open_streams)
    process.handle.send_signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert (await room.answer()).text == "一二三"


@pytest.mark.parametrize("way", ["twice", "kill"])
async def test_a_process_that_leaves_at_once_is_followed_by_one_that_goes_on(
    house: Any, process: Process, way: str
) -> None:
    house.deepseek.script("问", PIECES, pace=0.4)
    await process.up()
    room = house.room("feishu")
    message = await room.say("问")
    card = await room.growing("第1段")
    if way == "twice":
        process.handle.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        process.handle.send_signal(signal.SIGTERM)
        assert await process.ended() == 1
    else:
        process.handle.kill()
        await process.ended()
    assert house.feishu.open_cards(), "it left in the middle"
    await house.start()
    turn = await hurried(house, "feishu", message)
    assert [b.id for b in room.answers()] == [card.id] and room.answers()[0].text == TEXT
    assert (turn.state, turn.attempt) == ("answered", 2)


# ---------------------------------------------------------------- a disk that hangs


async def test_closing_gives_up_what_hangs_and_says_so(house: Any) -> None:
    room, message = await half(house, "feishu")
    app, release = house.app, threading.Event()
    app.patience = 0.2
    holding = asyncio.create_task(app.store.database.run(lambda _: release.wait(60)))
    left: list[int] = []
    serving = asyncio.create_task(serve_until_stopped(app, left.append))
    try:
        await asyncio.sleep(0.1)
        app.stop()
        await serving
        assert left == [1]
        assert not await app.close(), "it hangs still"
    finally:
        release.set()
        await holding
    app.patience = 30.0
    assert await app.close(), "the same closing, once the disk is back"
    house.app = None
    await house.start()
    turn = await hurried(house, "feishu", message)
    assert turn.state == "answered" and (await room.answer()).text == TEXT


STUCK = """
import asyncio, os, signal, time
from dataclasses import replace
from bot.app import open_app
from bot.serving import serve_until_stopped
from bot.settings import Chat, load

async def main():
    app = await open_app(replace(load(), chat=Chat(grace=0.1)))
    app.patience = 0.5
    held = asyncio.create_task(app.store.database.run(lambda _: time.sleep(3600)))
    asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGTERM)
    await serve_until_stopped(app, os._exit)

asyncio.run(main())
"""


async def test_sigterm_ends_a_process_whose_disk_hangs(house: Any) -> None:
    """Neither the end of the loop nor that of the interpreter would come by itself."""
    running = Process(house, "-c", STUCK)
    try:
        assert await running.ended() == 1
    finally:
        running.handle.kill()
        running.handle.wait()
