"""Frames and callbacks of DingTalk: what they mean, and that junk costs nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.dingtalk import frames
from adapters.dingtalk.frames import CARD_CALLBACK, MESSAGES, decode, payload
from adapters.dingtalk.parse import Nothing, parse
from bot.contract import CardAction, InboundMessage, Person, QuotePart, TextPart, UnreadablePart

BOT_ID = "$:LWCP_v1:$bot"


def group_text(**changes: Any) -> dict[str, Any]:
    """The example of reference/dingtalk.md 4.1, without its quote."""
    data = {
        "conversationId": "cidAbC/1+xyz==",
        "conversationType": "2",
        "conversationTitle": "Dev group",
        "chatbotUserId": BOT_ID,
        "robotCode": "dingappkey",
        "senderId": "$:LWCP_v1:$user",
        "senderStaffId": "0123456789",
        "senderNick": "Alice",
        "isInAtList": True,
        "atUsers": [{"dingtalkId": BOT_ID}, {"dingtalkId": "$:LWCP_v1:$bob", "staffId": "9876"}],
        "msgId": "msgAAA==",
        "createAt": 1769000000000,
        "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=abc",
        "sessionWebhookExpiredTime": 1769005400000,
        "msgtype": "text",
        "text": {"content": " hello"},
    }
    return {k: v for k, v in (data | changes).items() if v is not None}


def read(data: Any) -> InboundMessage:
    message = parse(MESSAGES, data, "ding", "dingclient")
    assert isinstance(message, InboundMessage), message
    return message


def parts(**changes: Any) -> tuple[Any, ...]:
    return read(group_text(**changes)).parts


# ---------------------------------------------------------------- messages


def test_a_group_message_keeps_every_id_whole() -> None:
    message = read(group_text())
    assert message.message_id == "msgAAA==" and message.bot == "ding"
    assert message.chat == "cidAbC/1+xyz==" and message.chat_kind == "group"
    assert message.sender == Person("0123456789", "Alice", ("$:LWCP_v1:$user",))
    assert message.mentions == (Person("9876", "", ("$:LWCP_v1:$bob",)),)
    assert message.parts == (TextPart("hello"),)
    assert message.sent_at == 1769000000.0
    assert message.ignored == ""
    assert message.address == {
        "conversationId": "cidAbC/1+xyz==",
        "conversationType": "2",
        "senderStaffId": "0123456789",
        "robotCode": "dingappkey",
        "msgId": "msgAAA==",
        "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=abc",
        "sessionWebhookExpiredTime": 1769005400000.0,
    }
    assert json.loads(json.dumps(message.address)) == message.address


def test_a_private_chat_is_its_person() -> None:
    message = read(group_text(conversationType="1", isInAtList=None, atUsers=None))
    assert message.chat_kind == "p2p" and message.chat == "0123456789"
    assert message.ignored == ""


def test_an_external_member_is_known_by_the_encrypted_id() -> None:
    message = read(group_text(senderStaffId="", senderUnionId="union", conversationType="1"))
    assert message.sender == Person("$:LWCP_v1:$user", "Alice", ("union",))
    assert message.chat == "$:LWCP_v1:$user" and message.address["senderStaffId"] == ""


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [
        ({}, ""),
        ({"isInAtList": False, "atUsers": []}, "not_mentioned"),
        ({"isInAtList": None, "atUsers": None}, "not_mentioned"),
        ({"isInAtList": False, "atUsers": [{"dingtalkId": BOT_ID}]}, ""),
        ({"isInAtList": False, "atUsers": [], "text": {"content": "@所有人 hi"}}, "at_all"),
        ({"isInAtList": True, "text": {"content": "@所有人 hi"}}, ""),
        ({"senderId": BOT_ID}, "own_message"),
        ({"isInAtList": False, "atUsers": [], "conversationType": "1"}, ""),
    ],
)
def test_who_is_asked(changes: dict[str, Any], ignored: str) -> None:
    assert read(group_text(**changes)).ignored == ignored


def test_a_literal_at_sign_is_the_persons_own_text() -> None:
    assert parts(text={"content": " @foo what is @bar?"}) == (TextPart("@foo what is @bar?"),)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("picture", {"downloadCode": "x"}, UnreadablePart("image")),
        ("audio", {"downloadCode": "x", "recognition": ""}, UnreadablePart("audio")),
        ("audio", {"recognition": "说话"}, TextPart("说话")),
        ("video", {"downloadCode": "x"}, UnreadablePart("video")),
        ("file", {"fileName": "a.pdf"}, UnreadablePart("file", "a.pdf")),
        ("chatRecord", {"summary": "s", "chatRecord": "[]"}, UnreadablePart("forward")),
        ("interactiveCard", {}, UnreadablePart("card")),
        ("unknownMsgType", {}, UnreadablePart("unknown")),
        ("brandNew", "junk", UnreadablePart("unknown")),
        ("markdown", {"text": "**m**"}, TextPart("**m**")),
        ("text", '{"content": "in a string"}', TextPart("in a string")),
        ("text", {"content": " \n"}, UnreadablePart("empty")),
        ("richText", {"richText": []}, UnreadablePart("empty")),
        ("richText", '{"richText": [{"text": "s"}]}', TextPart("s")),
    ],
)
def test_kinds(kind: str, content: Any, expected: Any) -> None:
    assert parts(msgtype=kind, text=None, content=content) == (expected,)


def test_text_may_be_a_json_string() -> None:
    assert parts(text='{"content": "hi"}') == (TextPart("hi"),)
    assert parts(text="hi") == (TextPart("hi"),)


def test_half_an_emoji_can_be_stored() -> None:
    assert parts(text={"content": "a\ud83d"}) == (TextPart("a?"),)


def test_the_month_is_used_up() -> None:
    assert parts(text=None, errorCode=20001) == (UnreadablePart("quota"),)
    assert parts(text=None, errorCode="20001") == (UnreadablePart("quota"),)
    assert parts(text=None) == (UnreadablePart("broken"),)


def test_rich_text_keeps_the_order_of_text_and_pictures() -> None:
    items = [
        {"type": "at", "atName": "Bot", "atUserId": BOT_ID},
        {"text": "one "},
        {"text": "two", "type": "bold"},
        {"type": "picture", "downloadCode": "p"},
        {"text": "three", "downloadCode": "q"},
        {"type": "at", "atName": "Bob", "atUserId": "9876"},
        {"text": "four"},
        {"type": "hologram"},
        None,
    ]
    assert parts(msgtype="richText", text=None, content={"richText": items}) == (
        TextPart("one two"),
        UnreadablePart("image"),
        TextPart("three"),
        UnreadablePart("image"),
        TextPart("@Bob four"),
        UnreadablePart("unknown"),
    )


def test_harmony_repeats_the_mention() -> None:
    items = [{"text": "@鹊桥 "}, {"text": "hi"}]
    content = {"richText": items}
    alone = [{"dingtalkId": BOT_ID}]
    told = parts(msgtype="richText", text=None, content=content, atUsers=alone)
    assert told == (TextPart("hi"),)
    assert parts(msgtype="richText", text=None, content=content) == (TextPart("@鹊桥 hi"),)


@pytest.mark.parametrize(
    ("quoted", "expected"),
    [
        ({"msgType": "text", "content": {"text": "old"}}, QuotePart("old")),
        ({"msgType": "text", "content": '{"text": "old"}'}, QuotePart("old")),
        ({"msgType": "text", "content": "old"}, QuotePart("old")),
        ({"msgType": "richText", "content": {"richText": [{"text": "a"}]}}, QuotePart("a")),
        ({"msgType": "picture", "content": {"downloadCode": "x"}}, UnreadablePart("image")),
        ({"msgType": "file", "content": {"fileName": "f"}}, UnreadablePart("file", "f")),
        ({"msgType": "interactiveCard", "senderId": BOT_ID}, UnreadablePart("card")),
        ({"msgType": "unknownMsgType"}, UnreadablePart("unknown")),
    ],
)
def test_quotes(quoted: dict[str, Any], expected: Any) -> None:
    text = {"content": "why?", "isReplyMsg": True, "repliedMsg": quoted}
    assert parts(text=text) == (expected, TextPart("why?"))


def test_a_quote_beside_rich_text() -> None:
    quoted = {"msgType": "text", "content": {"text": "old"}}
    content = {"richText": [{"text": "why?"}], "repliedMsg": quoted}
    told = parts(msgtype="richText", text=None, content=content)
    assert told == (QuotePart("old"), TextPart("why?"))


@pytest.mark.parametrize("missing", ["msgId", "conversationId"])
def test_without_its_ids_a_message_cannot_be_claimed(missing: str) -> None:
    parsed = parse(MESSAGES, group_text(**{missing: None}), "ding", "r")
    assert isinstance(parsed, Nothing) and parsed.reason.startswith("broken")


def test_the_robot_code_falls_back_to_the_client_id() -> None:
    assert read(group_text(robotCode=None)).address["robotCode"] == "dingclient"


@pytest.mark.parametrize("stamp", [None, "soon", -5, 1e300, True, [], "9" * 400])
def test_a_time_that_is_none(stamp: Any) -> None:
    assert read(group_text(createAt=stamp)).sent_at == 0.0


def test_a_name_is_foreign_text() -> None:
    name = read(group_text(senderNick="A\u202e\n\x00" + "b" * 500)).sender.name
    assert name == "A" + "b" * 63


# ---------------------------------------------------------------- buttons


def pressed(**changes: Any) -> dict[str, Any]:
    """reference/dingtalk.md 6.6, with our parameters."""
    private = {"actionIds": ["stop"], "params": {"action": "stop", "turn": "t1"}}
    return {
        "type": "actionCallback",
        "outTrackId": "t1-0",
        "userId": "0123",
        "userIdType": 1,
        "spaceId": "cidX/+==",
        "spaceType": "IM_GROUP",
        "content": json.dumps({"cardPrivateData": private}),
    } | changes


def test_a_button_in_a_group() -> None:
    action = parse(CARD_CALLBACK, pressed(), "ding", "r")
    assert action == CardAction(
        "ding", "dingtalk", "t1-0:stop:0123", "cidX/+==", Person("0123"), "stop", "t1"
    )


@pytest.mark.parametrize("space", ["0123", "cidP2P==", ""])
def test_a_button_in_private_names_the_same_chat_as_the_message(space: str) -> None:
    action = parse(CARD_CALLBACK, pressed(spaceType="IM_ROBOT", spaceId=space), "ding", "r")
    asked = read(group_text(conversationType="1", senderStaffId="0123"))
    assert isinstance(action, CardAction) and action.chat == asked.chat == "0123"


def test_feedback_by_its_action_id() -> None:
    private = {"actionIds": ["feedback_up"], "params": {"turn": "t1"}}
    data = pressed(content={"cardPrivateData": private})
    action = parse(CARD_CALLBACK, data, "ding", "r")
    assert isinstance(action, CardAction) and action.action == "like"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "",
        None,
        {"cardPrivateData": {"params": {"action": "rm -rf", "turn": "t"}}},
        {"cardPrivateData": {"params": {"action": "stop"}}},
        {"cardPrivateData": {"params": "x", "actionIds": {"a": 1}}},
    ],
)
def test_a_button_that_is_not_ours(content: Any) -> None:
    assert isinstance(parse(CARD_CALLBACK, pressed(content=content), "ding", "r"), Nothing)


def test_other_topics_mean_nothing() -> None:
    assert parse("/v1.0/graph/api/invoke", {}, "ding", "r") == Nothing("unknown_topic")


# ---------------------------------------------------------------- frames


def test_a_frame_and_its_answer() -> None:
    text = json.dumps(
        {
            "specVersion": "1.0",
            "type": "CALLBACK",
            "headers": {"topic": MESSAGES, "messageId": "m1", "time": 5},
            "data": '{"a": 1}',
        }
    )
    frame = decode(text)
    assert (frame.kind, frame.topic, frame.message_id) == ("CALLBACK", MESSAGES, "m1")
    assert payload(frame) == {"a": 1}
    answer = json.loads(frames.ack(frame, frames.response(None)))
    assert answer == {
        "code": 200,
        "message": "OK",
        "headers": {"messageId": "m1", "contentType": "application/json"},
        "data": '{"response":null}',
    }


def test_a_system_frame_may_lack_nearly_everything() -> None:
    frame = decode('{"type": "SYSTEM", "headers": {"topic": "disconnect"}}')
    assert frame.message_id == "" and frame.data == ""


JUNK = """
{ | null | [1] | "x" | {} | {"type": "CALLBACK"} | {"headers": {}} | {"type": 5.5, "headers": {}}
| {"type": "EVENT", "header": {}} | {"type": "EVENT", "headers": []}
"""


@pytest.mark.parametrize("text", [*JUNK.split("|"), "", "[" * 100_000, "\x00"])
def test_junk_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text)


def test_junk_is_never_quoted() -> None:
    with pytest.raises(ValueError) as caught:
        decode("secret-canary" * 20_000)
    assert "canary" not in str(caught.value)


@given(st.text() | st.binary())
def test_any_text_gives_a_frame_or_a_value_error(text: str | bytes) -> None:
    try:
        frame = decode(text)
        payload(frame)
    except ValueError:
        return
    assert frame.kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = st.sampled_from([*group_text(), "content", "errorCode", "senderUnionId", "atUsers"])
INNER = st.dictionaries(
    st.sampled_from(["content", "richText", "repliedMsg", "msgType", "text", "type", "fileName"]),
    JSON,
)


@given(
    st.dictionaries(FIELDS, JSON | INNER, max_size=6),
    st.sampled_from(["text", "richText", "audio", "file", "chatRecord", "?"]),
)
@example({"content": {"richText": [[[]], {"text": 5}]}}, "richText")
@example({"text": {"content": "x" * 200_000 + "\x00\ud800"}}, "text")
def test_no_message_makes_parse_raise(changes: dict[str, Any], kind: str) -> None:
    parsed = parse(MESSAGES, group_text(msgtype=kind) | changes, "ding", "r")
    if isinstance(parsed, InboundMessage):
        assert parsed.message_id and parsed.chat and parsed.sender.id and parsed.parts
        json.dumps(parsed.address)


@given(st.dictionaries(st.sampled_from([*pressed()]), JSON, max_size=4), JSON)
def test_no_button_makes_parse_raise(changes: dict[str, Any], private: Any) -> None:
    data = pressed(content={"cardPrivateData": private}) | changes
    parsed = parse(CARD_CALLBACK, data, "ding", "r")
    if isinstance(parsed, CardAction):
        assert parsed.turn and parsed.operator.id and parsed.action


@given(JSON)
def test_any_data_at_all(data: Any) -> None:
    assert isinstance(parse(MESSAGES, data, "ding", "r"), Nothing)
