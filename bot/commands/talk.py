"""Commands about the conversation itself: help, new, stop."""

from __future__ import annotations

from bot.commands.desk import Call, Desk, denied, may_steer
from bot.commands.read import WORDS


async def help_(desk: Desk, call: Call) -> str:
    lines = [call.say("help.head")]
    for name, words in WORDS.items():
        what = call.say(f"help.{name}")
        shown = " ".join(f"`/{word}`" if word.isascii() else word for word in words)
        lines.append(call.say("help.line", name=name, words=shown, what=what))
    lines.append(call.say("help.tail"))
    return "\n".join(lines)


async def new(desk: Desk, call: Call) -> str:
    if not may_steer(desk, call):
        return denied(desk, call)
    count = await desk.store.cut(call.conversation.key)
    return call.say("done.new", count=count) if count else call.say("done.new.empty")


async def stop(desk: Desk, call: Call) -> str:
    """The asker's own turns; with `all`, everybody's in this conversation. What was asked
    after the command goes on."""
    turn = call.turn
    everybody = call.command.argument.casefold() in ("all", "全部", "所有")
    if everybody and not desk.access.may_steer(turn.platform, turn.sender, turn.chat_kind):
        return call.say("denied.all")
    running = [
        run
        for run in desk.lanes
        if run.turn.no < call.no
        and run.turn.new.conversation == turn.conversation
        and (everybody or run.turn.new.sender.id == turn.sender.id)
    ]
    lanes = {run.turn.new.lane for run in running} | {turn.lane}
    ids = {run.turn.id for run in running}
    waiting = 0
    for lane in lanes:
        sender = None if everybody else turn.sender.id
        stopped = await desk.store.stop_waiting(
            lane, sender, shown=desk.waiting.shown(lane), before=call.no
        )
        for each in stopped:
            desk.waiting.stopped(each)
        waiting += sum(each.id not in ids for each in stopped)
    for run in running:
        run.end("stopped")
    return _told(call, bool(running), waiting)


def _told(call: Call, stopped: bool, waiting: int) -> str:
    if stopped and waiting:
        return call.say("done.stop.waiting", count=waiting)
    if waiting:
        return call.say("done.stop.waiting_only", count=waiting)
    return call.say("done.stop" if stopped else "done.stop.nothing")
