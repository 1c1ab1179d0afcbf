"""Reading what is committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from tidings.core.envelope import SLOTS, Envelope, Excerpt
from tidings.core.operations import Backlog, CurrentState, Held, Member, State
from tidings.errors import NotFound
from tidings.stores.postgres.groups import OWN, VISIBLE
from tidings.stores.postgres.held import COLUMNS, held_of
from tidings.stores.postgres.leases import OVER
from tidings.stores.postgres.steps import Steps, rows, value

E = TypeVar("E", Envelope, Excerpt)

MOST_COUNTED = 100_000
MOST_FOUND = 10_000
LOAD = "SELECT type, data, version FROM tidings_log WHERE stream = $1 AND version > $2 ORDER BY version"


# ---- the log ---------------------------------------------------------------------------------------------------------


def head() -> Steps[int]:
    """The last position of the log."""
    last: int = yield from value("SELECT coalesce(max(position), 0) FROM tidings_log")
    return last


def read(
    kind: type[E],
    after: int,
    until: int,
    limit: int,
    types: Sequence[str] | None,
    slots: Sequence[int] | None,
    app: str | None,
) -> Steps[list[E]]:
    """Envelopes in order, filtered, or excerpts of them."""
    sql = [f"SELECT {','.join(kind.__struct_fields__)} FROM tidings_log WHERE position > $1 AND position <= $2"]
    params: list[Any] = [after, until, limit]
    for condition, given in (
        ("type = ANY (${})", None if types is None else list(types)),
        ("slot = ANY (${})", None if slots is None or len(slots) >= SLOTS else list(slots)),
        ("(topic IS NOT NULL OR source = ${})", app),
    ):
        if given is not None:
            params.append(given)
            sql.append(f"AND {condition.format(len(params))}")
    sql.append("ORDER BY position LIMIT $3")
    return [kind(*row) for row in (yield from rows(" ".join(sql), *params))]


def load(stream: str, after: int) -> Steps[list[tuple[str, bytes, int]]]:
    """(type, data, version) of a stream's events after a version."""
    return (yield from rows(LOAD, stream, after))


def find(id_: str | None, correlation: str | None) -> Steps[list[Envelope]]:
    """Envelopes by id or by correlation id, the first of the conversation included."""
    sql = "SELECT * FROM tidings_log WHERE {} ORDER BY position LIMIT $2"
    if correlation is not None:
        found = yield from rows(sql.format("correlation = $1 OR id = $1"), correlation, MOST_FOUND)
        return [Envelope(*row) for row in found if id_ is None or row[1] == id_]
    if id_ is not None:
        return [Envelope(*row) for row in (yield from rows(sql.format("id = $1"), id_, MOST_FOUND))]
    return []


def states(type_: str, after: str, limit: int) -> Steps[list[CurrentState]]:
    """Current states of a type in key order."""
    found = yield from rows(
        "SELECT key, version, position, time, data FROM tidings_state "
        "WHERE type = $1 AND key > $2 ORDER BY key LIMIT $3",
        type_,
        after,
        limit,
    )
    return [CurrentState(*row) for row in found]


# ---- held deliveries -------------------------------------------------------------------------------------------------


def due(group: str, slots: Sequence[int], now: int, limit: int) -> Steps[list[Held]]:
    """Held deliveries to try now, by position."""
    found = yield from rows(
        f"SELECT {COLUMNS} FROM tidings_held WHERE id IN (SELECT id FROM tidings_held WHERE name = $1 "
        "AND ready <= $2 AND slot = ANY ($3) ORDER BY ready LIMIT $4) ORDER BY position, id",
        group,
        now,
        list(slots),
        limit,
    )
    return [held_of(row) for row in found]


def first_held(group: str, keys: Sequence[str], limit: int) -> Steps[list[Held]]:
    """The first held deliveries of each key, by position."""
    found = yield from rows(
        f"SELECT {COLUMNS} FROM tidings_first_held($1, $2, $3) ORDER BY position", group, list(keys), limit
    )
    return [held_of(row) for row in found]


def next_due(group: str, slots: Sequence[int]) -> Steps[int | None]:
    """When the next held delivery is due."""
    ready: int | None = yield from value(
        "SELECT min(ready) FROM tidings_held WHERE name = $1 AND ready IS NOT NULL AND slot = ANY ($2)",
        group,
        list(slots),
    )
    return ready


def blocked(group: str, keys: Sequence[str], *, dead: bool) -> Steps[set[str]]:
    """Those keys that have held deliveries."""
    if not keys:
        return set()
    unless = "" if dead else " AND state <> 'dead'"
    found = yield from rows(
        "SELECT wanted FROM unnest($2::text[]) AS wanted CROSS JOIN LATERAL "
        f"(SELECT FROM tidings_held WHERE name = $1 AND key = wanted{unless} LIMIT 1) AS held",
        group,
        list(dict.fromkeys(keys)),
    )
    return {key for (key,) in found}


