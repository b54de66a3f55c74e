"""Law 11 in both dialects: whatever reading of the Markdown a platform has, text of the
model pings nobody and draws nothing; and what is code for certain stays as it is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.dingtalk.card import final_card_text, message_text
from adapters.dingtalk.foreign_text import BREAK, with_breaks, without_tables
from adapters.dingtalk.foreign_text import safe as dingtalk
from adapters.dingtalk.settings import Template
from adapters.feishu.card import draw, face
from adapters.feishu.foreign_text import safe as feishu
from adapters.markdown_code import Kind, parts
from adapters.playground.dingtalk.pings import card_pings, live_links
from adapters.playground.feishu import tags
from adapters.playground.feishu.render import of_card
from bot.blocks import Kind as Line
from bot.blocks import kinds
from bot.contract import Snapshot

BOTH = pytest.mark.parametrize("safe", [feishu, dingtalk], ids=["feishu", "dingtalk"])
LIVE = re.compile(r"<(?=/?[A-Za-z])")
Safe = Callable[[str], str]

# ---------------------------------------------------------------- fences

FOOLED = [
    "- ```\n  x\n  ```\n{}",
    "* ```py\n  x\n  ```\n{}",
    "1. ```\n   x\n   ```\n{}",
    "10) ~~~\n    x\n    ~~~\n{}",
    "- - ```\n    x\n    ```\n{}",
    "- a\n  1. ```\n     x\n     ```\n{}",
    "> ```\n> x\n> ```\n{}",
    "> ```\n{}",
    "> - ```\n>   x\n>   ```\n{}",
    "- > ```\n{}",
    "-\t```\n\tx\n\t```\n{}",
    "- a\n\n  ```\n{}",
    "- a\n\n  ```\n  x\n```\n\n```\n{}",
    "10. a\n    ```\n    x\n    ```\n{}",
    "```\n```\u00a0\n```\n{}",
    "```\rx\r```\r{}\r",
    "```\nx\r```\r\n{}",
    "``` | a\n|---|---|\n{}",
    "<br>\n```\n{}",
    "- <br/>\n  ```\n  {}",
    "```x``` y\n```\nz\n```\n{}",
]
"""Texts that end outside code in some reading."""


@BOTH
@pytest.mark.parametrize("text", FOOLED)
@pytest.mark.parametrize("tag", ["<button>hi</button>", "<font color='red'>x</font>"])
def test_what_may_be_prose_draws_nothing(safe: Safe, text: str, tag: str) -> None:
    last = safe(text.format(tag)).rstrip("\n").split("\n")[-1]
    assert "hi" in last or "x" in last
    assert not LIVE.search(last)


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "```html\n<b>\n```",
        "1. a\n   ```html\n   <b>\n\n   <i>\n   ```\n2. c\n   ~~~\n   <b>\n   ~~~",
        "- ```\n  x\n  ```\n\n```html\n<b>\n```\n\n```\n<i>\n```",
        "> ```\n> x\n\n```html\n<b>\n```",
        "2. a\n   ```py\nx\n   ```\n\n```py\n<b>\n```",
        "````\n```\n<b>\n````",
        "```\n~~~\n<b>",
        "a `<b>` b ``<i> ` ``, `List<int>`",
    ],
)
def test_what_is_code_for_certain_is_kept(safe: Safe, text: str) -> None:
    assert safe(text) == text


# ---------------------------------------------------------------- code spans


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "a ` b\nc ` <button> `",
        "a `` b\n` c `` <button> `",
        "\\` <button> `",
        "`a\\` <button> `",
        "| ` | <button> ` |\n|---|---|",
        "a\n| ` | ` <button> `",
    ],
)
def test_a_torn_code_span_hides_no_tag(safe: Safe, text: str) -> None:
    assert not LIVE.search(safe(text))


@BOTH
@pytest.mark.parametrize("tag", ["<!-- x", "<?php", "<![CDATA["])
def test_no_comment_hides_a_fence(safe: Safe, tag: str) -> None:
    assert not re.search(r"<[!?]", safe(f"{tag}\n```\n-->"))


def test_a_doubtful_code_span_keeps_what_is_no_tag_of_feishu() -> None:
    assert feishu("`Promise<string | null>`") == "`Promise<string | null>`"
    assert feishu("`a | <at id=all>`") == "`a | &lt;at id=all>`"
    assert feishu("`a | ![x](http://y)`") == "`a | [x](http://y)`"
    assert feishu("` a\n`x <b>`\n\n`y <b>`") == "` a\n`x &lt;b>`\n\n`y <b>`"


# ---------------------------------------------------------------- any text

MARKS = ["```", "````", "~~~", "`", "``", "\\", "|", "\n", "\n", "\n\n", "- ", "1. ", "10. ", "> "]
SPACES = [" ", "  ", "    ", "\t", "\u2028", "\u00a0", "\n```\n", "\n- ```\n", "\n   ```\n"]
TAGS = ["<at id=all></at>", "<button>hi</button>", "<person id='x'>", "<font color='red'>", "</"]
TAGS += ["<a atId=0123>", "<b>", "<br>", "<", "<!--", "-->", "at ", "x", "py\n", "字", "|-|-|\n"]
texts = st.lists(st.sampled_from(MARKS + SPACES + TAGS), max_size=24).map("".join)


def prose(text: str) -> Iterator[str]:
    """Lines outside fences without their code spans: as the sender of long texts reads
    them, and as a reader that knows no containers."""
    for kind, line in kinds(text.split("\n")):
        if kind not in (Line.FENCE, Line.CODE):
            yield SPAN.sub("", line)
    yield SPAN.sub("", FLAT.sub("", text))


SPAN = re.compile(r"(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)")
FLAT = re.compile(
    r"^ {0,3}(?:((`)\2{2,})[^`\n]*|((~)\4{2,}).*)$(?s:.*?)(?:^ {0,3}(?:\1\2*|\3\4*)[ \t]*$|\Z)",
    re.MULTILINE,
)


def assert_harmless(shown: str) -> None:
    for line in prose(shown):
        assert not re.search(r"<(?=/?(?:at|button|person|font|b)\b|!)", line)


@settings(max_examples=400, deadline=None)
@given(texts)
@example("- ```\n  x\n  ```\n<button>hi</button>")
@example("> ```\n<at id=all></at>")
def test_feishu_shows_the_words_and_nothing_more(text: str) -> None:
    card = draw(face(Snapshot(text=text, state="answered")))
    picture = of_card(card, lambda _: "Ann")
    assert picture.pings == [] and picture.buttons == {}
    assert "".join(block.text for block in picture.blocks).strip() in (text.strip(), "")
    assert bool(picture.blocks) == bool(text.strip())
    assert_harmless(feishu(text))


@settings(max_examples=400, deadline=None)
@given(texts)
def test_a_growing_text_is_never_taken_back(text: str) -> None:
    before = ""
    for end in range(len(text) + 1):
        shown = feishu(text[:end], growing=True)
        assert shown.startswith(before)
        before = shown
    assert feishu(text).startswith(before)


@settings(max_examples=400, deadline=None)
@given(texts)
@example("- ```\n  x\n  ```\n<a atId=1>")
@example("`` ` [t](dtmd://x)\n``")
def test_dingtalk_shows_the_words_and_nothing_more(text: str) -> None:
    shown = dingtalk(text)
    assert shown.replace(BREAK, "") == text
    assert_harmless(shown)
    snapshot = Snapshot(text=text, state="answered")
    for sent in (message_text(snapshot), final_card_text(snapshot, Template("x", "content"))):
        assert card_pings(sent) == [] and live_links(sent) == []


@settings(max_examples=400, deadline=None)
@given(texts, st.booleans())
def test_the_pieces_are_the_text(text: str, growing: bool) -> None:
    pieces = list(parts(text, growing=growing))
    assert "".join(piece for _, piece in pieces) == text
    undecided = [at for at, (kind, _) in enumerate(pieces) if kind is Kind.UNDECIDED]
    assert undecided in ([], [len(pieces) - 1] if growing else [])


def test_too_many_readings_are_no_code() -> None:
    openers = "".join(f"- {'`' * size}\n" for size in range(3, 20))
    assert "<b>" not in feishu(f"{openers}\n```html\n<b>\n```\n<b>")


# ---------------------------------------------------------------- lines and time


def test_only_a_line_feed_ends_a_line() -> None:
    for end in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"):
        assert dingtalk(f"a{end}```\n<font>") == f"a{end}```\n<{BREAK}font>"
        assert with_breaks(f"a{end}```\nb\nc", "<br>") == f"a{end}```<br>\nb<br>\nc"
        assert without_tables(f"a{end}```\n\nh|i\n-|-\n1|2") == f"a{end}```\n\n- h: 1; i: 2"


def test_code_in_lists_gets_no_line_breaks() -> None:
    text = "- ```\n  a\n  b\n  ```\n\n10. c\n    ```\n    d\ne\n    ```"
    assert with_breaks(text, "<br>") == text
    table = "- ```\n  a|b\n  -|-\n  ```"
    assert without_tables(table) == table


def lengths(size: int) -> str:
    """Runs of backticks of which no two are alike, about `size` characters."""
    return " ".join("`" * run for run in range(1, int((2 * size) ** 0.5)))


JUNK: dict[str, Callable[[int], str]] = {
    "lengths": lambda size: lengths(4 * size),
    "ticks": lambda size: "` `` " * (size // 5),
    "many readings": lambda size: lengths(size // 2).replace(" ", "\n- ") + "\n" * (size // 2),
    "links": lambda size: "](" * (size // 2),
    "addresses": lambda size: "]:x" * (size // 3),
    "anchors in code": lambda size: "```\n" + "<a " * (size // 3),
    "spaces in code": lambda size: "```\n<" + " " * size,
    "spaces": lambda size: "]:" + " " * size,
    "markers": lambda size: "- " * (size // 2) + "``",
}


@BOTH
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_costs_no_more_than_its_size(safe: Safe, junk: Callable[[int], str]) -> None:
    def cost(size: int) -> float:
        text = junk(size)
        start = time.process_time()
        safe(text)
        return time.process_time() - start

    cost(100)
    assert cost(64_000) < 40 * cost(4_000) + 0.3


def test_a_long_address_hides_no_scheme() -> None:
    for noise in ("\u200b", "\\", "&#8203;", "%00"):
        assert f"]{BREAK}(" in dingtalk(f"[t]({noise * 400}javascript:alert(1))")
    assert BREAK not in dingtalk(f"[t](https://x.y/{'z' * 500}) [t](#{'%E5' * 200})")


# ---------------------------------------------------------------- tables, as Feishu counts


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("| a | b |\n|---|---|\n| - | - |", 1),
        ("| a | b |\n|---|---|\n| - | - |\n| - | - |\n\n| a |\n|---|", 2),
        ("|---|\n|---|", 1),
        ("|---|\n\n|---|", 0),
        ("| a |\n|---|\n| 1 |\ntext\n| - |\n|---|", 2),
    ],
)
def test_a_row_of_dashes_is_no_table_of_its_own(text: str, count: int) -> None:
    assert tags.tables(text) == count
