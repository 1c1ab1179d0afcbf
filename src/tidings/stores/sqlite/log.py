"""Appending to the log: positions, stream versions, ids seen before, current states, timers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from tidings.core.envelope import STATES, Envelope
from tidings.core.operations import ANY, Append, Appended, Fire, Op
from tidings.errors import BadArgument, IdConflict, WrongVersion
from tidings.stores.sqlite import rows
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.ids import MOST_BEHIND

_NOTHING = Appended(())
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode

_VERSION = "SELECT max(version) FROM tidings_log WHERE stream = ?"
_STATE_VERSION = "SELECT version FROM tidings_state WHERE type = ? AND key = ?"
_STORED = (
    "SELECT position, version, type, key, data FROM tidings_log "
    "WHERE position = (SELECT position FROM tidings_id WHERE id = ? AND source = ?)"
)
_WAITING = "SELECT envelope FROM tidings_timer WHERE id = ? AND source = ?"


MOST_ALONE = 100
"""Envelopes of one append up to which it is a statement of its own; each number of them makes another one."""


def joined(ops: Sequence[Op]) -> tuple[Append, list[int]] | None:
    """One append that does all of these, and how many events are each one's; None unless they append new ones, now."""
    if len(ops) > MOST_ALONE:
        return None
    envelopes: list[Envelope] = []
    counts: list[int] = []
    for op in ops:
        if type(op) is not Append or not op.fresh or op.due is not None or op.expected != ANY:
            return None
        envelopes += op.envelopes
        counts.append(len(op.envelopes))
    return Append(envelopes, fresh=True), counts


def lone_insert(op: Append, changes: Changes) -> tuple[str, list[Any], int] | None:
    """The one statement, its values and how many rows it inserts, that does all of an append now; None for others.

    It is enough for a few new events without a stream, and for those of one stream at an expected version: a unique
    index refuses it where the stream goes on, and it inserts nothing where the stream ends before that version. To look
    for that takes SQLite a third of the time, and is left out where the stream is known to have got so far. The table
    of ids may fall behind meanwhile, but not too far.
    """
    envelopes, version = op.envelopes, op.expected
    count = len(envelopes)
    is_behind = changes.end - changes.ids.followed >= MOST_BEHIND
    if is_behind or not op.fresh or op.due is not None or not 0 < count <= MOST_ALONE:
        return None
    first = envelopes[0]
    stream = first.stream
    if count == 1 and stream is None and version == ANY and first.version is None:  # as most are
        row = rows.unplaced(first)
        return _insert_alone(1, len(row), False, False), row, 1  # noqa: FBT003 - as its definition
    if (stream is None) is not (version == ANY) or (stream is not None and stream.startswith(STATES)):
        return None
    width = 0
    values: list[Any] = []
    for envelope in envelopes:
        row = rows.unplaced(envelope)
        if envelope.stream != stream or envelope.version is not None or (width and width != len(row)):
            return None  # all rows of a statement have the same columns
        width = len(row)
        values += row
        if stream is not None:
            version += 1
            values += (stream, version)
    if stream is None:
        return _insert_alone(count, width, False, False), values, count  # noqa: FBT003 - as above
    must_look = op.expected > changes.reached.get(stream, 0)
    if must_look:
        values += (stream, op.expected)
    return _insert_alone(count, width, True, must_look), values, count  # noqa: FBT003 - as above


@cache
def _insert_alone(count: int, width: int, with_stream: bool, must_look: bool) -> str:  # noqa: FBT001 - a key
    names = rows.columns(width, with_stream)
    values = ",".join((f"({','.join('?' * len(names))})",) * count)
    insert = f"INSERT INTO tidings_log ({','.join(names)})"
    if not must_look:
        return f"{insert} VALUES {values}"
    ends_there = "EXISTS (SELECT 1 FROM tidings_log WHERE stream = ? AND version = ?)"
    return f"{insert} SELECT * FROM (VALUES {values}) WHERE {ends_there}"


def append(changes: Changes, op: Append) -> Appended:
    """Append envelopes now, or keep them until they are due."""
    envelopes = op.envelopes
    if not envelopes:
        return _NOTHING
    if op.due is not None:
        return _schedule(changes, op)
    if changes.careful and not op.fresh:
        return _append_carefully(changes, envelopes, op.expected)
    changes.given |= not op.fresh
    return _append(changes, envelopes, op.expected)


def _append(changes: Changes, envelopes: Sequence[Envelope], expected: int) -> Appended:
    if expected != ANY:
        known = _check_version(changes, envelopes, expected)
        if known is not None:
            return known
    position = changes.head
    first = position + 1
    version = None
    for envelope in envelopes:
        position += 1
        if envelope.stream is None:
            rows.put(changes.rows, envelope, position, None, envelope.version)
        else:
            stream, version = _place_in_stream(changes, envelope, position)
            rows.put(changes.rows, envelope, position, stream, version)
    changes.head = position
    return Appended((position,) if first == position else tuple(range(first, position + 1)), version)


def _place_in_stream(changes: Changes, envelope: Envelope, position: int) -> tuple[str | None, int]:
    """Stream and version; a state older than what its owner said before has none, so that nobody goes back to it."""
    stream = envelope.stream
    assert stream is not None  # noqa: S101 - tells the type checker
    known = version_of(changes, envelope)
    version = envelope.version or known + 1
    if version <= known:
        return None, version
    changes.versions[stream] = version
    if stream.startswith(STATES):
        key = (envelope.type, envelope.key or "")
        changes.states[key] = (*key, version, position, envelope.time, envelope.data)
    return stream, version


