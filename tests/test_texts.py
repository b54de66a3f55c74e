"""bot/texts: two tables that agree, and every sentence that the program asks for."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot import errors
from bot.commands.read import WORDS
from bot.contract import UnreadablePart
from bot.errors import BorderError, QueqiaoError, SettingsError
from bot.personas import BUILT_IN
from bot.texts import TABLES, both, knows, language_of, say
from bot.texts.en import SENTENCES as EN
from bot.texts.zh import SENTENCES as ZH

ROOT = Path(__file__).resolve().parent.parent
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
SPEAKERS = {"say", "both", "beside"}


def blanks(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


# ---------------------------------------------------------------- the tables


def test_both_languages_have_the_same_keys_and_blanks() -> None:
    assert list(ZH) == list(EN)
    for key in ZH:
        assert blanks(ZH[key]) == blanks(EN[key]), key


def test_blanks_are_plain_names() -> None:
    """A dot or a bracket in a blank would reach into the value."""
    for table in TABLES.values():
        for sentence in table.values():
            for _, name, spec, conversion in string.Formatter().parse(sentence):
                assert name is None or (name.isidentifier() and not spec and not conversion)


def test_keys_are_written_once() -> None:
    for name in ("zh", "en"):
        tree = ast.parse((ROOT / f"bot/texts/{name}.py").read_text(encoding="utf-8"))
        (table,) = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
        keys = [key.value for key in table.keys if isinstance(key, ast.Constant)]
        assert len(keys) == len(set(keys)) == len(TABLES[name])


def test_each_language_is_itself() -> None:
    without_han = {key for key, text in ZH.items() if not HAN.search(text)}
    assert without_han <= {"footer.tokens", "footer.cost", "list.comma", "help.line"}
    for key, text in EN.items():
        assert not HAN.search(text) and not re.search("[，。：；（）“”、！？]", text), key


def test_sentences_are_tidy() -> None:
    for table in TABLES.values():
        for key, text in table.items():
            assert text.strip(), key
            assert "  " not in text and " \n" not in text, key
    for key, text in ZH.items():
        words = re.sub(r"`[^`]*`", "", text)
        assert not re.search(f"{HAN.pattern}[,;?!]", words), key


# ---------------------------------------------------------------- what the code asks for


def sources() -> Iterator[tuple[str, ast.AST]]:
    for folder in ("bot", "adapters", "storage"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            here = path.relative_to(ROOT).as_posix()
            if not here.startswith("bot/texts/"):
                yield here, ast.parse(path.read_text(encoding="utf-8"))


NODES = [(here, node) for here, tree in sources() for node in ast.walk(tree)]
CALLS = [
    (f"{here}:{node.lineno}", node)
    for here, node in NODES
    if isinstance(node, ast.Call)
    and node.args
    and getattr(node.func, "id", getattr(node.func, "attr", "")) in SPEAKERS
    and "playground" not in here
]


def literals(node: ast.expr) -> Iterator[str]:
    """The keys that an argument can be: a literal, or a choice among literals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def pattern(node: ast.JoinedStr) -> re.Pattern[str]:
    parts = [
        re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[\w.]+"
        for part in node.values
    ]
    return re.compile("".join(parts))


def test_the_scan_finds_the_calls() -> None:
    assert len(CALLS) > 40
    assert any(list(literals(call.args[0])) for _, call in CALLS)


def test_every_key_in_a_call_exists() -> None:
    for where, call in CALLS:
        for key in literals(call.args[0]):
            assert knows(key), f"{where} says {key}"
        if isinstance(call.args[0], ast.JoinedStr):
            made = pattern(call.args[0])
            assert any(made.fullmatch(key) for key in ZH), f"{where} says {made.pattern}"


def test_every_call_fills_every_blank() -> None:
    for where, call in CALLS:
        given = {keyword.arg for keyword in call.keywords}
        if None in given:
            continue
        for key in literals(call.args[0]):
            assert given >= blanks(ZH.get(key, "")), f"{where} says {key} with {given}"


def test_every_note_of_an_error_exists_and_needs_its_reference_alone() -> None:
    notes = {
        (here, value)
        for here, node in NODES
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "note" and here.startswith("adapters/")
        for value in literals(keyword.value)
        if value
    }
    notes |= {
        (here, node.value.value)
        for here, node in NODES
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and [getattr(target, "id", "") for target in node.targets] == ["note"]
        and isinstance(node.value.value, str)
        and node.value.value
    }
    assert len(notes) > 10
    for here, note in notes:
        assert knows(note), f"{here}: {note}"
        assert blanks(ZH[note]) <= {"ref"}, f"{here}: {note}"


