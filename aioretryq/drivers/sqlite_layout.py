"""The layout of an SQLite file: its tables, and how those of earlier layouts become the present one."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION_ID = 0x61725171  # "arQq": tells our files from those of other programs
SCHEMA_VERSION = 4
# Who listens says so again and again. A broadcast is one row for all who listen, or for the inboxes of its key.
EXCHANGES = """
CREATE TABLE broadcasts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    inbox INTEGER NOT NULL,
    expires REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX broadcasts_expires ON broadcasts (expires);
CREATE TABLE ears (
    name TEXT PRIMARY KEY,
    exchange TEXT NOT NULL,
    pattern TEXT NOT NULL,
    inbox INTEGER NOT NULL,
    until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE bindings (
    exchange TEXT NOT NULL,
    kind TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    queue TEXT NOT NULL,
    until REAL,
    PRIMARY KEY (exchange, kind, routing_key, queue)
) WITHOUT ROWID;
CREATE INDEX bindings_until ON bindings (until) WHERE until IS NOT NULL;
"""
# A chord is open once its size is known; parts may come before. `sender` is who may send the body, until `held`;
# `bound` who may as the only one, whatever the time, for its message comes back; `done` when it was closed.
CHORDS = """
CREATE TABLE chords (
    group_id TEXT PRIMARY KEY, size INTEGER, sender TEXT, held REAL, bound TEXT, done REAL, expires REAL
) WITHOUT ROWID;
CREATE INDEX chords_expires ON chords (expires) WHERE expires IS NOT NULL;
CREATE TABLE chord_parts (
    id INTEGER PRIMARY KEY,
    group_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    position INTEGER,
    content BLOB NOT NULL
);
CREATE UNIQUE INDEX chord_parts_once ON chord_parts (group_id, task_id, ifnull(position, -1));
"""
# `counted` is how many parts there are; `added` how many of them are not of the size that its sender tells (`size` is
# with them). From `opened` on is what somebody has to know who rescues a chord: when to `look`, by when its sender
# speaks again (`sending`), how often it was `told`, when it was to expire as that was told (`doomed`), whose token
# tells that it has failed (`verdict`), who has opened it. The triggers are also for those who have opened the file
# with an earlier layout.
RESCUES = """
ALTER TABLE chords ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chords ADD COLUMN added INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chords ADD COLUMN opened REAL;
ALTER TABLE chords ADD COLUMN life REAL;
ALTER TABLE chords ADD COLUMN sending REAL;
ALTER TABLE chords ADD COLUMN look REAL;
ALTER TABLE chords ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chords ADD COLUMN doomed REAL;
ALTER TABLE chords ADD COLUMN verdict TEXT;
ALTER TABLE chords ADD COLUMN opener TEXT NOT NULL DEFAULT '';
UPDATE chords SET counted = (SELECT count(*) FROM chord_parts WHERE chord_parts.group_id = chords.group_id);
CREATE INDEX chords_look ON chords (look) WHERE look IS NOT NULL;
CREATE TABLE chord_bodies (group_id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE chord_additions (
    group_id TEXT NOT NULL, task_id TEXT NOT NULL, PRIMARY KEY (group_id, task_id)
) WITHOUT ROWID;
CREATE TRIGGER chord_parts_counted AFTER INSERT ON chord_parts BEGIN
    UPDATE chords SET counted = counted + 1 WHERE group_id = new.group_id;
END;
CREATE TRIGGER chords_forgotten AFTER DELETE ON chords BEGIN
    DELETE FROM chord_bodies WHERE group_id = old.group_id;
    DELETE FROM chord_additions WHERE group_id = old.group_id;
END;
"""
# A message waits (neither due nor receipt), is parked (due) or claimed (receipt). Waiting ones are served by
# priority, then position; positions only have a meaning within one queue and priority. The partial indexes keep
# each of the three kinds from slowing down the others. `deliveries` are those that have ended without a finish.
SCHEMA = (
    """
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    position INTEGER NOT NULL,
    due REAL,
    receipt TEXT,
    lease_until REAL,
    redelivered INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL
);
CREATE INDEX messages_waiting ON messages (queue, priority, position) WHERE due IS NULL AND receipt IS NULL;
CREATE INDEX messages_parked ON messages (queue, due) WHERE due IS NOT NULL;
CREATE INDEX messages_claimed ON messages (lease_until) WHERE lease_until IS NOT NULL;
CREATE TABLE sent (tag TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX sent_expires ON sent (expires);
CREATE TABLE dead (id TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE sweep (only INTEGER PRIMARY KEY, last REAL NOT NULL, quiet_until REAL NOT NULL);
CREATE TABLE revoked (id INTEGER PRIMARY KEY AUTOINCREMENT, notice TEXT NOT NULL, expires REAL NOT NULL);
CREATE TABLE results (task_id TEXT PRIMARY KEY, state TEXT NOT NULL, expires REAL, document BLOB NOT NULL);
CREATE INDEX results_expires ON results (expires) WHERE expires IS NOT NULL;
CREATE TABLE listeners (
    topic TEXT NOT NULL, port INTEGER NOT NULL, seen REAL NOT NULL, PRIMARY KEY (topic, port)
) WITHOUT ROWID;
"""
    + EXCHANGES
    + CHORDS
    + RESCUES
)

# What makes a layout the next one, by the version it starts from. Dead letters of layout 1 had numbers; their new
# ids are those of the moment of the upgrade, less a microsecond for each younger one: an earlier time would let
# the first clean-up delete them.
UPGRADES = {
    1: """
ALTER TABLE messages ADD COLUMN deliveries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead RENAME TO numbered_dead;
CREATE TABLE dead (id TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO dead SELECT printf('%016x-layout1', 1000000 * strftime('%s', 'now') + id - last), entry
    FROM numbered_dead, (SELECT max(id) AS last FROM numbered_dead);
DROP TABLE numbered_dead;
CREATE TABLE sweep (only INTEGER PRIMARY KEY, last REAL NOT NULL, quiet_until REAL NOT NULL);
""",
    2: EXCHANGES + CHORDS,
    3: RESCUES,
}


def statements(version: int) -> Iterator[str]:
    """What makes a file of that layout (0: an empty one) one of the present."""
    scripts = [SCHEMA] if version == 0 else [UPGRADES[each] for each in range(version, SCHEMA_VERSION)]
    return (statement for script in scripts for statement in _split(script))


def _split(script: str) -> Iterator[str]:
    """Those of a trigger stay together."""
    statement = ""
    for piece in script.split(";"):
        statement += f"{piece};"
        if piece.strip() and sqlite3.complete_statement(statement):
            yield statement.removesuffix(";")
            statement = ""
