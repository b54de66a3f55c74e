"""Commands about what the bot has done: they ask the process that runs, and read the
store themselves when none does (design.md 8). The store's code is loaded only then."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from adapters.console.control import ask
from bot.clock import SystemClock
from bot.contract import Json, TurnStore
from bot.errors import StoreError, StoreLocked, Transient
from bot.month import month_of
from bot.place import Place
from bot.report import account_json, backlog_json, calls_json, gap_json, turn_brief
from bot.report_text import status_text, why_text
from bot.texts import say

OK, FAILED = 0, 1

LANGS = ("zh", "en")

RESEND_SECONDS = 150.0
"""A final is tried for a minute, and may wait for its turn at the platform before."""

NOT_RUNNING = "机器人没有在运行 / the bot is not running"


@dataclass(frozen=True, slots=True)
class Told:
    """What a command prints, and the exit code. A complaint goes to standard error."""

    text: str
    code: int = OK
    complaint: bool = False


def failed(text: str, code: int = FAILED) -> Told:
    return Told(text, code, complaint=True)


@dataclass(frozen=True, slots=True)
class Style:
    """How to print: JSON, or words in these languages one after the other."""

    json: bool = False
    langs: tuple[str, ...] = LANGS


# ---------------------------------------------------------------- commands


async def status(place: Place, style: Style) -> Told:
    """Exit code 0 when the bot hears and can answer."""
    try:
        found = await ask(place.socket, "GET", "/status")
    except Transient:
        found = await _status_without(place)
    words = [status_text(found, lang) for lang in style.langs]
    return _told(found, words, style, OK if found["ready"] else FAILED)


async def why(place: Place, style: Style, message_id: str) -> Told:
    """Exit code 0 when something is known of the message."""
    try:
        found = await ask(place.socket, "GET", f"/why/{quote(message_id, safe='')}")
    except Transient:
        async with _stand_in(place) as store:
            accounts = await store.accounts(message_id, place.bots)
        found = {"accounts": [account_json(account) for account in accounts]}
    words = [why_text(found, lang) for lang in style.langs]
    return _told(found, words, style, OK if found["accounts"] else FAILED)


async def resend(place: Place, turn: str) -> Told:
    """Exit code 0 when the answer has been delivered."""
    path = f"/resend/{quote(turn, safe='')}"
    try:
        found = await ask(place.socket, "POST", path, timeout=RESEND_SECONDS)
    except Transient:
        return failed(f"{NOT_RUNNING}\n再发一次需要它：queqiao run / start it first: queqiao run")
    if found["delivery"] == "delivered":
        return Told("已送达。 / Delivered.")
    if found["delivery"] == "unconfirmed" and not found["error"]:
        return failed("\n".join(say("admin.resent_unconfirmed", lang) for lang in LANGS))
    why = found["error"] or found["delivery"]
    return failed(f"没有送达：{why} / not delivered: {why}")


async def backup(place: Place, path: Path) -> Told:
    """A copy of the store in the file `path`, an absolute one, on the machine where the
    bot runs."""
    try:
        found = await ask(place.socket, "POST", "/backup", {"path": str(path)}, timeout=None)
    except Transient:
        async with _stand_in(place) as store:
            await store.backup(str(path))
        found = {"path": str(path), "bytes": os.stat(path).st_size}
    where, size = found["path"], f"{found['bytes']:,}"
    return Told(f"已备份到 {where}，{size} 字节。 / Backed up to {where}, {size} bytes.")


# ---------------------------------------------------------------- without a process


async def open_existing(place: Place) -> TurnStore:
    """The store, held by this command. Raises StoreError when there is none, StoreLocked
    when a process holds it."""
    path = _file_of(place)
    if path is not None and not path.exists():
        raise StoreError(
            f"{path} 不存在，请检查 QUEQIAO_DATA 或 --config "
            f"/ {path} does not exist; check QUEQIAO_DATA or --config"
        )
    from storage import open_store

    return await open_store(place.store_url, SystemClock())


@asynccontextmanager
async def _stand_in(place: Place) -> AsyncIterator[TurnStore]:
    """The store, after nobody answered. Raises StoreError."""
    try:
        store = await open_existing(place)
    except StoreLocked as error:
        raise StoreLocked(
            "有进程正在使用数据库，但没有应答（刚启动，或没有控制套接字） "
            f"/ a process uses the store but does not answer: {error}"
        ) from error
    try:
        yield store
    finally:
        await store.close()


async def _status_without(place: Place) -> Json:
    """The same shape as the running process gives. What is wrong with the store is one
    of the problems: this command is asked when things are wrong."""
    left: dict[str, Any] = {"backlog": {}, "undelivered": [], "gaps": [], "calls": []}
    problems = [NOT_RUNNING]
    try:
        async with _stand_in(place) as store:
            left = await _left_in(store)
    except StoreLocked as error:
        problems = [str(error)]
    except StoreError as error:
        problems.append(str(error))
    head = {"ready": False, "problems": problems, "version": version("queqiao")}
    return {**head, "uptime": 0.0, "bots": [], **left}


async def _left_in(store: TurnStore) -> dict[str, Any]:
    now = SystemClock().time()
    return {
        "backlog": backlog_json(await store.backlog()),
        "undelivered": [turn_brief(turn) for turn in await store.undelivered()],
        "gaps": [gap_json(gap) for gap in await store.gaps()],
        "calls": calls_json(await store.count_calls((), month_of(now)), now),
    }


def _file_of(place: Place) -> Path | None:
    """The store's file; None when it is on a database server."""
    from storage.sqlite import path_of

    on_server = place.database_url and not place.database_url.startswith("sqlite")
    return None if on_server else path_of(place.store_url)


def _told(found: Json, words: list[str], style: Style, code: int) -> Told:
    if style.json:
        return Told(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode(), code)
    return Told("\n\n".join(words), code)
