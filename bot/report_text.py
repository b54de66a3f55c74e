"""The operator's JSON in words, in either language and in local time (pure).

What strangers wrote stands in it, so every value passes one_line before a terminal sees
it.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

from bot.contract import Json
from bot.report import one_line
from bot.texts import say

UNNEEDED = "unneeded"
"""The proof of a turn that ended while it waited: whoever ended it told the person."""

MONTH = "month"
"""The error of a turn for which no calls were left, and the head of its proof when the
sentence of another turn spoke for it."""

LATE = "late"
"""The error of a turn that came too late, and the head of its proof: the turn that offers
to answer it."""

CONTENT = "content"
"""The error of a turn whose text the platform's filter refused."""

SPANS = (("days", 86_400), ("hours", 3_600), ("minutes", 60))

# ---------------------------------------------------------------- how it is


def status_text(status: Json, lang: str, zone: tzinfo | None = None) -> str:
    """Operator.status() in words, with an empty backlog for one that cannot be known;
    times in `zone`, local when None."""
    lines = [say("report.ready" if status["ready"] else "report.not_ready", lang)]
    lines += [f"- {one_line(problem)}" for problem in status["problems"]]
    lines += ["", _version(status, lang)]
    for bot in status["bots"]:
        lines += [_bot_line(bot, lang), *(f"  {line}" for line in skipped_lines(bot, lang))]
    if status["backlog"]:
        lines += ["", *_backlog_lines(status["backlog"], lang, zone)]
    if status.get("calls"):
        lines += ["", say("report.calls", lang, month=status["calls"][0]["month"])]
        lines += [f"{call['bot']}: {call_line(call, lang)}" for call in status["calls"]]
    if status["undelivered"]:
        lines += ["", say("report.undelivered", lang)]
        lines += [_undelivered_line(turn, lang, zone) for turn in status["undelivered"]]
    if status["gaps"]:
        lines += ["", say("report.gaps", lang)]
        lines += [_gap_line(gap, lang, zone) for gap in status["gaps"]]
    return "\n".join(lines)


def _version(status: Json, lang: str) -> str:
    if not status["uptime"]:
        return say("report.version", lang, version=status["version"])
    uptime = _span(status["uptime"], lang)
    return say("report.running", lang, version=status["version"], uptime=uptime)


def _bot_line(bot: Json, lang: str) -> str:
    silent = bot["silent"]
    heard = (
        say("report.never_heard", lang)
        if silent is None
        else say("report.heard", lang, ago=_span(silent, lang))
    )
    blanks = {"name": bot["name"], "platform": bot["platform"], "heard": heard}
    blanks["count"] = bot["reconnects"]
    if bot["connected"]:
        return "- " + say("report.bot_up", lang, **blanks)
    return "- " + say("report.bot_down", lang, **blanks, cause=one_line(bot["cause"]) or "?")


def skipped_lines(bot: Json, lang: str) -> list[str]:
    """The ways of replying that this bot may not use now, with the scopes to paste."""
    lines = []
    for rung in bot.get("skipped", ()):
        key = "report.lacks_scope" if rung["scopes"] else "report.skipped"
        blanks = {"rung": one_line(rung["name"]), "why": one_line(rung["why"], 200) or "?"}
        scopes = one_line(" ".join(rung["scopes"]))
        lines.append(say(key, lang, bot=bot["name"], scopes=scopes, **blanks))
    return lines


def _backlog_lines(backlog: Json, lang: str, zone: tzinfo | None) -> list[str]:
    lines = [say("report.nothing_left", lang)]
    if backlog["waiting"] or backlog["running"]:
        wanted = ("waiting", "running", "lanes", "deepest")
        lines = [say("report.backlog", lang, **{name: backlog[name] for name in wanted})]
    if backlog["oldest"]:
        lines.append(say("report.oldest", lang, at=_time(backlog["oldest"], zone)))
    if backlog["redelivered"]:
        lines.append(say("report.redelivered", lang, count=backlog["redelivered"]))
    return lines


