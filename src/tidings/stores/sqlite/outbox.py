"""Moving the outbox to the log."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tidings.core.envelope import Envelope
from tidings.core.operations import Append, Appended, Held, Settle, Ship
from tidings.core.outbox import COLUMNS, MOST_BYTES, OutboxTable, refused, taken_of
from tidings.errors import IdConflict, UsageError
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.held import settle
from tidings.stores.sqlite.log import append

_OLDEST = f"SELECT number, {', '.join(COLUMNS)} FROM tidings_outbox ORDER BY number LIMIT ?"


def table(path: str) -> OutboxTable:
    """Where the outbox of a file is.

    Raises:
        UsageError: It is in memory, where no other connection gets to.
    """
    if not path:
        cure = "use a file, or `app.transaction()`, which needs no other connection"
        raise UsageError("a store in memory has no outbox for the connections of others", cure)
    return OutboxTable("tidings_outbox", "sqlite", f"sqlite:{path}", str(Path(path).resolve()))


def ship(changes: Changes, op: Ship) -> Appended:
    """Move rows to the log, oldest first."""
    changes.flush()
    careful, changes.careful = changes.careful, True  # their ids may be in the log already
    positions = []
    try:
        for number, each in _take(changes.connection, op.limit):
            if isinstance(each, Held):
                held = each
            else:
                try:
                    positions.append(append(changes, Append((each,))).position)
                    changes.flush()  # the next one may have the same id
                    continue
                except IdConflict as error:
                    held = refused(each, number, error.what)
            settle(changes, Settle(held.group, {}, hold=(held,)))
            positions.append(0)
    finally:
        changes.careful = careful
    return Appended(tuple(positions))


def _take(connection: sqlite3.Connection, limit: int) -> list[tuple[int, Envelope | Held]]:
    """Remove the oldest rows; returns them."""
    taken: list[tuple[int, Envelope | Held]] = []
    size = 0
    for number, *row in connection.execute(_OLDEST, (limit,)):
        size += len(row[-1])
        if taken and size > MOST_BYTES:
            break
        taken.append((number, taken_of(number, *row)))
    if taken:
        connection.execute("DELETE FROM tidings_outbox WHERE number <= ?", (taken[-1][0],))
    return taken
