"""Every sentence a person can see, in Chinese and English.

A key names a sentence; `say` fills it in. The two tables have the same keys and the same
blanks, and a test holds them to it.
"""

from __future__ import annotations

import re
from typing import Literal

from bot.texts.en import SENTENCES as EN
from bot.texts.zh import SENTENCES as ZH

Lang = Literal["zh", "en"]

TABLES = {"zh": ZH, "en": EN}


def say(key: str, lang: str, /, **blanks: object) -> str:
    """The sentence `key` in `lang`; any language but `en` gives Chinese."""
    return TABLES.get(lang, ZH)[key].format(**blanks)


def both(key: str, /, **blanks: object) -> str:
    """Chinese and English on two lines, for people whose language is unknown."""
    return f"{say(key, 'zh', **blanks)}\n{say(key, 'en', **blanks)}"


def beside(key: str, /, **blanks: object) -> str:
    """Chinese and English on one line, for the operator."""
    return f"{say(key, 'zh', **blanks)} / {say(key, 'en', **blanks)}"


def knows(key: str) -> bool:
    return key in ZH


_CHINESE = re.compile("[\u4e00-\u9fff\u3400-\u4dbf]")
_LATIN = re.compile("[A-Za-z]")


def language_of(text: str, otherwise: str) -> str:
    """`zh` when the text has a Chinese character, `en` when it has letters of the Latin
    alphabet only, else `otherwise`."""
    if _CHINESE.search(text):
        return "zh"
    return "en" if _LATIN.search(text) else otherwise
