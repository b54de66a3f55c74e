"""Reading back what was said, taking back what was sent, and names, on the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.feishu.api import FeishuApi
from adapters.feishu.chat import FeishuPlatform
from adapters.feishu.history import as_event, by_person
from adapters.feishu.parse import Nothing, parse
from adapters.feishu.people import MOST, Names
from adapters.feishu.reading import read_page
from adapters.feishu.settings import BotIdentity, FeishuSettings
from adapters.http import Http
from adapters.playground.clock import START, VirtualClock
from adapters.playground.faults import Fault
from adapters.playground.feishu import FeishuSim, wire
from adapters.playground.feishu.events import KINDS
from bot.contract import (
    ActionReply,
    CardAction,
    Handle,
    History,
    InboundMessage,
    People,
    Person,
    Retraction,
    Snapshot,
    TextPart,
)
from bot.errors import Bug, Gone, PermissionDenied, Transient

GROUP_SCOPE = "im:message.group_msg"
CUT = 2
"""Times that a connection must break: the client repeats a GET or DELETE once by itself, when
the connection was an old one."""


class Inbox:
    """An intake that keeps everything."""

    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []
        self.gone: list[tuple[str, str, str]] = []

    async def message(self, message: InboundMessage) -> None:
        self.messages.append(message)

    async def action(self, action: CardAction) -> ActionReply:
        raise AssertionError("nobody presses here")

    async def recalled(self, bot: str, chat: str, message_id: str) -> None:
        self.gone.append((bot, chat, message_id))

    def gap(self, bot: str, since: float, until: float) -> None:
        """Not asked here."""


class Desk:
    """A platform on the simulator; it hears everything that is said."""

    def __init__(self, sim: FeishuSim, clock: VirtualClock) -> None:
        self.sim, self.clock, self.inbox = sim, clock, Inbox()
        self.http = Http(clock=clock)
        bot = FeishuSettings("b", sim.app_id, sim.app_secret, base_url=sim.base_url)
        self.platform = FeishuPlatform(bot, self.http, clock)
        self.ann, self.bob = sim.add_person("Ann"), sim.add_person("Bob")
        self.group = sim.add_group("Team", [self.ann, self.bob])
        self.task: asyncio.Task[None] | None = None

    async def hear(self) -> None:
        self.task = asyncio.create_task(self.platform.run(self.inbox))
        await self.sim.wait_for(lambda: self.platform.status.connected)

    async def stop_hearing(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            await self.sim.wait_for(lambda: not self.sim.links)

    async def heard(self, message_id: str) -> InboundMessage:
        """The message as it was pushed."""

        def find() -> InboundMessage | None:
            return next((m for m in self.inbox.messages if m.message_id == message_id), None)

        message = await self.sim.wait_for(find)
        assert isinstance(message, InboundMessage)
        return message

    async def close(self) -> None:
        await self.stop_hearing()
        await self.platform.close()
        await self.http.close()

    def address(self, chat: Any = None, **more: Any) -> dict[str, Any]:
        place = chat or self.group
        return {"chat_id": place.id, "chat_type": place.kind, **more}

    async def missed(self, address: Any = None, since: float = START) -> list[str]:
        """The ids of all messages since then."""
        found = await self.platform.missed([address or self.address()], since, self.clock.time())
        assert found.left is None
        return [message.message_id for message in found.messages]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(settle=0.002)


@pytest.fixture
async def sim(clock: VirtualClock) -> AsyncIterator[FeishuSim]:
    async with FeishuSim(clock) as sim:
        sim.policy.hears_all = True
        yield sim


@pytest.fixture
async def desk(sim: FeishuSim, clock: VirtualClock) -> AsyncIterator[Desk]:
    desk = Desk(sim, clock)
    yield desk
    await desk.close()


def pushed(message: InboundMessage) -> InboundMessage:
    """The message without what only one of the two ways can know: REST names one id of the
    sender, and the age belongs to the moment of reading."""
    return replace(message, sender=replace(message.sender, also=()), age=0.0, fetched=False)


# ---------------------------------------------------------------- missed()


async def test_the_platform_offers_its_powers(desk: Desk) -> None:
    assert isinstance(desk.platform, History)
    assert isinstance(desk.platform, Retraction)
    assert isinstance(desk.platform, People)


def in_thread(message: InboundMessage, thread: str) -> InboundMessage:
    """The message when a thread was opened on it after it had been pushed."""
    address = {**message.address, "thread_id": thread, "reply_in_thread": True}
    return replace(message, topic=thread, address=address)


SAID = ["hello", "@Bob look", "first\nsecond", "@Bob @Ann @Bob", "a_user_1", "", "  ", "😀 @Bob"]


async def say_something(desk: Desk, chance: random.Random, threads: list[str], kind: str) -> str:
    """One message, anywhere, by anybody."""
    sim, chat = desk.sim, chance.choice(list(desk.sim.world.chats.values()))
    said = [m.id for m in sim.world.messages.values() if m.chat == chat.id]
    reply_to = chance.choice(said) if said and chance.random() < 0.3 else ""
    message = await sim.say(
        chat,
        chance.choice(chat.members),
        chance.choice(SAID),
        mention_bot=chance.random() < 0.5,
        mention_all=chance.random() < 0.1,
        mentions=chance.sample([desk.ann, desk.bob], chance.randrange(3)),
        kind=kind,
        reply_to=reply_to,
        content=chance.choice(['{"text":', "", "[]", '{"text":7}'])
        if chance.random() < 0.1
        else None,
        thread="open" if reply_to and chance.random() < 0.4 else "",
    )
    if sim.world.messages[message].thread:
        threads.append(sim.world.messages[message].thread)
    return message


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_read_back_is_what_was_pushed(
    desk: Desk, sim: FeishuSim, clock: VirtualClock, seed: int
) -> None:
    """Every kind of message the simulator knows, in every kind of chat."""
    chance, threads = random.Random(seed), list[str]()
    sim.policy.absent = chance.choice(["absent", "null", "empty"])
    sim.policy.show_user_id = chance.random() < 0.5
    sim.policy.all_in_mentions = chance.random() < 0.5
    sim.add_group("Topics", [desk.ann, desk.bob], topic=True)
    sim.p2p(desk.ann)
    await desk.hear()
    kinds = [*sorted(KINDS), *["text"] * 25, *["post"] * 16]
    chance.shuffle(kinds)
    for kind in kinds:
        await say_something(desk, chance, threads, kind)
        clock.jump(chance.choice([0.0, 0.3, 1.0, 7.0]))
    await sim.wait_for(lambda: len(desk.inbox.messages) == len(kinds), 20)
    expected = {m.message_id: pushed(m) for m in desk.inbox.messages}
    found: dict[str, InboundMessage] = {}
    for chat in sim.world.chats.values():
        for thread in ["", *dict.fromkeys(threads)]:
            if thread and sim.world.opener(thread).chat != chat.id:
                continue
            address = desk.address(chat, thread_id=thread)
            back = (await desk.platform.missed([address], START, clock.time())).messages
            assert all(message.fetched for message in back)
            assert [m.sent_at for m in back] == sorted(m.sent_at for m in back)
            found |= {m.message_id: pushed(m) for m in back}
    for message in sim.world.messages.values():
        if message.msg_type == "system":
            del expected[message.id]
        elif message.thread:
            expected[message.id] = in_thread(expected[message.id], message.thread)
    assert found == expected
    assert len(found) == len(kinds) - 1, "all but the notice of the system"
    assert sim.violations == []


async def test_a_group_of_its_time(desk: Desk, sim: FeishuSim, clock: VirtualClock) -> None:
    said = []
    await desk.hear()
    await desk.stop_hearing()
    for number in range(5):
        said.append(await sim.say(desk.group, desk.ann, str(number), mention_bot=True))
        await clock.advance(10)
    found = (await desk.platform.missed([desk.address()], START + 10, START + 30)).messages
    assert [message.text for message in found] == ["1", "2", "3"]
    assert {message.ignored for message in found} == {""}
    assert [message.age for message in found] == [40.0, 30.0, 20.0]
    assert found[0].sent_at == START + 10
    assert await desk.missed(since=START + 31) == said[4:]


async def test_bots_notices_and_what_was_taken_back_are_left_out(
    desk: Desk, sim: FeishuSim
) -> None:
    await desk.hear()
    kept = await sim.say(desk.group, desk.ann, "kept", mention_bot=True)
    quiet = await sim.say(desk.group, desk.ann, "to nobody")
    await sim.say(desk.group, desk.ann, kind="system")
    gone = await sim.say(desk.group, desk.bob, "gone", mention_bot=True)
    await sim.recall(gone)
    sink = desk.platform.sink((await desk.heard(kept)).address, Handle("k1"), _forget, 1)
    await sink.finish(Snapshot(text="an answer", state="answered"))
    assert len(sim.bot_bubbles(desk.group)) == 1
    found = (await desk.platform.missed([desk.address()], START, START)).messages
    assert [(m.message_id, m.ignored) for m in found] == [(kept, ""), (quiet, "not_mentioned")]


async def test_a_thread_is_read_beside_its_chat(
    desk: Desk, sim: FeishuSim, clock: VirtualClock
) -> None:
    root = await sim.say(desk.group, desk.ann, "root")
    thread = sim.open_thread(root)
    for number in range(60):
        await sim.say(desk.group, desk.bob, f"before {number}", thread=thread)
    await clock.advance(100)
    inside = await sim.say(desk.group, desk.bob, "inside", thread=thread, mention_bot=True)
    await clock.advance(1)
    beside = await sim.say(desk.group, desk.bob, "beside", mention_bot=True)
    await desk.hear()
    address = desk.address(thread_id=thread)
    assert await desk.missed(address, START + 100) == [inside, beside]
    assert await desk.missed(since=START + 100) == [beside]
    assert len(sim.calls_of(wire.LIST_MESSAGES)) == 3, "an old page ends the thread"
    assert len(await desk.missed(address)) == 63, "the root, which is in both, once"
    assert sim.violations == []


async def test_a_thread_that_is_hidden_costs_only_itself(desk: Desk, sim: FeishuSim) -> None:
    said = await sim.say(desk.group, desk.ann, "hello")
    await desk.hear()
    sim.faults.order(wire.LIST_MESSAGES, Fault("delay"))
    hidden = {"code": 230073, "msg": "The thread is invisible to the operator."}
    sim.faults.order(wire.LIST_MESSAGES, Fault("status", body=hidden))
    address = desk.address(thread_id="omt_1")
    found = await desk.platform.missed([address], START - 5, desk.clock.time())
    assert [message.message_id for message in found.messages] == [said]
    assert found.left is not None and found.left.since == START - 5
    assert found.left.until >= desk.clock.time() and "1 个话题读不到" in found.left.why


async def test_pages_are_followed_and_bounded(
    desk: Desk, sim: FeishuSim, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    sim.policy.hears_all = False
    said = [await sim.say(desk.group, desk.ann, str(n)) for n in range(120)]
    await desk.hear()
    assert await desk.missed() == said
    assert [c.body["page_size"] for c in sim.calls_of(wire.LIST_MESSAGES)] == ["50"] * 3
    await clock.advance(60)
    said += [await sim.say(desk.group, desk.ann, str(n)) for n in range(700)]
    sim.calls.clear()
    found = await desk.platform.missed([desk.address()], START, clock.time())
    assert [message.message_id for message in found.messages] == said[-750:], "the newest"
    assert len(sim.calls_of(wire.LIST_MESSAGES)) == 15
    assert "history cut after 15 pages" in caplog.text
    left = found.left
    assert left is not None and (left.bot, left.chat) == ("b", desk.group.id)
    assert (left.since, left.until) == (START, found.messages[0].sent_at)
    assert "只取回了更新的" in left.why


async def test_a_chat_is_read_once_for_all_its_topics(
    desk: Desk, sim: FeishuSim, clock: VirtualClock
) -> None:
    """Of a plain group the threads as well, of which there are a few at most."""
    topics = sim.add_group("Topics", [desk.ann], topic=True)
    await desk.hear()
    for chat, reads in ((topics, 1), (desk.group, 11)):
        roots = [await sim.say(chat, desk.ann, f"{n}") for n in range(12)]
        threads = [sim.open_thread(root) for root in roots]
        await clock.advance(1)
        since = clock.time()
        said = [await sim.say(chat, desk.ann, "inside", thread=thread) for thread in threads]
        addresses = [desk.address(chat, thread_id=thread) for thread in threads]
        for _ in range(2):
            sim.calls.clear()
            found = await desk.platform.missed(addresses, since, clock.time())
            whole = chat is topics
            assert [m.message_id for m in found.messages] == (said if whole else said[:10])
            assert len(sim.calls_of(wire.LIST_MESSAGES)) == reads
            assert (found.left is None) == whole
        assert sim.calls_of(wire.CHAT_INFO) == [], "asked once"
    assert found.left is not None and "还有 2 个话题没有查" in found.left.why
    assert sim.violations == []


async def test_a_chat_that_tells_nothing_of_itself_is_read_thread_by_thread(
    desk: Desk, sim: FeishuSim
) -> None:
    topics = sim.add_group("Topics", [desk.ann], topic=True)
    thread = sim.open_thread(await sim.say(topics, desk.ann, "root"))
    await desk.hear()
    sim.faults.order(wire.CHAT_INFO, Fault("status", body={"code": 99991672}))
    assert len(await desk.missed(desk.address(topics, thread_id=thread))) == 1
    assert len(sim.calls_of(wire.LIST_MESSAGES)) == 2


async def test_before_the_bot_knows_itself_nothing_is_read(desk: Desk, sim: FeishuSim) -> None:
    said = await sim.say(desk.group, desk.ann, "hello", mention_bot=True)
    with pytest.raises(Transient):
        await desk.missed()
    assert await desk.platform.reread(desk.address(message_id=said)) is None
    assert sim.calls_of(wire.LIST_MESSAGES) == sim.calls_of(wire.GET_MESSAGE) == []


async def test_the_scope_that_groups_need_is_named(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    private = sim.p2p(desk.ann)
    said = await sim.say(private, desk.ann, "hello")
    asked = await sim.say(desk.group, desk.ann, "hello", mention_bot=True)
    sim.policy.missing_scopes = {GROUP_SCOPE}
    assert await desk.missed(desk.address(private)) == [said]
    with pytest.raises(PermissionDenied) as caught:
        await desk.missed()
    assert caught.value.scopes == (GROUP_SCOPE,)
    assert await desk.platform.reread((await desk.heard(asked)).address) is None
    sim.policy.missing_scopes = {"im:message", "im:message:readonly"}
    with pytest.raises(PermissionDenied) as caught:
        await desk.missed()
    assert caught.value.scopes == ("im:message", "im:message:readonly")


@pytest.mark.parametrize(
    "fault",
    [Fault("lose"), Fault("html"), Fault("truncate")],
)
async def test_a_lost_answer_may_be_asked_for_again(
    desk: Desk, sim: FeishuSim, fault: Fault
) -> None:
    said = await sim.say(desk.group, desk.ann, "hello")
    await desk.hear()
    sim.faults.order(wire.LIST_MESSAGES, fault, times=CUT if fault.kind == "lose" else 1)
    with pytest.raises(Transient):
        await desk.missed()
    assert await desk.missed() == [said]


async def test_a_chat_without_the_bot_is_gone(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    sim.refuse_in(desk.group, 230002)
    with pytest.raises(Gone):
        await desk.missed()


# ---------------------------------------------------------------- reread()


async def test_an_edited_question_reads_as_it_is_now(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    asked = await sim.say(
        desk.group, desk.ann, "what is @Bob up to", mention_bot=True, mentions=[desk.bob]
    )
    message = await desk.heard(asked)
    assert await desk.platform.reread(message.address) == message.parts
    sim.edit(asked, "@_user_1 where is @_user_2")
    assert await desk.platform.reread(message.address) == (TextPart("where is @Bob"),)
    assert len(desk.inbox.messages) == 1, "an edit tells nobody"


async def test_what_cannot_be_reread_is_none(
    desk: Desk, sim: FeishuSim, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await desk.hear()
    asked = await sim.say(desk.group, desk.ann, "hello", mention_bot=True)
    address = (await desk.heard(asked)).address
    for fault in (Fault("drop"), Fault("html"), Fault("status", body={"code": 99991403})):
        sim.faults.order(wire.GET_MESSAGE, fault, times=CUT if fault.kind == "drop" else 1)
        assert await desk.platform.reread(address) is None
    assert await desk.platform.reread(desk.address(message_id="om_other")) is None
    assert await desk.platform.reread({}) is None
    await sim.recall(asked)
    assert await desk.platform.reread(address) is None
    assert caplog.text.count("question not read again") == 6
    assert "it is gone" in caplog.text


async def test_the_children_of_a_forward_are_not_the_question(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    asked = await sim.say(sim.p2p(desk.ann), desk.ann, kind="merge_forward")
    message = await desk.heard(asked)
    item = {
        "sender": {"id": desk.ann.id, "id_type": "open_id", "sender_type": "user"},
        "chat_id": message.chat,
        "create_time": "1",
    }
    whole = {"message_id": asked, "msg_type": "merge_forward", "body": {"content": "{}"}}
    words = {"body": {"content": '{"text":"child"}'}, "upper_message_id": asked}
    child = {"message_id": "om_child", "msg_type": "text", **words}
    other = {"message_id": "om_other", "msg_type": "text", "body": {"content": '{"text":"x"}'}}
    body = {"code": 0, "data": {"items": [item | child, item | other, item | whole]}}
    sim.faults.order(wire.GET_MESSAGE, Fault("status", status=200, body=body))
    assert await desk.platform.reread(message.address) == message.parts


# ---------------------------------------------------------------- pure

FIELDS = [
    *("sender", "id", "id_type", "sender_type", "body", "content", "mentions", "key"),
    *("msg_type", "message_id", "chat_id", "create_time", "deleted", "thread_id"),
]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(JUNK, st.sampled_from(["p2p", "group", ""]))
def test_no_item_breaks_the_reader(item: Any, chat_type: str) -> None:
    by_person(item)
    parse(as_event(item, chat_type), "b", BotIdentity("ou_bot"))


@pytest.mark.parametrize(
    "change",
    [
        {"deleted": True},
        {"msg_type": "system"},
        {"upper_message_id": "om_2"},
        {"sender": {"id": "cli_1", "id_type": "app_id", "sender_type": "app"}},
        {"sender": {"id": "", "id_type": "open_id", "sender_type": "anonymous"}},
        {"sender": None},
    ],
)
def test_who_is_no_person_and_what_is_no_saying(change: dict[str, Any]) -> None:
    sender = {"id": "ou_a", "id_type": "open_id", "sender_type": "user"}
    item = {"message_id": "om_1", "msg_type": "text", "deleted": False, "sender": sender}
    assert by_person(item)
    assert not by_person(item | change)


def test_another_kind_of_id_is_nobody_we_know() -> None:
    """An id of another type must never be taken for an open_id (law 7)."""
    sender = {"id": "on_a", "id_type": "union_id", "sender_type": "user"}
    item = {"message_id": "om_1", "chat_id": "oc_1", "msg_type": "text", "sender": sender}
    assert isinstance(parse(as_event(item, "group"), "b", BotIdentity("ou_bot")), Nothing)


# ---------------------------------------------------------------- recalls and ages


async def test_a_recall_reaches_the_intake(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    asked = await sim.say(desk.group, desk.ann, "hello", mention_bot=True)
    await desk.heard(asked)
    await sim.recall(asked)
    await sim.wait_for(lambda: desk.inbox.gone)
    assert desk.inbox.gone == [("b", desk.group.id, asked)]


async def test_the_age_is_the_platforms(desk: Desk, sim: FeishuSim, clock: VirtualClock) -> None:
    await desk.hear()
    fresh = await sim.say(desk.group, desk.ann, "now")
    assert (await desk.heard(fresh)).age == 0.0
    await desk.stop_hearing()
    late = await sim.say(desk.group, desk.ann, "while nobody heard")
    await clock.advance(14)
    await desk.hear()
    await clock.advance(1)
    message = await desk.heard(late)
    assert message.age == 15.0
    assert not message.fetched


# ---------------------------------------------------------------- retract()


async def _forget(handle: Handle) -> None:
    """A journal that keeps nothing."""


async def answered(desk: Desk) -> Handle:
    """The handle of a card that was shown."""
    asked = await desk.sim.say(desk.group, desk.ann, "hello", mention_bot=True)
    sink = desk.platform.sink((await desk.heard(asked)).address, Handle("t1"), _forget, 1)
    await sink.open(Snapshot(status="…"))
    await sink.finish(Snapshot(text="an answer", state="answered"))
    return sink.handle


async def test_an_answer_is_taken_back(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    handle = await answered(desk)
    assert len(sim.bot_bubbles(desk.group)) == 1
    assert await desk.platform.retract(handle)
    assert sim.bot_bubbles(desk.group) == []
    assert await desk.platform.retract(handle), "gone already"
    assert [call.code for call in sim.calls_of(wire.RECALL)] == [0, 230110]


async def test_what_cannot_be_taken_back_stays(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    handle = await answered(desk)
    person = await sim.say(desk.group, desk.ann, "mine")
    assert not await desk.platform.retract(replace(handle, message_id=person))
    assert not await desk.platform.retract(replace(handle, message_id="om_other"))
    for fault in (Fault("drop"), Fault("html"), Fault("status", body={"code": 230009})):
        sim.faults.order(wire.RECALL, fault, times=CUT if fault.kind == "drop" else 1)
        assert not await desk.platform.retract(handle)
    assert len(sim.bot_bubbles(desk.group)) == 1
    sim.faults.order(wire.RECALL, Fault("lose"), times=CUT)
    assert not await desk.platform.retract(handle), "nobody knows"
    assert await desk.platform.retract(handle)


async def test_what_was_never_sent_is_seen_by_nobody(desk: Desk, sim: FeishuSim) -> None:
    assert await desk.platform.retract(Handle("t1"))
    assert not await desk.platform.retract(Handle("t1", extra={"sending_at": START}))
    assert sim.calls_of(wire.RECALL) == []


async def test_a_card_left_behind_is_taken_back_too(desk: Desk, sim: FeishuSim) -> None:
    """A rung refused in the middle leaves its card, when that cannot be deleted, above the
    message that has the answer."""
    await desk.hear()
    asked = await sim.say(desk.group, desk.ann, "hello", mention_bot=True)
    sink = desk.platform.sink((await desk.heard(asked)).address, Handle("t1"), _forget, 1)
    await sink.open(Snapshot(status="…"))
    first = sink.handle.message_id
    bad = Fault("status", body={"code": 300303, "msg": "no"})
    for route in (wire.CARD_UPDATE, wire.CARD_CONTENT):
        sim.faults.order(route, bad, times=2)
    sim.faults.order(wire.RECALL, Fault("status", body={"code": 230026, "msg": "no"}))
    await sink.finish(Snapshot(text="an answer", state="answered"))
    assert sink.handle.message_id != first
    assert sink.handle.extra["left"] == [first] and sim.open_cards() == []
    assert len(sim.bot_bubbles(desk.group)) == 2
    assert await desk.platform.retract(sink.handle)
    assert sim.bot_bubbles(desk.group) == []


# ---------------------------------------------------------------- name_of()


async def test_mentions_bring_names_for_free(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    asked = await sim.say(desk.group, desk.ann, "who is @Bob", mentions=[desk.bob])
    address = (await desk.heard(asked)).address
    assert await desk.platform.name_of(address, desk.bob.id) == "Bob"
    assert sim.calls_of(wire.MEMBERS) == []
    assert await desk.platform.name_of(address, desk.ann.id) == "Ann"
    assert len(sim.calls_of(wire.MEMBERS)) == 1


async def test_messages_read_back_bring_names_too(desk: Desk, sim: FeishuSim) -> None:
    await sim.say(desk.group, desk.ann, "@Bob", mentions=[desk.bob])
    await desk.hear()
    await desk.missed()
    assert await desk.platform.name_of(desk.address(), desk.bob.id) == "Bob"
    assert sim.calls_of(wire.MEMBERS) == []


async def test_one_list_serves_everybody_who_asks(desk: Desk, sim: FeishuSim) -> None:
    people = [sim.add_person(f"P{n}") for n in range(230)]
    chat = sim.add_group("Many", people)
    address = desk.address(chat)
    asked = [desk.platform.name_of(address, person.id) for person in people]
    assert await asyncio.gather(*asked) == [person.name for person in people]
    assert len(sim.calls_of(wire.MEMBERS)) == 3
    assert sim.violations == []


async def test_a_stranger_is_not_asked_for_again_within_the_hour(
    desk: Desk, sim: FeishuSim, clock: VirtualClock
) -> None:
    async def name(person: str) -> str:
        return await desk.platform.name_of(desk.address(), person)

    assert await name("ou_stranger") == await name("ou_stranger") == ""
    assert len(sim.calls_of(wire.MEMBERS)) == 1
    newcomer = sim.add_person("Cho")
    desk.group.members.append(newcomer)
    assert await name(newcomer.id) == "Cho", "another stranger may have come since"
    assert len(sim.calls_of(wire.MEMBERS)) == 2
    await clock.advance(3601)
    assert await name("ou_stranger") == ""
    assert len(sim.calls_of(wire.MEMBERS)) == 3


async def test_a_list_without_an_end_is_read_in_part_once_an_hour(
    desk: Desk, sim: FeishuSim
) -> None:
    chat = sim.add_group("Huge", [sim.add_person(f"P{n}") for n in range(600)])
    *_, near, far = [chat.members[0], chat.members[499], chat.members[500]]
    assert await desk.platform.name_of(desk.address(chat), far.id) == ""
    assert await desk.platform.name_of(desk.address(chat), near.id) == "P499"
    assert await desk.platform.name_of(desk.address(chat), "ou_other") == ""
    assert len(sim.calls_of(wire.MEMBERS)) == 5


async def test_a_missing_scope_closes_the_way_for_a_while(
    desk: Desk, sim: FeishuSim, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    scopes = set(wire.SCOPES[wire.MEMBERS])
    sim.policy.missing_scopes = scopes
    other = sim.add_group("Other", [desk.ann])
    for _ in range(2):
        for chat in (desk.group, other):
            assert await desk.platform.name_of(desk.address(chat), desk.ann.id) == ""
        await clock.advance(601)
    assert len(sim.calls_of(wire.MEMBERS)) == 2
    told = [r.getMessage() for r in caplog.records if "missing scope" in r.getMessage()]
    assert len(told) == 1
    assert all(scope in told[0] for scope in scopes)
    sim.policy.missing_scopes = set()
    assert await desk.platform.name_of(desk.address(other), desk.ann.id) == "Ann"


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault("drop"), 60),
        (Fault("html"), 60),
        (Fault("truncate"), 60),
        (Fault("status", status=429, body={"code": 99991400}), 60),
        (Fault("status", body={"code": 232011}), 3600),
        (Fault("status", body={"code": 99991403}), 3600),
        (Fault("status", body={"code": 230018}), 3600),
    ],
)
async def test_a_refused_list_costs_nothing_but_the_name(
    desk: Desk, sim: FeishuSim, clock: VirtualClock, fault: Fault, seconds: float
) -> None:
    sim.faults.order(wire.MEMBERS, fault, times=CUT if fault.kind == "drop" else 1)
    assert await desk.platform.name_of(desk.address(), desk.ann.id) == ""
    calls = len(sim.calls_of(wire.MEMBERS))
    await clock.advance(seconds - 1)
    assert await desk.platform.name_of(desk.address(), desk.ann.id) == ""
    assert len(sim.calls_of(wire.MEMBERS)) == calls
    other = sim.p2p(desk.bob)
    assert await desk.platform.name_of(desk.address(other), desk.bob.id) == "Bob"
    await clock.advance(2)
    assert await desk.platform.name_of(desk.address(), desk.ann.id) == "Ann"


async def test_a_slow_list_is_not_waited_for_but_kept(
    desk: Desk, sim: FeishuSim, clock: VirtualClock
) -> None:
    sim.faults.order(wire.MEMBERS, Fault("delay", seconds=5))
    asking = asyncio.create_task(desk.platform.name_of(desk.address(), desk.ann.id))
    await sim.wait_for(lambda: sim.calls_of(wire.MEMBERS))
    await clock.advance(2)
    assert await asyncio.wait_for(asking, 5) == ""
    await clock.advance(3)
    await sim.wait_for(lambda: sim.calls_of(wire.MEMBERS)[0].status == 200)
    assert await desk.platform.name_of(desk.address(), desk.ann.id) == "Ann"
    assert len(sim.calls_of(wire.MEMBERS)) == 1


async def test_the_names_kept_are_bounded(desk: Desk) -> None:
    """The one who was asked for last stays longest."""
    names = Names(api(desk), desk.clock)
    names.learn(Person(f"ou_{n}", f"P{n}") for n in range(MOST))
    assert await names.name_of({}, "ou_0") == "P0"
    names.learn([Person("ou_new", "New"), Person("ou_less"), Person("", "Nobody")])
    found = [await names.name_of({}, who) for who in ("ou_0", "ou_1", "ou_2", "ou_new", "ou_less")]
    assert found == ["P0", "", "P2", "New", ""]


async def test_no_question_no_call(desk: Desk, sim: FeishuSim) -> None:
    assert await desk.platform.name_of(desk.address(), "") == ""
    assert await desk.platform.name_of({}, "ou_a") == ""
    assert sim.calls == []


async def test_closing_ends_a_list_under_way(desk: Desk, sim: FeishuSim) -> None:
    sim.faults.order(wire.MEMBERS, Fault("hang", seconds=60))
    asking = asyncio.create_task(desk.platform.name_of(desk.address(), desk.ann.id))
    await sim.wait_for(lambda: sim.calls_of(wire.MEMBERS))
    await desk.platform.close()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(asking, 5)


# ---------------------------------------------------------------- the simulator


async def test_a_time_range_of_a_thread_is_blamed(desk: Desk, sim: FeishuSim) -> None:
    await desk.hear()
    thread = sim.open_thread(await sim.say(desk.group, desk.ann, "root"))
    params = {"container_id_type": "thread", "container_id": thread, "end_time": "1"}
    page = await read_page(api(desk), "im/v1/messages", "list_messages", params)
    assert len(page.items) == 1, "and does nothing"
    assert sim.violations == ["list_messages: a time range of a thread"]


async def test_a_chat_shows_the_roots_of_its_threads_a_topic_group_everything(
    desk: Desk, sim: FeishuSim
) -> None:
    topics = sim.add_group("Topics", [desk.ann], topic=True)
    await desk.hear()
    for chat, shown in ((desk.group, 3), (topics, 4)):
        first = await sim.say(chat, desk.ann, "first")
        quote = await sim.say(chat, desk.ann, "quote", reply_to=first)
        thread = sim.open_thread(quote)
        await sim.say(chat, desk.ann, "inside", thread=thread)
        await sim.say(chat, desk.ann, "beside")
        assert len(await desk.missed(desk.address(chat))) == shown


@pytest.mark.parametrize("wrong", [{"page_size": "101"}, {"page_size": "0"}, {"page_token": "x"}])
async def test_pages_of_members_have_a_size(
    desk: Desk, sim: FeishuSim, wrong: dict[str, str]
) -> None:
    with pytest.raises(Bug) as caught:
        await read_page(api(desk), f"im/v1/chats/{desk.group.id}/members", "members", wrong)
    assert caught.value.code == "99992402"


def api(desk: Desk) -> FeishuApi:
    bot = FeishuSettings("b", desk.sim.app_id, desk.sim.app_secret, base_url=desk.sim.base_url)
    return FeishuApi(bot, desk.http, desk.clock)


# ---------------------------------------------------------------- the official client


@pytest.fixture
async def official(sim: FeishuSim) -> Callable[..., Any]:
    """`call(method, request)` of lark-oapi, which blocks, in a thread."""
    import lark_oapi

    builder = lark_oapi.Client.builder().app_id(sim.app_id).app_secret(sim.app_secret)
    client = builder.domain(sim.base_url).build()

    async def call(resource: str, method: str, request: Any) -> Any:
        run = getattr(getattr(client.im.v1, resource), method)
        return await asyncio.to_thread(run, request)

    return call


async def test_the_official_client_reads_lists_and_deletes(
    sim: FeishuSim, desk: Desk, clock: VirtualClock, official: Callable[..., Any]
) -> None:
    from lark_oapi.api.im.v1 import (
        DeleteMessageRequest,
        GetChatMembersRequest,
        GetMessageRequest,
        ListMessageRequest,
    )

    await desk.hear()
    handle = await answered(desk)
    said = await sim.say(desk.group, desk.ann, "see @Bob", mentions=[desk.bob])
    request = ListMessageRequest.builder().container_id_type("chat").container_id(desk.group.id)
    request = request.start_time(str(int(START))).end_time(str(int(START) + 1))
    request = request.sort_type("ByCreateTimeDesc").page_size(2).build()
    listed = await official("message", "list", request)
    assert listed.success() and listed.data.has_more is True and listed.data.page_token
    newest, card = listed.data.items
    assert (newest.message_id, newest.msg_type, newest.deleted) == (said, "text", False)
    assert (newest.sender.id, newest.sender.id_type) == (desk.ann.id, "open_id")
    assert (newest.sender.sender_type, newest.chat_id) == ("user", desk.group.id)
    assert [(m.key, m.id, m.id_type, m.name) for m in newest.mentions] == [
        ("@_user_1", desk.bob.id, "open_id", "Bob")
    ]
    assert json.loads(newest.body.content) == {"text": "see @_user_1"}
    assert newest.create_time == str(int(START * 1000))
    assert (card.message_id, card.sender.sender_type) == (handle.message_id, "app")
    assert (card.sender.id, card.sender.id_type) == (sim.app_id, "app_id")

    got = await official("message", "get", GetMessageRequest.builder().message_id(said).build())
    assert got.success() and [item.message_id for item in got.data.items] == [said]

    deletion = DeleteMessageRequest.builder().message_id(handle.message_id).build()
    assert (await official("message", "delete", deletion)).success()
    assert (await official("message", "delete", deletion)).code == 230110
    got = GetMessageRequest.builder().message_id(handle.message_id).build()
    assert (await official("message", "get", got)).data.items[0].deleted is True

    request = GetChatMembersRequest.builder().chat_id(desk.group.id).member_id_type("open_id")
    members = await official("chat_members", "get", request.page_size(1).build())
    assert members.success() and (members.data.member_total, members.data.has_more) == (2, True)
    assert [(m.member_id, m.name) for m in members.data.items] == [(desk.ann.id, "Ann")]
    request = request.page_token(members.data.page_token).page_size(100)
    members = await official("chat_members", "get", request.build())
    assert [m.name for m in members.data.items] == ["Bob"] and not members.data.has_more

    sim.policy.missing_scopes = {GROUP_SCOPE}
    request = ListMessageRequest.builder().container_id_type("chat").container_id(desk.group.id)
    refused = await official("message", "list", request.build())
    assert (refused.code, GROUP_SCOPE in refused.msg) == (230027, True)
    assert sim.violations == []
