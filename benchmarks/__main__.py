"""`python -m benchmarks [--only NAME]... [--quick]`: tidings on SQLite beside bare loops and peers."""

from __future__ import annotations

import sys

from benchmarks import handlers, idle_memory, latency, publish, streams
from benchmarks.command import command

FIGURES = (*publish.FIGURES, *streams.FIGURES, *handlers.FIGURES, *latency.FIGURES, *idle_memory.FIGURES)

if __name__ == "__main__":
    sys.exit(command("benchmarks", __doc__, FIGURES, "latest"))
