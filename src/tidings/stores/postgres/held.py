"""Deliveries: settling them, and the table of those that wait, are parked or dead."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.operations import Append, Appended, Held, Redrive, Settle
from tidings.errors import Fenced, NotFound, TidingsError
from tidings.stores.postgres.arrays import integers
from tidings.stores.postgres.log import NOTHING, append, appended, appending, check
from tidings.stores.postgres.steps import Statement, Steps, rows

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode

COLUMNS = "id, name, position, state, attempt, due, envelope, reason, traceback, history, since"
_INSERT = (
    "INSERT INTO tidings_held (name, position, state, attempt, due, envelope, reason, traceback, history, since, slot, "
    "key, ready) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,"
    "$11 % coalesce((SELECT slots FROM tidings_group WHERE name = $1), 1),$12,$13) "
    "ON CONFLICT (name, position) DO UPDATE SET state = excluded.state, attempt = excluded.attempt, "
    "due = excluded.due, envelope = excluded.envelope, reason = excluded.reason, traceback = excluded.traceback, "
    "history = excluded.history, ready = excluded.ready"
)
_UPDATE = (
    "UPDATE tidings_held SET position = $2, state = $3, attempt = $4, due = $5, envelope = $6, reason = $7, "
    "traceback = $8, history = $9, since = $10, key = $11, ready = $12 WHERE id = $13 AND name = $1"
)
_HEADS = "SELECT tidings_put_heads_first($1, $2)"
_ADVANCE = (
    "UPDATE tidings_slot SET checkpoint = greatest(checkpoint, $1), started = greatest(started, $2) "
    "WHERE name = $3 AND slot = ANY ($4)"
)
_FORGET_MARKS = (
    "DELETE FROM tidings_mark WHERE name = $1 "
    "AND position <= (SELECT min(checkpoint) FROM tidings_slot WHERE name = $1)"
)


def held_of(row: tuple[Any, ...]) -> Held:
    """A row of COLUMNS as a value."""
    id_, group, position, state, attempt, due, envelope, reason, traceback, history, since = row
    known = _decode(envelope)
    return Held(id_, group, position, state, attempt, due, known, reason, traceback, tuple(json.loads(history)), since)


def settling(op: Settle) -> list[Statement]:
    """The statements that settle deliveries of one group, without what their handlers append."""
    group, slots = op.group, list(op.epochs)
    moving = op.checkpoint is not None or op.started is not None
    fence = "SELECT tidings_fence($1, $2, $3, $4)"
    statements: list[Statement] = [(fence, (group, integers(slots), integers(op.epochs.values()), moving))]
    keys = dict.fromkeys(one.envelope.key for one in op.hold if one.envelope.key is not None)
    statements += [_held(one, group) for one in op.hold]
    if op.done:
        statements.append(("SELECT tidings_done($1, $2)", (group, list(op.done))))
    if op.marks:
        sql = "INSERT INTO tidings_mark SELECT $1, unnest($2::bigint[]) ON CONFLICT DO NOTHING"
        statements.append((sql, (group, list(op.marks))))
    if keys:
        statements.append((_HEADS, (group, list(keys))))
    if moving:
        checkpoint = op.checkpoint or 0
        statements.append((_ADVANCE, (checkpoint, max(op.started or 0, checkpoint), group, slots)))
        if checkpoint:
            statements.append((_FORGET_MARKS, (group,)))
    return statements


def _held(one: Held, group: str) -> Statement:
    envelope = one.envelope
    ready = (
        None if envelope.key is not None else 0 if one.state == "parked" else one.due if one.state == "retry" else None
    )
    values = (
        group,
        one.position,
        one.state,
        one.attempt,
        one.due,
        _encode(envelope),
        storable(one.reason),
        storable(one.traceback),
        json.dumps(list(one.history)),
        one.since,
    )
    if one.id:
        return _UPDATE, (*values, envelope.key, ready, one.id)
    return _INSERT, (*values, envelope.slot, envelope.key, ready)


def storable(text: str) -> str:
    """Text of an exception, which may hold what PostgreSQL's text cannot: half of a character, or NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def settle(op: Settle) -> Steps[Appended]:
    """Settle deliveries of one group with everything their handlers returned, if the epochs still hold."""
    for later in op.later:
        check(later)
    statements = settling(op)
    messages = [Append(op.append)] if op.append else []
    results = yield [*(appending([each], strict=True) for each in messages), *statements]  # locks the log first
    for later in op.later:
        yield from append(later)
    if not messages:
        return NOTHING
    [done] = appended(messages, results[0].rows)
    if isinstance(done, TidingsError):
        raise done
    return done


def fenced(group: str, slot: int, epoch: int, actual: int | None) -> Fenced:
    """Another worker owns the slot."""
    return Fenced(
        f"slot {slot} of {group} is at epoch {actual}, not {epoch}: another worker owns it",
        "nothing to do: the other worker handles these deliveries",
        group=group,
        slot=slot,
        epoch=epoch,
        actual=actual,
    )


def redrive(op: Redrive) -> Steps[int]:
    """Put dead letters back to work, or remove them; what waited behind them follows."""
    chosen = "id = ANY ($1) AND state = 'dead'"
    if op.discard:
        sql = f"DELETE FROM tidings_held WHERE {chosen} RETURNING name, key"
    else:  # nobody would handle what belongs to no group
        sql = (
            "UPDATE tidings_held SET state = 'retry', attempt = 0, due = 0, ready = CASE WHEN key IS NULL THEN 0 END "
            f"WHERE {chosen} AND name IN (SELECT name FROM tidings_group) RETURNING name, key"
        )
    done = yield from rows(sql, list(op.ids))
    keys: dict[str, set[str]] = {}
    for group, key in done:
        if key is not None:
            keys.setdefault(group, set()).add(key)
    if keys:
        yield [(_HEADS, (group, sorted(touched))) for group, touched in sorted(keys.items())]
    return len(done)


def group_row(group: str, columns: str, *, lock: str = "") -> Steps[tuple[Any, ...]]:
    """Columns of a group.

    Raises:
        NotFound: There is no such group.
    """
    found = yield from rows(f"SELECT {columns} FROM tidings_group WHERE name = $1 {lock}", group)
    if not found:
        raise NotFound(f"there is no group {group!r}", "see `tidings status` for the groups of this store", group=group)
    return found[0]
