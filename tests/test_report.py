"""bot/report and bot/report_text: what the operator is told, as JSON and in words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from bot import report_text
from bot.contract import (
    Account,
    Backlog,
    DeliveryState,
    Ending,
    Gap,
    Handle,
    Json,
    Moment,
    NewTurn,
    Person,
    QuotePart,
    TextPart,
    Turn,
    TurnKind,
    TurnState,
)
from bot.report import account_json, backlog_json, gap_json, one_line, turn_brief
from bot.report_text import call_line, status_text, why_text
from bot.texts import TABLES, knows, say

ROOT = Path(__file__).resolve().parent.parent
BEIJING = timezone(timedelta(hours=8))
AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=BEIJING).timestamp()
ID = "0123456789abcdef0123456789abcdef"
HAN = re.compile("[\u4e00-\u9fff]")


def new(**changes: Any) -> NewTurn:
    base = NewTurn(
        id=ID,
        kind="chat",
        bot="hr",
        platform="feishu",
        chat="oc_1",
        chat_kind="group",
        topic="",
        conversation="hr|oc_1|",
        lane="hr|oc_1|",
        sender=Person("ou_1", "Ann", ("on_1",)),
        message_id="om_1",
        parts=(QuotePart("quoted"), TextPart("why?")),
        address={"secret": "canary-s3cr3t"},
        lang="zh",
        asked_at=AT - 2,
    )
    return replace(base, **changes)


ENDING = Ending(
    "answered",
    text="because",
    model="deepseek-flash",
    delivery="delivered",
    proof="om_2",
    trail=(
        Moment(AT, "claimed"),
        Moment(AT + 0.012, "acked"),
        Moment(AT + 0.5, "started"),
        Moment(AT + 61, "closed", "om_2"),
    ),
)
TURN = Turn(
    new(),
    no=7,
    state="answered",
    attempt=1,
    handles=(Handle(f"{ID}-0", "card", "card_1", "om_2", 12, {"secret": "canary-s3cr3t"}),),
    ending=ENDING,
    seen_at=AT,
    ended=True,
)
ACCOUNT = Account("hr:om_1", AT, turn=TURN)


def told(*accounts: Account) -> Json:
    """As it comes out of the running process."""
    return orjson.loads(orjson.dumps({"accounts": [account_json(a) for a in accounts]}))


def why(*accounts: Account, lang: str = "zh") -> str:
    return why_text(told(*accounts), lang, BEIJING)


# ---------------------------------------------------------------- JSON


def test_an_account_has_the_shape_of_the_contract() -> None:
    found = account_json(replace(ACCOUNT, repeats=2, repeated_at=AT + 9))
    assert (found["key"], found["seen_at"], found["reason"]) == ("hr:om_1", AT, "")
    assert (found["repeats"], found["repeated_at"]) == (2, AT + 9)
    turn = found["turn"]
    wanted = ("id", "kind", "state", "attempt", "chat", "sender", "delivery", "proof", "error")
    assert [turn[name] for name in wanted] == [
        *(ID, "chat", "answered", 1, "oc_1", "ou_1", "delivered", "om_2", "")
    ]
    assert turn["replies"] == [
        {"part": 0, "rung": "card", "card_id": "card_1", "message_id": "om_2", "sequence": 12}
    ]
    assert turn["moments"][0] == {"at": AT, "what": "claimed", "detail": ""}


def test_what_only_an_adapter_may_see_is_left_out() -> None:
    assert b"canary" not in orjson.dumps([account_json(ACCOUNT), turn_brief(TURN)])


def test_an_event_without_a_turn() -> None:
    assert account_json(Account("hr:om_1", AT, reason="not_mentioned")) == {
        "key": "hr:om_1",
        "seen_at": AT,
        "repeats": 0,
        "repeated_at": 0.0,
        "reason": "not_mentioned",
        "turn": None,
    }


def test_a_turn_that_has_not_ended_still_has_a_path() -> None:
    running = replace(TURN, state="running", ending=None, ended=False)
    account = replace(ACCOUNT, turn=running, repeats=1, repeated_at=AT + 5)
    moments = account_json(account)["turn"]["moments"]
    assert [m["what"] for m in moments] == ["claimed", "repeated"]
    live = (Moment(AT, "claimed"), Moment(AT + 1, "started"))
    moments = account_json(account, live)["turn"]["moments"]
    assert [m["what"] for m in moments] == ["claimed", "started", "repeated"]
    assert account_json(account)["turn"]["delivery"] == "open"


def test_a_live_trail_goes_on_from_the_stored_one() -> None:
    """What both know appears once, as the live one has it: it counts on."""
    stored = replace(ENDING, trail=(Moment(AT, "claimed"), Moment(AT + 1, "retried", "2")))
    live = (*stored.trail[:1], Moment(AT + 1, "retried", "3"), Moment(AT + 9, "closed"))
    account = replace(ACCOUNT, turn=replace(TURN, ending=stored))
    moments = account_json(account, live)["turn"]["moments"]
    assert [(m["what"], m["detail"]) for m in moments] == [
        ("claimed", ""),
        ("retried", "3"),
        ("closed", ""),
    ]


def test_a_brief_has_the_shape_of_the_contract() -> None:
    lost = replace(ENDING, delivery="undelivered", proof="", error="230002")
    found = turn_brief(replace(TURN, ending=lost))
    assert found == {
        "turn": ID,
        "bot": "hr",
        "chat": "oc_1",
        "sender": "ou_1",
        "sender_name": "Ann",
        "at": AT,
        "state": "answered",
        "delivery": "undelivered",
        "error": "230002",
        "question": "why?",
        "answer": "because",
    }


def test_a_brief_is_brief() -> None:
    long = new(parts=(TextPart("长\n" * 500),))
    found = turn_brief(Turn(long, 1, ending=replace(ENDING, text="x" * 10_000), seen_at=0.0))
    assert len(found["question"]) == len(found["answer"]) == 200
    assert found["question"].endswith("…") and "\n" not in found["question"]
    assert found["at"] == long.asked_at


def test_gaps_and_backlog() -> None:
    gap = Gap("hr", "oc_1", AT, AT + 60, "缺少权限 / missing scope")
    assert gap_json(gap) == {
        "bot": "hr",
        "chat": "oc_1",
        "since": AT,
        "until": AT + 60,
        "why": gap.why,
    }
    assert backlog_json(Backlog(waiting=3, oldest=AT))["waiting"] == 3
    assert set(backlog_json(Backlog())) >= {"waiting", "running", "undelivered", "deepest"}


# ---------------------------------------------------------------- why, in words


def test_the_path_of_an_answered_message() -> None:
    assert why(replace(ACCOUNT, repeats=2, repeated_at=AT + 1800)).splitlines() == [
        "消息 hr:om_1",
        "2026-03-01 12:00:00 +0800 收到并存下",
        "平台又推送了 2 次，最近一次在 2026-03-01 12:30:00 +0800；都认出来了，没有重复回答",
        f"问题 {ID}（由模型回答），Ann (ou_1) 在会话 oc_1 中提出",
        "结果：已回答，运行了 1 次",
        "送达：平台已确认，凭证 om_2",
        "- 回复第 1 段：方式 card，卡片 card_1，消息 om_2，序号 12",
        "经过（从收到算起）：",
        "      +0.000 s  收到并存下",
        "      +0.012 s  已向平台确认收到",
        "      +0.500 s  开始回答",
        "      +0:01:01  回复已收尾 · om_2",
        "      +0:30:00  平台重复推送，已认出",
    ]


def test_the_same_path_in_english() -> None:
    lines = why(ACCOUNT, lang="en").splitlines()
    assert lines[:3] == [
        "Message hr:om_1",
        "Received and stored at 2026-03-01 12:00:00 +0800",
        f"Question {ID} (answered by the model), asked by Ann (ou_1) in chat oc_1",
    ]
    assert lines[-1] == "      +0:01:01  the reply was closed · om_2"
    assert not HAN.search("".join(lines))


def test_times_are_local_without_a_zone() -> None:
    local = datetime.fromtimestamp(AT).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    assert local in why_text(told(ACCOUNT), "zh")


def test_a_message_that_nobody_answered() -> None:
    said = why(Account("hr:om_1", AT, reason="not_mentioned"))
    assert "没有回答：群消息里没有 @ 机器人" in said and "经过" not in said
    assert "新原因" in why(Account("hr:om_1", AT, reason="新原因")), "a reason unknown here"


def test_nothing_known() -> None:
    for lang in TABLES:
        assert why(lang=lang) == say("why.none", lang)


def test_two_messages_that_became_one_question() -> None:
    said = why(ACCOUNT, Account("hr:om_0", AT + 1, turn=TURN))
    assert said.count("经过") == 1
    first, second = said.split("\n\n")
    assert "消息 hr:om_0" in second and "合成了一个问题" in second and ID in second
    assert "om_0" not in first


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (replace(TURN, state="refused", attempt=0), "排队的问题已满"),
        (replace(TURN, state="refused", attempt=1), "读不了"),
        (replace(TURN, new=new(kind="notice", notice="notice.too_long")), "长度上限"),
        (replace(TURN, new=new(kind="notice", notice="notice.late")), "太晚"),
        (replace(TURN, new=new(kind="notice", notice="notice.some_day")), "notice.some_day"),
        (
            replace(TURN, state="refused", ending=replace(ENDING, error="late", proof="late:ff00")),
            "太晚",
        ),
    ],
)
def test_the_rule_that_refused(turn: Turn, words: str) -> None:
    (line,) = [
        line for line in why(Account("k", AT, turn=turn)).splitlines() if "没有交给模型" in line
    ]
    assert words in line


def test_an_answer_with_a_remark_was_given_to_the_model() -> None:
    remarked = replace(TURN, new=new(notice="card.away"))
    assert "没有交给模型" not in why(Account("k", AT, turn=remarked))


def test_a_late_message_points_to_the_offer() -> None:
    ending = replace(ENDING, state="refused", error="late", proof="late:ff00")
    said = why(Account("k", AT, turn=replace(TURN, state="refused", ending=ending)))
    assert "提示 ff00" in said and "错误" not in said and "凭证" not in said


@pytest.mark.parametrize("state", ["undelivered", "unconfirmed"])
def test_what_did_not_arrive_comes_with_the_command(state: DeliveryState) -> None:
    ending = replace(ENDING, delivery=state, proof="", error="230002 no permission")
    for lang in TABLES:
        said = why(Account("k", AT, turn=replace(TURN, ending=ending)), lang=lang)
        assert f"queqiao resend {ID}" in said and "230002 no permission" in said


def test_a_turn_stopped_while_it_waited() -> None:
    ending = replace(ENDING, state="stopped", proof="unneeded")
    said = why(Account("k", AT, turn=replace(TURN, state="stopped", ending=ending)))
    assert "被停止" in said and "不需要" in said and "unneeded" not in said


def test_counts_and_positions() -> None:
    trail = (
        Moment(AT, "claimed"),
        Moment(AT, "waiting", "3"),
        Moment(AT + 1, "retried", "4"),
        Moment(AT + 2, "stepped_down", "99991672"),
    )
    said = why(Account("k", AT, turn=replace(TURN, ending=replace(ENDING, trail=trail))))
    assert "前面还有 3 条" in said and "又送了一次 · ×4" in said


def test_a_clock_that_went_back() -> None:
    trail = (Moment(AT - 0.25, "claimed"), Moment(AT, "started"))
    said = why(Account("k", AT, turn=replace(TURN, ending=replace(ENDING, trail=trail))))
    assert "-0.250 s  收到并存下" in said


def test_everything_has_a_sentence_of_its_own() -> None:
    """Each moment, state, kind, rule, reason and delivery of the contract, both languages."""
    listed = re.search(r"`what` is one of\s+([^;]*);", Moment.__doc__ or "")
    assert listed
    assert set(report_text.WHAT) == set(re.split(r",\s+", listed[1].strip()))
    assert set(report_text.STATE) == set(get_args(TurnState))
    assert set(report_text.KIND) == set(get_args(TurnKind))
    assert set(report_text.DELIVERY) == set(get_args(DeliveryState))
    for table in (report_text.WHAT, report_text.STATE, report_text.RULE, report_text.REASON):
        for lang in TABLES:
            said = [say(key, lang) for key in table.values()]
            assert len(set(said)) == len(said)


def notices() -> Iterator[str]:
    """The notices that the code of bot/ gives turns, as far as they are constants."""
    for path in sorted((ROOT / "bot").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            given = [keyword.value for keyword in call.keywords if keyword.arg == "notice"]
            if getattr(call.func, "id", "") == "Meaning":
                given += call.args[2:3]
            for value in given:
                if isinstance(value, ast.Constant):
                    yield str(value.value)
                elif isinstance(value, ast.Name) and value.id.isupper():
                    yield str(getattr(import_module(module), value.id))
                elif isinstance(value, ast.Name):
                    yield from spoken(tree)
                elif isinstance(value, ast.JoinedStr):
                    yield from (f"notice.{kind}" for kind in ("broken", "quota"))


def spoken(tree: ast.AST) -> Iterator[str]:
    """The keys of sentences that stand in a file whose notice is decided at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and knows(node.value):
            yield node.value


