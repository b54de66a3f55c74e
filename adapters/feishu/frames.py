"""The frames of Feishu's long connection: codec and reassembly (reference/feishu.md 2.3-2.6).

Pure. One binary WebSocket message is one Frame, a proto2 message of package `pbbp2`.
Whatever the bytes are, the only error is ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

CONTROL, DATA = 0, 1
"""The values of Frame.method (reference/feishu.md 2.3)."""

Headers = tuple[tuple[str, str], ...]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame (reference/feishu.md 2.3). `headers` keep their order, because an
    acknowledgement sends them back as they came."""

    seq_id: int = 0
    log_id: int = 0
    service: int = 0
    method: int = CONTROL
    headers: Headers = ()
    payload_encoding: str = ""
    payload_type: str = ""
    payload: bytes = b""
    log_id_new: str = ""

    def header(self, key: str) -> str:
        """The first header `key`, or an empty string."""
        return next((value for name, value in self.headers if name == key), "")


def ping(service: int) -> Frame:
    """The client's ping (reference/feishu.md 2.4)."""
    return Frame(service=service, headers=(("type", "ping"),))


def ack(frame: Frame, payload: bytes, milliseconds: int) -> Frame:
    """The answer to `frame`: itself with `biz_rt` appended and the payload replaced
    (reference/feishu.md 2.5)."""
    headers = (*frame.headers, ("biz_rt", str(max(0, milliseconds))))
    return replace(frame, headers=headers, payload=payload)


# ---------------------------------------------------------------- encoding


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. Zero-valued required fields are written, as strict decoders
    demand (reference/feishu.md 2.3)."""
    out = bytearray()
    for number, value in enumerate((frame.seq_id, frame.log_id, frame.service, frame.method), 1):
        out += _varint(number << 3 | _VARINT) + _varint(value)
    for key, text in frame.headers:
        out += _field(5, _field(1, key.encode()) + _field(2, text.encode()))
    for number, raw in (
        (6, frame.payload_encoding.encode()),
        (7, frame.payload_type.encode()),
        (8, frame.payload),
        (9, frame.log_id_new.encode()),
    ):
        if raw:
            out += _field(number, raw)
    return bytes(out)


def _varint(value: int) -> bytes:
    value &= _MASK64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, raw: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(raw)) + raw


# ---------------------------------------------------------------- decoding


def decode(data: bytes) -> Frame:
    """The frame in `data`; unknown fields are skipped, a later scalar wins, and a missing
    required field counts as zero. Raises ValueError for anything that is no frame."""
    numbers = {1: 0, 2: 0, 3: 0, 4: 0}
    texts: dict[int, bytes] = {}
    headers: list[tuple[str, str]] = []
    for number, value in _fields(data):
        if number in numbers and isinstance(value, int):
            numbers[number] = value
        elif number == 5 and isinstance(value, bytes):
            headers.append(_header(value))
        elif isinstance(value, bytes):
            texts[number] = value
    return Frame(
        numbers[1],
        numbers[2],
        _int32(numbers[3]),
        _int32(numbers[4]),
        tuple(headers),
        _text(texts.get(6, b"")),
        _text(texts.get(7, b"")),
        texts.get(8, b""),
        _text(texts.get(9, b"")),
    )


def _header(data: bytes) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    for number, value in _fields(data):
        if number in texts and isinstance(value, bytes):
            texts[number] = _text(value)
    return texts[1], texts[2]


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError("a text field is not UTF-8") from error


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0")
        value: int | bytes
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        else:
            size, at = _size(data, at, kind)
            if at + size > len(data):
                raise ValueError("a field goes past the end")
            value, at = data[at : at + size], at + size
        if kind in (_VARINT, _BYTES):
            yield number, value


def _size(data: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind == _BYTES:
        return _read_varint(data, at)
    if kind in (_FIXED32, _FIXED64):
        return (4 if kind == _FIXED32 else 8), at
    raise ValueError(f"wire type {kind}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK64, at
    raise ValueError("a number is longer than ten bytes")


# ---------------------------------------------------------------- fragments


@dataclass(slots=True)
class _Set:
    """The fragments of one message that have arrived."""

    born: float
    total: int
    parts: dict[int, bytes]


class Fragments:
    """Puts messages together whose payload came in several frames
    (reference/feishu.md 2.6). Holds at most `most_bytes` of unfinished messages, none of
    them longer than `keep` seconds and none of more than `most_parts` fragments."""

    def __init__(
        self, *, keep: float = 60.0, most_bytes: int = 16 << 20, most_parts: int = 4096
    ) -> None:
        self._keep, self._most_bytes, self._most_parts = keep, most_bytes, most_parts
        self._sets: dict[str, _Set] = {}
        self._held = 0

    def add(self, frame: Frame, now: float) -> bytes | None:
        """The whole payload when this frame completes it, else None. `now` is in seconds
        on a monotonic clock. Raises ValueError when the counters are impossible."""
        total, seq = _count(frame.header("sum"), 1), _count(frame.header("seq"), 0)
        if total <= 1:
            return frame.payload
        if seq >= total or total > self._most_parts:
            raise ValueError(f"fragment {seq} of {total}")
        self._expire(now)
        whole = self._put(frame.header("message_id"), total, seq, frame.payload, now)
        while self._held > self._most_bytes:
            self._drop(next(iter(self._sets)))
        return whole

    def _put(self, key: str, total: int, seq: int, payload: bytes, now: float) -> bytes | None:
        known = self._sets.get(key)
        if known is not None and known.total != total:
            self._drop(key)
        parts = self._sets.setdefault(key, _Set(now, total, {})).parts
        if seq not in parts:
            parts[seq] = payload
            self._held += len(payload)
        if len(parts) < total:
            return None
        whole = b"".join(parts[i] for i in range(total))
        self._drop(key)
        return whole

    def _expire(self, now: float) -> None:
        for key in [k for k, s in self._sets.items() if now - s.born > self._keep]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self._held -= sum(map(len, self._sets.pop(key).parts.values()))


def _count(text: str, missing: int) -> int:
    if not text:
        return missing
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("a fragment counter is not a number")
    return int(text)
