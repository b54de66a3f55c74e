"""Event payloads: who is asked, what was said, and nothing that junk could break."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.feishu.parse import Nothing, Recalled, is_group_message, parse
from adapters.feishu.settings import BotIdentity
from bot.contract import CardAction, InboundMessage, Person, TextPart, UnreadablePart

ME = BotIdentity("ou_bot", "Queqiao")


def mention(key: str, open_id: str, name: str) -> dict[str, Any]:
    return {"key": key, "id": {"open_id": open_id, "union_id": "on_" + open_id}, "name": name}


MINE = mention("@_user_1", "ou_bot", "Queqiao")


def received(content: object, message_type: str = "text", **message: object) -> dict[str, Any]:
    body = {
        "message_id": "om_1",
        "create_time": "1609073151345",
        "chat_id": "oc_1",
        "chat_type": "p2p",
        "message_type": message_type,
        "content": content if isinstance(content, str) else json.dumps(content),
        **message,
    }
    sender = {"sender_id": {"open_id": "ou_a", "user_id": "u1", "union_id": "on_a"}}
    return {
        "schema": "2.0",
        "header": {"event_id": "e1", "event_type": "im.message.receive_v1", "app_id": "cli_1"},
        "event": {"sender": {**sender, "sender_type": "user"}, "message": body},
    }


def read(payload: dict[str, Any], me: BotIdentity | None = ME) -> InboundMessage:
    parsed = parse(payload, "feishu", me)
    assert isinstance(parsed, InboundMessage)
    return parsed


def test_a_private_text() -> None:
    message = read(received({"text": "hello"}))
    assert message.parts == (TextPart("hello"),)
    assert message.sender == Person("ou_a", also=("u1", "on_a"))
    assert (message.chat, message.chat_kind, message.topic) == ("oc_1", "p2p", "")
    assert message.sent_at == 1609073151.345
    assert message.ignored == ""
    assert message.address["message_id"] == "om_1"
    assert message.address["reply_in_thread"] is False


def test_own_mention_goes_and_others_become_names() -> None:
    others = [mention(f"@_user_{n}", f"ou_{n}", f"P{n}") for n in range(2, 12)]
    text = "@_user_1 ask @_user_10 and @_user_2, not @_user_11x @_user_99"
    message = read(received({"text": text}, chat_type="group", mentions=[MINE, *others]))
    assert message.text == "ask @P10 and @P2, not @P11x @_user_99"
    assert message.ignored == ""
    assert Person("ou_10", "P10") in message.mentions
    assert all(person.id != "ou_bot" for person in message.mentions)


@pytest.mark.parametrize(
    ("text", "mentions", "me", "reason"),
    [
        ("hi", [], ME, "not_mentioned"),
        ("@_user_1 hi", [mention("@_user_1", "ou_x", "Queqiao")], ME, "not_mentioned"),
        ("@_all hi", [], ME, "at_all"),
        ("@_all hi", None, ME, "at_all"),
        ("@_all @_user_1 hi", [MINE], ME, ""),
        ("@_user_1 hi", [MINE], None, "identity_unknown"),
    ],
)
def test_who_is_asked_in_a_group(
    text: str, mentions: object, me: BotIdentity | None, reason: str
) -> None:
    payload = received({"text": text}, chat_type="group", mentions=mentions)
    assert read(payload, me).ignored == reason


def test_bots_are_not_answered() -> None:
    payload = received({"text": "hi"})
    payload["event"]["sender"]["sender_type"] = "bot"
    assert read(payload).ignored == "from_bot"
    payload["event"]["sender"]["sender_id"]["open_id"] = "ou_bot"
    assert read(payload).ignored == "own_message"


def test_a_topic_is_kept_and_a_quote_is_not_a_topic() -> None:
    topic = read(received({"text": "x"}, thread_id="omt_1", root_id="om_0", parent_id="om_0"))
    assert topic.topic == "omt_1"
    assert topic.address["reply_in_thread"] is True
    quote = read(received({"text": "x"}, thread_id=None, root_id="om_0", parent_id="om_0"))
    assert quote.topic == ""
    assert quote.address["parent_id"] == "om_0"


def test_a_post() -> None:
    content = {
        "title": "Title",
        "content": [
            [
                {"tag": "at", "user_id": "@_user_1", "user_name": ""},
                {"tag": "text", "text": " see "},
                {"tag": "a", "text": "docs", "href": "https://x.y"},
                {"tag": "at", "user_id": "@_user_2"},
            ],
            [{"tag": "img", "image_key": "img_1"}],
            [{"tag": "code_block", "language": "PYTHON", "text": "print(1)\n"}],
            [{"tag": "hr"}, {"tag": "emotion", "emoji_type": "SMILE"}, {"tag": "new", "text": "!"}],
        ],
    }
    mentions = [MINE, mention("@_user_2", "ou_2", "Tom")]
    message = read(received(content, "post", chat_type="group", mentions=mentions))
    assert message.ignored == ""
    assert message.parts == (
        TextPart("Title\n see [docs](https://x.y)@Tom\n\n```python\nprint(1)\n```\n---[SMILE]!"),
        UnreadablePart("image"),
    )


@pytest.mark.parametrize(
    ("message_type", "content", "part"),
    [
        ("image", {"image_key": "k"}, UnreadablePart("image")),
        ("file", {"file_key": "k", "file_name": "a.pdf"}, UnreadablePart("file", "a.pdf")),
        ("media", {"file_key": "k", "file_name": "v.mp4"}, UnreadablePart("video", "v.mp4")),
        ("audio", {"file_key": "k"}, UnreadablePart("audio")),
        ("sticker", {"file_key": "k"}, UnreadablePart("sticker")),
        ("interactive", {"title": "T", "elements": []}, UnreadablePart("card", "T")),
        ("merge_forward", {"content": "Merged"}, UnreadablePart("forward")),
        ("share_user", {"user_id": "ou_2"}, UnreadablePart("share")),
        ("hongbao", {"text": "x"}, UnreadablePart("redpacket")),
        ("general_calendar", {"summary": "S"}, UnreadablePart("calendar", "S")),
        ("brand_new", {"x": 1}, UnreadablePart("unknown")),
        ("text", '{"text":', UnreadablePart("broken")),
        ("text", "[1]", UnreadablePart("broken")),
        ("text", {"text": 5}, UnreadablePart("broken")),
        ("post", {"content": "x"}, UnreadablePart("broken")),
        ("text", "", UnreadablePart("empty")),
    ],
)
def test_other_kinds(message_type: str, content: object, part: UnreadablePart) -> None:
    assert read(received(content, message_type)).parts == (part,)


def test_a_bare_mention_has_no_parts() -> None:
    message = read(received({"text": "@_user_1"}, chat_type="group", mentions=[MINE]))
    assert (message.parts, message.ignored) == ((), "")


def test_big_junk_and_control_characters() -> None:
    junk = "\x00\x07\x1b[31m" + "a\r\nb" * 50_000
    message = read(received({"text": junk}))
    assert len(message.text) > 100_000
    assert not any(ord(c) < 32 and c not in "\n\t" for c in message.text)


def test_half_an_emoji_and_raw_control_characters_do_not_cost_the_message() -> None:
    assert read(received('{"text":"hi \\ud83d there"}')).text == "hi ? there"
    assert read(received('{"text":"a\x07b\nc"}')).text == "ab\nc"
    assert read(received("[" * 100_000)).parts == (UnreadablePart("broken"),)


def test_everybody_is_not_a_person() -> None:
    everybody = {"key": "@_all", "id": "all", "name": "all"}
    message = read(received({"text": "@_all @_user_1 x"}, mentions=[everybody, MINE]))
    assert (message.mentions, message.text) == ((), "@all x")


def pressed(value: object, **event: object) -> dict[str, Any]:
    body = {
        "operator": {"open_id": "ou_a", "union_id": "on_a"},
        "action": {"value": value, "tag": "button"},
        "context": {"open_message_id": "om_1", "open_chat_id": "oc_1"},
        **event,
    }
    header = {"event_id": "e9", "event_type": "card.action.trigger"}
    return {"schema": "2.0", "header": header, "event": body}


@pytest.mark.parametrize("as_text", [False, True])
def test_a_button(as_text: bool) -> None:
    value = {"action": "stop", "turn": "t1"}
    parsed = parse(pressed(json.dumps(value) if as_text else value), "b", ME)
    who = Person("ou_a", also=("on_a",))
    assert parsed == CardAction("b", "feishu", "e9", "oc_1", who, "stop", "t1")


@pytest.mark.parametrize(
    "payload",
    [
        pressed({"action": "format_disk", "turn": "t"}),
        pressed({"action": "stop"}),
        pressed("not json"),
        pressed({"action": "stop", "turn": "t"}, operator=None),
        pressed({"action": "stop", "turn": "t"}, context={}),
        {"header": {"event_type": "im.chat.updated_v1"}},
        {"header": {"event_type": "im.message.recalled_v1"}, "event": {}},
        {},
    ],
)
def test_nothing_has_a_reason(payload: dict[str, Any]) -> None:
    parsed = parse(payload, "b", ME)
    assert isinstance(parsed, Nothing)
    assert parsed.reason


def test_a_recall() -> None:
    event = {"message_id": "om_1", "chat_id": "oc_1"}
    payload = {"header": {"event_type": "im.message.recalled_v1"}, "event": event}
    assert parse(payload, "b", ME) == Recalled("oc_1", "om_1")
    assert not is_group_message(payload)
    assert is_group_message(received({"text": "x"}, chat_type="group"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
LEAVES = [
    ("header",),
    ("header", "event_type"),
    ("event",),
    ("event", "sender"),
    ("event", "sender", "sender_id"),
    ("event", "message"),
    *(
        ("event", "message", key)
        for key in ("message_id", "chat_id", "content", "mentions", "create_time", "message_type")
    ),
    ("event", "action", "value"),
    ("event", "operator"),
    ("event", "context"),
]


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(st.tuples(st.sampled_from(LEAVES), json_values), max_size=4))
def test_wrong_types_never_raise(button: bool, damage: list[tuple[Any, object]]) -> None:
    payload: Any = pressed({"action": "stop", "turn": "t"}) if button else received({"text": "x"})
    for path, value in damage:
        spot = payload
        for key in path[:-1]:
            spot = spot.get(key) if isinstance(spot, dict) else None
        if isinstance(spot, dict):
            spot[path[-1]] = value
    parse(payload, "b", ME)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["text", "post", "image", "x"]), json_values | st.text(), st.text())
def test_any_content_gives_a_message(kind: str, content: object, text: str) -> None:
    body = content if isinstance(content, str) else json.dumps(content)
    read(received(body, kind))
    read(received({"text": text, "content": [[content, {"tag": "at", "user_id": text}]]}, "post"))
    read(received({"text": text}, mentions=[{"key": text, "id": text, "name": text}, content]))
