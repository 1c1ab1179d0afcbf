"""Groups: joining, bootstrapping and rewinding them, with the tables their handlers fill."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from tidings.core.operations import Join, Repair, Rewind, Seed
from tidings.errors import BadDeclaration, GroupConflict, ProjectionChanged, WrongStore
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.connection import statements
from tidings.stores.sqlite.held import group_row, put_heads_first
from tidings.stores.sqlite.leases import owner_of

VISIBLE = "(topic IS NOT NULL OR substr(?, 1, length(source) + 1) = source || '.')"
"""Condition on the log: published, or private to the app whose group is the parameter."""


def join(changes: Changes, op: Join) -> int:
    """Create a group with its slots and tables, or check that it is the one that exists."""
    changes.flush()
    connection = changes.connection
    _check_commands(changes, op)
    row = connection.execute(
        "SELECT handler, fingerprint, slots, on_dead FROM tidings_group WHERE name = ?", (op.group,)
    ).fetchone()
    if row is None:
        return _create(changes, op)
    handler, fingerprint, slots, on_dead = row
    _check_handler(changes, op, handler)
    if op.fingerprint is not None and fingerprint is not None and op.fingerprint != fingerprint:
        raise ProjectionChanged(
            f"the code of {op.group} differs from the code that filled its tables",
            f"rebuild it: `tidings projection rebuild {op.group.partition('.')[2]}`",
            group=op.group,
        )
    if slots != op.slots:
        raise GroupConflict(
            f"{op.group} has {slots} slots in this store, not {op.slots}",
            "keep the number of slots, or give the handler another `group=`",
            group=op.group,
        )
    _check_log(changes, op.group)
    connection.execute(
        "UPDATE tidings_group SET handler = ?, types = ?, commands = ?, on_dead = ?, "
        "fingerprint = coalesce(fingerprint, ?) WHERE name = ?",
        (op.where, json.dumps(list(op.types)), json.dumps(list(op.commands)), op.on_dead, op.fingerprint, op.group),
    )
    if on_dead != op.on_dead:
        _reconsider_heads(changes, op.group)
    return 0


def _create(changes: Changes, op: Join) -> int:
    connection = changes.connection
    if op.seed:
        _recognise_states(changes, op.types)
    start = changes.head if op.start == "latest" else 0 if op.start == "earliest" else min(op.start, changes.head)
    tables = create_tables(connection, op.schema, op.group)
    connection.execute(
        "INSERT INTO tidings_group VALUES (?,?,?,?,?,?,?,?,?,?)",
        (
            op.group,
            op.where,
            json.dumps(list(op.types)),
            json.dumps(list(op.commands)),
            op.slots,
            start,
            op.on_dead,
            json.dumps(tables),
            op.fingerprint,
            "" if op.seed else None,
        ),
    )
    connection.executemany(
        "INSERT INTO tidings_slot VALUES (?, ?, 0, NULL, 0, 0, ?, ?)",
        [(op.group, slot, start, start) for slot in range(op.slots)],
    )
    return _count(changes, op.group, op.types, 0)


def _recognise_states(changes: Changes, types: Sequence[str]) -> None:
    """Make states that came from elsewhere current ones: when they came, nobody could tell that they are states."""
    changes.versions.clear()
    changes.connection.execute(
        "INSERT INTO tidings_state SELECT type, key, coalesce(version, position) AS number, position, time, data "
        "FROM tidings_log WHERE type IN (SELECT value FROM json_each(?)) AND stream IS NULL AND key IS NOT NULL "
        "ORDER BY number "
        "ON CONFLICT (type, key) DO UPDATE SET version = excluded.version, position = excluded.position, "
        "time = excluded.time, data = excluded.data WHERE excluded.version > tidings_state.version",
        (json.dumps(list(types)),),
    )


def _count(changes: Changes, group: str, types: Sequence[str], after: int) -> int:
    """Events of these types after a position that the group may see."""
    row = changes.connection.execute(
        "SELECT count(*) FROM tidings_log WHERE position > ? AND type IN (SELECT value FROM json_each(?)) "
        f"AND {VISIBLE}",
        (after, json.dumps(list(types)), group),
    ).fetchone()
    count: int = row[0]
    return count


def _check_commands(changes: Changes, op: Join) -> None:
    if not op.commands:
        return
    rows = changes.connection.execute("SELECT name, handler, commands FROM tidings_group WHERE name <> ?", (op.group,))
    for name, handler, commands in rows.fetchall():
        shared = sorted(set(json.loads(commands)) & set(op.commands))
        if shared:
            raise GroupConflict(
                f"the command {shared[0]} is handled by {name} ({handler}), so {op.group} ({op.where}) cannot",
                f"a command has one handler; was it renamed, keep its group: `group={name.partition('.')[2]!r}`",
                command=shared[0],
                groups=(name, op.group),
            )


def _check_handler(changes: Changes, op: Join, handler: str) -> None:
    """Another handler may take the group over only when no worker runs the old one."""
    if handler.partition(" ")[0] == op.where.partition(" ")[0]:  # the line number may differ
        return
    owner = owner_of(changes, op.group)
    if owner is not None:
        raise GroupConflict(
            f"the group {op.group} belongs to {handler}, which {owner} runs now; {op.where} cannot share it",
            "give one of the handlers another name or `group=`, or stop the other worker first",
            group=op.group,
            handlers=(handler, op.where),
        )


def _check_log(changes: Changes, group: str) -> None:
    finished = _finished(changes, group)
    if finished > changes.head:
        raise WrongStore(
            f"{group} has finished position {finished:,}, but the log ends at {changes.head:,}",
            "the log lost its end; restore the whole file from one backup, or accept it: `tidings groups repair`",
            group=group,
            checkpoint=finished,
            head=changes.head,
        )


def _finished(changes: Changes, group: str) -> int:
    """The highest position that a slot of a group has finished; 0 for an unknown group."""
    row = changes.connection.execute("SELECT max(checkpoint) FROM tidings_slot WHERE name = ?", (group,)).fetchone()
    return row[0] or 0


def _reconsider_heads(changes: Changes, group: str) -> None:
    rows = changes.connection.execute(
        "SELECT DISTINCT key FROM tidings_held WHERE name = ? AND key IS NOT NULL", (group,)
    ).fetchall()
    put_heads_first(changes, group, [key for (key,) in rows])


def seed(changes: Changes, op: Seed) -> None:
    """Note how far a bootstrap has come."""
    group_row(changes, op.group, "name")
    changes.connection.execute("UPDATE tidings_group SET seed = ? WHERE name = ?", (op.cursor, op.group))


def rewind(changes: Changes, op: Rewind) -> int:
    """Drop a group's tables, create them anew and set its slots back to the start, fencing those who work on it."""
    changes.flush()
    connection = changes.connection
    tables, start, types = group_row(changes, op.group, "tables, start, types")
    for name in json.loads(tables):
        connection.execute(f"DROP TABLE IF EXISTS {quoted(name)}")
    tables = create_tables(connection, op.schema, op.group)
    if op.seed:
        _recognise_states(changes, json.loads(types))
    connection.execute(
        "UPDATE tidings_group SET tables = ?, fingerprint = ?, seed = ? WHERE name = ?",
        (json.dumps(tables), op.fingerprint, "" if op.seed else None, op.group),
    )
    connection.execute(
        "UPDATE tidings_slot SET epoch = epoch + 1, owner = NULL, expires = 0, checkpoint = ?1, started = ?1 "
        "WHERE name = ?2",
        (start, op.group),
    )
    connection.execute("DELETE FROM tidings_held WHERE name = ?", (op.group,))
    connection.execute("DELETE FROM tidings_mark WHERE name = ?", (op.group,))
    changes.grew = True
    return _count(changes, op.group, json.loads(types), start)