def test_every_notice_has_a_rule() -> None:
    given = set(notices()) - {""}
    assert {"done.retry", "notice.late", "notice.full", "notice.quota", "month.spent"} <= given, (
        "the scan works"
    )
    assert given <= set(report_text.RULE)
    for notice in given:
        turn = replace(TURN, new=new(kind="notice", notice=notice))
        assert all(notice not in why(Account("k", AT, turn=turn), lang=lang) for lang in TABLES)


def test_details_are_words_too() -> None:
    """A state beside a moment is said in the language of the rest."""
    trail = (Moment(AT, "claimed"), Moment(AT, "decided", "answered"))
    closed = [(*trail, Moment(AT, "closed", state)) for state in ("delivered", "unconfirmed")]
    for one in closed:
        turn = replace(TURN, ending=replace(ENDING, trail=one))
        zh, en = (why(Account("k", AT, turn=turn), lang=lang) for lang in ("zh", "en"))
        assert not re.search("answered|delivered|unconfirmed", zh)
        assert "结果已定并存下 · 已回答" in zh
        assert "· answered" in en and not HAN.search(en)


def test_what_the_model_never_saw_is_not_said_to_be_its_answer() -> None:
    for state, error, attempt in (("refused", "", 0), ("refused", "late", 0), ("refused", "", 1)):
        ending = replace(ENDING, error=error)
        turn = replace(TURN, state=state, ending=ending, attempt=attempt)  # type: ignore[arg-type]
        said = why(Account("k", AT, turn=turn))
        assert "由模型回答" not in said and "只给一句提示" in said


