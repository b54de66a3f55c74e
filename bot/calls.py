"""The calls of the month: counted as they are made, kept in the store, held against the
caps of the settings (needs.md 25).

A count lies in memory for at most FLUSH_EVERY seconds, and one after a pause is written at
once: a process that is killed forgets that much of a busy moment and nothing of a quiet
one, so that a program which dies at every start still sees what its starts cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field

from bot.contract import CallCount, CallKind, Clock, Json, TurnStore
from bot.errors import StoreError
from bot.month import Level, forecast, level_of, month_of, worst
from bot.tasks import to_the_end

log = logging.getLogger(__name__)

FLUSH_EVERY = 3.0
"""Seconds between two writes."""

LOOK_EVERY = 60.0
"""Seconds after which the store is asked although nothing was counted: other processes
count into it too, and months end."""

BELIEVED = 3_600.0
"""Seconds for which the platform's word that a quota is used up is taken for true. Then one
answer is tried: the organisation may have bought more."""

Caps = Mapping[CallKind, int]
"""What a platform bills apart, and the most of it in a month; 0 is no cap."""

Row = tuple[str, str, CallKind, str]
"""bot, month, kind and API of a count."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one account of a bot stands this month. `refused`: the platform says that it is
    used up. `apis`: the calls by API."""

    bot: str
    month: str
    kind: CallKind
    used: int
    cap: int
    forecast: int
    level: Level
    refused: bool
    apis: Json = field(default_factory=dict)

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)


class Calls:
    """`caps` holds every bot."""

    def __init__(self, store: TurnStore, caps: Mapping[str, Caps], clock: Clock) -> None:
        self._store, self._caps, self._clock = store, caps, clock
        self._stored: Counter[Row] = Counter()
        self._pending: Counter[Row] = Counter()
        self._writing: Counter[Row] = Counter()
        self._refused: dict[tuple[str, CallKind, str], float] = {}
        self._stirred = asyncio.Event()

    # ------------------------------------------------------------ counting

    def meter(self, bot: str) -> BotMeter:
        return BotMeter(self, bot)

    def count(self, bot: str, api: str, kind: CallKind) -> None:
        self._pending[bot, month_of(self._clock.time()), kind, api] += 1
        self._stirred.set()

    def used_up(self, bot: str, kind: CallKind) -> None:
        """Its first word counts: what is refused while that is believed does not prolong it."""
        if self.refused(bot, kind):
            return
        log.warning("%s: the platform says that this month's calls are used up: %s", bot, kind)
        month = month_of(self._clock.time())
        self._refused[bot, kind, month] = self._clock.monotonic()
        self._stirred.set()

    # ------------------------------------------------------------ how it stands

    def standing(self, bot: str, kind: CallKind) -> Standing:
        now = self._clock.time()
        month, cap = month_of(now), self._caps[bot].get(kind, 0)
        apis: Counter[str] = Counter()
        for counts in (self._stored, self._writing, self._pending):
            for (whose, when, what, api), count in counts.items():
                if (whose, when, what) == (bot, month, kind):
                    apis[api] += count
        used, refused = apis.total(), self.refused(bot, kind)
        level: Level = "spent" if refused else level_of(used, cap)
        most = forecast(used, now)
        return Standing(bot, month, kind, used, cap, most, level, refused, dict(apis))

    def standings(self, bot: str) -> tuple[Standing, ...]:
        return tuple(self.standing(bot, kind) for kind in self._caps[bot])

    def limited(self, bot: str) -> bool:
        """Whether any account of it can be used up, as far as we know."""
        if any(self._caps[bot].values()):
            return True
        return bool(self._refused) and any(self.refused(bot, kind) for kind in self._caps[bot])

    def level(self, bot: str) -> Level:
        """That of the account that is used up most."""
        return worst([standing.level for standing in self.standings(bot)])

    def api_spent(self, bot: str) -> bool:
        return self.limited(bot) and self.standing(bot, "api").level == "spent"

    def refused(self, bot: str, kind: CallKind, within: float = BELIEVED) -> bool:
        """Whether the platform said in the last `within` seconds that nothing is left. The
        next month has a quota of its own."""
        at = self._refused.get((bot, kind, month_of(self._clock.time())))
        return at is not None and self._clock.monotonic() - at < within

    # ------------------------------------------------------------ keeping

    async def flush(self) -> None:
        """Write what is new and read what there is, our own and that of other processes.
        Raises StoreError; nothing is forgotten then."""
        month = month_of(self._clock.time())
        self._writing, self._pending = self._pending, Counter()
        more = tuple(CallCount(*row, count) for row, count in self._writing.items())
        try:
            found = await self._store.count_calls(more, month)
        except StoreError:
            self._pending += self._writing
            raise
        else:
            self._stored = Counter({(c.bot, c.month, c.kind, c.api): c.count for c in found})
        finally:
            self._writing = Counter()

    async def run(self, look: Callable[[], Awaitable[None]]) -> None:
        """Keep the counts until cancelled; `look` is called after each time."""
        while True:
            await self._stir()
            try:
                await to_the_end(self.flush())
                await look()
            except StoreError as error:
                log.warning("calls not counted in the store yet: %s", error)
            except Exception:
                log.exception("the month's calls could not be looked at")
            await self._clock.sleep(FLUSH_EVERY)

    async def _stir(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(LOOK_EVERY):
                await self._stirred.wait()
        self._stirred.clear()

    async def close(self) -> None:
        """The last counts."""
        try:
            await self.flush()
        except StoreError as error:
            log.warning("%d calls stay uncounted: %s", self._pending.total(), error)


@dataclass(frozen=True, slots=True)
class BotMeter:
    """A bot.contract.Meter."""

    calls: Calls
    bot: str

    def count(self, api: str, kind: CallKind = "api") -> None:
        self.calls.count(self.bot, api, kind)

    def used_up(self, kind: CallKind = "api") -> None:
        self.calls.used_up(self.bot, kind)
