"""bot/settings.py and what it reads with: what is taken, and what is said of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bot.errors import SettingsError
from bot.settings import (
    ENVIRONMENT,
    Chat,
    DingTalkBot,
    FeishuBot,
    ModelService,
    Persona,
    Settings,
    load,
    secrets_of,
)
from bot.settings_example import example

CANARY = "canary-s3cr3t-0123456789"
FEISHU = {"FEISHU_APP_ID": "cli_1", "FEISHU_APP_SECRET": "feishu-" + CANARY}
DINGTALK = {"DINGTALK_CLIENT_ID": "ding1", "DINGTALK_CLIENT_SECRET": "dingtalk-" + CANARY}
MODEL = {"DEEPSEEK_API_KEY": "model-" + CANARY}
LEAST = FEISHU | MODEL
BOT = '[[bots]]\nplatform = "feishu"\napp_id = "cli_1"\napp_secret = "x"\n'
SERVICE = '[model]\napi_key = "k"\n'

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file of this text, and no other, with these variables."""

    def read(text: str = "", **environ: str) -> Settings:
        path = tmp_path / "queqiao.toml"
        path.write_text(text, encoding="utf-8")
        return load(environ, path)

    return read


@pytest.fixture
def complaints(read: Read) -> Callable[..., list[str]]:
    def complaints(text: str = "", **environ: str) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            read(text, **environ)
        return caught.value.problems

    return complaints


Complaints = Callable[..., list[str]]


# ---------------------------------------------------------------- what is taken


def test_the_environment_alone_is_enough(read: Read) -> None:
    settings = read(**LEAST)
    assert settings.bots == (FeishuBot("cli_1", FEISHU["FEISHU_APP_SECRET"]),)
    assert settings.model == ModelService(MODEL["DEEPSEEK_API_KEY"])
    assert settings.model.model == "deepseek-flash"
    assert settings.chat == Chat()
    assert settings.http == ("127.0.0.1", 8080)
    assert settings.data == Path("data")
    assert settings.admins == frozenset()


def test_one_bot_for_each_platform(read: Read) -> None:
    settings = read(**FEISHU, **DINGTALK, **MODEL)
    assert [(bot.platform, bot.name) for bot in settings.bots] == [
        ("feishu", "feishu"),
        ("dingtalk", "dingtalk"),
    ]


def test_several_bots_of_a_platform_and_many_keys(read: Read) -> None:
    settings = read(
        """
        admins = ["feishu:ou_1", "dingtalk:manager01"]
        http = "[::1]:9000"
        [[bots]]
        platform = "feishu"
        name = "hr"
        app_id = "cli_hr"
        app_secret = "one"
        pace = 1
        [[bots]]
        platform = "feishu"
        name = "it"
        app_id = "cli_it"
        app_secret = "two"
        transport = "sdk"
        [model]
        api_key = "k"
        base_url = "http://127.0.0.1:9/v1/"
        models = ["a", " b "]
        [chat]
        footer = true
        language = "en"
        [[personas]]
        name = "legal"
        text = "你是法务助手。"
        """
    )
    hr, it = settings.bots
    assert isinstance(hr, FeishuBot)
    assert (hr.name, hr.app_id, hr.pace) == ("hr", "cli_hr", 1.0)
    assert isinstance(hr.pace, float)
    assert (it.name, it.transport) == ("it", "sdk")
    assert settings.model.base_url == "http://127.0.0.1:9/v1"
    assert settings.model.models == ("a", "b")
    assert settings.chat.footer and settings.chat.language == "en"
    assert settings.personas == (Persona("legal", "你是法务助手。"),)
    assert settings.admins == {"feishu:ou_1", "dingtalk:manager01"}
    assert settings.http == ("::1", 9000)


def test_the_environment_wins_over_the_file(read: Read, tmp_path: Path) -> None:
    text = 'data = "here"\nlog = "DEBUG"\nhttp = "127.0.0.1:1"\n' + BOT + SERVICE
    settings = read(
        text + 'model = "from-file"\n',
        FEISHU_APP_ID="cli_env",
        DEEPSEEK_MODEL="from-env",
        QUEQIAO_DATA=str(tmp_path),
        QUEQIAO_LOG="warning",
        QUEQIAO_HTTP="0.0.0.0:0",
    )
    (bot,) = settings.bots
    assert isinstance(bot, FeishuBot)
    assert (bot.app_id, bot.app_secret) == ("cli_env", "x")
    assert settings.model.model == "from-env"
    assert (settings.data, settings.log, settings.http) == (tmp_path, "WARNING", ("0.0.0.0", 0))


