"""Waits for a process to end, however it does, then ends the servers that it left behind and removes their folder.

Run as a script with the process id and the folder. A server is known by the note of its process id, and believed to
be the one that is named only while it works in that very folder.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

NOTE = "pid"
"""In the folder of a server: the process that was started there."""
PATIENCE = 10.0
"""Seconds until what does not end is left alone."""


def main(parent: int, folder: Path) -> None:
    """Outlive the parent, and leave nothing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the tests by these does not mean us: we end after them
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(parent)], [], [])
    clear(folder)


def clear(folder: Path) -> None:
    """Let all servers of a folder end at once, wait until they have, and remove it."""
    folder = folder.resolve()
    for _ in range(int(PATIENCE / 0.01)):
        left = list(processes(folder))
        for pid, place in left:
            # PostgreSQL takes its children and its shared memory along, if it is asked.
            number = signal.SIGQUIT if (place / "postmaster.pid").exists() else signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if not left:
            break
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def processes(folder: Path) -> Iterator[tuple[int, Path]]:
    """The processes that servers of a folder started or are, each with the folder in which it works."""
    sessions = {int(note.read_text()) for note in folder.glob(f"*/{NOTE}")}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or not ours to look at
            place = (entry / "cwd").readlink()
            if os.getsid(int(entry.name)) in sessions and place.is_relative_to(folder):
                yield int(entry.name), place


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
