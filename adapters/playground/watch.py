"""Looks after the employed bot while a page is open: how it is, and what its turns do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp

from adapters.playground.live import Live, read_live
from adapters.playground.trails import Trails
from bot.contract import Clock

log = logging.getLogger(__name__)

Json = dict[str, Any]
Tell = Callable[[str, str, Json], None]
"""(kind, key, value); a value that is known already is told to nobody."""

KeyOf = Callable[[str, str], str | None]
"""(platform, its id of a chat) to the page's key of that chat."""

EVERY = 0.4
"""Seconds between two looks."""

PATIENCE = 1.0
"""Seconds that one look may take."""

MISSES = 3
"""Looks in a row without an answer after which a bot that had answered counts as silent."""

STARTS = 50
"""The same for a bot that has not answered since it started."""

LARGEST = 8 << 20
"""Most bytes of an answer."""

Lamp = Literal["ready", "troubled", "down", "starting", "silent"]


class Employee(Protocol):
    """The bot's process. `socket`: where its control socket is while it runs. kill() keeps
    it down until start(), which does nothing to one that runs."""

    @property
    def running(self) -> bool: ...

    @property
    def socket(self) -> Path: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Watch:
    """Tells `health` (one value) and `trail` (by chat) after each look. `watched` says
    whether anybody would see it."""

    def __init__(
        self,
        bot: Employee,
        clock: Clock,
        tell: Tell,
        key_of: KeyOf,
        watched: Callable[[], bool],
    ) -> None:
        self._bot, self._clock = bot, clock
        self._tell, self._key_of, self._watched = tell, key_of, watched
        self._live: Live | None = None
        self._misses = 0
        self._was_running = bot.running
        self._trails = Trails()

    # what it knows ----------------------------------------------------------

    @property
    def health(self) -> Json:
        """{lamp, running, problems: [中文 / English]}."""
        problems = list(self._live.problems) if self._live and self._bot.running else []
        return {"lamp": self._lamp(), "running": self._bot.running, "problems": problems}

    def _lamp(self) -> Lamp:
        if not self._bot.running:
            return "down"
        if self._misses >= (STARTS if self._live is None else MISSES):
            return "silent"
        if self._live is None:
            return "starting"
        return "ready" if self._live.ready and not self._live.problems else "troubled"

    @property
    def trails(self) -> dict[str, list[Json]]:
        """By chat key: its newest turns, [{id, message, state, moments: [{at, what,
        detail}]}], the newest last."""
        return self._trails.as_json()

    # looking ------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(self._bot.socket), force_close=True),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        ) as session:
            while True:
                await self._look(session)
                await self._clock.sleep(EVERY)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        self._notice_death()
        if not self._watched():
            return
        live = await self._ask(session) if self._bot.running else None
        if live is None:
            self._misses += 1
        else:
            self._live, self._misses = live, 0
            keyed = [(self._key_of(turn.platform, turn.chat), turn) for turn in live.turns]
            self._trails.take([(key, turn) for key, turn in keyed if key is not None])
        self._tell_all()

    def _notice_death(self) -> None:
        running = self._bot.running
        if self._was_running and not running:
            self._live, self._misses = None, 0
            self._trails.killed(self._clock.time())
        self._was_running = running

    async def _ask(self, session: aiohttp.ClientSession) -> Live | None:
        """None when there is no answer that can be used."""
        try:
            async with session.get("http://bot/live", allow_redirects=False) as response:
                raw = await _body(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.debug("no answer from the bot: %r", error)
            return None
        return read_live(raw)

    def _tell_all(self) -> None:
        self._tell("health", "", self.health)
        for key, turns in self.trails.items():
            self._tell("trail", key, {"chat": key, "turns": turns})


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Raises ValueError when it is too large."""
    raw = bytearray()
    async for block in response.content.iter_any():
        raw += block
        if len(raw) > LARGEST:
            raise ValueError("too large")
    return bytes(raw)