def test_the_bot_of_the_environment_stands_beside_others_of_the_file(read: Read) -> None:
    named = BOT.replace("app_id", 'name = "hr"\napp_id')
    settings = read(named + SERVICE, **{**FEISHU, "FEISHU_APP_ID": "cli_env"})
    assert [(bot.name, getattr(bot, "app_id", "")) for bot in settings.bots] == [
        ("hr", "cli_1"),
        ("feishu", "cli_env"),
    ]


def test_an_empty_variable_is_none_at_all(read: Read) -> None:
    settings = read(BOT + SERVICE, FEISHU_APP_ID="", DINGTALK_CLIENT_ID="  ", QUEQIAO_LOG="")
    assert len(settings.bots) == 1 and settings.log == "INFO"


def test_spaces_around_values_do_not_matter(read: Read) -> None:
    settings = read(
        'http = " 127.0.0.1:81 "\nlog = " info "\n[chat]\npersona = " brief "\n',
        FEISHU_APP_ID=" cli_1\n",
        FEISHU_APP_SECRET=f"{CANARY}\n",
        DEEPSEEK_API_KEY=f"  {CANARY} ",
    )
    assert settings.bots == (FeishuBot("cli_1", CANARY),)
    assert settings.model.api_key == CANARY
    assert settings.http == ("127.0.0.1", 81)
    assert (settings.log, settings.chat.persona) == ("INFO", "brief")


def test_a_value_may_name_a_variable_anywhere(read: Read) -> None:
    text = """
        database_url = "env:DB"
        admins = ["env:BOSS"]
        [[bots]]
        platform = "dingtalk"
        client_id = " env:ID"
        client_secret = "env: SECRET"
        [model]
        api_key = "env:KEY"
        """
    settings = read(text, DB="sqlite://", BOSS="dingtalk:1", ID="ding7", SECRET="s", KEY="k")
    assert settings.bots == (DingTalkBot("ding7", "s"),)
    assert settings.model.api_key == "k"
    assert settings.database_url == "sqlite://"
    assert settings.admins == {"dingtalk:1"}


@pytest.mark.parametrize(
    "written",
    ["feishu:ou_1,dingtalk:2", " feishu:ou_1 ,, dingtalk:2, ", "feishu:ou_1，dingtalk:2"],
)
def test_admins_are_separated_by_commas_also_chinese_ones(read: Read, written: str) -> None:
    assert read(**LEAST, QUEQIAO_ADMINS=written).admins == {"feishu:ou_1", "dingtalk:2"}


def test_ids_keep_their_case(read: Read) -> None:
    assert read(**LEAST, QUEQIAO_ADMINS="feishu:ou_AbC").admins == {"feishu:ou_AbC"}


def test_a_base_url_of_ones_own_serves_both_apis_of_dingtalk(read: Read, tmp_path: Path) -> None:
    own, other = "http://127.0.0.1:9", "http://127.0.0.1:8"
    env = DINGTALK | MODEL

    def hosts(text: str = "", **more: str) -> tuple[str, str]:
        (bot,) = read(text, **env, **more).bots
        assert isinstance(bot, DingTalkBot)
        return bot.base_url, bot.oapi_base_url

    usual = ("https://api.dingtalk.com", "https://oapi.dingtalk.com")
    assert hosts() == usual
    assert hosts(DINGTALK_BASE_URL=own) == (own, own)
    assert hosts(DINGTALK_BASE_URL=own, DINGTALK_OAPI_BASE_URL=other) == (own, other)
    table = f'[[bots]]\nplatform = "dingtalk"\noapi_base_url = "{other}"\n'
    assert hosts(table, DINGTALK_BASE_URL=own) == (own, other)
    assert hosts(DINGTALK_BASE_URL=usual[0]) == usual


def test_a_home_folder_is_found(read: Read) -> None:
    assert read(**LEAST, QUEQIAO_DATA="~/queqiao").data == Path.home() / "queqiao"


