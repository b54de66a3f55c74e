"""What group commit is worth: `python tests/bench/bench_storage.py`.

Prints accepts per second with everybody at once over accepts one after another, both
flushed to disk: a ratio, because the machine's own speed says nothing.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from bot.clock import SystemClock
from bot.contract import Event, NewTurn, Person, TextPart, TurnStore
from storage.store import open_store

COUNT, ROUNDS = 1000, 5


def event(name: str) -> Event:
    new = NewTurn(
        id=name,
        kind="chat",
        bot="b",
        platform="feishu",
        chat="c",
        chat_kind="p2p",
        topic="",
        conversation=name,
        lane=name,
        sender=Person("p"),
        message_id=name,
        parts=(TextPart("x" * 400),),
        address={},
        lang="zh",
        asked_at=0.0,
    )
    return Event(name, new)


async def one_by_one(store: TurnStore, name: str) -> float:
    began = time.perf_counter()
    for number in range(COUNT):
        await store.accept(event(f"{name}-s{number}"))
    return time.perf_counter() - began


async def at_once(store: TurnStore, name: str) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(store.accept(event(f"{name}-b{number}")) for number in range(COUNT)))
    return time.perf_counter() - began


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await open_store(f"sqlite:///{folder}/bench.db", SystemClock())
        ratios = []
        for round_ in range(ROUNDS):
            single = await one_by_one(store, str(round_))
            ratios.append(single / await at_once(store, str(round_)))
        await store.close()
    print(f"accepts: at once / one by one = {median(ratios):.1f} (rounds {ROUNDS} x {COUNT})")


if __name__ == "__main__":
    asyncio.run(main())