def repair(changes: Changes, op: Repair) -> int:
    """Set a group back, if it has finished more than the log holds."""
    changes.flush()
    connection, head = changes.connection, changes.head
    group_row(changes, op.group, "name")
    ahead = max(0, _finished(changes, op.group) - head)
    if ahead:
        to = head if op.to is None else min(op.to, head)
        connection.execute(
            "UPDATE tidings_slot SET epoch = epoch + 1, owner = NULL, expires = 0, "
            "checkpoint = min(checkpoint, ?1), started = min(started, ?1) WHERE name = ?2",
            (to, op.group),
        )
        connection.execute("DELETE FROM tidings_mark WHERE name = ? AND position > ?", (op.group, to))
    return ahead


def create_tables(connection: sqlite3.Connection, schema: str | None, group: str) -> list[str]:
    """Run the statements of a schema; returns the names of the tables that they created.

    Raises:
        BadDeclaration: A statement fails; the message has SQLite's own words.
    """
    if not schema:
        return []
    before = _tables(connection)
    for statement in statements(schema):
        try:
            connection.execute(statement)
        except sqlite3.Error as error:
            first = " ".join(statement.split())[:80]
            raise BadDeclaration(
                f"the schema of {group} fails at {first!r}: {error}",
                "correct the schema; a table that exists already needs another name, or must be dropped first",
            ) from error
    return sorted(_tables(connection) - before)


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    return {name for (name,) in rows}


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
