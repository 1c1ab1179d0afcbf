"""Appending to the log: positions, stream versions, ids seen before, current states, timers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from tidings.core.envelope import STATES, Envelope
from tidings.core.operations import ANY, Append, Appended, Fire
from tidings.errors import BadArgument, IdConflict, TidingsError, WrongVersion
from tidings.stores.postgres.arrays import blobs, integers, texts
from tidings.stores.postgres.fresh import expected_of, placed
from tidings.stores.postgres.steps import Encoded, Statement, Steps, rows, value

NOTHING = Appended(())
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode

_APPEND = (
    "SELECT place, at, number, refused "
    "FROM tidings_append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18)"
)
_APPEND_ONE = "SELECT at, number FROM tidings_append_one($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15)"
_APPEND_FORMATS, _ONE_FORMATS = [0] * 16 + [1] * 2, [0] * 13 + [1] * 2
_WAITING = "SELECT envelope FROM tidings_timer WHERE id = $1 AND source = $2"
_STORED = "SELECT position, type, key, data FROM tidings_log WHERE id = $1 AND source = $2"


def check(op: Append) -> None:
    """Refuse what cannot be asked for.

    Raises:
        BadArgument: A version is expected of no stream, or of one at a later time.
    """
    if op.expected != ANY and op.due is not None:
        raise BadArgument(f"expected={op.expected} with a due time", "a later append cannot expect a version")
    if op.expected != ANY and any(envelope.stream is None for envelope in op.envelopes):
        raise BadArgument(f"expected={op.expected} without a stream", "name the stream, or leave `expected` out")


def appending(appends: Sequence[Append], *, strict: bool) -> Statement:
    """The statement that appends them all; `strict` refuses all of them where it refuses one."""
    envelopes = [envelope for append in appends for envelope in append.envelopes]
    texts_ = (
        "true" if strict else "false",
        integers([number for number, append in enumerate(appends) for _ in append.envelopes]),
        integers([expected for append in appends for expected in expected_of(append)]),
        texts([each.id for each in envelopes]),
        texts([each.source for each in envelopes]),
        texts([each.type for each in envelopes]),
        integers([each.schema for each in envelopes]),
        texts([each.topic for each in envelopes]),
        texts([each.key for each in envelopes]),
        integers([each.slot for each in envelopes]),
        texts([each.stream for each in envelopes]),
        integers([each.version for each in envelopes]),
        integers([each.time for each in envelopes]),
        texts([each.correlation for each in envelopes]),
        texts([each.causation for each in envelopes]),
        texts([each.traceparent for each in envelopes]),
    )
    blobs_ = blobs([each.headers for each in envelopes]), blobs([each.data for each in envelopes])
    return _APPEND, Encoded([*[text.encode() for text in texts_], *blobs_], _APPEND_FORMATS)


def is_plain(op: Append) -> bool:
    """True of one event, which is appended most: there is a shorter way for it."""
    if len(op.envelopes) != 1 or op.due is not None:
        return False
    [each] = op.envelopes
    if each.stream is None:
        return op.expected == ANY
    return each.version is None and not each.stream.startswith(STATES)


def append_plain(op: Append) -> Steps[Appended | TidingsError]:
    """Append such a one. It is a transaction by itself, if it is in no other."""
    each = op.envelopes[0]
    texts_ = (
        each.id,
        each.source,
        each.type,
        str(each.schema),
        each.topic,
        each.key,
        str(each.slot),
        str(each.time),
        each.correlation,
        each.causation,
        each.traceparent,
        each.stream,
        str(op.expected),
    )
    values = [None if text is None else text.encode() for text in texts_]
    [result] = yield [(_APPEND_ONE, Encoded([*values, each.headers, each.data], _ONE_FORMATS))]
    position, version = result.rows[0]
    if position is not None:
        return Appended((position,), version)
    [result] = yield [appending([op], strict=False)]
    [done] = appended([op], result.rows)
    return done


def appended(appends: Sequence[Append], found: Sequence[tuple[Any, ...]]) -> list[Appended | TidingsError]:
    """What became of each append, from the rows of `appending`."""
    if found and found[0][0] == 0:  # all of them, behind each other
        following = itertools.count(found[0][1] + 1)
        return [placed(append, itertools.islice(following, len(append.envelopes))) for append in appends]
    places = {row[0]: row for row in found}
    done: list[Appended | TidingsError] = []
    place = 0
    for append in appends:
        mine = [places.get(place + offset + 1) for offset in range(len(append.envelopes))]
        refusal = next((row for row in mine if row is not None and row[3] is not None), None)
        if refusal is not None:
            done.append(_refusal(append.envelopes[refusal[0] - place - 1], append.expected, *refusal[1:]))
        else:
            positions = tuple(row[1] for row in mine if row is not None)
            done.append(Appended(positions, mine[-1][2] if mine and mine[-1] else None))
        place += len(append.envelopes)
    return done


def _refusal(envelope: Envelope, expected: int, at: int | None, number: int | None, reason: str) -> TidingsError:
    if reason == "version":
        return wrong_version(envelope.stream, expected, number or 0)
    return id_conflict(envelope, f"at position {at}" if at else "in the same append")


def wrong_version(stream: str | None, expected: int, actual: int) -> WrongVersion:
    """Somebody else appended to the stream."""
    return WrongVersion(
        f"stream {stream!r} is at version {actual}, not {expected}",
        "load it again and decide anew",
        stream=stream,
        expected=expected,
        actual=actual,
    )


def id_conflict(envelope: Envelope, place: str) -> IdConflict:
    """An id stands for other content already."""
    return IdConflict(
        f"id {envelope.id!r} from {envelope.source!r} is taken {place} by another {envelope.type}",
        "use a new id for a new message; the same id only for the very same message",
        id=envelope.id,
        source=envelope.source,
    )


def append(op: Append) -> Steps[Appended]:
    """Append envelopes now, or keep them until they are due."""
    check(op)
    if not op.envelopes:
        return NOTHING
    if op.due is not None:
        return (yield from _schedule(op))
    if is_plain(op):
        done = yield from append_plain(op)
    else:
        [result] = yield [appending([op], strict=False)]
        [done] = appended([op], result.rows)
    if isinstance(done, TidingsError):
        raise done
    return done


# ---- timers ----------------------------------------------------------------------------------------------------------


def _schedule(op: Append) -> Steps[Appended]:
    results = yield [
        statement
        for envelope in op.envelopes
        for statement in ((_STORED, (envelope.id, envelope.source)), (_WAITING, (envelope.id, envelope.source)))
    ]
    positions: list[int] = []
    waiting: list[Statement] = []
    for envelope, stored, timer in zip(op.envelopes, results[::2], results[1::2], strict=True):
        known = stored.rows[0] if stored.rows else None
        if known and (envelope.type, envelope.key, envelope.data) != known[1:]:
            raise id_conflict(envelope, f"at position {known[0]}")
        if timer.rows:
            other = _decode(timer.rows[0][0])
            if (envelope.type, envelope.key, envelope.data) != (other.type, other.key, other.data):
                raise id_conflict(envelope, "in a timer")
        positions.append(known[0] if known else 0)
        if not known and not timer.rows:
            later = _encode(msgspec.structs.replace(envelope, time=op.due))
            sql = "INSERT INTO tidings_timer (due, id, source, envelope) VALUES ($1,$2,$3,$4) ON CONFLICT DO NOTHING"
            waiting.append((sql, (op.due, envelope.id, envelope.source, later)))
    if waiting:
        yield waiting
    return Appended(tuple(positions))


def fire(op: Fire) -> Steps[int | None]:
    """Move timers that are due to the log, earliest first."""
    due = yield from rows(
        "SELECT number, envelope FROM tidings_timer WHERE due <= $1 ORDER BY due, number LIMIT $2 "
        "FOR UPDATE SKIP LOCKED",
        op.now,
        op.limit,
    )
    if due:
        yield from rows("DELETE FROM tidings_timer WHERE number = ANY ($1)", [number for number, _ in due])
        appends = [Append([_decode(envelope)]) for _, envelope in due]
        yield [appending(appends, strict=False)]  # refused is what was published with other content meanwhile
    following: int | None = yield from value("SELECT min(due) FROM tidings_timer")
    return following


def refusal_of(code: str, detail: str | None) -> TidingsError:
    """The refusal that the database raised for a whole transaction."""
    facts = json.loads(detail or "{}")
    if code == "TD301":
        return wrong_version(facts["stream"], facts["expected"], facts["actual"])
    return IdConflict(
        f"id {facts['id']!r} from {facts['source']!r} is taken by another {facts['type']}",
        "use a new id for a new message; the same id only for the very same message",
        id=facts["id"],
        source=facts["source"],
    )
