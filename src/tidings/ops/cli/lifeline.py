"""What ties a worker process to the one that started it among several: a socket, and a number to be told apart by."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tidings.errors import TidingsError

if TYPE_CHECKING:
    from tidings.runtime.worker import Worker

LIFELINE = "TIDINGS_LIFELINE"
"""Environment variable with the descriptor of the worker's end of the socket."""
WORKER = "TIDINGS_WORKER"
"""Environment variable with the number of a worker among its siblings."""
FOR_GOOD = b"!"
"""What a worker says at its end when another one would end in the same way, or do worse."""

log = logging.getLogger("tidings")


def stop_signals() -> list[signal.Signals]:
    """The signals that drain a worker; a hangup is none for one that was told to outlive it, as nohup does."""
    outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if outlives else [signal.SIGHUP])]


@contextlib.contextmanager
def lifeline(worker: Worker, drain: float) -> Iterator[Callable[[], None]]:
    """Tie this process to the one that started it among several: say when it works, and stop when that one is gone."""
    number = os.environ.pop(LIFELINE, None)
    if number is None:
        yield lambda: None
        return
    line = socket.socket(fileno=int(number))
    line.set_inheritable(False)
    loop = asyncio.get_running_loop()

    def hear() -> None:
        loop.remove_reader(line)
        log.warning("the process that started this worker is gone; draining")
        worker.stop()

    def ready() -> None:
        line.send(f"{drain:g}".encode())
        loop.add_reader(line, hear)

    with line:
        try:
            yield ready
        except TidingsError as error:
            if not error.transient:
                line.send(FOR_GOOD)
            raise
        finally:
            loop.remove_reader(line)
