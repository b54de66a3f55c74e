"""What both doors of the console share: JSON answers, and errors told in words."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from bot.errors import BorderError, Gone, SettingsError, StoreError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADERS = {"Server": "queqiao", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

CLOSING = 2.0
"""Seconds that a request being answered gets when the process stops."""


class WrongRequest(Exception):
    """The request makes no sense; `str(error)` says why, in Chinese and English."""


def json_reply(value: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(value) + b"\n", status=status, content_type="application/json"
    )


def error_reply(why: str, status: int) -> web.Response:
    return json_reply({"error": why}, status)


@web.middleware
async def tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every way out of a handler is an answer; an error is {"error": "中文 / English"}."""
    response = await _answer(request, handler)
    response.headers.update(HEADERS)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return error_reply(_refusal(refusal), refusal.status)
    except WrongRequest as error:
        return error_reply(str(error), 400)
    except (StoreError, TimeoutError, BorderError, SettingsError) as error:
        return error_reply(*_trouble(error))
    except Exception:
        log.exception("%s %s broke", request.method, request.path)
        return error_reply("程序出错了，请看日志 / an error inside; the log has it", 500)


def _refusal(refusal: web.HTTPException) -> str:
    if refusal.status == 404:
        return "没有这个地址 / no such path"
    if refusal.status == 405:
        return "这个地址不接受这种请求 / this path does not take this method"
    return f"请求没有被接受 / request refused: {refusal.reason}"


def _trouble(error: Exception) -> tuple[str, int]:
    """The sentence and the HTTP status of an error that was foreseen."""
    if isinstance(error, StoreError):
        return f"存储出了问题 / trouble with the store: {error}", 503
    if isinstance(error, TimeoutError):
        return "程序太久没有回应 / the program took too long to answer", 503
    if isinstance(error, Gone):
        return str(error), 404
    if isinstance(error, BorderError):
        return f"平台没有接受 / the platform refused: {error}", 502
    return str(error), 400
