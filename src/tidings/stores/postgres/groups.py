"""Groups: joining, bootstrapping and rewinding them, with the tables their handlers fill."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import psycopg

from tidings.core.operations import Join, Repair, Rewind, Seed
from tidings.core.schema import parse_schema
from tidings.errors import BadDeclaration, GroupConflict, ProjectionChanged, WrongStore
from tidings.stores.postgres.held import group_row
from tidings.stores.postgres.leases import owner_of
from tidings.stores.postgres.steps import Steps, rows, value

VISIBLE = "(topic IS NOT NULL OR starts_with({}, source || '.'))"
"""Condition on the log: published, or private to the app whose group is the parameter."""
OWN = "(topic IS NOT NULL AND starts_with({}, source || '.'))"
"""Condition for the group that carries to a broker what its app published."""

_TYPES = {
    "TEXT": 'text COLLATE "C"',
    "INTEGER": "bigint",
    "INT": "bigint",
    "REAL": "double precision",
    "BLOB": "bytea",
}
"""What the words of a part's schema mean: text in the order of its bytes, numbers of 64 bits, as on every store."""
_BACK_TO_START = (
    "UPDATE tidings_slot SET epoch = epoch + 1, owner = NULL, expires = 0, checkpoint = $1, started = $1 "
    "WHERE name = $2"
)
_BACK = (
    "UPDATE tidings_slot SET epoch = epoch + 1, owner = NULL, expires = 0, "
    "checkpoint = least(checkpoint, $1), started = least(started, $1) WHERE name = $2"
)
_RECOGNISE = """
    INSERT INTO tidings_state SELECT DISTINCT ON (type, key)
        type, key, coalesce(version, position) AS number, position, time, data
    FROM tidings_log WHERE type = ANY ($1) AND stream IS NULL AND key IS NOT NULL ORDER BY type, key, number DESC
    ON CONFLICT (type, key) DO UPDATE SET version = excluded.version, position = excluded.position,
        time = excluded.time, data = excluded.data WHERE excluded.version > tidings_state.version
"""
"""Makes states that came from elsewhere current ones: when they came, nobody could tell that they are states."""
_LAYOUT = re.compile(r"\)\s*(?:(?:WITHOUT\s+ROWID|STRICT)\s*,?\s*)+$", re.IGNORECASE)
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\w+|\s+|.""", re.DOTALL)


def join(op: Join) -> Steps[int]:
    """Create a group with its slots and tables, or check that it is the one that exists."""
    yield from value("SELECT pg_advisory_xact_lock(1953063785, 'tidings_group'::regclass::oid::integer)")
    yield from _check_commands(op)
    found = yield from rows(
        "SELECT handler, fingerprint, slots, on_dead FROM tidings_group WHERE name = $1 FOR UPDATE", op.group
    )
    if not found:
        return (yield from _create(op))
    handler, fingerprint, slots, on_dead = found[0]
    yield from _check_handler(op, handler)
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
    yield from _check_log(op.group)
    yield from rows(
        "UPDATE tidings_group SET handler = $1, types = $2, commands = $3, on_dead = $4, "
        "fingerprint = coalesce(fingerprint, $5) WHERE name = $6",
        op.where,
        json.dumps(list(op.types)),
        json.dumps(list(op.commands)),
        op.on_dead,
        op.fingerprint,
        op.group,
    )
    if on_dead != op.on_dead:
        yield from rows(
            "SELECT tidings_put_heads_first($1, array_agg(DISTINCT key)) FROM tidings_held "
            "WHERE name = $1 AND key IS NOT NULL HAVING count(*) > 0",
            op.group,
        )
    return 0


def _create(op: Join) -> Steps[int]:
    head = yield from value("SELECT coalesce(max(position), 0) FROM tidings_log")
    if op.seed:
        yield from rows(_RECOGNISE, list(op.types))
    start = head if op.start == "latest" else 0 if op.start == "earliest" else min(op.start, head)
    tables = yield from create_tables(op.schema, op.group)
    yield [
        (
            "INSERT INTO tidings_group VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)",
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
        ),
        (
            "INSERT INTO tidings_slot SELECT $1, slot, 0, NULL, 0, 0, $2, $2 FROM generate_series(0, $3 - 1) AS slot",
            (op.group, start, op.slots),
        ),
    ]
    return (yield from _count(op.group, op.types, 0))


def _count(group: str, types: Sequence[str], after: int) -> Steps[int]:
    """Events of these types after a position that the group may see."""
    sql = f"SELECT count(*) FROM tidings_log WHERE position > $1 AND type = ANY ($2) AND {VISIBLE.format('$3')}"
    count: int = yield from value(sql, after, list(types), group)
    return count


def _check_commands(op: Join) -> Steps[None]:
    if not op.commands:
        return
    for name, handler, commands in (
        yield from rows("SELECT name, handler, commands FROM tidings_group WHERE name <> $1", op.group)
    ):
        shared = sorted(set(json.loads(commands)) & set(op.commands))
        if shared:
            raise GroupConflict(
                f"the command {shared[0]} is handled by {name} ({handler}), so {op.group} ({op.where}) cannot",
                f"a command has one handler; was it renamed, keep its group: `group={name.partition('.')[2]!r}`",
                command=shared[0],
                groups=(name, op.group),
            )


def _check_handler(op: Join, handler: str) -> Steps[None]:
    """Another handler may take the group over only when no worker runs the old one."""
    if handler.partition(" ")[0] == op.where.partition(" ")[0]:  # the line number may differ
        return
    owner = yield from owner_of(op.group)
    if owner is not None:
        raise GroupConflict(
            f"the group {op.group} belongs to {handler}, which {owner} runs now; {op.where} cannot share it",
            "give one of the handlers another name or `group=`, or stop the other worker first",
            group=op.group,
            handlers=(handler, op.where),
        )


def _check_log(group: str) -> Steps[None]:
    checkpoint, head = yield from _ends(group)
    if checkpoint is not None and checkpoint > head:
        raise WrongStore(
            f"{group} has finished position {checkpoint:,}, but the log ends at {head:,}",
            "the log lost its end; restore the whole database from one backup, or accept it: `tidings groups repair`",
            group=group,
            checkpoint=checkpoint,
            head=head,
        )


def _ends(group: str) -> Steps[tuple[int | None, int]]:
    """How far a group has come, None for an unknown one; and where the log ends."""
    [(checkpoint, head)] = yield from rows(
        "SELECT (SELECT max(checkpoint) FROM tidings_slot WHERE name = $1), "
        "(SELECT coalesce(max(position), 0) FROM tidings_log)",
        group,
    )
    return checkpoint, head


def seed(op: Seed) -> Steps[None]:
    """Note how far a bootstrap has come."""
    yield from group_row(op.group, "name", lock="FOR UPDATE")
    yield from rows("UPDATE tidings_group SET seed = $1 WHERE name = $2", op.cursor, op.group)


def rewind(op: Rewind) -> Steps[int]:
    """Drop a group's tables, create them anew and set its slots back to the start, fencing those who work on it."""
    tables, start, types = yield from group_row(op.group, "tables, start, types", lock="FOR UPDATE")
    yield [
        ("SELECT FROM tidings_slot WHERE name = $1 ORDER BY slot FOR UPDATE", (op.group,)),
        *((f"DROP TABLE IF EXISTS {quoted(name)}", ()) for name in json.loads(tables)),
    ]
    created = yield from create_tables(op.schema, op.group)
    if op.seed:
        yield from rows(_RECOGNISE, json.loads(types))
    yield [
        (
            "UPDATE tidings_group SET tables = $1, fingerprint = $2, seed = $3 WHERE name = $4",
            (json.dumps(created), op.fingerprint, "" if op.seed else None, op.group),
        ),
        (_BACK_TO_START, (start, op.group)),
        ("DELETE FROM tidings_held WHERE name = $1", (op.group,)),
        ("DELETE FROM tidings_mark WHERE name = $1", (op.group,)),
    ]
    return (yield from _count(op.group, json.loads(types), start))


