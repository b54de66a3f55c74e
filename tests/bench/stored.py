"""What is remembered costs nothing while it is not asked for: latency with and without a
history, and in a store of many conversations."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bot.clock import SystemClock
from storage import open_store
from tests.bench.house import Seat, seat, until
from tests.bench.overhead import Times, one_round
from tests.bench.source import Script

TURNS = 50

QUIET = 2.0
"""Seconds after which a chat may be written to freely again (reference/feishu.md 5.8)."""

SETTLED = 0.2
"""Seconds after which a reply costs nothing more."""

_COLUMNS = {
    "id": "printf('{tag}-%d-%d', c.n, t.n)",
    "kind": "'chat'",
    "bot": "'feishu'",
    "platform": "'feishu'",
    "chat": "printf('oc_{tag}%d', c.n)",
    "chat_kind": "'p2p'",
    "conversation": "printf('feishu:oc_{tag}%d', c.n)",
    "lane": "printf('feishu:oc_{tag}%d', c.n)",
    "sender": "printf('ou_{tag}%d', c.n)",
    "message_id": "printf('om_{tag}%d-%d', c.n, t.n)",
    "lang": "'zh'",
    "asked_at": ":now - 86400 + t.n",
    "seen_at": ":now - 86400 + t.n",
    "root": "printf('{tag}-%d-%d', c.n, t.n)",
    "state": "'answered'",
    "attempt": "1",
    "done": "t.n",
    "ended_at": ":now - 86400 + t.n + 5",
    "outcome": "'answered'",
    "finish": "'stop'",
    "model": "'deepseek-flash'",
    "prompt_tokens": "100",
    "completion_tokens": "50",
    "delivery": "'delivered'",
    "proof": "'om_x'",
    "person": """'{{"id":"x","name":"人"}}'""",
    "parts": """'[{{"type":"text","text":"鹊桥是什么？"}}]'""",
    "answer": "'是牛郎织女相会的桥。'",
}
"""One ended turn in SQL; `c.n` counts conversations, `t.n` turns of one."""

_NUMBERS = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {most})"


def fill(path: Path, conversations: int, turns: int, tag: str = "old") -> None:
    """Bulk SQL: indexes are dropped meanwhile, and nothing is flushed."""
    database = sqlite3.connect(path, isolation_level=None)
    for words in ("synchronous=OFF", "journal_mode=MEMORY", "cache_size=-200000"):
        database.execute(f"PRAGMA {words}")
    found = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        " AND tbl_name IN ('turn', 'inbox')"
    ).fetchall()
    indexes = found if conversations > 1000 else []
    database.execute("BEGIN")
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    for name, most in (("c", conversations), ("t", turns)):
        database.execute(
            f"CREATE TEMP TABLE {name} AS {_NUMBERS.format(most=most)} SELECT n FROM n"
        )
    values = ", ".join(text.format(tag=tag) for text in _COLUMNS.values())
    database.execute(
        f"INSERT INTO turn ({', '.join(_COLUMNS)}) SELECT {values} FROM c, t", {"now": time.time()}
    )
    database.execute(
        "INSERT INTO inbox (event_key, turn_id, seen_at)"
        " SELECT 'feishu:' || message_id, id, seen_at FROM turn WHERE message_id LIKE ?",
        (f"om_{tag}%",),
    )
    for _, sql in indexes:
        database.execute(sql)
    database.execute("COMMIT")
    database.execute("PRAGMA journal_mode=WAL")
    database.close()


async def make(folder: Path, conversations: int) -> float:
    """A store in `folder`; returns the seconds that filling it took."""
    path = folder / "queqiao.db"
    store = await open_store(f"sqlite:///{path}", SystemClock())
    await store.close()
    start = time.perf_counter()
    if conversations:
        await asyncio.to_thread(fill, path, conversations, TURNS)
    return time.perf_counter() - start


async def measure(conversations: int, rounds: int) -> dict[str, Any]:
    """Times by "empty" and "full", alternating; what filling took; resident memory."""
    found: dict[str, Any] = {"empty": Times(), "full": Times()}
    async with AsyncExitStack() as stack:
        seats: dict[str, Seat] = {}
        for name, count in (("empty", 0), ("full", conversations)):
            folder = tempfile.TemporaryDirectory(
                prefix="queqiao-bench-", ignore_cleanup_errors=True
            )
            path = Path(stack.enter_context(folder))
            found[f"{name} filled"] = await make(path, count)
            seats[name] = await stack.enter_async_context(seat("feishu", "native", path))
            found[f"{name} rss"] = seats[name].program.rss()
        for one in seats.values():
            await one_round(one, Times())
        for _ in range(rounds):
            for name, one in seats.items():
                await one_round(one, found[name])
    return found


async def histories(rounds: int) -> dict[str, Times]:
    """Times of a first question and of one after 50 others, alternating."""
    found = {"none": Times(), "long": Times()}
    with tempfile.TemporaryDirectory(prefix="queqiao-bench-") as name:
        async with seat("feishu", "native", Path(name)) as one:
            chat, person = await _well_known(one)
            for _ in range(rounds):
                await _whole_round(one, found["none"])
                await _whole_round(one, found["long"], (chat, person))
    return found


async def _whole_round(one: Seat, times: Times, who: tuple[Any, Any] | None = None) -> None:
    before = one.program.cpu()
    await one_round(one, times, who)
    await asyncio.sleep(SETTLED)
    times.cpu.append(one.program.cpu() - before)


async def _well_known(one: Seat) -> tuple[Any, Any]:
    """Somebody who has asked 50 times."""
    chat, person = one.newcomer()
    one.source.script = Script(2)
    for number in range(1, TURNS + 1):
        await one.sim.say(chat, person, "问：鹊桥是什么？")
        await until(partial(answered, one, chat, number))
    await asyncio.sleep(QUIET)
    return chat, person


def answered(one: Seat, chat: Any, count: int) -> bool:
    bubbles = one.sim.bot_bubbles(chat)
    return len(bubbles) == count and not bubbles[-1].streaming and bool(bubbles[-1].text)
