"""bot/pace.py: who may call when. Traffic of whole bots in explicit time, checked with
counters and a scheduler of the tests' own; then the tasks that wait, on a hand-moved clock."""

from __future__ import annotations

import asyncio
import gc
import heapq
import itertools
import random
import weakref
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache

import pytest

from adapters.playground.clock import VirtualClock
from bot.budget import CUT, FLOOR, LOST, RESERVE, SKEW, Bucket, Request
from bot.contract import Charge, Window
from bot.errors import RateLimited
from bot.pace import Pacer, Priority, Scheduler

API = (Window(50, 1.0), Window(1000, 60.0))
CHAT = (Window(5, 1.0),)
CARD = (Window(10, 1.0),)
DING_API = (Window(20, 1.0),)
DING_CARD = (Window(1, 0.5),)
NEVER = float("-inf")
CROWDS = (1, 5, 30, 100, 500)
LIFE = 30.0
SECONDS = 140.0
LIVES = (None, LIFE)


# ---------------------------------------------------------------- the world


@dataclass(frozen=True, slots=True)
class Grant:
    asked: float
    at: float
    priority: Priority
    charges: tuple[Charge, ...]
    owner: object = None

    def uses(self, bucket: str) -> bool:
        return any(charge.bucket == bucket for charge in self.charges)


@dataclass(slots=True)
class Waiting:
    asked: float
    charges: tuple[Charge, ...]
    owner: object
    then: Callable[[], None]


@dataclass
class World:
    """Events in the order of their time; the scheduler is woken when it says so."""

    scheduler: Scheduler = field(default_factory=Scheduler)
    now: float = 0.0
    grants: list[Grant] = field(default_factory=list)
    waiting: dict[Request, Waiting] = field(default_factory=dict)
    wakes: int = 0
    after_each: Callable[[], None] | None = None
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), what))

    def ask(
        self,
        *charges: Charge,
        priority: Priority = Priority.UPDATE,
        shown_at: float = NEVER,
        owner: object = None,
        then: Callable[[], None] = lambda: None,
    ) -> Request:
        request = self.scheduler.ask(charges, priority, shown_at, self.now)
        self.waiting[request] = Waiting(self.now, charges, owner, then)
        self.settle()
        return request

    def withdraw(self, request: Request) -> None:
        self.scheduler.withdraw(request)
        self.waiting.pop(request, None)
        self.settle()

    def settle(self) -> None:
        for request in self.scheduler.run(self.now):
            one = self.waiting.pop(request)
            self.grants.append(Grant(one.asked, self.now, request.priority, one.charges, one.owner))
            one.then()
        if self.after_each is not None:
            self.after_each()

    def run(self, until: float) -> None:
        while True:
            alarm = self.scheduler.next_at()
            event = self._events[0][0] if self._events else float("inf")
            moment = min(event, float("inf") if alarm is None else alarm)
            if moment > until:
                break
            assert alarm is None or alarm > self.now, "woken without end"
            self.now = max(self.now, moment)
            if event <= self.now:
                heapq.heappop(self._events)[2]()
            else:
                self.wakes += 1
            self.settle()
        self.now = until


def calls(grants: list[Grant]) -> dict[str, list[float]]:
    """When each bucket was used."""
    times: dict[str, list[float]] = defaultdict(list)
    for grant in grants:
        for charge in grant.charges:
            times[charge.bucket].append(grant.at)
    return times


def excess(grants: list[Grant], travel: Callable[[], float] = lambda: 0.0) -> list[str]:
    """Windows exceeded as a strict server counts: any `limit` + 1 calls in a closed
    interval of `seconds`, at the moment that they arrive."""
    windows = {charge.bucket: charge.windows for grant in grants for charge in grant.charges}
    found = []
    for bucket, sent in calls(grants).items():
        arrived = sorted(at + travel() for at in sent)
        for window in windows[bucket]:
            pairs = zip(arrived, arrived[window.limit :], strict=False)
            if any(last - first <= window.seconds for first, last in pairs):
                found.append(f"{bucket}: {window}")
    return found


# ---------------------------------------------------------------- bots at work


@dataclass(frozen=True, slots=True)
class Platform:
    """What the steps of one reply cost; see `charges` of the sinks under adapters."""

    pace: float
    frames: str
    windows: tuple[Window, ...]
    steps: Callable[[int, int], dict[str, tuple[Charge, ...]]]


def feishu_steps(card: int, chat: int) -> dict[str, tuple[Charge, ...]]:
    def api(name: str) -> Charge:
        return Charge(f"feishu/{name}", API)

    mine = Charge(f"feishu/card/{card}", CARD)
    return {
        "open": (api("create"), api("send"), Charge(f"feishu/chat/{chat}", CHAT)),
        "first": (api("content"), api("update"), mine),
        "update": (api("content"), mine),
        "finish": (api("update"), api("settings"), mine, mine),
    }


def dingtalk_steps(card: int, chat: int) -> dict[str, tuple[Charge, ...]]:
    def api(name: str) -> Charge:
        return Charge(f"dingtalk/{name}", DING_API)

    mine = Charge(f"dingtalk/card/{card}", DING_CARD)
    return {
        "open": (api("create"),),
        "first": (api("update"), mine, api("stream")),
        "update": (mine, api("stream")),
        "finish": (api("update"), mine, api("stream")),
    }


