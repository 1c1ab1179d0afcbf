"""Log lines on stderr: short, with the time, and without anything that could move a cursor."""

from __future__ import annotations

import logging
import os
import sys

from tidings.ops.cli.failures import has_colour
from tidings.ops.cli.lifeline import WORKER
from tidings.ops.cli.text import lines


class LogLine(logging.Formatter):
    """`21:03:07 warning shop.send_receipt: ...`; lines that follow, as of a traceback, are indented."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(message)s", "%H:%M:%S")
        self._colour = colour
        number = os.environ.get(WORKER)
        self._worker = f" [{number}]" if number else ""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, or as several when it carries a traceback."""
        level = "" if record.levelno <= logging.INFO else f" {record.levelname.lower()}"
        if level and self._colour:
            level = f"\x1b[{'31' if record.levelno >= logging.ERROR else '33'}m{level}\x1b[0m"
        first, *rest = lines(super().format(record)) or [""]
        return "\n  ".join([f"{self.formatTime(record, self.datefmt)}{self._worker}{level} {first}", *rest])


def start_logging(*, verbose: bool = False) -> None:
    """Send log records to stderr, unless the app set up logging of its own."""
    root = logging.getLogger()
    if root.handlers or sys.stderr is None:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLine(colour=has_colour(sys.stderr)))
    root.addHandler(handler)
    logging.getLogger("tidings").setLevel(logging.DEBUG if verbose else logging.INFO)
