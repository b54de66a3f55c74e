"""bot/alerts.py: whoever runs the bot is told once per incident, over another route than the
one that is broken (needs.md 22)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from adapters.playground.clock import VirtualClock
from adapters.playground.dingtalk import wire as ding
from adapters.playground.faults import Fault
from adapters.playground.feishu import wire as lark
from bot.alerts import DOUBTS, LAST_WORD, LOOK_EVERY, Alerts
from bot.contract import Json, Trouble
from bot.errors import BorderError, Transient, Uncertain

PLATFORMS = ("feishu", "dingtalk")


# ---------------------------------------------------------------- alone


@dataclass
class Desk:
    """What is wrong now, and a webhook that meets `errors` one after the other."""

    now: list[Trouble] = field(default_factory=list)
    errors: list[BorderError] = field(default_factory=list)
    posted: list[Json] = field(default_factory=list)

    async def troubles(self) -> list[Trouble]:
        return self.now

    async def post(self, body: Json) -> None:
        self.posted.append(body)
        if self.errors:
            raise self.errors.pop(0)

    @property
    def states(self) -> list[str]:
        return [str(body["state"]) for body in self.posted]


RED = Trouble("store", "坏了 / broken, token=abcdef123")


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def pass_(desk: Desk, virtual: VirtualClock) -> AsyncIterator[Any]:
    """Lets seconds pass while the alerts look."""
    hide = lambda text: text.replace("abcdef123", "***")  # noqa: E731
    alerts = Alerts(desk, {}, (), desk.post, hide, virtual)
    running = asyncio.create_task(alerts.run())
    await asyncio.sleep(0)
    yield virtual.advance
    running.cancel()
    await asyncio.wait({running})


def incidents(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


async def test_once_when_it_has_lasted_and_once_when_it_is_over(
    desk: Desk, pass_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    desk.now = [RED]
    await pass_(RED.after - LOOK_EVERY)
    assert desk.states == [] and incidents(caplog) == []
    await pass_(3 * LOOK_EVERY)
    assert desk.states == ["begun"] and len(incidents(caplog)) == 1
    await pass_(3600)
    assert desk.states == ["begun"] and len(incidents(caplog)) == 1
    desk.now = []
    await pass_(RED.calm + 2 * LOOK_EVERY)
    assert desk.states == ["begun", "over"]
    begun, over = desk.posted
    assert begun["incident"] == over["incident"] and begun["since"] == over["since"]
    assert begun["text"] == "坏了 / broken, token=***" and begun["trouble"] == "store"
    await pass_(3600)
    assert desk.states == ["begun", "over"]
    desk.now = [RED]
    await pass_(RED.after + 2 * LOOK_EVERY)
    assert desk.states == ["begun", "over", "begun"], "another incident"
    assert desk.posted[2]["incident"] != begun["incident"] and len(incidents(caplog)) == 2


async def test_what_passes_soon_is_told_to_nobody(desk: Desk, pass_: Any) -> None:
    for _ in range(5):
        desk.now = [RED]
        await pass_(RED.after - 2 * LOOK_EVERY)
        desk.now = []
        await pass_(RED.calm + 2 * LOOK_EVERY)
    assert desk.posted == []


async def test_green_for_a_moment_does_not_end_it(desk: Desk, pass_: Any) -> None:
    for _ in range(10):
        desk.now = [RED]
        await pass_(2 * LOOK_EVERY)
        desk.now = []
        await pass_(LOOK_EVERY)
    assert desk.states == ["begun"]


async def test_two_troubles_are_two_incidents(desk: Desk, pass_: Any) -> None:
    desk.now = [RED, Trouble("model", "模型 / model")]
    await pass_(RED.after + 2 * LOOK_EVERY)
    desk.now = [RED]
    await pass_(RED.calm + 2 * LOOK_EVERY)
    seen = [(body["trouble"], body["state"]) for body in desk.posted]
    assert seen == [("store", "begun"), ("model", "begun"), ("model", "over")]


@pytest.mark.parametrize(
    ("error", "tries"),
    [(Transient("503"), 7), (Uncertain("lost"), DOUBTS), (BorderError("404"), 1)],
)
async def test_only_what_may_pass_is_posted_again_and_again(
    desk: Desk, pass_: Any, error: BorderError, tries: int
) -> None:
    desk.now, desk.errors = [RED], [error] * 6
    await pass_(RED.after + 10 * LOOK_EVERY)
    assert len(desk.posted) == tries
    assert len({body["incident"] for body in desk.posted}) == 1


async def test_an_end_that_cannot_be_told_is_given_up(desk: Desk, pass_: Any) -> None:
    desk.now = [RED]
    await pass_(RED.after + 2 * LOOK_EVERY)
    desk.now, desk.errors = [], [Transient("503")] * 1000
    await pass_(RED.calm + LAST_WORD + 3 * LOOK_EVERY)
    count = len(desk.posted)
    await pass_(3600)
    assert count > 3 and len(desk.posted) == count


async def test_a_trouble_whose_end_nobody_sees_has_none(
    desk: Desk, pass_: Any, caplog: pytest.LogCaptureFixture
) -> None:
    desk.now = [Trouble("rung", "缺权限 / lacks", after=0.0, calm=3600.0, red=False)]
    await pass_(LOOK_EVERY)
    assert desk.states == ["begun"], "at once"
    assert incidents(caplog) == [], "it goes on answering"
    desk.now = []
    await pass_(7200)
    assert desk.states == ["begun"]


async def test_a_fault_of_our_own_does_not_end_the_watch(desk: Desk, pass_: Any) -> None:
    desk.now, desk.errors = [RED], [ZeroDivisionError()]  # type: ignore[list-item]
    await pass_(RED.after + 4 * LOOK_EVERY)
    assert desk.states == ["begun", "begun"]


# ---------------------------------------------------------------- the house


def person_of(room: Any) -> str:
    person = room.people[0]
    return str(person.open_id if room.platform == "feishu" else person.staff_id)


def letters(room: Any) -> list[str]:
    return [b.text for b in room.answers() if "Queqiao needs attention" in b.text]


async def leap(house: Any, seconds: float) -> None:
    end = house.clock.monotonic() + seconds
    await house.clock.hurry(lambda: house.clock.monotonic() >= end, step=5.0)


@pytest.mark.parametrize("broken", PLATFORMS)
async def test_an_admin_hears_of_a_broken_link_from_the_other_bot(house: Any, broken: str) -> None:
    (other,) = set(PLATFORMS) - {broken}
    room = house.room(other)
    house.admins = {f"{other}:{person_of(room)}"}
    await house.start()
    status = house.app.platforms[broken].status
    for times in (1, 2):
        await house.sim(broken).go_away()
        await house.feishu.wait_for(lambda: not status.hearing)
        await leap(house, 60.0)
        assert len(letters(room)) == times - 1
        await house.clock.hurry(lambda times=times: len(letters(room)) == times, step=5.0, most=200)
        assert status.cause in letters(room)[-1] and letters(room)[-1].count(broken) >= 1
        await leap(house, 600.0)
        assert len(letters(room)) == times, "once"
        await house.sim(broken).come_back()
        await house.clock.hurry(lambda: status.hearing)
        await leap(house, 120.0)
    assert house.complaints(paced=False) == []


async def test_a_bot_alone_still_tries_its_own_calls(house: Any) -> None:
    """A connection that is refused says nothing about the API."""
    room = house.room("feishu")
    house.admins = {f"feishu:{person_of(room)}"}
    await house.start()
    house.feishu.refuse_links(1000040345)
    house.feishu.cut_links()
    await house.clock.hurry(lambda: letters(room), step=5.0, most=400.0)
    await leap(house, 300.0)
    assert len(letters(room)) == 1


async def test_an_admin_hears_that_the_model_answers_nobody(house: Any) -> None:
    room = house.room("dingtalk")
    house.admins = {f"dingtalk:{person_of(room)}"}
    house.model_keys["api_key"] = "sk-wrong"
    await house.start()
    asker = house.room("feishu")
    await house.ended("feishu", await asker.say("问"))
    await house.clock.hurry(lambda: letters(room), step=5.0, most=400.0)
    assert "DEEPSEEK_API_KEY" in letters(room)[0] and "sk-wrong" not in letters(room)[0]


async def test_an_admin_hears_once_which_scope_is_missing(house: Any) -> None:
    """design.md 6."""
    house.deepseek.script("问", ["答"], first=1.0)
    room = house.room("feishu")
    house.admins = {f"feishu:{person_of(room)}"}
    house.feishu.policy.missing_scopes |= {"cardkit:card:write"}
    await house.start()
    asker = house.room("feishu")
    for _ in range(3):
        await house.ended("feishu", await asker.say("问"))
        await leap(house, 700.0)
    (letter,) = letters(room)
    assert "cardkit:card:write" in letter


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_a_letter_that_could_not_be_sent_is_sent_later(house: Any, platform: str) -> None:
    room = house.room(platform)
    house.admins = {f"{platform}:{person_of(room)}", f"{platform}:nobody"}
    house.model_keys["api_key"] = "sk-wrong"
    await house.start()
    asker = house.room("feishu" if platform == "dingtalk" else "dingtalk")
    routes = (lark.SEND, ding.OTO_SEND)
    code = 1 if platform == "feishu" else "system.busy"
    busy = Fault("status", status=500, body={"code": code, "msg": "busy"})
    house.sim(platform).faults.order_any(routes, busy, 1e9)
    await house.ended(asker.platform, await asker.say("问"))
    await leap(house, 300.0)
    assert letters(room) == []
    house.sim(platform).faults.clear()
    await house.clock.hurry(lambda: letters(room), step=5.0, most=100.0)
    await leap(house, 300.0)
    assert len(letters(room)) == 1


# ---------------------------------------------------------------- the webhook


class Hook:
    """An operator's webhook on loopback; answers `status`."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        self.url = ""

    async def serve(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        headers = {"Location": "/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, headers=headers)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", hook.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?key=abcdef"
    yield hook
    await runner.cleanup()


@pytest.mark.parametrize("trouble", [503, 200, 302])
async def test_the_webhook_is_told_of_begin_and_end(
    house: Any, hook: Hook, trouble: int, caplog: pytest.LogCaptureFixture
) -> None:
    house.alert_url, hook.status = hook.url, trouble
    await house.start()
    status = house.app.platforms["feishu"].status
    await house.feishu.go_away()
    await house.clock.hurry(lambda: hook.got, step=5.0, most=400.0)
    await leap(house, 100.0)
    assert len(hook.got) > 1 if trouble == 503 else len(hook.got) == 1, "again, or once"
    hook.status = 200
    await leap(house, 60.0)
    count = len(hook.got)
    await leap(house, 300.0)
    assert len(hook.got) == count
    await house.feishu.come_back()
    await house.clock.hurry(lambda: status.hearing)
    await leap(house, 200.0)
    assert [body["state"] for body in hook.got] == ["begun"] * count + ["over"]
    assert all(body["text"].startswith("feishu: ") for body in hook.got)
    assert len({body["incident"] for body in hook.got}) == 1
    assert hook.url not in caplog.text