FEISHU = Platform(0.3, "feishu/content", API, feishu_steps)
DINGTALK = Platform(1.0, "dingtalk/stream", DING_API, dingtalk_steps)
PLATFORMS = {"feishu": FEISHU, "dingtalk": DINGTALK}
RTT = 0.1


class Bot:
    """`size` people who ask again as soon as they are answered; every card has always
    something new to show. `life` is how long an answer grows; None: for ever."""

    def __init__(
        self, world: World, platform: Platform, size: int, seed: int, life: float | None
    ) -> None:
        self.world, self.platform, self.size, self.life = world, platform, size, life
        self.dice = random.Random(seed)
        self.cards = 0
        self.asked_finals = 0
        self.gaps: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for person in range(size):
            world.at(self.dice.random(), lambda person=person: self.open(person))

    def open(self, person: int) -> None:
        self.cards += 1
        steps = self.platform.steps(self.cards, person // 3)
        life = float("inf") if self.life is None else self.life * self.dice.uniform(0.2, 2.0)
        Life(self, person, steps, self.world.now + life).go("open", Priority.FIRST)


@dataclass
class Life:
    """One card from its opening to its end, as bot/reply.py leads it."""

    bot: Bot
    person: int
    steps: dict[str, tuple[Charge, ...]]
    ends_at: float
    shown_at: float = NEVER

    def go(self, step: str, priority: Priority) -> Request:
        after = {"open": self.opened, "finish": self.finished}.get(step, self.shown)
        world = self.bot.world
        return world.ask(
            *self.steps[step],
            priority=priority,
            shown_at=self.shown_at,
            owner=self.person,
            then=lambda: world.at(world.now + RTT, after),
        )

    def opened(self) -> None:
        self.go("first", Priority.FIRST)

    def shown(self) -> None:
        world = self.bot.world
        if self.shown_at > NEVER:
            self.bot.gaps[self.person].append((self.shown_at, world.now))
        self.shown_at = world.now
        world.at(world.now + self.bot.platform.pace, self.update)

    def update(self) -> None:
        """The end of the answer finds the card waiting and takes the wait back."""
        if self.bot.world.now >= self.ends_at:
            return self.finish()
        request = self.go("update", Priority.UPDATE)
        if self.ends_at < float("inf"):
            self.bot.world.at(self.ends_at, lambda: self.cut_short(request))
        return None

    def cut_short(self, request: Request) -> None:
        if request in self.bot.world.waiting:
            self.bot.world.withdraw(request)
            self.finish()

    def finish(self) -> None:
        self.bot.gaps[self.person].append((self.shown_at, self.bot.world.now))
        self.bot.asked_finals += 1
        self.go("finish", Priority.FINAL)

    def finished(self) -> None:
        self.bot.open(self.person)


@cache
def worked(platform: str, size: int, life: float | None = None, seconds: float = SECONDS) -> Bot:
    bot = Bot(World(), PLATFORMS[platform], size, seed=size, life=life)
    bot.world.run(seconds)
    return bot


every_crowd = pytest.mark.parametrize("size", CROWDS)
every_platform = pytest.mark.parametrize("platform", PLATFORMS)


@every_crowd
@every_platform
@pytest.mark.parametrize("life", LIVES)
def test_no_window_is_ever_exceeded(platform: str, size: int, life: float | None):
    grants = worked(platform, size, life).world.grants
    dice = random.Random(size)
    assert grants
    assert excess(grants) == []
    assert excess(grants, lambda: dice.uniform(0.02, 0.02 + SKEW)) == []


@every_crowd
@every_platform
def test_finals_wait_no_longer_than_their_own_queue(platform: str, size: int):
    bot = worked(platform, size, LIFE)
    finals = [grant for grant in bot.world.grants if grant.priority is Priority.FINAL]
    waiting = [one for one in bot.world.waiting if one.priority is Priority.FINAL]
    assert len(finals) + len(waiting) == bot.asked_finals > 0
    assert all(final.at <= bound + 1e-3 for final, bound in bounds(bot.world.grants))


def bounds(grants: list[Grant]) -> Iterator[tuple[Grant, float]]:
    """When each final would go if, from the moment it was asked for, nothing went but the
    finals asked for before it: a scheduler of the simplest kind, one at a time."""
    others = calls([grant for grant in grants if grant.priority is not Priority.FINAL])
    placed: dict[str, list[float]] = defaultdict(list)
    moment = 0.0
    finals = [grant for grant in grants if grant.priority is Priority.FINAL]
    for final in sorted(finals, key=lambda grant: (grant.asked, grant.at)):
        counts = Counter(charge.bucket for charge in final.charges)
        moment = max(moment, final.asked)
        for charge in (*final.charges, *final.charges):
            before = others[charge.bucket][: bisect_right(others[charge.bucket], final.asked)]
            made = sorted(before + placed[charge.bucket])
            for window in charge.windows:
                moment = max(moment, room_at(made, window, counts[charge.bucket], moment))
        for name, need in counts.items():
            placed[name] += [moment] * need
        yield final, moment


def room_at(made: list[float], window: Window, need: int, now: float) -> float:
    """When `need` more calls fit into a window that already has those `made`."""
    span = window.seconds + SKEW
    counted = made[bisect_left(made, now - span + 1e-6) :]
    over = len(counted) + need - max(need, window.limit)
    return counted[over - 1] + span if over > 0 else now


@every_crowd
@every_platform
@pytest.mark.parametrize("life", LIVES)
def test_every_card_is_shown_as_often_as_the_budget_bears(
    platform: str, size: int, life: float | None
):
    """p95 of each card: 1.25 × max(own pace, N/R) + one round trip, while R > 0."""
    bot = worked(platform, size, life)
    urgent = sorted(
        grant.at
        for grant in bot.world.grants
        if grant.uses(bot.platform.frames) and grant.priority is not Priority.UPDATE
    )
    judged = 0
    for gaps in bot.gaps.values():
        late = 0
        for start, end in gaps:
            rate = least_rate(urgent, bot.platform.windows, start, end)
            if rate > 0:
                judged += 1
                late += end - start > 1.25 * max(bot.platform.pace, size / rate) + RTT + 1e-6
        assert late <= 0.05 * len(gaps)
    assert judged >= size / 2


def least_rate(urgent: list[float], windows: tuple[Window, ...], start: float, end: float) -> float:
    """The least R(t) between the two moments: what the tightest window leaves per second
    after finals and first frames, counted over the window or the gap, if that is longer."""
    rates = []
    for moment in [start + step for step in range(int(end - start) + 1)] + [end]:
        for window in windows:
            span = max(window.seconds, end - start)
            used = bisect_right(urgent, moment) - bisect_right(urgent, moment - span)
            rates.append(window.limit / window.seconds - used / span)
    return min(rates)


@every_platform
@pytest.mark.parametrize("size", [30, 100, 500])
def test_nine_tenths_of_the_budget_are_used(platform: str, size: int):
    bot = worked(platform, size)
    used = [at for at in calls(bot.world.grants)[bot.platform.frames] if 80 <= at < 140]
    limit = min(w.limit / w.seconds for w in bot.platform.windows)
    assert len(used) >= 0.9 * 60 * limit


@pytest.mark.parametrize("size", [30, 100])
def test_a_long_window_is_not_burnt_at_its_start(size: int):
    """Every five seconds, the first minute included, bring half of their share."""
    used = calls(worked("feishu", size).world.grants)["feishu/content"]
    per_stretch = Counter(int(at / 5) for at in used)
    assert min(per_stretch[stretch] for stretch in range(28)) >= 0.5 * 5 * 1000 / 60


@pytest.mark.parametrize("size", [1, 5])
def test_few_cards_keep_their_own_pace(size: int):
    gaps = itertools.chain.from_iterable(worked("feishu", size).gaps.values())
    assert max(end - start for start, end in gaps) == pytest.approx(FEISHU.pace + RTT)


@every_platform
@pytest.mark.parametrize("size", [19, 21, 22, 25, 30, 45, 50, 130])
def test_cards_that_come_at_once_are_not_shown_in_lumps(platform: str, size: int):
    """Those that do not fit into one second's lump would wait for the next but one."""
    world = World()
    bot = Bot(world, PLATFORMS[platform], 0, seed=size, life=None)
    bot.size = size
    for person in range(size):
        world.at(1.0, lambda person=person: bot.open(person))
    world.run(SECONDS)
    rate = min(w.limit / w.seconds for w in bot.platform.windows)
    bound = 1.25 * max(bot.platform.pace, size / rate) + RTT + 1e-6
    for gaps in bot.gaps.values():
        settled = [end - start for start, end in gaps if start > 70.0]
        assert sum(gap > bound for gap in settled) <= 0.05 * len(settled)
        assert settled
    used = [at for at in calls(world.grants)[bot.platform.frames] if 80 <= at < 140]
    busy = min(rate, size / (bot.platform.pace + RTT))
    assert len(used) >= 0.9 * 60 * busy


def test_a_wave_of_finals_finds_room_although_updates_would_use_it_all():
    api = Charge("api", API)
    world = World()

    def again() -> None:
        world.at(
            world.now + 0.3, lambda: world.ask(api, shown_at=world.now, owner="card", then=again)
        )

    for _ in range(50):
        world.at(0.0, again)
    for _ in range(40):
        world.at(150.0, lambda: world.ask(api, priority=Priority.FINAL, owner="final"))
    world.run(152.0)
    finals = [grant.at for grant in world.grants if grant.owner == "final"]
    assert len(finals) == 40
    assert max(finals) < 150.0 + 1.0 + SKEW + 0.01


def test_updates_step_aside_when_urgent_calls_need_it_all():
    """16 urgent calls a second leave nothing of 1000 a minute: updates that come then do
    not burst into the room that is left, but do not stop either."""
    api = Charge("api", API)
    world = World()
    for step in range(900):
        world.at(step / 16, lambda: world.ask(api, priority=Priority.FINAL))
    for _ in range(60):
        world.at(55.0, lambda: world.ask(api, owner="card"))
    world.run(58.0)
    assert 1 <= sum(grant.owner == "card" for grant in world.grants) <= 20


def test_the_work_is_bounded_by_the_grants():
    world = worked("feishu", 500, LIFE).world
    assert world.wakes < 2 * len(world.grants)


# ---------------------------------------------------------------- rank and lines


def fill(world: World, *charges: Charge) -> int:
    """Ask until nothing more fits now; returns how much did."""
    count = 0
    while True:
        request = world.ask(*charges, priority=Priority.FINAL)
        if request.granted_at is None:
            world.withdraw(request)
            return count
        count += 1


def test_most_urgent_first_then_stalest_then_first_come():
    world = World()
    one = Charge("api", (Window(1, 1.0),))
    assert fill(world, one) == 1
    for owner, priority, shown_at in (
        ("fresh", Priority.UPDATE, 9.0),
        ("stale", Priority.UPDATE, 3.0),
        ("first a", Priority.FIRST, 9.0),
        ("first b", Priority.FIRST, 3.0),
        ("final a", Priority.FINAL, 9.0),
        ("final b", Priority.FINAL, 3.0),
    ):
        world.ask(one, priority=priority, shown_at=shown_at, owner=owner)
    world.run(30.0)
    order = [grant.owner for grant in world.grants[1:]]
    assert order == ["final a", "final b", "first a", "first b", "stale", "fresh"]


def test_several_charges_go_together_or_not_at_all():
    world = World()
    a, b = Charge("a", (Window(1, 1.0),)), Charge("b", (Window(1, 1.0),))
    fill(world, b)
    both = world.ask(a, b, priority=Priority.FIRST)
    assert both.granted_at is None
    assert world.ask(a).granted_at == 0.0, "what waits for b holds nothing of a"
    world.run(5.0)
    assert both.granted_at == pytest.approx(1.0 + SKEW)


@pytest.mark.parametrize("need", [2, 3, 4])
def test_the_last_room_is_kept_for_the_more_urgent_who_needs_more(need: int):
    world = World()
    api = Charge("api", (Window(need, 1.0),))
    for step in range(need):
        world.at(step * 0.2, lambda: world.ask(api))
    world.at(0.9, lambda: world.ask(*[api] * need, priority=Priority.FINAL, owner="final"))
    for step in range(20):
        world.at(0.75 + need * 0.2 + step * 0.2, lambda: world.ask(api, shown_at=world.now))
    world.run(4.0)
    assert world.grants[need].owner == "final"
    assert world.grants[need].at == pytest.approx((need - 1) * 0.2 + 1.0 + SKEW)


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.55])
@pytest.mark.parametrize("priority", [Priority.FINAL, Priority.UPDATE])
def test_nobody_starves_between_two_full_buckets(shift: float, priority: Priority):
    """a and b are free at different moments and always taken at once by those who need
    only one of them; 20 that need both go as fast as the two buckets bear."""
    world = World()
    charges = {name: Charge(name, (Window(10, 1.0),)) for name in "ab"}

    def again(name: str) -> None:
        def then() -> None:
            world.at(world.now + 0.001, lambda: again(name))

        world.ask(charges[name], shown_at=world.now, then=then)

    for _ in range(30):
        world.at(0.0, lambda: again("a"))
        world.at(shift, lambda: again("b"))
    for _ in range(20):
        world.at(
            5.0,
            lambda: world.ask(*charges.values(), priority=priority, shown_at=-1.0, owner="both"),
        )
    world.run(20.0)
    both = [grant.at for grant in world.grants if grant.owner == "both"]
    assert len(both) == 20
    assert max(both) <= 5.0 + 3 * (1.0 + SKEW)
    assert all(final.at <= bound + 1e-3 for final, bound in bounds(world.grants))
    assert excess(world.grants) == []


