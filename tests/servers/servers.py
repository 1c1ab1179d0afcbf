"""The servers of one run of tests: made when they are asked for, gone when the run is."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import TypeVar

from tests.servers import caretaker
from tests.servers.server import Server

S = TypeVar("S", bound=Server)


class Servers:
    """Makes servers and ends them. Close it; where that cannot be, the caretaker does.

    Args:
        within: The folder for all their data, if not where temporary files are.
    """

    def __init__(self, within: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tidings-", dir=within))
        self.folder.chmod(0o755)  # another user that runs a server passes through
        self._owner = os.getpid()
        self._numbers = itertools.count(1)
        self._shared: dict[Hashable, Server] = {}
        self._all: list[Server] = []
        self._caretaker: subprocess.Popen | None = None
        if hasattr(os, "pidfd_open"):
            script = [sys.executable, "-I", "-S", caretaker.__file__, str(self._owner), str(self.folder)]
            self._caretaker = subprocess.Popen(script, start_new_session=True, cwd="/", stdin=subprocess.DEVNULL)

    def make(self, kind: type[S], **options: object) -> S:
        """A server of one's own, to be started.

        Args:
            kind: KafkaServer, RabbitmqServer...
            options: What it is made with.
        """
        server = kind(folder=self.folder / str(next(self._numbers)), **options)
        self._all.append(server)
        return server

    def shared(self, kind: type[S], purpose: str = "", **options: Hashable) -> S:
        """The running server of this kind that all tests share who want it for the same purpose.

        Args:
            kind: KafkaServer, RabbitmqServer...
            purpose: Whatever keeps these tests from others.
            options: What it is made with, when it is.
        """
        which = (kind, purpose, *sorted(options.items()))
        server = self._shared.get(which)
        if server is None:
            server = self._shared[which] = self.make(kind, **options)
        if not server.running:
            server.start()
        return server

    def close(self) -> None:
        """End them all at once and remove what they kept. In a forked child it does nothing."""
        if os.getpid() != self._owner:
            return
        for server in self._all:
            server.kill()
        if self._caretaker is not None:
            self._caretaker.kill()
            self._caretaker.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
