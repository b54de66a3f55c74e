"""The reply ladder on a small Feishu of its own: what is shown, under which key, and how
it ends."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.feishu.api import dumps
from adapters.feishu.card import ANSWER, CARD_BYTES, draw, face, fitting, post, text
from adapters.feishu.chat import FeishuPlatform
from adapters.feishu.foreign_text import literal, plain, safe
from adapters.feishu.left import TRIES
from adapters.feishu.settings import FeishuSettings
from adapters.feishu.speed import typewriter
from adapters.http import Http
from adapters.playground.clock import VirtualClock
from bot.contract import Button, Delivery, Handle, ReplySink, Snapshot
from bot.errors import Gone, RateLimited, StoreError, TooBig, Transient, Uncertain
from bot.texts import both

ADDRESS = {
    "chat_id": "oc_1",
    "chat_type": "group",
    "message_id": "om_q",
    "thread_id": "",
    "reply_in_thread": False,
}
STOP = Button("stop", "Stop", "t1")
RETRY = Button("retry", "Again", "t1")


class Feishu:
    """Cards with sequences and streaming mode, messages with uuids, faults on order.
    A fault is a code for the next call of an API, or `lost`: applied, answer cut."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[tuple[str, Any]] = []
        self.cards: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, dict[str, Any]] = {}
        self.uuids: dict[str, str] = {}
        self.faults: dict[str, list[Any]] = defaultdict(list)
        self.scopes_missing: set[str] = set()
        self.deleted: list[str] = []

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def body(self, name: str) -> Any:
        """The last body that was sent to `name`."""
        return next(body for known, body in reversed(self.calls) if known == name)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/open-apis/")
        if path.endswith("internal"):
            return web.json_response({"code": 0, "tenant_access_token": "t-1", "expire": 7200})
        if request.method == "GET":  # no history may be read here
            return self._refuse(99991672, "im:message:readonly")
        body = await request.json() if request.can_read_body else {}
        name, method = self._route(request.method, path.split("/"))
        self.calls.append((name, body))
        fault = self.faults[name].pop(0) if self.faults[name] else None
        if name in self.scopes_missing:
            fault = 99991672
        if isinstance(fault, int):
            return self._refuse(fault, "cardkit:card:write")
        if isinstance(fault, str) and fault != "lost":
            return self._refuse(230099, f"ext=ErrCode: 11310; ErrMsg: {fault};")
        code, data = method(path.split("/"), body)
        if fault == "lost":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"code": code, "data": data}, status=400 if code else 200)

    def _refuse(self, code: int, text: str) -> web.Response:
        error = {"permission_violations": [{"subject": text}]}
        return web.json_response({"code": code, "msg": text, "error": error}, status=400)

    def _route(self, method: str, path: list[str]) -> tuple[str, Callable[..., Any]]:
        if path[0] == "cardkit":
            if path[-1] == "id_convert":
                return "id_convert", self._convert
            if method == "POST":
                return "create", self._create
            return {"content": ("content", self._content), "settings": ("settings", self._set)}.get(
                path[-1], ("update", self._update)
            )
        if method == "DELETE":
            return "delete", self._delete
        if method == "PATCH":
            return "patch", self._patch
        return ("reply", self._post) if path[-1] == "reply" else ("send", self._post)

    def _create(self, path: list[str], body: Any) -> tuple[int, Any]:
        card_id = str(7000 + len(self.cards))
        card = json.loads(body["data"])
        streaming = card["config"]["streaming_mode"]
        self.cards[card_id] = {"card": card, "sequence": 0, "streaming": streaming, "texts": []}
        return 0, {"card_id": card_id}

    def _post(self, path: list[str], body: Any) -> tuple[int, Any]:
        assert len(body["uuid"]) <= 50
        known = self.uuids.get(body["uuid"])
        message_id = known or f"om_{len(self.messages)}"
        if known is None:
            self.uuids[body["uuid"]] = message_id
            self.messages[message_id] = {**body, "content": json.loads(body["content"])}
        return 0, {"message_id": message_id, "chat_id": "oc_1"}

    def _patch(self, path: list[str], body: Any) -> tuple[int, Any]:
        self.messages[path[3]]["content"] = json.loads(body["content"])
        return 0, {}

    def _delete(self, path: list[str], body: Any) -> tuple[int, Any]:
        if path[3] in self.deleted:
            return 230110, {}
        self.deleted.append(path[3])
        return 0, {}

    def _convert(self, path: list[str], body: Any) -> tuple[int, Any]:
        return 0, {"card_id": self.messages[body["message_id"]]["content"]["data"]["card_id"]}

    def _sequenced(self, path: list[str], body: Any) -> tuple[dict[str, Any], int]:
        card = self.cards[path[3]]
        assert len(body["uuid"]) <= 64
        assert 0 < body["sequence"] < 2**31
        if body["sequence"] <= card["sequence"]:
            return card, 300317
        card["sequence"] = body["sequence"]
        return card, 0

    def _content(self, path: list[str], body: Any) -> tuple[int, Any]:
        card, code = self._sequenced(path, body)
        assert body["content"]
        if not code and not card["streaming"]:
            code = 300309
        if not code:
            element = elements(card["card"])[path[5]]
            element["content"] = body["content"]
        return code, {}

    def _set(self, path: list[str], body: Any) -> tuple[int, Any]:
        card, code = self._sequenced(path, body)
        config = json.loads(body["settings"])["config"]
        if not code:
            card["streaming"] = config.get("streaming_mode", card["streaming"])
            card["card"]["config"].update(config)
        return code, {}

    def _update(self, path: list[str], body: Any) -> tuple[int, Any]:
        card, code = self._sequenced(path, body)
        if not code:
            card["card"] = json.loads(body["card"]["data"])
        return code, {}


