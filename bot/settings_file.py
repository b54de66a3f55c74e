"""Reads TOML tables into dataclasses: unknown keys, wrong types and missing keys are
complaints with the key's full name, its line and the nearest right key."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ENVIRONMENT_NAMES = {
    ("feishu", "app_id"): "FEISHU_APP_ID",
    ("feishu", "app_secret"): "FEISHU_APP_SECRET",
    ("dingtalk", "client_id"): "DINGTALK_CLIENT_ID",
    ("dingtalk", "client_secret"): "DINGTALK_CLIENT_SECRET",
    ("model", "api_key"): "DEEPSEEK_API_KEY",
}
"""How to name a missing key to people who use the environment alone."""


class Problems:
    """The complaints so far, each one line: the key, then Chinese and English."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.source = ""

    def add(self, name: str, zh: str, en: str) -> None:
        self.lines.append(f"{name}{self._line_of(name)}: {zh} / {en}")

    def unknown_keys(self, table: Mapping[str, Any], known: Iterable[str], path: str) -> None:
        known = tuple(known)
        for name in table:
            if name in known:
                continue
            near = difflib.get_close_matches(name, known, 1)
            zh = f"没有这个设置项{f'，是不是 {near[0]}？' if near else ''}"
            en = f"unknown key{f'; did you mean {near[0]}?' if near else ''}"
            self.add(f"{path}.{name}" if path else name, zh, en)

    def _line_of(self, name: str) -> str:
        """Where the key stands in the file, as ` (line n)`; empty when it is not there."""
        last = re.escape(name.rpartition(".")[2])
        found = re.search(rf"(?m)^\s*\[*\s*{last}\s*(=|\])", self.source)
        return f" (line {self.source.count(chr(10), 0, found.end()) + 1})" if found else ""


def read_file(path: Path | None, environ: Mapping[str, str], problems: Problems) -> dict[str, Any]:
    """The file as nested tables, `env:NAME` filled in; {} when there is none or when it
    cannot be read (then with a complaint)."""
    if path is None:
        return {}
    try:
        problems.source = path.read_text(encoding="utf-8")
        raw = tomllib.loads(problems.source)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.add(str(path), f"读不了设置文件：{error}", f"cannot read the file: {error}")
        return {}
    filled = _fill(raw, environ, problems)
    return filled if isinstance(filled, dict) else {}


def _fill(value: Any, environ: Mapping[str, str], problems: Problems) -> Any:
    if isinstance(value, dict):
        return {name: _fill(inner, environ, problems) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, environ, problems) for inner in value]
    if isinstance(value, str) and value.startswith("env:"):
        name = value[4:].strip()
        if name not in environ:
            problems.add(value, f"环境变量 {name} 没有设置", f"{name} is not set")
        return environ.get(name, "")
    return value


def read_table(kind: type[T], raw: Mapping[str, Any], path: str, problems: Problems) -> T | None:
    """`raw` as a `kind`, or None when something is wrong (then with complaints)."""
    hints = typing.get_type_hints(kind)
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    problems.unknown_keys(raw, known, path)
    before = len(problems.lines)
    values: dict[str, Any] = {}
    for name, entry in known.items():
        if name in raw:
            values[name] = _convert(raw[name], hints[name], entry, f"{path}.{name}", problems)
        elif entry.default is MISSING:
            _missing(path, name, entry, problems)
    return kind(**values) if len(problems.lines) == before else None


def _missing(path: str, name: str, entry: Field[Any], problems: Problems) -> None:
    shown = ENVIRONMENT_NAMES.get((path, name), f"{path}.{name}")
    what = entry.metadata.get("what", name)
    problems.add(shown, f"没有设置，请填写 {what}", f"is missing; set it to the {what}")


def _convert(value: Any, hint: Any, entry: Field[Any], name: str, problems: Problems) -> Any:
    choices = entry.metadata.get("choices", ())
    if choices and value not in choices:
        listed = ", ".join(choices)
        problems.add(name, f"应为 {listed} 之一", f"must be one of {listed}")
        return value
    return _typed(value, hint, name, problems)


def _typed(value: Any, hint: Any, name: str, problems: Problems) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        problems.add(name, "应为字符串的列表", "must be a list of strings")
        return ()
    if hint is bool and isinstance(value, bool):
        return value
    if hint in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return _positive(hint(value), name, problems)
    if hint is str or origin in (typing.Literal, types.UnionType):
        return _text(value, name, problems)
    words = {bool: ("true 或 false", "true or false"), int: ("整数", "a whole number")}
    zh, en = words.get(hint, ("数字", "a number"))
    problems.add(name, f"应为{zh}", f"must be {en}")
    return value


def _positive(value: float, name: str, problems: Problems) -> float:
    if value <= 0:
        problems.add(name, "应大于 0", "must be greater than 0")
    return value


def _text(value: Any, name: str, problems: Problems) -> str:
    if not isinstance(value, str):
        problems.add(name, "应为文字，请加引号", "must be text in quotes")
        return ""
    text = value.strip()
    if name.endswith("base_url"):
        _address(text, name, problems)
    return text.rstrip("/") if name.endswith("base_url") else text


def _address(text: str, name: str, problems: Problems) -> None:
    """A platform's base has no path; a model service's may have one (…/v1)."""
    path = r"(/\S*)?" if name.startswith("model.") else "/?"
    if not re.match(rf"https?://[^/\s]+{path}$", text):
        problems.add(
            name,
            "应为 http(s):// 开头的地址" + ("" if path != "/?" else "，不带路径"),
            "must be an address that starts with http(s)://"
            + ("" if path != "/?" else " and has no path"),
        )