def test_nobody_starves_between_two_buckets_that_are_never_full_at_once():
    world = World()
    a, b = (Charge(name, (Window(1, 1.0),)) for name in "ab")
    world.ask(a)
    world.at(0.5, lambda: world.ask(a, b, priority=Priority.FINAL, owner="final"))
    for step in range(20):
        world.at(0.6 + step, lambda: world.ask(b, shown_at=world.now))
        world.at(1.2 + step, lambda: world.ask(a, shown_at=world.now))
    world.run(30.0)
    final = next(grant for grant in world.grants if grant.owner == "final")
    assert final.at == pytest.approx(0.6 + 1.0 + SKEW)


@pytest.mark.parametrize("crowded", [False, True])
def test_a_closed_chat_holds_up_nobody_else(crowded: bool):
    """200 openings and 50 finals in a chat that is closed for 30 s change nothing for the
    others, be the shared buckets full or not."""

    def others(blocked: bool) -> list[Grant]:
        world = World()
        bot = Bot(world, FEISHU, 100 if crowded else 4, seed=7, life=5.0)
        send, chat = Charge("feishu/send", API), Charge("closed", CHAT)
        if blocked:
            world.scheduler.refused("closed", 30.0, 0.0)
            for step in range(250):
                priority = Priority.FINAL if step % 5 == 0 else Priority.FIRST
                world.at(step * 0.02, lambda p=priority: world.ask(send, chat, priority=p))
        world.run(29.9)
        assert bot.cards > bot.size
        assert len(world.waiting) >= 250 * blocked
        return world.grants

    assert others(blocked=True) == others(blocked=False)


