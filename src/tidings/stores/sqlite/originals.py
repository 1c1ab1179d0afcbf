"""The original files: nothing is acknowledged once others have taken their place, or they were cut short."""

from __future__ import annotations

import os
import time
from os import SEEK_END, fstat, lseek
from pathlib import Path

from tidings.errors import StoreGone

_OPEN_FILES = "/proc/self/fd"
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""How a folder is opened that is only asked when it changed; Linux then asks for no permission to read it."""
_SETTLED = 50_000_000
"""Nanoseconds after which a change of a folder cannot be taken for the one before: Linux counts in up to 10 ms."""
_SETTLED_COARSE = 2_000_000_000
"""The same for file systems that keep whole seconds."""
_LOOK_EVERY = 0.2
"""Seconds after which the files are looked for though their folder has not changed."""


class Originals:
    """The files that were opened: raises an error when others, or none, are in their place.

    Looking must be cheap, as every durable commit does it. No file comes, goes or gives way to another one without a
    change of its folder, and of that the file system keeps a time that nobody can set: while it is as it was, only the
    size of the database is left to ask for. The folder is kept open, as finding it by its path takes three times as
    long where the caches are cold, which they are after each flush. Where only a folder above it was renamed, it shows
    no change; so the files are looked for now and then in any case.

    When it changed, the kernel of Linux tells where the files are that SQLite itself holds open. `stat` is the way
    elsewhere, and asked again before anything is called lost; it is not cheap on the WAL of Linux 6.13 and later: who
    asks for the time of a change makes the next one keep it to the nanosecond, and flush it, which costs a commit a
    third of its time.

    Attributes:
        are_lost: True once the error was raised.
    """

    def __init__(self, path: str) -> None:
        """Args: path: of the database, open and with a WAL."""
        self.are_lost = False
        self._paths = (path, f"{path}-wal")
        self._folder = -1
        self.reopened()

    def reopened(self) -> None:
        """From now on, the files that are open now are the original ones."""
        self.close()
        self._ids = tuple(map(_identity, self._paths))
        self._open = tuple(map(_descriptor, self._paths))
        self._size = 0
        self._folder = os.open(Path(self._paths[0]).parent, _FOLDER)
        self._seen = 0  # the last change of the folder after which the files were found in place
        self._looked = 0.0

    def check(self, now: float) -> None:
        """Do nothing while all is well.

        Nothing here ever makes the database smaller (a VACUUM needs it closed), so that one that shrank has lost
        pages.

        Args:
            now: Seconds of the monotonic clock.

        Raises:
            StoreGone: A file is not the one that was opened, or was cut short.
        """
        if fstat(self._folder).st_ctime_ns != self._seen or now - self._looked > _LOOK_EVERY:
            self._look(now)
        database = self._open[0]
        size = os.stat(self._paths[0]).st_size if database is None else lseek(database, 0, SEEK_END)  # noqa: PTH116
        if size < self._size:
            raise self._gone(self._paths[0])
        self._size = size

    def _look(self, now: float) -> None:
        """Look for the files themselves."""
        database, wal = self._open
        if database is not None and wal is not None:
            clock = time.time_ns()
            changed = fstat(self._folder).st_ctime_ns  # before the files: what comes after this is seen next time
            if (_place(database), _place(wal)) == self._paths and _identity(self._paths[0]) == self._ids[0]:
                self._looked = now
                if clock - changed > (_SETTLED if changed % 1_000_000_000 else _SETTLED_COARSE):
                    self._seen = changed
                return
        for path, known in zip(self._paths, self._ids, strict=True):
            if known is None or _identity(path) != known:
                raise self._gone(path)
        self._open = tuple(map(_descriptor, self._paths))

    def _gone(self, lost: str) -> StoreGone:
        self.are_lost = True
        return StoreGone(
            f"{lost} was deleted, renamed, replaced or truncated while it was open; nothing more is written",
            "stop every process that uses it, put the right file in its place, and start again",
            path=self._paths[0],
        )

    def close(self) -> None:
        """Let go of the folder."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


class Nowhere(Originals):
    """The files of a log in memory: nobody knows where they are."""

    def __init__(self) -> None:
        """Look for nothing."""
        self.are_lost = False

    def reopened(self) -> None:
        """Go on."""

    def check(self, now: float) -> None:
        """Go on."""

    def close(self) -> None:
        """Go on."""


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - on every commit where there is no better way
    except OSError:
        return None
    return found.st_ino, found.st_dev


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