def held(
    ids: Sequence[int] | None, group: str | None, key: str | None, state: State | None, limit: int
) -> Steps[list[Held]]:
    """Held deliveries, newest last."""
    conditions, params = ["true"], [limit]
    given: list[tuple[str, Any]] = [("id = ANY (${})", None if ids is None else list(ids))]
    given += [("name = ${}", group), ("key = ${}", key), ("state = ${}", state)]
    for condition, wanted in given:
        if wanted is not None:
            params.append(wanted)
            conditions.append(condition.format(len(params)))
    found = yield from rows(
        f"SELECT {COLUMNS} FROM tidings_held WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT $1", *params
    )
    return [held_of(row) for row in reversed(found)]


# ---- groups ----------------------------------------------------------------------------------------------------------


def oldest_outgoing() -> Steps[int | None]:
    """When the oldest envelope in the outbox was published."""
    oldest: int | None = yield from value("SELECT time FROM tidings_outbox ORDER BY number LIMIT 1")
    return oldest


def next_timer() -> Steps[int | None]:
    """When the next timer is due."""
    first: int | None = yield from value("SELECT min(due) FROM tidings_timer")
    return first


def seeding(group: str) -> Steps[str | None]:
    """Cursor of an unfinished bootstrap."""
    cursor: str | None = yield from value("SELECT seed FROM tidings_group WHERE name = $1", group)
    return cursor


def marks(group: str, after: int) -> Steps[set[int]]:
    """Positions handled out of order."""
    found = yield from rows("SELECT position FROM tidings_mark WHERE name = $1 AND position > $2", group, after)
    return {position for (position,) in found}


def members() -> Steps[list[Member]]:
    """Workers that said they live."""
    found = yield from rows(f"SELECT app, member, groups, NOT {OVER} FROM tidings_member ORDER BY app, member")
    return [Member(app, member, json.loads(groups), alive) for app, member, groups, alive in found]


def checkpoint(group: str) -> Steps[int]:
    """Lowest position all slots of a group have finished."""
    finished: int | None = yield from value("SELECT min(checkpoint) FROM tidings_slot WHERE name = $1", group)
    if finished is None:
        raise NotFound(f"there is no group {group!r}", "see `tidings status` for the groups of this store", group=group)
    return finished


_BACKLOG = f"""
    SELECT name, handler, types, finished, lag, greatest(0, now - least(first_waiting, first_held)) / 1e6,
        retrying, parked, dead, owned, owners
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS clock, tidings_group AS known,
    LATERAL (
        SELECT coalesce(min(checkpoint), 0) AS finished,
            array_agg(slot ORDER BY slot) FILTER (WHERE owner IS NOT NULL) AS owned,
            array_agg(owner ORDER BY slot) FILTER (WHERE owner IS NOT NULL) AS owners
        FROM tidings_slot WHERE name = known.name
    ) AS sharing,
    LATERAL (
        SELECT count(*) AS lag, min(time) AS first_waiting FROM (
            SELECT time FROM tidings_log WHERE position > finished
            AND CASE WHEN known.types = '[]' THEN {OWN.format("known.name")}
                ELSE type IN (SELECT json_array_elements_text(known.types::json)) AND {VISIBLE.format("known.name")} END
            LIMIT {MOST_COUNTED}
        ) AS waiting
    ) AS behind,
    LATERAL (
        SELECT count(*) FILTER (WHERE state = 'retry') AS retrying, count(*) FILTER (WHERE state = 'parked') AS parked,
            count(*) FILTER (WHERE state = 'dead') AS dead,
            min(position) FILTER (WHERE state <> 'dead') AS first_position
        FROM tidings_held WHERE name = known.name
    ) AS holding
    LEFT JOIN LATERAL (SELECT time AS first_held FROM tidings_log WHERE position = first_position) AS oldest ON true
    WHERE $1::text IS NULL OR name = $1 ORDER BY name
"""


def backlog(group: str | None) -> Steps[list[Backlog]]:
    """How groups stand."""
    found = yield from rows(_BACKLOG, group)
    return [
        Backlog(
            group=name,
            where=handler,
            types=json.loads(types),
            checkpoint=finished,
            lag=lag,
            oldest=float(oldest or 0.0),
            retrying=retrying,
            parked=parked,
            dead=dead,
            owners=dict(zip(owned or (), owners or (), strict=True)),
        )
        for name, handler, types, finished, lag, oldest, retrying, parked, dead, owned, owners in found
    ]
