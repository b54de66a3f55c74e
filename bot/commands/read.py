"""Text to command (pure)."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

WORDS: dict[str, tuple[str, ...]] = {
    "help": ("帮助",),
    "new": ("新对话", "reset", "重置"),
    "stop": ("停止",),
    "retry": ("重试",),
    "status": ("状态",),
    "whoami": ("我是谁",),
    "usage": ("用量",),
    "model": ("模型",),
    "persona": ("人设",),
    "reasoning": ("思考",),
    "why": ("为什么",),
    "admin": ("管理",),
}
"""Each command and the words that mean the same."""

QUESTIONS = ("我是谁", "模型", "思考", "人设", "为什么", "管理")

ALONE = {
    word
    for words in WORDS.values()
    for word in words
    if not word.isascii() and word not in QUESTIONS
}
"""Chinese words that are a command without a slash, when they are the whole message.
The others are too likely to be a question or an answer in themselves."""

_SLASHED = re.compile(r"[/／]([A-Za-z\u4e00-\u9fff][\w-]{0,30})(?:\s+(.*))?$", re.S)


@dataclass(frozen=True, slots=True)
class Command:
    """`name` is a key of WORDS, or what was typed when `known` is false; then `near` is
    the nearest command, or empty."""

    name: str
    argument: str = ""
    known: bool = True
    near: str = ""


def read(text: str) -> Command | None:
    """The command in `text`, or None when it is an ordinary message. A path such as
    /usr/bin is an ordinary message."""
    text = text.strip()
    if text in ALONE:
        return Command(_meaning(text))
    match = _SLASHED.match(text)
    if match is None:
        return None
    word, argument = match[1].casefold(), (match[2] or "").strip()
    name = _meaning(word)
    if name:
        return Command(name, argument)
    return Command(word, argument, known=False, near=_nearest(word))


def _meaning(word: str) -> str:
    for name, words in WORDS.items():
        if word == name or word in words:
            return name
    return ""


def _nearest(word: str) -> str:
    known = [*WORDS, *(other for words in WORDS.values() for other in words)]
    near = difflib.get_close_matches(word, known, 1, cutoff=0.5)
    return _meaning(near[0]) if near else ""
