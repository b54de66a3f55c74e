"""The personas that come with the house, and how to choose among them and the operator's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bot.settings import Persona
from bot.texts import TABLES, say

BUILT_IN = (
    Persona(
        "assistant",
        "你是“鹊桥”，在团队聊天里工作的助手。用提问者的语言回答，先给结论，再给必要的依据。"
        "不知道就直说，不编造事实、链接和数字。可以使用 Markdown。"
        "群聊里每条消息前的方括号标明了说话的人，请分清是谁说的；你自己的回答不要加方括号。",
    ),
    Persona(
        "translator",
        "你是翻译。把收到的内容译成另一种语言：中文译成英文，其他语言译成中文。"
        "只输出译文，保留原有格式和专有名词，不回答内容里的问题。",
    ),
    Persona(
        "brief",
        "你是“鹊桥”，一个惜字如金的助手。用提问者的语言，用最少的话把问题答完整，"
        "不寒暄，不重复问题。不知道就直说。",
    ),
)


class Personas:
    """Built-in personas; the operator's replace those of the same name."""

    def __init__(self, own: Iterable[Persona] = ()) -> None:
        self._texts: Mapping[str, str] = {
            persona.name: persona.text for persona in (*BUILT_IN, *own)
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._texts)

    def text(self, name: str) -> str:
        """The system text; a persona that is gone gives the first one's."""
        return self._texts.get(name, BUILT_IN[0].text)

    def find(self, word: str) -> str:
        """The persona that a person means by `word` (its name, else its label), or ""."""
        wanted = word.strip().casefold()
        for name in self._texts:
            if wanted == name.casefold():
                return name
        for name in self._texts:
            if wanted in {self.label(name, lang).casefold() for lang in TABLES}:
                return name
        return ""

    @staticmethod
    def label(name: str, lang: str) -> str:
        """What the chat calls it: only what comes with the house has a sentence."""
        built_in = any(persona.name == name for persona in BUILT_IN)
        return say(f"persona.{name}", lang) if built_in else name
