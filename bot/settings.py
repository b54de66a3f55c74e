"""queqiao.toml and the environment, read into frozen values.

Every complaint is collected and told at once, with the key's name and what to do.
Environment variables win over the file; a value `env:NAME` in the file is read from the
environment, so that secrets need not stand in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from bot.errors import SettingsError
from bot.month import Mode
from bot.place import Place, read_place
from bot.settings_file import (
    Problems,
    read_admins,
    read_file,
    read_level,
    read_listener,
    read_table,
    read_text,
    read_webhook,
)

Transport = Literal["native", "sdk"]


def key(
    what: str,
    *,
    secret: bool = False,
    default: Any = ...,
    choices: tuple[str, ...] = (),
    zero: bool = False,
) -> Any:
    """A setting: what it is for, and whether it must never be printed. `zero`: the number
    may be 0."""
    metadata = {"what": what, "secret": secret, "choices": choices, "zero": zero}
    if default is ...:
        return field(metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


SAVERS = ("auto", "always", "never")
SAVER = "plain replies, two calls each: auto (from 80 % of the month), always or never"
ROTATE = "seconds of silence after which a fresh connection is opened; 0 never does"


@dataclass(frozen=True, slots=True)
class FeishuBot:
    """One Feishu or Lark app."""

    app_id: str = key("App ID (cli_…)")
    app_secret: str = key("App Secret", secret=True)
    name: str = key("the bot's name in this program", default="feishu")
    base_url: str = key("https://open.larksuite.com for Lark", default="https://open.feishu.cn")
    transport: Transport = key("native or sdk", default="native", choices=("native", "sdk"))
    pace: float = key("seconds between a card's first two texts; later gaps grow", default=0.4)
    monthly_calls: int = key(
        "most API calls in a month; 0: no cap. The basic plan has one that Feishu moves: "
        "10000, 50000, for a time 1000000, for all apps of the tenant together",
        default=0,
        zero=True,
    )
    saver: Mode = key(SAVER, default="auto", choices=SAVERS)
    rotate: float = key(ROTATE, default=1800.0, zero=True)
    platform: Literal["feishu"] = key("feishu", default="feishu", choices=("feishu",))


@dataclass(frozen=True, slots=True)
class DingTalkBot:
    """One DingTalk app."""

    client_id: str = key("Client ID (AppKey)")
    client_secret: str = key("Client Secret (AppSecret)", secret=True)
    name: str = key("the bot's name in this program", default="dingtalk")
    base_url: str = key("new API", default="https://api.dingtalk.com")
    oapi_base_url: str = key("old API", default="https://oapi.dingtalk.com")
    card_template_id: str = key("your AI card template, ends with .schema", default="")
    card_content_key: str = key("the template's streaming variable", default="content")
    card_state_key: str = key("the template's state variable, if it has one", default="")
    public_template: bool = key("use DingTalk's public AI card", default=False)
    receipts: bool = key("mark messages with an emotion (two API calls each)", default=False)
    recall_events: bool = key(
        "listen to recalls of people's messages, if your console offers the event", default=False
    )
    deaf_after: float = key("seconds without the server's pings that end a link", default=90.0)
    transport: Transport = key("native or sdk", default="native", choices=("native", "sdk"))
    pace: float = key("seconds between a card's first two texts; later gaps grow", default=1.0)
    monthly_calls: int = key(
        "most API calls in a month; 0: no cap. A FREE ORGANISATION HAS 5000 (a professional "
        "one 200000), for all its apps together: set it",
        default=0,
        zero=True,
    )
    monthly_messages: int = key(
        "most webhook messages and Stream pushes in a month; 0: no cap. A FREE ORGANISATION "
        "HAS 3000 (a professional one 50000): set it",
        default=0,
        zero=True,
    )
    saver: Mode = key(SAVER, default="auto", choices=SAVERS)
    rotate: float = key(ROTATE, default=1800.0, zero=True)
    platform: Literal["dingtalk"] = key("dingtalk", default="dingtalk", choices=("dingtalk",))


BotSettings = FeishuBot | DingTalkBot
KINDS: dict[str, type[FeishuBot] | type[DingTalkBot]] = {
    "feishu": FeishuBot,
    "dingtalk": DingTalkBot,
}


@dataclass(frozen=True, slots=True)
class ModelService:
    """The model service and what may be chosen of it."""

    api_key: str = key("API key", secret=True)
    base_url: str = key("the service's address", default="https://api.deepseek.com")
    model: str = key("the default model", default="deepseek-flash")
    models: tuple[str, ...] = key(
        "what /model offers", default=("deepseek-flash", "deepseek-v4-pro")
    )
    max_tokens: int = key("longest answer in tokens", default=8192)
    stream: bool = key("stream the answer", default=True)
    first_data: float = key("seconds to wait for the first data", default=600.0)
    silence: float = key("seconds of silence that end an answer", default=120.0)
    whole: float = key("seconds for a whole answer", default=1800.0)


@dataclass(frozen=True, slots=True)
class Chat:
    """How the bot behaves in a chat."""

    memory: str = key(
        "chat: a group shares one memory; person: one for each person",
        default="chat",
        choices=("chat", "person"),
    )
    lane: str = key(
        "person: one person's messages in order; chat: the whole chat's in order",
        default="person",
        choices=("person", "chat"),
    )
    depth: int = key("most questions waiting in one lane", default=20)
    history_turns: int = key("most exchanges given to the model", default=200)
    history_tokens: int = key("most tokens of history given to the model", default=64_000)
    message_chars: int = key("longest message taken", default=60_000)
    language: str = key("zh, en or auto", default="auto", choices=("zh", "en", "auto"))
    persona: str = key("the default persona", default="assistant")
    reasoning: str = key(
        "off, hidden or folded", default="off", choices=("off", "hidden", "folded")
    )
    footer: bool = key("small print under an answer: model, time, tokens, cost", default=False)
    grace: float = key("seconds that running answers get at shutdown", default=10.0)
    late: float = key("seconds after which a message is offered, not answered", default=1800.0)
    gather: float = key("seconds in which pictures wait for words that follow", default=1.5)
    gather_text: bool = key("lines sent within that time become one question", default=False)


@dataclass(frozen=True, slots=True)
class Persona:
    name: str = key("what /persona calls it")
    text: str = key("the system text")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `queqiao run` needs."""

    bots: tuple[BotSettings, ...]
    model: ModelService
    chat: Chat = Chat()
    personas: tuple[Persona, ...] = ()
    admins: frozenset[str] = frozenset()
    data: Path = Path("data")
    database_url: str = field(default="", repr=False)
    http: tuple[str, int] = ("127.0.0.1", 8080)
    log: str = "INFO"
    alert_url: str = field(default="", repr=False)