def test_the_file_named_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(BOT + SERVICE, encoding="utf-8")
    assert load({"QUEQIAO_CONFIG": str(path)}).model.api_key == "k"


def test_a_file_saved_by_a_windows_editor(tmp_path: Path) -> None:
    path = tmp_path / "queqiao.toml"
    text = 'log = "DEBUG" # 日志\r\n' + (BOT + SERVICE).replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load({}, path).log == "DEBUG"


def test_settings_cannot_be_changed(read: Read) -> None:
    settings = read(**LEAST)
    for holder in (settings, settings.bots[0], settings.model, settings.chat):
        with pytest.raises(AttributeError):
            setattr(holder, fields(holder)[0].name, "other")


# ---------------------------------------------------------------- what is said


WRONG = """\
htpp = "127.0.0.1:1"
data = 5
log = "loud"
admins = ["feishu:ou_1", "bob"]

[[bots]]
platform = "feishu"
app_id = "cli_1"
app_secret = "x"
pace = 0.5

[[bots]]
platform = "dingtalk"
client_id = ""
client_secret = "env:NOPE"
pace = nan
base_url = "api.dingtalk.com"

[[bots]]
platform = "wechat"

[model]  # ours
modle = "x"
max_tokens = 1.5
models = []

[chat]
persona = \"\"\"
[bots]
depth = 3
\"\"\"
depth = -1
footer = "yes"
memory = "us"
"""


def test_every_problem_at_once_with_name_line_and_both_languages(complaints: Complaints) -> None:
    said = complaints(WRONG)
    expected = {
        "htpp (line 1)": "did you mean http?",
        "data (line 2)": "must be text in quotes",
        "log (line 3)": "DEBUG, INFO, WARNING, ERROR",
        "admins (line 4)": '"bob" must look like feishu:ou_…',
        "bots[1].client_id (line 14)": "is missing",
        "bots[1].client_secret (line 15)": "the environment variable NOPE is not set",
        "bots[1].pace (line 16)": "must be a number",
        "bots[1].base_url (line 17)": "starts with http(s)://",
        "bots[2].platform (line 20)": "must be feishu or dingtalk",
        "model.modle (line 23)": "did you mean model?",
        "model.max_tokens (line 24)": "must be a whole number",
        "model.models (line 25)": "at least one",
        "chat.depth (line 32)": "greater than 0",
        "chat.footer (line 33)": "must be true or false",
        "chat.memory (line 34)": "must be one of chat, person",
        "DEEPSEEK_API_KEY": "is missing",
    }
    told = {line.partition(": ")[0]: line for line in said}
    assert told.keys() == expected.keys()
    assert len(said) == len(expected)
    for name, words in expected.items():
        assert words in told[name].partition(" / ")[2], told[name]
        assert re.search("[\u4e00-\u9fff]", told[name].partition(" / ")[0]), told[name]
        assert "\n" not in told[name]


