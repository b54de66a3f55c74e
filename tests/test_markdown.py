"""bot/markdown.py: nothing is lost, nothing is cut apart, nothing changes afterwards."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.markdown import Cutter, Part, clean, complete, fit_tables, preview

lawful = settings(deadline=None, max_examples=100)

FAMILY = "👨‍👩‍👧"
FLAG = "🇨🇳"
ROW = "| 1 | 2 |\n"
TABLE = "| a | b |\n|---|---|\n"

# ---------------------------------------------------------------- texts

TOKENS = [
    *("```", "````", "```python\n", "~~~", "~~~~", "`", "`x`", "\n```\n"),
    *("\n", "\n\n", " ", "    ", "\t", "\\", "word ", "word. ", "中文。", "中文", "x" * 70),
    *("| a | b |\n", "|---|---|\n", "a | b\n", "# h", "\n## h\n", "> ", "[a](b)", "![", "]("),
    *(FAMILY, FLAG, "e\u0301", "https://a.example/b", "中" * 40),
]
noise = st.lists(st.sampled_from(TOKENS), max_size=60).map("".join)

SENTENCES = ["今天的天气很好，适合出门。", "你好！", "A sentence in Latin script. ", "`code` and "]
paragraph = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=30).map("".join)
heading = st.sampled_from(["# One", "## 二", "### Three"])
items = st.integers(1, 12).map(lambda n: "\n".join(f"{i}. item {i}" for i in range(1, n + 1)))


@st.composite
def code(draw: st.DrawFn) -> str:
    marks = draw(st.sampled_from(["```", "~~~", "`````"]))
    lines = draw(st.lists(st.sampled_from(["x = 1", "", "    return 中", "# no heading", "a | b"])))
    return "\n".join([marks + draw(st.sampled_from(["", "python", "c++ {1,2}"])), *lines, marks])


@st.composite
def table(draw: st.DrawFn) -> str:
    rows = draw(st.lists(st.sampled_from(["| 1 | 2 |", "| 中文 | `b` |", "| - | - |"])))
    return "\n".join(["| name | value |", "| --- | :-: |", *rows])


blocks = st.lists(st.one_of(paragraph, heading, items, code(), table()), max_size=12)
documents = blocks.map("\n\n".join)
texts = st.one_of(noise.map(clean), documents)
limits = st.integers(64, 400)


def shown(text: str, part: Part) -> str:
    return f"{part.opening}{text[part.start : part.end]}{part.closing}"


def cut(text: str, limit: int) -> list[str]:
    return [shown(text, part) for part in Cutter(limit).parts(text)]


def fences(text: str) -> list[tuple[str, str, str]]:
    """Each line with the marks of the fence open above and below it (CommonMark 4.5)."""
    found, fence = [], ""
    for line in text.split("\n"):
        above = fence
        if not fence and (opening := re.match(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})", line)):
            fence = opening[1]
        elif fence and re.fullmatch(rf" {{0,3}}{re.escape(fence)}{fence[0]}*[ \t]*", line):
            fence = ""
        found.append((line, above, fence))
    return found


def open_fence(text: str) -> str:
    return fences(text)[-1][2]


def code_lines(text: str) -> list[tuple[bool, str]]:
    """(is in a fence or is one of its two lines, line)."""
    return [(bool(above or below), line) for line, above, below in fences(text)]


def table_count(text: str) -> int:
    """Tables of GFM (4.10) outside fences."""
    count, inside, above = 0, False, ""
    for fenced, line in code_lines(text):
        bars = 0 if fenced else line.strip().strip("|").count("|") + 1
        dashes = re.fullmatch(r"\s*\|?(\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*", line) is not None
        begins = dashes and "|" in line and "|" in above and not above.startswith("#")
        inside = not fenced and "|" in line and not line.startswith("#") and inside
        if not inside and not fenced and begins and above.strip().strip("|").count("|") + 1 == bars:
            count, inside = count + 1, True
        above = "" if fenced else line
    return count


# ---------------------------------------------------------------- cutting: laws


@lawful
@given(texts, limits)
def test_parts_cover_the_text_and_fit(text: str, limit: int):
    parts = Cutter(limit).parts(text)
    assert "".join(text[part.start : part.end] for part in parts) == text
    assert (parts[0].start, parts[-1].end) == (0, len(text))
    assert all(one.end == two.start for one, two in pairwise(parts))
    assert all(part.start < part.end for part in parts) or not text
    assert max(len(shown(text, part).encode()) for part in parts) <= limit


@lawful
@given(texts, limits)
def test_every_part_closes_what_it_opens(text: str, limit: int):
    *sealed, last = cut(text, limit)
    assert [part for part in sealed if open_fence(part) or complete(part) != part] == []
    assert len(complete(last).encode()) <= limit


@lawful
@given(texts, limits, st.lists(st.sampled_from([1, 1, 2, 3, 7, 40]), min_size=1))
def test_growing_text_is_cut_like_text_that_was_there_at_once(
    text: str, limit: int, steps: list[int]
):
    cutter, before, at, turn = Cutter(limit), list[Part](), 0, 0
    while at < len(text):
        at, turn = at + steps[turn % len(steps)], turn + 1
        parts = cutter.parts(text[:at])
        assert not before or parts[: len(before) - 1] == before[:-1]
        before = parts
    assert not text or before == Cutter(limit).parts(text)


@lawful
@given(documents, st.integers(200, 600))
def test_parts_are_not_tiny(text: str, limit: int):
    parts = Cutter(limit).parts(text)
    assert all(len(shown(text, part).encode()) >= limit // 4 for part in parts[:-1])


@lawful
@given(documents, st.integers(100, 400))
def test_code_stays_code_and_prose_stays_prose(text: str, limit: int):
    """Line by line, as the parts alone would be read."""
    alone = list[tuple[bool, str]]()
    for part in Cutter(limit).parts(text):
        lines = code_lines(shown(text, part))
        first = part.opening.count("\n")
        last = len(lines) - (1 if part.closing else 0)
        alone += [(fenced, line) for fenced, line in lines[first:last] if line.strip()]
    whole = {line for fenced, line in code_lines(text) if fenced}
    assert all(line in whole for fenced, line in alone if fenced)


@lawful
@given(texts, st.integers(100, 300), st.data())
def test_shrinking_keeps_what_stands_before(text: str, limit: int, data: st.DataObject):
    cutter = Cutter(limit)
    before = cutter.parts(text)
    for _ in range(3):
        index = data.draw(st.integers(0, len(before) - 1))
        size = data.draw(st.integers(64, limit))
        cutter.shrink(index, size)
        parts = cutter.parts(text)
        assert parts[:index] == before[:index]
        assert all(len(shown(text, part).encode()) <= size for part in parts[index:])
        assert "".join(text[part.start : part.end] for part in parts) == text
        before = parts


@lawful
@given(texts, limits)
def test_sizes_are_those_of_what_is_shown(text: str, limit: int):
    cutter = Cutter(limit)
    parts = cutter.parts(text)
    sizes = [cutter.size_of(index) for index in range(len(parts))]
    assert sizes == [len(shown(text, part).encode()) for part in parts]


# ---------------------------------------------------------------- cutting: cases


def test_no_text_is_one_empty_part():
    assert Cutter(1000).parts("") == [Part(0, 0)]


def test_text_that_fits_is_one_part():
    text = "中" * 20
    assert Cutter(60).parts(text + "文")[0].end < 21
    assert Cutter(60).parts(text) == [Part(0, 20)]


LINES = "words of one line here\nand words of the second line\n"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("一段。\n二段长一些的文字。\n\n三" + "字" * 30, "一段。\n二段长一些的文字。\n\n"),
        (f"{LINES}# head\nmore words", LINES),
        (f"{LINES}third line of words and more", LINES),
        ("一" * 16 + "。" + "二" * 10, "一" * 16 + "。"),
        ("He went home quite early. “Why?” " + "x" * 50, "He went home quite early. “Why?” "),
        ("a" * 40 + " " + "b" * 40, "a" * 40 + " "),
        ("字" * 40, "字" * 21),
        (
            f"# At the end\n{'word ' * 5}\n\n# Next\n\n{'x' * 40}",
            "# At the end\n" + "word " * 5 + "\n\n",
        ),
    ],
    ids=["blank", "heading", "line", "zh", "latin", "space", "anywhere", "heading-with-text"],
)
def test_where_it_is_cut(text: str, first: str):
    assert cut(text, 64)[0] == first


@pytest.mark.parametrize("short", ["short\n\n", "short\n", "short. ", "short "])
def test_a_cut_leaves_at_least_half_a_part(short: str):
    assert len(cut(short + "字" * 40, 64)[0].encode()) > 60


def test_below_a_table_is_a_good_place_to_cut():
    first, *_ = cut(TABLE + ROW * 4 + "text\n" * 20, 100)
    assert first == TABLE + ROW * 4


@pytest.mark.parametrize("below", ["```py\n", TABLE], ids=["fence", "table"])
def test_a_long_heading_is_parted_from_its_block_rather_than_the_block_torn(below: str):
    heading = f"# {'h' * 60}\n"
    assert cut(f"{heading}{below}{'|' + 'x' * 100}", 110)[0] == heading


@pytest.mark.parametrize(
    "unit", [FAMILY, FLAG, "e\u0301", "❤\ufe0f", "👍🏽", "1\ufe0f\u20e3", "\\*", "**"]
)
@pytest.mark.parametrize("shift", range(12))
def test_one_character_is_never_parted(unit: str, shift: int):
    text = "x" * shift + f"{unit}字" * 60
    for part in cut(text, 100)[1:]:
        assert part.startswith((unit, "字")), part


@pytest.mark.parametrize(
    "span",
    ["`a b c d e f`", "``a ` b``", "[a b c](http://x/y z)", "![a b](u)", "https://a.b/c?d=e"],
)
@pytest.mark.parametrize("shift", range(20))
def test_spans_stay_whole(span: str, shift: int):
    text = "字" * shift + f"{span}字字" * 20
    assert "".join(cut(text, 100)) == text
    for part in cut(text, 100):
        assert re.sub(re.escape(span), "", part).strip("字") == ""


def test_a_span_longer_than_a_part_is_cut_all_the_same():
    text = "[" + "a" * 300 + "](b)"
    assert "".join(cut(text, 64)) == text


def test_a_fence_is_closed_and_opened_again():
    body = "".join(f"line_{n} = {n}\n" for n in range(30))
    parts = cut(f"Look:\n\n```python\n{body}```\nDone.", 200)
    assert len(parts) > 2
    assert all(part.startswith("```python\n") and part.endswith("\n```") for part in parts[1:-1])
    assert parts[-1].startswith("```python\n")
    assert parts[-1].endswith("```\nDone.")


@pytest.mark.parametrize("marks", ["~~~", "`````", "  ```", "~~~~~~"])
def test_a_fence_is_opened_again_with_its_own_marks(marks: str):
    parts = cut(f"{marks}sh\n" + "```x\n" * 40 + marks, 100)
    assert all(part.startswith(f"{marks}sh\n") for part in parts)
    assert all(part.endswith(f"\n{marks}") for part in parts)


def test_a_line_cut_inside_a_fence_gets_its_own_line_end():
    parts = Cutter(64).parts("```\n" + "x" * 100 + "\n```")
    assert (parts[0].closing, parts[1].opening) == ("\n```", "```\n")


def test_a_long_info_string_is_not_repeated():
    assert Cutter(64).parts("```" + "i" * 30 + "\n" + "x\n" * 40)[1].opening == "```\n"


@pytest.mark.parametrize("length", range(20, 60))
def test_no_part_begins_with_an_empty_fence(length: int):
    text = "```py\n" + "x" * length + "\n```\n\nmore text that goes on and on"
    for part in cut(text, 64):
        assert not re.match(r"```py\n```", part)


@pytest.mark.parametrize("length", range(45, 65))
@pytest.mark.parametrize("below", ["```", "````py", "~~~\n", "```\nx\n"])
def test_the_last_part_has_room_for_its_closing(length: int, below: str):
    *_, last = cut("x" * length + "\n" + below, 64)
    assert len(complete(last)) <= 64


def test_a_fence_in_a_list_is_closed_where_it_stands():
    body = "     x = 1\n" * 10
    parts = cut(f"- a\n\n   - b\n\n     ```py\n{body}     ```\n", 100)
    assert parts[0].endswith("\n     ```")
    assert parts[1].startswith("     ```py\n")
    assert parts[-1].endswith("x = 1\n     ```\n")


def test_a_table_repeats_its_header():
    parts = cut(TABLE + ROW * 30, 100)
    assert len(parts) > 3
    assert all(part.startswith(TABLE + ROW) for part in parts)
    assert all(part.endswith(ROW) for part in parts)
    assert sum(part.count(ROW) for part in parts) == 30


def test_rows_without_outer_bars_repeat_their_header_too():
    parts = cut("a | b\n--|--\n" + "1 | 2\n" * 30, 100)
    assert all(part.startswith("a | b\n--|--\n1 | 2\n") for part in parts)


def test_a_header_that_fills_the_part_is_not_repeated():
    head = f"| {'a' * 30} | b |\n|---|---|\n"
    parts = Cutter(100).parts(head + ROW * 30)
    assert {part.opening for part in parts} == {""}


@pytest.mark.parametrize("rows", range(1, 12))
@pytest.mark.parametrize("below", ["\nafter the table there is some text", "# head\nand text"])
def test_no_part_begins_with_an_empty_table(rows: int, below: str):
    for limit in range(64, 84):
        for part in cut(TABLE + ROW * rows + below, limit):
            assert not part.startswith(TABLE) or part.startswith(TABLE + ROW)


@pytest.mark.parametrize("length", range(50, 118))
def test_header_and_rows_stay_together(length: int):
    text = "x" * length + "\n" + TABLE + ROW * 3
    for part in cut(text, 120):
        assert not part.endswith(("| a | b |\n", "|---|---|\n"))


@pytest.mark.parametrize("gap", ["\n\n", "\n"])
@pytest.mark.parametrize("block", [TABLE + ROW * 4, "```\n" + "code\n" * 8 + "```\n"])
def test_a_block_moves_whole_to_the_next_part(block: str, gap: str):
    before = "text " * 12 + gap
    assert cut(before + block, 100) == [before, block]


def test_a_block_keeps_its_heading():
    before = "text " * 12 + "\n\n"
    assert cut(f"{before}## Head\n\n{TABLE}{ROW * 4}", 100)[0] == before


def test_rows_are_cut_apart_only_alone():
    row = f"| {'长' * 55} | b |\n"
    assert cut(TABLE + row * 3, 200) == [TABLE + row] * 3
    assert cut(TABLE + ROW * 4 + row * 2, 200) == [TABLE + ROW * 4, TABLE + row, TABLE + row]


def test_below_a_row_longer_than_a_part_the_table_goes_on():
    parts = cut(f"{TABLE}| {'长' * 300} | b |\n{ROW * 30}", 200)
    assert all(part.startswith(TABLE) for part in parts)
    assert parts[-1].endswith(ROW)


@pytest.mark.parametrize("below", ["```\ncode\n```", "# head\ntext"])
@pytest.mark.parametrize("rows", range(1, 12))
def test_without_outer_bars_no_part_begins_with_an_empty_table(rows: int, below: str):
    head = "a | b\n--|--\n"
    for limit in range(64, 84):
        for part in cut(head + "1 | 2\n" * rows + below, limit):
            assert not part.startswith(head) or part.startswith(f"{head}1")


def test_a_fence_ends_a_table_even_with_a_bar_in_its_first_line():
    parts = cut(f"{TABLE}{ROW}```sh|x\ncode\n```\n{'p | q; ' * 2}\n" + "p | q\n" * 30, 100)
    assert [part.startswith(TABLE) for part in parts] == [True] + [False] * (len(parts) - 1)


@pytest.mark.parametrize("limit", range(64, 70))
def test_no_part_is_empty_while_blank_lines_of_code_arrive(limit: int):
    text = "```\nx\n" + "\n" * 100
    cutter = Cutter(limit)
    for end in range(1, len(text)):
        assert all(part.start < part.end for part in cutter.parts(text[:end]))


def test_shrinking_twice_takes_the_smaller_limit():
    text = "word " * 400
    cutter = Cutter(1000)
    first = cutter.parts(text)[0]
    cutter.shrink(1, 300)
    cutter.shrink(2, 900)
    parts = cutter.parts(text)
    assert parts[0] == first
    assert [cutter.size_of(index) <= 300 for index in range(len(parts))][1:] == [True] * (
        len(parts) - 1
    )
    cutter.shrink(0, 200)
    assert all(len(shown(text, part)) <= 200 for part in cutter.parts(text))


def test_a_fence_is_opened_again_after_shrinking():
    text = "```python\n" + "x = 1\n" * 100 + "```"
    cutter = Cutter(300)
    cutter.parts(text)
    cutter.shrink(1, 100)
    part = cutter.parts(text)[1]
    assert (part.opening, part.closing) == ("```python\n", "```")
    assert cutter.size_of(1) <= 100 < cutter.size_of(0)


def test_a_part_that_is_not_there_has_no_size():
    with pytest.raises(IndexError):
        Cutter(100).size_of(1)


# ---------------------------------------------------------------- clean


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("a\r\nb\rc\n\td", "a\nb\nc\n\td"),
        ("a\x00b\x07\x1b[31m\x7f\x85\x9fc", "ab[31mc"),
        ("\ufeffa\u202eb\u2066c\u2069", "abc"),
        ("a\ud83d b\ude00", "a\ufffd b\ufffd"),
        ("a\ud83d\ude00b", "a😀b"),
        ("held \r", "held "),
        ("held \ud83d", "held "),
        (f"{FAMILY} \u200b \u2028 \u3000 é", f"{FAMILY} \u200b \u2028 \u3000 é"),
    ],
)
def test_clean(dirty: str, cleaned: str):
    assert clean(dirty) == cleaned


DIRT = [*"ab\r\n\t\0\x1f\x85", "\ud83d", "\ude00", "\u202e", "\u2069", "\ufeff", "中", "😀", "\r\n"]
dirty_texts = st.lists(st.sampled_from(DIRT)).map("".join)


@lawful
@given(dirty_texts, dirty_texts)
@example("a\r", "\nb")
@example("\ud83d", "\ude00")
def test_clean_only_ever_appends(one: str, two: str):
    assert clean(one + two).startswith(clean(one))


@lawful
@given(dirty_texts)
def test_clean_once_is_enough(text: str):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    cleaned.encode()
    assert not re.search(
        "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]", cleaned
    )


# ---------------------------------------------------------------- complete


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", ""),
        ("plain `code", ""),
        ("```", "\n```"),
        ("```py", "\n```"),
        ("```py\nx = 1", "\n```"),
        ("```py\nx = 1\n", "```"),
        ("```py\nx = 1\n```", ""),
        ("```py\nx = 1\n```\n~~~~\n```", "\n~~~~"),
        ("`````md\n```\n```", "\n`````"),
        ("```a`b", ""),
        ("  ```\nx\n     ```", "\n  ```"),
        ("```\nx\n    ```", "\n```"),
        ("    ```\nindented code", ""),
        ("1. a\n\n    ```\n    x", "\n    ```"),
        ("- ```py\n  x", "\n  ```"),
        ("- a\n\nno list\n\n    ```\n", ""),
        ("> ```\n> x", ""),
    ],
)
def test_complete(text: str, added: str):
    assert complete(text) == text + added


@lawful
@given(texts)
def test_complete_closes_what_is_open(text: str):
    whole = complete(text)
    assert whole.startswith(text)
    assert open_fence(whole) == ""
    assert complete(whole) == whole
    assert bool(open_fence(text)) == (whole != text)


# ---------------------------------------------------------------- tables


def test_tables_beyond_the_first_become_code():
    text = f"{TABLE}{ROW}\ntext\n\n{TABLE}{ROW}\nend"
    assert fit_tables(text, 1) == f"{TABLE}{ROW}\ntext\n\n```\n{TABLE}{ROW}```\n\nend"
    assert fit_tables(text, 2) == text
    assert fit_tables(text, 0).count("```\n| a | b |") == 2


def test_the_fence_of_a_table_is_longer_than_any_in_it():
    text = f"{TABLE}| ```` | `x` |\n\n"
    assert fit_tables(text, 0) == f"`````\n{TABLE}| ```` | `x` |\n`````\n\n"


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_table_at_the_end_is_left_open(end: str):
    text = f"x\n{TABLE}| 1 | 2 |{end}"
    assert fit_tables(text, 0) == f"x\n```\n{TABLE}| 1 | 2 |{end}"
    assert complete(fit_tables(text, 0)) == f"x\n```\n{TABLE}| 1 | 2 |\n```"


def test_a_growing_table_stays_a_prefix():
    text = f"x\n\n{TABLE}{ROW * 3}\nafter\n"
    states = [fit_tables(text[:n], 0) for n in range(len(f"x\n\n{TABLE}"), len(text))]
    assert all(two.startswith(one) for one, two in pairwise(states))


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{TABLE}{ROW}```",
        "a | b\nno table",
        "a | b\n---\nheading",
        "# a | b\n|---|---|",
        "| a |\n\n|---|",
    ],
    ids=["code", "bars", "setext", "heading", "blank"],
)
def test_what_is_no_table(text: str):
    assert fit_tables(text, 0) is text


def test_without_a_bar_nothing_is_looked_at():
    text = "text\n---\n"
    assert fit_tables(text, 0) is text


@lawful
@given(texts, st.integers(0, 3))
def test_tables_fit_and_no_row_is_lost(text: str, tables: int):
    fitted = fit_tables(text, tables)
    assert table_count(complete(fitted)) <= tables
    left = iter(fitted.split("\n"))
    added = list[str]()
    for line in text.split("\n"):
        while (found := next(left)) != line:
            added.append(found)
    assert all(re.fullmatch("`{3,}", line) for line in [*added, *left])
    assert table_count(text) <= tables or fitted != text


@lawful
@given(texts, limits, st.integers(0, 2))
def test_cut_then_fitted_then_closed(text: str, limit: int, tables: int):
    """What a card gets (bot/reply.py)."""
    for part in cut(text, limit):
        whole = complete(fit_tables(part, tables))
        assert open_fence(whole) == ""
        assert table_count(whole) <= tables


# ---------------------------------------------------------------- preview


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("# 标题\n\n**粗** *斜* ~~删~~ `code` __b__ _i_", "标题 粗 斜 删 code b i"),
        ("[文字](https://a.b/c) ![图](img_key) [![x](y)](z)", "文字 图 x"),
        ("- one\n* two\n> three\n1. four\n\n---\nfive", "one two three 1. four five"),
        ("```py\n# *no*\nx = [a](b)\n```\nend", "# *no* x = [a](b) end"),
        (f"{TABLE}{ROW}", "a b 1 2"),
        ("snake_case 2*3 2 * 3 \\*no\\* a|b", "snake_case 2*3 2 * 3 *no* a|b"),
        ("a<br>b\u3000\tc", "a b c"),
        ("x" * 300, "x" * 99 + "…"),
        (f"{'x' * 98}e\u0301{'y' * 9}", "x" * 98 + "…"),
        ("#" * 6 + " " + "```\n" * 4000 + "end", "end"),
    ],
)
def test_preview(text: str, line: str):
    assert preview(text) == line


@lawful
@given(texts, st.integers(1, 120))
def test_a_preview_is_one_short_line(text: str, limit: int):
    line = preview(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())


MARKED = (
    "*",
    "**",
    "~~",
    "_",
    "`",
    "\\",
    "<br>",
    "[a](",
    "b)",
    "[",
    " ",
    "  ",
    "\n",
    "- ",
    "中",
    "x",
)
dense = st.lists(st.sampled_from(MARKED), max_size=200).map("".join)


@lawful
@given(st.one_of(texts, dense), st.integers(1, 30))
@example("字" * 39 + "*" * 60 + "字", 30)
@example("字" * 100 + "[字](" + "b" * 300 + ")", 30)
def test_a_preview_is_the_beginning_of_the_whole_plain_text(text: str, limit: int):
    line, whole = preview(text, limit), preview(text, len(text) + 1)
    if len(whole) <= limit:
        assert line == whole
    else:
        assert line.endswith("…")
        assert whole.startswith(line[:-1])


# ---------------------------------------------------------------- big inputs

SIZE = 200_000
BIG = {
    "ticks": "`" * SIZE,
    "runs": "".join("`" * n + " " for n in range(1, 630)),
    "bars": "|" * SIZE,
    "rows": "|\n" * (SIZE // 2),
    "tables": "|\n|-\n\n" * (SIZE // 6),
    "brackets": "[" * SIZE,
    "images": "![" * (SIZE // 2),
    "links": "[a](b" * (SIZE // 5),
    "parens": "[](()" * (SIZE // 5),
    "stars": "*" * SIZE,
    "underscores": "a_" * (SIZE // 2),
    "backslashes": "\\" * SIZE,
    "dots": "." * SIZE,
    "blanks": " " * SIZE,
    "dashes": "-" * SIZE,
    "markers": "- " * (SIZE // 2),
    "fences": "```\n" * (SIZE // 4),
    "zh": "中文。" * (SIZE // 9),
    "one-word": "字" * (SIZE // 3),
    "marks": "e" + "\u0301" * (SIZE // 2),
    "joined": "👩\u200d" * (SIZE // 7),
    "flags": FLAG[0] * (SIZE // 4),
    "quotes": "> " * (SIZE // 2),
    "crs": "\r" * SIZE,
    "surrogates": "\ud83d" * SIZE,
}


@pytest.mark.parametrize("name", BIG)
def test_big_inputs(name: str):
    """Each of these would take minutes, not a second, if anything were quadratic."""
    text = clean(BIG[name])
    assert len(text) >= len(BIG[name]) - 1
    limit = 6500
    parts = Cutter(limit).parts(text)
    assert "".join(text[part.start : part.end] for part in parts) == text
    assert max(len(shown(text, part).encode()) for part in parts) <= limit
    assert len(parts) <= 5 * len(text.encode()) // limit
    assert complete(text).startswith(text)
    assert len(complete(fit_tables(text, 0))) >= len(text)
    assert len(preview(text)) <= 100


def test_a_long_chinese_answer_grows_whole():
    """200 KB with 20 tables, code and lists, in chunks as a model sends them (need 13)."""
    code_block = "```python\n" + "print('你好')  # 注释\n" * 40 + "```\n\n"
    section = f"## 一节\n\n{'这是一个很长的段落。' * 200}\n\n{TABLE}{ROW * 60}\n{code_block}"
    text = section * 20 + "- 条目\n" * 3000
    assert len(text.encode()) > 150_000
    cutter, sealed = Cutter(15_000), list[Part]()
    for end in range(0, len(text), 50):
        parts = cutter.parts(text[:end])
        assert parts[: len(sealed)] == sealed
        sealed = parts[:-1]
    parts = cutter.parts(text)
    assert "".join(text[part.start : part.end] for part in parts) == text
    assert 10 < len(parts) < 30
    assert all(open_fence(shown(text, part)) == "" for part in parts)
