"""Feishu on loopback: the demo and the tests use the same one."""

from adapters.playground.feishu.sim import FeishuSim
from adapters.playground.feishu.wire import Policy
from adapters.playground.feishu.world import SimChat, SimMessage, SimPerson

__all__ = ["FeishuSim", "Policy", "SimChat", "SimMessage", "SimPerson"]
