"""Redeliveries counted, deliveries looked after, replicas and gaps. Frozen:
storage.schema says what the tables mean.

Columns are added, never moved: no table is written anew, and one of any size is upgraded
in place.
"""

from __future__ import annotations

from sqlalchemy import Connection

CHANGES = """
ALTER TABLE inbox ADD COLUMN repeats INTEGER DEFAULT '0' NOT NULL
;
ALTER TABLE inbox ADD COLUMN repeated_at FLOAT DEFAULT '0' NOT NULL
;
CREATE INDEX inbox_turn
    ON inbox (turn_id)
    WHERE turn_id IS NOT NULL
;
CREATE INDEX inbox_repeated
    ON inbox (repeats)
    WHERE repeats > 0
;
ALTER TABLE lane ADD COLUMN epoch INTEGER DEFAULT '0' NOT NULL
;
ALTER TABLE lane ADD COLUMN stop_to INTEGER
;
ALTER TABLE lane ADD COLUMN stop_as VARCHAR DEFAULT '' NOT NULL
;
ALTER TABLE turn ADD COLUMN seen_at FLOAT DEFAULT '0' NOT NULL
;
ALTER TABLE turn ADD COLUMN joined_at FLOAT
;
ALTER TABLE turn ADD COLUMN retry_at FLOAT
;
ALTER TABLE turn ADD COLUMN deaths INTEGER DEFAULT '0' NOT NULL
;
ALTER TABLE turn ADD COLUMN trail VARCHAR DEFAULT '[]' NOT NULL
;
UPDATE turn SET seen_at = coalesce(
    (SELECT min(inbox.seen_at) FROM inbox WHERE inbox.turn_id = turn.id), asked_at)
;
CREATE INDEX turn_asked
    ON turn (bot, asked_at)
;
CREATE INDEX turn_due
    ON turn (retry_at)
    WHERE retry_at IS NOT NULL
;
CREATE INDEX turn_unproven
    ON turn (no, delivery)
    WHERE delivery IN ('undelivered', 'unconfirmed') AND ended_at IS NOT NULL
;
CREATE TABLE replica (
    id VARCHAR NOT NULL,
    beat FLOAT NOT NULL,
    started_at FLOAT NOT NULL,
    version VARCHAR DEFAULT '' NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID
;
CREATE TABLE heard (
    bot VARCHAR NOT NULL,
    at FLOAT NOT NULL,
    PRIMARY KEY (bot)
) WITHOUT ROWID
;
CREATE TABLE gap (
    bot VARCHAR NOT NULL,
    chat VARCHAR NOT NULL,
    since FLOAT NOT NULL,
    until FLOAT NOT NULL,
    why VARCHAR DEFAULT '' NOT NULL,
    PRIMARY KEY (bot, chat, since)
) WITHOUT ROWID
;
CREATE INDEX gap_until
    ON gap (until)
;
CREATE TABLE tally (
    name VARCHAR NOT NULL,
    count INTEGER DEFAULT '0' NOT NULL,
    PRIMARY KEY (name)
) WITHOUT ROWID
"""


def upgrade(connection: Connection) -> None:
    for statement in CHANGES.split(";"):
        connection.exec_driver_sql(statement)