def test_a_crowd_in_one_chat_holds_up_nobody_else():
    """The chat bears 5 a second and the crowd waits its turn; the shared bucket was full
    when it came, but has room for all others."""
    world = World()
    send, chat = Charge("send", (Window(20, 1.0),)), Charge("crowded", CHAT)
    fill(world, send)
    for _ in range(100):
        world.at(0.1, lambda: world.ask(send, chat, priority=Priority.FIRST))
    for step in range(120):
        world.at(0.2 + step * 0.09, lambda: world.ask(send, priority=Priority.FIRST, owner="other"))
    world.run(12.0)
    others = [grant for grant in world.grants if grant.owner == "other"]
    assert len(others) == 120
    assert max(grant.at - grant.asked for grant in others) <= 1.0 + SKEW
    assert max(grant.at - grant.asked for grant in others if grant.asked > 2.0) < 0.5


def test_an_own_bucket_that_opens_soon_does_not_hold_the_shared_one():
    world = World()
    shared, card = Charge("shared", (Window(2, 1.0),)), Charge("card", (Window(1, 0.5),))
    world.ask(shared, card)
    final = world.ask(shared, card, priority=Priority.FINAL)
    assert world.ask(shared).granted_at == 0.0
    world.run(3.0)
    assert final.granted_at == pytest.approx(1.0 + SKEW)


