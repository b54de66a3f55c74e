"""`queqiao config check` and `config example`, as a person at a terminal meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot.cli import OK, WRONG_SETTINGS, main
from bot.settings import ENVIRONMENT, load

ROOT = Path(__file__).resolve().parent.parent
CANARY = "canary-s3cr3t-0123456789"
FILE = f"""\
admins = ["feishu:ou_1"]
database_url = "postgresql://bot:{CANARY}@db/queqiao"
[[bots]]
platform = "feishu"
name = "hr"
app_id = "cli_1"
app_secret = "{CANARY}"
[model]
api_key = "{CANARY}"
model = "deepseek-v4-pro"
"""


def queqiao(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """The program itself, in `folder`, with nothing in its environment but this."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **kept, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )


# ---------------------------------------------------------------- a process of its own


def test_a_fresh_machine_is_told_all_it_lacks(tmp_path: Path) -> None:
    done = queqiao(tmp_path, "config", "check")
    said = done.stderr.decode("utf-8")
    assert done.returncode == 2 and done.stdout == b""
    for name in ("FEISHU_APP_ID", "DINGTALK_CLIENT_ID", "DEEPSEEK_API_KEY"):
        assert name in said
    assert "2 个问题" in said and "2 problems" in said
    assert "queqiao config example" in said, "what to do next"
    assert "Traceback" not in said


def test_the_example_becomes_a_file_that_passes(tmp_path: Path) -> None:
    done = queqiao(tmp_path, "config", "example", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "queqiao.toml").write_bytes(done.stdout)
    secrets = dict.fromkeys(
        ("FEISHU_APP_SECRET", "DINGTALK_CLIENT_SECRET", "DEEPSEEK_API_KEY"), CANARY
    )
    checked = queqiao(tmp_path, "config", "check", **secrets)
    assert checked.returncode == 0, checked.stderr.decode("utf-8")
    assert "feishu" in (said := checked.stdout.decode("utf-8")) and "dingtalk" in said
    assert CANARY not in said


def test_check_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "queqiao.toml").write_text(FILE, encoding="utf-8")
    assert queqiao(tmp_path, "config", "check").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["queqiao.toml"]


def test_a_mistyped_command_is_no_traceback(tmp_path: Path) -> None:
    for arguments in (("confg",), ("config",), ("config", "chek"), ()):
        done = queqiao(tmp_path, *arguments)
        assert done.returncode == 2
        assert b"usage: queqiao" in done.stderr and b"Traceback" not in done.stderr


# ---------------------------------------------------------------- the same in this process


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good file, and nothing in the environment that would win over it."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "queqiao.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_check_says_what_would_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(file)]) == OK == 0
    said = capsys.readouterr()
    assert said.err == ""
    for words in ("没有问题", "fine", "feishu: hr", "deepseek-v4-pro", "feishu:ou_1", "data"):
        assert words in said.out
    assert CANARY not in said.out


def test_check_counts_and_lists_what_is_wrong(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(FILE.replace("app_secret", "app_secrt") + "modle = 1\n", encoding="utf-8")
    assert main(["config", "check", "--config", str(file)]) == WRONG_SETTINGS == 2
    said = capsys.readouterr()
    assert said.out == "" and CANARY not in said.err
    listed = [line for line in said.err.splitlines() if line.startswith("  - ")]
    assert len(listed) == 3 and "3 个问题" in said.err
    assert "bots[0].app_secrt (line 7)" in said.err
    assert "model.modle (line 11)" in said.err


def test_check_of_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check", "--config", str(tmp_path / "none.toml")]) == WRONG_SETTINGS
    assert "none.toml" in capsys.readouterr().err


def test_example_prints_a_file_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "example"]) == OK
    said = capsys.readouterr()
    assert said.err == ""
    path = tmp_path / "queqiao.toml"
    path.write_text(said.out, encoding="utf-8")
    environ = dict.fromkeys(
        ("FEISHU_APP_SECRET", "DINGTALK_CLIENT_SECRET", "DEEPSEEK_API_KEY"), "x"
    )
    assert len(load(environ, path).bots) == 2


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["--help"], "config"), (["--version"], "queqiao ")):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
        assert words in capsys.readouterr().out