def test_nothing_set_says_all_that_is_needed(complaints: Complaints) -> None:
    said = complaints()
    assert len(said) == 2
    for name in ("FEISHU_APP_ID", "FEISHU_APP_SECRET", "DINGTALK_CLIENT_ID"):
        assert name in said[0]
    assert said[1].startswith("DEEPSEEK_API_KEY: ")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"FEISHU_APP_ID": "cli_1"}, ["FEISHU_APP_SECRET"]),
        ({"FEISHU_BASE_URL": "http://127.0.0.1:9"}, ["FEISHU_APP_ID", "FEISHU_APP_SECRET"]),
        ({"DINGTALK_CLIENT_SECRET": "x"}, ["DINGTALK_CLIENT_ID"]),
        (FEISHU | {"DINGTALK_CLIENT_ID": "ding1"}, ["DINGTALK_CLIENT_SECRET"]),
    ],
)
def test_half_a_bot_names_the_variables_that_lack(
    complaints: Complaints, given: dict[str, str], missing: list[str]
) -> None:
    assert [line.partition(":")[0] for line in complaints(**given, **MODEL)] == missing


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FEISHU_BASE_URL", "open.feishu.cn"),
        ("FEISHU_BASE_URL", "https://open.feishu.cn/open-apis"),
        ("FEISHU_TRANSPORT", "magic"),
        ("DEEPSEEK_BASE_URL", "ftp://api.deepseek.com"),
        ("QUEQIAO_ADMINS", "ou_1"),
        ("QUEQIAO_ADMINS", "Feishu:ou_1"),
        ("QUEQIAO_ADMINS", "feishu："),
        ("QUEQIAO_ADMINS", "dingtalk:"),
        ("QUEQIAO_HTTP", "8080"),
        ("QUEQIAO_HTTP", ":8080"),
        ("QUEQIAO_HTTP", "127.0.0.1:http"),
        ("QUEQIAO_HTTP", "127.0.0.1:65536"),
        ("QUEQIAO_HTTP", "127.0.0.1:²"),
        ("QUEQIAO_HTTP", "http://127.0.0.1:8080"),
        ("QUEQIAO_LOG", "verbose"),
        ("QUEQIAO_ALERT_URL", "http://alerts.example.com/x"),
        ("QUEQIAO_ALERT_URL", "http://127.0.0.1@example.com/x"),
        ("QUEQIAO_ALERT_URL", "https://"),
        ("QUEQIAO_ALERT_URL", "alerts.example.com"),
        ("QUEQIAO_ALERT_URL", "file:///etc/passwd"),
    ],
)
def test_a_wrong_variable_is_named_although_the_file_has_the_key(
    complaints: Complaints, variable: str, value: str
) -> None:
    text = 'http = "127.0.0.1:1"\nlog = "INFO"\nadmins = []\n' + BOT + SERVICE
    (line,) = complaints(text, **{variable: value})
    assert line.startswith(f"{variable}: ")


@pytest.mark.parametrize(
    "url",
    [
        "https://alerts.example.com/hook?key=a%20b",
        "http://127.0.0.1:9000/x",
        "http://localhost:9000",
        "http://[::1]:9000/x",
        "",
    ],
)
def test_where_alerts_go(read: Read, url: str) -> None:
    settings = read(f'alert_url = "{url}"\n{BOT}{SERVICE}')
    assert settings.alert_url == url
    assert not url or (url in secrets_of(settings) and url not in repr(settings))


def test_an_unset_variable_is_told_once(complaints: Complaints) -> None:
    text = """
        [[bots]]
        platform = "env:PLATFORM"
        [[bots]]
        platform = "feishu"
        app_id = "cli"
        app_secret = "env:SECRET"
        base_url = "env:BASE"
        [model]
        api_key = "env:KEY"
        """
    said = complaints(text, KEY=" ")
    assert [line.partition(" ")[0] for line in said] == [
        "bots[0].platform",
        "bots[1].app_secret",
        "bots[1].base_url",
        "model.api_key",
    ]
    assert all("环境变量" in line and "is not set" in line for line in said)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bots = 3\n" + SERVICE, "bots"),
        ('[bots]\nplatform = "feishu"\n' + SERVICE, "bots"),
        ("model = 3\n" + BOT, "model"),
        ('chat = "x"\n' + BOT + SERVICE, "chat"),
        ("personas = [1]\n" + BOT + SERVICE, "personas"),
        ("admins = 3\n" + BOT + SERVICE, "admins"),
        ("admins = [3]\n" + BOT + SERVICE, "admins"),
        ("http = 8080\n" + BOT + SERVICE, "http"),
        ("database_url = true\n" + BOT + SERVICE, "database_url"),
        (BOT.replace('"cli_1"', "7") + SERVICE, "bots[0].app_id"),
        (BOT.replace('"x"', '" "') + SERVICE, "bots[0].app_secret"),
        (BOT + 'name = ""\n' + SERVICE, "bots[0].name"),
        (BOT + 'pace = "1"\n' + SERVICE, "bots[0].pace"),
        (BOT + "pace = 0\n" + SERVICE, "bots[0].pace"),
        (BOT + "pace = inf\n" + SERVICE, "bots[0].pace"),
        (BOT + SERVICE + "max_tokens = nan\n", "model.max_tokens"),
        (BOT + SERVICE + "max_tokens = true\n", "model.max_tokens"),
        (BOT + SERVICE + "stream = 1\n", "model.stream"),
        (BOT + SERVICE + 'models = ["a", ""]\n', "model.models"),
        (BOT + SERVICE + 'models = "a"\n', "model.models"),
        (BOT + SERVICE + "silence = 1979-05-27\n", "model.silence"),
        (BOT + SERVICE + '[[personas]]\nname = "a"\ntext = ""\n', "personas[0].text"),
        (BOT + SERVICE + "[chat]\nlanguage = []\n", "chat.language"),
    ],
)
def test_odd_types_are_complaints_never_crashes(
    complaints: Complaints, text: str, name: str
) -> None:
    (line,) = complaints(text, **MODEL)
    assert re.match(rf"{re.escape(name)} \(line \d+\): ", line), line


