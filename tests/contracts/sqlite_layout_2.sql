-- A file as the second version of the layout has it.
PRAGMA application_id = 1634881905;
PRAGMA user_version = 2;
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

INSERT INTO messages (queue, priority, position, body) VALUES ('celery', 0, 1, x'61'), ('celery', 0, 2, x'62');
INSERT INTO messages (queue, priority, position, due, body) VALUES ('celery', 0, 0, 1.5, x'63');
INSERT INTO messages (queue, priority, position, receipt, lease_until, redelivered, deliveries, interruptions, body)
    VALUES ('celery', 0, 0, 'receipt', 1.5, 1, 3, 4, x'64');
INSERT INTO dead (id, content) VALUES ('0006440000000000-a', x'30'), ('0006440000000001-b', x'31');
INSERT INTO revoked (notice, expires) VALUES ('drop:t', 9999999999);
INSERT INTO results VALUES ('t', 'SUCCESS', NULL, x'7b7d');
