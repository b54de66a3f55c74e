"""Server-sent events, decoded from bytes as they arrive. Pure: no socket, no clock.

The line ends are LF, CRLF and CR, in any mixture and split anywhere between two feeds;
UTF-8 may be split too (data stay bytes until their event is whole). Source:
reference/models.md 1.5, and the event stream format of the HTML standard where that is
silent.
"""

from __future__ import annotations

from typing import NamedTuple

LINE_LIMIT = 4 << 20
"""Most bytes of one line: a model's largest event is far below."""

EVENT_LIMIT = 8 << 20
"""Most bytes of one event's data lines together."""

_BOM = b"\xef\xbb\xbf"


class SseOverflow(Exception):
    """A line or an event is over its limit; the stream cannot be trusted any more."""


class SseEvent(NamedTuple):
    """One dispatched event: its data lines joined by LF, and its `event:` name."""

    data: bytes
    name: str = ""


class SseComment(NamedTuple):
    """A line that begins with a colon; `: keep-alive` is a sign of life, not data."""

    text: str


class SseDecoder:
    """Bytes in, events and comments out, in order; any split gives the same ones."""

    def __init__(self, *, line_limit: int = LINE_LIMIT, event_limit: int = EVENT_LIMIT) -> None:
        self._line_limit = line_limit
        self._event_limit = event_limit
        self._rest = bytearray()
        self._searched = 0
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""

    def feed(self, block: bytes) -> list[SseEvent | SseComment]:
        """What became complete with `block`. Raises SseOverflow."""
        found: list[SseEvent | SseComment] = []
        with_cr = self._after_cr or b"\r" in block
        for line in self._lines(block) if with_cr else self._fed_lines(block):
            self._take(line, found)
        return found

    def end(self) -> list[SseEvent | SseComment]:
        """The stream is over: an event without its blank line counts too, because some
        servers leave it out. Raises SseOverflow."""
        found: list[SseEvent | SseComment] = []
        line, self._rest, self._searched = bytes(self._rest), bytearray(), 0
        self._take(self._without_bom(line), found)
        self._dispatch(found)
        return found

    def _fed_lines(self, block: bytes) -> list[bytes]:
        """The whole lines where LF alone ends them, which is nearly always: in one split,
        because this runs for every word that a model says."""
        lines = block.split(b"\n")
        tail = lines.pop()
        if lines:
            lines[0] = self._without_bom(bytes(self._rest) + lines[0])
            self._rest.clear()
            if len(block) + len(lines[0]) > self._line_limit:
                for line in lines:
                    self._bound(len(line))
        self._rest += tail
        self._searched = len(self._rest)
        self._bound(self._searched)
        return lines

    def _lines(self, block: bytes) -> list[bytes]:
        """The whole lines of `_rest` and `block`; a CR ends its line at once, and an LF
        that then follows, even in a later block, belongs to it."""
        self._rest += block
        rest, begin = self._rest, 0
        lines: list[bytes] = []
        if self._after_cr and rest:
            begin = 1 if rest[0] == 10 else 0
            self._after_cr = False
        while (stop := _line_end(rest, max(begin, self._searched))) >= 0:
            self._bound(stop - begin)
            lines.append(self._without_bom(bytes(rest[begin:stop])))
            begin = stop + 1
            if rest[stop] == 13:
                if begin == len(rest):
                    self._after_cr = True
                elif rest[begin] == 10:
                    begin += 1
        del rest[:begin]
        self._searched = len(rest)
        self._bound(len(rest))
        return lines

    def _bound(self, size: int) -> None:
        if size > self._line_limit:
            raise SseOverflow(f"a line of over {self._line_limit} bytes")

    def _without_bom(self, line: bytes) -> bytes:
        if self._at_start:
            self._at_start = False
            return line.removeprefix(_BOM)
        return line

    def _take(self, line: bytes, found: list[SseEvent | SseComment]) -> None:
        if not line:
            self._dispatch(found)
        elif line.startswith(b"data: "):
            self._add(line[6:])
        else:
            self._take_other(line, found)

    def _take_other(self, line: bytes, found: list[SseEvent | SseComment]) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not field:
            found.append(SseComment(value.decode("utf-8", "replace")))
        elif field == b"data":
            self._add(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")

    def _add(self, value: bytes) -> None:
        self._size += len(value) + 1
        if self._size > self._event_limit:
            raise SseOverflow(f"an event of over {self._event_limit} bytes")
        self._data.append(value)

    def _dispatch(self, found: list[SseEvent | SseComment]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            found.append(SseEvent(data, self._name))
            self._data.clear()
        self._size, self._name = 0, ""


def _line_end(buffer: bytearray, begin: int) -> int:
    """Where the next CR or LF stands, or -1."""
    feed = buffer.find(b"\n", begin)
    carriage = buffer.find(b"\r", begin, feed if feed >= 0 else len(buffer))
    return carriage if carriage >= 0 else feed
