"""What group commit is worth: claims with everybody at once beside claims one after
another, both flushed to disk."""

from __future__ import annotations

import asyncio
import tempfile
import time
from statistics import median

from bot.clock import SystemClock
from bot.contract import Event, TextPart, TurnStore
from storage.store import open_store
from tests.asking import asked


def event(name: str) -> Event:
    new = asked(name, name, parts=(TextPart("x" * 400),))
    return Event(name, new)


async def one_by_one(store: TurnStore, name: str, count: int) -> float:
    began = time.perf_counter()
    for number in range(count):
        await store.accept(event(f"{name}-s{number}"))
    return time.perf_counter() - began


async def all_at_once(store: TurnStore, name: str, count: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(store.accept(event(f"{name}-b{number}")) for number in range(count)))
    return time.perf_counter() - began


async def together(count: int, rounds: int = 3) -> tuple[float, float]:
    """Claims a second one after another and all at once, medians of alternating rounds."""
    alone, at_once = [], []
    with tempfile.TemporaryDirectory(prefix="queqiao-bench-") as folder:
        store = await open_store(f"sqlite:///{folder}/bench.db", SystemClock())
        for number in range(rounds):
            alone.append(count / await one_by_one(store, str(number), count))
            at_once.append(count / await all_at_once(store, str(number), count))
        await store.close()
    return median(alone), median(at_once)
