"""Ways to give the rows of a PostgreSQL log an order that readers can follow, in as little SQL as shows what they do.

All of them keep versions per stream by a row for each stream, locked from the append to the commit. What differs is
where the order of the whole log comes from, and what a reader asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

STREAMS = 50

COMMON = f"""
CREATE TABLE business (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who int NOT NULL);
CREATE TABLE stream (stream int PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO stream SELECT number, 0 FROM generate_series(0, {STREAMS - 1}) AS number;
CREATE TABLE head (one bool PRIMARY KEY DEFAULT true, last bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO head (last) VALUES (0);
CREATE TABLE log (
  place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id bigint NOT NULL UNIQUE, stream int NOT NULL, version bigint NOT NULL, data bytea NOT NULL,
  UNIQUE (stream, version)
);
"""
APPEND = """
CREATE FUNCTION append(into_stream int, ids bigint[], bodies bytea[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  count int := cardinality(ids);
  head bigint;
  base bigint;
BEGIN
  -- take the turn
  UPDATE stream SET version = version + count WHERE stream = into_stream RETURNING version - count INTO base;
  INSERT INTO log (id, stream, version, data)
    SELECT id, into_stream, base + number, data
    FROM unnest(ids, bodies) WITH ORDINALITY AS new (id, data, number) ORDER BY number;
  RETURN head;
END $$;
"""

# The counter row: its lock is what lines up the writers, until their commit is durable and visible.
COUNTED = COMMON.replace(
    "place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "place bigint PRIMARY KEY"
) + APPEND.replace("-- take the turn", "UPDATE head SET last = last + count RETURNING last - count INTO head;").replace(
    "(id, stream, version, data)\n", "(place, id, stream, version, data)\n"
).replace("SELECT id, into", "SELECT head + number, id, into")

# The lock: nothing but a turn, and the last position is asked of the log itself. No row is written again and again.
LOCKED = COUNTED.replace(
    "UPDATE head SET last = last + count RETURNING last - count INTO head;",
    "PERFORM pg_advisory_xact_lock(1, 'log'::regclass::oid::int); SELECT coalesce(max(place), 0) INTO head FROM log;",
)

# The sequencer: one process numbers what is committed, in the order of the identity column. FOR UPDATE is its lease.
NUMBERED = f"""
{COMMON}
{APPEND}
ALTER TABLE log ADD position bigint UNIQUE;
CREATE INDEX fresh ON log (place) WHERE position IS NULL;
CREATE FUNCTION number_rows() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  base bigint;
  numbered int;
BEGIN
  SELECT last INTO base FROM head FOR UPDATE;
  UPDATE log SET position = base + fresh.number FROM (
    SELECT place, row_number() OVER (ORDER BY place) AS number
    FROM (SELECT place FROM log WHERE position IS NULL ORDER BY place LIMIT 1000) AS first
  ) AS fresh WHERE log.place = fresh.place;
  GET DIAGNOSTICS numbered = ROW_COUNT;
  UPDATE head SET last = last + numbered WHERE numbered > 0;
  RETURN numbered;
END $$;
"""

# For many callers of one process: an event that belongs to no stream, and one call for all that wait.
COALESCED_COUNTER = """
CREATE TABLE head (one bool PRIMARY KEY DEFAULT true, last bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO head (last) VALUES (0);
CREATE TABLE log (position bigint PRIMARY KEY, id bigint NOT NULL UNIQUE, data bytea NOT NULL);
CREATE FUNCTION append(ids bigint[], bodies bytea[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  base bigint;
BEGIN
  UPDATE head SET last = last + cardinality(ids) RETURNING last - cardinality(ids) INTO base;
  INSERT INTO log SELECT base + number, id, data
    FROM unnest(ids, bodies) WITH ORDINALITY AS new (id, data, number);
  RETURN base + 1;
END $$;
"""
COALESCED_SEQUENCER = """
CREATE TABLE head (one bool PRIMARY KEY DEFAULT true, last bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO head (last) VALUES (0);
CREATE TABLE log (
  place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bigint NOT NULL UNIQUE, data bytea NOT NULL,
  position bigint UNIQUE
);
CREATE INDEX fresh ON log (place) WHERE position IS NULL;
CREATE FUNCTION append(ids bigint[], bodies bytea[]) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO log (id, data) SELECT * FROM unnest(ids, bodies);
  RETURN 0;
END $$;
CREATE FUNCTION number_rows() RETURNS TABLE (event bigint, given bigint) LANGUAGE plpgsql AS $$
DECLARE
  base bigint;
  numbered int;
BEGIN
  SELECT last INTO base FROM head FOR UPDATE;
  RETURN QUERY UPDATE log SET position = base + fresh.number FROM (
    SELECT place, row_number() OVER (ORDER BY place) AS number
    FROM (SELECT place FROM log WHERE position IS NULL ORDER BY place LIMIT 1000) AS first
  ) AS fresh WHERE log.place = fresh.place RETURNING log.id, log.position;
  GET DIAGNOSTICS numbered = ROW_COUNT;
  UPDATE head SET last = last + numbered WHERE numbered > 0;
END $$;
"""

XID = "ALTER TABLE log ADD xid xid8 NOT NULL DEFAULT pg_current_xact_id(); CREATE INDEX by_xid ON log (xid, place);"
SETTLED = "xid < pg_snapshot_xmin(pg_current_snapshot())"
READ = "SELECT 0, {place}, id, stream, version FROM log WHERE {place} > %(place)s ORDER BY {place} LIMIT 1000"
BY_PLACE = READ.format(place="place")
BELOW = READ.replace("ORDER", f"AND {SETTLED} ORDER").format(place="place")
BY_XID = (
    "SELECT xid::text, place, id, stream, version FROM log "
    f"WHERE (xid, place) > (%(xid)s::text::xid8, %(place)s) AND {SETTLED} ORDER BY log.xid, place LIMIT 1000"
)
CALL = "SELECT append(%(stream)s, %(ids)s, %(bodies)s)"
# A transaction of its own that writes a few bytes: its commit flushes, together with others, and what was before it.
FLUSH = "SELECT pg_logical_emit_message(true, '', '')"


@dataclass(frozen=True)
class Recipe:
    """One way.

    Attributes:
        name: Short.
        title: In words.
        tables: Makes what it needs.
        read: The next rows after `%(xid)s` and `%(place)s`, which are the first two columns of the last row.
        late: Rows are collected in memory and appended by the last statements, which travel with COMMIT: these.
        sequenced: A process of its own has to number the rows.
    """

    name: str
    title: str
    tables: str
    read: str
    late: tuple[str, ...] = ()
    sequenced: bool = False


RECIPES = (
    Recipe("identity", "identity column, place > last", COMMON + APPEND, BY_PLACE),
    Recipe("xmin", "the same, only below the oldest open transaction", COMMON + APPEND + XID, BELOW),
    Recipe("xid", "order of (xid, place) below that", COMMON + APPEND + XID, BY_XID),
    Recipe("counter, early", "counter row, taken when appended", COUNTED, BY_PLACE),
    Recipe("counter", "counter row, taken with the commit", COUNTED, BY_PLACE, late=(CALL, "COMMIT")),
    Recipe("lock", "advisory lock, taken with the commit", LOCKED, BY_PLACE, late=(CALL, "COMMIT")),
    Recipe(
        "counter, flush later",
        "the same, and the commit is flushed after the row was released",
        COUNTED,
        BY_PLACE,
        late=("SET LOCAL synchronous_commit = off", CALL, "COMMIT", FLUSH),
    ),
    Recipe(
        "sequencer", "a leased process numbers committed rows", NUMBERED, READ.format(place="position"), sequenced=True
    ),
)
