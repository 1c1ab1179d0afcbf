"""One transaction's changes: what it has read once, and what it will write in one go."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidings.core.operations import ANY, Append, Appended, Op
from tidings.errors import StoreGone
from tidings.stores.news import UNKNOWN, News, news_of
from tidings.stores.sqlite.ids import Ids
from tidings.stores.sqlite.presence import Presence
from tidings.stores.sqlite.rows import Rows

UPSERT_STATE = (
    "INSERT INTO tidings_state VALUES (?,?,?,?,?,?) ON CONFLICT (type, key) DO UPDATE SET "
    "version = excluded.version, position = excluded.position, time = excluded.time, data = excluded.data"
)
_NEVER = 2**62
"""A position that no log reaches."""
_MOST_STREAMS = 10_000
"""Streams of which is known how far they got."""


class Changes:
    """State of a transaction under way on the write connection.

    Appends of many callers become one `executemany`; so rows wait in `rows` until `flush`. Nothing but an id that is
    known, or a value SQLite cannot store, can make a flush fail; then the whole batch is rolled back and each operation
    is applied again, `careful`.

    Attributes:
        connection: The write connection, inside a transaction.
        now: Lease clock, seconds.
        presence: Says which members live.
        ids: Tells whether an id is known.
        careful: Look ids up before inserting them, and insert at once.
        rows: Log rows to insert, by statement.
        given: True when the ids of some of them may be known, so that the flush has to see.
        states: (type, key) -> row of the table of current states.
        versions: Stream -> version after the rows so far.
        end: Last position that was committed here, and all before it by whoever; the log never ends before it again.
        grew: True when waiting readers have a reason to look.
        reached: Stream -> a version that it has, for some of those that grew here; no stream ever gets shorter.
        unmarked: Groups that have no marks, as far as this process knows.
        volatile: True for a store in memory, which forgets what nobody will read again.
    """

    __slots__ = (
        "_checked",
        "_head",
        "_written",
        "careful",
        "connection",
        "end",
        "given",
        "grew",
        "ids",
        "now",
        "presence",
        "reached",
        "rows",
        "states",
        "unmarked",
        "versions",
        "volatile",
    )

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], float], presence: Presence) -> None:
        """Args: connection: where. now: the lease clock. presence: who lives."""
        self.connection = connection
        self.now = now
        self.presence = presence
        self.ids = Ids()
        self.careful = self.given = False
        self.rows: Rows = {}
        self.states: dict[tuple[str, str], tuple[Any, ...]] = {}
        self.versions: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.unmarked: set[str] = set()
        self.grew = False
        self.volatile = False
        self._head: int | None = None
        self.end = self._written = self._checked = 0

    def forget(self) -> None:
        """Start anew: a transaction begins, or something was undone."""
        self._head = None
        self.given = False
        self.ids.forget()
        self.rows.clear()
        self.states.clear()
        self.versions.clear()

    def committed(self) -> None:
        """Remember how far the log and its streams go now; they never end before that again."""
        if self._head is not None and self._head > self.end:
            self.end = self._head
        if self.versions:
            self.remember(self.versions)
        self.ids.committed()

    def remember(self, versions: Mapping[str, int]) -> None:
        """Note how far streams have got. Args: versions: stream -> version."""
        if len(self.reached) >= _MOST_STREAMS:
            self.reached.clear()
        self.reached.update(versions)

    def keep_up(self) -> None:
        """Lead the table of ids up, if the log has grown and is far ahead of it; the commit follows."""
        if self._head is not None:
            self.ids.keep_up(self.connection, self._head)

    def follow(self) -> None:
        """Lead the table of ids up to the last row that was flushed, before one is looked up."""
        self.ids.follow(self.connection, self.head, self.head)

    def appended(self, op: Append, last: int) -> Appended:
        """Note an append that was a commit by itself, and whose last row stands there.

        Raises:
            StoreGone: They stand where others were written before.
        """
        count, version = len(op.envelopes), None
        first = last - count + 1
        if first <= self.end:
            raise self._older(first - 1)
        self.end = last
        if op.expected != ANY:
            version = op.expected + count
            self.remember({op.envelopes[0].stream or "": version})
        return Appended((last,) if count == 1 else tuple(range(first, last + 1)), version)

    def news(self, ops: Sequence[Op], outcomes: Sequence[tuple[Any, BaseException | None]]) -> News:
        """What to tell readers of operations that were just committed."""
        envelopes, positions = news_of(ops, outcomes) or UNKNOWN
        return (envelopes, positions) if positions and positions[-1] == self.end else UNKNOWN

    @property
    def head(self) -> int:
        """Last position of the log, rows not yet flushed included."""
        if self._head is None:
            row = self.connection.execute("SELECT max(position) FROM tidings_log").fetchone()
            self._head = self._checked = row[0] or 0
            if self._head < self.end:
                raise self._older(self._head)
        return self._head

    @head.setter
    def head(self, position: int) -> None:
        self._head = position

    def flush(self) -> None:
        """Write the rows that wait."""
        if self.rows:
            for sql, rows in self.rows.items():
                if len(rows) == 1:
                    self.connection.execute(sql, rows[0])
                else:
                    self.connection.executemany(sql, rows)
            self.rows.clear()
            self.grew = True
            if self.given:
                self.given = False
                self.ids.follow(self.connection, self._checked, self.head)
                self._checked = self.head
        if self.states:
            self.connection.executemany(UPSERT_STATE, self.states.values())
            self.states.clear()

    def _older(self, head: int) -> StoreGone:
        """What to raise from now on: an older copy of the file is in its place."""
        if self.end != _NEVER:
            self._written, self.end = self.end, _NEVER
        return StoreGone(
            f"the log ended at position {head:,}, but position {self._written:,} was written to it",
            "an older copy took the file's place: stop every process that uses it, restore it, and start again",
            head=head,
            written=self._written,
        )
