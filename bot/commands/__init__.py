"""Slash commands. They bypass the lane, and their replies never reach the history."""

from __future__ import annotations

from bot.commands import choose, look, operate, talk
from bot.commands.desk import Call, Desk, Handler
from bot.commands.read import Command, read

__all__ = ["Call", "Command", "Desk", "answer", "read"]

HANDLERS: dict[str, Handler] = {
    "help": talk.help_,
    "new": talk.new,
    "stop": talk.stop,
    "status": look.status,
    "whoami": look.whoami,
    "usage": look.usage,
    "model": choose.model,
    "persona": choose.persona,
    "reasoning": choose.reasoning,
    "why": operate.why,
    "admin": operate.admin,
}
"""Every command but /retry, which becomes a turn of its own (bot.core)."""


async def answer(desk: Desk, call: Call) -> str:
    """Do what the command says; the text is the reply."""
    command = call.command
    if not command.known:
        key = "unknown.near" if command.near else "unknown.far"
        return call.say(key, name=command.name[:40], near=command.near)
    return await HANDLERS[command.name](desk, call)
