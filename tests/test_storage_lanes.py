"""Lanes against a simple model, with random traffic, restarts and several tasks: every
accepted turn ends exactly once, in order within its lane, and no lane stays behind."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.playground.clock import START, VirtualClock
from bot.contract import Ending, Event, NewTurn, Person, TextPart, Turn, TurnStore
from storage.store import open_store

DEPTH = 4


@dataclass
class Model:
    """What should be: the queue of each lane, and the turn that its task holds."""

    queues: dict[str, deque[str]] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)

    def waiting(self, lane: str) -> deque[str]:
        return self.queues.setdefault(lane, deque())


class Traffic:
    """Random calls, each checked against the model."""

    def __init__(self, seed: int, store: TurnStore) -> None:
        self.dice = random.Random(seed)
        self.store = store
        self.model = Model()
        self.count = 0

    def lane(self) -> str:
        return f"lane-{self.dice.randrange(3)}"

    def make(self, lane: str, kind: str) -> NewTurn:
        self.count += 1
        id_ = f"{self.dice.getrandbits(64):016x}"
        return NewTurn(
            id=id_,
            kind=kind,  # type: ignore[arg-type]
            bot="b",
            platform="feishu",
            chat="c",
            chat_kind="group",
            topic="",
            conversation="conv",
            lane=lane,
            sender=Person(f"p{self.dice.randrange(2)}"),
            message_id=id_,
            parts=(TextPart("?"),),
            address={},
            lang="zh",
            asked_at=START,
        )

    async def step(self) -> None:
        moves = [self.accept, self.accept, self.accept, self.run, self.run, self.run]
        moves += [self.twice, self.aside, self.stop, self.withdraw]
        await self.dice.choice(moves)()

    async def accept(self) -> None:
        new, model = self.make(self.lane(), "chat"), self.model
        queue = model.waiting(new.lane)
        accepted = await self.store.accept(Event(f"b:{new.id}", new, depth=DEPTH))
        assert accepted.fresh and accepted.waiting == len(queue)
        assert accepted.full == (len(queue) >= DEPTH)
        if accepted.full:
            assert accepted.head is None
            model.outside.add(new.id)
            return
        assert (accepted.head is not None) == (new.lane not in model.held)
        queue.append(new.id)
        if accepted.head is not None:
            assert accepted.head.id == new.id
            model.held[new.lane] = new.id

    async def twice(self) -> None:
        known = [*self.model.ended, *self.model.held.values()]
        if known:
            id_ = self.dice.choice(known)
            again = await self.store.accept(Event(f"b:{id_}", self.make(self.lane(), "chat")))
            assert not again.fresh and again.head is None
            assert again.turn is not None and again.turn.id == id_

    async def aside(self) -> None:
        outside = self.model.outside
        if outside and self.dice.random() < 0.7:
            id_ = self.dice.choice(sorted(outside))
            assert await self.store.finish(id_, Ending("answered", "told")) is None
            outside.discard(id_)
            self.model.ended[id_] = "answered"
            return
        new = self.make(self.lane(), "command")
        accepted = await self.store.accept(Event(f"b:{new.id}", new, depth=DEPTH))
        assert accepted.fresh and accepted.head is None and not accepted.full
        outside.add(new.id)

    async def run(self) -> None:
        """One step of a lane's task: start what it holds, or finish it."""
        if not self.model.held:
            return
        lane, id_ = self.dice.choice(sorted(self.model.held.items()))
        if id_ not in self.model.started and self.dice.random() < 0.6:
            started = await self.store.start(id_, 3)
            assert (started is None) == (id_ in self.model.ended)
            if started is not None:
                assert started.turn.attempt == 1
                self.model.started.add(id_)
        else:
            await self.finish(lane, id_)

    async def finish(self, lane: str, id_: str) -> None:
        following = await self.store.finish(id_, Ending("answered", id_))
        model, queue = self.model, self.model.waiting(lane)
        if id_ not in model.ended:
            assert queue[0] == id_, "out of order"
            queue.popleft()
            model.ended[id_] = "answered"
        assert (following.id if following else None) == (queue[0] if queue else None)
        if following is None:
            del model.held[lane]
        else:
            model.held[lane] = following.id
        assert await self.store.finish(id_, Ending("failed")) is None

    async def stop(self) -> None:
        lane, sender = self.lane(), self.dice.choice(["p0", "p1", None])
        if self.dice.random() < 0.6:
            return
        for turn in await self.store.stop_waiting(lane, sender):
            assert sender in (None, turn.new.sender.id)
            self.gone(turn.new.lane, turn.id, "stopped")

    async def withdraw(self) -> None:
        queues = [(lane, id_) for lane, queue in self.model.queues.items() for id_ in queue]
        if not queues:
            return
        lane, id_ = self.dice.choice(queues)
        done = await self.store.withdraw(id_, "recalled")
        assert done == (id_ not in self.model.started)
        if done:
            self.gone(lane, id_, "recalled")

    def gone(self, lane: str, id_: str, state: str) -> None:
        assert id_ not in self.model.started
        self.model.waiting(lane).remove(id_)
        self.model.ended[id_] = state

    def restarted(self, store: TurnStore, left: tuple[Turn, ...]) -> None:
        """The process died: its tasks are gone, the store says what to run."""
        self.store, model = store, self.model
        heads = {lane: queue[0] for lane, queue in model.queues.items() if queue}
        assert {turn.id for turn in left} == set(heads.values()) | model.outside
        assert [turn.no for turn in left] == sorted(turn.no for turn in left)
        for turn in left:
            assert turn.attempt == (1 if turn.id in model.started else 0)
        model.held = heads

    async def drain(self) -> None:
        for lane in list(self.model.held):
            while lane in self.model.held:
                await self.finish(lane, self.model.held[lane])
        for id_ in sorted(self.model.outside):
            await self.store.finish(id_, Ending("answered", "told"))
            self.model.ended[id_] = "answered"


@pytest.mark.parametrize("seed", range(8))
async def test_random_traffic_follows_the_model(tmp_path: Path, seed: int) -> None:
    url, clock = f"sqlite:///{tmp_path}/x.db", VirtualClock()
    store = await open_store(url, clock, durable=False)
    traffic = Traffic(seed, store)
    for _ in range(4):
        for _ in range(60):
            await traffic.step()
        await store.close()
        store = await open_store(url, clock, durable=False)
        traffic.restarted(store, await store.recover())
        for lane, id_ in list(traffic.model.held.items()):
            if id_ in traffic.model.started:
                started = await store.start(id_, 0)
                assert started is not None and started.turn.attempt == 2
                await traffic.finish(lane, id_)
    await traffic.drain()
    assert await store.recover() == ()
    for id_, state in traffic.model.ended.items():
        turn = await store.turn(id_)
        assert turn is not None and turn.state == state
    assert len(traffic.model.ended) > 60
    await store.close()