def call_line(call: Json, lang: str) -> str:
    """One of the calls of Operator.status(): used, cap and forecast."""
    blanks = {
        "kind": say(f"calls.{call['kind']}", lang),
        "used": f"{call['used']:,}",
        "forecast": f"{call['forecast']:,}",
    }
    if call["cap"]:
        blanks |= {"cap": f"{call['cap']:,}", "share": str(100 * call["used"] // call["cap"])}
    key = "calls.counted" if call["cap"] is None else "calls.open"
    line = say("calls.capped" if call["cap"] else key, lang, **blanks)
    marks = [mark for mark in ("refused", "saving") if call.get(mark)]
    return "- " + "".join([line, *(say(f"calls.{mark}", lang) for mark in marks)])


def _undelivered_line(turn: Json, lang: str, zone: tzinfo | None) -> str:
    key = "report.unconfirmed_turn"
    if turn.get("delivery", turn["state"]) == "undelivered":
        key = "report.undelivered_turn"
    line = say(
        key,
        lang,
        at=_time(turn["at"], zone),
        bot=turn["bot"],
        chat=one_line(turn["chat"]),
        who=_who(turn),
        question=one_line(turn["question"], 60),
    )
    why = _error_line(turn, lang) if turn["error"] else ""
    again = say("report.again", lang, turn=turn["turn"])
    return "\n".join([f"- {line}", *(f"  {more}" for more in (why, again) if more)])


def _gap_line(gap: Json, lang: str, zone: tzinfo | None) -> str:
    return "- " + say(
        "report.gap" if gap["chat"] else "report.gap_everywhere",
        lang,
        bot=gap["bot"],
        chat=one_line(gap["chat"]),
        since=_time(gap["since"], zone),
        until=_time(gap["until"], zone),
        why=one_line(gap["why"]) or "?",
    )


# ---------------------------------------------------------------- what became of one message

KIND = {"chat": "why.chat", "command": "why.command", "notice": "why.notice"}

STATE = {
    "queued": "why.queued",
    "running": "why.running",
    "answered": "why.answered",
    "failed": "why.failed",
    "stopped": "why.was_stopped",
    "recalled": "why.was_recalled",
    "refused": "why.was_refused",
}

REASON = {
    "not_mentioned": "why.not_mentioned",
    "at_all": "why.at_all",
    "identity_unknown": "why.identity_unknown",
    "own_message": "why.own_message",
    "from_bot": "why.from_bot",
    "recalled": "why.recalled",
}

RULE = {
    "notice.full": "why.rule_full",
    "notice.late": "why.rule_late",
    "notice.too_long": "why.rule_too_long",
    "notice.unreadable": "why.rule_unreadable",
    "notice.empty": "why.rule_empty",
    "notice.broken": "why.rule_broken",
    "notice.quota": "why.rule_quota",
    "notice.nothing_to_retry": "why.rule_nothing_to_retry",
    "done.retry": "why.rule_retried",
    "notice.month": "why.rule_month",
    "month.save": "why.rule_month_save",
    "month.spent": "why.rule_month_spent",
    "month.refused": "why.rule_month_refused",
}

DELIVERY = {
    "open": "why.open",
    "delivered": "why.delivered",
    "unconfirmed": "why.unconfirmed",
    "undelivered": "why.not_delivered",
}

DETAIL = {
    **STATE,
    "delivered": "why.detail_delivered",
    "unconfirmed": "why.detail_unconfirmed",
}
"""What stands beside the moments that carry a state: `decided` and `closed`."""

WHAT = {
    "claimed": "why.claimed",
    "joined": "why.joined",
    "repeated": "why.repeated",
    "acked": "why.acked",
    "late": "why.late",
    "waiting": "why.waiting",
    "started": "why.started",
    "resumed": "why.resumed",
    "opened": "why.opened",
    "shown": "why.shown",
    "decided": "why.decided",
    "closed": "why.closed",
    "refused": "why.refused",
    "stepped_down": "why.stepped_down",
    "replaced": "why.replaced",
    "retried": "why.retried",
    "undelivered": "why.undelivered",
    "stopped": "why.stopped",
    "recalled": "why.recalled",
    "edited": "why.edited",
}


def why_text(found: Json, lang: str, zone: tzinfo | None = None) -> str:
    """Operator.why() in words: the path of one message; times in `zone`, local when None."""
    told: set[str] = set()
    stories = [_story(account, lang, zone, told) for account in found["accounts"]]
    return "\n\n".join(stories) or say("why.none", lang)


def _story(account: Json, lang: str, zone: tzinfo | None, told: set[str]) -> str:
    """`told` holds the turns that stand above already."""
    since, turn = account["seen_at"], account["turn"]
    lines = [say("why.head", lang, key=one_line(account["key"]))]
    lines.append(say("why.claimed_at", lang, at=_time(since, zone)))
    if account["repeats"]:
        again = _time(account["repeated_at"], zone)
        lines.append(say("why.repeats", lang, count=account["repeats"], at=again))
    if turn is None:
        reason = _known(REASON, account["reason"], lang)
        lines.append(say("why.unanswered", lang, reason=reason))
    elif turn["id"] in told:
        lines.append(say("why.same_turn", lang, turn=turn["id"]))
    else:
        told.add(turn["id"])
        lines += _turn_lines(turn, since, lang)
    return "\n".join(lines)


def _turn_lines(turn: Json, since: float, lang: str) -> list[str]:
    rule = _rule(turn)
    chat, kind = one_line(turn["chat"]), _known(KIND, "notice" if rule else turn["kind"], lang)
    lines = [say("why.turn", lang, turn=turn["id"], kind=kind, who=_who(turn), chat=chat)]
    if rule:
        lines.append(say("why.rule", lang, rule=_known(RULE, rule, lang)))
    state = _known(STATE, turn["state"], lang)
    lines.append(say("why.outcome", lang, state=state, attempt=turn["attempt"]))
    if turn["error"] not in ("", LATE, MONTH):
        lines.append(_error_line(turn, lang))
    lines.append(_delivery_line(turn, lang))
    lines += [_reply_line(reply, lang) for reply in turn["replies"]]
    lines.append(say("why.path", lang))
    return lines + [_moment_line(moment, since, lang) for moment in turn["moments"]]


def _error_line(turn: Json, lang: str) -> str:
    if turn["error"] == CONTENT:
        return say("why.content", lang)
    return say("why.error", lang, error=one_line(turn["error"]))


def _rule(turn: Json) -> str:
    """Why the question was not given to the model, as the key of a notice, or empty."""
    if turn["error"] == MONTH:
        return "notice.month"
    if turn["kind"] == "notice":
        return str(turn.get("notice") or "")
    if turn["state"] != "refused":
        return ""
    if turn["error"] == LATE:
        return "notice.late"
    return "notice.unreadable" if turn["attempt"] else "notice.full"


def _delivery_line(turn: Json, lang: str) -> str:
    proof = turn["proof"]
    if proof == UNNEEDED:
        return say("why.unneeded", lang)
    if proof.startswith(f"{LATE}:"):
        return say("why.offered", lang, turn=proof.removeprefix(f"{LATE}:"))
    if proof.startswith(f"{MONTH}:"):
        return say("why.month_told", lang, turn=proof.removeprefix(f"{MONTH}:"))
    key = DELIVERY.get(turn["delivery"], "why.open")
    return say(key, lang, proof=one_line(proof) or "?", turn=turn["id"])


def _reply_line(reply: Json, lang: str) -> str:
    return "- " + say(
        "why.reply",
        lang,
        part=reply["part"] + 1,
        rung=reply["rung"] or "?",
        card=one_line(reply["card_id"]) or "?",
        message=one_line(reply["message_id"]) or "?",
        sequence=reply["sequence"],
    )


def _moment_line(moment: Json, since: float, lang: str) -> str:
    what, detail = _known(WHAT, moment["what"], lang), one_line(moment["detail"])
    if detail.isdecimal() and moment["what"] == "waiting":
        what, detail = say("why.behind", lang, ahead=detail), ""
    elif detail.isdecimal():
        detail = f"×{detail}"
    elif detail and moment["what"] in ("decided", "closed"):
        detail = _known(DETAIL, detail, lang)
    return f"  {_offset(moment['at'] - since):>12}  {what}{f' · {detail}' if detail else ''}"


# ---------------------------------------------------------------- small things


def _known(names: dict[str, str], name: str, lang: str) -> str:
    """The sentence for `name`; one that a newer process made up is shown as it is."""
    return say(names[name], lang) if name in names else one_line(name) or "?"


def _who(holder: Json) -> str:
    """A person's name and whole id."""
    name, person = one_line(str(holder.get("sender_name") or ""), 40), one_line(holder["sender"])
    return f"{name} ({person})" if name else person


def _time(at: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(at, zone).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %z")


def _offset(seconds: float) -> str:
    """After the claim: +0.012 s, +1:05:09 (hours, minutes, seconds)."""
    if seconds < 60:
        return f"{seconds:+.3f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"+{hours}:{minutes:02}:{rest:02}"


def _span(seconds: float, lang: str) -> str:
    for unit, size in SPANS:
        if seconds >= size:
            return say(f"time.{unit}", lang, n=int(seconds // size))
    return say("time.seconds", lang, n=int(seconds))
