"""The control socket: a command asks the process that holds the store (design.md 8).

HTTP with JSON over a Unix socket of mode 0600, so the owner of the data folder and
nobody else. GET /status, /live, /why/{id}; POST /resend/{turn}, /backup {"path": …}.
What cannot be done is {"error": "中文 / English"} with a status of 400 or more.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from adapters.console.replies import CLOSING, WrongRequest, json_reply, tell_errors
from adapters.console.socket_file import bind_private, identity, remove, short_name
from bot.contract import Json, Operator
from bot.errors import BorderError, PermissionDenied, SettingsError, Transient, Uncertain

log = logging.getLogger(__name__)

SOCKET = "queqiao.sock"
"""Its name in the data folder."""

ANSWER_LIMIT = 64 << 20
"""Most bytes of an answer."""

NOBODY = {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK, errno.ENOTDIR}

Action = Callable[[web.Request], Awaitable[Json]]


class Control:
    """Serves `operator` at the socket file `path`."""

    def __init__(self, path: Path, operator: Operator) -> None:
        self._path, self._operator = path, operator
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._file = (0, 0)

    async def start(self) -> None:
        """Raises SettingsError when another process listens there. Where the file system
        takes no sockets, the bot runs without one, and the log says so."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            bound = bind_private(self._path)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SettingsError([_in_use(self._path)]) from error
            log.warning("%s", _no_socket(self._path, error))
            return
        self._file = identity(self._path)
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=CLOSING)
        await self._runner.setup()
        assert self._runner.server is not None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self._runner.server, sock=bound)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            remove(self._path, self._file)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[tell_errors], client_max_size=1 << 16)
        app.router.add_get("/status", _told(self._status))
        app.router.add_get("/live", _told(self._live))
        app.router.add_get("/why/{id:.+}", _told(self._why))
        app.router.add_post("/resend/{turn}", _told(self._resend))
        app.router.add_post("/backup", _told(self._backup))
        return app

    async def _status(self, request: web.Request) -> Json:
        return await self._operator.status()

    async def _live(self, request: web.Request) -> Json:
        return await self._operator.live()

    async def _why(self, request: web.Request) -> Json:
        return await self._operator.why(request.match_info["id"])

    async def _resend(self, request: web.Request) -> Json:
        return await self._operator.resend(request.match_info["turn"])

    async def _backup(self, request: web.Request) -> Json:
        return await self._operator.backup(_path_in(await request.read()))


def _told(action: Action) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return json_reply(await action(request))

    return handler


def _path_in(body: bytes) -> str:
    """The path in the body; whole, because the two processes may stand in different
    folders. Raises WrongRequest."""
    try:
        asked: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        asked = None
    path = asked.get("path") if isinstance(asked, dict) else None
    if not isinstance(path, str) or not Path(path).is_absolute() or "\0" in path:
        raise WrongRequest(
            '需要 {"path": "/完整/路径"} / needs {"path": "…"}, a path that starts with /'
        )
    return path


def _in_use(path: Path) -> str:
    return (
        f"QUEQIAO_DATA: 另一个鹊桥正在使用 {path.parent}，请先停止它或换一个数据目录 "
        f"/ another Queqiao uses {path.parent}; stop it first or choose another data folder"
    )


def _no_socket(path: Path, error: OSError) -> str:
    why = error.strerror or type(error).__name__
    return (
        f"无法建立控制套接字 {path}（{why}）：机器人照常运行，"
        "但 queqiao status 等命令问不到它 "
        f"/ no control socket ({why}): the bot runs, but commands such as queqiao status "
        "cannot reach it"
    )


# ---------------------------------------------------------------- the other end


async def ask(
    socket_path: Path | str,
    method: str,
    path: str,
    json: Json | None = None,
    *,
    timeout: float | None = 30.0,
) -> Json:
    """What the process behind the socket answers. `path` is a URL's path, its parts
    quoted by the caller; `timeout` in seconds.

    Raises Transient when nobody listens there (nothing runs), PermissionDenied when the
    socket belongs to somebody else, Uncertain when the process gives no whole answer,
    and BorderError with the process's own sentence and the HTTP status as its code when
    it refuses.
    """
    try:
        with short_name(Path(socket_path)) as name:
            async with asyncio.timeout(timeout):
                status, raw = await _request(name, method, path, json)
    except TimeoutError as error:
        raise Uncertain(
            f"机器人 {timeout:.0f} 秒没有回应 / no answer within {timeout:.0f} seconds"
        ) from error
    except OSError as error:
        raise _unreached(error, Path(socket_path)) from error
    except aiohttp.ClientError as error:
        raise _cut(error) from error
    answer = _object(raw)
    if answer is None:
        raise Uncertain(f"回应无法识别 / unreadable answer: HTTP {status}")
    if status >= 400:
        raise BorderError(str(answer.get("error") or f"HTTP {status}"), code=str(status))
    return answer


async def _request(name: str, method: str, path: str, json: Json | None) -> tuple[int, bytes]:
    url = URL(f"http://queqiao{path}", encoded=True)
    body = None if json is None else orjson.dumps(json)
    forever = aiohttp.ClientTimeout(total=None, sock_connect=None)
    connector = aiohttp.UnixConnector(path=name)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=forever) as session,
        session.request(method, url, data=body, allow_redirects=False) as response,
    ):
        raw = bytearray()
        async for block in response.content.iter_any():
            raw += block
            if len(raw) > ANSWER_LIMIT:
                raise aiohttp.ClientPayloadError("over the limit")
        return response.status, bytes(raw)


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _unreached(error: OSError, path: Path) -> BorderError:
    if error.errno in NOBODY:
        return Transient(
            f"机器人没有在运行（{path} 没有进程应答）/ the bot is not running: nobody at {path}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(
            f"无权访问 {path}，请用运行机器人的那个用户执行 "
            f"/ no permission for {path}; run this as the user who runs the bot"
        )
    return _cut(error)


def _cut(error: Exception) -> Uncertain:
    why = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
    return Uncertain(f"与机器人的连接中断（{why}）/ the bot broke off ({why})")
