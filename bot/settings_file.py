"""Reads TOML tables into dataclasses, and the values outside tables: unknown keys, wrong
types and missing keys are complaints with the key's full name, its line and the nearest
right key."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from ipaddress import ip_address
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

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_HEAD = re.compile(r"\s*(\[\[?)\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*[=.]""")


class Problems:
    """The complaints so far, each one line: the key, then Chinese and English.

    `variables` names the environment variable that gave a key its value; `unset` holds
    the keys whose `env:NAME` led nowhere, which was said already; `unread` is true when
    there is a file that could not be read: then nobody knows what is missing.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.source = ""
        self.variables: dict[str, str] = {}
        self.unset: set[str] = set()
        self.unread = False

    def add(self, name: str, zh: str, en: str) -> None:
        if name not in self.unset:
            shown = self.variables.get(name) or f"{name}{self._line_of(name)}"
            self.lines.append(f"{shown}: {zh} / {en}")

    def unknown_keys(self, table: Mapping[str, Any], known: Iterable[str], path: str) -> None:
        known = tuple(known)
        for name in table:
            if name in known:
                continue
            near = difflib.get_close_matches(name.casefold(), known, 1)
            zh = f"没有这个设置项{f'，是不是 {near[0]}？' if near else ''}"
            en = f"unknown key{f'; did you mean {near[0]}?' if near else ''}"
            self.add(f"{path}.{name}" if path else name, zh, en)

    def _line_of(self, name: str) -> str:
        """Where the key stands in the file, or else its table, as ` (line n)`."""
        lines = _lines(self.source)
        table = name.rpartition(".")[0]
        for place in (name, table, table.partition("[")[0]):
            if place in lines:
                return f" (line {lines[place]})"
        return ""


def _lines(source: str) -> dict[str, int]:
    """The line of each key and table, by its full name, such as bots[1].pace."""
    lines: dict[str, int] = {}
    table, counts, inside = "", dict[str, int](), False
    for number, line in enumerate(source.split("\n"), 1):
        head, name = _HEAD.match(line), _KEY.match(line)
        if not inside and head:
            table = head[2]
            if head[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{counts[table]}]"
            lines.setdefault(table, number)
        elif not inside and name:
            lines.setdefault(f"{table}.{name[1]}" if table else name[1], number)
        if (line.count('"""') + line.count("'''")) % 2:
            inside = not inside
    return lines


def read_file(path: Path | None, environ: Mapping[str, str], problems: Problems) -> dict[str, Any]:
    """The file as nested tables, `env:NAME` filled in; {} when there is none or when it
    cannot be read (then with a complaint)."""
    if path is None:
        return {}
    try:
        source = path.read_text(encoding="utf-8-sig")
        raw = tomllib.loads(source)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.unread = True
        problems.add(str(path), f"读不了设置文件：{error}", f"cannot read the file: {error}")
        return {}
    problems.source = source
    return {name: _fill(value, name, environ, problems) for name, value in raw.items()}


def _fill(value: Any, path: str, environ: Mapping[str, str], problems: Problems) -> Any:
    if isinstance(value, dict):
        return {n: _fill(inner, f"{path}.{n}", environ, problems) for n, inner in value.items()}
    if isinstance(value, list):
        return [_fill(v, f"{path}[{i}]", environ, problems) for i, v in enumerate(value)]
    if not isinstance(value, str) or not value.strip().startswith("env:"):
        return value
    name = value.strip()[4:].strip()
    if not environ.get(name, "").strip():
        problems.add(
            path, f"环境变量 {name} 没有设置", f"the environment variable {name} is not set"
        )
        problems.unset.add(path)
    return environ.get(name, "")


def read_table(kind: type[T], raw: Mapping[str, Any], path: str, problems: Problems) -> T | None:
    """`raw` as a `kind`, or None when something is wrong (then with complaints). Text
    may be empty only where it is by default."""
    hints = typing.get_type_hints(kind)
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    problems.unknown_keys(raw, known, path)
    before = len(problems.lines)
    values: dict[str, Any] = {}
    for name, entry in known.items():
        if name in raw and not (entry.default is MISSING and _blank(raw[name])):
            values[name] = _convert(raw[name], hints[name], entry, f"{path}.{name}", problems)
        elif entry.default is MISSING:
            values[name] = ""
            _missing(path, name, entry, problems)
    return kind(**values) if len(problems.lines) == before else None


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _missing(path: str, name: str, entry: Field[Any], problems: Problems) -> None:
    full = f"{path}.{name}"
    if problems.unread or full in problems.unset:
        return
    shown = ENVIRONMENT_NAMES.get((path, name), full)
    what = entry.metadata.get("what", name)
    problems.add(shown, f"没有设置，请填写 {what}", f"is missing; set it to the {what}")