ENVIRONMENT: dict[str, tuple[str, str]] = {
    "FEISHU_APP_ID": ("feishu", "app_id"),
    "FEISHU_APP_SECRET": ("feishu", "app_secret"),
    "FEISHU_BASE_URL": ("feishu", "base_url"),
    "FEISHU_MONTHLY_CALLS": ("feishu", "monthly_calls"),
    "FEISHU_TRANSPORT": ("feishu", "transport"),
    "DINGTALK_CLIENT_ID": ("dingtalk", "client_id"),
    "DINGTALK_CLIENT_SECRET": ("dingtalk", "client_secret"),
    "DINGTALK_BASE_URL": ("dingtalk", "base_url"),
    "DINGTALK_OAPI_BASE_URL": ("dingtalk", "oapi_base_url"),
    "DINGTALK_CARD_TEMPLATE_ID": ("dingtalk", "card_template_id"),
    "DINGTALK_MONTHLY_CALLS": ("dingtalk", "monthly_calls"),
    "DINGTALK_MONTHLY_MESSAGES": ("dingtalk", "monthly_messages"),
    "DINGTALK_TRANSPORT": ("dingtalk", "transport"),
    "DEEPSEEK_API_KEY": ("model", "api_key"),
    "DEEPSEEK_BASE_URL": ("model", "base_url"),
    "DEEPSEEK_MODEL": ("model", "model"),
    "QUEQIAO_ADMINS": ("", "admins"),
    "QUEQIAO_DATA": ("", "data"),
    "QUEQIAO_DATABASE_URL": ("", "database_url"),
    "QUEQIAO_HTTP": ("", "http"),
    "QUEQIAO_LOG": ("", "log"),
    "QUEQIAO_ALERT_URL": ("", "alert_url"),
}
"""Which environment variable sets which key of which table."""

