"""Calls counted by bot, month, kind and API. Frozen: storage.schema says what the table
means."""

from __future__ import annotations

from sqlalchemy import Connection

CHANGES = """
CREATE TABLE calls (
    month VARCHAR NOT NULL,
    bot VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    api VARCHAR NOT NULL,
    count INTEGER DEFAULT '0' NOT NULL,
    PRIMARY KEY (month, bot, kind, api)
) WITHOUT ROWID
"""


def upgrade(connection: Connection) -> None:
    for statement in CHANGES.split(";"):
        connection.exec_driver_sql(statement)
