"""DeepSeek on loopback: the chat API, and a stand-in that speaks where no model is."""

from adapters.playground.deepseek.answer import Said, Shape, Trouble
from adapters.playground.deepseek.asked import Asked
from adapters.playground.deepseek.sim import DeepSeekSim

__all__ = ["Asked", "DeepSeekSim", "Said", "Shape", "Trouble"]