def version_of(changes: Changes, envelope: Envelope) -> int:
    """Version of the envelope's stream, rows not yet flushed included; 0 when there is none."""
    stream = envelope.stream or ""
    version = changes.versions.get(stream)
    if version is None:
        if stream.startswith(STATES):
            row = changes.connection.execute(_STATE_VERSION, (envelope.type, envelope.key or "")).fetchone()
        else:
            row = changes.connection.execute(_VERSION, (stream,)).fetchone()
        changes.versions[stream] = version = (row and row[0]) or 0
    return version


def _check_version(changes: Changes, envelopes: Sequence[Envelope], expected: int) -> Appended | None:
    """Raise WrongVersion unless the streams are as expected, or all of this is stored already."""
    for envelope in envelopes:
        stream = envelope.stream
        if stream is None:
            raise BadArgument(f"expected={expected} without a stream", "name the stream, or leave `expected` out")
        if not changes.careful and stream not in changes.versions and changes.reached.get(stream) == expected:
            changes.versions[stream] = expected  # had another process gone on, the unique index would refuse the row
            return None
        actual = version_of(changes, envelope)
        if actual == expected:
            return None  # one stream
        changes.flush()
        known = [_stored(changes, one) for one in envelopes]
        if all(known):
            return Appended(tuple(row[0] for row in known if row), known[-1][1] if known[-1] else None)
        raise WrongVersion(
            f"stream {envelope.stream!r} is at version {actual}, not {expected}",
            "load it again and decide anew",
            stream=envelope.stream,
            expected=expected,
            actual=actual,
        )
    return None


def _append_carefully(changes: Changes, envelopes: Sequence[Envelope], expected: int) -> Appended:
    """Append what is not stored yet; the rest keeps its old positions."""
    places: dict[tuple[str, str], tuple[int, int | None]] = {}
    fresh: dict[tuple[str, str], Envelope] = {}
    for envelope in envelopes:
        name = (envelope.id, envelope.source)
        if name in fresh:
            _check_same(envelope, fresh[name], "in the same append")
        elif (stored := _stored(changes, envelope)) is not None:
            places[name] = stored
        else:
            fresh[name] = envelope
    if fresh:
        appended = _append(changes, list(fresh.values()), expected)
        for name, position in zip(fresh, appended.positions, strict=True):
            places[name] = (position, appended.version)
    found = [places[envelope.id, envelope.source] for envelope in envelopes]
    return Appended(tuple(position for position, _ in found), found[-1][1])


def _stored(changes: Changes, envelope: Envelope) -> tuple[int, int | None] | None:
    """(position, version) of the same envelope in the log; None when its id is new."""
    changes.follow()
    row = changes.connection.execute(_STORED, (envelope.id, envelope.source)).fetchone()
    if row is None:
        return None
    if (envelope.type, envelope.key, envelope.data) != row[2:]:
        raise _conflict(envelope, f"at position {row[0]}", row[2])
    return row[0], row[1]


def _check_same(envelope: Envelope, other: Envelope, place: str) -> None:
    if (envelope.type, envelope.key, envelope.data) != (other.type, other.key, other.data):
        raise _conflict(envelope, place, other.type)


def _conflict(envelope: Envelope, place: str, stored: str) -> IdConflict:
    return IdConflict(
        f"id {envelope.id!r} from {envelope.source!r} is taken {place} by another {stored}",
        "use a new id for a new message; the same id only for the very same message",
        id=envelope.id,
        source=envelope.source,
    )


# ---- timers ----------------------------------------------------------------------------------------------------------


def _schedule(changes: Changes, op: Append) -> Appended:
    if op.expected != ANY:
        raise BadArgument(f"expected={op.expected} with a due time", "a later append cannot expect a version")
    assert op.due is not None  # noqa: S101 - tells the type checker
    changes.flush()
    connection = changes.connection
    waiting: list[Envelope] = []
    positions: list[int] = []
    for envelope in op.envelopes:
        stored = _stored(changes, envelope)
        positions.append(stored[0] if stored else 0)
        row = connection.execute(_WAITING, (envelope.id, envelope.source)).fetchone()
        if row is not None:
            _check_same(envelope, _decode(row[0]), "in a timer")
        elif stored is None:
            waiting.append(msgspec.structs.replace(envelope, time=op.due))
    for envelope in waiting:
        connection.execute(
            "INSERT INTO tidings_timer (due, id, source, envelope) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
            (op.due, envelope.id, envelope.source, _encode(envelope)),
        )
    changes.grew = True
    return Appended(tuple(positions))


def fire(changes: Changes, op: Fire) -> int | None:
    """Move timers that are due to the log, earliest first."""
    changes.flush()
    connection = changes.connection
    due_now = connection.execute(
        "SELECT number, envelope FROM tidings_timer WHERE due <= ? ORDER BY due, number LIMIT ?", (op.now, op.limit)
    ).fetchall()
    fresh = [envelope for envelope in (_decode(row[1]) for row in due_now) if not _published(changes, envelope)]
    if fresh:
        _append(changes, fresh, ANY)
    connection.executemany("DELETE FROM tidings_timer WHERE number = ?", [(row[0],) for row in due_now])
    changes.flush()
    row = connection.execute("SELECT min(due) FROM tidings_timer").fetchone()
    due: int | None = row[0]
    return due


def _published(changes: Changes, envelope: Envelope) -> bool:
    """True when the id was published while its timer ran."""
    changes.follow()
    found = changes.connection.execute(_STORED, (envelope.id, envelope.source)).fetchone()
    return found is not None