def test_a_moment_that_a_newer_process_made_up() -> None:
    trail = (Moment(AT, "claimed"), Moment(AT + 1, "teleported", "x"))
    said = why(Account("k", AT, turn=replace(TURN, ending=replace(ENDING, trail=trail))))
    assert "+1.000 s  teleported · x" in said


# ---------------------------------------------------------------- foreign text

EVIL = "\x1b[2J\x1b]0;owned\x07\r\n\u202egnp\u2066\x9b31m\u0000 ok"


def test_foreign_text_does_nothing_to_a_terminal() -> None:
    evil = new(
        sender=Person(EVIL, EVIL), chat=EVIL, parts=(TextPart(EVIL),), message_id=EVIL, bot="hr"
    )
    trail = (Moment(AT, "claimed", EVIL), Moment(AT, "opened", EVIL))
    ending = replace(ENDING, error=EVIL, proof=EVIL, text=EVIL, trail=trail, delivery="undelivered")
    handles = (Handle("k", "card", EVIL, EVIL),)
    turn = replace(TURN, new=evil, ending=ending, handles=handles)
    gap = Gap("hr", EVIL, AT, AT, EVIL)
    status = status_of(
        problems=[EVIL], undelivered=[turn_brief(turn)], gaps=[gap_json(gap)], ready=False
    )
    for said in (
        why(Account(f"hr:{EVIL}", AT, turn=turn), Account(EVIL, AT, reason=EVIL)),
        status_text(status, "en", BEIJING),
    ):
        assert "ok" in said
        assert all(c == "\n" or c.isprintable() for c in said)