@pytest.mark.parametrize(
    ("key", "near"),
    [("app_secrt", "app_secret"), ("APP_SECRET2", "app_secret"), ("baseurl", "base_url")],
)
def test_the_nearest_right_key(complaints: Complaints, key: str, near: str) -> None:
    (line,) = complaints(f'{BOT}{key} = "x"\n{SERVICE}')
    assert f"是不是 {near}？" in line and f"did you mean {near}?" in line
    assert line.startswith(f"bots[0].{key} (line 5)")


def test_a_key_like_no_other_is_not_guessed_at(complaints: Complaints) -> None:
    (line,) = complaints(BOT + 'zzz = "x"\n' + SERVICE)
    assert "unknown key" in line and "did you mean" not in line


def test_two_bots_of_one_name(complaints: Complaints) -> None:
    (line,) = complaints(BOT + BOT + SERVICE)
    assert "feishu" in line and "each its own name" in line


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "a"
    for environ, file in (({}, missing), ({"QUEQIAO_CONFIG": str(missing)}, None)):
        with pytest.raises(SettingsError) as caught:
            load(environ, file)
        (line,) = caught.value.problems
        assert str(missing) in line and "no such settings file" in line


def test_a_file_that_cannot_be_read_hides_no_wrong_variable(
    complaints: Complaints, tmp_path: Path
) -> None:
    said = complaints(f"{BOT}{SERVICE}api_key = {CANARY}\n", QUEQIAO_LOG="loud")
    assert len(said) == 2, "what may stand in the file is not called missing"
    assert "line 7" in said[0] and CANARY not in said[0]
    assert said[1].startswith("QUEQIAO_LOG: ")
    path = tmp_path / "gbk.toml"
    path.write_bytes('# 设置\nlog = "INFO"'.encode("gbk"))
    with pytest.raises(SettingsError, match="utf-8"):
        load(dict(LEAST), path)


def test_the_error_is_one_line_of_all_problems(read: Read) -> None:
    with pytest.raises(SettingsError) as caught:
        read(QUEQIAO_LOG="loud")
    for problem in caught.value.problems:
        assert problem in str(caught.value)


# ---------------------------------------------------------------- secrets


def test_secrets_are_in_no_repr_and_all_known_to_redaction(read: Read) -> None:
    url = f"postgresql://bot:p%40{CANARY}@db:5432/queqiao"
    settings = read(**FEISHU, **DINGTALK, **MODEL, QUEQIAO_DATABASE_URL=url)
    for shown in (repr(settings), str(settings), f"{settings.bots} {settings.model}"):
        assert CANARY not in shown
    assert set(secrets_of(settings)) == {
        FEISHU["FEISHU_APP_SECRET"],
        DINGTALK["DINGTALK_CLIENT_SECRET"],
        MODEL["DEEPSEEK_API_KEY"],
        f"p@{CANARY}",
    }


def test_complaints_about_secrets_do_not_tell_them(complaints: Complaints) -> None:
    wrong = f'{BOT}app_secrt = "{CANARY}"\n[model]\napi_key = ["{CANARY}"]\nkey = "{CANARY}"\n'
    said = complaints(wrong)
    assert len(said) == 3
    assert CANARY not in "".join(said)


# ---------------------------------------------------------------- the example


EXAMPLE_SECRETS = {
    "FEISHU_APP_SECRET": "a",
    "DINGTALK_CLIENT_SECRET": "b",
    "DEEPSEEK_API_KEY": "c",
}


def test_the_example_is_a_valid_file_of_defaults(read: Read) -> None:
    settings = read(example(), **EXAMPLE_SECRETS)
    assert [bot.platform for bot in settings.bots] == ["feishu", "dingtalk"]
    assert settings.model == ModelService("c")
    assert settings.chat == Chat()