def repair(op: Repair) -> Steps[int]:
    """Set a group back, if it has finished more than the log holds."""
    yield from group_row(op.group, "name", lock="FOR UPDATE")
    yield [("SELECT FROM tidings_slot WHERE name = $1 ORDER BY slot FOR UPDATE", (op.group,))]
    checkpoint, head = yield from _ends(op.group)
    if checkpoint is None or checkpoint <= head:
        return 0
    to = head if op.to is None else min(op.to, head)
    yield [
        (_BACK, (to, op.group)),
        ("DELETE FROM tidings_mark WHERE name = $1 AND position > $2", (op.group, to)),
    ]
    return checkpoint - head


def create_tables(schema: str | None, group: str) -> Steps[list[str]]:
    """Run the statements of a part's schema; returns the names of the tables that they create.

    Raises:
        BadDeclaration: A statement fails; the message has PostgreSQL's own words.
    """
    if not schema:
        return []
    parsed = parse_schema(schema, group)
    for statement in parsed.statements:
        try:
            yield from rows(in_dialect(statement))
        except psycopg.ProgrammingError as error:
            raise BadDeclaration(
                f"the schema of {group} fails at {statement[:80]!r}: {error.diag.message_primary}",
                "correct the schema; a table that exists already needs another name, or must be dropped first",
            ) from error
    return list(parsed.tables)


def in_dialect(statement: str) -> str:
    """A statement of a part's schema with the types that mean here what they mean on every store.

    What only tells SQLite how to lay a table out is left out.
    """
    portable = _LAYOUT.sub(")", statement)
    return "".join(_TYPES.get(token.upper(), token) for token in _TOKEN.findall(portable))


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
