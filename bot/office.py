"""What the operator may ask of the running process (bot.contract.Operator)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bot.contract import (
    Backlog,
    ChatPlatform,
    Clock,
    Json,
    Ladder,
    LinkStatus,
    Metric,
    Moment,
    Trouble,
    Turn,
    TurnStore,
)
from bot.deliveries import Deliveries
from bot.errors import BorderError, Gone, StoreError
from bot.gate import Gate
from bot.lanes import Lanes
from bot.model_health import ModelHealth
from bot.report import account_json, backlog_json, gap_json, turn_brief
from bot.report_text import skipped_lines
from bot.saver import Saver
from bot.texts import both
from bot.trail import Trails

STORE_SECONDS = 2.0
"""How long the store may take to answer before it counts as broken."""

LIVE_SECONDS = 0.6
"""The same for the playground, which is asked all the time and waits no more than a second for
an answer."""

WRITE_EVERY = 5.0
"""Seconds for which a write that worked shows that the store works."""

NOBODY = ""
"""The bot in whose name the store is tried; none has this name."""

LISTED = 1000
"""Undelivered answers that are looked through."""

SHOWN = 20
"""Turns that the playground's page is told of."""

Labels = tuple[tuple[str, str], ...]


@dataclass(eq=False)
class Office:
    """Everything that answers come from."""

    store: TurnStore
    platforms: Mapping[str, ChatPlatform]
    lanes: Lanes
    trails: Trails
    deliveries: Deliveries
    model: ModelHealth
    saver: Saver
    gate: Gate
    clock: Clock
    version: str
    started_at: float
    _written: float = float("-inf")

    # ------------------------------------------------------------ health

    async def problems(self) -> list[str]:
        """As bot.contract.Operator."""
        return await self._problems(STORE_SECONDS)

    async def _problems(self, patience: float) -> list[str]:
        return [trouble.words for trouble in await self._red(patience)]

    async def _red(self, patience: float) -> list[Trouble]:
        """What makes the bot not ready; the store may take `patience` seconds."""
        found = [
            Trouble(f"link {name}", _cause(platform.status), bot=name)
            for name, platform in self.platforms.items()
            if not platform.status.hearing
        ]
        if self.model.problem:
            found.append(Trouble("model", self.model.problem))
        found += [_closed(bot) for bot in self.platforms if self.gate.closed(bot)]
        try:
            await self._write(patience)
        except (StoreError, TimeoutError) as error:
            why = str(error) or "timeout"
            words = f"存储不可用（{why}） / the store does not work ({why})"
            found.append(Trouble("store", words))
        return found

    async def troubles(self) -> list[Trouble]:
        """What makes it not ready, and the ways of replying that it may not use."""
        return [*await self._red(STORE_SECONDS), *self._lacks()]

    def _lacks(self) -> list[Trouble]:
        found = []
        for bot in map(self._bot, self.platforms.values()):
            lines = zip(skipped_lines(bot, "zh"), skipped_lines(bot, "en"), strict=True)
            for rung, words in zip(bot["skipped"], lines, strict=True):
                key, calm = f"rung {bot['name']} {rung['name']}", 3_600.0
                found.append(Trouble(key, " / ".join(words), after=0.0, calm=calm, red=False))
        return found

    async def _write(self, patience: float) -> None:
        """A full disk can still be read: only a write shows that the next message could
        be taken. A good one counts for some seconds, whoever looks how often."""
        now = self.clock.monotonic()
        if now - self._written < WRITE_EVERY:
            return
        async with asyncio.timeout(patience):
            await self.store.hear(NOBODY, self.clock.time())
        self._written = now

    async def metrics(self) -> list[Metric]:
        """As bot.contract.Operator."""
        backlog = await self.store.backlog()
        lost = await self.store.undelivered(LISTED) if backlog.undelivered else ()
        unfinished = [turn for turn in lost if _is_lost(turn)]
        cards = self.deliveries.replies.open_cards(unfinished)
        found = [*_counts(backlog), Metric("queqiao_open_cards", cards, "gauge", OPEN)]
        found.append(Metric("queqiao_model_answers", not self.model.problem, "gauge", MODEL))
        for platform in self.platforms.values():
            found += self._of_link(platform)
            found += self._of_month(platform.bot)
        return found

    def _of_month(self, bot: str) -> list[Metric]:
        found = [Metric("queqiao_saving", self.saver.saving(bot), "gauge", SAVING, (("bot", bot),))]
        for standing in self.saver.calls.standings(bot):
            labels = (("bot", bot), ("kind", standing.kind))
            found += [
                Metric("queqiao_api_calls_month", standing.used, "gauge", CALLS, labels),
                Metric("queqiao_api_calls_cap", standing.cap, "gauge", CAP, labels),
                Metric("queqiao_api_calls_forecast", standing.forecast, "gauge", FORECAST, labels),
            ]
        return found

    def _of_link(self, platform: ChatPlatform) -> list[Metric]:
        status = platform.status
        labels = (("bot", platform.bot), ("platform", platform.platform))
        silent = self._silent(status)
        return [
            Metric("queqiao_hearing", float(status.hearing), "gauge", HEARING, labels),
            Metric(
                "queqiao_seconds_since_event",
                -1.0 if silent is None else silent,
                "gauge",
                SILENT,
                labels,
            ),
            Metric("queqiao_reconnects_total", status.reconnects, "counter", RECONNECTS, labels),
        ]

    def _silent(self, status: LinkStatus) -> float | None:
        """Seconds since the last event; None for never."""
        return self.clock.monotonic() - status.last_event if status.last_event else None

    # ------------------------------------------------------------ looking

    async def status(self) -> Json:
        """As bot.contract.Operator."""
        problems = await self.problems()
        undelivered = await self.store.undelivered()
        return {
            "ready": not problems,
            "problems": problems,
            "version": self.version,
            "uptime": self.clock.monotonic() - self.started_at,
            "bots": [self._bot(platform) for platform in self.platforms.values()],
            "backlog": backlog_json(await self.store.backlog()),
            "undelivered": [turn_brief(turn) for turn in undelivered],
            "gaps": [gap_json(gap) for gap in await self.store.gaps()],
            "calls": [call for bot in self.platforms for call in self._calls(bot)],
        }

    def _calls(self, bot: str) -> list[Json]:
        saving = self.saver.saving(bot)
        return [{**s.json, "saving": saving} for s in self.saver.calls.standings(bot)]

    def _bot(self, platform: ChatPlatform) -> Json:
        status = platform.status
        skipped = platform.skipped if isinstance(platform, Ladder) else ()
        return {
            "name": platform.bot,
            "platform": platform.platform,
            "connected": status.hearing,
            "cause": status.why_red,
            "silent": self._silent(status),
            "reconnects": status.reconnects,
            "skipped": [asdict(rung) for rung in skipped],
        }

    async def live(self) -> Json:
        """As bot.contract.Operator."""
        problems = await self._problems(LIVE_SECONDS)
        turns = [self._live(turn) for turn, _ in list(self.trails.recent())[-SHOWN:]]
        return {"ready": not problems, "problems": problems, "turns": turns}

    def _live(self, turn: Turn) -> Json:
        running = self.lanes.find(turn.id)
        moments = self.trails.of(turn.id)
        return {
            "id": turn.id,
            "platform": turn.new.platform,
            "chat": turn.new.chat,
            "message_id": turn.new.message_id,
            "state": "running" if running else _last_state(turn, moments),
            "moments": [asdict(moment) for moment in moments],
        }

    async def why(self, message_id: str) -> Json:
        """As bot.contract.Operator."""
        found = await self.store.accounts(message_id, tuple(self.platforms))
        accounts = [
            account_json(account, self.trails.of(account.turn.id) if account.turn else ())
            for account in found
        ]
        return {"accounts": accounts}

    # ------------------------------------------------------------ doing

    async def resend(self, turn_id: str) -> Json:
        """As bot.contract.Operator. Raises Gone for a turn that is not on the list."""
        listed = await self.store.undelivered(LISTED)
        found = [turn for turn in listed if len(turn_id) >= 8 and turn.id.startswith(turn_id)]
        if len(found) != 1:
            raise Gone(f"没有这条未送达的回答 / no undelivered answer {turn_id[:40]}")
        error: BorderError | None = await self.deliveries.resend(found[0])
        again = await self.store.turn(found[0].id)
        state = again.ending.delivery if again and again.ending else "undelivered"
        return {"delivery": state, "error": str(error) if error else ""}

    async def backup(self, path: str) -> Json:
        """As bot.contract.Operator."""
        await self.store.backup(path)
        return {"path": path, "bytes": await asyncio.to_thread(os.path.getsize, path)}