MADE = {
    "calls": ("api", "message", "refused", "saving"),
    "card": ("stopped", "recalled"),
    "chat": ("p2p", "group"),
    "help": tuple(WORDS),
    "kind": tuple(key.removeprefix("kind.") for key in ZH if key.startswith("kind.")),
    "notice": ("broken", "quota"),
    "persona": tuple(persona.name for persona in BUILT_IN),
    "reasoning": ("off", "hidden", "folded"),
    "role": ("admin", "owner", "member"),
    "time": ("seconds", "minutes", "hours", "days"),
    "usage": ("me", "chat", "today", "month"),
}
"""Keys made at run time: what stands behind the dot."""


def test_what_is_made_at_run_time_exists() -> None:
    for head, tails in MADE.items():
        for tail in tails:
            assert knows(f"{head}.{tail}"), f"{head}.{tail}"
    heads = {
        found[1]
        for _, call in CALLS
        for node in ast.walk(call.args[0])
        if isinstance(node, ast.JoinedStr)
        and (found := re.match(r"([a-z]+)\\\.", pattern(node).pattern))
    }
    assert heads <= set(MADE), "list what can stand behind it"


def test_every_sentence_is_used() -> None:
    """A key stands in the code as it is, or is one of those made at run time."""
    written = {
        node.value
        for _, node in NODES
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    made = {f"{head}.{tail}" for head, tails in MADE.items() for tail in tails}
    assert set(ZH) - written - made == set()


def test_every_kind_that_cannot_be_read_has_a_name() -> None:
    listed = re.search(r"one of: ([^.]*)\.", UnreadablePart.__doc__ or "")
    assert listed
    kinds = set(re.split(r",\s+", listed[1].strip()))
    assert kinds == {key.removeprefix("kind.") for key in ZH if key.startswith("kind.")}


# ---------------------------------------------------------------- errors


def family(kind: type[QueqiaoError] = QueqiaoError) -> list[type[QueqiaoError]]:
    """The tree of bot.errors; adapters may have branches of their own."""
    ours = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return [kind, *(found for each in ours for found in family(each))]


@pytest.mark.parametrize("kind", family())
def test_every_error_has_a_sentence_for_the_person(kind: type[QueqiaoError]) -> None:
    error = kind(["first", "second"]) if kind is SettingsError else kind("why")  # type: ignore[arg-type]
    assert blanks(ZH[error.note]) == {"ref"}
    for lang in TABLES:
        assert "a1b2c3d4" in say(error.note, lang, ref="a1b2c3d4")


def test_an_error_says_its_cause_and_only_that() -> None:
    error = BorderError("HTTP 400", note="model.cut", code="99991")
    assert (str(error), error.cause, error.note, error.code) == (
        "HTTP 400",
        "HTTP 400",
        "model.cut",
        "99991",
    )
    assert BorderError.note == "error.platform", "a note of one is not a note of all"
    assert str(errors.Gone()) == "Gone"
    assert str(SettingsError(["a", "b"])) == "a; b"


def test_the_tree_at_the_top_of_the_file_is_the_tree() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__ for kind in family()} - {"QueqiaoError"}


# ---------------------------------------------------------------- speaking


def test_any_other_language_is_chinese() -> None:
    assert say("done.stop", "en") == EN["done.stop"]
    for lang in ("zh", "fr", "", "EN"):
        assert say("done.stop", lang) == ZH["done.stop"]


def test_values_are_put_in_as_they_are() -> None:
    for value in ("{0}", "{ref.__class__}", "100%", "{", "a{b}c"):
        for lang in TABLES:
            assert value in say("model.none", lang, name=value, names="x")


def test_a_forgotten_blank_is_an_error() -> None:
    with pytest.raises(KeyError):
        say("model.none", "zh", name="x")
    with pytest.raises(KeyError):
        say("no.such.key", "zh")


def test_blanks_may_have_any_name() -> None:
    """Also those of say's own parameters."""
    assert say("done.stop", "zh", key="x", lang="en") == ZH["done.stop"]


def test_both_languages_chinese_first() -> None:
    first, second = both("error.busy", ref="r-1").split("\n")
    assert HAN.search(first) and not HAN.search(second)
    assert "r-1" in first and "r-1" in second


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("你好", "zh"),
        ("请用 Python 写", "zh"),
        ("㐀", "zh"),
        ("Hello", "en"),
        ("naïve café", "en"),
        ("x", "en"),
        ("", "?"),
        ("123 + 4 = ?", "?"),
        ("👍", "?"),
        ("Привет", "?"),
        ("，。！", "?"),
    ],
)
def test_the_language_of_a_message(text: str, language: str) -> None:
    assert language_of(text, "?") == language
