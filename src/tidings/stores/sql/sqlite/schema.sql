-- Tables of a tidings store on SQLite. Names start with tidings_, so that read models and your own tables can have any
-- other name in the same file. Times are microseconds since 1970 UTC; leases use the machine's monotonic clock, seconds.

-- The log: every message of the store in one order. Column order = field order of Envelope.
CREATE TABLE tidings_log (
    position    INTEGER PRIMARY KEY,    -- 1, 2, 3... without gaps
    id          TEXT NOT NULL,
    source      TEXT NOT NULL,
    type        TEXT NOT NULL,
    schema      INTEGER NOT NULL,
    topic       TEXT,
    key         TEXT,
    slot        INTEGER NOT NULL,
    stream      TEXT,
    version     INTEGER,
    time        INTEGER NOT NULL,
    correlation TEXT,
    causation   TEXT,
    traceparent TEXT,
    headers     BLOB,
    data        BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX tidings_log_stream ON tidings_log (stream, version) WHERE stream IS NOT NULL;
CREATE INDEX tidings_log_correlation ON tidings_log (correlation) WHERE correlation IS NOT NULL;

-- Where each id is in the log. It follows the log: rows beyond 'indexed' in tidings_meta may not be in it yet.
CREATE TABLE tidings_id (
    id       TEXT NOT NULL,
    source   TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (id, source)
) STRICT, WITHOUT ROWID;

-- The newest state of each key, so that a new replica starts without reading the log.
CREATE TABLE tidings_state (
    type     TEXT NOT NULL,
    key      TEXT NOT NULL,
    version  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    data     BLOB NOT NULL,             -- empty: the record is gone
    PRIMARY KEY (type, key)
) STRICT, WITHOUT ROWID;

-- Messages that wait for their time.
CREATE TABLE tidings_timer (
    number   INTEGER PRIMARY KEY,
    due      INTEGER NOT NULL,
    id       TEXT NOT NULL,
    source   TEXT NOT NULL,
    envelope BLOB NOT NULL,             -- MessagePack
    UNIQUE (id, source)
) STRICT;

CREATE INDEX tidings_timer_due ON tidings_timer (due, number);

-- Messages of transactions that are not ours, until the relay has moved them to the log.
CREATE TABLE tidings_outbox (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice: dead letters are named after it
    id       TEXT NOT NULL,
    source   TEXT NOT NULL,
    key      TEXT,
    time     INTEGER NOT NULL,
    envelope BLOB NOT NULL              -- MessagePack
) STRICT;

-- Groups: the workers that share a handler.
CREATE TABLE tidings_group (
    name        TEXT PRIMARY KEY,
    handler     TEXT NOT NULL,
    types       TEXT NOT NULL,          -- JSON
    commands    TEXT NOT NULL,          -- JSON
    slots       INTEGER NOT NULL,
    start       INTEGER NOT NULL,       -- position after which it started
    on_dead     TEXT NOT NULL,          -- park, skip
    tables      TEXT NOT NULL,          -- JSON: what its schema created
    fingerprint TEXT,
    seed        TEXT                    -- cursor of an unfinished bootstrap
) STRICT, WITHOUT ROWID;

-- The slots of a group: who may handle their keys, and how far they are.
CREATE TABLE tidings_slot (
    name       TEXT NOT NULL,           -- of the group
    slot       INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,        -- grows with every change of owner
    owner      TEXT,
    expires    REAL NOT NULL,
    lease      REAL NOT NULL,
    checkpoint INTEGER NOT NULL,
    started    INTEGER NOT NULL,
    PRIMARY KEY (name, slot)
) STRICT, WITHOUT ROWID;

-- Workers that live.
CREATE TABLE tidings_member (
    app     TEXT NOT NULL,
    member  TEXT NOT NULL,
    expires REAL NOT NULL,
    lease   REAL NOT NULL,
    groups  TEXT NOT NULL,              -- JSON: full names of those it runs
    PRIMARY KEY (app, member)
) STRICT, WITHOUT ROWID;

-- Deliveries that did not end with their first attempt.
CREATE TABLE tidings_held (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,    -- never used twice: people type them
    name      TEXT NOT NULL,            -- of the group
    slot      INTEGER NOT NULL,
    key       TEXT,
    position  INTEGER NOT NULL,
    state     TEXT NOT NULL,            -- retry, parked, dead
    ready     INTEGER,                  -- when to try it; NULL: not before another one of its key, or dead
    attempt   INTEGER NOT NULL,
    due       INTEGER NOT NULL,
    since     INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    traceback TEXT NOT NULL,
    history   TEXT NOT NULL,            -- JSON
    envelope  BLOB NOT NULL             -- MessagePack
) STRICT;

CREATE INDEX tidings_held_ready ON tidings_held (name, ready, slot) WHERE ready IS NOT NULL;
CREATE INDEX tidings_held_key ON tidings_held (name, key, position) WHERE key IS NOT NULL;
CREATE INDEX tidings_held_head ON tidings_held (name, key) WHERE ready IS NOT NULL;  -- one of each key
CREATE INDEX tidings_held_name ON tidings_held (name);
CREATE UNIQUE INDEX tidings_held_position ON tidings_held (name, position);  -- a second effect must not hide here
CREATE INDEX tidings_held_state ON tidings_held (name, state);

-- Positions handled ahead of the checkpoint of their slot.
CREATE TABLE tidings_mark (
    name     TEXT NOT NULL,             -- of the group
    position INTEGER NOT NULL,
    PRIMARY KEY (name, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE tidings_meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO tidings_meta VALUES ('store', lower(hex(randomblob(16)))), ('indexed', '0');

PRAGMA application_id = 0x74696469;    -- "tidi", so that `file shop.db` and we ourselves know it
