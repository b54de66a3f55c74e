"""pbbp2 frames, byte by byte (reference/feishu.md 2.3). Strict: what a proto2 decoder of the
real server would refuse is refused here."""

from __future__ import annotations

from dataclasses import dataclass, field

CONTROL, DATA = 0, 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_REQUIRED = {1: "SeqID", 2: "LogID", 3: "service", 4: "method"}
_MASK = (1 << 64) - 1


class BadFrame(ValueError):
    """Bytes that are not a Frame."""


@dataclass(slots=True)
class Frame:
    """`headers` keeps order and repetitions. Absent optional fields are empty."""

    seq_id: int
    log_id: int
    service: int
    method: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    payload: bytes = b""
    payload_encoding: str = ""
    payload_type: str = ""
    log_id_new: str = ""

    def header(self, key: str) -> str:
        """The first header of that name, or an empty string."""
        return next((value for name, value in self.headers if name == key), "")


# ---------------------------------------------------------------- writing


def encode(frame: Frame) -> bytes:
    """Required fields are written even when zero."""
    numbers = (frame.seq_id, frame.log_id, frame.service, frame.method)
    out = b"".join(_key(tag, _VARINT) + _varint(n) for tag, n in enumerate(numbers, 1))
    for name, value in frame.headers:
        out += _chunk(5, _chunk(1, name.encode()) + _chunk(2, value.encode()))
    optional = (
        (6, frame.payload_encoding.encode()),
        (7, frame.payload_type.encode()),
        (8, frame.payload),
        (9, frame.log_id_new.encode()),
    )
    return out + b"".join(_chunk(tag, value) for tag, value in optional if value)


def _key(tag: int, wire: int) -> bytes:
    return _varint(tag << 3 | wire)


def _chunk(tag: int, value: bytes) -> bytes:
    return _key(tag, _BYTES) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    number &= _MASK
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# ---------------------------------------------------------------- reading


def decode(data: bytes) -> Frame:
    """Raises BadFrame."""
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    headers: list[tuple[str, str]] = []
    for tag, value in _fields(data):
        if tag == 5 and isinstance(value, bytes):
            headers.append(_header(value))
        elif tag in _REQUIRED and isinstance(value, int):
            numbers[tag] = value
        elif 6 <= tag <= 9 and isinstance(value, bytes):
            texts[tag] = value
        elif tag <= 9:
            raise BadFrame(f"field {tag} has the wrong wire type")
    missing = [name for tag, name in _REQUIRED.items() if tag not in numbers]
    if missing:
        raise BadFrame(f"required fields are missing: {missing}")
    return Frame(
        numbers[1],
        numbers[2],
        _int32(numbers[3]),
        _int32(numbers[4]),
        headers,
        texts.get(8, b""),
        _text(texts.get(6, b"")),
        _text(texts.get(7, b"")),
        _text(texts.get(9, b"")),
    )


def _header(data: bytes) -> tuple[str, str]:
    parts = dict(_fields(data))
    name, value = parts.get(1), parts.get(2)
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise BadFrame("a header without key or value")
    return _text(name), _text(value)


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value, at = _read_value(data, at, key & 7)
        if key >> 3 == 0:
            raise BadFrame("field number 0")
        found.append((key >> 3, value))
    return found


def _read_value(data: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    if wire == _VARINT:
        return _read_varint(data, at)
    if wire == _BYTES:
        size, at = _read_varint(data, at)
    elif wire in (_FIXED32, _FIXED64):
        size = 4 if wire == _FIXED32 else 8
    else:
        raise BadFrame(f"wire type {wire}")
    if at + size > len(data):
        raise BadFrame("cut in the middle of a field")
    return data[at : at + size], at + size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        if at >= len(data):
            raise BadFrame("cut in the middle of a number")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number & _MASK, at
    raise BadFrame("a number of more than ten bytes")


def _int32(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadFrame("a string that is not UTF-8") from None
