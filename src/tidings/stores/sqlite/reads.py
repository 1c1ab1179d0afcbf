"""Reading what is committed, each read in a snapshot of its own and complete before it returns."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from typing import Any, TypeVar

from tidings.core.envelope import SLOTS, Envelope, Excerpt
from tidings.core.operations import Backlog, CurrentState, Held, Member, State
from tidings.errors import NotFound, UsageError
from tidings.stores.sqlite.connection import leak
from tidings.stores.sqlite.failures import code_of, explain, is_the_store_s
from tidings.stores.sqlite.groups import VISIBLE
from tidings.stores.sqlite.held import COLUMNS, held_of

E = TypeVar("E", Envelope, Excerpt)

MOST_COUNTED = 100_000
MOST_FOUND = 10_000
_OWN = "topic IS NOT NULL AND substr(?, 1, length(source) + 1) = source || '.'"
"""Condition for the group that carries to a broker what its app published."""
_IN = "IN (SELECT value FROM json_each(?))"


class Readers:
    """Read connections of one store; each read borrows one, so that any thread may read."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: str) -> None:
        """Args: connect: opens one. path: of the database, for messages."""
        self._connect = connect
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._watching: sqlite3.Connection | None = None
        self.closed = False

    def rows(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """All rows of a query."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
        try:
            return connection.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            if code_of(error) == sqlite3.SQLITE_READONLY:
                raise UsageError("a query only reads", "write in a transaction: `await tx.execute(...)`") from error
            if is_the_store_s(error):
                raise explain(error, self._path) from error
            raise
        finally:
            if self.closed:
                connection.close()
            else:
                self._idle.append(connection)

    def one(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """First value of the first row, None without a row."""
        rows = self.rows(sql, params)
        return rows[0][0] if rows else None

    def version(self) -> int:
        """A number that changes with commits; always asked of the same connection, as it means nothing elsewhere."""
        if self._watching is None:
            self._watching = self._connect()
        result: int = self._watching.execute("PRAGMA data_version").fetchone()[0]
        return result

    def leak(self) -> None:
        """In a forked child, or when the file is not ours any more: never close them."""
        for connection in (*self._idle, self._watching):
            if connection is not None:
                leak(connection)

    def close(self) -> None:
        """Close what is idle; what is in use closes when its read ends."""
        self.closed = True
        while self._idle:
            self._idle.pop().close()
        if self._watching is not None:
            self._watching.close()
            self._watching = None


# ---- the log ---------------------------------------------------------------------------------------------------------


def head(readers: Readers) -> int:
    """The last position of the log."""
    return readers.one("SELECT max(position) FROM tidings_log") or 0


def read(  # noqa: PLR0917 - a column of the log, or two, for each
    readers: Readers,
    kind: type[E],
    after: int,
    until: int,
    limit: int,
    types: Sequence[str] | None,
    slots: Sequence[int] | None,
    app: str | None,
) -> list[E]:
    """Envelopes in order, filtered, or excerpts of them."""
    sql = [f"SELECT {','.join(kind.__struct_fields__)} FROM tidings_log WHERE position > ? AND position <= ?"]
    params: list[Any] = [after, until]
    if types is not None:
        sql.append(f"AND type IN ({','.join('?' * len(types))})")
        params.extend(types)
    if slots is not None and len(slots) < SLOTS:
        sql.append(f"AND slot IN ({','.join('?' * len(slots))})")
        params.extend(slots)
    if app is not None:
        sql.append("AND (topic IS NOT NULL OR source = ?)")
        params.append(app)
    sql.append("ORDER BY position LIMIT ?")
    params.append(limit)
    return list(starmap(kind, readers.rows(" ".join(sql), params)))


def load(readers: Readers, stream: str, after: int) -> list[tuple[str, bytes, int]]:
    """(type, data, version) of a stream's events after a version."""
    return readers.rows(
        "SELECT type, data, version FROM tidings_log WHERE stream = ? AND version > ? ORDER BY version", (stream, after)
    )


_WITH_ID = (
    "SELECT position FROM tidings_id WHERE id = ?1 UNION SELECT position FROM tidings_log WHERE id = ?1 AND position > "
    "(SELECT CAST(value AS INTEGER) FROM tidings_meta WHERE name = 'indexed')"
)


def find(readers: Readers, id_: str | None, correlation: str | None) -> list[Envelope]:
    """Envelopes by id or by correlation id, the first of the conversation included."""
    sql = "SELECT * FROM tidings_log WHERE position IN ({}) ORDER BY position LIMIT ?2"
    if correlation is not None:
        either = f"{_WITH_ID} UNION SELECT position FROM tidings_log WHERE correlation = ?1"
        rows = readers.rows(sql.format(either), (correlation, MOST_FOUND))
        return [Envelope(*row) for row in rows if id_ is None or row[1] == id_]
    if id_ is not None:
        return [Envelope(*row) for row in readers.rows(sql.format(_WITH_ID), (id_, MOST_FOUND))]
    return []


def states(readers: Readers, type_: str, after: str, limit: int) -> list[CurrentState]:
    """Current states of a type in key order."""
    rows = readers.rows(
        "SELECT key, version, position, time, data FROM tidings_state WHERE type = ? AND key > ? ORDER BY key LIMIT ?",
        (type_, after, limit),
    )
    return [CurrentState(*row) for row in rows]


# ---- held deliveries -------------------------------------------------------------------------------------------------


def due(readers: Readers, group: str, slots: Sequence[int], now: int, limit: int) -> list[Held]:
    """Held deliveries to try now, by position."""
    rows = readers.rows(
        f"SELECT {COLUMNS} FROM tidings_held WHERE id IN (SELECT id FROM tidings_held WHERE name = ? "
        f"AND ready <= ? AND slot {_IN} ORDER BY ready LIMIT ?) ORDER BY position, id",
        (group, now, json.dumps(list(slots)), limit),
    )
    return [held_of(row) for row in rows]


def first_held(readers: Readers, group: str, keys: Sequence[str], limit: int) -> list[Held]:
    """The first held deliveries of each key, by position."""
    rows = readers.rows(
        f"SELECT {COLUMNS} FROM tidings_held WHERE id IN (SELECT held.id FROM json_each(?1) AS wanted "
        "JOIN tidings_held AS held ON held.id IN (SELECT id FROM tidings_held WHERE name = ?2 AND key = wanted.value "
        "ORDER BY position LIMIT ?3)) ORDER BY position",
        (json.dumps(list(keys)), group, limit),
    )
    return [held_of(row) for row in rows]


def next_due(readers: Readers, group: str, slots: Sequence[int]) -> int | None:
    """When the next held delivery is due."""
    result: int | None = readers.one(
        f"SELECT ready FROM tidings_held WHERE name = ? AND ready IS NOT NULL AND slot {_IN} ORDER BY ready LIMIT 1",
        (group, json.dumps(list(slots))),
    )
    return result


def blocked(readers: Readers, group: str, keys: Sequence[str], *, dead: bool) -> set[str]:
    """Those keys that have held deliveries."""
    if not keys:
        return set()
    unless = "" if dead else " AND state <> 'dead'"
    rows = readers.rows(
        "SELECT value FROM json_each(?) WHERE EXISTS "
        f"(SELECT 1 FROM tidings_held WHERE name = ? AND key = value{unless})",
        (json.dumps(list(keys)), group),
    )
    return {key for (key,) in rows}


def held(
    readers: Readers, ids: Sequence[int] | None, group: str | None, key: str | None, state: State | None, limit: int
) -> list[Held]:
    """Held deliveries, newest last."""
    conditions, params = ["1"], []
    if ids is not None:
        conditions.append(f"id {_IN}")
        params.append(json.dumps(list(ids)))
    for column, value in (("name", group), ("key", key), ("state", state)):
        if value is not None:
            conditions.append(f"{column} = ?")
            params.append(value)
    rows = readers.rows(
        f"SELECT {COLUMNS} FROM tidings_held WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",
        (*params, limit),
    )
    return [held_of(row) for row in reversed(rows)]


# ---- groups ----------------------------------------------------------------------------------------------------------


def oldest_outgoing(readers: Readers) -> int | None:
    """When the oldest envelope in the outbox was published."""
    oldest: int | None = readers.one("SELECT time FROM tidings_outbox ORDER BY number LIMIT 1")
    return oldest


def next_timer(readers: Readers) -> int | None:
    """When the next timer is due."""
    result: int | None = readers.one("SELECT min(due) FROM tidings_timer", ())
    return result


def seeding(readers: Readers, group: str) -> str | None:
    """Cursor of an unfinished bootstrap."""
    result: str | None = readers.one("SELECT seed FROM tidings_group WHERE name = ?", (group,))
    return result


def marks(readers: Readers, group: str, after: int) -> set[int]:
    """Positions handled out of order."""
    rows = readers.rows("SELECT position FROM tidings_mark WHERE name = ? AND position > ?", (group, after))
    return {position for (position,) in rows}


def checkpoint(readers: Readers, group: str) -> int:
    """Lowest position all slots of a group have finished."""
    finished: int | None = readers.one("SELECT min(checkpoint) FROM tidings_slot WHERE name = ?", (group,))
    if finished is None:
        raise NotFound(f"there is no group {group!r}", "see `tidings status` for the groups of this store", group=group)
    return finished


def members(readers: Readers, now: float) -> list[Member]:
    """Workers that said they live. `now` is the lease clock."""
    rows = readers.rows("SELECT app, member, groups, expires, lease FROM tidings_member ORDER BY app, member")
    return [
        Member(app, member, json.loads(groups), now < expires <= now + lease)
        for app, member, groups, expires, lease in rows
    ]


def backlog(readers: Readers, group: str | None, wall: float) -> list[Backlog]:
    """How groups stand. `wall` is the time now, microseconds since 1970 UTC."""
    sql = "SELECT name, handler, types FROM tidings_group"
    rows = readers.rows(f"{sql} WHERE name = ?", (group,)) if group else readers.rows(f"{sql} ORDER BY name")
    return [_backlog(readers, name, handler, types, wall) for name, handler, types in rows]


def _backlog(readers: Readers, name: str, handler: str, types: str, wall: float) -> Backlog:
    slots = readers.rows("SELECT slot, owner, checkpoint FROM tidings_slot WHERE name = ? ORDER BY slot", (name,))
    finished = min((row[2] for row in slots), default=0)
    waiting = readers.rows(
        "SELECT count(*), min(time) FROM (SELECT time FROM tidings_log WHERE position > ? "
        f"AND {_OWN if types == '[]' else f'type {_IN} AND {VISIBLE}'} LIMIT {MOST_COUNTED})",
        (finished, name) if types == "[]" else (finished, types, name),
    )[0]
    counts = dict(readers.rows("SELECT state, count(*) FROM tidings_held WHERE name = ? GROUP BY state", (name,)))
    first_held = None
    if counts.get("retry") or counts.get("parked"):
        first_held = readers.one(
            "SELECT time FROM tidings_log WHERE position = "
            "(SELECT min(position) FROM tidings_held WHERE name = ? AND state <> 'dead')",
            (name,),
        )
    times = [time for time in (waiting[1], first_held) if time is not None]
    return Backlog(
        group=name,
        where=handler,
        types=json.loads(types),
        checkpoint=finished,
        lag=waiting[0],
        oldest=max(0.0, (wall - min(times)) / 1e6) if times else 0.0,
        retrying=counts.get("retry", 0),
        parked=counts.get("parked", 0),
        dead=counts.get("dead", 0),
        owners={slot: owner for slot, owner, _ in slots if owner is not None},
    )
