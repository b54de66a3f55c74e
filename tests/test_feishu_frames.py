"""The frame codec and the reassembly: the reference's vectors, junk, damage, bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.feishu.frames import Fragments, Frame, ack, decode, encode, ping

PING = "08001000187b20002a0c0a0474797065120470696e67"
PONG = "08001000187b20002a0c0a04747970651204706f6e6742137b2250696e67496e74657276616c223a39307d"
EVENT = (
    "080110ac02187b20012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a08"
    "0a0373756d1201312a080a037365711201302a0e0a0874726163655f69641202743142077b2261223a317d"
)
ACK = (
    "080110ac02187b20012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a08"
    "0a0373756d1201312a080a037365711201302a0e0a0874726163655f6964120274312a0c0a0662697a5f7274"
    "12023132420c7b22636f6465223a3230307d"
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
frames = st.builds(
    Frame,
    seq_id=st.integers(0, 2**64 - 1),
    log_id=st.integers(0, 2**64 - 1),
    service=st.integers(-(2**31), 2**31 - 1),
    method=st.integers(0, 1),
    headers=st.lists(st.tuples(texts, texts), max_size=6).map(tuple),
    payload_encoding=texts,
    payload_type=texts,
    payload=st.binary(max_size=300),
    log_id_new=texts,
)


def test_the_vectors_of_the_reference() -> None:
    assert encode(ping(123)).hex() == PING
    assert decode(bytes.fromhex(PONG)).payload == b'{"PingInterval":90}'
    assert decode(bytes.fromhex(PONG)).header("type") == "pong"
    event = decode(bytes.fromhex(EVENT))
    assert (event.seq_id, event.log_id, event.service, event.method) == (1, 300, 123, 1)
    assert encode(event).hex() == EVENT
    assert encode(ack(event, b'{"code":200}', 12)).hex() == ACK
    assert encode(Frame(service=1)).hex() == "0800100018012000"


@given(frames)
def test_a_frame_survives_the_wire(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=200))
def test_junk_gives_a_frame_or_a_value_error(junk: bytes) -> None:
    try:
        decode(junk)
    except ValueError:
        return


@given(frames, st.data())
def test_damaged_frames_give_a_frame_or_a_value_error(frame: Frame, data: st.DataObject) -> None:
    raw = bytearray(encode(frame))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        try:
            decode(damaged)
        except ValueError:
            continue


def test_unknown_fields_are_skipped_and_the_later_scalar_wins() -> None:
    raw = bytes.fromhex("0800100018012000") + bytes.fromhex("50015a036162636511223344")
    raw += bytes.fromhex("6111223344556677881805")
    assert decode(raw) == Frame(service=5)


@pytest.mark.parametrize("raw", ["08", "00ff", "42ff01", "0b", "2a", "4a02fffe", "08" + "ff" * 11])
def test_broken_bytes_are_refused(raw: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(bytes.fromhex(raw))


def fragment(payload: bytes, seq: int, total: int, key: str = "m") -> Frame:
    headers = (("type", "event"), ("message_id", key), ("sum", str(total)), ("seq", str(seq)))
    return Frame(method=1, headers=headers, payload=payload)


@given(st.binary(min_size=2, max_size=200), st.data())
def test_fragments_in_any_order_with_repeats_make_the_whole(
    whole: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), min_size=1, max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    order = data.draw(st.permutations(range(len(pieces))))
    box, results = Fragments(), []
    for seq in order:
        results.append(box.add(fragment(pieces[seq], seq, len(pieces)), 0.0))
        if seq != order[-1]:
            assert box.add(fragment(b"repeat", seq, len(pieces)), 0.0) is None
    assert results == [None] * (len(pieces) - 1) + [whole]
    assert box._held == 0


def test_a_late_fragment_finds_nothing() -> None:
    box = Fragments(keep=60)
    assert box.add(fragment(b"a", 0, 2), 0.0) is None
    assert box.add(fragment(b"b", 1, 2), 61.0) is None
    assert box.add(fragment(b"a", 0, 2), 62.0) == b"ab"


def test_a_set_of_another_size_starts_over() -> None:
    box = Fragments()
    box.add(fragment(b"a", 0, 3), 0.0)
    assert box.add(fragment(b"b", 1, 2), 0.0) is None
    assert box.add(fragment(b"a", 0, 2), 0.0) == b"ab"


def test_unfinished_sets_are_bounded() -> None:
    box, rng = Fragments(most_bytes=1000), random.Random(1)
    for number in range(200):
        box.add(fragment(rng.randbytes(90), 0, 2, f"m{number}"), 0.0)
        assert box._held <= 1000


@pytest.mark.parametrize(("total", "seq"), [("2", "2"), ("x", "0"), ("2", "-1"), ("99999", "0")])
def test_impossible_counters_are_refused(total: str, seq: str) -> None:
    frame = Frame(method=1, headers=(("message_id", "m"), ("sum", total), ("seq", seq)))
    with pytest.raises(ValueError, match="fragment"):
        Fragments().add(frame, 0.0)


def test_a_single_frame_needs_no_counters() -> None:
    assert Fragments().add(Frame(method=1, payload=b"x"), 0.0) == b"x"
