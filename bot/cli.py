"""The `queqiao` command: reads arguments, prints for people, and returns exit codes."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.errors import BorderError, SettingsError, StoreError
from bot.place import Place
from bot.settings import Settings, load, load_place, secrets_of

if TYPE_CHECKING:
    from bot.cli_ask import Style, Told

OK, FAILED, WRONG_SETTINGS = 0, 1, 2

Commands = Any
"""What argparse's add_subparsers returns; its type has no public name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong settings."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or OK)
    except SettingsError as error:
        _complain(error)
        return WRONG_SETTINGS
    except StoreError as error:
        print(f"存储出了问题 / trouble with the store: {error}", file=sys.stderr)
        return FAILED
    except BorderError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="queqiao",
        description="鹊桥：把 DeepSeek 接进飞书和钉钉。 / Puts DeepSeek into Feishu and DingTalk.",
    )
    parser.add_argument("--version", action="version", version=f"queqiao {version('queqiao')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="启动机器人 / run the bots of the settings")
    run.add_argument("--while-stdin-is-open", action="store_true", help=argparse.SUPPRESS)
    run.set_defaults(command=_run)
    demo = commands.add_parser(
        "demo", help="不需要任何账号的演示 / a playground without any credentials"
    )
    demo.add_argument("--port", type=int, default=8090, help="网页端口 / port of the page")
    demo.set_defaults(command=_demo)
    config = commands.add_parser("config", help="检查设置或打印样例 / check or print settings")
    what = config.add_subparsers(metavar="WHAT", required=True)
    check = what.add_parser("check", help="检查设置 / check the settings")
    check.set_defaults(command=_check)
    example = what.add_parser("example", help="打印样例 / print an example file")
    example.set_defaults(command=_example)
    for each in (run, check, *_askers(commands), *_keepers(commands)):
        each.add_argument("--config", type=Path, help="queqiao.toml 的路径 / its path")
    return parser


def _askers(commands: Commands) -> tuple[argparse.ArgumentParser, ...]:
    """Commands that ask what the bot does and did."""
    status = commands.add_parser("status", help="机器人的状况 / how the bot is")
    status.set_defaults(command=_status)
    why = commands.add_parser("why", help="一条消息的去向 / what became of a message")
    why.add_argument("message", metavar="MESSAGE_ID", help="消息编号或问题编号 / its id")
    why.set_defaults(command=_why)
    for each in (status, why):
        each.add_argument("--json", action="store_true", help="输出 JSON / print JSON")
        each.add_argument("--lang", choices=("zh", "en"), help="只用一种语言 / one language")
    resend = commands.add_parser("resend", help="再发一次没送到的回答 / deliver an answer again")
    resend.add_argument("turn", metavar="TURN", help="status 里的问题编号 / from status")
    resend.set_defaults(command=_resend)
    return status, why, resend


def _keepers(commands: Commands) -> tuple[argparse.ArgumentParser, ...]:
    """Commands that look after the database."""
    db = commands.add_parser("db", help="备份、恢复、升级数据库 / look after the database")
    what = db.add_subparsers(metavar="WHAT", required=True)
    backup = what.add_parser("backup", help="备份，运行中也可以 / back up, also while it runs")
    backup.set_defaults(command=_backup)
    restore = what.add_parser("restore", help="用备份替换现有数据 / replace all by a backup")
    restore.add_argument("--yes", action="store_true", help="不再询问 / do not ask")
    restore.set_defaults(command=_restore)
    upgrade = what.add_parser("upgrade", help="更新数据库结构 / bring the schema up to date")
    upgrade.set_defaults(command=_upgrade)
    for each in (backup, restore):
        each.add_argument("file", metavar="FILE", type=Path, help="备份文件 / the backup file")
    return backup, restore, upgrade


def _run(options: argparse.Namespace) -> int:
    settings = load(file=options.config)
    gc.disable()  # nothing of what is loaded now is garbage; to look is a tenth of the start
    from bot.redact import set_up_logging
    from bot.serving import run

    gc.freeze()  # it stays for good: no later collection walks through it either
    gc.enable()
    set_up_logging(settings.log, secrets_of(settings))
    names = "、".join(f"{bot.name} ({bot.platform})" for bot in settings.bots)
    print(f"鹊桥启动：{names}，模型 {settings.model.model}。Ctrl+C 退出。", file=sys.stderr)
    _loop(run(settings, os._exit, while_stdin_is_open=options.while_stdin_is_open))
    return OK


def _demo(options: argparse.Namespace) -> int:
    from bot.demo import demo

    _loop(demo(options.port))
    return OK


def _check(options: argparse.Namespace) -> int:
    settings = load(file=options.config)
    print("设置没有问题。 / The settings are fine.\n" + _summary(settings))
    return OK


def _example(options: argparse.Namespace) -> int:
    from bot.settings_example import example

    print(example(), end="")
    return OK


def _status(options: argparse.Namespace) -> int:
    from bot.cli_ask import status

    return _print(asyncio.run(status(_place(options), _style(options))))


def _why(options: argparse.Namespace) -> int:
    from bot.cli_ask import why

    return _print(asyncio.run(why(_place(options), _style(options), options.message)))


def _resend(options: argparse.Namespace) -> int:
    from bot.cli_ask import resend

    return _print(asyncio.run(resend(_place(options), options.turn)))


def _backup(options: argparse.Namespace) -> int:
    from bot.cli_ask import backup

    path = options.file.expanduser().absolute()
    return _print(asyncio.run(backup(_place(options), path)))


def _restore(options: argparse.Namespace) -> int:
    from bot.cli_db import restore

    return _print(restore(_place(options), options.file, yes=options.yes))


def _upgrade(options: argparse.Namespace) -> int:
    from bot.cli_db import upgrade

    return _print(asyncio.run(upgrade(_place(options))))


def _place(options: argparse.Namespace) -> Place:
    from bot.redact import set_up_logging

    set_up_logging("WARNING", ())
    return load_place(file=options.config)


def _style(options: argparse.Namespace) -> Style:
    from bot.cli_ask import LANGS, Style

    return Style(options.json, (options.lang,) if options.lang else LANGS)


def _print(told: Told) -> int:
    """A failure without a result is for standard error; a report is not, whatever it says."""
    print(told.text, file=sys.stderr if told.complaint else sys.stdout)
    return told.code


def _summary(settings: Settings) -> str:
    """What will run, without a secret."""
    lines = [f"- {bot.platform}: {bot.name}, {bot.base_url}" for bot in settings.bots]
    lines.append(f"- 模型 / model: {settings.model.model}, {settings.model.base_url}")
    lines.append(f"- 管理员 / admins: {', '.join(sorted(settings.admins)) or '（无 / none）'}")
    lines.append(f"- 数据 / data: {settings.data.resolve()}")
    return "\n".join(lines)


def _complain(error: SettingsError) -> None:
    count = len(error.problems)
    print(f"设置有 {count} 个问题 / {count} problems in the settings:", file=sys.stderr)
    for problem in error.problems:
        print(f"  - {problem}", file=sys.stderr)
    print(
        "改好后用 queqiao config check 检查；queqiao config example 打印完整样例。\n"
        "Check with: queqiao config check. A whole example: queqiao config example.",
        file=sys.stderr,
    )


def _loop(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
