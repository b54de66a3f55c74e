"""The process: an app that serves until a signal, and leaves even when something hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable

from bot.app import App, open_app
from bot.settings import Settings

log = logging.getLogger(__name__)

Leave = Callable[[int], object]
"""Ends the process at once with this exit code."""


async def run(settings: Settings, leave: Leave, *, while_stdin_is_open: bool = False) -> None:
    """Run until SIGTERM or SIGINT; a second one leaves at once. `while_stdin_is_open`:
    also until whoever holds the other end of standard input is gone."""
    app = await open_app(settings)
    if while_stdin_is_open:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), _read_stdin, app, loop)
    await serve_until_stopped(app, leave)


async def serve_until_stopped(app: App, leave: Leave) -> None:
    """What hangs would hold the end of the loop as well, and a thread that of the
    interpreter: then the process is left as it stands, with everything on disk that the
    next start needs."""
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, _stop, app, leave)
    try:
        await app.serve()
        log.info("stopping")
    finally:
        if not await app.close():
            log.error("closing hangs, perhaps the disk: leaving; the next start goes on from here")
            leave(1)


def _stop(app: App, leave: Leave) -> None:
    """The first signal drains; at the second, what is left is the next start's work."""
    if app.stopping:
        log.warning("leaving at once")
        leave(1)
    app.stop()


def _read_stdin(app: App, loop: asyncio.AbstractEventLoop) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        app.stop()