VARIABLES = {where: variable for variable, where in ENVIRONMENT.items()}

TOP_KEYS = tuple(entry.name for entry in fields(Settings))


def load(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Read the file (`file`, else QUEQIAO_CONFIG, else ./queqiao.toml when it exists)
    and the environment. Raises SettingsError with every problem found."""
    environ = os.environ if environ is None else environ
    problems = Problems()
    raw = read_file(_which_file(environ, file, problems), environ, problems)
    settings = _build(raw, environ, problems)
    if problems.lines or settings is None:
        raise SettingsError(problems.lines)
    return settings


def load_place(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Place:
    """Where the data is, from the same sources as load(), without a complaint about what
    only `queqiao run` needs. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    problems = Problems()
    raw = read_file(_which_file(environ, file, problems), environ, problems)
    return read_place(_merged(raw, "", "", _environment(environ), problems), problems)


def _which_file(environ: Mapping[str, str], file: Path | None, problems: Problems) -> Path | None:
    named = file or (Path(environ["QUEQIAO_CONFIG"]) if environ.get("QUEQIAO_CONFIG") else None)
    if named is None:
        usual = Path("queqiao.toml")
        return usual if usual.is_file() else None
    if not named.is_file():
        problems.unread = True
        problems.add(str(named), "找不到这个设置文件", "there is no such settings file")
        return None
    return named


def _build(raw: dict[str, Any], environ: Mapping[str, str], problems: Problems) -> Settings | None:
    problems.unknown_keys(raw, TOP_KEYS, "")
    overrides = _environment(environ)
    bots = _bots(raw, overrides, problems)
    given = _merged(_table(raw, "model", problems), "model", "model", overrides, problems)
    model = read_table(ModelService, given, "model", problems)
    chat = read_table(Chat, _table(raw, "chat", problems), "chat", problems)
    personas = [
        read_table(Persona, entry, f"personas[{i}]", problems)
        for i, entry in enumerate(_list(raw, "personas", problems))
    ]
    top = _merged(raw, "", "", overrides, problems)
    admins = read_admins(top.get("admins", []), problems)
    http = read_listener(top.get("http", "127.0.0.1:8080"), problems)
    log = read_level(top.get("log", "INFO"), problems)
    alert_url = read_webhook(top.get("alert_url", ""), problems)
    data = read_text(top.get("data", "data"), "data", problems)
    database_url = read_text(top.get("database_url", ""), "database_url", problems)
    if problems.lines or model is None or chat is None:
        return None
    return Settings(
        bots=tuple(bots),
        model=model,
        chat=chat,
        personas=tuple(p for p in personas if p is not None),
        admins=admins,
        data=Path(data or "data").expanduser(),
        database_url=database_url,
        http=http,
        log=log,
        alert_url=alert_url,
    )


def _environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Table by table what the variables say; a count as a number, if it is one."""
    tables: dict[str, dict[str, Any]] = {"": {}, "feishu": {}, "dingtalk": {}, "model": {}}
    for name, (table, name_in_table) in ENVIRONMENT.items():
        value = environ.get(name, "").strip()
        if value:
            counts = name_in_table.startswith("monthly_") and re.fullmatch("[0-9]{1,9}", value)
            tables[table][name_in_table] = int(value) if counts else value
    return tables


def _merged(
    given: dict[str, Any],
    table: str,
    path: str,
    overrides: dict[str, dict[str, Any]],
    problems: Problems,
) -> dict[str, Any]:
    """`given`, which stands at `path`, with the environment's values for `table` over it;
    a complaint about one of these names its variable."""
    for name in overrides[table]:
        problems.variables[f"{path}.{name}" if path else name] = VARIABLES[table, name]
    return {**given, **overrides[table]}


def _table(raw: dict[str, Any], name: str, problems: Problems) -> dict[str, Any]:
    value = raw.get(name, {})
    if isinstance(value, dict):
        return value
    problems.add(name, f"应写成 [{name}] 一节", f"must be a table, [{name}]")
    return {}


def _list(raw: dict[str, Any], name: str, problems: Problems) -> list[Any]:
    value = raw.get(name, [])
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return value
    problems.add(name, f"应写成 [[{name}]] 的列表", f"must be a list of tables, [[{name}]]")
    return []


def _bots(
    raw: dict[str, Any], overrides: dict[str, dict[str, Any]], problems: Problems
) -> list[BotSettings]:
    """The file's [[bots]]; the environment's bot of a platform replaces values of the
    file's bot of that name, or stands beside the others."""
    bots: list[BotSettings | None] = []
    left = [platform for platform in KINDS if overrides[platform]]
    for i, entry in enumerate(_list(raw, "bots", problems)):
        path, platform = f"bots[{i}]", str(entry.get("platform", ""))
        if platform not in KINDS:
            problems.add(
                f"{path}.platform", "应为 feishu 或 dingtalk", "must be feishu or dingtalk"
            )
            continue
        if platform in left and entry.get("name", platform) == platform:
            left.remove(platform)
            entry = _merged(entry, platform, path, overrides, problems)
        bots.append(_bot(platform, entry, path, problems))
    for platform in left:
        entry = _merged({}, platform, platform, overrides, problems)
        bots.append(_bot(platform, entry, platform, problems))
    tried = bool(raw.get("bots")) or any(overrides[p] for p in KINDS) or problems.unread
    found = [bot for bot in bots if bot is not None]
    _check_bots(found, tried, problems)
    return found


def _bot(platform: str, entry: dict[str, Any], path: str, problems: Problems) -> BotSettings | None:
    bot = read_table(KINDS[platform], entry, path, problems)
    if isinstance(bot, DingTalkBot) and "oapi_base_url" not in entry:
        return _one_host(bot)
    return bot


def _one_host(bot: DingTalkBot) -> DingTalkBot:
    """A base URL of one's own (a proxy, a simulator) serves the old API as well."""
    if bot.base_url == DingTalkBot.__dataclass_fields__["base_url"].default:
        return bot
    return replace(bot, oapi_base_url=bot.base_url)


def _check_bots(bots: list[BotSettings], tried: bool, problems: Problems) -> None:
    if not bots and not tried:
        problems.add(
            "FEISHU_APP_ID, DINGTALK_CLIENT_ID",
            "至少要设置一个平台：飞书 (FEISHU_APP_ID 和 FEISHU_APP_SECRET) "
            "或钉钉 (DINGTALK_CLIENT_ID 和 DINGTALK_CLIENT_SECRET)",
            "set at least one platform: Feishu (FEISHU_APP_ID and FEISHU_APP_SECRET) "
            "or DingTalk (DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET)",
        )
    names = [bot.name for bot in bots]
    for name in sorted({n for n in names if names.count(n) > 1}):
        problems.add(
            "bots.name",
            f"有两个机器人都叫 {name}，请各取一个名字",
            f"two bots are called {name}; give each its own name",
        )


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Every secret value, for redaction."""
    holders: list[Any] = [*settings.bots, settings.model]
    secrets = [
        str(getattr(holder, entry.name))
        for holder in holders
        for entry in fields(holder)
        if entry.metadata.get("secret")
    ]
    password = re.search("://[^/:@]*:([^/@]+)@", settings.database_url)
    secrets += [unquote(password[1]) if password else "", settings.alert_url]
    return tuple(filter(None, secrets))
