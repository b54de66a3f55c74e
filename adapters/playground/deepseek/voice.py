"""The stand-in that answers in the playground: no model, a handful of habits. Pure.

It says in its first answer that it is a stand-in, speaks the asker's language, and
remembers what earlier messages of the conversation said.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from adapters.playground.deepseek import essay, samples
from adapters.playground.deepseek.answer import Said
from adapters.playground.deepseek.asked import Asked
from adapters.playground.deepseek.tokens import pieces

PACE = 0.025
"""Seconds between two pieces: forty a second."""

FIRST = 0.35
"""Seconds before the first piece."""

Habit = Callable[[Asked, str, str], str]
"""(request, question, "zh" or "en") to the answer."""


def answer(asked: Asked) -> Said:
    """What the stand-in says, as a Speaker."""
    question = question_of(asked)
    lang = language(question)
    text = _habit(question)(asked, question, lang)
    if _is_first(asked):
        text = f"{samples.INTRODUCTION[lang]}\n\n{text}"
    thoughts = samples.THOUGHTS[lang].format(
        question=_short(question), count=len(asked.said("user")), letters=len(question)
    )
    return Said(pieces(text), pieces(thoughts), pace=PACE, first=FIRST)


def _is_first(asked: Asked) -> bool:
    """Whether nothing was answered before; an answer to be continued is this one."""
    answers = len(asked.said("assistant"))
    return answers == (0 if asked.prefix is None else 1)


def question_of(asked: Asked) -> str:
    """The last question, without the lines in front that say when and who."""
    return _BRACKET.sub("", _dateless(asked.question), count=1).strip()


def _dateless(text: str) -> str:
    return _DAY.sub("", text.strip(), count=1)


_DAY = re.compile(r"^（\d{4}-\d\d-\d\d[^）\n]*）\n")
_BRACKET = re.compile(r"^(?:<[^>\n]{1,80}>|\[[^\]\n]{1,80}\]|（[^）\n]{1,80}）)\s*[:：]?\s*")
_SPEAKER = re.compile(_BRACKET.pattern + r"|^[^\s:：/]{1,20}[:：](?!//)")


def _speaker(text: str) -> str:
    """What stands before the words in a group: a name, as far as one can tell."""
    match = _SPEAKER.match(_dateless(text))
    return match[0] if match else ""


def language(text: str) -> str:
    """zh when there is a Chinese character, or nothing to go by."""
    if re.search("[\u3400-\u9fff]", text):
        return "zh"
    return "en" if re.search("[A-Za-z]{2}", text) else "zh"


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


# memory -----------------------------------------------------------------

_NAME = re.compile(
    r"(?:我叫|我的名字(?:是|叫)|叫我)\s*(?!什么|啥)([\w·]{1,20}?)(?=[，,。.！!；;\s吧]|$)"
    r"|(?:my name is|call me|i am called)\s+([A-Za-z][\w'-]{0,30})",
    re.I,
)
_KEEP = re.compile(
    r"(?:请?(?:帮我)?记住|记一下)[：:，,\s]*(.+)|\bremember(?: that)?[:,\s]+(.+)", re.I | re.S
)


def _found(pattern: re.Pattern[str], asked: Asked) -> str:
    """What the newest earlier message that fits said; empty when none did. Where the
    same speaker can be told from others, only that one's messages count."""
    speaker, earlier = _speaker(asked.question), asked.said("user")[:-1]
    own = [text for text in earlier if _speaker(text) == speaker]
    for text in reversed(own or earlier):
        match = pattern.search(text)
        if match:
            return next(group for group in match.groups() if group).strip()
    return ""


def _who_am_i(asked: Asked, question: str, lang: str) -> str:
    name = _found(_NAME, asked)
    if lang == "zh":
        return f"你叫**{name}**，你刚才告诉我的。" if name else "这段对话里你还没有告诉我你的名字。"
    return f"Your name is **{name}**." if name else "You have not told me your name yet."


def _nice_to_meet(asked: Asked, question: str, lang: str) -> str:
    match = _NAME.search(question)
    name = next((group for group in match.groups() if group), "") if match else ""
    if lang == "zh":
        return f"你好，**{name}**！我记住了。等会儿可以问我“我叫什么”。"
    return f"Hello, **{name}**! I will remember that. Ask me later: what is my name?"


def _keep(asked: Asked, question: str, lang: str) -> str:
    match = _KEEP.search(question)
    what = next((group for group in match.groups() if group), "") if match else ""
    return f"好的，记住了：{_short(what, 200)}" if lang == "zh" else f"Noted: {_short(what, 200)}"


