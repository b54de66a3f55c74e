"""Numbered steps from an empty file to the present schema, run at start.

A step never changes once it was released: it is frozen SQL and does not read
storage.schema. Each step and its number are committed together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from bot.errors import StoreTooNew
from storage.migrations import m0001_first, m0002_deliveries, m0003_calls

Step = Callable[[Connection], None]

STEPS: tuple[Step, ...] = (
    m0001_first.upgrade,
    m0002_deliveries.upgrade,
    m0003_calls.upgrade,
)
"""Step n leads from version n - 1 to version n."""


def migrate(connection: Connection, steps: Sequence[Step] = STEPS) -> None:
    """Run the missing steps. Raises StoreTooNew when the file is ahead of them."""
    with connection.begin():
        version = _version(connection)
    check(version, len(steps))
    for number, step in enumerate(steps[version:], version + 1):
        with connection.begin():
            step(connection)
            connection.exec_driver_sql(f"UPDATE schema_version SET version = {number:d}")


def check(version: int, known: int = len(STEPS)) -> None:
    """Raises StoreTooNew when a newer program wrote this version."""
    if version > known:
        raise StoreTooNew(
            f"数据库版本是 {version}，本程序只认识到 {known}，请使用更新的版本 "
            f"(the database has version {version}, this program knows {known}: use a newer one)"
        )


def _version(connection: Connection) -> int:
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)"
    )
    found = connection.exec_driver_sql("SELECT version FROM schema_version").scalar()
    if found is None:
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (0)")
    return int(found or 0)
