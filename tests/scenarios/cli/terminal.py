"""Running the command line as users do: in a process of its own, in a pipe or on a terminal."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIDINGS = [sys.executable, "-m", "tidings"]
PATIENCE = 30.0


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        envelope = json.loads(self.out)
        assert envelope["version"] == 1
        return envelope["data"]

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()[1:]]


def settings(**more: str) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TIDINGS", "NO_COLOR", "COLUMNS"))
    }
    return kept | {"TERM": "xterm-256color"} | more


def tidings(*arguments: object, cwd: Path, **env: str) -> Done:
    """Run a command in a pipe, to its end."""
    command = [*TIDINGS, *map(str, arguments)]
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=settings(**env),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=PATIENCE,
    )
    return Done(ended.returncode, ended.stdout.decode("utf-8", "surrogateescape"), ended.stderr.decode())


def on_terminal(*arguments: object, cwd: Path, width: int = 100, typed: str = "", **env: str) -> Done:
    """Run a command on a terminal of some width, where somebody types; stdout and stderr come together."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    command = [*TIDINGS, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=cwd, env=settings(**env), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    with contextlib.suppress(OSError):  # a terminal whose other end is closed says so like this
        while select.select([ours], [], [], PATIENCE)[0] and (part := os.read(ours, 65_536)):
            shown += part
    os.close(ours)
    return Done(process.wait(PATIENCE), shown.decode().replace("\r\n", "\n"), "")


class Started:
    """A command that goes on until it is stopped."""

    def __init__(self, *arguments: object, cwd: Path, log: Path, **env: str) -> None:
        self._log = log
        with log.open("wb") as stderr, log.with_suffix(".out").open("wb") as stdout:
            self.process = subprocess.Popen(
                [*TIDINGS, *map(str, arguments)], cwd=cwd, env=settings(**env), stdout=stdout, stderr=stderr
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def out(self) -> str:
        return self._log.with_suffix(".out").read_text()

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for a condition; tells what the command logged when it does not come."""
        return until(condition, lambda: self.log)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)


def until(condition: Callable[[], Any], told: Callable[[], str] = str) -> Any:
    """Look until something is true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not come true\n{told()}"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def started(*arguments: object, cwd: Path, **env: str) -> Iterator[Started]:
    """Start a command; whatever happens, nothing of it is left afterwards."""
    command = Started(*arguments, cwd=cwd, log=cwd / f"log-{time.monotonic_ns()}", **env)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()
