-- Tables of a tidings store on PostgreSQL, made in the schema that comes first in the search path. Names start with
-- tidings_, so that read models and your own tables can have any other name beside them. Columns and meaning are those
-- of the store on SQLite. Times are microseconds since 1970 UTC; leases are seconds of the database's own clock.

-- The log: every message of the store in one order. Column order = field order of Envelope.
CREATE TABLE tidings_log (
    position    bigint PRIMARY KEY,     -- 1, 2, 3... without gaps, in the order of the commits
    id          text NOT NULL,
    source      text NOT NULL,
    type        text NOT NULL,
    schema      integer NOT NULL,
    topic       text,
    key         text,
    slot        integer NOT NULL,
    stream      text,
    version     bigint,
    time        bigint NOT NULL,
    correlation text,
    causation   text,
    traceparent text,
    headers     bytea,
    data        bytea NOT NULL
);

CREATE UNIQUE INDEX tidings_log_id ON tidings_log (id, source);
CREATE UNIQUE INDEX tidings_log_stream ON tidings_log (stream, version) WHERE stream IS NOT NULL;
CREATE INDEX tidings_log_correlation ON tidings_log (correlation) WHERE correlation IS NOT NULL;

-- The newest state of each key, so that a new replica starts without reading the log.
CREATE TABLE tidings_state (
    type     text NOT NULL,
    key      text NOT NULL COLLATE "C",
    version  bigint NOT NULL,
    position bigint NOT NULL,
    time     bigint NOT NULL,
    data     bytea NOT NULL,            -- empty: the record is gone
    PRIMARY KEY (type, key)
);

-- Messages that wait for their time.
CREATE TABLE tidings_timer (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due      bigint NOT NULL,
    id       text NOT NULL,
    source   text NOT NULL,
    envelope bytea NOT NULL,            -- MessagePack
    UNIQUE (id, source)
);

CREATE INDEX tidings_timer_due ON tidings_timer (due, number);

-- Messages of transactions that are not ours, until the relay has moved them to the log. Numbers are not the order of the
-- commits; but of two transactions, one of which began after the other one was committed, they are.
CREATE TABLE tidings_outbox (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id       text NOT NULL,
    source   text NOT NULL,
    key      text,
    time     bigint NOT NULL,
    envelope bytea NOT NULL             -- MessagePack
);

-- Groups: the workers that share a handler.
CREATE TABLE tidings_group (
    name        text PRIMARY KEY,
    handler     text NOT NULL,
    types       text NOT NULL,          -- JSON
    commands    text NOT NULL,          -- JSON
    slots       integer NOT NULL,
    start       bigint NOT NULL,        -- position after which it started
    on_dead     text NOT NULL,          -- park, skip
    tables      text NOT NULL,          -- JSON: what its schema created
    fingerprint text,
    seed        text                    -- cursor of an unfinished bootstrap
);

-- The slots of a group: who may handle their keys, and how far they are.
CREATE TABLE tidings_slot (
    name       text NOT NULL,           -- of the group
    slot       integer NOT NULL,
    epoch      bigint NOT NULL,         -- grows with every change of owner
    owner      text,
    expires    double precision NOT NULL,
    lease      double precision NOT NULL,
    checkpoint bigint NOT NULL,
    started    bigint NOT NULL,
    PRIMARY KEY (name, slot)
) WITH (fillfactor = 50);               -- rewritten all the time: room for it on its own page

-- Workers that live.
CREATE TABLE tidings_member (
    app     text NOT NULL,
    member  text NOT NULL,
    expires double precision NOT NULL,
    lease   double precision NOT NULL,
    groups  text NOT NULL,              -- JSON: full names of those it runs
    PRIMARY KEY (app, member)
) WITH (fillfactor = 50);

-- Deliveries that did not end with their first attempt.
CREATE TABLE tidings_held (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,    -- never used twice: people type them
    name      text NOT NULL,            -- of the group
    slot      integer NOT NULL,
    key       text COLLATE "C",
    position  bigint NOT NULL,
    state     text NOT NULL,            -- retry, parked, dead
    ready     bigint,                   -- when to try it; NULL: not before another one of its key, or dead
    attempt   integer NOT NULL,
    due       bigint NOT NULL,
    since     bigint NOT NULL,
    reason    text NOT NULL,
    traceback text NOT NULL,
    history   text NOT NULL,            -- JSON
    envelope  bytea NOT NULL            -- MessagePack
);

CREATE INDEX tidings_held_ready ON tidings_held (name, ready, slot) WHERE ready IS NOT NULL;
CREATE INDEX tidings_held_key ON tidings_held (name, key, position) WHERE key IS NOT NULL;
CREATE INDEX tidings_held_head ON tidings_held (name, key) WHERE ready IS NOT NULL;  -- one of each key
CREATE UNIQUE INDEX tidings_held_position ON tidings_held (name, position);  -- a second effect must not hide here
CREATE INDEX tidings_held_state ON tidings_held (name, state);

-- Positions handled ahead of the checkpoint of their slot.
CREATE TABLE tidings_mark (
    name     text NOT NULL,             -- of the group
    position bigint NOT NULL,
    PRIMARY KEY (name, position)
);

CREATE TABLE tidings_meta (
    name  text PRIMARY KEY,
    value text NOT NULL
);

INSERT INTO tidings_meta VALUES ('store', gen_random_uuid()::text), ('schema', '0');
