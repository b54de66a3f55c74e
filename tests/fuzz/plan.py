"""A seed's schedule: how the house is built, who says what, and what goes wrong when. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import refusals

from adapters.playground.deepseek import Trouble
from adapters.playground.dingtalk import wire as dingtalk
from adapters.playground.faults import Fault
from adapters.playground.feishu import wire as feishu

BUSY = 60.0
"""Seconds in which people write and things go wrong."""

PLATFORMS = ("feishu", "dingtalk")


@dataclass(frozen=True)
class Action:
    """Something at `at` seconds. `words` is its line in the trace, `do` a method of
    house.House with `args`. Actions of one `number` belong to one message."""

    at: float
    words: str
    do: str
    args: tuple[Any, ...] = ()
    number: int = -1


@dataclass(frozen=True)
class Message:
    """A question. `place` is group, topic or p2p."""

    number: int
    platform: str
    place: str
    person: int
    nonce: str
    times: int = 1
    thread_of: int = -1


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides before the first second. `knobs` maps the name of a
    setting or policy (platform.name) to its value."""

    seed: int
    actions: tuple[Action, ...]
    knobs: dict[str, Any] = field(default_factory=dict)

    def without(self, action: Action) -> Plan:
        return replace(self, actions=tuple(a for a in self.actions if a is not action))


def make(seed: int) -> Plan:
    rng = Random(f"plan {seed}")
    knobs = _knobs(rng)
    messages = _messages(rng)
    actions = [_say(rng, message) for message in messages]
    calm = rng.random() < 0.1
    if not calm:
        actions += _steering(
            rng, messages, {m.number: a.at for m, a in zip(messages, actions, strict=True)}
        )
        actions += _faults(rng)
        actions += _model(rng)
        actions += _links(rng)
        actions += _deaths(rng)
        actions += _moods(rng)
    return Plan(seed, tuple(sorted(actions, key=lambda action: action.at)), knobs)


# ---------------------------------------------------------------- how the house is built


def _knobs(rng: Random) -> dict[str, Any]:
    knobs: dict[str, Any] = {
        "feishu.new_event_id": rng.random() < 0.2,
        "feishu.repeat_on_connect": rng.random() < 0.3,
        "feishu.refused_takes_sequence": rng.random() < 0.3,
        "feishu.table_code": rng.choice((230099, 300305)),
        "feishu.card_ready_after": rng.choice((0.0, 0.0, 0.0, 0.4)),
        "feishu.send_seconds": rng.choice((0.0, 0.0, 0.3)),
        "feishu.latency": rng.choice((0.0, 0.02, 0.15)),
        "feishu.fragment_bytes": rng.choice((0, 0, 0, 300)),
        "feishu.missing_scopes": rng.choice(((), (), (), (), ("cardkit:card:write",))),
        "dingtalk.after_finalize": rng.choice(("refuse", "swallow")),
        "dingtalk.redeliver_after": rng.choice(((60.0,), (16.0, 60.0), (16.0, 60.0), ())),
        "dingtalk.keep_without_link": rng.random() < 0.8,
        "dingtalk.missing_scopes": rng.choice(((), (), (), (), ("Card.Instance.Write",))),
        "template": rng.choice(("full", "full", "full", "plain", "none")),
        "chat.lane": rng.choice(("person", "person", "chat")),
        "chat.memory": rng.choice(("chat", "chat", "person")),
        "chat.reasoning": rng.choice(("off", "off", "hidden", "folded")),
        "model.stream": rng.random() < 0.9,
        "model.silence": 30.0,
        "model.first_data": 60.0,
    }
    return knobs


# ---------------------------------------------------------------- who says what


def _messages(rng: Random, least: int = 2) -> list[Message]:
    out: list[Message] = []
    crowd = rng.random() < 0.15
    for number in range(rng.randint(least, 8)):
        platform = rng.choice(PLATFORMS)
        places = ("p2p", "group", "topic") if platform == "feishu" else ("p2p", "group")
        nonce = f"n{rng.getrandbits(16):04x}{number:02d}{rng.choice('ab')}z"
        place = rng.choice(places)
        person = rng.randrange(3)
        if out and crowd:
            platform, place, person = out[0].platform, out[0].place, out[0].person
        earlier = [m.number for m in out if (m.platform, m.place) == (platform, place)]
        thread = rng.choice(earlier) if place == "topic" and earlier and rng.random() < 0.6 else -1
        times = rng.choice((1, 1, 1, 2, 3))
        out.append(Message(number, platform, place, person, nonce, times, thread))
    return out