def elements(card: Any) -> dict[str, Any]:
    """Every element with an id, at any depth."""
    found: dict[str, Any] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "element_id" in value:
                assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,19}", value["element_id"])
                assert value["element_id"] not in found
                found[value["element_id"]] = value
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(card)
    return found


class Desk:
    """A platform on the fake, and the reply journal."""

    def __init__(self, feishu: Feishu) -> None:
        self.feishu, self.clock, self.http = feishu, VirtualClock(), Http()
        bot = FeishuSettings("b", "cli_1", "canary-secret", base_url=feishu.url)
        self.platform = FeishuPlatform(bot, self.http, self.clock)
        self.saved: list[Handle] = []
        self.saved_at: list[int] = []
        self.disk_full = False

    async def save(self, handle: Handle) -> None:
        if self.disk_full:
            raise StoreError("disk full")
        self.saved.append(handle)
        self.saved_at.append(len(self.feishu.calls))

    def sink(self, handle: Handle | None = None, attempt: int = 1, **address: object) -> ReplySink:
        place = {**ADDRESS, **address}
        return self.platform.sink(place, handle or Handle("t1-p0"), self.save, attempt)


@pytest.fixture
async def feishu() -> AsyncIterator[Feishu]:
    feishu = Feishu()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", feishu.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    feishu.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield feishu
    await runner.cleanup()


@pytest.fixture
async def desk(feishu: Feishu) -> AsyncIterator[Desk]:
    desk = Desk(feishu)
    yield desk
    await desk.http.close()


def running(words: str = "", **more: Any) -> Snapshot:
    status = "" if words else "Thinking…"
    return Snapshot(text=words, status=status, summary=words or status, buttons=(STOP,), **more)


def final(words: str, **more: Any) -> Snapshot:
    base = Snapshot(text=words, summary=words, footer="3 s", buttons=(RETRY,), state="answered")
    return replace(base, **more)


# ---------------------------------------------------------------- the first rung


