"""Tells whoever runs the bot when it is deaf or cannot answer: once per incident, over
another route than the one that is broken (needs.md 22).

The routes: the log, always; the admins, in a private chat, by a bot that hears; and the
webhook of `alert_url`, if one is set. What was told is forgotten with the process.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bot.contract import ChatPlatform, Clock, Handle, Json, Reach, Snapshot, Trouble
from bot.errors import BorderError, RateLimited, Transient, Uncertain

log = logging.getLogger(__name__)

LOOK_EVERY = 20.0

PATIENCE = 20.0
"""Seconds that one route may take."""

DOUBTS = 3
"""Tries of unknown fate after which a route counts as told."""

LAST_WORD = 600.0
"""Seconds for which the end of an incident is tried to be told."""

HEAD = "⚠️ 鹊桥需要照看 / Queqiao needs attention"

Post = Callable[[Json], Awaitable[None]]
"""Sends one JSON object to the webhook. Raises BorderError; Transient is worth another try."""


class Watched(Protocol):
    async def troubles(self) -> list[Trouble]: ...


@dataclass(slots=True)
class _Incident:
    """Seconds of clock.monotonic(): `since` it began, `seen` last. `begun_at`: seconds since
    the epoch. `told`: the routes that need not be tried again; `doubts`: how often nobody
    knows whether it arrived."""

    trouble: Trouble
    since: float
    seen: float
    begun_at: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    told: set[str] = field(default_factory=set)
    doubts: dict[str, int] = field(default_factory=dict)
    over: bool = False


@dataclass(eq=False)
class Alerts:
    """`admins` are entries as in QUEQIAO_ADMINS; `hide` takes secrets out of a text."""

    watched: Watched
    platforms: Mapping[str, ChatPlatform]
    admins: Collection[str]
    post: Post | None
    hide: Callable[[str], str]
    clock: Clock
    _incidents: dict[str, _Incident] = field(default_factory=dict)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("nobody could be alerted")
            await self.clock.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        troubles = await self.watched.troubles()
        now = self.clock.monotonic()
        for trouble in troubles:
            known = self._incidents.get(trouble.key)
            if known is None or known.over:
                known = _Incident(trouble, now, now, self.clock.time())
                self._incidents[trouble.key] = known
            known.trouble, known.seen = trouble, now
        for key, incident in list(self._incidents.items()):
            if await self._attend(incident, now):
                del self._incidents[key]

    async def _attend(self, incident: _Incident, now: float) -> bool:
        """True when nothing more is to be done about it."""
        trouble, absent = incident.trouble, now - incident.seen
        if absent < trouble.calm:
            if incident.seen - incident.since >= trouble.after:
                await self._tell(incident)
            return False
        if not incident.told or not trouble.red:
            return True
        if not incident.over:
            incident.over = True
            incident.told.discard("webhook")
            incident.doubts.clear()
            log.warning("incident over: %s", trouble.words)
        await self._to_webhook(incident, "over")
        return "webhook" in incident.told or absent > trouble.calm + LAST_WORD

    async def _tell(self, incident: _Incident) -> None:
        if "log" not in incident.told:
            level = logging.ERROR if incident.trouble.red else logging.INFO
            log.log(level, "incident: %s", incident.trouble.words)
            incident.told.add("log")
        await self._to_webhook(incident, "begun")
        for admin in self.admins if incident.trouble.to_admins else ():
            if admin not in incident.told and await self._to_admin(incident, admin):
                incident.told.add(admin)

    # ------------------------------------------------------------ routes

    async def _to_webhook(self, incident: _Incident, state: str) -> None:
        if "webhook" in incident.told:
            return
        body = {
            "program": "queqiao",
            "incident": incident.id,
            "state": state,
            "trouble": incident.trouble.key,
            "text": self.hide(incident.trouble.words),
            "since": incident.begun_at,
        }
        if self.post is None or await self._posted(incident, body):
            incident.told.add("webhook")

    async def _posted(self, incident: _Incident, body: Json) -> bool:
        assert self.post is not None
        return await self._arrived(incident, self.post(body), "webhook") is not None

    async def _to_admin(self, incident: _Incident, admin: str) -> bool:
        """False when it is worth another try."""
        platform, _, person = admin.partition(":")
        text = f"{HEAD}\n{self.hide(incident.trouble.words)}"
        refused = True
        for writer in self._writers(platform, incident.trouble.bot):
            sending = self._write(writer, person, text, incident.id)
            arrived = await self._arrived(incident, sending, admin)
            if arrived:
                return True
            refused = refused and arrived is not None
        return refused

    async def _write(self, bot: str, person: str, text: str, key: str) -> None:
        """Past the journal: the store may be what is broken. Raises BorderError."""

        async def forget(handle: Handle) -> None:
            """The key is the incident's, for as long as the process lives."""

        platform = self.platforms[bot]
        assert isinstance(platform, Reach)
        sink = platform.sink(platform.to_person(person), Handle(key), forget, 1)
        delivery = await sink.finish(Snapshot(text=text, state="answered"))
        if delivery.state != "delivered":
            raise Uncertain("not confirmed")

    def _writers(self, platform: str, broken: str) -> list[str]:
        """The bots of this platform that can write, those that hear first and the broken
        one last: its calls are another way than its connection."""
        able = [p for p in self.platforms.values() if p.platform == platform]
        able.sort(key=lambda p: (p.bot == broken, not p.status.hearing))
        return [p.bot for p in able if isinstance(p, Reach)]

    async def _arrived(
        self, incident: _Incident, sending: Awaitable[None], route: str
    ) -> bool | None:
        """None when it is worth another try, False when it was refused for good. One of
        unknown fate is tried a few times: twice is better than never, and where there is a
        key it is once."""
        try:
            async with self.clock.timeout(PATIENCE):
                await sending
        except (Transient, RateLimited) as error:
            log.info("alert put off, %s: %s", route, error)
            return None
        except (Uncertain, TimeoutError) as error:
            log.info("alert perhaps not seen, %s: %s", route, error)
            incident.doubts[route] = incident.doubts.get(route, 0) + 1
            return True if incident.doubts[route] >= DOUBTS else None
        except BorderError as error:
            log.warning("alert refused, %s: %s", route, error)
            return False
        return True