def _what_kept(asked: Asked, question: str, lang: str) -> str:
    what = _short(_found(_KEEP, asked), 200)
    if lang == "zh":
        return f"你让我记住的是：{what}" if what else "你还没有让我记住什么。"
    return f"You asked me to remember: {what}" if what else "Nothing so far."


def _what_said(asked: Asked, question: str, lang: str) -> str:
    earlier = [_short(_dateless(text), 80) for text in asked.said("user")[:-1]][-5:]
    if not earlier:
        return "这段对话刚刚开始。" if lang == "zh" else "This conversation has just begun."
    lead = "你之前说过：" if lang == "zh" else "Earlier you said:"
    lines = "\n".join(f"{number}. {text}" for number, text in enumerate(earlier, 1))
    return f"{lead}\n\n{lines}"


# small skills -------------------------------------------------------------

_NUMBER = re.compile(r"\d{1,6}")


def _count(asked: Asked, question: str, lang: str) -> str:
    end = min(int(_NUMBER.findall(question)[-1]), 1000)
    return "，".join(map(str, range(1, end + 1))) + "。" if lang == "zh" else _counted(end)


def _counted(end: int) -> str:
    return ", ".join(map(str, range(1, end + 1))) + "."


_SUM = re.compile(r"(\d{1,12})\s*([-+*/×÷加减乘除])\s*(?:以)?(\d{1,12})")


def _sum(asked: Asked, question: str, lang: str) -> str:
    match = _SUM.search(question)
    if match is None:
        return _echo(asked, question, lang)
    left, sign, right = int(match[1]), match[2], int(match[3])
    return f"{left} {sign} {right} = **{_result(left, sign, right)}**"


def _result(left: int, sign: str, right: int) -> str:
    if sign in "+加":
        return str(left + right)
    if sign in "-减":
        return str(left - right)
    if sign in "*×乘":
        return str(left * right)
    return f"{left / right:.10g}" if right else "∞"


def _long(asked: Asked, question: str, lang: str) -> str:
    asked_for = [int(number) for number in _NUMBER.findall(question)]
    return essay.write(lang, max(asked_for, default=1200))


def _sample(texts: dict[str, str]) -> Habit:
    return lambda asked, question, lang: texts[lang]


def _echo(asked: Asked, question: str, lang: str) -> str:
    number = len(asked.said("user"))
    quoted = "\n".join(f"> {line}" for line in question[:400].splitlines()) or "> …"
    return samples.ECHO[lang].format(quoted=quoted, number=number, letters=len(question))


def _rule(pattern: str, habit: Habit) -> tuple[re.Pattern[str], Habit]:
    return re.compile(pattern, re.I), habit


_HABITS: tuple[tuple[re.Pattern[str], Habit], ...] = (
    _rule(r"我(叫|的名字(是|叫))(什么|啥)|我是谁|what('s| is) my name|who am i", _who_am_i),
    _rule(r"(让你记住|记住了?)(的是)?(什么|啥)|did i (ask|tell) you to remember", _what_kept),
    _rule(r"(刚才|之前|前面)我?.{0,6}(说|问)了?(什么|啥)|what did i (say|ask)", _what_said),
    _rule(_NAME.pattern, _nice_to_meet),
    _rule(r"记住|记一下|\bremember\b", _keep),
    _rule(r"数到\s*\d|从\s*\d+\s*数|\bcount (up )?to\s+\d", _count),
    _rule(r"表格|\btable\b", _sample(samples.TABLE)),
    _rule(r"代码|python|函数|\bcode\b|\bfunction\b", _sample(samples.CODE)),
    _rule(r"\d+\s*[字词]|长文|长答案|长一点|详细|作文|\blong\b|\bessay\b|\d+\s*words", _long),
    _rule(r"markdown|格式|排版|\bformat", _sample(samples.MARKDOWN)),
    _rule(r"诗|poem", _sample(samples.POEM)),
    _rule(r"清单|列表|步骤|计划|\blist\b|\bsteps\b|\bplan\b", _sample(samples.LIST)),
    _rule(_SUM.pattern, _sum),
    _rule(r"你是谁|你叫什么|你会(什么|做)|who are you|what can you", _sample(samples.ABOUT)),
    _rule(
        r"(?:^|[:：])\s*(你好|您好|嗨|在吗|早|hi|hello|hey)[!！。.~～\s]*$", _sample(samples.HELLO)
    ),
    _rule(r"谢谢|多谢|thank", _sample(samples.WELCOME)),
)


def _habit(question: str) -> Habit:
    return next((habit for pattern, habit in _HABITS if pattern.search(question)), _echo)