def _say(rng: Random, message: Message) -> Action:
    at = round(rng.choice((rng.uniform(0, 5), rng.uniform(0, BUSY))), 2)
    again = f", {message.times} times" if message.times > 1 else ""
    where = f"{message.platform} {message.place}"
    words = f"person {message.person} asks {message.nonce} in {where}{again}"
    return Action(at, words, "say", (message,), message.number)


def _steering(rng: Random, messages: list[Message], said: dict[int, float]) -> Iterator[Action]:
    """/stop, buttons, recalls, and events that come again although all is well."""
    for _ in range(rng.choice((0, 0, 1, 2, 3, 4))):
        message = rng.choice(messages)
        at = round(
            said[message.number] + rng.choice((0.01, 0.3, 2.0, 8.0)) * rng.uniform(0.5, 2), 2
        )
        what = rng.choice(("stop", "button", "recall", "recall", "again", "retry", "say"))
        if what == "recall" and message.platform == "feishu":
            yield Action(at, f"{message.nonce} is recalled", "recall", (message,), message.number)
        elif what in ("stop", "say"):
            command = "/stop" if what == "stop" else rng.choice(("/retry", "/status", "[image]"))
            words = f"person {message.person} says {command} where {message.nonce} was asked"
            yield Action(at, words, "command", (message, command), message.number)
        elif what == "again":
            wait = rng.choice((15.0, 60.0, 300.0, 300.0, 3600.0))
            wait = 21_600.0 if wait == 3600.0 and rng.random() < 0.2 else wait
            words = f"the event of {message.nonce} comes again after {wait:.0f} s"
            yield Action(at + wait, words, "again", (message,), message.number)
        else:
            label = "stop" if what == "button" else "retry"
            words = f"the button {label} of {message.nonce} is pressed"
            yield Action(at, words, "press", (message, label), message.number)


# ---------------------------------------------------------------- what goes wrong


def _faults(rng: Random) -> Iterator[Action]:
    for _ in range(rng.choice((0, 1, 2, 3, 4, 6, 8))):
        platform = rng.choice(PLATFORMS)
        routes = refusals.FEISHU if platform == "feishu" else refusals.DINGTALK
        weights = [3 if route in _HOT else 1 for route in routes]
        route = rng.choices(routes, weights)[0]
        name, fault = _fault(rng, platform, route)
        times = rng.choice((1, 1, 1, 2, 3, 5))
        at = round(rng.uniform(0, BUSY), 2)
        words = f"the next {times} of {platform} {route}: {name}"
        yield Action(at, words, "fault", (platform, route, fault, times))


_HOT = {
    *refusals.FEISHU_SENDING,
    *refusals.FEISHU_CARDS,
    *refusals.DINGTALK_CARDS,
    *refusals.DINGTALK_SENDING,
}


def _fault(rng: Random, platform: str, route: str) -> tuple[str, Fault]:
    if rng.random() < 0.5:
        return refusals.of_the_wire(rng)
    return refusals.of_feishu(rng) if platform == "feishu" else refusals.of_dingtalk(rng, route)


_TROUBLES = (
    *("refuse", "html", "drop", "cut", "cut", "cut", "end", "stall", "empty", "interrupted"),
    *("filtered", "error", "garbage", "no_done", "queue"),
)


def _model(rng: Random) -> Iterator[Action]:
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        kind = rng.choice(_TROUBLES)
        trouble = Trouble(
            kind,
            status=rng.choice((400, 401, 402, 422, 429, 500, 503)),
            after=rng.choice((0, 1, 5, 20)),
            seconds=rng.choice((1.0, 20.0, 45.0)),
            retry_after=rng.choice((None, 1.0, 5.0)),
        )
        times = rng.choice((1, 1, 2, 4))
        words = f"the next {times} answers of the model: {kind} after {trouble.after}"
        words += f" ({trouble.status})" if kind == "refuse" else ""
        yield Action(round(rng.uniform(0, BUSY), 2), words, "trouble", (trouble, times))


