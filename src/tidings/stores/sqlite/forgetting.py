"""Forgetting: a store in memory lets go of what all its groups have finished, so that it may run for ever."""

from __future__ import annotations

from tidings.core.envelope import STATES
from tidings.stores.sqlite.changes import Changes

KEPT = 10_000
"""Messages at the end of the log that stay: one of them that comes again is known, and a trace can be followed."""
MOST = 50_000
"""Messages that are forgotten at once, at most; the next beat goes on."""

_FORGOTTEN = "SELECT ifnull(max(CAST(value AS INTEGER)), 0) FROM tidings_meta WHERE name = 'forgotten'"
_NOTE = "INSERT OR REPLACE INTO tidings_meta VALUES ('forgotten', ?)"
_FINISHED = "SELECT min(checkpoint) FROM tidings_slot"
_IS_READ_AGAIN = "SELECT EXISTS (SELECT 1 FROM tidings_group WHERE tables != '[]')"
_THESE = f"FROM tidings_log WHERE position > ? AND position <= ? AND (stream IS NULL OR stream GLOB '{STATES}*')"
_FORGET = (f"DELETE FROM tidings_id WHERE (id, source) IN (SELECT id, source {_THESE})", f"DELETE {_THESE}")


def forget(changes: Changes) -> None:
    """Remove the oldest messages that nobody will read again, from a store in memory.

    Streams of deciders stay, as they are read from their beginning, and so does everything where a group has tables: a
    rebuild reads it all. What is held, and the newest state of each key, stands in tables of its own.
    """
    if not changes.volatile:
        return
    connection = changes.connection
    before = connection.execute(_FORGOTTEN).fetchone()[0]
    finished = connection.execute(_FINISHED).fetchone()[0] or 0
    until = min(finished, changes.head - KEPT, before + MOST)
    if until <= before or connection.execute(_IS_READ_AGAIN).fetchone()[0]:
        return
    changes.follow()
    for statement in _FORGET:
        connection.execute(statement, (before, until))
    connection.execute(_NOTE, (until,))
