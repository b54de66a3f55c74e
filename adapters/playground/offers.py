"""What can go wrong on each platform and in the model service, as levers by name.

The codes are those that a client meets there (reference/feishu.md 5.8, 5.10, 6.8;
reference/dingtalk.md 5.7, 6.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.playground.deepseek import DeepSeekSim, Trouble
from adapters.playground.dingtalk import DingTalkSim
from adapters.playground.dingtalk import wire as dingtalk
from adapters.playground.dingtalk.link import Link as DingTalkLink
from adapters.playground.faults import Fault, Faults
from adapters.playground.feishu import FeishuSim
from adapters.playground.feishu import wire as feishu
from adapters.playground.feishu.link import Link as FeishuLink
from adapters.playground.levers import EveryCall, Lasting, Lever, NextAnswers, NextCalls, Now

Levers = dict[str, Lever]

LATE = Fault("delay", seconds=1.5)
LOSE = Fault("lose")

BURST = 8
"""Calls in a row that are refused for their rate."""

SLOW = 12.0
"""How many times slower the model speaks."""

STALL = 20.0
"""Seconds of silence in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """How one platform says no, and to which calls. `makes` bring something new into a
    chat, `writes` change a card; `refused` of these in a row spoil one answer's card."""

    makes: Sequence[str]
    writes: Sequence[str]
    every: Sequence[str]
    broken: Fault
    refused: int
    too_fast: Fault


FEISHU = Refusals(
    makes=(feishu.SEND, feishu.REPLY),
    writes=(feishu.CARD_CONTENT, feishu.CARD_UPDATE, feishu.CARD_SETTINGS),
    every=tuple(feishu.SCOPES),
    broken=Fault("status", status=400, body={"code": 300313, "msg": "ErrMsg: update failed;"}),
    refused=3,
    too_fast=Fault(
        "status",
        status=429,
        body={"code": feishu.RATE_LIMITED, "msg": "request trigger frequency limit"},
        headers={"x-ogw-ratelimit-limit": "50", "x-ogw-ratelimit-reset": "1"},
    ),
)

DINGTALK = Refusals(
    makes=(dingtalk.CARD_CREATE_DELIVER,),
    writes=(dingtalk.CARD_STREAM, dingtalk.CARD_UPDATE),
    every=(*dingtalk.SCOPES, dingtalk.WEBHOOK),
    broken=Fault(
        "status", status=400, body={"code": "param.cardNotExist", "message": "card is not exist"}
    ),
    refused=2,
    too_fast=Fault("status", status=403, body={"code": dingtalk.QPS_CODE, "message": "限流"}),
)


def of_feishu(sim: FeishuSim) -> Levers:
    scopes = sim.policy.missing_scopes
    return {
        "half-feishu": Now(lambda: sim.mute_links(half_open=True)),
        "deaf-feishu": Now(lambda: sim.mute_links(pongs=True)),
        **_refusals("feishu", sim.faults, FEISHU),
        "scope-feishu": _missing(scopes, *feishu.SCOPES[feishu.CARD_CREATE]),
    }


def of_dingtalk(sim: DingTalkSim) -> Levers:
    scopes = sim.policy.missing_scopes
    return {
        "half-dingtalk": Now(lambda: sim.mute_links(half_open=True)),
        "deaf-dingtalk": Now(sim.mute_links),
        "leave-dingtalk": Now(sim.leave_links),
        **_refusals("dingtalk", sim.faults, DINGTALK),
        "scope-dingtalk": _missing(scopes, dingtalk.SCOPES[dingtalk.CARD_CREATE]),
    }


def _refusals(name: str, faults: Faults, refusals: Refusals) -> Levers:
    writes = refusals.writes
    return {
        f"refuse-{name}": NextCalls(faults, writes, refusals.broken, refusals.refused),
        f"burst-{name}": NextCalls(faults, writes, refusals.too_fast, BURST),
        f"lose-{name}": NextCalls(faults, refusals.makes, LOSE),
        f"late-{name}": EveryCall(faults, refusals.every, LATE),
    }


def _missing(missing: set[str], *scopes: str) -> Lasting:
    return Lasting(lambda: missing.update(scopes), lambda: missing.difference_update(scopes))


def of_model(model: DeepSeekSim) -> Levers:
    def speed(times: float) -> Callable[[], Any]:
        return lambda: setattr(model, "slowness", times)

    def stand(trouble: Trouble | None) -> Callable[[], Any]:
        return lambda: setattr(model, "standing", trouble)

    return {
        "slow": Lasting(speed(SLOW), speed(1.0)),
        "model-503": Lasting(stand(Trouble("refuse", status=503)), stand(None)),
        "model-402": NextAnswers(model, Trouble("refuse", status=402)),
        "model-cut": NextAnswers(model, Trouble("cut", after=24)),
        "model-stall": NextAnswers(model, Trouble("stall", after=24, seconds=STALL)),
        "model-empty": NextAnswers(model, Trouble("empty"), times=2),
    }


def heal(sim: FeishuSim | DingTalkSim) -> None:
    """What was deaf or half-open hears again."""
    for link in sim.links:
        link.muted = False
        if not link.transport.is_reading():
            link.transport.resume_reading()


def drop_half_open(sim: FeishuSim | DingTalkSim) -> None:
    """What a platform does by itself in time: once a client has come again, its half-open
    links go."""
    links: list[FeishuLink | DingTalkLink] = [*sim.links]
    if all(link.muted for link in links):
        return
    for link in links:
        if link.muted and not link.transport.is_reading():
            link.cut()
