"""The bytes of one answer: SSE events or one JSON object (reference/models.md 1.5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from adapters.playground.deepseek.answer import Shape
from adapters.playground.deepseek.asked import Asked
from adapters.playground.deepseek.plan import Channel, Plan
from bot.contract import Clock

Json = dict[str, Any]


def usage_of(answer: Plan, prompt: int, hit: int, *, thinking: bool) -> Json:
    """The usage object; `hit` tokens of `prompt` were cached."""
    completion = answer.tokens()
    usage: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": hit},
    }
    if thinking:
        usage["completion_tokens_details"] = {"reasoning_tokens": answer.tokens("reasoning")}
    return usage | {"prompt_cache_hit_tokens": hit, "prompt_cache_miss_tokens": prompt - hit}


class Frames:
    """The JSON of one answer."""

    def __init__(self, asked: Asked, answer_id: str, created: int) -> None:
        self._asked = asked
        self._head = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": asked.model,
            "system_fingerprint": "fp_playground_prod0820_fp8_kvcache_20260402",
        }

    def first(self) -> Json:
        """The role; both keys are there while thinking, one of them null."""
        delta: Json = {"role": "assistant", "content": ""}
        if self._asked.thinking:
            delta = {"role": "assistant", "content": None, "reasoning_content": ""}
        return self._chunk(delta)

    def piece(self, channel: Channel, piece: str) -> Json:
        if not self._asked.thinking:
            return self._chunk({"content": piece})
        if channel == "reasoning":
            return self._chunk({"content": None, "reasoning_content": piece})
        return self._chunk({"content": piece, "reasoning_content": None})

    def last(self, finish: str, usage: Json | None) -> Json:
        delta: Json = {"content": ""}
        if self._asked.thinking:
            delta["reasoning_content"] = None
        chunk = self._chunk(delta, finish)
        return chunk if usage is None else chunk | {"usage": usage}

    def usage_alone(self, usage: Json) -> Json:
        return self._head | {"choices": [], "usage": usage}

    def whole(self, answer: Plan, usage: Json) -> Json:
        """The object of an answer that does not stream."""
        message: Json = {"role": "assistant", "content": answer.text}
        if self._asked.thinking:
            message["reasoning_content"] = answer.reasoning
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": usage}

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._head | {"choices": [choice]}
        return chunk | {"usage": None} if self._asked.include_usage else chunk


class Pipe:
    """A response that is written bit by bit, in the shape that was ordered."""

    def __init__(self, request: web.Request, shape: Shape, trace: str, *, sse: bool) -> None:
        kind = "text/event-stream; charset=utf-8" if sse else "application/json"
        headers = {"Content-Type": kind, "x-ds-trace-id": trace, "Cache-Control": "no-cache"}
        self.response = web.StreamResponse(headers=headers)
        self._request, self._shape, self._sse = request, shape, sse
        self._held: list[bytes] = []

    async def open(self) -> None:
        await self.response.prepare(self._request)

    async def event(self, value: Json) -> None:
        await self.line("data: " + json.dumps(value, ensure_ascii=False))

    async def line(self, text: str) -> None:
        """One event or comment with its blank line."""
        end = "\r\n" if self._shape.crlf else "\n"
        block = (text + end + end).encode("utf-8", "surrogatepass")
        if self._shape.joined and len(self._held) < 3:
            self._held.append(block)
            return
        await self.flush(block)

    async def flush(self, block: bytes = b"") -> None:
        block = b"".join([*self._held, block])
        self._held.clear()
        at = _inside(block) if self._shape.split else 0
        for part in (block[:at], block[at:]):
            if part:
                await self.response.write(part)
                await asyncio.sleep(0)

    async def wait(self, clock: Clock, seconds: float) -> None:
        """Keep-alive comments, or empty lines, while nothing is said."""
        while seconds > 0:
            step = min(seconds, self._shape.keep_alive)
            await clock.sleep(step)
            seconds -= step
            if self._sse:
                await self.line(": keep-alive")
            else:
                await self.response.write(b"\n")

    def reset(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _inside(block: bytes) -> int:
    """A place in the middle of a character when there is a wide one."""
    wide = next((at for at, byte in enumerate(block) if byte >= 0xC0), None)
    return len(block) // 2 if wide is None else wide + 1
