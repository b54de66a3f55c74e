"""adapters/models/sse.py: any split of the bytes gives the same events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.models.sse import SseComment, SseDecoder, SseEvent, SseOverflow


def decode(*blocks: bytes, **limits: int) -> list[SseEvent | SseComment]:
    decoder = SseDecoder(**limits)
    found = [item for block in blocks for item in decoder.feed(block)]
    return found + decoder.end()


def test_one_event_and_the_end_mark():
    assert decode(b'data: {"a":1}\n\ndata: [DONE]\n\n') == [
        SseEvent(b'{"a":1}'),
        SseEvent(b"[DONE]"),
    ]


def test_an_event_is_out_as_soon_as_its_blank_line_is_in():
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [SseEvent(b"a")]


def test_a_cr_does_not_wait_for_what_follows():
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\r") == [SseEvent(b"a")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end(end: bytes):
    stream = b"data: a" + end + b"data: b" + end + end + b"data: c" + end + end
    assert decode(stream) == [SseEvent(b"a\nb"), SseEvent(b"c")]


def test_crlf_split_between_blocks_is_one_line_end():
    assert decode(b"data: a\r", b"\n", b"\r", b"\ndata: b\r", b"\n\r\n") == [
        SseEvent(b"a"),
        SseEvent(b"b"),
    ]


def test_crlf_split_in_a_multi_line_event_does_not_end_it():
    assert decode(b"data: a\r", b"\ndata: b\r", b"\n\r\n") == [SseEvent(b"a\nb")]


def test_comments_are_told_apart_and_do_not_end_an_event():
    assert decode(b": keep-alive\n\ndata: a\n:x\n\n") == [
        SseComment("keep-alive"),
        SseComment("x"),
        SseEvent(b"a"),
    ]


def test_no_blank_line_at_the_end():
    assert decode(b"data: a") == [SseEvent(b"a")]
    assert decode(b"data: a\n") == [SseEvent(b"a")]


def test_a_byte_order_mark_is_dropped_only_at_the_start():
    assert decode(b"\xef\xbb", b"\xbfdata: a\n\n") == [SseEvent(b"a")]
    assert decode(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [SseEvent(b"a")]


def test_one_space_after_the_colon_is_dropped_and_none_is_needed():
    assert decode(b"data:a\n\ndata:  b\n\ndata\n\n") == [
        SseEvent(b"a"),
        SseEvent(b" b"),
        SseEvent(b""),
    ]


def test_event_names_and_unknown_fields():
    assert decode(b"id: 7\nevent: error\nretry: 1\ndata: a\n\ndata: b\n\n") == [
        SseEvent(b"a", "error"),
        SseEvent(b"b"),
    ]


def test_a_name_without_data_is_no_event():
    assert decode(b"event: ping\n\ndata: a\n\n") == [SseEvent(b"a")]


def test_utf8_split_inside_a_character():
    raw = "data: 鹊桥🌉\n\n".encode()
    assert decode(*(raw[i : i + 1] for i in range(len(raw)))) == [SseEvent("鹊桥🌉".encode())]


def test_a_line_without_an_end_is_bounded():
    decoder = SseDecoder(line_limit=100)
    decoder.feed(b"data: " + b"x" * 90)
    with pytest.raises(SseOverflow):
        decoder.feed(b"x" * 10)


def test_a_whole_line_over_the_limit_is_refused_too():
    with pytest.raises(SseOverflow):
        decode(b"data: " + b"x" * 100 + b"\n\n", line_limit=100)


def test_an_event_of_many_lines_is_bounded():
    with pytest.raises(SseOverflow):
        decode(b"data: xxxxxxxxx\n" * 20, event_limit=100)


def test_comments_leave_nothing_behind():
    decoder = SseDecoder(line_limit=100, event_limit=100)
    for _ in range(1000):
        decoder.feed(b": keep-alive\n\n")
    assert decoder.feed(b"data: a\n\n") == [SseEvent(b"a")]


PIECES = (
    *(b"data", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"event", b"\xef\xbb\xbf", b"x"),
    *("鹊".encode(), "🌉".encode(), b"\xff", b'{"a":1}', b"data: a\n\n", b": keep-alive\r\n\r\n"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.data())
def test_any_split_gives_the_same_events(parts: list[bytes], data: st.DataObject):
    raw = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    blocks = [raw[a:b] for a, b in itertools.pairwise([0, *cuts, len(raw)])]
    assert decode(*blocks) == decode(raw)
