"""Presence: how a dead worker is told from a slow one."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Presence:
    """Locks that say which members live: each worker holds one, and the kernel drops it with the process.

    All of it is called inside the turnstile, so that looking at a lock never keeps its owner from taking it.
    """

    def __init__(self, folder: Path) -> None:
        """Args: folder: where the lock files are."""
        self._folder = folder
        self._mine: dict[str, int] = {}

    def _path(self, member: str) -> Path:
        return self._folder / f"member-{hashlib.sha256(member.encode()).hexdigest()[:24]}"

    def hold(self, member: str) -> None:
        """Say that this member lives, until `drop` or the end of the process."""
        if member in self._mine:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self._path(member), _OPEN, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # the same name twice: the leases decide
            os.close(fd)
            return
        self._mine[member] = fd

    def drop(self, member: str) -> None:
        """Say that this member has left."""
        fd = self._mine.pop(member, None)
        if fd is not None:
            self._path(member).unlink(missing_ok=True)
            os.close(fd)

    def gone(self, member: str) -> bool:
        """True when the member's process has ended without leaving; False when it lives or nothing is known."""
        if member in self._mine:
            return False
        try:
            fd = os.open(self._path(member), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(fd)

    def let_go(self) -> None:
        """In a forked child: the locks stay with the parent."""
        for fd in self._mine.values():
            os.close(fd)
        self._mine.clear()

    def close(self) -> None:
        """Leave with every member of this process."""
        for member in list(self._mine):
            self.drop(member)

    def clear(self, member: str) -> None:
        """Remove the sign of a member that is gone, once nothing is in its name any more."""
        self._path(member).unlink(missing_ok=True)


class NoPresence(Presence):
    """For stores without locks: leases end by time alone."""

    def __init__(self) -> None:
        """Open nothing."""
        super().__init__(Path())

    def hold(self, member: str) -> None:
        """Nothing to say."""

    def drop(self, member: str) -> None:
        """Nothing to say."""

    def gone(self, member: str) -> bool:  # noqa: ARG002 - nothing is known
        """Nothing is known."""
        return False

    def clear(self, member: str) -> None:
        """Nothing to remove."""
