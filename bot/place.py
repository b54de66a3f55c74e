"""Where the data is: all that a command needs which looks at the data and runs no bot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.errors import SettingsError
from bot.settings_file import Problems, read_text


@dataclass(frozen=True, slots=True)
class Place:
    """`bots` are the names that a bot can have by these settings."""

    data: Path
    database_url: str = field(default="", repr=False)
    bots: tuple[str, ...] = ("feishu", "dingtalk")

    @property
    def store_url(self) -> str:
        """The setting, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{(self.data / 'queqiao.db').resolve()}"

    @property
    def socket(self) -> Path:
        """Where the running process can be asked (design.md 8)."""
        return self.data.resolve() / "queqiao.sock"


def read_place(raw: Mapping[str, Any], problems: Problems) -> Place:
    """The place in these settings. `problems` is what reading them complained about so
    far; what the place does not need is passed over. Raises SettingsError."""
    if problems.unread:
        raise SettingsError(problems.lines)
    mine = Problems()
    mine.source, mine.variables = problems.source, problems.variables
    data = _text(raw, "data", "data", problems, mine)
    url = _text(raw, "database_url", "", problems, mine)
    if mine.lines:
        raise SettingsError(mine.lines)
    return Place(Path(data or "data").expanduser(), url, _names(raw.get("bots")))


def _text(raw: Mapping[str, Any], name: str, default: str, before: Problems, mine: Problems) -> str:
    value = read_text(raw.get(name, default), name, mine)
    if name in before.unset and not value:
        mine.add(name, "所指的环境变量没有设置", "the environment variable it names is not set")
    return value


def _names(bots: Any) -> tuple[str, ...]:
    """Those in the file, and those that the environment alone would make."""
    entries = [entry for entry in bots if isinstance(entry, dict)] if isinstance(bots, list) else []
    named = [entry.get("name") or entry.get("platform") for entry in entries]
    known = [name for name in named if isinstance(name, str)]
    return tuple(dict.fromkeys([*known, "feishu", "dingtalk"]))
