"""Waits for a process to end, however it does, then ends the servers that it left behind and removes their folder.

Run as a script with the process id and the folder. A server is told by its `postmaster.pid`, and believed to be the
one that it names only while it works in that very folder.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path


def main(parent: int, folder: Path) -> None:
    """Outlive the parent, and leave nothing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the tests by these does not mean us: we end after them
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(parent)], [], [])
    for note in folder.glob("*/data/postmaster.pid"):
        end(int(note.read_text().split("\n", 1)[0]), note.parent)
    shutil.rmtree(folder, ignore_errors=True)


def end(pid: int, data: Path) -> None:
    """Let a server end at once, and wait until it has."""
    for _ in range(500):
        try:
            if not Path(f"/proc/{pid}/cwd").samefile(data):
                return
            os.kill(pid, signal.SIGQUIT)
            time.sleep(0.01)
        except OSError:  # gone
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