def test_one_line() -> None:
    assert one_line(" a\tb\n\nc ") == "a b c"
    assert one_line("x" * 5, 5) == "x" * 5
    assert one_line("x" * 6, 5) == "xxxx…"


# ---------------------------------------------------------------- status, in words


def status_of(**changes: Any) -> Json:
    base: dict[str, Any] = {
        "ready": True,
        "problems": [],
        "version": "0.2.0",
        "uptime": 7_300.0,
        "bots": [
            {
                "name": "hr",
                "platform": "feishu",
                "connected": True,
                "cause": "",
                "silent": 61.0,
                "reconnects": 2,
            }
        ],
        "backlog": backlog_json(Backlog()),
        "undelivered": [],
        "gaps": [],
    }
    return {**base, **changes}


def test_all_is_well() -> None:
    assert status_text(status_of(), "zh", BEIJING).splitlines() == [
        "一切正常：消息收得到，也能回答。",
        "",
        "版本 0.2.0，已运行 2 小时",
        "- hr（feishu）已连接；上一个事件在 1 分钟前；重连过 2 次",
        "",
        "没有等待回答的消息。",
    ]


def test_what_is_wrong_is_said_first() -> None:
    bot = {"name": "d", "platform": "dingtalk", "connected": False, "cause": "401"}
    status = status_of(
        ready=False,
        problems=["断了 / down"],
        bots=[{**bot, "silent": None, "reconnects": 0}],
        backlog=backlog_json(Backlog(waiting=3, running=1, lanes=2, deepest=2, oldest=AT)),
    )
    for lang, words in (
        ("zh", ("没有连上：401", "还没有收到事件", "3 条排队，1 条正在回答")),
        ("en", ("not connected: 401", "no event since the start", "3 waiting, 1 being answered")),
    ):
        lines = status_text(status, lang, BEIJING).splitlines()
        assert lines[1] == "- 断了 / down"
        said = "\n".join(lines)
        assert all(word in said for word in words)
        assert "2026-03-01 12:00:00 +0800" in said