async def test_a_streamed_answer(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    await sink.show(running("Hel"))
    await sink.show(running("Hello"))
    await sink.show(running("Hello"))
    await sink.show(running("Hello world"))
    delivery = await sink.finish(final("Hello world!"))
    assert feishu.names == ["create", "reply", "update", *["content"] * 2, "update", "settings"]
    assert delivery == Delivery("delivered", "om_0")
    card = feishu.cards["7000"]
    shown = elements(card["card"])
    assert shown[ANSWER]["content"] == "Hello world!"
    assert shown["btn_0"]["behaviors"][0]["value"] == {"action": "retry", "turn": "t1"}
    assert "status_md" not in shown
    assert card["streaming"] is False
    assert card["card"]["config"]["summary"]["content"] == "Hello world!"
    assert sink.handle.message_id == "om_0"


async def test_the_opened_card_shows_status_and_stop(desk: Desk, feishu: Feishu) -> None:
    await desk.sink().open(running())
    card = json.loads(feishu.body("create")["data"])
    shown = elements(card)
    assert shown["status_md"]["content"] == "Thinking…"
    assert shown["btn_0"]["behaviors"][0]["value"] == {"action": "stop", "turn": "t1"}
    assert card["config"]["streaming_mode"] is True
    assert card["config"]["summary"] == {"content": "Thinking…"}


async def test_the_card_id_is_on_disk_before_the_send(desk: Desk, feishu: Feishu) -> None:
    await desk.sink().open(running())
    known = [n for h, n in zip(desk.saved, desk.saved_at, strict=True) if h.card_id == "7000"]
    assert known[0] == feishu.names.index("reply")
    assert desk.saved[-1].message_id == "om_0"
    assert feishu.body("reply")["uuid"] == "t1-p0-c"


async def test_sequences_are_on_disk_before_they_are_used(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    for number in range(1, 700):
        await sink.show(running("x" * number))
        assert desk.saved[-1].sequence >= feishu.cards["7000"]["sequence"]
    assert len(desk.saved) < 10


async def test_reasoning_is_typed_and_then_folded_above(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running(reasoning="a"))
    await sink.show(running(reasoning="a b"))
    await sink.show(running("Answer", reasoning="a b c"))
    assert feishu.names[2:] == ["content", "update"]
    shown = elements(feishu.cards["7000"]["card"])
    assert shown["reason_md"]["content"] == "a b c"
    assert shown["reasoning"]["expanded"] is False


async def test_opening_twice_does_nothing(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    await sink.open(running())
    await desk.sink(sink.handle, attempt=2).open(running())
    assert feishu.names == ["create", "reply"]


async def test_a_later_attempt_goes_on_with_the_same_card(desk: Desk, feishu: Feishu) -> None:
    first = desk.sink()
    await first.open(running())
    await first.show(running("Hello"))
    second = desk.sink(desk.saved[-1], attempt=2)
    await second.open(running())
    await second.show(running("Hello wor"))
    await second.show(running("Hello world"))
    await second.finish(final("Hello world"))
    assert len(feishu.cards) == len(feishu.messages) == 1
    assert feishu.cards["7000"]["sequence"] > 2 * 2**20
    assert elements(feishu.cards["7000"]["card"])[ANSWER]["content"] == "Hello world"


async def test_a_lost_send_is_repeated_under_its_key(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = ["lost"]
    sink = desk.sink()
    with pytest.raises(Uncertain):
        await sink.open(running())
    again = desk.sink(desk.saved[-1], attempt=2)
    await again.open(running())
    assert len(feishu.messages) == len(feishu.cards) == 1
    assert again.handle.message_id == "om_0"


async def test_a_send_too_old_to_repeat_stays_unconfirmed(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = ["lost"]
    with pytest.raises(Uncertain):
        await desk.sink().open(running())
    await desk.clock.advance(3600)
    later = desk.sink(desk.saved[-1], attempt=2)
    with pytest.raises(Uncertain, match="nobody can tell"):
        await later.finish(final("Hello"))
    assert (await later.finish(final("Hello"))).state == "unconfirmed"
    assert feishu.names.count("reply") == 1
    assert elements(feishu.cards["7000"]["card"])[ANSWER]["content"] == "Hello"


async def test_a_living_sink_forgets_its_key_too(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = ["lost"]
    sink = desk.sink()
    with pytest.raises(Uncertain):
        await sink.open(running())
    await desk.clock.advance(3600)
    with pytest.raises(Uncertain, match="nobody can tell"):
        await sink.finish(final("Hello"))
    assert (await sink.finish(final("Hello"))).state == "unconfirmed"
    assert feishu.names.count("reply") == 1


async def test_a_repeated_send_is_filled_where_it_stands(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = ["lost"]
    with pytest.raises(Uncertain):
        await desk.sink().open(running())
    await desk.platform._api.create_card(draw(face(running()), typewriter(60.0)))
    sink = desk.sink(replace(desk.saved[-1], card_id="7001"), attempt=2)
    await sink.open(running())
    await sink.finish(final("Hello"))
    assert elements(feishu.cards["7000"]["card"])[ANSWER]["content"] == "Hello"


async def test_a_lost_final_is_repeated(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    feishu.faults["update"] = ["lost"]
    feishu.faults["settings"] = ["lost"]
    with pytest.raises(Uncertain):
        await sink.finish(final("Hello"))
    assert (await sink.finish(final("Hello"))).state == "delivered"
    assert feishu.cards["7000"]["streaming"] is False


async def test_a_card_that_is_not_visible_yet(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = ["cardid is invalid"] * 2
    sink = desk.sink()
    for _ in range(2):
        with pytest.raises(Transient):
            await sink.open(running())
    await sink.open(running())
    assert feishu.names == ["create", "reply", "reply", "reply"]


async def test_a_card_that_never_becomes_visible(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = ["cardid is invalid"] * 6
    sink = desk.sink()
    for _ in range(5):
        with pytest.raises(Transient):
            await sink.open(running())
    await sink.open(running())
    assert sink.handle.rung == "patch"
    assert feishu.messages["om_0"]["content"]["schema"] == "2.0"


async def test_a_live_card_is_finished_on_a_full_disk(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    desk.disk_full = True
    for number in range(1, 400):
        await sink.show(running("x" * number))
    assert (await sink.finish(final("Hello"))).state == "delivered"
    with pytest.raises(StoreError):
        await desk.sink(Handle("t2-p0")).open(running())
    assert len(feishu.messages) == 1


# ---------------------------------------------------------------- streaming mode


@pytest.mark.parametrize("code", [300309, 200850])
async def test_a_closed_stream_is_opened_again_once(desk: Desk, feishu: Feishu, code: int) -> None:
    sink = desk.sink()
    await sink.open(running())
    await sink.show(running("a"))
    feishu.faults["content"] = [code]
    await sink.show(running("ab"))
    assert feishu.names[-3:] == ["content", "settings", "content"]
    assert elements(feishu.cards["7000"]["card"])[ANSWER]["content"] == "ab"


async def test_a_stream_that_stays_closed_is_replaced_by_whole_cards(
    desk: Desk, feishu: Feishu
) -> None:
    sink = desk.sink()
    await sink.open(running())
    await sink.show(running("a"))
    feishu.faults["content"] = [300309, 300309]
    with pytest.raises(Transient):
        await sink.show(running("ab"))
    assert sink.limits.whole_markdown
    await sink.show(running("abc"))
    await sink.show(running("abcd"))
    assert feishu.names[-2:] == ["update", "update"]
    assert feishu.names.count("settings") == 1
    assert elements(feishu.cards["7000"]["card"])[ANSWER]["content"] == "abcd"


async def test_streaming_mode_is_renewed_before_it_ends(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    await sink.show(running("a"))
    await desk.clock.advance(481)
    assert desk.platform._api.charge("settings") in sink.charges("show")
    await sink.show(running("ab"))
    await sink.show(running("abc"))
    assert feishu.names[-3:] == ["settings", "content", "content"]


async def test_a_card_ahead_of_us_costs_one_jump(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    feishu.cards["7000"]["sequence"] = 2**20 + 100
    await sink.show(running("a"))
    assert feishu.names[-2:] == ["update", "update"]


async def test_a_card_owned_by_another_run(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    feishu.cards["7000"]["sequence"] = 2**30
    with pytest.raises(Gone):
        await sink.show(running("a"))
    assert (await sink.finish(final("a"))).state == "delivered"
    assert len(feishu.messages) == 1


# ---------------------------------------------------------------- the ladder


async def test_a_missing_scope_goes_down_and_is_remembered(desk: Desk, feishu: Feishu) -> None:
    feishu.scopes_missing = {"create"}
    sink = desk.sink()
    await sink.open(running())
    await sink.show(running("Hello"))
    await sink.finish(final("Hello!"))
    assert feishu.names == ["create", "reply", "patch", "patch"]
    assert elements(feishu.messages["om_0"]["content"])[ANSWER]["content"] == "Hello!"
    assert sink.limits.whole_markdown
    assert sink.limits.pace.first >= 1.5
    await desk.sink(Handle("t2-p0")).open(running())
    assert feishu.names[4:] == ["reply"]
    await desk.clock.advance(601)
    feishu.scopes_missing = set()
    await desk.sink(Handle("t3-p0")).open(running())
    assert feishu.names[5:] == ["create", "reply"]


async def test_down_to_one_message(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["create"] = [300303]
    feishu.faults["reply"] = [230054]
    sink = desk.sink()
    await sink.open(running())
    assert sink.limits.streams is False
    await sink.show(running("Hello"))
    assert await sink.finish(final("**Hello**")) == Delivery("delivered", "om_0")
    message = feishu.messages["om_0"]
    assert (message["msg_type"], message["uuid"]) == ("post", "t1-p0-t")
    assert message["content"]["zh_cn"]["content"][0] == [{"tag": "md", "text": "**Hello**"}]
    await sink.finish(final("**Hello**"))
    assert len(feishu.messages) == 1


async def test_a_refused_post_becomes_text(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = [230001]
    sink = desk.sink(Handle("t1-p0", rung="text"))
    await sink.finish(final('[x](bad) <at user_id="all"></at>'))
    message = feishu.messages["om_0"]
    assert message["msg_type"] == "text"
    assert "<at" not in message["content"]["text"]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_message_that_stands_for_a_refused_text_is_known_by_the_next_process(
    desk: Desk, feishu: Feishu, lost: bool
) -> None:
    feishu.faults["reply"] = [230028, "lost"] if lost else [230028]
    sink = desk.sink(Handle("t1-p0", rung="text"))
    if lost:
        with pytest.raises(Uncertain):
            await sink.finish(final("Hello"))
    else:
        assert (await sink.finish(final("Hello"))).replaced == "content"
    later = desk.sink(desk.saved[-1], attempt=2)
    done = await later.finish(final("Hello"))
    assert (done.state, done.replaced) == ("delivered", "content") and len(feishu.messages) == 1


async def test_a_card_refused_once_is_judged_by_what_it_shows_at_last(
    desk: Desk, feishu: Feishu
) -> None:
    sink = desk.sink()
    await sink.open(running())
    feishu.faults["update"] = [230028]
    assert (await sink.finish(final("Hello"))).replaced == "content"
    later = desk.sink(desk.saved[-1], attempt=2)
    assert (await later.finish(final("Hello"))).replaced == ""
    assert elements(feishu.cards["7000"]["card"])[ANSWER]["content"] == "Hello"


async def test_a_refused_final_card_is_shown_without_markdown(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    feishu.faults["update"] = ["bad thing"]
    assert (await sink.finish(final("**Hello**"))).state == "delivered"
    shown = elements(feishu.cards["7000"]["card"])[ANSWER]["content"]
    assert "**" not in shown
    assert "Hello" in shown


async def test_a_refused_closing_does_not_cost_the_markdown(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    feishu.faults["settings"] = [300122]
    assert (await sink.finish(final("**Hello**"))).state == "delivered"
    assert elements(feishu.cards["7000"]["card"])[ANSWER]["content"] == "**Hello**"


async def test_an_answer_is_never_lost_with_its_card(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    feishu.faults["update"] = [200740]
    assert (await sink.finish(final("Hello"))).proof == "om_1"
    assert elements(feishu.messages["om_1"]["content"])[ANSWER]["content"] == "Hello"


# ---------------------------------------------------------------- what was given up


async def given_up(desk: Desk, feishu: Feishu, **faults: list[Any]) -> ReplySink:
    """A card with half a text whose last update meets a refusal for good."""
    sink = desk.sink()
    await sink.open(running())
    await sink.show(running("Half"))
    feishu.faults.update({"update": [200740], **faults})
    return sink


async def test_a_card_given_up_goes_when_the_answer_stands(desk: Desk, feishu: Feishu) -> None:
    sink = await given_up(desk, feishu)
    assert (await sink.finish(final("Whole"))).proof == "om_1"
    assert feishu.names[-3:] == ["update", "reply", "delete"] and feishu.deleted == ["om_0"]
    extra = desk.saved[-1].extra
    assert "left" not in extra and "left_open" not in extra
    await sink.finish(final("Whole"))
    assert feishu.names.count("delete") == 1


@pytest.mark.parametrize("code", [230026, 230027, 99991672])
async def test_a_card_that_cannot_be_deleted_says_that_the_answer_follows(
    desk: Desk, feishu: Feishu, code: int
) -> None:
    sink = await given_up(desk, feishu, delete=[code])
    assert (await sink.finish(final("Whole"))).state == "delivered"
    card = feishu.cards["7000"]
    assert list(elements(card["card"])) == ["note_md"] and not card["streaming"]
    assert both("card.continues") in elements(card["card"])["note_md"]["content"]
    assert desk.saved[-1].extra == {"left": ["om_0"]}


async def test_a_card_that_takes_no_words_comes_to_rest_at_least(
    desk: Desk, feishu: Feishu
) -> None:
    sink = await given_up(desk, feishu, update=[200740] * 2, delete=[230026])
    assert (await sink.finish(final("Whole"))).state == "delivered"
    assert not feishu.cards["7000"]["streaming"]
    assert feishu.names[-3:] == ["delete", "update", "settings"]


async def test_a_card_left_by_a_killed_process_is_taken_away_by_the_next(
    desk: Desk, feishu: Feishu
) -> None:
    sink = await given_up(desk, feishu, reply=[230020])
    with pytest.raises(RateLimited):
        await sink.finish(final("Whole"))
    assert feishu.deleted == [] and feishu.cards["7000"]["streaming"]
    later = desk.sink(desk.saved[-1], attempt=2)
    assert [charge.bucket for charge in later.charges("finish")][-1].endswith("/delete")
    assert (await later.finish(final("Whole"))).proof == "om_1"
    assert feishu.deleted == ["om_0"]


@pytest.mark.parametrize("fault", ["lost", 99991400])
async def test_taking_a_card_away_is_tried_again(desk: Desk, feishu: Feishu, fault: Any) -> None:
    sink = await given_up(desk, feishu, delete=[fault])
    if fault != "lost":  # aiohttp repeats what it may repeat
        with pytest.raises(Transient, match="given up is open"):
            await sink.finish(final("Whole"))
    assert (await sink.finish(final("Whole"))).state == "delivered"
    assert feishu.deleted == ["om_0"] and len(feishu.messages) == 2


async def test_a_card_that_never_goes_costs_not_the_delivery(desk: Desk, feishu: Feishu) -> None:
    sink = await given_up(desk, feishu, delete=[99991400] * 9)
    for _ in range(TRIES - 1):
        with pytest.raises(Transient):
            await sink.finish(final("Whole"))
    assert (await sink.finish(final("Whole"))).state == "delivered"
    assert feishu.names.count("delete") == TRIES and len(feishu.messages) == 2


async def test_a_card_whose_send_nobody_knows_of_says_that_the_answer_follows(
    desk: Desk, feishu: Feishu
) -> None:
    feishu.faults["reply"] = ["lost"]
    sink = desk.sink()
    with pytest.raises(Uncertain):
        await sink.open(running())
    feishu.faults["reply"] = [230054]
    await sink.open(running())
    assert (await sink.finish(final("Whole"))).state == "delivered"
    assert list(elements(feishu.cards["7000"]["card"])) == ["note_md"]
    assert feishu.deleted == []


async def test_a_card_that_nobody_saw_costs_no_call(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = [230054]
    sink = desk.sink()
    await sink.open(running())
    await sink.finish(final("Whole"))
    assert feishu.names == ["create", "reply", "reply", "patch"]


async def test_a_replaced_card_that_is_given_up_goes_too(desk: Desk, feishu: Feishu) -> None:
    for delete, shown in (([], None), ([230026], ["note_md"])):
        feishu.faults.clear()
        sink = desk.sink(Handle(f"t{len(delete)}-p0", rung="patch"))
        await sink.open(running())
        message = sink.handle.message_id
        feishu.faults.update(patch=[230031], delete=list(delete))
        assert (await sink.finish(final("Whole"))).state == "delivered"
        if shown is None:
            assert feishu.deleted == [message]
        else:
            assert list(elements(feishu.messages[message]["content"])) == shown


async def test_half_a_text_stays_when_nobody_knows_of_the_answer(
    desk: Desk, feishu: Feishu
) -> None:
    sink = await given_up(desk, feishu, reply=["lost"])
    with pytest.raises(Uncertain):
        await sink.finish(final("Whole"))
    await desk.clock.advance(3600)
    with pytest.raises(Uncertain):  # its key is forgotten, the history cannot be read
        await sink.finish(final("Whole"))
    assert (await sink.finish(final("Whole"))).state == "unconfirmed"
    card = feishu.cards["7000"]
    assert elements(card["card"])[ANSWER]["content"] == "Half" and not card["streaming"]
    assert feishu.deleted == []


async def test_a_reply_never_opened_is_one_message(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    assert len(sink.charges("finish")) == 2
    assert await sink.finish(final("Hello")) == Delivery("delivered", "om_0")
    assert feishu.names == ["reply"]
    assert feishu.messages["om_0"]["content"]["config"]["streaming_mode"] is False
    await sink.finish(final("Hello again"))
    assert feishu.names == ["reply", "patch"]
    assert len(feishu.messages) == 1


async def test_a_lost_single_message_is_repeated_and_brought_up_to_date(
    desk: Desk, feishu: Feishu
) -> None:
    feishu.faults["reply"] = ["lost"]
    with pytest.raises(Uncertain):
        await desk.sink().finish(final("old"))
    await desk.sink(desk.saved[-1], attempt=2).finish(final("new"))
    assert len(feishu.messages) == 1
    assert elements(feishu.messages["om_0"]["content"])[ANSWER]["content"] == "new"


# ---------------------------------------------------------------- the place


async def test_a_recalled_question_is_answered_in_the_chat(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = [230011]
    sink = desk.sink()
    with pytest.raises(Transient):  # one call for each room in the budget
        await sink.finish(final("Hello"))
    assert Counter(c.bucket for c in sink.charges("finish"))["feishu/chat/oc_1"] == 1
    await sink.finish(final("Hello"))
    assert feishu.names == ["reply", "send"]
    assert feishu.messages["om_0"]["receive_id"] == "oc_1"


async def test_a_recalled_question_in_a_topic_is_gone(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = [230011]
    with pytest.raises(Gone):
        await desk.sink(thread_id="omt_1").finish(final("Hello"))
    feishu.faults["reply"] = [230011]
    with pytest.raises(Gone):
        await desk.sink().finish(final("", note="recalled", state="recalled"))
    assert feishu.messages == {}


async def test_a_topic_is_answered_in_its_topic(desk: Desk, feishu: Feishu) -> None:
    await desk.sink(thread_id="omt_1", reply_in_thread=True).open(running())
    assert feishu.body("reply")["reply_in_thread"] is True
    feishu.faults["reply"] = [230071]
    other = desk.sink(Handle("t2-p0"), thread_id="omt_1", reply_in_thread=True)
    with pytest.raises(Transient):
        await other.open(running())
    await other.open(running())
    assert feishu.body("reply")["reply_in_thread"] is False


async def test_a_dissolved_chat_is_gone_at_once(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = [232009]
    with pytest.raises(Gone):
        await desk.sink().open(running())
    assert feishu.names == ["create", "reply"]


async def test_the_chat_is_to_blame_for_230020(desk: Desk, feishu: Feishu) -> None:
    feishu.faults["reply"] = [230020]
    sink = desk.sink()
    with pytest.raises(RateLimited) as caught:
        await sink.open(running())
    assert caught.value.bucket in {charge.bucket for charge in sink.charges("open")}


async def test_a_card_is_told_the_models_speed_by_one_call_that_is_charged(
    desk: Desk, feishu: Feishu
) -> None:
    sink = desk.sink()
    await sink.open(running())
    told = desk.platform._api.charge("settings")
    charged = []
    for second in range(12):
        charged.append(told in sink.charges("show"))
        await sink.show(running("x" * (1 + 150 * second)))
        await desk.clock.advance(1.0)
    assert feishu.names.count("settings") == sum(charged) == 1
    config = json.loads(feishu.body("settings")["settings"])["config"]
    typing = config["streaming_config"]
    step, every = typing["print_step"]["default"], typing["print_frequency_ms"]["default"]
    assert config["streaming_mode"] is True, "said again, so the ten minutes begin anew"
    assert 0.45 * 150 <= step * 1000 / every <= 150


async def test_a_speed_that_keeps_changing_is_told_twice_and_no_more(
    desk: Desk, feishu: Feishu
) -> None:
    sink = desk.sink()
    await sink.open(running())
    length = 1
    for speed in (20, 300, 20, 300, 20, 300):
        for _ in range(15):
            await sink.show(running("x" * length))
            await desk.clock.advance(1.0)
            length += speed
    assert feishu.names.count("settings") == 2


async def test_the_renewal_says_the_speed_again(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running("Hel"))
    await sink.show(running("Hello"))
    await desk.clock.advance(500.0)
    await sink.show(running("Hello world"))
    assert feishu.names[-2:] == ["settings", "content"]
    assert "streaming_config" in json.loads(feishu.body("settings")["settings"])["config"]


async def test_charges_tell_the_calls(desk: Desk, feishu: Feishu) -> None:
    """Every call is charged to its API before it is made."""
    sink = desk.sink()
    steps: list[tuple[Any, Snapshot]] = [
        ("open", running()),
        ("show", running("a")),
        ("show", running("ab")),
        ("finish", final("abc")),
    ]
    for step, snapshot in steps:
        allowed = Counter(c.bucket.rpartition("/")[2] for c in sink.charges(step))
        before = len(feishu.calls)
        await getattr(sink, step)(snapshot)
        assert not Counter(feishu.names[before:]) - allowed
    bodies = json.dumps([body for _, body in feishu.calls])
    assert "canary-secret" not in bodies


# ---------------------------------------------------------------- sizes


async def test_too_much_text_is_refused_before_it_is_sent(desk: Desk, feishu: Feishu) -> None:
    sink = desk.sink()
    await sink.open(running())
    with pytest.raises(TooBig):
        await sink.show(running("x" * 40_000))
    assert feishu.names == ["create", "reply"]


@given(
    st.text(alphabet='\x01\x1f"\\\n\t<>字😀a', max_size=60),
    st.integers(1, 80),
    st.booleans(),
    st.booleans(),
)
def test_what_is_not_measured_fits(text: str, times: int, growing: bool, plainly: bool) -> None:
    note = text[:40]
    snapshot = final(text * times, reasoning=text[::-1] * times, note=note, footer=note)
    shown = face(snapshot, growing=growing, plainly=plainly)
    if shown.surely_fits:
        card = draw(shown, typewriter(40.0) if growing else None)
        assert len(dumps(dumps(card)).encode()) <= CARD_BYTES


def test_reasoning_makes_room_for_the_answer() -> None:
    snapshot = final("字" * 5000, reasoning='"\n<' * 10_000)
    shown, card = fitting(snapshot)
    assert elements(card)[ANSWER]["content"] == "字" * 5000
    assert len(json.dumps(card, ensure_ascii=False).encode()) < 30_000
    assert face(snapshot).texts != shown.texts


def test_the_status_goes_when_there_is_text() -> None:
    assert face(Snapshot(text="x", status="s")).texts == {ANSWER: "x"}
    assert face(Snapshot(text=" ", status="s")).texts == {"status_md": "s"}


def test_an_empty_snapshot_is_still_a_card() -> None:
    assert face(Snapshot()).texts == {}
    assert elements(draw(face(Snapshot())))[ANSWER]["content"] == " "


# ---------------------------------------------------------------- foreign text (law 11)

ATTACKS = [
    "<at id=all></at>",
    '<at user_id="all">all</at>',
    "<AT ID=all></AT>",
    "<person id='ou_1'></person>",
    "<button>x</button>",
    "<font color='red'>x</font>",
    "<link url='x'>",
    "<a href='x'>y</a>",
    "<img src='x'>",
    "<number_tag>1</number_tag>",
    "<text_tag color='red'>x</text_tag>",
    "<local_datetime millisecond='1'></local_datetime>",
    "<record>",
    "<chart>",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_tag_of_the_model_reaches_the_card(attack: str) -> None:
    words = f"hello {attack} world"
    snapshot = final(words, reasoning=attack, note=attack, footer=attack, summary=attack)
    for shown in (draw(face(snapshot)), draw(face(snapshot, plainly=True))):
        contents = [e.get("content", "") for e in elements(shown).values()]
        assert not any(re.search(r"<[/A-Za-z]", content) for content in contents)
    assert not re.search(r"<(?i:at|person)\b", json.dumps([post(snapshot), text(snapshot)]))
    assert not re.search(r"<(?i:at|person)\b", json.dumps(draw(face(snapshot))))


@pytest.mark.parametrize("tick", ["`", "``", "```"])
@pytest.mark.parametrize("attack", ATTACKS[:4])
def test_code_cannot_ping_either(attack: str, tick: str) -> None:
    assert not re.search(r"<(?i:at|person)\b", safe(f"{tick}\n{attack}\n{tick}"))
    assert not re.search(r"<(?i:at|person)\b", safe(f"{tick}{attack}{tick}"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a < b, 1<2, <3, List<int>", "a < b, 1<2, <3, List&lt;int>"),
        ("use `<a href>` here <a>", "use `<a href>` here &lt;a>"),
        ("```html\n<a>\n![x](y)\n```\n<a>", "```html\n<a>\n![x](y)\n```\n&lt;a>"),
        ("~~~\n<a>\n```\n~~~\n<a>", "~~~\n<a>\n```\n~~~\n&lt;a>"),
        ("![cat](http://x/y.png) ![](http://z)", "[cat](http://x/y.png) [🖼](http://z)"),
        ("half `open <a", "half `open &lt;a"),
        ("`` a ` <b> ``", "`` a ` <b> ``"),
        ("wow!", "wow!"),
    ],
)
def test_markdown_is_kept_where_it_is_harmless(words: str, shown: str) -> None:
    assert safe(words) == shown


TOKENS = """<at id=all></at>|<|a|at| |`|``|```|!|[|]|(u)|</|person|~~~|    |x|>|- |/|字"""
tokens = st.sampled_from([*TOKENS.split("|"), "\n", "\r", "\u2028"])


@settings(max_examples=500, deadline=None)
@given(st.lists(tokens, max_size=14).map("".join))
def test_what_is_shown_stays_a_prefix(words: str) -> None:
    before = ""
    for end in range(len(words) + 1):
        shown = safe(words[:end], growing=True)
        assert shown.startswith(before)
        before = shown
    assert safe(words).startswith(before)
    assert not re.search(r"<(?=/?(?:at|person)\b)", safe(words), re.IGNORECASE)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=100))
def test_any_text_makes_a_card_that_json_can_carry(words: str) -> None:
    snapshot = final(words, reasoning=words, note=words, footer=words)
    _, card = fitting(snapshot)
    json.dumps([card, post(snapshot), text(snapshot)], ensure_ascii=False).encode()


def test_literal_and_plain() -> None:
    assert literal("a*b <at>") == "a&#42;b &#60;at&#62;"
    assert plain("<at user_id='all'> <b>") == "<\u200bat user_id='all'> <b>"
