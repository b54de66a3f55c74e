"""Where a simulator listens: the port stays its own while the network is away."""

from __future__ import annotations

import socket

from aiohttp import web

HOST = "127.0.0.1"


class Door:
    """One port of 127.0.0.1, chosen by setup()."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._site: web.TCPSite | None = None
        self._kept: socket.socket | None = None
        self.port = 0

    async def setup(self) -> None:
        await self._runner.setup()
        await self.open()

    async def open(self) -> None:
        site = web.TCPSite(self._runner, HOST, self.port)
        await site.start()
        self._site, self.port = site, int(self._runner.addresses[0][1])
        self._let_go()

    async def shut(self) -> None:
        """Cut every connection; new ones are refused."""
        if self._site is None:
            return
        await self._site.stop()
        self._site = None
        self._kept = _bound(self.port)
        server = self._runner.server
        for connection in server.connections if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()

    async def close(self) -> None:
        self._let_go()
        await self._runner.cleanup()

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def _bound(port: int) -> socket.socket:
    """Bound and not listening: nobody else gets the port, and a dial meets a refusal."""
    kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind((HOST, port))
    return kept
