"""Rows of the log, as they are bound to the statements that insert them.

For each value that is None or bytes `sqlite3` looks for somebody who adapts it, and forms an error about nobody having
done so: a third of a microsecond each time, and half of the columns of most events are empty. So what is empty is left
out, and data is bound as a bytearray, of which it does not ask.
"""

from __future__ import annotations

from functools import cache
from operator import attrgetter
from typing import Any

from tidings.core.envelope import Envelope

_ALWAYS = ("id", "source", "type", "schema", "topic", "key", "slot", "time")
_SELDOM = ("correlation", "causation", "traceparent", "headers")
_NONE_OF_THEM = (None,) * len(_SELDOM)

_always, _seldom = attrgetter(*_ALWAYS), attrgetter(*_SELDOM)

Rows = dict[str, list[list[Any]]]
"""Statement -> the values of its rows."""


def put(rows: Rows, envelope: Envelope, position: int, stream: str | None, version: int | None) -> None:
    """Add a row of one envelope, at a place in the log and in a stream, where it has one."""
    seldom = _seldom(envelope)
    row = [position, *_always(envelope), bytearray(envelope.data)]
    with_seldom, with_stream = seldom != _NONE_OF_THEM, version is not None
    if with_seldom:
        row += seldom
    if with_stream:
        row += (stream, version)
    sql = _insert(with_seldom=with_seldom, with_stream=with_stream)
    if sql in rows:
        rows[sql].append(row)
    else:
        rows[sql] = [row]


def has_seldom(envelope: Envelope) -> bool:
    """True where the envelope has one of the attributes that most do not have."""
    return bool(_seldom(envelope) != _NONE_OF_THEM)


def unplaced(envelope: Envelope, *, with_seldom: bool) -> list[Any]:
    """The values of an envelope whose position SQLite gives, without stream and version."""
    row = [*_always(envelope), bytearray(envelope.data)]
    if with_seldom:
        row += _seldom(envelope)
    return row


@cache
def columns(*, with_seldom: bool, with_stream: bool) -> tuple[str, ...]:
    """The columns of `unplaced`, and then those of the stream."""
    stream = ("stream", "version") if with_stream else ()
    return (*_ALWAYS, "data", *(_SELDOM if with_seldom else ()), *stream)


@cache
def _insert(*, with_seldom: bool, with_stream: bool) -> str:
    names = ("position", *columns(with_seldom=with_seldom, with_stream=with_stream))
    return f"INSERT INTO tidings_log ({','.join(names)}) VALUES ({','.join('?' * len(names))})"
