"""`queqiao status`, `why`, `resend` and `db …`, as a person at a terminal meets them: asking
a process that runs, and alone with the store."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from adapters.console.control import Control
from bot.cli import main
from bot.cli_ask import Style, backup, status, why
from bot.cli_db import restore, upgrade
from bot.clock import SystemClock
from bot.contract import (
    Account,
    Backlog,
    Ending,
    Event,
    Json,
    Metric,
    Moment,
    NewTurn,
    Person,
    TextPart,
    Turn,
)
from bot.errors import Gone, SettingsError, StoreError, StoreLocked
from bot.place import Place
from bot.report import account_json, backlog_json
from bot.settings import load_place
from storage import open_store

ROOT = Path(__file__).resolve().parent.parent
HAN = re.compile("[\u4e00-\u9fff]")
ID = "0123456789abcdef0123456789abcdef"
CANARY = "canary-s3cr3t-0123456789"
AT = 1_770_000_000.0


def asked(id_: str = ID, message_id: str = "om_1", text: str = "在吗") -> NewTurn:
    return NewTurn(
        id=id_,
        kind="chat",
        bot="feishu",
        platform="feishu",
        chat="oc_1",
        chat_kind="p2p",
        topic="",
        conversation="feishu|oc_1|",
        lane="feishu|oc_1|",
        sender=Person("ou_1", "小明"),
        message_id=message_id,
        parts=(TextPart(text),),
        address={},
        lang="zh",
        asked_at=AT,
    )


LOST = Ending("answered", text="在", delivery="undelivered", error="230002", proof="")
ACCOUNT = Account("feishu:om_1", AT, turn=Turn(asked(), 1, "answered", 1, ending=LOST))


# ---------------------------------------------------------------- the program


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


async def queqiao(folder: Path, *arguments: str, **environ: str) -> Done:
    """The program itself, in `folder`, with nothing in its environment but this."""
    return await asyncio.to_thread(_run, folder, arguments, environ)


def _run(folder: Path, arguments: tuple[str, ...], environ: dict[str, str]) -> Done:
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **kept, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


# ---------------------------------------------------------------- a process that runs


@dataclass
class Bot:
    """An operator that says what the test puts in its mouth."""

    causes: list[str] = field(default_factory=list)
    known: list[Account] = field(default_factory=list)
    sent: Json = field(default_factory=lambda: {"delivery": "delivered", "error": ""})
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def problems(self) -> list[str]:
        return self.causes

    async def metrics(self) -> list[Metric]:
        return []

    async def status(self) -> Json:
        return {
            "ready": not self.causes,
            "problems": self.causes,
            "version": "9.9.9",
            "uptime": 60.0,
            "bots": [],
            "backlog": backlog_json(Backlog()),
            "undelivered": [],
            "gaps": [],
        }

    async def live(self) -> Json:
        return {}

    async def why(self, message_id: str) -> Json:
        self.asked.append(message_id)
        return {"accounts": [account_json(account) for account in self.known]}

    async def resend(self, turn_id: str) -> Json:
        self.asked.append(turn_id)
        if self.error is not None:
            raise self.error
        return self.sent

    async def backup(self, path: str) -> Json:
        self.asked.append(path)
        if self.error is not None:
            raise self.error
        return {"path": path, "bytes": 4096}


@pytest.fixture
def bot() -> Bot:
    return Bot()


@pytest.fixture
async def running(bot: Bot, tmp_path: Path) -> AsyncIterator[Path]:
    """The folder in which a process runs, its data in ./data as by default."""
    control = Control(Place(tmp_path / "data").socket, bot)
    await control.start()
    yield tmp_path
    await control.close()


async def test_status_of_a_bot_that_is_well(running: Path) -> None:
    done = await queqiao(running, "status")
    assert (done.code, done.err) == (0, "")
    zh, en = done.out.split("\n\nAll is well")
    assert "一切正常" in zh and "9.9.9" in zh, "Chinese first"
    assert not HAN.search(en)


async def test_status_tells_what_is_wrong(running: Path, bot: Bot) -> None:
    bot.causes = ["飞书断了 / Feishu is down"]
    done = await queqiao(running, "status", "--lang", "en")
    assert done.code == 1 and "Feishu is down" in done.out
    assert not HAN.search(done.out.replace("飞书断了", ""))


async def test_status_as_json_is_what_the_process_said(running: Path, bot: Bot) -> None:
    done = await queqiao(running, "status", "--json")
    assert (done.code, done.json) == (0, await bot.status())


async def test_why_tells_the_path(running: Path, bot: Bot) -> None:
    bot.known = [ACCOUNT]
    done = await queqiao(running, "why", "msg+/a==")
    assert done.code == 0 and bot.asked == ["msg+/a=="]
    assert "没有送到" in done.out and "did not arrive" in done.out
    assert f"queqiao resend {ID}" in done.out and "小明" in done.out


async def test_why_of_an_unknown_message(running: Path) -> None:
    done = await queqiao(running, "why", "om_none")
    assert done.code == 1 and "没有这条消息的记录" in done.out
    done = await queqiao(running, "why", "om_none", "--json")
    assert (done.code, done.json) == (1, {"accounts": []})


async def test_resend(running: Path, bot: Bot) -> None:
    done = await queqiao(running, "resend", ID)
    assert done.code == 0 and "已送达" in done.out and bot.asked == [ID]
    bot.sent = {"delivery": "undelivered", "error": "230002 out of the chat"}
    done = await queqiao(running, "resend", ID)
    assert (done.code, done.out) == (1, "") and "230002 out of the chat" in done.err
    bot.sent = {"delivery": "unconfirmed", "error": ""}
    done = await queqiao(running, "resend", ID)
    assert done.code == 1 and "又发了一次，但没有得到平台的确认" in done.err
    assert "did not confirm" in done.err and "没有送达" not in done.err
    bot.sent = {"delivery": "unconfirmed", "error": "230002 out of the chat"}
    done = await queqiao(running, "resend", ID)
    assert done.code == 1 and "没有送达：230002 out of the chat" in done.err
    bot.error = Gone("没有这个问题 / no such turn")
    done = await queqiao(running, "resend", "nonsense")
    assert done.code == 1 and "没有这个问题" in done.err


async def test_backup_by_the_process_that_runs(running: Path, bot: Bot) -> None:
    """It stands in another folder, so it is told the whole path."""
    done = await queqiao(running, "db", "backup", "copy.db")
    assert bot.asked == [f"{running}/copy.db"]
    assert done.code == 0 and "copy.db" in done.out and "4,096" in done.out
    bot.error = StoreError("disk full")
    done = await queqiao(running, "db", "backup", "copy.db")
    assert done.code == 1 and "disk full" in done.err and done.out == ""


# ---------------------------------------------------------------- settings


async def test_no_key_or_secret_is_asked_for(running: Path) -> None:
    """Not even where the file takes them from the environment, which is empty here."""
    (running / "queqiao.toml").write_text(
        """\
        [[bots]]
        platform = "feishu"
        app_id = "cli_1"
        app_secret = "env:FEISHU_APP_SECRET"
        [model]
        api_key = "env:DEEPSEEK_API_KEY"
        [unknown]
        """
    )
    done = await queqiao(running, "status")
    assert (done.code, done.err) == (0, "")


async def test_the_data_folder_is_found_as_by_run(running: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = elsewhere / "my.toml"
    file.write_text(f"data = {orjson.dumps(str(running / 'data')).decode()}\n")
    for arguments, environ in (
        (("--config", str(file)), {}),
        ((), {"QUEQIAO_CONFIG": str(file)}),
        (("--config", str(file)), {"QUEQIAO_DATA": "../data"}),
    ):
        done = await queqiao(elsewhere, "status", *arguments, **environ)
        assert done.code == 0, (arguments, environ, done)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data = 1", "data (line 1)"),
        ("database_url = []", "database_url (line 1)"),
        ("data = 'env:NONE'", "data (line 1)"),
        ("data =", "queqiao.toml"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "queqiao.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_place({}, file)
    assert len(refused.value.problems) == 1 and words in refused.value.problems[0]


def test_the_environment_wins_over_a_file_that_leads_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "queqiao.toml"
    file.write_text("data = 'env:NONE'")
    assert load_place({"QUEQIAO_DATA": "/elsewhere"}, file).data == Path("/elsewhere")


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = await queqiao(tmp_path, "why", "om_1", "--config", "none.toml")
    assert (done.code, done.out) == (2, "") and "none.toml" in done.err


@pytest.mark.parametrize(
    "arguments",
    [["why"], ["resend"], ["db"], ["db", "backup"], ["db", "drop"], ["status", "--lang", "fr"]],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: queqiao" in capsys.readouterr().err


def test_the_names_a_bot_can_have(tmp_path: Path) -> None:
    file = tmp_path / "queqiao.toml"
    file.write_text("[[bots]]\nname = 'hr'\n[[bots]]\nplatform = 'dingtalk'\n[[bots]]\nname = 3\n")
    assert load_place({}, file).bots == ("hr", "dingtalk", "feishu")
    file.write_text("bots = 'nonsense'")
    assert load_place({}, file).bots == ("feishu", "dingtalk")


def test_the_place_of_the_store(tmp_path: Path) -> None:
    place = load_place({"QUEQIAO_DATA": str(tmp_path)}, None)
    assert place.store_url == f"sqlite:///{tmp_path}/queqiao.db"
    assert place.socket == tmp_path / "queqiao.sock"
    url = f"postgresql://bot:{CANARY}@db/queqiao"
    place = load_place({"QUEQIAO_DATABASE_URL": url}, None)
    assert place.store_url == url and CANARY not in repr(place)
    with pytest.raises(SettingsError):
        load_place({}, tmp_path / "none.toml")


# ---------------------------------------------------------------- nobody runs


@pytest.fixture
async def left(tmp_path: Path) -> Path:
    """A folder whose bot has ended: an answer that did not arrive, one event that nobody
    asked about, and a question that waits."""
    store = await open_store(Place(tmp_path / "data").store_url, SystemClock(), durable=False)
    await store.accept(Event("feishu:om_1", asked()))
    await store.accept(Event("feishu:om_1", asked()))
    await store.start(ID, 10)
    trail = (Moment(AT, "claimed"), Moment(AT + 1, "started"))
    await store.finish(ID, Ending("answered", "在", delivery="undelivered", trail=trail))
    await store.accept(Event("feishu:om_2", None, reason="not_mentioned"))
    await store.accept(Event("feishu:om_3", asked("f" * 32, "om_3", "等着")))
    await store.close()
    return tmp_path


@pytest.fixture
def place(left: Path) -> Place:
    return Place(left / "data")


JSON = Style(json=True)


async def known(place: Place, message_id: str) -> bool:
    return (await why(place, JSON, message_id)).code == 0


async def claim(place: Place, key: str) -> None:
    """Something more happens, and the bot ends again."""
    store = await open_store(place.store_url, SystemClock(), durable=False)
    await store.accept(Event(key, None, reason="at_all"))
    await store.close()


async def test_status_from_the_store_alone(left: Path) -> None:
    done = await queqiao(left, "status", "--json")
    assert done.code == 1
    found = done.json
    assert not found["ready"] and "没有在运行" in found["problems"][0]
    (lost,) = found["undelivered"]
    assert (lost["turn"], lost["delivery"]) == (ID, "undelivered")
    assert (lost["question"], lost["answer"]) == ("在吗", "在")
    assert found["backlog"]["waiting"] == 1 and found["backlog"]["undelivered"] == 1


async def test_status_without_a_process_in_words(place: Place) -> None:
    told = await status(place, Style())
    assert told.code == 1 and not told.complaint
    assert "没有在运行" in told.text and f"queqiao resend {ID}" in told.text


async def test_why_from_the_store_alone(left: Path) -> None:
    done = await queqiao(left, "why", "om_1", "--json")
    assert done.code == 0
    (account,) = done.json["accounts"]
    assert account["key"] == "feishu:om_1" and account["repeats"] == 1
    assert account["turn"]["id"] == ID and account["turn"]["delivery"] == "undelivered"
    whats = [moment["what"] for moment in account["turn"]["moments"]]
    assert whats[:2] == ["claimed", "started"] and "repeated" in whats


async def test_every_kind_of_message_is_found(place: Place) -> None:
    assert "没有 @ 机器人" in (await why(place, Style(), "om_2")).text
    assert "在排队" in (await why(place, Style(), "f" * 8)).text, "by what people are shown"
    assert not await known(place, "om_9")


async def test_a_bot_with_a_name_of_its_own_is_found(place: Place) -> None:
    await claim(place, "hr:om_7")
    assert not await known(place, "om_7")
    assert await known(replace(place, bots=("hr", "feishu")), "om_7")


async def test_resend_needs_the_bot(left: Path) -> None:
    done = await queqiao(left, "resend", ID)
    assert done.code == 1 and "没有在运行" in done.err and "queqiao run" in done.err


async def test_backup_and_restore(left: Path, place: Place) -> None:
    done = await queqiao(left, "db", "backup", "copy.db")
    assert done.code == 0 and "copy.db" in done.out, done.err
    assert stat.S_IMODE(os.stat(left / "copy.db").st_mode) == 0o600
    await claim(place, "feishu:om_8")
    done = await queqiao(left, "db", "restore", "copy.db")
    assert done.code == 2 and "--yes" in done.err, "nobody is there to be asked"
    assert await known(place, "om_8")
    done = await queqiao(left, "db", "restore", "copy.db", "--yes")
    assert done.code == 0 and "已从" in done.out, done.err
    assert "before-restore" in done.out, "the old one is kept, and where is said"
    assert await known(place, "om_1") and not await known(place, "om_8")


async def test_restore_of_what_is_no_backup(left: Path, place: Place) -> None:
    (left / "nonsense.db").write_text("nonsense" * 1000)
    done = await queqiao(left, "db", "restore", "nonsense.db", "--yes")
    assert (done.code, done.out) == (1, "") and "nonsense.db" in done.err
    for name in ("none.db", "data"):
        told = restore(place, left / name, yes=True)
        assert told.code == 1 and told.complaint and name in told.text
    assert await known(place, "om_1")


async def test_a_backup_over_the_database_itself(place: Place) -> None:
    for end in ("", "-wal", "-shm", ".lock"):
        with pytest.raises(StoreError):
            await backup(place, place.data / f"queqiao.db{end}")
        with pytest.raises(StoreError):
            await backup(place, place.data / ".." / "data" / f"queqiao.db{end}")
    assert await known(place, "om_1")


async def test_a_backup_where_nothing_can_be_written(left: Path, place: Place) -> None:
    for where in ("none/copy.db", "data"):
        with pytest.raises(StoreError):
            await backup(place, left / where)
    assert await known(place, "om_1")


async def test_upgrade(left: Path) -> None:
    done = await queqiao(left, "db", "upgrade")
    assert done.code == 0 and "最新" in done.out


async def test_a_folder_without_a_store_stays_empty(tmp_path: Path) -> None:
    done = await queqiao(tmp_path, "status")
    assert done.code == 1 and "QUEQIAO_DATA" in done.out and "等待" not in done.out
    place = Place(tmp_path / "data")
    for work in (why(place, JSON, "om_1"), backup(place, tmp_path / "x.db"), upgrade(place)):
        with pytest.raises(StoreError, match="QUEQIAO_DATA"):
            await work
    assert os.listdir(tmp_path) == []


async def test_a_process_that_does_not_answer(left: Path, place: Place) -> None:
    """It holds the store but has no socket: nobody opens the file beside it."""
    store = await open_store(place.store_url, SystemClock(), durable=False)
    done = await queqiao(left, "status")
    assert done.code == 1 and str(os.getpid()) in done.out and "没有应答" in done.out
    done = await queqiao(left, "why", "om_1")
    assert (done.code, done.out) == (1, "") and "没有应答" in done.err
    with pytest.raises(StoreLocked, match="没有应答"):
        await backup(place, left / "x.db")
    done = await queqiao(left, "db", "restore", "data/queqiao.db", "--yes")
    assert (done.code, done.out) == (1, "") and "请先停止它" in done.err
    told = await upgrade(place)
    assert told.code == 1 and "请先停止它" in told.text
    assert os.listdir(left) == ["data"]
    await store.close()


async def test_a_password_in_an_address_is_not_printed(tmp_path: Path) -> None:
    url = f"nonsense://bot:{CANARY}@127.0.0.1:1/queqiao"
    for arguments in (("status",), ("db", "upgrade")):
        done = await queqiao(tmp_path, *arguments, QUEQIAO_DATABASE_URL=url)
        assert done.code == 1 and done.out + done.err and CANARY not in done.out + done.err
