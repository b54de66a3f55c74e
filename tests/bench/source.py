"""A model service as lean as can be: answers by a script, and notes when it was asked,
when it wrote and when its caller hung up.

The simulator of the playground says more about a service, but would itself be what is
measured at 25,000 chunks a second. Events are as DeepSeek writes them (reference/models.md
1.5), one in each HTTP chunk.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Self, cast

HEAD = {
    "id": "5f0f2ac1-4a3b-4c3c-9d0f-2f1c2b7a9d10",
    "object": "chat.completion.chunk",
    "created": 1_790_000_000,
    "model": "deepseek-flash",
    "system_fingerprint": "fp_bench_prod0820_fp8_kvcache_20260402",
}
USAGE = {"prompt_tokens": 20, "completion_tokens": 400, "total_tokens": 420}
OPENING = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\n\r\n"
)
TICK = 0.004
"""Seconds between two looks at what is due."""
ENDING = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Script:
    """How an answer is given: `chunks` times `piece`, the first after `first` seconds, each
    further one `pace` seconds later; the finish comes together with the last."""

    chunks: int
    first: float = 0.0
    pace: float = 0.0
    piece: str = "鹊桥"

    @property
    def text(self) -> str:
        return self.piece * self.chunks

    @property
    def seconds(self) -> float:
        return self.first + self.pace * (self.chunks - 1)


def event(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    """One HTTP chunk with one event."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    value = {**HEAD, "choices": [choice], **more}
    return chunked(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(eq=False, slots=True)
class Stream:
    """One request and its answer. All moments are time.time(); 0 while they have not come.
    `cut_at`: the caller hung up before the end."""

    script: Script
    asked_at: float
    body: bytes
    first_at: float = 0.0
    last_at: float = 0.0
    cut_at: float = 0.0
    said: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)


class _Connection(asyncio.Protocol):
    """Serves one request at a time, as HTTP/1.1 without pipelining."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._got = bytearray()
        self._stream: Stream | None = None
        self._piece = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._source.transports.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._source.transports.discard(self._transport)
        self._source.live.discard(self)
        if self._stream is not None:
            self._stream.cut_at = time.time()
            self._stream.over.set()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, separator, body = self._got.partition(b"\r\n\r\n")
        if separator and len(body) >= _length(bytes(head)):
            self._got = bytearray()
            self._answer(bytes(body))

    def _answer(self, body: bytes) -> None:
        script = self._source.script
        self._stream = stream = Stream(script, time.time(), body)
        self._source.asked(stream)
        self._piece = event({"content": script.piece})
        self._transport.write(OPENING + event({"role": "assistant", "content": ""}))
        self.due = time.monotonic() + script.first
        self._source.live.add(self)

    def say(self) -> None:
        """The next chunk is due."""
        stream = self._stream
        assert stream is not None
        stream.said += 1
        if stream.said >= stream.script.chunks:
            self._finish(stream)
            return
        if stream.said == 1:
            stream.first_at = time.time()
        self._transport.write(self._piece)
        self.due += stream.script.pace

    def _finish(self, stream: Stream) -> None:
        stream.last_at = time.time()
        stream.first_at = stream.first_at or stream.last_at
        last = event({"content": ""}, "stop", usage=USAGE)
        done = chunked(b"data: [DONE]\n\n")
        self._transport.write(self._piece + last + done + ENDING)
        self._stream = None
        self._source.live.discard(self)
        stream.over.set()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


class Source:
    """Listens on an ephemeral port of 127.0.0.1; the address is `base_url`."""

    api_key = "sk-bench"

    def __init__(self) -> None:
        self.script = Script(2)
        self.streams: list[Stream] = []
        self.transports: set[asyncio.Transport] = set()
        self.live: set[_Connection] = set()
        self._came = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, backlog=1024
        )
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._ticking = asyncio.create_task(self._tick(), name="source")
        return self

    async def _tick(self) -> None:
        """One timer for all: one for each chunk would cost more than the chunks."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for connection in [one for one in self.live if one.due <= now]:
                connection.say()

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()
        self._server.close()
        for transport in list(self.transports):
            transport.abort()

    def asked(self, stream: Stream) -> None:
        self.streams.append(stream)
        self._came.set()

    async def stream(self, number: int, seconds: float = 30.0) -> Stream:
        """The `number`th request ever. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.streams) <= number:
                self._came.clear()
                await self._came.wait()
        return self.streams[number]
