"""Doorbells: how a process learns at once that another one committed.

Each process that waits binds a UNIX datagram socket in the folder beside the database, and then says in a file there
that the bells are others now; whoever commits looks at that file, and sends one byte to each bell. A byte that is lost
costs half a second at most: then PRAGMA data_version is looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
from pathlib import Path

_LONGEST = 100  # sockaddr_un holds 108 bytes on Linux, 104 elsewhere
_MARK = 8  # random bytes, so that nobody has to read those before
_counter = itertools.count(1)


class Doorbell:
    """Rings at other processes, and gives this one its own bell."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: where the sockets are."""
        self._folder = folder
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._changes = os.open(folder / "changes", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._mark = self._map_mark()
        self._prefix = self._short_name()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._mine: set[str] = set()
        self._others: list[str] = []
        self._listed: bytes | None = None  # the mark for which they were listed

    def _map_mark(self) -> mmap.mmap | None:
        """The mark where looking at it takes no call; None where it must be read.

        It is there before it is mapped: in a file of a full tmpfs, a look at what was never written ends the process.
        """
        try:
            if os.fstat(self._changes).st_size < _MARK:
                self._say_that_bells_changed()
            return mmap.mmap(self._changes, _MARK, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None

    def _say_that_bells_changed(self) -> None:
        os.pwrite(self._changes, os.urandom(_MARK), 0)

    def _short_name(self) -> str:
        """The folder by a name that fits into a socket address, or "" where there is none."""
        if len(os.fsencode(self._folder)) < _LONGEST - 32:
            return f"{self._folder}/"
        known = f"/proc/self/fd/{self._fd}/"
        return known if Path(known).is_dir() else ""

    def bind(self) -> socket.socket | None:
        """A bell of our own, None where the system has none."""
        if not self._prefix:
            return None
        name = f"bell-{os.getpid()}-{next(_counter)}"
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bell.settimeout(0)
        try:
            bell.bind(self._prefix + name)
            self._mine.add(name)
            self._say_that_bells_changed()
        except OSError:
            self.unbind(bell)
            return None
        return bell

    def unbind(self, bell: socket.socket) -> None:
        """Take a bell of ours away."""
        with contextlib.suppress(OSError):
            name = Path(bell.getsockname()).name
            self._mine.discard(name)
            (self._folder / name).unlink(missing_ok=True)
        bell.close()

    def ring(self) -> None:
        """Wake the others. Never waits; a bell that cannot take another byte has rung already."""
        try:
            mark = os.pread(self._changes, _MARK, 0) if self._mark is None else self._mark[:]
            if mark != self._listed:
                self._others = [name for name in os.listdir(self._fd) if name.startswith("bell-")]  # noqa: PTH208
                self._listed = mark
        except OSError:  # the others look by themselves
            pass
        for name in self._others:
            if name in self._mine:
                continue
            try:
                self._socket.sendto(b"!", self._prefix + name)
            except BlockingIOError:
                pass
            except OSError:  # its process is gone
                self._listed = None
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        """Let go of the folder."""
        self._socket.close()
        if self._mark is not None:
            self._mark.close()
            self._mark = None
        if self._fd >= 0:
            os.close(self._changes)
            os.close(self._fd)
            self._fd = -1