def _cause(status: LinkStatus) -> str:
    return f"{status.name}: {status.why_red or '没有连接 / not connected'}"


def _is_lost(turn: Turn) -> bool:
    return turn.ending is not None and turn.ending.delivery == "undelivered"


def _closed(bot: str) -> Trouble:
    words = f"{bot}: {both('report.closed').replace(chr(10), ' / ')}"
    return Trouble(f"calls {bot}", words, to_admins=False)


def _last_state(turn: Turn, moments: tuple[Moment, ...]) -> str:
    """The state decided, or where the turn stands when nothing is."""
    decided = [
        moment.detail if moment.what == "decided" else moment.what
        for moment in moments
        if moment.what in ("decided", "stopped", "recalled")
    ]
    return decided[-1] if decided else turn.state


HEARING = "1 when what is said now reaches the bot, as far as can be known."
SILENT = "Seconds since the last event of the application; -1 for never."
RECONNECTS = "Connections that followed a loss."
CALLS = "Calls of the platform counted this month, all processes together."
CAP = "Most calls in a month, as set; 0 is no cap."
FORECAST = "Calls that the month will have seen at its end, at the present pace."
SAVING = "1 while answers are sent sparingly."
OPEN = "Cards on the screen that are not closed: waiting, growing, or not to be closed yet."
MODEL = "0 when the model service lets every question fail, as far as is known."


def _counts(backlog: Backlog) -> list[Metric]:
    return [
        Metric("queqiao_turns_waiting", backlog.waiting, "gauge", "Questions that wait."),
        Metric("queqiao_turns_running", backlog.running, "gauge", "Questions being answered."),
        Metric("queqiao_lanes", backlog.lanes, "gauge", "Lanes with unfinished turns."),
        Metric("queqiao_lane_depth", backlog.deepest, "gauge", "Turns in the deepest lane."),
        Metric("queqiao_oldest_unanswered", backlog.oldest, "gauge", "Epoch seconds; 0 for none."),
        Metric("queqiao_undelivered", backlog.undelivered, "gauge", "Answers not delivered."),
        Metric("queqiao_unconfirmed", backlog.unconfirmed, "gauge", "Answers of unknown fate."),
        Metric("queqiao_redelivered_total", backlog.redelivered, "counter", "Repeated events."),
    ]
