"""The Date of an answer: a platform tells its own time (design.md 5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.utils import formatdate

from aiohttp import web

from bot.contract import Clock


def dated(clock: Clock) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """For on_response_prepare: answers carry the time of `clock`, not the machine's."""

    async def date(_: web.Request, answer: web.StreamResponse) -> None:
        answer.headers["Date"] = formatdate(clock.time(), usegmt=True)

    return date
