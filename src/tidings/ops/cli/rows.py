"""Events and held deliveries as rows of output. Data stays what was stored, number for number."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.operations import Held
from tidings.ops.cli.text import iso, lines, one_line, safe_json

EVENT_COLUMNS = {"position": "position", "time": "time", "type": "type", "key": "key", "id": "id", "data": "data"}
HELD_COLUMNS = {
    "id": "id",
    "group": "group",
    "type": "type",
    "key": "key",
    "attempt": "attempts",
    "since": "since",
    "reason": "reason",
}


def event_row(envelope: Envelope) -> dict[str, Any]:
    """An event; `data` holds its JSON, or `data_base64` the bytes that are none (as in CloudEvents' own format)."""
    row: dict[str, Any] = {
        "position": envelope.position,
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "schema": envelope.schema,
        "topic": envelope.topic,
        "key": envelope.key,
        "stream": envelope.stream,
        "version": envelope.version,
        "time": iso(envelope.time),
        "conversation": envelope.conversation,
        "causation": envelope.causation,
        "traceparent": envelope.traceparent,
        "headers": json_or_none(envelope.headers or b""),
        "data": json_or_none(envelope.data),
    }
    if row["data"] is None and envelope.data:
        row["data_base64"] = base64.b64encode(envelope.data).decode()
    return row


def held_row(held: Held) -> dict[str, Any]:
    """A held delivery, with the event in it."""
    return {
        "id": held.id,
        "group": held.group,
        "state": held.state,
        "type": held.envelope.type,
        "key": held.envelope.key,
        "attempt": held.attempt,
        "reason": held.reason,
        "since": iso(held.since),
        "due": iso(held.due) if held.state == "retry" and held.due else None,
        "history": list(held.history),
        "traceback": held.traceback,
        "event": event_row(held.envelope),
    }


def json_or_none(data: bytes) -> msgspec.Raw | None:
    """Bytes as JSON on one line, every number as it was written; None where they are no JSON."""
    try:
        data.decode()
        return msgspec.Raw(msgspec.json.format(data, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def event_text(envelope: Envelope) -> Iterator[str]:
    """An event for people, line by line."""
    row = event_row(envelope)
    for name in ("type", "schema", "key", "position", "time", "topic", "stream", "version", "id", "source"):
        if row[name] is not None:
            yield f"{name:<13} {one_line(row[name])}"
    for name in ("conversation", "causation", "traceparent"):
        if row[name] is not None and row[name] != envelope.id:
            yield f"{name:<13} {one_line(row[name])}"
    if envelope.headers:
        yield f"{'headers':<13} {one_line(envelope.headers.decode(errors='replace'), 2000)}"
    yield ""
    yield from data_text(envelope.data)


def data_text(data: bytes) -> Iterator[str]:
    """A message's data for people: indented JSON, or what the bytes look like."""
    if not data:
        yield "(no data: the record is gone)"
    elif json_or_none(data) is None:
        yield f"({len(data):,} bytes that are not JSON)"
        yield one_line(data.decode(errors="backslashreplace"), 2000)
    else:
        yield from lines(safe_json(msgspec.json.format(data, indent=2).decode()))


def held_text(held: Held) -> Iterator[str]:
    """A held delivery for people: what failed, how often, why, and the event itself."""
    yield f"{'delivery':<13} {held.id} ({held.state}) of group {one_line(held.group)}"
    yield f"{'attempts':<13} {held.attempt}"
    yield f"{'since':<13} {iso(held.since)}"
    yield f"{'reason':<13} {one_line(held.reason, 2000)}"
    yield ""
    yield from event_text(held.envelope)
    if held.history:
        yield ""
        yield "attempts:"
        yield from (f"  {one_line(line, 2000)}" for line in held.history)
    if held.traceback:
        yield ""
        yield from lines(held.traceback)
