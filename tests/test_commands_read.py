"""bot/commands/read.py: what is a command, and what is only a message."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.commands import HANDLERS
from bot.commands.read import ALONE, WORDS, Command, read

EVERY_WORD = [(word, name) for name, words in WORDS.items() for word in (name, *words)]


@pytest.mark.parametrize(("word", "name"), EVERY_WORD)
def test_every_word_with_either_slash_and_in_any_case(word: str, name: str) -> None:
    for text in (f"/{word}", f"／{word}", f"  /{word}\n", f"/{word.upper()}", f"/{word.title()}"):
        assert read(text) == Command(name), text
    assert read(f"/{word}  a B\nc ") == Command(name, "a B\nc")


def test_no_word_means_two_things() -> None:
    words = [word for word, _ in EVERY_WORD]
    assert len(words) == len(set(words))
    assert all(word == word.casefold() for word in words), "compared in lower case"


def test_the_commands_of_the_handbook_in_both_languages() -> None:
    pairs = {
        "help": "帮助",
        "new": "新对话",
        "stop": "停止",
        "retry": "重试",
        "status": "状态",
        "usage": "用量",
        "model": "模型",
        "persona": "人设",
        "reasoning": "思考",
        "whoami": "我是谁",
    }
    for english, chinese in pairs.items():
        assert read(f"/{english}") == read(f"/{chinese}") == Command(english)
    assert read("/reset") == read("/重置") == Command("new")


def test_every_command_has_one_who_answers() -> None:
    assert set(HANDLERS) == set(WORDS) - {"retry"}
    for handler in HANDLERS.values():
        assert get_type_hints(handler)["return"] is str


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("/model deepseek-v4-pro", "deepseek-v4-pro"),
        ("/model\tdeepseek-v4-pro", "deepseek-v4-pro"),
        ("/model\u3000deepseek-v4-pro", "deepseek-v4-pro"),
        ("/model\u00a0deepseek-v4-pro", "deepseek-v4-pro"),
        ("/model /new", "/new"),
        ("/MODEL DeepSeek", "DeepSeek"),
    ],
)
def test_the_argument_is_kept_as_it_was_typed(text: str, argument: str) -> None:
    assert read(text) == Command("model", argument)


@pytest.mark.parametrize("word", ["帮助", "新对话", "停止", "重试", "状态", "用量", "重置"])
def test_chinese_words_alone_need_no_slash(word: str) -> None:
    assert word in ALONE
    command = read(f" {word}\n")
    assert command is not None and command.known and not command.argument
    for more in (f"{word}一下", f"怎么{word}", f"{word} 全部", f"{word}？"):
        assert read(more) is None, more


@pytest.mark.parametrize("word", ["我是谁", "模型", "思考", "人设", "help", "new", "stop", "RESET"])
def test_words_that_may_be_a_question_need_their_slash(word: str) -> None:
    assert read(word) is None
    assert read(f"/{word}") is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "//",
        "/ help",
        "你好",
        "hello /help",
        "/usr/bin",
        "/usr/bin/env python",
        "/etc/hosts 是什么",
        "/1",
        "/2026 年",
        "1/2",
        "/.bashrc",
        "// 这段代码什么意思",
        "/* stop */",
        "/help/me",
        "/n" + "e" * 40 + "w",
        "</new>",
        "https://example.com/new",
        "\\new",
        "第一行\n/stop",
    ],
)
def test_ordinary_messages(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("/hlep", "help"),
        ("/stopp now", "stop"),
        ("/statu", "status"),
        ("/resett", "new"),
        ("/personas", "persona"),
        ("/新会话", "new"),
        ("/停", "stop"),
        ("/停止全部", "stop"),
        ("/Modle x", "model"),
    ],
)
def test_a_mistyped_command_names_the_nearest(text: str, near: str) -> None:
    command = read(text)
    assert command is not None
    assert (command.known, command.near) == (False, near)
    assert command.name == text.split()[0][1:].casefold()


@pytest.mark.parametrize("text", ["/zzz", "/天气 北京", "/qqq x"])
def test_a_command_like_no_other_has_no_neighbour(text: str) -> None:
    command = read(text)
    assert command is not None
    assert (command.known, command.near) == (False, "")


def test_reading_again_gives_the_same_command() -> None:
    """A command is read once when it comes and once when it is answered."""
    for word, name in EVERY_WORD:
        first = read(f"/{word} x")
        assert first is not None
        assert read(f"/{first.name} {first.argument}") == Command(name, "x")


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read(text: str) -> None:
    command = read(text)
    if command is not None:
        assert text.strip()[0] in "/／" or text.strip() in ALONE
        assert command.known == (command.name in WORDS)
        assert not (command.known and command.near)


@settings(deadline=None)
@given(st.from_regex(r"\A[/／][A-Za-z]{1,31}\Z"), st.text(max_size=20))
def test_any_word_behind_a_slash_is_a_command_with_its_argument(word: str, rest: str) -> None:
    command = read(f"{word} {rest}")
    assert command is not None
    assert command.argument == rest.strip()


def test_long_messages_are_read_at_once() -> None:
    text = "/" + "a" * 30 + " " + "x " * 500_000
    command = read(text)
    assert command is not None and len(command.argument) == 999_999
    assert read("/" + "a" * 1_000_000) is None
