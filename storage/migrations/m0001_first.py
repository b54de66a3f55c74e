"""The first schema. Frozen: storage.schema says what the tables mean."""

from __future__ import annotations

from sqlalchemy import Connection

TABLES = """
CREATE TABLE conversation (
    conversation VARCHAR NOT NULL,
    generation INTEGER DEFAULT '0' NOT NULL,
    choices VARCHAR DEFAULT '{}' NOT NULL,
    PRIMARY KEY (conversation)
) WITHOUT ROWID
;
CREATE TABLE inbox (
    event_key VARCHAR NOT NULL,
    turn_id VARCHAR,
    reason VARCHAR DEFAULT '' NOT NULL,
    seen_at FLOAT NOT NULL,
    PRIMARY KEY (event_key)
) WITHOUT ROWID
;
CREATE INDEX inbox_seen
    ON inbox (seen_at)
;
CREATE TABLE lane (
    lane VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    head VARCHAR NOT NULL,
    PRIMARY KEY (lane)
) WITHOUT ROWID
;
CREATE TABLE turn (
    no INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    bot VARCHAR NOT NULL,
    platform VARCHAR NOT NULL,
    chat VARCHAR NOT NULL,
    chat_kind VARCHAR NOT NULL,
    topic VARCHAR DEFAULT '' NOT NULL,
    conversation VARCHAR NOT NULL,
    lane VARCHAR NOT NULL,
    sender VARCHAR NOT NULL,
    message_id VARCHAR DEFAULT '' NOT NULL,
    lang VARCHAR DEFAULT '' NOT NULL,
    asked_at FLOAT NOT NULL,
    notice VARCHAR DEFAULT '' NOT NULL,
    replaces VARCHAR DEFAULT '' NOT NULL,
    root VARCHAR NOT NULL,
    state VARCHAR DEFAULT 'queued' NOT NULL,
    attempt INTEGER DEFAULT '0' NOT NULL,
    generation INTEGER DEFAULT '0' NOT NULL,
    queue VARCHAR,
    owner VARCHAR,
    done INTEGER,
    ended_at FLOAT,
    outcome VARCHAR,
    finish VARCHAR DEFAULT '' NOT NULL,
    model VARCHAR DEFAULT '' NOT NULL,
    prompt_tokens INTEGER DEFAULT '0' NOT NULL,
    completion_tokens INTEGER DEFAULT '0' NOT NULL,
    cached_tokens INTEGER DEFAULT '0' NOT NULL,
    reasoning_tokens INTEGER DEFAULT '0' NOT NULL,
    cost FLOAT DEFAULT '0' NOT NULL,
    error VARCHAR DEFAULT '' NOT NULL,
    delivery VARCHAR DEFAULT 'open' NOT NULL,
    proof VARCHAR DEFAULT '' NOT NULL,
    note VARCHAR DEFAULT '' NOT NULL,
    footer VARCHAR DEFAULT '' NOT NULL,
    person VARCHAR NOT NULL,
    notice_args VARCHAR DEFAULT '{}' NOT NULL,
    address VARCHAR DEFAULT '{}' NOT NULL,
    parts VARCHAR DEFAULT '[]' NOT NULL,
    answer VARCHAR DEFAULT '' NOT NULL,
    reasoning VARCHAR DEFAULT '' NOT NULL,
    PRIMARY KEY (no)
)
;
CREATE INDEX turn_history
    ON turn (conversation, generation, done)
    WHERE done IS NOT NULL
;
CREATE UNIQUE INDEX turn_id
    ON turn (id)
;
CREATE INDEX turn_message
    ON turn (bot, message_id, no)
;
CREATE INDEX turn_outside
    ON turn (owner)
    WHERE owner IS NOT NULL
;
CREATE INDEX turn_part
    ON turn (conversation, generation, no)
    WHERE kind = 'chat' AND ended_at IS NOT NULL
;
CREATE INDEX turn_person
    ON turn (conversation, generation, sender, no)
    WHERE kind = 'chat' AND ended_at IS NOT NULL
;
CREATE INDEX turn_queue
    ON turn (queue, no)
    WHERE queue IS NOT NULL
;
CREATE INDEX turn_root
    ON turn (root)
    WHERE done IS NOT NULL
;
CREATE INDEX usage_person
    ON turn (sender, ended_at, prompt_tokens, completion_tokens, cached_tokens,
    reasoning_tokens, cost)
    WHERE kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL
;
CREATE INDEX usage_place
    ON turn (conversation, ended_at, prompt_tokens, completion_tokens, cached_tokens,
    reasoning_tokens, cost)
    WHERE kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL
;
CREATE INDEX usage_time
    ON turn (ended_at, prompt_tokens, completion_tokens, cached_tokens,
    reasoning_tokens, cost)
    WHERE kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL
;
CREATE TABLE reply (
    turn_id VARCHAR NOT NULL,
    part INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    rung VARCHAR DEFAULT '' NOT NULL,
    card_id VARCHAR DEFAULT '' NOT NULL,
    message_id VARCHAR DEFAULT '' NOT NULL,
    sequence INTEGER DEFAULT '0' NOT NULL,
    extra VARCHAR DEFAULT '{}' NOT NULL,
    PRIMARY KEY (turn_id, part),
    FOREIGN KEY(turn_id) REFERENCES turn (id)
) WITHOUT ROWID
"""


def upgrade(connection: Connection) -> None:
    for statement in TABLES.split(";"):
        connection.exec_driver_sql(statement)
