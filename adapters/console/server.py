"""HTTP for whoever watches the process: /healthz (it lives), /readyz (it hears and can
answer, or why not) and /metrics.

A page of another site must not read them through a name that it lets point here (DNS
rebinding): on loopback the Host must be a name of this machine.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from aiohttp import web

from adapters.console.metrics import CONTENT_TYPE, render
from adapters.console.replies import CLOSING, Handler, error_reply, json_reply, tell_errors
from bot.contract import Operator
from bot.errors import SettingsError, StoreError

PATIENCE = 5.0


class Console:
    """Binds `host`:`port`; port 0 takes a free one. An operator that says nothing for
    `patience` seconds is stuck, and so not ready."""

    def __init__(
        self, host: str, port: int, operator: Operator, *, patience: float = PATIENCE
    ) -> None:
        self._host, self._port = host, port
        self._operator, self._patience = operator, patience
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port bound; known after start()."""
        assert self._runner is not None
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Raises SettingsError when the address cannot be bound."""
        app = web.Application(middlewares=[tell_errors, self._guard])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSING)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self.close()
            raise SettingsError([_cannot_bind(self._host, self._port, error)]) from error

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Browsers always send a Host; a probe of HTTP/1.0 may not."""
        if is_local(self._host) and not all(map(is_local, request.headers.getall("Host", []))):
            return error_reply("请用 127.0.0.1 或 localhost 访问 / wrong host", 421)
        return await handler(request)

    async def _healthz(self, request: web.Request) -> web.Response:
        return json_reply({"alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        problems = await self._problems()
        status = 503 if problems else 200
        return json_reply({"ready": not problems, "problems": problems}, status)

    async def _problems(self) -> list[str]:
        try:
            async with asyncio.timeout(self._patience):
                return await self._operator.problems()
        except StoreError as error:
            return [f"存储出了问题 / trouble with the store: {error}"]
        except TimeoutError:
            return ["程序太久没有回应 / the program took too long to answer"]

    async def _metrics(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(self._patience):
            page = render(await self._operator.metrics())
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})


def is_local(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine's name for itself."""
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        name = host.partition(":")[0]
    name = name.rstrip(".").lower()
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _cannot_bind(host: str, port: int, error: OSError) -> str:
    where, why = f"{host}:{port}", error.strerror or type(error).__name__
    return (
        f"QUEQIAO_HTTP: {where} 用不了（{why}），换一个端口，例如 127.0.0.1:0 "
        f"/ cannot listen on {where} ({why}); choose another, for example 127.0.0.1:0"
    )
