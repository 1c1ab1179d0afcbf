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
    row = unplaced(envelope)
    width = len(row)
    if version is not None:
        row += (stream, version)
    row.append(position)
    sql = _insert(width, version is not None)
    if sql in rows:
        rows[sql].append(row)
    else:
        rows[sql] = [row]


def unplaced(envelope: Envelope) -> list[Any]:
    """The values of an envelope whose position SQLite gives, without stream and version.

    What most envelopes do not have follows where this one has some of it.
    """
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
    if (
        envelope.correlation is not None
        or envelope.causation is not None
        or envelope.traceparent is not None
        or envelope.headers is not None
    ):
        row += (envelope.correlation, envelope.causation, envelope.traceparent, envelope.headers)
    return row


@cache
def columns(width: int, with_stream: bool) -> tuple[str, ...]:  # noqa: FBT001 - a part of the key of statements
    """The columns of what `unplaced` gives so many values of, and then those of the stream."""
    return (*(_ALWAYS + _SELDOM)[:width], *(("stream", "version") if with_stream else ()))


@cache
def _insert(width: int, with_stream: bool) -> str:  # noqa: FBT001 - as above
    names = (*columns(width, with_stream), "position")
    return f"INSERT INTO tidings_log ({','.join(names)}) VALUES ({','.join('?' * len(names))})"
