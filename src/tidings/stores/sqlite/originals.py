"""The original files: nothing is acknowledged once others have taken their place, or they were cut short."""

from __future__ import annotations

import os
import time
from pathlib import Path

_OPEN_FILES = "/proc/self/fd"
_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a folder cannot be taken for the one before: file systems count in up to 1 s."""


class Originals:
    """The files that were opened: tells when others, or none, are in their place.

    Looking must be cheap, as every durable commit does it. No file comes, goes or gives way to another one without a
    change of its folder, and of that the file system keeps a time that nobody can set: while it is as it was, only the
    size of the database is left to ask for.

    When it changed, the kernel of Linux tells where the files are that SQLite itself holds open. `stat` is the way
    elsewhere, and asked again before anything is called lost; it is not cheap on the WAL of Linux 6.13 and later: who
    asks for the time of a change makes the next one keep it to the nanosecond, and flush it, which costs a commit a
    third of its time.
    """

    def __init__(self, path: str) -> None:
        """Args: path: of the database, open and with a WAL."""
        self._paths = (path, f"{path}-wal")
        self._ids = tuple(map(_identity, self._paths))
        self._open = tuple(map(_descriptor, self._paths))
        self._size = 0
        self._folder = str(Path(path).parent)
        self._seen = (0, 0, 0)  # the state of the folder in which the files were last found in place

    def lost(self) -> str | None:
        """The path of a file that is not the one that was opened; None while all is well.

        Nothing here ever makes the database smaller (a VACUUM needs it closed), so that one that shrank has lost
        pages.
        """
        database, wal = self._open
        if database is None or wal is None:
            return self._looked_at_closely()
        now = time.time_ns()
        folder = _state(self._folder)  # before the files: what changes after this is seen the next time
        if folder != self._seen:
            if _place(database) != self._paths[0] or _place(wal) != self._paths[1]:
                return self._looked_at_closely()
            if folder is not None and now - folder[2] > _SETTLED:
                self._seen = folder
        size = os.lseek(database, 0, os.SEEK_END)
        if size < self._size:
            return self._paths[0]
        self._size = size
        return None

    def _looked_at_closely(self) -> str | None:
        for path, known in zip(self._paths, self._ids, strict=True):
            if known is None or _identity(path) != known:
                return path
        size = os.stat(self._paths[0]).st_size  # noqa: PTH116 - as below
        if size < self._size:
            return self._paths[0]
        self._size = size
        self._open = tuple(map(_descriptor, self._paths))
        return None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - on every commit where there is no better way
    except OSError:
        return None
    return found.st_ino, found.st_dev


def _state(folder: str) -> tuple[int, int, int] | None:
    """Which folder it is, and when files came or went in it, nanoseconds; None where it cannot be looked at."""
    try:
        found = os.stat(folder)  # noqa: PTH116 - as above
    except OSError:
        return None
    return found.st_ino, found.st_dev, found.st_ctime_ns


def _descriptor(path: str) -> int | None:
    """A descriptor of ours that is open on this very file; SQLite opened it, and we only ask where it is."""
    try:
        numbers = [int(name) for name in os.listdir(_OPEN_FILES)]  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return None
    return next((number for number in numbers if _place(number) == path), None)


def _place(descriptor: int) -> str | None:
    """Where an open file is now; " (deleted)" follows when it is nowhere any more."""
    try:
        return os.readlink(f"{_OPEN_FILES}/{descriptor}")  # noqa: PTH115 - as above
    except OSError:
        return None
