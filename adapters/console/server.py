"""HTTP for whoever watches the process: /healthz (it lives) and /readyz (it hears and
can answer, or why not)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from bot.errors import SettingsError

Problems = Callable[[], Awaitable[list[str]]]


class Console:
    """Binds `host`:`port`; port 0 takes a free one."""

    def __init__(self, host: str, port: int, problems: Problems) -> None:
        self._host, self._port = host, port
        self._problems = problems
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port bound; known after start()."""
        assert self._runner is not None
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Raises SettingsError when the address cannot be bound."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError([_cannot_bind(self._host, self._port, error)]) from error

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        problems = await self._problems()
        status = 503 if problems else 200
        return web.json_response({"ready": not problems, "problems": problems}, status=status)


def _cannot_bind(host: str, port: int, error: OSError) -> str:
    where, why = f"{host}:{port}", error.strerror or type(error).__name__
    return (
        f"QUEQIAO_HTTP: {where} 用不了（{why}），换一个端口，例如 127.0.0.1:0 "
        f"/ cannot listen on {where} ({why}); choose another, for example 127.0.0.1:0"
    )