@pytest.mark.parametrize("seed", range(12))
def test_random_traffic_against_an_oracle(seed: int):
    """After every event: whoever shares no bucket with a better rank, and fits by a
    count of our own, has been granted. In the end all were, or withdrew."""
    dice = random.Random(seed)
    world = World()
    charges = [
        Charge(f"b{number}", (Window(dice.randint(2, 6), dice.choice([0.5, 1.0, 3.0])),))
        for number in range(dice.randint(1, 6))
    ]

    def fits(request: Request, one: Waiting) -> bool:
        counts = Counter(charge.bucket for charge in one.charges)
        made = calls(world.grants)
        return all(
            room_at(made[c.bucket], window, counts[c.bucket], world.now) <= world.now + 1e-6
            for c in one.charges
            for window in c.windows
        )

    def nobody_waits_for_nothing() -> None:
        claimed: set[str] = set()
        for request in sorted(world.waiting):
            names = {charge.bucket for charge in world.waiting[request].charges}
            assert names & claimed or not fits(request, world.waiting[request])
            claimed |= names

    def arrive() -> None:
        wanted = dice.sample(charges, dice.randint(1, min(3, len(charges))))
        wanted += wanted[: dice.randint(0, 1)]
        priority = dice.choice(list(Priority))
        request = world.ask(*wanted, priority=priority, shown_at=dice.random() * world.now)
        if dice.random() < 0.4:
            world.at(world.now + dice.random() * 3, lambda: give_up(request))

    def give_up(request: Request) -> None:
        if request in world.waiting:
            world.withdraw(request)

    world.after_each = nobody_waits_for_nothing
    for _ in range(150):
        world.at(dice.random() * 15, arrive)
    world.run(200.0)
    assert not world.waiting
    assert world.scheduler.next_at() is None
    assert excess(world.grants) == []


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_in_rough_weather(seed: int):
    """Refusals of any bucket at any time: everybody goes in the end, no window is
    exceeded, closed buckets stay closed, and all is forgotten afterwards."""
    dice = random.Random(seed)
    world = World()
    bot = Bot(world, FEISHU, 40, seed, life=4.0)
    closed: dict[str, float] = {}

    def refuse() -> None:
        name = dice.choice(["feishu/content", "feishu/update", "feishu/send", "feishu/chat/3"])
        seconds = dice.uniform(0.1, 5.0)
        closed[name] = max(closed.get(name, 0.0), world.now + seconds)
        world.scheduler.refused(name, seconds, world.now)
        world.settle()

    def closed_is_closed() -> None:
        for grant in world.grants[-50:]:
            if grant.at == world.now:
                assert all(closed.get(c.bucket, 0.0) <= world.now + 1e-6 for c in grant.charges)

    world.after_each = closed_is_closed
    for _ in range(30):
        world.at(dice.random() * 60, refuse)
    world.run(60.0)
    bot.open = lambda person: None  # type: ignore[method-assign]
    world.run(300.0)
    assert not world.waiting
    assert bot.asked_finals == sum(g.priority is Priority.FINAL for g in world.grants)
    assert excess(world.grants) == []
    world.run(900.0)
    assert world.ask(Charge("new", CHAT)).granted_at == 900.0
    assert len(world.scheduler) == 1


# ---------------------------------------------------------------- withdrawing


def test_a_withdrawn_wait_leaves_nothing_behind():
    world = World()
    one = Charge("api", (Window(1, 1.0),))
    fill(world, one)
    first = world.ask(one, priority=Priority.FINAL)
    second = world.ask(one)
    world.withdraw(first)
    world.withdraw(first)
    world.run(1.0 + 2 * SKEW)
    assert second.granted_at == pytest.approx(1.0 + SKEW)
    assert fill(world, one) == 0
    world.withdraw(world.ask(one))
    assert world.scheduler.next_at() is None
    world.run(5.0)
    world.ask(Charge("another", CHAT))
    assert len(world.scheduler) == 1


