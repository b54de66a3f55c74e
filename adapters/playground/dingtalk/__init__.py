"""DingTalk on loopback: the Stream gateway, the two HTTP hosts and what people see.

`sim.DingTalkSim` is the whole; `wire` names the routes for faults and recorded calls.
"""

from adapters.playground.dingtalk.sim import DingTalkSim

__all__ = ["DingTalkSim"]
