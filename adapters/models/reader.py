"""The body of an answer, as JSON objects: an event stream or one JSON text. Pure.

Which of the two it is is decided by its first byte, never by a header: services mislabel
both ways, and some answer in the other mode than the one asked for (reference/models.md
1.1, 1.5, 3).
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import orjson

from adapters.models.sse import SseComment, SseDecoder, SseOverflow
from bot.errors import Transient

log = logging.getLogger(__name__)

TEXT_LIMIT = 8 << 20
"""Most bytes of one JSON text."""

_BLANK = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


class BodyReader:
    """Bytes in, objects out.

    `done`: the end mark was read. `begun`: the answer itself, more than signs of life,
    has begun. `alive`: there were signs of life, as sent while queued. Raises Transient when the
    body cannot be an answer.
    """

    def __init__(self) -> None:
        self.done = self.begun = self.alive = False
        self._kind: Literal["unknown", "events", "json"] = "unknown"
        self._head = b""
        self._text = bytearray()
        self._decoder = SseDecoder()
        self._junk = 0

    @property
    def is_text(self) -> bool:
        """One JSON text, whose pieces cannot be read before its end."""
        return self._kind == "json"

    def feed(self, block: bytes) -> list[dict[str, Any]]:
        """The objects that became complete."""
        if self._kind == "unknown":
            block = self._sniff(block)
        if self._kind == "json":
            self._collect(block)
            return []
        if self._kind == "events":
            return self._events(block, last=False)
        return []

    def end(self) -> list[dict[str, Any]]:
        """The body is over. Raises Transient for a JSON text that is not whole."""
        if self._kind == "json":
            return [self._whole()]
        return [] if self.done else self._events(b"", last=True)

    def _sniff(self, block: bytes) -> bytes:
        """Decide by the first byte that is not blank. Blank lines come while queued; a
        byte order mark may be split."""
        self._head += block
        head = self._head.lstrip(_BLANK)
        if _BOM.startswith(head):
            self._head = head
            self.alive = True
            return b""
        first = head.removeprefix(_BOM).lstrip(_BLANK)[:1]
        if first == b"<":
            raise Transient("a web page instead of an answer", note="model.broken")
        self._kind = "json" if first and first in b'{["' else "events"
        self._head = b""
        return head

    def _collect(self, block: bytes) -> None:
        self.begun = True
        self._text += block
        if len(self._text) > TEXT_LIMIT:
            raise Transient("an answer over the size limit", note="model.broken")

    def _whole(self) -> dict[str, Any]:
        value = _parse(bytes(self._text).removeprefix(_BOM))
        if isinstance(value, str):
            return {"error": value}
        if not isinstance(value, dict):
            raise Transient("the answer broke off inside its JSON", note="model.cut")
        self.done = True
        return value

    def _events(self, block: bytes, *, last: bool) -> list[dict[str, Any]]:
        try:
            items = self._decoder.end() if last else self._decoder.feed(block)
        except SseOverflow as error:
            raise Transient(str(error), note="model.broken") from error
        values = []
        for item in items:
            if isinstance(item, SseComment):
                self.alive = True
            elif not self.done:
                values += self._event(item.data)
        return values

    def _event(self, data: bytes) -> list[dict[str, Any]]:
        """A line that is no JSON object is some gateway's; it is counted and passed over."""
        value = _parse(data)
        if isinstance(value, dict):
            self.begun = True
            return [value]
        if data.strip() == b"[DONE]":
            self.done = True
            return []
        self._junk += 1
        if self._junk == 1:
            log.warning("the model's stream holds an event that is no JSON object; ignored")
        return []


def _parse(raw: bytes) -> Any:
    """The JSON value, or None. Bad UTF-8 inside a text is replaced."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw.decode("utf-8", "replace")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