def _convert(value: Any, hint: Any, entry: Field[Any], name: str, problems: Problems) -> Any:
    choices = entry.metadata.get("choices", ())
    if choices and value not in choices:
        listed = ", ".join(choices)
        problems.add(name, f"应为 {listed} 之一", f"must be one of {listed}")
        return value
    if _blank(value) and entry.default != "":
        problems.add(name, "不能为空；不用就删去这一行", "must not be empty; or remove the line")
        return value
    if entry.metadata.get("zero") and hint in (int, float) and _is_number(value, hint):
        return _not_negative(hint(value), name, problems)
    return _typed(value, hint, name, problems)


def _typed(value: Any, hint: Any, name: str, problems: Problems) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _texts(value, name, problems)
    if hint is bool and isinstance(value, bool):
        return value
    if hint in (int, float) and _is_number(value, hint):
        return _positive(hint(value), name, problems)
    if hint is str or origin in (typing.Literal, types.UnionType):
        return read_text(value, name, problems)
    words = {bool: (" true 或 false", "true or false"), int: ("整数", "a whole number")}
    zh, en = words.get(hint, ("数字", "a number"))
    problems.add(name, f"应为{zh}", f"must be {en}")
    return value


def _texts(value: Any, name: str, problems: Problems) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(v, str) and v.strip() for v in value):
        return tuple(item.strip() for item in value)
    problems.add(name, "应为字符串的列表，至少一项", "must be a list of strings, at least one")
    return ()


def _is_number(value: Any, hint: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) if hint is int else abs(value) < 1e12  # neither nan nor inf


def _positive(value: float, name: str, problems: Problems) -> float:
    if value <= 0:
        problems.add(name, "应大于 0", "must be greater than 0")
    return value


def _not_negative(value: float, name: str, problems: Problems) -> float:
    if value < 0:
        problems.add(name, "不能小于 0", "must not be less than 0")
    return value


def read_text(value: Any, name: str, problems: Problems) -> str:
    """`value` as text without the spaces around it; an address also without its last /."""
    if not isinstance(value, str):
        problems.add(name, "应为文字，请加引号", "must be text in quotes")
        return ""
    text = value.strip()
    if not name.endswith((".base_url", "oapi_base_url")):
        return text
    _address(text, name, problems)
    return text.rstrip("/")


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


def read_admins(value: Any, problems: Problems) -> frozenset[str]:
    """A list, or text with commas, of platform:person."""
    entries = re.split("[,，]", value) if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
        problems.add("admins", "应为逗号分隔的列表", "must be a list, separated by commas")
        return frozenset()
    admins = [entry.strip() for entry in entries if entry.strip()]
    for admin in admins:
        if not re.fullmatch(r"(feishu|dingtalk):\S+", admin):
            problems.add(
                "admins",
                f"“{admin}”应写成 feishu:ou_… 或 dingtalk:工号；在聊天里发 /whoami 可以看到",
                f'"{admin}" must look like feishu:ou_… or dingtalk:staffId; '
                "send /whoami in a chat to see yours",
            )
    return frozenset(admins)


def read_listener(value: Any, problems: Problems) -> tuple[str, int]:
    """host:port to listen on; port 0 takes a free one."""
    found = re.fullmatch(r"([^\s/@]+):([0-9]{1,5})", str(value).strip())
    if found and int(found[2]) < 65536:
        return found[1].strip("[]"), int(found[2])
    problems.add(
        "http",
        f"“{value}”应写成 地址:端口，例如 127.0.0.1:8080",
        f'"{value}" must look like host:port, for example 127.0.0.1:8080',
    )
    return "127.0.0.1", 8080


def read_level(value: Any, problems: Problems) -> str:
    """The log's level, in upper case."""
    level = str(value).strip().upper()
    if level in LOG_LEVELS:
        return level
    problems.add(
        "log",
        f"“{value}”应为 {'、'.join(LOG_LEVELS)} 之一",
        f'"{value}" must be one of {", ".join(LOG_LEVELS)}',
    )
    return "INFO"


def read_webhook(value: Any, problems: Problems) -> str:
    """An address on the network must be https: a secret may stand in it, which is why a
    complaint does not repeat it."""
    text = read_text(value, "alert_url", problems)
    found = re.fullmatch(r"(https?)://([\w.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?([/?]\S*)?", text)
    if not text or (found and (found[1] == "https" or is_loopback(found[2].strip("[]")))):
        return text
    problems.add(
        "alert_url",
        "应为 https:// 开头的地址；http:// 只能用于本机",
        "must be an address that starts with https://; http:// is for this machine only",
    )
    return ""


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