def test_a_grant_that_was_not_used_is_given_back():
    world = World()
    two = Charge("api", (Window(2, 1.0),))
    granted = world.ask(two, two, priority=Priority.FINAL)
    waiting = world.ask(two)
    assert granted.granted_at == 0.0
    assert waiting.granted_at is None
    world.withdraw(granted)
    assert waiting.granted_at == 0.0
    assert fill(world, two) == 1


def test_what_was_given_back_slows_no_update_down():
    api = Charge("api", API)

    def updates(taken_back: int) -> int:
        world = World()
        for _ in range(taken_back):
            world.withdraw(world.ask(api, priority=Priority.FINAL))
        for step in range(600):
            world.at(5.0 + step * 0.01, lambda: world.ask(api, owner="card"))
        world.run(12.0)
        return sum(grant.owner == "card" for grant in world.grants)

    assert updates(taken_back=400) == updates(taken_back=0) > 100


# ---------------------------------------------------------------- refusals


def test_a_refused_bucket_is_closed_for_as_long_as_was_said():
    world = World()
    api = Charge("api", API)
    world.scheduler.refused("api", 4.0, 0.0)
    world.scheduler.refused("api", 1.0, 0.0)
    final = world.ask(api, priority=Priority.FINAL)
    world.run(20.0)
    assert final.granted_at == pytest.approx(4.0)


def test_a_long_closure_outlives_the_learned_limit():
    world = World()
    world.scheduler.refused("api", 600.0, 0.0)
    world.run(300.0)
    world.ask(Charge("another", CHAT))
    final = world.ask(Charge("api", API), priority=Priority.FINAL)
    world.run(700.0)
    assert final.granted_at == pytest.approx(600.0)


def test_limits_are_learned_down_and_come_back_slowly():
    world = World()
    api = Charge("api", (Window(50, 1.0),))

    def room(seconds: float) -> int:
        world.run(world.now + seconds)
        world.ask(Charge("another", API))  # makes the scheduler look for what to forget
        return fill(world, api)

    assert room(0.0) == 50
    for _ in range(50):
        world.scheduler.refused("api", 0.5, world.now)
    assert room(1.5) == 35, "one incident cuts once"
    world.scheduler.refused("api", 0.5, world.now)
    assert room(1.5) == 24
    for _ in range(20):
        world.scheduler.refused("api", 0.5, world.now)
        world.run(world.now + 2.0)
    lowest = room(0.0)
    assert 50 * FLOOR <= lowest <= 50 * FLOOR + 1
    seen = [room(10.0) for _ in range(40)]
    assert seen == sorted(seen)
    assert all(after - before <= 2 for before, after in itertools.pairwise(seen))
    assert seen[25] < 50
    assert seen[-1] == 50, "the documented limit, not more"


def test_the_least_limit_is_one_and_bears_a_step_of_two_calls():
    world = World()
    card = Charge("card", (Window(3, 1.0),))
    for _ in range(20):
        world.scheduler.refused("card", 0.1, world.now)
        world.run(world.now + 2.0)
    first = world.ask(card, card, priority=Priority.FINAL)
    second = world.ask(card, card, priority=Priority.FINAL)
    assert first.granted_at == world.now
    world.run(world.now + 5.0)
    assert first.granted_at is not None
    assert second.granted_at == pytest.approx(first.granted_at + 1.0 + SKEW)


def test_a_bucket_of_a_minute_is_learned_as_well():
    world = World()
    hook = Charge("webhook", (Window(20, 60.0),))
    world.scheduler.refused("webhook", 1.0, 0.0)
    world.run(1.5)
    assert fill(world, hook) == 14


def test_a_refusal_that_is_over_in_a_moment_says_nothing_about_the_minute():
    world = World()
    world.ask(Charge("api", API))
    world.scheduler.refused("api", 1.0, 0.0)
    assert world.scheduler._buckets["api"].share(0.0) == CUT
    assert world.scheduler._buckets["api"].share(0.0, long=True) == 1.0
    world.scheduler.refused("api", 30.0, 2.0)
    assert world.scheduler._buckets["api"].share(2.0, long=True) == CUT


# ---------------------------------------------------------------- on their way


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lag", [0.05, 0.4, 3.0])
def test_calls_that_arrive_late_exceed_no_window(seed: int, lag: float):
    """Calls leave when a busy loop comes to them, and the server counts them somewhere
    between that and the answer: no window is exceeded there, whatever the lag."""
    dice, world, chat = random.Random(seed), World(), Charge("chat", (Window(5, 1.0),))
    arrived: list[float] = []

    def ask() -> None:
        asked: list[Request] = []
        then = lambda: world.at(world.now, lambda: leave(asked[0]))  # noqa: E731
        asked.append(world.ask(chat, priority=Priority.FIRST, then=then))

    def leave(request: Request) -> None:
        world.scheduler.depart(request)
        answered = world.now + dice.random() * lag
        arrived.append(dice.uniform(world.now, answered))
        world.at(answered, lambda: land(request))

    def land(request: Request) -> None:
        world.scheduler.land(request, world.now)
        world.settle()

    for _ in range(60):
        world.at(dice.random() * 5, ask)
    world.run(300.0)
    times = sorted(arrived)
    assert len(times) == 60
    assert all(late - early > 1.0 for early, late in zip(times, times[5:], strict=False))


