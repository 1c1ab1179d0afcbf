"""The original files: nothing is acknowledged once others have taken their place."""

from __future__ import annotations

import os
import time

_LOOK_EVERY = 0.2


class Originals:
    """The files that were opened: tells when others, or none, are in their place."""

    def __init__(self, path: str) -> None:
        """Args: path: of the database, open and with a WAL."""
        self._path = path
        self._wal = f"{path}-wal"
        self._file_id = _identity(path)
        self._wal_id = _identity(self._wal)
        self._looked = time.monotonic()

    def lost(self) -> str | None:
        """The path of a file that is not the one that was opened; None while all is well.

        The database is looked at every time, its WAL five times a second.
        """
        try:
            found = os.stat(self._path)  # noqa: PTH116 - on every commit
        except OSError:
            return self._path
        if (found.st_ino, found.st_dev) != self._file_id:
            return self._path
        now = time.monotonic()
        if now - self._looked > _LOOK_EVERY:
            if _identity(self._wal) != self._wal_id:
                return self._wal
            self._looked = now
        return None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    return found.st_ino, found.st_dev
