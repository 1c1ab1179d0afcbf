"""The turnstile: every commit of any process passes it one by one."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from time import monotonic

_LOOK_EVERY = 0.2
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Turnstile:
    """An flock that every commit, checkpoint and close of any process passes one by one.

    SQLite's own busy handler is unfair: of many writers a few starve. And up to SQLite 3.51.2 a checkpoint that
    overlaps a commit of another connection can corrupt the file (the WAL-reset bug). The kernel drops the lock with
    the process.

    Attributes:
        entered: When it was entered last, seconds of the monotonic clock.
    """

    def __init__(self, path: Path) -> None:
        """Open the lock file, creating it for this user alone."""
        self._path = str(path)
        self._fd = os.open(path, _OPEN, 0o600)
        self._looked = self.entered = monotonic()
        self._is_inside = False

    def enter(self) -> None:
        """Wait for our turn; who is inside already goes on."""
        if self._is_inside:
            return
        flock(self._fd, LOCK_EX)
        self._is_inside = True
        self.entered = monotonic()
        if self.entered - self._looked > _LOOK_EVERY:
            self._follow()

    def _follow(self) -> None:
        """Should somebody have removed the lock file: meet the others at the one that is there now."""
        while not self._is_there():
            try:
                fd = os.open(self._path, _OPEN, 0o600)
            except FileNotFoundError:  # the folder is gone: who looks for the files will say so
                return
            flock(fd, LOCK_EX)
            os.close(self._fd)
            self._fd = fd
        self._looked = self.entered

    def _is_there(self) -> bool:
        mine = os.fstat(self._fd)
        try:
            there = os.stat(self._path)  # noqa: PTH116 - as a string, like all of this
        except FileNotFoundError:
            return False
        return (mine.st_ino, mine.st_dev) == (there.st_ino, there.st_dev)

    def try_enter(self) -> bool:
        """Take our turn if nobody else has it, and nobody has removed the lock file."""
        try:
            flock(self._fd, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        self.entered = monotonic()
        if self.entered - self._looked > _LOOK_EVERY:
            if not self._is_there():
                self.leave()
                return False
            self._looked = self.entered
        self._is_inside = True
        return True

    def leave(self) -> None:
        """Let the next one in."""
        self._is_inside = False
        flock(self._fd, LOCK_UN)

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class OpenTurnstile(Turnstile):
    """For a store that one process alone uses, on one thread or in memory: nobody waits."""

    def __init__(self) -> None:
        """Open nothing."""
        self._fd = -1
        self.entered = 0.0

    def enter(self) -> None:
        """Go on."""

    def try_enter(self) -> bool:
        """Go on."""
        return True

    def leave(self) -> None:
        """Go on."""
