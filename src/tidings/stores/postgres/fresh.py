"""Appending what is new behind what this process appended last: one INSERT, in place of a function.

The functions look at ids and versions with care, and undo what surprised them. Here nothing can: ids are new, and where
somebody else appended meanwhile, or a version is not the expected one, nothing is inserted. Then the functions have a
closer look.

These statements see the log as it was before they had its lock. Where the next place turns out to be free, that is the
log of now, for positions have no holes; where it is not, nothing is inserted. That the place before it is taken need
not be looked at each time, which costs a twentieth of a lone append: this very session has appended there. A look now
and then is for what nobody may do, and somebody will: put back an older log under a process that appends to it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, TypeGuard

import msgspec

from tidings.core.envelope import STATES
from tidings.core.operations import ANY, Append, Appended, Op
from tidings.stores.postgres.arrays import blobs, integers, texts
from tidings.stores.postgres.steps import Encoded, Statement

_NOBODY_ELSE = "pg_advisory_xact_lock(1953063785, 'tidings_log'::regclass::oid::integer) IS NOT NULL"
_LOOKS = ("", "AND EXISTS (SELECT FROM tidings_log WHERE position = $1)")
_VERSION = "(SELECT coalesce(max(version), 0) FROM tidings_log WHERE stream = {0} AND version >= {1})"
"""Of a stream only what is not older than the expected version is read."""

_ONE = [
    f"""
    INSERT INTO tidings_log
    SELECT $1::bigint + 1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL::bigint, $9, $10, $11, $12, $13, $14
    WHERE {_NOBODY_ELSE} {look}
    ON CONFLICT (position) DO NOTHING
    """
    for look in _LOOKS
]
_ONE_OF_STREAM = [
    f"""
    INSERT INTO tidings_log
    SELECT $1::bigint + 1, $2, $3, $4, $5, $6, $7, $8, $15::text, $16::bigint + 1, $9, $10, $11, $12, $13, $14
    WHERE {_NOBODY_ELSE} {look} AND $16 = {_VERSION.format("$15", "$16")}
    ON CONFLICT (position) DO NOTHING
    """
    for look in _LOOKS
]
"""Statements of their own: to be ready to look at versions costs the server a tenth, where there is no stream too."""
_ONE_FORMATS = [1, 1, 1, 1, 0, 1, 1, 0, *[1] * 6]
_ONE_OF_STREAM_FORMATS = [*_ONE_FORMATS, 1, 1]
_BIGINT = Struct(">q").pack
_NO_CONTEXT = (None, None, None)

_COLUMNS = ("type text", "schema integer", "topic text", "key text", "slot integer", "stream text", "expected bigint")
"""What each of several rows has for itself, or all have in common: parameters 10 to 16."""
_SEVERAL_FORMATS = [0] * 5 + [1, 0, 0, 1] + [0] * (len(_COLUMNS) + 2)


def following(ops: Sequence[Op], last: int, *, look: bool) -> Statement | None:
    """Append messages behind position `last`, if nobody else did and streams are at their expected versions.

    Args:
        ops: What to append.
        last: Where the session on which this runs has appended last.
        look: Whether that is still there.

    Returns:
        A statement that changes rows, or none if it cannot; None where only the functions can append them.
    """
    if not _are_new(ops):
        return None
    if len(ops) == 1 and len(ops[0].envelopes) == 1:
        return _one(ops[0], last, look=look)
    return _several(ops, last, look=look)


def placed(op: Append, positions: Iterable[int]) -> Appended:
    """What became of an append. Args: positions: of its envelopes."""
    return Appended(tuple(positions), None if op.expected == ANY else op.expected + len(op.envelopes))


def _are_new(ops: Sequence[Op]) -> TypeGuard[Sequence[Append]]:
    """True of messages without a stream, or events of one stream at an expected version, whose ids are new."""
    for op in ops:
        if type(op) is not Append or not op.fresh or op.due is not None or not op.envelopes:
            return False
        stream = op.envelopes[0].stream
        if (op.expected != ANY) if stream is None else (op.expected == ANY or stream.startswith(STATES)):
            return False
    return True


def _one(op: Append, last: int, *, look: bool) -> Statement:
    [each] = op.envelopes
    # Without calls where there are none to be had: after a wait for the server each takes about a microsecond.
    topic, key, stream = each.topic, each.key, each.stream
    context = each.correlation, each.causation, each.traceparent
    values = (
        _BIGINT(last),
        each.id.encode(),
        each.source.encode(),
        each.type.encode(),
        b"%d" % each.schema,
        None if topic is None else topic.encode(),
        None if key is None else key.encode(),
        b"%d" % each.slot,
        _BIGINT(each.time),
        *(context if context == _NO_CONTEXT else map(_encoded, context)),
        each.headers,
        each.data,
    )
    if stream is None:
        return _ONE[look], Encoded(values, _ONE_FORMATS)
    return _ONE_OF_STREAM[look], Encoded((*values, stream.encode(), _BIGINT(op.expected)), _ONE_OF_STREAM_FORMATS)


def _several(appends: Sequence[Append], last: int, *, look: bool) -> Statement | None:
    rows = [msgspec.structs.astuple(each) for append in appends for each in append.envelopes]
    _, ids, sources, types, schemas, topics, keys, slots, streams, versions, times, *context, headers, datas = zip(
        *rows, strict=True
    )
    known = {append.envelopes[0].stream: append.expected for append in appends if append.expected != ANY}
    apart = bool(known) and len(appends) > 1
    if apart and (len(known) < sum(op.expected != ANY for op in appends) or not all(map(_is_of_one_stream, appends))):
        return None
    if (_differ(streams) and not apart) or any(map(_differ, (sources, versions, *context, headers))) or versions[0]:
        return None
    own_kind, own_key = _differ(types) or _differ(schemas) or _differ(topics), _differ(keys) or _differ(slots)
    expected = [number for append in appends for number in expected_of(append)] if apart else ()
    values = [
        b"%d" % last,
        sources[0].encode(),
        *[_encoded(column[0]) for column in context],
        headers[0],
        texts(ids).encode(),
        integers(times).encode(),
        blobs(datas),
        texts(types).encode() if own_kind else types[0].encode(),
        integers(schemas).encode() if own_kind else b"%d" % schemas[0],
        texts(topics).encode() if own_kind else _encoded(topics[0]),
        texts(keys).encode() if own_key else _encoded(keys[0]),
        integers(slots).encode() if own_key else b"%d" % slots[0],
        texts(streams).encode() if apart else _encoded(streams[0]),
        integers(expected).encode() if apart else b"%d" % appends[0].expected if known else None,
    ]
    if apart:
        values += texts(list(known)).encode(), integers(known.values()).encode()
    sql = _statement(own_kind=own_kind, own_key=own_key, own_stream=apart, in_stream=bool(known), look=look)
    return sql, Encoded(values, _SEVERAL_FORMATS[: len(values)])


_ROW = (
    "$1::bigint + {place}, {id}, $2, {type}, {schema}, {topic}, {key}, {slot}, {stream}, {expected} + {step}, {time}, "
    "$3, $4, $5, $6::bytea, {data}"
)


@functools.cache
def _statement(*, own_kind: bool, own_key: bool, own_stream: bool, in_stream: bool, look: bool) -> str:
    """Append several rows. To read an array costs as much as a row: what all have in common is sent once.

    The first row is inserted by itself: where its place is taken, the others must not be inserted behind it.
    """
    own = [own_kind] * 3 + [own_key] * 2 + [own_stream] * 2
    arrays = {"id": "$7::text[]", "time": "$8::bigint[]", "data": "$9::bytea[]"}
    shared = {}
    for number, (column, is_own) in enumerate(zip(_COLUMNS, own, strict=True), 10):
        name, kind = column.split()
        if is_own:
            arrays[name] = f"${number}::{kind}[]"
        else:
            shared[name] = f"${number}::{kind}"
    first = {name: f"({array})[1]" for name, array in arrays.items()} | shared
    other = {name: name for name in arrays} | shared
    if own_stream:
        wrong = f"number <> {_VERSION.format('name', 'number')}"
        is_right = f"NOT EXISTS (SELECT FROM unnest($17::text[], $18::bigint[]) AS known (name, number) WHERE {wrong})"
    elif in_stream:
        is_right = "{expected} = {version}".format(
            version=_VERSION.format(shared["stream"], shared["expected"]), **shared
        )
    else:
        is_right = "TRUE"
    return f"""
        WITH first AS (
            INSERT INTO tidings_log SELECT {_ROW.format(place=1, step=1, **first)}
            WHERE {_NOBODY_ELSE} {_LOOKS[look]} AND {is_right}
            ON CONFLICT (position) DO NOTHING RETURNING position
        )
        INSERT INTO tidings_log SELECT {_ROW.format(place="place", step=1 if own_stream else "place", **other)}
        FROM first, unnest({", ".join(arrays.values())}) WITH ORDINALITY AS new ({", ".join(arrays)}, place)
        WHERE place > 1
    """


def expected_of(append: Append) -> Sequence[int | None]:
    """For each envelope the version its stream must have just before it; None without a stream."""
    if append.expected == ANY:
        return [None if each.stream is None else ANY for each in append.envelopes]
    return range(append.expected, append.expected + len(append.envelopes))


def _is_of_one_stream(append: Append) -> bool:
    return not _differ([each.stream for each in append.envelopes])


def _differ(values: Sequence[Any]) -> bool:
    return values.count(values[0]) < len(values)


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
