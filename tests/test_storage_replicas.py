"""Random schedules of several replicas that sleep, die, leave and come back, many calls at
once: no turn is lost, each ends once and in order, and never do two of them speak for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.playground.clock import START, VirtualClock
from bot.contract import Accepted, Ending, Event, NewTurn, Person, TextPart, Turn
from storage.database import Database
from storage.leases import Lease
from storage.store import SqlTurnStore

LEASE = Lease(seconds=10, beat=2.5, margin=2, most=2)
LANES = 4


@dataclass(eq=False)
class Replica:
    """A program with one task per turn it was handed. `asleep` until a moment: it is
    stopped like by SIGSTOP, and on waking goes on where it was, before its next beat."""

    store: SqlTurnStore
    tasks: dict[str, Turn] = field(default_factory=dict)
    asleep: float = 0.0
    next_beat: float = 0.0

    def run(self, *heads: Turn) -> None:
        for head in heads:
            self.tasks[head.id] = head

    def drop(self, lost: tuple[str, ...]) -> None:
        gone = [id_ for id_, turn in self.tasks.items() if {id_, turn.new.lane} & set(lost)]
        for id_ in gone:
            del self.tasks[id_]

    def working(self) -> tuple[list[str], list[str]]:
        chats = [turn.new.lane for turn in self.tasks.values() if turn.new.kind == "chat"]
        return chats, [id_ for id_, turn in self.tasks.items() if turn.new.kind != "chat"]


class World:
    def __init__(self, seed: int, database: Database, clock: VirtualClock) -> None:
        self.dice = random.Random(seed)
        self.database = database
        self.clock = clock
        self.replicas: list[Replica] = []
        self.lanes: dict[str, list[str]] = {}
        self.accepted: dict[str, NewTurn] = {}
        self.endings: dict[str, str] = {}
        self.counts = {"accept": 0, "twice": 0, "sleep": 0, "die": 0, "leave": 0, "late": 0}

    # ------------------------------------------------------------ what may happen

    async def join(self) -> None:
        self.replicas.append(Replica(SqlTurnStore(self.database, self.clock, LEASE)))
        await self.beat(self.replicas[-1])

    async def beat(self, replica: Replica) -> None:
        chats, outside = replica.working()
        found = await replica.store.beat(chats, outside)
        self.counts["late"] += bool(found.lost)
        replica.drop(found.lost)
        replica.run(*found.heads)
        replica.next_beat = self.clock.monotonic() + LEASE.beat

    async def arrive(self) -> None:
        """An event comes to one replica, or to several at once."""
        kind, lane = (
            self.dice.choice(("chat", "chat", "chat", "command")),
            self.dice.randrange(LANES),
        )
        new = make(f"{self.dice.getrandbits(64):016x}", f"lane-{lane}", kind)
        awake = self.awake()
        if not awake:
            return
        takers = self.dice.sample(awake, min(len(awake), self.dice.choice((1, 1, 1, 2, 3))))
        self.counts["accept"] += 1
        self.counts["twice"] += len(takers) > 1
        fresh = await asyncio.gather(*(self.accept(taker, new) for taker in takers))
        assert sum(fresh) == 1
        self.accepted[new.id] = new

    async def accept(self, replica: Replica, new: NewTurn) -> bool:
        accepted: Accepted = await replica.store.accept(Event(f"b:{new.id}", new, depth=10**6))
        if accepted.head is not None:
            replica.run(accepted.head)
        if accepted.fresh and new.kind != "chat" and accepted.turn is not None:
            replica.run(accepted.turn)
        return accepted.fresh

    async def work(self, replica: Replica) -> None:
        """One task makes one step: begin, or finish and go on with the next."""
        if not replica.tasks:
            return
        id_ = self.dice.choice(sorted(replica.tasks))
        head = replica.tasks[id_]
        if head.new.kind == "chat" and self.dice.random() < 0.4:
            if await replica.store.start(id_, 0) is None:
                replica.tasks.pop(id_, None)
        elif self.dice.random() < 0.2:
            await replica.store.checkpoint(id_, f"by {replica.store.me.id}", "")
        else:
            await self.finish(replica, id_)

    async def finish(self, replica: Replica, id_: str) -> None:
        mine = f"{replica.store.me.id}-{self.dice.getrandbits(32)}"
        head = replica.tasks[id_]
        following = await replica.store.finish(id_, Ending("answered", mine))
        replica.tasks.pop(id_, None)
        if following is not None:
            replica.run(following)
        turn = await replica.store.turn(id_)
        assert turn is not None
        if turn.ending is not None and turn.ended:
            assert self.endings.setdefault(id_, turn.ending.text) == turn.ending.text
            if turn.ending.text == mine:
                others = [r for r in self.replicas if r is not replica and id_ in r.tasks]
                assert not any(other.store.may_speak(head) for other in others)

    def sleep(self, replica: Replica) -> None:
        self.counts["sleep"] += 1
        replica.asleep = self.clock.monotonic() + self.dice.choice((3, 9, 11, 25))

    def awake(self) -> list[Replica]:
        return [r for r in self.replicas if r.asleep <= self.clock.monotonic()]

    # ------------------------------------------------------------ rounds

    async def round(self) -> None:
        await self.clock.advance(self.dice.choice((0, 0.1, 0.5, 2.5)))
        for replica in self.awake():
            chance = self.dice.random()
            if len(self.awake()) > 1 and chance < 0.02:
                self.sleep(replica)
            elif len(self.replicas) > 1 and chance < 0.03:
                self.counts["die"] += 1
                self.replicas.remove(replica)
            elif len(self.replicas) > 1 and chance < 0.04:
                self.counts["leave"] += 1
                self.replicas.remove(replica)
                await replica.store.release()
        while len(self.replicas) < 2 or self.dice.random() < 0.02:
            await self.join()
        await asyncio.gather(*self.moves())
        self.check()

    def moves(self) -> list[Awaitable[None]]:
        """What happens at once: a beat among the steps of tasks, or none although it is
        due, so that who wakes late may go on before it knows."""
        moves: list[Awaitable[None]] = [self.arrive() for _ in range(self.dice.randrange(3))]
        for replica in self.awake():
            if replica.next_beat <= self.clock.monotonic() and self.dice.random() < 0.7:
                moves.append(self.beat(replica))
            moves += [self.work(replica) for _ in range(self.dice.choice((0, 1, 1, 2)))]
        self.dice.shuffle(moves)
        return moves

    def check(self) -> None:
        """At no moment may two replicas speak for the same turn."""
        speakers: dict[str, int] = {}
        for replica in self.replicas:
            for id_, head in replica.tasks.items():
                if replica.store.may_speak(head):
                    speakers[id_] = speakers.get(id_, 0) + 1
        assert all(count == 1 for count in speakers.values())

    async def drain(self) -> None:
        """All wake, nothing new comes: in the end nothing is left."""
        for _ in range(4000):
            await self.clock.advance(0.5)
            for replica in self.replicas:
                replica.asleep = 0.0
                if replica.next_beat <= self.clock.monotonic():
                    await self.beat(replica)
                await self.work(replica)
            self.check()
            if len(self.endings) == len(self.accepted):
                return
        raise AssertionError("turns were left behind")


def make(id_: str, lane: str, kind: str) -> NewTurn:
    return NewTurn(
        id=id_,
        kind=kind,  # type: ignore[arg-type]
        bot="b",
        platform="feishu",
        chat="c",
        chat_kind="group",
        topic="",
        conversation=lane,
        lane=lane,
        sender=Person("p"),
        message_id=id_,
        parts=(TextPart("?"),),
        address={},
        lang="zh",
        asked_at=START,
    )


@pytest.mark.parametrize("seed", range(5))
async def test_random_schedules(tmp_path: Path, seed: int) -> None:
    clock = VirtualClock(settle=0)
    database = Database(tmp_path / "x.db", durable=False, now=clock.time)
    await database.open()
    world = World(seed, database, clock)
    for _ in range(3):
        await world.join()
    for _ in range(200):
        await world.round()
    await world.drain()
    assert world.counts["accept"] > 150 and world.counts["twice"] > 30
    assert world.counts["sleep"] and world.counts["late"] and world.counts["die"]
    rows = await database.run(
        lambda c: c.exec_driver_sql(
            "SELECT id, lane, no, answer, queue FROM turn WHERE kind = 'chat' ORDER BY done"
        ).all()
    )
    for lane in {row[1] for row in rows}:
        numbers = [row[2] for row in rows if row[1] == lane]
        assert numbers == sorted(numbers), "answered out of order"
    assert all(row[4] is None and row[3] == world.endings[row[0]] for row in rows)
    assert {row[0] for row in rows} == {i for i, n in world.accepted.items() if n.kind == "chat"}
    left = await database.run(lambda c: c.exec_driver_sql("SELECT count(*) FROM lane").scalar_one())
    assert left == 0
    await database.close()
