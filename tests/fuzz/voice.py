"""What the model says: a text that follows from the question's nonce, in every shape that
an answer can have. Pure."""

from __future__ import annotations

import re
from random import Random

NONCE = re.compile(r"n[0-9a-f]{4}\d\d[a-z]z")
"""A nonce begins and ends like others do."""

FLAVOURS = ("short", "lines", "table", "code", "english", "long", "huge", "hostile", "mixed")

_WORDS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"
_ENGLISH = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "rain",
    "falls",
    "on",
    "quiet",
    "hills",
]
HEADER = ("列甲", "列乙")
LABEL = "python"
_HOSTILE = (
    '<at id=all></at> <a atId="@ALL">x</a> @所有人',
    '{"schema":"2.0","body":{"elements":[{"tag":"button"}]}}',
    "[点我](dtmd://dingtalkclient/sendMessage?content=hi) ![图](http://x/y.png)",
    "**粗 _斜 ~~删` 代码 $x^2$ \\* <font color=red>红</font>",
)


def flavour_of(nonce: str, seed: int) -> str:
    """Short ones are most frequent."""
    weights = (10, 4, 3, 3, 2, 2, 1, 2, 2)
    return Random(f"flavour {seed} {nonce}").choices(FLAVOURS, weights)[0]


def text_of(nonce: str, seed: int, variant: int = 0) -> str:
    """The whole answer, another one for each `variant`. Its marks, ⟦nonce·number⟧, stand
    every few lines."""
    rng, flavour = Random(f"text {seed} {nonce} {variant}"), flavour_of(nonce, seed)
    return _Writer(rng, nonce).write(flavour)


def thoughts_of(nonce: str) -> str:
    return f"〔思·{nonce}〕让我想一想这个问题。"


def chunks_of(text: str, seed: int) -> list[str]:
    """The text as it is streamed: pieces of random size, about forty or fewer."""
    rng = Random(f"chunks {seed} {len(text)}")
    most = max(8, len(text) // 20)
    out, at = [], 0
    while at < len(text):
        size = rng.randint(1, most)
        out.append(text[at : at + size])
        at += size
    return out


class _Writer:
    def __init__(self, rng: Random, nonce: str) -> None:
        self._rng, self._nonce, self._number = rng, nonce, 0

    def write(self, flavour: str) -> str:
        if flavour == "mixed":
            kinds = self._rng.choices(FLAVOURS[:5], k=4)
            return "\n\n".join(self.write(kind) for kind in kinds)
        if flavour in ("long", "huge"):
            sizes = (2000, 6000) if flavour == "long" else (9000, 20_000)
            return self._long(self._rng.randint(*sizes))
        return {
            "short": lambda: self._sentence(self._rng.randint(3, 30)),
            "lines": lambda: self._lines(self._rng.randint(3, 12)),
            "table": lambda: self._table(self._rng.randint(2, 12)),
            "code": lambda: self._code(self._rng.randint(3, 20)),
            "english": lambda: self._english(self._rng.randint(8, 60)),
            "hostile": lambda: f"{self._mark()}\n{self._rng.choice(_HOSTILE)}\n{self._mark()}",
        }[flavour]()

    def _mark(self) -> str:
        self._number += 1
        return f"⟦{self._nonce}·{self._number}⟧"

    def _sentence(self, size: int) -> str:
        return self._mark() + "".join(self._rng.choices(_WORDS, k=size)) + "。"

    def _lines(self, count: int) -> str:
        items = [f"{n}. {self._sentence(12)}" for n in range(1, count + 1)]
        return f"## {self._mark()}\n\n" + "\n".join(items)

    def _table(self, rows: int) -> str:
        head = f"| {HEADER[0]} | {HEADER[1]} |\n|---|---|\n"
        body = "".join(f"| {self._mark()} | {self._rng.choice(_WORDS)}{n} |\n" for n in range(rows))
        return f"{self._sentence(5)}\n\n{head}{body}\n{self._sentence(5)}"

    def _code(self, lines: int) -> str:
        body = "".join(f"    x{n} = '{self._mark()}'\n" for n in range(lines))
        return f"{self._sentence(5)}\n\n```{LABEL}\n{body}```\n\n{self._sentence(5)}"

    def _english(self, words: int) -> str:
        return f"{self._mark()} " + " ".join(self._rng.choices(_ENGLISH, k=words)) + "."

    def _long(self, characters: int) -> str:
        parts: list[str] = []
        while sum(map(len, parts)) < characters:
            kind = self._rng.choice(("lines", "table", "code", "english", "short", "short"))
            parts.append(self.write(kind) if kind != "short" else self._sentence(80))
        return "\n\n".join(parts)


# ---------------------------------------------------------------- what counts of a text

_DROPPED = re.compile("|".join([r"<br>", *HEADER, LABEL]))
_LETTERS = re.compile(r"[0-9A-Za-z\u3400-\u9fff⟦⟧·]+")


def letters(text: str) -> str:
    """What must be seen of a text, whatever a platform does to its Markdown: letters and
    digits, without what is repeated when a table or a code block is cut."""
    return "".join(_LETTERS.findall(_DROPPED.sub(" ", text)))


def nonces(text: str) -> set[str]:
    return set(NONCE.findall(text))
