"""The ids of the log: whether one is known already.

An index of the log itself would cost each commit a page of its own, and so a second frame in the WAL. The table
`tidings_id` follows the log instead: it is led up to the end of the log before an id is looked up, in the commit of an
append whose ids somebody gave, and where the log has run ahead of it. Ids that were made up a moment ago are in
nobody's hands, and need no look.
"""

from __future__ import annotations

import sqlite3

MOST_BEHIND = 512
"""Rows by which the log may run ahead of the table; the next commit then leads it up."""

_INDEXED = "SELECT CAST(value AS INTEGER) FROM tidings_meta WHERE name = 'indexed'"
_NOTE = "UPDATE tidings_meta SET value = ? WHERE name = 'indexed'"
_ROWS = "INTO tidings_id SELECT id, source, position FROM tidings_log WHERE position > ? AND position <= ?"


class Ids:
    """How far the table of ids follows the log, in the transaction under way.

    It never gets shorter, so that what was committed once is a lower bound for ever, whoever writes.

    Attributes:
        followed: Position up to which the table has all ids, as far as we know.
    """

    __slots__ = ("_committed", "_noted", "followed")

    def __init__(self) -> None:
        """Nothing is known yet; the file knows."""
        self.followed = self._committed = self._noted = 0

    def forget(self) -> None:
        """A transaction begins, or something was undone."""
        self.followed = self._committed

    def committed(self) -> None:
        """What was followed is in the file."""
        self._committed = self.followed

    def is_due(self, head: int) -> bool:
        """True when the log, which ends at `head`, is far ahead as far as we know."""
        return head - self.followed >= MOST_BEHIND

    def keep_up(self, connection: sqlite3.Connection, head: int) -> None:
        """Follow if the log is far ahead."""
        if self.is_due(head):
            self._ask(connection)
            if self.is_due(head):
                self.follow(connection, head, head)

    def follow(self, connection: sqlite3.Connection, checked: int, head: int) -> None:
        """Lead the table up to the end of the log.

        Args:
            connection: Inside a transaction.
            checked: Position up to which nobody is to be told of an id that is there twice.
            head: Last position of the log.

        Raises:
            sqlite3.IntegrityError: A row beyond `checked` has an id that is in the log already.
        """
        if self.is_due(head):
            self._ask(connection)
        if self.followed < checked:
            connection.execute(f"INSERT OR IGNORE {_ROWS}", (self.followed, checked))
        if checked < head and self.followed < head:
            connection.execute(f"INSERT {_ROWS}", (max(self.followed, checked), head))
        self.followed = max(self.followed, head)
        if head - self._noted >= MOST_BEHIND:
            connection.execute(_NOTE, (head,))
            self._noted = head

    def _ask(self, connection: sqlite3.Connection) -> None:
        """What others have done meanwhile."""
        self._noted = connection.execute(_INDEXED).fetchone()[0]
        self.followed = max(self.followed, self._noted)
