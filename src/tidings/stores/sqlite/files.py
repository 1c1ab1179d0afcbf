"""The files beside the database: the turnstile every commit passes, and the signs that a worker lives."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path

_LOOK_EVERY = 0.2
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Turnstile:
    """An flock that every commit, checkpoint and close of any process passes one by one.

    SQLite's own busy handler is unfair: of many writers a few starve. And up to SQLite 3.51.2 a checkpoint that
    overlaps a commit of another connection can corrupt the file (the WAL-reset bug). The kernel drops the lock with
    the process.
    """

    def __init__(self, path: Path) -> None:
        """Open the lock file, creating it for this user alone."""
        self._fd = os.open(path, _OPEN, 0o600)

    def enter(self) -> None:
        """Wait for our turn."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def try_enter(self) -> bool:
        """Take our turn if nobody else has it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

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

    def enter(self) -> None:
        """Go on."""

    def try_enter(self) -> bool:
        """Go on."""
        return True

    def leave(self) -> None:
        """Go on."""


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