def test_a_call_that_never_lands_blocks_nobody_for_ever():
    world = World()
    one = Charge("api", (Window(1, 1.0),))
    world.scheduler.depart(world.ask(one))
    waiting = world.ask(one)
    world.run(LOST - 1.0)
    assert waiting.granted_at is None
    world.run(LOST + 5.0)
    assert waiting.granted_at is not None


def test_a_call_that_left_may_still_be_given_back():
    world = World()
    one = Charge("api", (Window(1, 1.0),))
    first = world.ask(one)
    world.scheduler.depart(first)
    world.run(10.0)
    world.withdraw(first)
    assert world.ask(one).granted_at == 10.0


def test_each_priority_leaves_its_reserve_of_a_long_window():
    world = World()
    names = {priority: f"only {priority.name}" for priority in Priority}
    for step, priority in itertools.product(range(1200), Priority):
        charge = Charge(names[priority], API)
        world.at(step * 0.045, lambda c=charge, p=priority: world.ask(c, priority=p))
    world.run(59.0)
    used = calls(world.grants)
    for priority, reserve in RESERVE.items():
        most = 1000 * (1 - reserve)
        assert 0.97 * most <= len(used[names[priority]]) <= most


# ---------------------------------------------------------------- memory


def test_idle_buckets_are_forgotten():
    world = World()
    seen: list[weakref.ref[Bucket]] = []
    sizes: list[int] = []

    def reply(number: int) -> None:
        steps = feishu_steps(number, number % 50)
        world.ask(*steps["open"], priority=Priority.FIRST)
        world.ask(*steps["first"], priority=Priority.FIRST)
        request = world.ask(*steps["update"], shown_at=world.now)
        world.ask(*steps["finish"], priority=Priority.FINAL)
        seen.extend(weakref.ref(bucket) for bucket, _ in request.needs)
        if number % 3 == 0 and request in world.waiting:
            world.withdraw(request)
        sizes.append(len(world.scheduler))

    world.scheduler.refused("never used", 1.0, 0.0)
    for number in range(1500):
        world.at(number * 0.2, lambda number=number: reply(number))
    world.run(300.0)
    gc.collect()
    assert max(sizes) < 40
    assert len({bucket for ref in seen if (bucket := ref()) is not None}) < 40
    world.run(500.0)
    world.ask(Charge("last", CHAT))
    assert len(world.scheduler) == 1


def test_a_bucket_in_use_is_remembered():
    world = World()
    api = Charge("api", (Window(2, 1.0),))
    world.ask(api)
    world.run(0.9)
    world.ask(api)
    world.run(1.15)
    world.ask(Charge("another", CHAT))
    assert fill(world, api) == 1


# ---------------------------------------------------------------- tasks


