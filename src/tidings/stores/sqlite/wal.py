"""The WAL: when what was committed to it is copied into the database, and it is started anew."""

from __future__ import annotations

import contextlib
import sqlite3

from tidings.stores.sqlite.connection import impatient

PASSIVE_AFTER = 4 << 20
"""Bytes of WAL, estimated, after which a checkpoint copies what no reader needs any more."""
TRUNCATE_AFTER = 64 << 20
"""Bytes of WAL after which a checkpoint waits a little for readers, to start the file anew."""
COMMIT, CHANGE = 9_000, 900
"""Bytes of WAL that a commit, and each row in it, are estimated to take."""
_PAGE = 4096
_MOST_SLACK = 4.0
"""Up to how many times too high an estimate is believed to be: rows that change again and again take one page."""


class Wal:
    """Knows when a checkpoint is due, and makes it.

    Attributes:
        written: Bytes, estimated, since the last one; whoever commits adds to it.
        most: Of these, after which one is due: more where the last one found the estimate too high.
    """

    def __init__(self) -> None:
        """Nothing was written yet."""
        self.written = 0
        self.most = PASSIVE_AFTER

    @property
    def is_due(self) -> bool:
        """True when enough was written since the last checkpoint."""
        return self.written > self.most

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy the WAL into the database as far as readers allow; start it anew when it grew large."""
        estimated, self.written = self.written, 0
        try:
            _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            slack = min(_MOST_SLACK, max(1.0, estimated / max(1, frames * _PAGE)))
            self.most = int(PASSIVE_AFTER * slack)
            if frames * _PAGE > TRUNCATE_AFTER:
                connection.execute("PRAGMA busy_timeout = 250")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:  # the next one may do better; the WAL keeps everything
            pass
        finally:
            with contextlib.suppress(sqlite3.Error):
                impatient(connection)
