"""Deliveries: settling them, and the table of those that wait, are parked or dead."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from tidings.core.envelope import SLOTS, Envelope
from tidings.core.operations import Append, Appended, Held, Redrive, Settle
from tidings.errors import Fenced, NotFound
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.log import append

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode

COLUMNS = "id, name, position, state, attempt, due, envelope, reason, traceback, history, since"
_INSERT = (
    "INSERT INTO tidings_held (name, position, state, attempt, due, envelope, reason, traceback, history, since, slot, "
    "key, ready) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (name, position) DO UPDATE SET state = excluded.state, "
    "attempt = excluded.attempt, due = excluded.due, envelope = excluded.envelope, reason = excluded.reason, "
    "traceback = excluded.traceback, history = excluded.history, ready = excluded.ready"
)
_UPDATE = (
    "UPDATE tidings_held SET name = ?, position = ?, state = ?, attempt = ?, due = ?, envelope = ?, reason = ?, "
    "traceback = ?, history = ?, since = ?, slot = ?, key = ?, ready = ? WHERE id = ? AND name = ?1"
)
_ADVANCE = "UPDATE tidings_slot SET checkpoint = max(checkpoint, ?), started = max(started, ?) WHERE name = ?"
_ADVANCE_ALONE = f"{_ADVANCE}3 AND (SELECT count(*), sum(epoch) FROM tidings_slot WHERE name = ?3) = (?, ?)"
"""Epochs only grow: where their sum is that of earlier ones, so is each of them."""
_FORGET_MARKS = (
    "DELETE FROM tidings_mark WHERE name = ?1 "
    "AND position <= (SELECT min(checkpoint) FROM tidings_slot WHERE name = ?1)"
)

_IS_MARKED = "SELECT 1 FROM tidings_mark WHERE name = ? LIMIT 1"


def held_of(row: tuple[Any, ...]) -> Held:
    """A row of COLUMNS as a value."""
    id_, group, position, state, attempt, due, envelope, reason, traceback, history, since = row
    known = _decode(envelope)
    return Held(id_, group, position, state, attempt, due, known, reason, traceback, tuple(json.loads(history)), since)


def lone_advance(op: Settle, changes: Changes) -> tuple[str, tuple[int | str, ...], int] | None:
    """The one statement, its values and how many rows it changes, where nothing but a whole group's progress moves.

    It changes nothing where a slot has another epoch. None where there is more to do, such as forgetting marks, or the
    group has other slots.
    """
    if op.hold or op.done or op.marks or op.append or op.later or len(op.epochs) not in {1, SLOTS}:
        return None
    if op.checkpoint is not None and op.group not in changes.unmarked:
        return None
    slots, checkpoint = len(op.epochs), op.checkpoint or 0
    started = max(op.started or 0, checkpoint)
    return _ADVANCE_ALONE, (checkpoint, started, op.group, slots, sum(op.epochs.values())), slots


def settle(changes: Changes, op: Settle) -> Appended:
    """Settle deliveries of one group with everything their handlers returned, if the epochs still hold."""
    slots = _check_epochs(changes, op)
    appended = append(changes, Append(op.append))
    for later in op.later:
        append(changes, later)
    connection = changes.connection
    if op.hold or op.done:
        _hold(changes, op, slots)
        changes.grew = True
    if op.marks:
        changes.unmarked.discard(op.group)
        connection.executemany("INSERT OR IGNORE INTO tidings_mark VALUES (?,?)", [(op.group, at) for at in op.marks])
    if op.checkpoint is not None or op.started is not None:
        _advance(changes, op, slots)
    return appended


def _advance(changes: Changes, op: Settle, slots: int) -> None:
    """Move checkpoints and starts forward."""
    connection = changes.connection
    checkpoint = op.checkpoint or 0
    values = (checkpoint, max(op.started or 0, checkpoint), op.group)
    if len(op.epochs) == slots:  # the whole group, as a lone worker settles it
        connection.execute(_ADVANCE, values)
    else:
        connection.executemany(f"{_ADVANCE} AND slot = ?", [(*values, slot) for slot in op.epochs])
    if checkpoint:
        connection.execute(_FORGET_MARKS, (op.group,))
        if connection.execute(_IS_MARKED, (op.group,)).fetchone() is None:
            changes.unmarked.add(op.group)


def _check_epochs(changes: Changes, op: Settle) -> int:
    """Number of slots of the group; raises Fenced when one of those settled changed its owner."""
    rows = changes.connection.execute("SELECT slot, epoch FROM tidings_slot WHERE name = ?", (op.group,)).fetchall()
    current = dict(rows)
    for slot, epoch in op.epochs.items():
        if current.get(slot) != epoch:
            raise Fenced(
                f"slot {slot} of {op.group} is at epoch {current.get(slot)}, not {epoch}: another worker owns it",
                "nothing to do: the other worker handles these deliveries",
                group=op.group,
                slot=slot,
                epoch=epoch,
                actual=current.get(slot),
            )
    return len(current)


def _hold(changes: Changes, op: Settle, slots: int) -> None:
    connection = changes.connection
    keys: dict[str, None] = {}
    if op.done:
        ids = json.dumps(list(op.done))
        found = connection.execute(
            "SELECT DISTINCT key FROM tidings_held WHERE id IN (SELECT value FROM json_each(?)) AND name = ?",
            (ids, op.group),
        )
        keys.update((key, None) for (key,) in found if key is not None)
        connection.execute(
            "DELETE FROM tidings_held WHERE id IN (SELECT value FROM json_each(?)) AND name = ?", (ids, op.group)
        )
    inserts: list[tuple[Any, ...]] = []
    for one in op.hold:
        envelope = one.envelope
        ready = None if envelope.key is not None else _ready(one.state, one.due)
        row = (
            op.group,
            one.position,
            one.state,
            one.attempt,
            one.due,
            _encode(envelope),
            _storable(one.reason),
            _storable(one.traceback),
            json.dumps(list(one.history)),
            one.since,
            envelope.slot % slots if slots else 0,
            envelope.key,
            ready,
        )
        if one.id:
            connection.execute(_UPDATE, (*row, one.id))
        else:
            inserts.append(row)
        if envelope.key is not None:
            keys[envelope.key] = None
    if inserts:
        connection.executemany(_INSERT, inserts)
    put_heads_first(changes, op.group, keys)


def _storable(text: str) -> str:
    """Text of an exception, which may hold what UTF-8 cannot: half of a character."""
    return text.encode("utf-8", "backslashreplace").decode()


def _ready(state: str, due: int) -> int | None:
    """When a delivery with nothing before it is to be tried; None for never."""
    return None if state == "dead" else due if state == "retry" else 0


def put_heads_first(changes: Changes, group: str, keys: Iterable[str]) -> None:
    """Make the first delivery of each key ready, and no other one of that key.

    Dead letters block what is behind them; in a group with on_dead="skip" they do not.
    """
    connection = changes.connection
    row = connection.execute("SELECT on_dead FROM tidings_group WHERE name = ?", (group,)).fetchone()
    passed = "AND state <> 'dead'" if row and row[0] == "skip" else ""
    first = (
        f"SELECT id, state, due, ready FROM tidings_held WHERE name = ? AND key = ? {passed} ORDER BY position LIMIT 1"
    )
    clear = "UPDATE tidings_held SET ready = NULL WHERE name = ? AND key = ? AND ready IS NOT NULL AND id <> ?"
    for key in keys:
        head = connection.execute(first, (group, key)).fetchone()
        if head is None:
            continue
        id_, state, due, ready = head
        wanted = _ready(state, due)
        connection.execute(clear, (group, key, id_))
        if ready != wanted:
            connection.execute("UPDATE tidings_held SET ready = ? WHERE id = ?", (wanted, id_))


def redrive(changes: Changes, op: Redrive) -> int:
    """Put dead letters back to work, or remove them; what waited behind them follows."""
    connection = changes.connection
    ids = json.dumps(list(op.ids))
    chosen = "id IN (SELECT value FROM json_each(?)) AND state = 'dead'"
    if not op.discard:
        chosen += " AND name IN (SELECT name FROM tidings_group)"  # nobody would handle what belongs to no group
    rows = connection.execute(f"SELECT DISTINCT name, key FROM tidings_held WHERE {chosen}", (ids,)).fetchall()
    if op.discard:
        done = connection.execute(f"DELETE FROM tidings_held WHERE {chosen}", (ids,))
    else:
        done = connection.execute(
            "UPDATE tidings_held SET state = 'retry', attempt = 0, due = 0, ready = CASE WHEN key IS NULL THEN 0 END "
            f"WHERE {chosen}",
            (ids,),
        )
    keys: dict[str, list[str]] = {}
    for group, key in rows:
        if key is not None:
            keys.setdefault(group, []).append(key)
    for group, touched in keys.items():
        put_heads_first(changes, group, touched)
    changes.grew = True
    return done.rowcount


def group_row(changes: Changes, group: str, columns: str) -> tuple[Any, ...]:
    """Columns of a group.

    Raises:
        NotFound: There is no such group.
    """
    row = changes.connection.execute(f"SELECT {columns} FROM tidings_group WHERE name = ?", (group,)).fetchone()
    if row is None:
        raise NotFound(f"there is no group {group!r}", "see `tidings status` for the groups of this store", group=group)
    return tuple(row)