class HandClock:
    """Time that the test sets; sleepers sleep until the test wakes them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleepers: list[asyncio.Future[None]] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleepers.append(asyncio.get_running_loop().create_future())
        await self.sleepers[-1]

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[object]:
        raise NotImplementedError


class CountingClock(VirtualClock):
    """How often somebody slept on it."""

    sleeps = 0

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        await super().sleep(seconds)


@contextmanager
def no_task_left() -> Iterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() == before


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


ONE = (Charge("api", (Window(1, 1.0),)),)
OTHER = (Charge("other", (Window(1, 1.0),)),)


async def test_free_calls_are_granted_at_once():
    pacer = Pacer(HandClock())
    with no_task_left():
        await pacer.grant((), Priority.UPDATE, NEVER)
        await pacer.grant(ONE, Priority.UPDATE, NEVER)


async def test_at_once_takes_what_is_free_and_never_waits():
    clock = CountingClock(settle=0.001)
    pacer = Pacer(clock)
    with no_task_left():
        grant = pacer.at_once(ONE, Priority.FINAL, 0.0)
        assert grant is not None
        assert pacer.at_once(ONE, Priority.FINAL, 0.0) is None
        waiting = asyncio.create_task(pacer.grant(ONE, Priority.UPDATE, 0.0))
        await turns()
        assert not waiting.done()
        grant.give_back()
        await turns()
        assert waiting.done(), "what was refused at once claims nothing"


async def test_waiting_tasks_go_one_by_one_in_their_order():
    clock = CountingClock(settle=0.001)
    pacer = Pacer(clock)
    seen: list[tuple[str, float]] = []

    async def one(name: str, priority: Priority) -> None:
        await pacer.grant(ONE, priority, 0.0)
        seen.append((name, clock.monotonic()))

    with no_task_left():
        await pacer.grant(ONE, Priority.FINAL, 0.0)
        names = [("update", Priority.UPDATE), ("first", Priority.FIRST), ("final", Priority.FINAL)]
        async with asyncio.TaskGroup() as group:
            for name, priority in names:
                group.create_task(one(name, priority))
            await clock.advance(10.0)
        await turns()
    assert [name for name, _ in seen] == ["final", "first", "update"]
    expected = [(1.0 + SKEW) * number for number in (1, 2, 3)]
    assert [at for _, at in seen] == pytest.approx(expected)
    assert clock.sleeps <= 6, "no polling"


async def test_a_cancelled_wait_leaves_no_timer_and_no_place_in_the_line():
    clock = VirtualClock(settle=0.001)
    pacer = Pacer(clock)
    with no_task_left():
        await pacer.grant(ONE, Priority.FINAL, 0.0)
        first = asyncio.create_task(pacer.grant(ONE, Priority.FINAL, 0.0))
        second = asyncio.create_task(pacer.grant(ONE, Priority.UPDATE, 0.0))
        await turns()
        first.cancel()
        await clock.advance(1.0 + 2 * SKEW)
        assert first.cancelled()
        assert second.done()
        third = asyncio.create_task(pacer.grant(ONE, Priority.UPDATE, 0.0))
        await turns()
        third.cancel()
        await turns()


async def test_a_grant_to_a_task_that_is_being_cancelled_is_given_back():
    clock = HandClock()
    pacer = Pacer(clock)
    await pacer.grant(ONE, Priority.FINAL, 0.0)
    stopped = asyncio.create_task(pacer.grant(ONE, Priority.FINAL, 0.0))
    await turns()
    clock.now = 2.0
    await pacer.grant(OTHER, Priority.UPDATE, 0.0)  # the pacer looks at the time
    stopped.cancel()
    await turns()
    assert stopped.cancelled()
    await asyncio.wait_for(pacer.grant(ONE, Priority.UPDATE, 0.0), 5.0)


async def test_a_task_cancelled_just_before_its_grant_passes_it_on():
    clock = HandClock()
    pacer = Pacer(clock)
    await pacer.grant(ONE, Priority.FINAL, 0.0)
    stopped = asyncio.create_task(pacer.grant(ONE, Priority.FINAL, 0.0))
    waiting = asyncio.create_task(pacer.grant(ONE, Priority.UPDATE, 0.0))
    await turns()
    clock.now = 2.0
    stopped.cancel()
    await pacer.grant(OTHER, Priority.UPDATE, 0.0)
    await turns()
    assert stopped.cancelled()
    assert waiting.done()
    waiting.result()


async def test_there_is_one_timer_and_it_follows_the_next_turn():
    clock = CountingClock(settle=0.001)
    pacer = Pacer(clock)
    minute = (Charge("minute", (Window(1, 60.0),)),)
    with no_task_left():
        waiting = []
        for charges in (minute, ONE):
            await pacer.grant(charges, Priority.FINAL, 0.0)
            for _ in range(20):
                waiting.append(asyncio.create_task(pacer.grant(charges, Priority.FINAL, 0.0)))
            await turns()
        assert clock.sleeps == 2, "the later turns need no timer of their own"
        await clock.advance(1.0 + 2 * SKEW)
        assert [task.done() for task in waiting].index(True) == 20
        for task in waiting:
            task.cancel()
        await turns()


async def test_a_refusal_moves_the_wake_up():
    clock = VirtualClock(settle=0.001)
    pacer = Pacer(clock)
    await pacer.grant(ONE, Priority.FINAL, 0.0)
    waiting = asyncio.create_task(pacer.grant(ONE, Priority.FINAL, 0.0))
    await clock.advance(0.5)
    pacer.refused("api", 3.0)
    await clock.advance(2.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.done()


async def test_a_call_beside_the_replies_waits_for_its_room():
    """And a refusal of it closes the bucket for those behind it."""
    clock = VirtualClock(settle=0)
    pacer, one, made = Pacer(clock), Charge("marks", (Window(2, 1.0),)), []

    async def call(number: int) -> None:
        async with pacer.room(one):
            made.append((number, clock.monotonic() - start))
            if number == 3:
                raise RateLimited("too fast", retry_after=10.0)

    start = clock.monotonic()
    calls = [asyncio.create_task(call(number)) for number in range(6)]
    await clock.advance(9.0)
    calls[4].cancel()
    await clock.advance(9.0)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [number for number, _ in made] == [0, 1, 2, 3, 5]
    assert all(at == 0.0 for _, at in made[:2]) and 1.0 <= made[2][1] < 2.0
    assert made[4][1] - made[3][1] == pytest.approx(10.0, abs=0.2)
    assert [type(end).__name__ for end in ends[3:]] == ["RateLimited", "CancelledError", "NoneType"]


async def test_live_cards_as_tasks():
    """The same rules through tasks: 20 cards that show and end on one clock."""
    clock = CountingClock(settle=0.0)
    pacer = Pacer(clock)
    grants: list[Grant] = []

    async def call(charges: tuple[Charge, ...], priority: Priority, shown_at: float) -> None:
        asked = clock.monotonic()
        await pacer.grant(charges, priority, shown_at)
        grants.append(Grant(asked, clock.monotonic(), priority, charges))
        await clock.sleep(RTT)

    async def live(number: int) -> None:
        steps = feishu_steps(number, number // 3)
        await call(steps["open"], Priority.FIRST, NEVER)
        await call(steps["first"], Priority.FIRST, NEVER)
        for _ in range(10):
            shown_at = clock.monotonic()
            await clock.sleep(FEISHU.pace)
            await call(steps["update"], Priority.UPDATE, shown_at)
        await call(steps["finish"], Priority.FINAL, NEVER)

    with no_task_left():
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(live(number))
            await clock.advance(120.0)
        await turns()
    assert len(grants) == 20 * 13
    assert excess(grants) == []
    finals = [grant for grant in grants if grant.priority is Priority.FINAL]
    assert max(final.at - final.asked for final in finals) < 1.0
    assert clock.sleeps < 4 * len(grants)
