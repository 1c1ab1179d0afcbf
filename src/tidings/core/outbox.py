"""The outbox: what transactions of the user's own publish waits in it, as rows, until the relay moves it to the log."""

from __future__ import annotations

from typing import Any

import msgspec

from tidings.core.envelope import Envelope
from tidings.core.operations import Held

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode

COLUMNS = ("id", "source", "key", "time", "envelope")
"""What is written of a row; the database gives its number."""

MOST_BYTES = 4_000_000
"""Of envelopes that are moved at once; a single one may be larger."""

Row = tuple[str, str, str | None, int, bytes]


class OutboxTable(msgspec.Struct, frozen=True):
    """Where it is.

    Attributes:
        name: As SQL names it, with its schema where there are several.
        dialect: "sqlite", "postgresql": what others call the kind of database.
        place: Of the store, for messages.
        file: Absolute path of the database file, None on a server.
    """

    name: str
    dialect: str
    place: str
    file: str | None = None


def row_of(envelope: Envelope) -> Row:
    """An envelope as values for COLUMNS."""
    return envelope.id, envelope.source, envelope.key, envelope.time, _encode(envelope)


def taken_of(number: int, *row: Any) -> Envelope | Held:
    """The envelope in a row; or, where it is not there any more, the row itself as a dead letter, with its bytes.

    Args:
        number: Of the row.
        row: Its `Row`.
    """
    id, source, key, time, data = row
    try:
        envelope = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = f"Unreadable: {error}"
    else:
        if (envelope.id, envelope.source, envelope.key, envelope.time) == (id, source, key, time):
            return envelope
        reason = "Unreadable: the columns of the row and its envelope differ"
    raw = Envelope(0, id, source, "unreadable", 1, None, key, 0, None, None, time, None, None, None, None, data)
    return refused(raw, number, reason)


def refused(envelope: Envelope, number: int, reason: str) -> Held:
    """What becomes of an envelope that the log does not take: it was committed, so it must not vanish.

    Args:
        envelope: From the outbox.
        number: Of its row.
        reason: Why, in one line.
    """
    group = f"{envelope.source}.outbox"
    return Held(0, group, -number, "dead", 0, 0, envelope, reason, since=envelope.time)
