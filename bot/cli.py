"""The `queqiao` command: reads arguments, prints for people, and returns exit codes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bot.errors import SettingsError, StoreError
from bot.settings import Settings, load, secrets_of

OK, FAILED, WRONG_SETTINGS = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong settings."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or OK)
    except SettingsError as error:
        _complain(error)
        return WRONG_SETTINGS
    except StoreError as error:
        print(f"无法打开存储 / cannot open the store: {error}", file=sys.stderr)
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
    for each in (run, check):
        each.add_argument("--config", type=Path, help="queqiao.toml 的路径 / its path")
    return parser


def _run(options: argparse.Namespace) -> int:
    settings = load(file=options.config)
    from bot.app import run
    from bot.redact import set_up_logging

    set_up_logging(settings.log, secrets_of(settings))
    names = "、".join(f"{bot.name} ({bot.platform})" for bot in settings.bots)
    print(f"鹊桥启动：{names}，模型 {settings.model.model}。Ctrl+C 退出。", file=sys.stderr)
    _loop(run(settings))
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
