"""A server of one's own: started and waited for, stopped, killed, suspended, always on the ports it had at first."""

import abc
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import psutil

from tests.servers.caretaker import NOTE


class Server(abc.ABC):
    """One server, listening on 127.0.0.1 only, that works in a folder of its own.

    A subclass makes in `__init__` what the program needs, and says how it is run and when it is ready. All of its
    processes must keep the folder, or one in it, as their working directory: by that they are known to be ours.

    Args:
        folder: Not there yet.
    """

    name: ClassVar[str]
    """What people call it."""
    patience: ClassVar[float] = 60.0
    """Seconds that it may take to start or to stop."""
    farewell: ClassVar[signal.Signals] = signal.SIGTERM
    """What it takes as the wish to stop in order."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(0o755)
        self.folder, self.log = folder, folder / "log.txt"
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen | None = None

    # ---- what a subclass says --------------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def fetch(cls) -> object:
        """Bring what it is made of, if it is not here yet; making one does so too.

        Raises:
            Missing: It cannot be had.
        """

    @abc.abstractmethod
    def _command(self) -> Sequence[object]:
        """The program and its arguments. It must not put itself into the background."""

    def _options(self) -> Mapping[str, object]:
        """More arguments of `subprocess.Popen`: the environment, another user."""
        return {}

    def _ready(self) -> bool:
        """Does it answer already?"""
        return listens(self.port)

    # ---- its life --------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True from `launch` or `start` to `stop` or `kill`."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers, after whatever recovery it needs.

        Raises:
            RuntimeError: It ended, or was not ready in time; with the end of its log.
        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it without waiting, so that several can start at the same time."""
        options = {"cwd": self.folder, **self._options()}
        with self.log.open("ab") as log:
            # In a session of its own: Ctrl-C is for the tests, which then stop it.
            self._process = subprocess.Popen(
                [os.fspath(word) if isinstance(word, Path) else str(word) for word in self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
        (self.folder / NOTE).write_text(str(self._process.pid))  # for the caretaker

    def wait(self) -> None:
        """Wait until what was launched answers. Raises as `start` does."""
        deadline = time.monotonic() + self.patience
        while not self._ready():
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it in order. Safe to call twice."""
        if self.running:
            left = self.processes()
            self._process.send_signal(self.farewell)
            self._process.wait(self.patience)
            _kill(left)  # whatever it did not take along

    def kill(self) -> None:
        """kill -9 of all its processes, and wait until they are gone."""
        if self.running:
            doomed = self.processes()
            _kill(doomed)
            self._process.wait(self.patience)
            while not all(map(ended, doomed)):
                time.sleep(0.001)

    def restart(self) -> None:
        """Stop it in order and start it."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """kill -9 and start: what it had promised to keep is there again, nobody is connected any more."""
        self.kill()
        self.start()

    def suspend(self) -> None:
        """SIGSTOP of all its processes: it answers nothing, and connections stay open until `resume`."""
        for process in self.processes():
            process.suspend()

    def resume(self) -> None:
        """SIGCONT of all its processes."""
        for process in self.processes():
            process.resume()

    def processes(self) -> list[psutil.Process]:
        """The one that was started, which is the first, and its children."""
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def ended(process: psutil.Process) -> bool:
    """Does it run no more? Nothing of it is left then but a number, until the machine's first process asks for that."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listens(port: int) -> bool:
    """Does somebody take connections on this port of 127.0.0.1?"""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of 127.0.0.1 on which nobody listens, below those that the system gives to clients.

    A client that tries again and again to reach a server that is down could else be given the server's own port, and
    be connected to itself.
    """
    with contextlib.ExitStack() as stack:
        return tuple(port for port, _ in zip(_free(stack), range(count), strict=False))


def _free(stack: contextlib.ExitStack) -> Iterator[int]:
    while True:
        probe = stack.enter_context(socket.socket())
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(15_000, 32_000)))
            yield probe.getsockname()[1]
