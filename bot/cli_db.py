"""Commands about the database that need it for themselves: restore and upgrade."""

from __future__ import annotations

import sys
from pathlib import Path

from bot.cli_ask import Told, failed, open_existing
from bot.errors import StoreLocked
from bot.place import Place
from storage.restore import restore as put_back

WRONG_USAGE = 2


async def upgrade(place: Place) -> Told:
    """Bring the schema up to date; queqiao run does the same when it starts."""
    try:
        store = await open_existing(place)
    except StoreLocked as error:
        return _in_use("升级", "upgrading", error)
    await store.close()
    return Told("数据库已是最新结构。 / The database is up to date.")


def restore(place: Place, file: Path, *, yes: bool) -> Told:
    """Put the backup in `file` in the place of what is there, after a question unless
    `yes`."""
    path = file.expanduser().absolute()
    if not path.is_file():
        return failed(f"没有这个备份文件：{path} / there is no such backup: {path}")
    if not yes and not sys.stdin.isatty():
        return failed(
            "恢复会替换现有的全部数据；确定的话请加 --yes "
            "/ restoring replaces all present data; add --yes if you mean it",
            WRONG_USAGE,
        )
    if not yes and not _sure(place, path):
        return failed("没有改动。 / Nothing was changed.")
    try:
        kept = put_back(place.store_url, str(path))
    except StoreLocked as error:
        return _in_use("恢复", "restoring", error)
    told = f"已从 {path} 恢复。 / Restored from {path}."
    if kept is None:
        return Told(told)
    return Told(f"{told}\n原来的数据库在 {kept}，确认无误后可以删除。 / The old one is {kept}.")


def _sure(place: Place, path: Path) -> bool:
    question = (
        f"用 {path} 替换 {place.data.resolve()} 里的全部数据？输入 yes 确认\n"
        f"Replace all data in {place.data.resolve()} by {path}? Type yes to confirm: "
    )
    try:
        return input(question).strip().lower() in ("yes", "y", "是")
    except EOFError:
        return False


def _in_use(zh: str, en: str, error: StoreLocked) -> Told:
    return failed(
        f"机器人正在运行，请先停止它再{zh}。 / The bot is running; stop it before {en}. ({error})"
    )
