"""A whole queqiao.toml with every key, its meaning and its default."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from bot.settings import Chat, DingTalkBot, FeishuBot, ModelService, Persona

SECRETS = {
    "app_secret": "env:FEISHU_APP_SECRET",
    "client_secret": "env:DINGTALK_CLIENT_SECRET",
    "api_key": "env:DEEPSEEK_API_KEY",
}

REQUIRED = {"app_id": "cli_xxxxxxxxxxxxxxxx", "client_id": "dingxxxxxxxxxxxxxxxx"}

HEAD = """\
# Queqiao settings. Every key with its default; a line that begins with # is the default.
# 鹊桥的设置。以 # 开头的行是默认值，需要时去掉 # 再改。
# "env:NAME" reads the environment variable NAME, so that secrets need not stand here.

# admins = ["feishu:ou_xxxxxxxx", "dingtalk:staffId"]  # /whoami shows yours
# data = "data"  # folder of what is remembered
# database_url = ""  # SQLite in that folder when empty
# http = "127.0.0.1:8080"  # health and metrics; port 0 takes a free one
# log = "INFO"  # DEBUG, INFO, WARNING or ERROR
# alert_url = ""  # told by POST when the bot is deaf or cannot answer; https, or this machine
"""


def example() -> str:
    """The text of `queqiao config example`; it is itself a valid file once the three
    environment variables are set."""
    parts = [
        HEAD,
        _table("[[bots]]", FeishuBot, {"platform": "feishu"}),
        _table("[[bots]]", DingTalkBot, {"platform": "dingtalk"}),
        _table("[model]", ModelService, {}),
        _table("[chat]", Chat, {}),
        _commented(_table("[[personas]]", Persona, {"name": "legal", "text": "你是法务助手。"})),
    ]
    return "\n".join(parts)


def _table(head: str, kind: type[Any], given: dict[str, str]) -> str:
    lines = [head]
    lines += [f"{name} = {_toml(value)}" for name, value in given.items()]
    lines += [_line(entry) for entry in fields(kind) if entry.name not in given]
    return "\n".join(lines) + "\n"


def _line(entry: Field[Any]) -> str:
    what = entry.metadata.get("what", "")
    if entry.default is MISSING:
        value = SECRETS.get(entry.name) or REQUIRED.get(entry.name, "")
        return f"{entry.name} = {_toml(value)}  # {what}"
    return f"# {entry.name} = {_toml(entry.default)}  # {what}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())