def test_what_did_not_arrive_is_listed_with_its_command() -> None:
    lost = replace(ENDING, delivery="undelivered", error="230002")
    perhaps = replace(ENDING, delivery="unconfirmed")
    status = status_of(
        undelivered=[
            turn_brief(replace(TURN, ending=lost)),
            turn_brief(replace(TURN, new=new(id="f" * 32), ending=perhaps)),
        ]
    )
    said = status_text(status, "zh", BEIJING)
    assert f"queqiao resend {ID}" in said and f"queqiao resend {'f' * 32}" in said
    assert "“why?”" in said and "230002" in said and "可能已经看到" in said


def test_gaps_are_listed() -> None:
    gaps = [Gap("hr", "oc_9", AT, AT + 60, "no scope"), Gap("hr", "", AT, AT + 60, "")]
    said = status_text(status_of(gaps=[gap_json(gap) for gap in gaps]), "en", BEIJING)
    assert "hr, chat oc_9, from 2026-03-01 12:00:00 +0800 to" in said and "no scope" in said
    assert "hr, all chats" in said


def test_a_bot_that_does_not_run() -> None:
    said = status_text(status_of(ready=False, uptime=0.0, bots=[], problems=["x"]), "zh", BEIJING)
    assert "没有在运行" in said and "已运行" not in said


# ---------------------------------------------------------------- the month's calls

CALL: dict[str, Any] = {
    "bot": "hr",
    "month": "2026-03",
    "kind": "api",
    "used": 4100,
    "cap": 5000,
    "forecast": 12345,
    "level": "save",
    "refused": False,
    "saving": True,
    "apis": {"stream": 4100},
}


@pytest.mark.parametrize("lang", TABLES)
def test_what_the_month_has_cost(lang: str) -> None:
    line = call_line(CALL, lang)
    assert all(word in line for word in ("4,100", "5,000", "82%", "12,345"))
    assert say("calls.saving", lang) in line and say("calls.refused", lang) not in line
    free = call_line({**CALL, "cap": 0, "saving": False, "refused": True}, lang)
    assert "5,000" not in free and "%" not in free and say("calls.refused", lang) in free


@pytest.mark.parametrize("lang", TABLES)
def test_the_status_tells_of_each_account_by_bot(lang: str) -> None:
    other = {**CALL, "kind": "message", "used": 7}
    status = {"ready": True, "problems": [], "version": "1", "uptime": 1.0, "bots": []}
    status |= {"backlog": {}, "undelivered": [], "gaps": [], "calls": [CALL, other]}
    told = status_text(status, lang)
    assert "2026-03" in told and told.count("hr") == 2 and say("calls.message", lang) in told


@pytest.mark.parametrize("lang", TABLES)
def test_a_question_that_found_no_calls_left(lang: str) -> None:
    spoken = Ending("refused", text="sorry", error="month", delivery="delivered", proof="om_9")
    silent = Ending("refused", error="month", delivery="delivered", proof="month:abc")
    turns = [Turn(new(), 1, "refused", 1, ending=ending, ended=True) for ending in (spoken, silent)]
    first, second = [why(Account("hr:om_1", AT, turn=turn), lang=lang) for turn in turns]
    assert say("why.rule_month", lang) in first and "om_9" in first
    assert say("why.rule_month", lang) in second
    assert say("why.month_told", lang, turn="abc") in second
