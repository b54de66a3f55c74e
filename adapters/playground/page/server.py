"""Serves the page on loopback: static files and one WebSocket.

A page of another site must not be able to drive it: the Host must be this listener's
own (DNS rebinding), and the WebSocket's Origin must be the page itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from adapters.playground.page.feed import Feed, Json
from adapters.playground.scene import Mistake, Scene
from bot.contract import Clock

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
TYPES |= {".svg": "image/svg+xml"}

MESSAGE_LIMIT = 4 << 20
"""Most bytes of one message of the page."""

GATHER = 0.03
"""Seconds in which changes are gathered into one message to the page."""

PORTS_TRIED = 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """Listens on 127.0.0.1:`port`, or on the next port that is free."""

    def __init__(self, scene: Scene, clock: Clock, port: int) -> None:
        self._scene, self._clock, self._wanted = scene, clock, port
        self._runner: web.AppRunner | None = None
        self._sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()
        self._files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir())}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        """Raises OSError when no port could be had."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._index)
        app.router.add_get("/static/{name}", self._static)
        app.router.add_get("/ws", self._socket)
        app.on_shutdown.append(self._hang_up)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        self.port = await self._bind(self._runner)

    async def _bind(self, runner: web.AppRunner) -> int:
        wanted = [self._wanted] if self._wanted == 0 else self._range()
        for port in wanted:
            try:
                await web.TCPSite(runner, "127.0.0.1", port).start()
            except OSError as error:
                log.debug("port %d is taken: %s", port, error)
                continue
            return int(runner.addresses[0][1])
        await runner.cleanup()
        raise OSError(f"no free port from {self._wanted} on")

    def _range(self) -> list[int]:
        return [*range(self._wanted, min(self._wanted + PORTS_TRIED, 65_536)), 0]

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _hang_up(self, app: web.Application) -> None:
        for socket in list(self._sockets):
            await socket.close(code=1001)

    # guards ------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host not in self._hosts():
            return web.Response(status=421, text="wrong host\n")
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            refusal.headers.update(self._headers())
            raise
        if not response.prepared:
            response.headers.update(self._headers())
        return response

    def _hosts(self) -> tuple[str, str]:
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    def _headers(self) -> dict[str, str]:
        sockets = " ".join(f"ws://{host}" for host in self._hosts())
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        )
        return {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-cache",
        }

    # routes -------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return self._file("index.html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        kind = TYPES.get(Path(name).suffix)
        if name not in self._files or kind is None:
            return web.Response(status=404, text="not found\n")
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8")

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Origin") not in {f"http://{host}" for host in self._hosts()}:
            return web.Response(status=403, text="wrong origin\n")
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=MESSAGE_LIMIT)
        await socket.prepare(request)
        self._sockets.add(socket)
        feed = Feed()
        with self._scene.listening(feed.offer):
            await socket.send_json({"type": "hello", "value": self._scene.view()})
            tasks = {asyncio.create_task(self._tell(socket, feed))}
            try:
                await self._listen(socket, tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def _tell(self, socket: web.WebSocketResponse, feed: Feed) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await socket.send_json({"type": "changes", "value": await feed.next()})
                await self._clock.sleep(GATHER)

    async def _listen(self, socket: web.WebSocketResponse, tasks: set[asyncio.Task[None]]) -> None:
        """Orders are done one after the other, but a press waits for the bot's answer,
        and nobody else should."""
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            order = _order(message.data)
            doing = self._answer(socket, order)
            if order.get("do") != "press":
                await doing
                continue
            task = asyncio.create_task(doing)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _answer(self, socket: web.WebSocketResponse, order: Json) -> None:
        answer = await self._do(order)
        with contextlib.suppress(ConnectionError):
            await socket.send_json({"type": "done", "value": answer})

    async def _do(self, order: Json) -> Json:
        """Do what the page asks; `ref` comes back with it."""
        ref = order.get("ref")
        try:
            return {"ref": ref, **await self._obey(order)}
        except Mistake as error:
            return {"ref": ref, "error": str(error)}
        except (KeyError, TypeError) as error:
            return {"ref": ref, "error": f"incomplete: {type(error).__name__}"}

    async def _obey(self, order: dict[str, Any]) -> Json:
        scene, what = self._scene, order.get("do")
        if what == "fault":
            await scene.fault(str(order["name"]))
            return {}
        chat, person = str(order["chat"]), str(order["person"])
        if what == "say":
            text = str(order["text"])
            bot, everybody = bool(order.get("bot")), bool(order.get("all"))
            return {"id": await scene.say(chat, person, text, bot=bot, everybody=everybody)}
        if what == "press":
            pressed = await scene.press(chat, str(order["bubble"]), str(order["block"]), person)
            return {"toast": pressed}
        if what == "recall":
            await scene.recall(chat, str(order["bubble"]), person)
            return {}
        raise Mistake("no such order")


def _order(text: str) -> Json:
    """The JSON object, or an empty one."""
    try:
        order = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return order if isinstance(order, dict) else {}
