"""Rows of the log, as they are bound to the statements that insert them.

For each value that is None or bytes `sqlite3` looks for somebody who adapts it, and forms an error about nobody having
done so: a third of a microsecond each time, and half of the columns of most events are empty. So what is empty is left
out, and data is bound as a bytearray, of which it does not ask.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tidings.core.envelope import Envelope

_ALWAYS = ("id", "source", "type", "schema", "topic", "key", "slot", "time", "data")
_SELDOM = ("correlation", "causation", "traceparent", "headers")

Rows = dict[str, list[list[Any]]]
"""Statement -> the values of its rows."""


def put(rows: Rows, envelope: Envelope, position: int, stream: str | None, version: int | None) -> None:
    """Add a row of one envelope, at a place in the log and in a stream, where it has one."""
    with_seldom, with_stream = has_seldom(envelope), version is not None
    row = unplaced(envelope, with_seldom)
    if with_stream:
        row += (stream, version)
    row.append(position)
    sql = _insert(with_seldom, with_stream)
    if sql in rows:
        rows[sql].append(row)
    else:
        rows[sql] = [row]


def has_seldom(envelope: Envelope) -> bool:
    """True where the envelope has one of the attributes that most do not have."""
    return (
        envelope.correlation is not None
        or envelope.causation is not None
        or envelope.traceparent is not None
        or envelope.headers is not None
    )


def unplaced(envelope: Envelope, with_seldom: bool) -> list[Any]:  # noqa: FBT001 - a part of the key of statements
    """The values of an envelope whose position SQLite gives, without stream and version."""
    row = [
        envelope.id,
        envelope.source,
        envelope.type,
        envelope.schema,
        envelope.topic,
        envelope.key,
        envelope.slot,
        envelope.time,
        bytearray(envelope.data),
    ]
    if with_seldom:
        row += (envelope.correlation, envelope.causation, envelope.traceparent, envelope.headers)
    return row


@cache
def columns(with_seldom: bool, with_stream: bool) -> tuple[str, ...]:  # noqa: FBT001 - as above
    """The columns of `unplaced`, and then those of the stream."""
    return (*_ALWAYS, *(_SELDOM if with_seldom else ()), *(("stream", "version") if with_stream else ()))


@cache
def _insert(with_seldom: bool, with_stream: bool) -> str:  # noqa: FBT001 - as above
    names = (*columns(with_seldom, with_stream), "position")
    return f"INSERT INTO tidings_log ({','.join(names)}) VALUES ({','.join('?' * len(names))})"