def test_without_its_variables_the_example_says_which(complaints: Complaints) -> None:
    said = complaints(example())
    assert len(said) == 3
    for name, line in zip(EXAMPLE_SECRETS, said, strict=True):
        assert name in line


def test_every_line_of_the_example_holds_once_it_is_uncommented(read: Read) -> None:
    text = re.sub(r"(?m)^# (?=\[\[?\w+\]|\w+ = )", "", example())
    settings = read(text, **EXAMPLE_SECRETS)
    feishu, dingtalk = settings.bots
    assert feishu == FeishuBot(getattr(feishu, "app_id", ""), "a")
    assert dingtalk == DingTalkBot(getattr(dingtalk, "client_id", ""), "b")
    assert settings.model == ModelService("c")
    assert settings.chat == Chat()
    assert settings.database_url == ""
    assert [persona.name for persona in settings.personas] == ["legal"]


def test_the_example_lists_every_key_with_its_meaning() -> None:
    text = example()
    kinds: list[Any] = [FeishuBot, DingTalkBot, ModelService, Chat]
    for kind in kinds:
        for entry in fields(kind):
            if entry.name != "platform":
                assert re.search(rf"(?m)^#? ?{entry.name} = .*  # .+$", text), entry.name
    for entry in fields(Settings):
        assert re.search(rf"(?m)^#? ?(\[+{entry.name}\]|{entry.name} = )", text), entry.name


def test_every_variable_sets_a_key_that_exists() -> None:
    kinds: dict[str, Any] = {
        "": Settings,
        "feishu": FeishuBot,
        "dingtalk": DingTalkBot,
        "model": ModelService,
    }
    for variable, (table, name) in ENVIRONMENT.items():
        assert name in {entry.name for entry in fields(kinds[table])}, variable


# ---------------------------------------------------------------- the month's calls


def test_caps_are_off_until_they_are_set(read: Read) -> None:
    feishu, dingtalk = read(**LEAST, **DINGTALK).bots
    assert isinstance(feishu, FeishuBot) and isinstance(dingtalk, DingTalkBot)
    assert (feishu.monthly_calls, feishu.saver, feishu.rotate) == (0, "auto", 1800.0)
    assert (dingtalk.monthly_calls, dingtalk.monthly_messages) == (0, 0)


def test_a_cap_a_saver_and_no_rotation(read: Read) -> None:
    more = 'monthly_calls = 5000\nsaver = "never"\nrotate = 0\n'
    (bot,) = read(BOT + more + SERVICE).bots
    assert isinstance(bot, FeishuBot)
    assert (bot.monthly_calls, bot.saver, bot.rotate) == (5000, "never", 0.0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("monthly_calls = -1", "must not be less than 0"),
        ("monthly_calls = 1.5", "must be a whole number"),
        ('monthly_calls = "many"', "must be a whole number"),
        ("monthly_calls = true", "must be a whole number"),
        ("rotate = -0.5", "must not be less than 0"),
        ("rotate = nan", "must be a number"),
        ('saver = "sometimes"', "must be one of auto, always, never"),
        ("monthly_call = 5", "did you mean monthly_calls?"),
        ("monthly_messages = 5", "did you mean"),
    ],
)
def test_wrong_caps_are_named(complaints: Complaints, line: str, words: str) -> None:
    """Feishu bills no messages apart, so it has no cap of them."""
    (told,) = complaints(BOT + line + "\n" + SERVICE)
    assert words in told and told.startswith(f"bots[0].{line.partition(' ')[0]} (line 5)")


def test_caps_from_the_environment(read: Read, complaints: Complaints) -> None:
    bots = read(
        **LEAST, **DINGTALK, FEISHU_MONTHLY_CALLS="10000", DINGTALK_MONTHLY_CALLS=" 0 "
    ).bots
    assert [bot.monthly_calls for bot in bots] == [10_000, 0]
    for wrong in ("many", "-5", "1e3", "5,000"):
        (told,) = complaints("", **LEAST, FEISHU_MONTHLY_CALLS=wrong)
        assert told.startswith("FEISHU_MONTHLY_CALLS: ") and "whole number" in told