def _links(rng: Random) -> Iterator[Action]:
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        platform, at = rng.choice(PLATFORMS), round(rng.uniform(0, BUSY), 2)
        what = rng.choice(("cut", "cut", "close", "mute", "half-open", "away", "away", "leave"))
        if what == "away":
            seconds = rng.choice((1.0, 5.0, 20.0, 100.0, 700.0 if rng.random() < 0.2 else 30.0))
            words = f"the network to {platform} is gone for {seconds:.0f} s"
            yield Action(at, words, "away", (platform, seconds))
        else:
            yield Action(at, f"the links to {platform}: {what}", "link", (platform, what))


def _moods(rng: Random) -> Iterator[Action]:
    """Tokens that die early; a chat that takes no messages for a while."""
    if rng.random() < 0.2:
        platform = rng.choice(PLATFORMS)
        at = round(rng.uniform(0, BUSY), 2)
        yield Action(at, f"the tokens of {platform} are revoked", "revoke", (platform,))
    if rng.random() < 0.1:
        code, seconds = rng.choice((230002, 230035, 232009)), rng.choice((5.0, 30.0, 120.0))
        words = f"Feishu's group refuses with {code} for {seconds:.0f} s"
        yield Action(round(rng.uniform(0, BUSY), 2), words, "refuse", (code, seconds))


_FATAL = (
    *(f"feishu {route}" for route in (feishu.REPLY, feishu.CARD_CREATE, feishu.CARD_CONTENT)),
    *(f"feishu {route}" for route in (feishu.CARD_UPDATE, feishu.CARD_SETTINGS)),
    *(f"dingtalk {route}" for route in (*refusals.DINGTALK_CARDS, dingtalk.WEBHOOK)),
)
"""Calls that a kill waits for: those of most replies."""


def _deaths(rng: Random) -> Iterator[Action]:
    """Kills at a moment, at a number of turns of the loop behind it, or at a call."""
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = round(rng.uniform(0, BUSY), 3)
        down = 2500.0 if rng.random() < 0.06 else rng.choice((0.7, 1.0, 5.0, 20.0, 70.0))
        how = rng.choice(("now", "turns", "turns", "call", "call", "end"))
        if how == "turns":
            turns = rng.randint(1, 60)
            words = f"kill -9 after {turns} more turns of the loop, back after {down} s"
            yield Action(at, words, "kill", (down, turns, ""))
        elif how == "call":
            route = rng.choice(_FATAL)
            words = f"kill -9 when {route} has arrived, back after {down} s"
            yield Action(at, words, "kill", (down, 0, route))
        elif how == "end":
            yield Action(at, f"SIGTERM, back {down} s later", "restart", (down,))
        else:
            yield Action(at, f"kill -9, back after {down} s", "kill", (down, 0, ""))


# ---------------------------------------------------------------- in real time


def make_short(seed: int) -> Plan:
    """For a process that is killed (machine.py), which says when: redeliveries come soon."""
    rng = Random(f"short {seed}")
    knobs = _knobs(rng) | {
        "feishu.redeliver_after": (1.0, 3.0, 6.0, 12.0),
        "dingtalk.redeliver_after": (1.0, 3.0, 8.0, 15.0),
        "dingtalk.keep_without_link": True,
        "template": rng.choice(("full", "full", "plain")),
    }
    messages = _messages(rng, least=6)
    actions = [_say(rng, message) for message in messages]
    for message in rng.choices(messages, k=2):
        if message.platform == "feishu":
            actions.append(Action(0, f"{message.nonce} is recalled", "recall", (message,)))
        words = f"person {message.person} says /stop where {message.nonce} was asked"
        actions.append(Action(0, words, "command", (message, "/stop")))
    lost = [a for a in _faults(rng) if a.args[2].kind in ("lose", "drop", "truncate", "html")]
    rng.shuffle(actions)
    return Plan(seed, (*lost[:3], *actions), knobs)
