"""Commands that only look: status, whoami, usage."""

from __future__ import annotations

from datetime import datetime

from bot.access import entry_of
from bot.commands.desk import Call, Desk
from bot.contract import LinkStatus, UsageTotal
from bot.month import BEIJING
from bot.report_text import call_line


async def status(desk: Desk, call: Call) -> str:
    link = desk.platforms[call.turn.bot].status
    persona = desk.personas.label(call.choice("persona", desk.chat.persona), call.turn.lang)
    problems = await desk.office.problems()
    told = call.say(
        "status",
        link=_link(call, link),
        model=call.choice("model", desk.model.model),
        persona=persona,
        reasoning=call.say(f"reasoning.{call.choice('reasoning', desk.chat.reasoning)}"),
        running=len(desk.lanes),
        uptime=_span(call, desk.clock.monotonic() - desk.started_at),
        version=desk.version,
    )
    return "\n".join([told, *(f"- ⚠️ {problem}" for problem in problems)])


def _link(call: Call, link: LinkStatus) -> str:
    return call.say("status.up") if link.hearing else call.say("status.down", cause=link.why_red)


def _span(call: Call, seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size:
            return call.say(f"time.{unit}", n=int(seconds // size))
    return call.say("time.seconds", n=int(seconds))


async def whoami(desk: Desk, call: Call) -> str:
    turn = call.turn
    role = desk.access.role(turn.platform, turn.sender, turn.chat_kind)
    return call.say(
        "whoami",
        name=turn.sender.name or turn.sender.id,
        who=entry_of(turn.platform, turn.sender),
        role=call.say(f"role.{role}"),
        chat=turn.chat,
        kind=call.say(f"chat.{turn.chat_kind}"),
    )


async def usage(desk: Desk, call: Call) -> str:
    today = datetime.fromtimestamp(desk.clock.time(), BEIJING).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    lines = [call.say("usage.head"), ""]
    for when, since in (("today", today), ("month", today.replace(day=1))):
        start = since.timestamp()
        mine = await desk.store.usage(since=start, sender=call.turn.sender.id)
        here = await desk.store.usage(since=start, conversation=call.conversation.key)
        lines.append(_line(call, "me", when, mine))
        lines.append(_line(call, "chat", when, here))
    return "\n".join([*lines, *await _platform_calls(desk, call)])


async def _platform_calls(desk: Desk, call: Call) -> list[str]:
    """For admins: what the month has cost of the platform's calls."""
    turn = call.turn
    if desk.access.role(turn.platform, turn.sender, turn.chat_kind) != "admin":
        return []
    calls = (await desk.office.status())["calls"]
    return ["", *(call_line(one, turn.lang) for one in calls if one["bot"] == turn.bot)]


def _line(call: Call, who: str, when: str, total: UsageTotal) -> str:
    used = total.usage
    return call.say(
        "usage.line",
        who=call.say(f"usage.{who}"),
        when=call.say(f"usage.{when}"),
        turns=total.turns,
        prompt=used.prompt,
        share=round(100 * used.cached / used.prompt) if used.prompt else 0,
        completion=used.completion,
        cost=f"{total.cost:.4f}".rstrip("0").rstrip(".") or "0",
    )
