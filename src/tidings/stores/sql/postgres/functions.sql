-- Functions of a tidings store on PostgreSQL: what must happen in one round trip, while others wait for it.

-- Append envelopes to the log. Whoever appends holds one lock until the end of the transaction, so that positions are
-- given out in the order of the commits, without gaps: a reader who has seen position n has seen all before it. What is
-- checked here (ids, versions) cannot change until then either. Call it as late in a transaction as possible.
--
-- One row for each envelope, in the order given: its position and version, and what is wrong, if something is: 'version'
-- (`version` is then the stream's), 'id' (`position` is then the one that has it). Nothing is stored of an append of which
-- one envelope is refused; where `strict`, the whole transaction is. Where all were stored, one behind the other, and none
-- has a version that was not expected, a single row with place 0 has the position before them.
--
-- appends:  which envelope belongs to which append
-- expected: for each envelope the version its stream must have just before it, or -1; NULL without a stream
CREATE FUNCTION tidings_append(
    strict boolean,
    appends integer[], expected bigint[],
    ids text[], sources text[], types text[], schemas integer[], topics text[], keys text[], slots integer[],
    streams text[], versions bigint[], times bigint[], correlations text[], causations text[], traceparents text[], headers bytea[],
    datas bytea[]
) RETURNS TABLE (place integer, at bigint, number bigint, refused text)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan    -- planning for each call takes longer than what is planned, here and below
SET enable_seqscan = off                    -- a plan that is made while the log is empty is used when it is long
AS $$
#variable_conflict use_column
DECLARE
    has_states CONSTANT boolean := array_to_string(streams, ' ') LIKE '%state:%';   -- or may have
    at_any CONSTANT boolean := has_states OR -1 = ANY (expected);
    base bigint;
    numbers bigint[];   -- versions
    stored bigint;
    one integer;
    done record;
BEGIN
    PERFORM pg_advisory_xact_lock(1953063785, 'tidings_log'::regclass::oid::integer);  -- "tidi"
    SELECT coalesce(max(position), 0) INTO base FROM tidings_log;

    -- All at once, as if ids were new and versions as expected, which they mostly are.
    BEGIN
        IF array_remove(versions, NULL) <> '{}' THEN    -- an owner elsewhere numbers them
            RAISE unique_violation;
        ELSIF at_any THEN
            numbers := ARRAY(
                SELECT first_value(known) OVER news + row_number() OVER news
                FROM (
                    SELECT g, CASE
                        WHEN starts_with(streams[g], 'state:') THEN coalesce((
                            SELECT version FROM tidings_state WHERE type = types[g] AND key = coalesce(keys[g], '')
                        ), 0)
                        WHEN streams[g] IS NOT NULL AND streams[g] IS DISTINCT FROM streams[g - 1] THEN (
                            SELECT coalesce(max(version), 0) FROM tidings_log WHERE stream = streams[g]
                        ) END AS known
                    FROM generate_subscripts(ids, 1) AS g
                ) AS before WINDOW news AS (PARTITION BY streams[g] ORDER BY g)
                ORDER BY g
            );
        ELSIF array_remove(streams, NULL) <> '{}' THEN
            numbers := ARRAY(   -- no need to look at what comes before the version that is expected
                SELECT CASE
                    WHEN (streams[g] = streams[g - 1] AND expected[g] = expected[g - 1] + 1) OR expected[g] = (
                        SELECT coalesce(max(version), 0) FROM tidings_log
                        WHERE stream = streams[g] AND version >= expected[g]
                    ) THEN expected[g] + 1 END
                FROM generate_subscripts(ids, 1) AS g
            );
        END IF;
        INSERT INTO tidings_log
            SELECT base + g, ids[g], sources[g], types[g], schemas[g], topics[g], keys[g], slots[g], streams[g],
                numbers[g], times[g], correlations[g], causations[g], traceparents[g], headers[g], datas[g]
            FROM generate_subscripts(ids, 1) AS g
            WHERE streams[g] IS NULL OR expected[g] IN (-1, numbers[g] - 1);
        GET DIAGNOSTICS stored = ROW_COUNT;
        IF stored < cardinality(ids) THEN
            RAISE unique_violation;
        END IF;
        IF has_states THEN
            PERFORM tidings_keep_states(base);
        END IF;
        IF at_any THEN
            RETURN QUERY SELECT g, base + g, numbers[g], NULL::text FROM generate_subscripts(ids, 1) AS g;
        ELSE
            place := 0; at := base;
            RETURN NEXT;
        END IF;
        RETURN;
    EXCEPTION WHEN unique_violation THEN    -- nothing of this was done: look at each of them
    END;

    FOR one IN SELECT DISTINCT unnest(appends) ORDER BY 1 LOOP
        FOR done IN SELECT * FROM tidings_append_carefully(
            one, appends, expected, ids, sources, types, schemas, topics, keys, slots, streams, versions, times, correlations,
            causations, traceparents, headers, datas
        ) LOOP
            IF strict AND done.refused = 'version' THEN
                RAISE EXCEPTION 'refused' USING ERRCODE = 'TD301', DETAIL = json_build_object(
                    'stream', streams[done.place], 'expected', expected[done.place], 'actual', done.number)::text;
            ELSIF strict AND done.refused = 'id' THEN
                RAISE EXCEPTION 'refused' USING ERRCODE = 'TD302', DETAIL = json_build_object(
                    'id', ids[done.place], 'source', sources[done.place], 'type', types[done.place])::text;
            END IF;
            place := done.place; at := done.at; number := done.number; refused := done.refused;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;

-- Append one envelope that is no state, in the shortest way there is: its position, and its version where it belongs to a
-- stream. Nothing is stored, and the position is NULL, where its id is known already or the stream is at another version
-- than expected (-1: any); tidings_append says what that means.
CREATE FUNCTION tidings_append_one(
    id text, source text, type text, schema integer, topic text, key text, slot integer, "time" bigint,
    correlation text, causation text, traceparent text, stream text, expected bigint, headers bytea, data bytea,
    OUT at bigint, OUT number bigint
)
LANGUAGE plpgsql
SET enable_seqscan = off    -- as above
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM pg_advisory_xact_lock(1953063785, 'tidings_log'::regclass::oid::integer);  -- "tidi"
    IF stream IS NOT NULL THEN
        SELECT coalesce(max(log.version), 0) + 1 INTO number FROM tidings_log AS log
            WHERE log.stream = tidings_append_one.stream AND log.version >= expected;
    END IF;
    IF expected IN (-1, number - 1) THEN
        INSERT INTO tidings_log
            SELECT coalesce(max(position), 0) + 1, id, source, type, schema, topic, key, slot, stream, number, "time",
                correlation, causation, traceparent, headers, data
            FROM tidings_log
            ON CONFLICT DO NOTHING
            RETURNING position INTO at;
    END IF;
END $$;

-- Keep the states behind position `base` as the newest ones of their keys.
CREATE FUNCTION tidings_keep_states(base bigint) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO tidings_state
        SELECT DISTINCT ON (type, key) type, coalesce(key, ''), version, position, time, data
        FROM tidings_log WHERE position > base AND starts_with(stream, 'state:') ORDER BY type, key, position DESC
        ON CONFLICT (type, key) DO UPDATE SET
            version = excluded.version, position = excluded.position, time = excluded.time, data = excluded.data;
END $$;

-- One of several appends, looked at closely: ids that are stored already keep their old positions.
CREATE FUNCTION tidings_append_carefully(
    one integer, appends integer[], expected bigint[],
    ids text[], sources text[], types text[], schemas integer[], topics text[], keys text[], slots integer[],
    streams text[], versions bigint[], times bigint[], correlations text[], causations text[], traceparents text[], headers bytea[],
    datas bytea[]
) RETURNS TABLE (place integer, at bigint, number bigint, refused text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted bigint;
    actual bigint;
    known bigint;
    here integer;
    fresh integer[] := '{}';    -- places of envelopes that are new
    mine integer[];
    base bigint;
BEGIN
    SELECT array_agg(g ORDER BY g) INTO mine FROM generate_subscripts(appends, 1) AS g WHERE appends[g] = one;
    FOREACH here IN ARRAY mine LOOP     -- an id stands for one content only, in the log and in this append
        IF EXISTS (
            SELECT FROM tidings_log
            WHERE id = ids[here] AND source = sources[here]
            AND (type, key, data) IS DISTINCT FROM (types[here], keys[here], datas[here])
        ) OR EXISTS (
            SELECT FROM unnest(fresh) AS f WHERE ids[f] = ids[here] AND sources[f] = sources[here]
            AND (types[f], keys[f], datas[f]) IS DISTINCT FROM (types[here], keys[here], datas[here])
        ) THEN
            RETURN QUERY SELECT
                here, (SELECT position FROM tidings_log WHERE id = ids[here] AND source = sources[here]), NULL::bigint,
                'id'::text;
            RETURN;
        END IF;
        IF NOT EXISTS (SELECT FROM tidings_log WHERE id = ids[here] AND source = sources[here])
            AND NOT EXISTS (SELECT FROM unnest(fresh) AS f WHERE ids[f] = ids[here] AND sources[f] = sources[here]) THEN
            fresh := fresh || here;
        END IF;
    END LOOP;
    wanted := expected[mine[1]];
    IF wanted >= 0 AND cardinality(fresh) > 0 THEN
        SELECT coalesce(max(version), 0) INTO actual FROM tidings_log WHERE stream = streams[mine[1]];
        IF actual <> wanted THEN
            RETURN QUERY SELECT mine[1], NULL::bigint, actual, 'version'::text;
            RETURN;
        END IF;
    END IF;
    IF cardinality(fresh) > 0 THEN
        SELECT coalesce(max(position), 0) INTO base FROM tidings_log;
        FOREACH here IN ARRAY fresh LOOP
            IF starts_with(streams[here], 'state:') THEN
                SELECT coalesce(max(version), 0) INTO known FROM tidings_state
                    WHERE type = types[here] AND key = coalesce(keys[here], '');
            ELSE
                SELECT coalesce(max(version), 0) INTO known FROM tidings_log WHERE stream = streams[here];
            END IF;
            number := CASE WHEN streams[here] IS NOT NULL THEN coalesce(versions[here], known + 1) END;
            INSERT INTO tidings_log VALUES (
                base + 1, ids[here], sources[here], types[here], schemas[here], topics[here], keys[here], slots[here],
                CASE WHEN number > known THEN streams[here] END,    -- nobody goes back to what its owner replaced before
                number, times[here], correlations[here], causations[here], traceparents[here], headers[here], datas[here]
            );
            PERFORM tidings_keep_states(base);
            base := base + 1;
        END LOOP;
    END IF;
    RETURN QUERY SELECT m, log.position, log.version, NULL::text
        FROM unnest(mine) AS m JOIN tidings_log AS log ON log.id = ids[m] AND log.source = sources[m] ORDER BY m;
END $$;

-- Refuse what comes from a worker that lost one of these slots; otherwise keep them from changing their owner until the
-- end of the transaction. `moving` is true where checkpoints are about to be written.
CREATE FUNCTION tidings_fence(group_name text, slots integer[], epochs bigint[], moving boolean) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    lost record;
    known integer;
BEGIN
    IF moving THEN
        PERFORM FROM tidings_slot WHERE name = group_name AND slot = ANY (slots) ORDER BY slot FOR NO KEY UPDATE;
    ELSE
        PERFORM FROM tidings_slot WHERE name = group_name AND slot = ANY (slots) ORDER BY slot FOR SHARE;
    END IF;
    SELECT given.slot, given.epoch, found.epoch AS actual INTO lost
        FROM unnest(slots, epochs) AS given (slot, epoch)
        LEFT JOIN tidings_slot AS found ON found.name = group_name AND found.slot = given.slot
        WHERE found.epoch IS DISTINCT FROM given.epoch ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'fenced' USING ERRCODE = 'TD303',
            DETAIL = json_build_array(lost.slot, lost.epoch, lost.actual)::text;
    END IF;
    SELECT slots_of.slots INTO known FROM tidings_group AS slots_of WHERE name = group_name;
    RETURN coalesce(known, 0);
END $$;

-- Make the first delivery of each of these keys ready, and no other one of them. Dead letters block what is behind
-- them; in a group with on_dead = 'skip' they do not.
CREATE FUNCTION tidings_put_heads_first(group_name text, wanted text[]) RETURNS void
LANGUAGE sql
SET enable_seqscan = off    -- as above
SET enable_bitmapscan = off -- it would read all that waits behind a key, to find the first
AS $$
    WITH heads AS (
        SELECT head.id, wanted_key AS key, CASE state WHEN 'dead' THEN NULL WHEN 'retry' THEN due ELSE 0 END AS ready
        FROM unnest(wanted) AS wanted_key CROSS JOIN LATERAL (
            SELECT id, state, due FROM tidings_held
            WHERE name = group_name AND key = wanted_key AND (
                state <> 'dead' OR NOT EXISTS (SELECT FROM tidings_group WHERE name = group_name AND on_dead = 'skip')
            )
            ORDER BY position LIMIT 1
        ) AS head
    ), others AS (
        UPDATE tidings_held AS held SET ready = NULL FROM heads
        WHERE held.name = group_name AND held.key = heads.key AND held.ready IS NOT NULL AND held.id <> heads.id
    )
    UPDATE tidings_held AS held SET ready = heads.ready FROM heads
    WHERE held.id = heads.id AND held.ready IS DISTINCT FROM heads.ready
$$;

-- The first held deliveries of each key.
CREATE FUNCTION tidings_first_held(group_name text, wanted text[], most integer) RETURNS SETOF tidings_held
LANGUAGE sql STABLE
SET enable_seqscan = off    -- as above
SET enable_bitmapscan = off
AS $$
    SELECT held.* FROM unnest(wanted) AS wanted_key CROSS JOIN LATERAL (
        SELECT * FROM tidings_held WHERE name = group_name AND key = wanted_key ORDER BY position LIMIT most
    ) AS held
$$;

-- Remove held deliveries that ended; what waited behind them becomes ready.
CREATE FUNCTION tidings_done(group_name text, done bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    keys text[];
BEGIN
    SELECT array_agg(DISTINCT key) INTO keys FROM tidings_held
        WHERE id = ANY (done) AND name = group_name AND key IS NOT NULL;
    DELETE FROM tidings_held WHERE id = ANY (done) AND name = group_name;
    IF keys IS NOT NULL THEN
        PERFORM tidings_put_heads_first(group_name, keys);
    END IF;
END $$;
