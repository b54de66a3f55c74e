"""Commands that look after deliveries: why, and for admins undelivered and resend."""

from __future__ import annotations

from bot.commands.desk import Call, Desk, denied
from bot.contract import Json
from bot.errors import BorderError
from bot.report import one_line
from bot.report_text import skipped_lines, why_text

ID_CHARS = 100


async def why(desk: Desk, call: Call) -> str:
    """The path of one message. Everybody may ask about their own last question here; of
    any other message only an admin may."""
    wanted = call.command.argument[:ID_CHARS]
    if wanted:
        if not _is_admin(desk, call):
            return denied(desk, call)
        return why_text(await desk.office.why(wanted), call.turn.lang)
    asker = call.turn.sender.id
    last = await desk.store.unfinished(call.turn.lane, asker)
    last = last or await desk.store.last_turn(call.turn.conversation, asker)
    if last is None:
        return call.say("why.nothing_asked")
    return why_text(await desk.office.why(last.id), call.turn.lang)


async def admin(desk: Desk, call: Call) -> str:
    """/admin undelivered, /admin resend ID, /admin why ID; without a word, what these are
    and what the app lacks."""
    if not _is_admin(desk, call):
        return denied(desk, call)
    word, _, argument = call.command.argument.partition(" ")
    if word in ("undelivered", "未送达"):
        return await _undelivered(desk, call)
    if word in ("resend", "重发") and argument.strip():
        return await _resend(desk, call, argument.strip()[:ID_CHARS])
    if word == "why" and argument.strip():
        return why_text(await desk.office.why(argument.strip()[:ID_CHARS]), call.turn.lang)
    bots = (await desk.office.status())["bots"]
    skipped = [f"- ⚠️ {line}" for bot in bots for line in skipped_lines(bot, call.turn.lang)]
    return "\n".join([call.say("admin.help"), *skipped])


def _is_admin(desk: Desk, call: Call) -> bool:
    turn = call.turn
    return desk.access.role(turn.platform, turn.sender, turn.chat_kind) == "admin"


async def _undelivered(desk: Desk, call: Call) -> str:
    status = await desk.office.status()
    lines = [_line(call, turn) for turn in status["undelivered"]]
    return "\n".join([call.say("admin.undelivered"), *lines] if lines else [call.say("admin.none")])


def _line(call: Call, turn: Json) -> str:
    lost = turn["delivery"] != "unconfirmed"
    return call.say(
        "admin.line_undelivered" if lost else "admin.line_unconfirmed",
        turn=turn["turn"][:8],
        who=one_line(turn["sender_name"] or turn["sender"], 30),
        question=one_line(turn["question"], 60),
    )


async def _resend(desk: Desk, call: Call, turn_id: str) -> str:
    try:
        done = await desk.office.resend(turn_id)
    except BorderError as error:
        return str(error)
    if done["delivery"] == "delivered":
        return call.say("admin.resent")
    if done["delivery"] == "unconfirmed" and not done["error"]:
        return call.say("admin.resent_unconfirmed")
    return call.say("admin.not_resent", why=one_line(str(done["error"]), 200) or "-")
