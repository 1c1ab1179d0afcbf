"""How a command fails: three lines (what, why, fix) on stderr, and an exit code that scripts can rely on.

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the command line, the code or the configuration is wrong |
| 3 | not found |
| 4 | conflict: somebody else was first, or it exists already |
| 5 | a check failed |
| 6 | partly done |
| 75 | the store cannot be reached or is full; try again later |
| 130, 143 | stopped by SIGINT, SIGTERM |
"""

from __future__ import annotations

import os
import sys
from typing import ClassVar, TextIO

from tidings.errors import Conflict, NotFound, TidingsError, UsageError
from tidings.ops.cli.text import lines, one_line

FAILED, USAGE, NOT_FOUND, CONFLICT, CHECK_FAILED, PARTLY, TRY_AGAIN = 1, 2, 3, 4, 5, 6, 75
INTERRUPTED, TERMINATED = 130, 143


class CommandError(TidingsError):
    """A command cannot do what it was asked.

    Attributes:
        exit_code: What the process ends with.
        details: Text to print above the three lines, such as the traceback of the user's own code.
    """

    exit_code: ClassVar[int] = FAILED
    details: str = ""


class BadCommand(CommandError):
    """The command line or its configuration cannot be understood."""

    code = "TID-601"
    exit_code = USAGE


class NoTarget(CommandError):
    """The command needs an app or a store, and found neither."""

    code = "TID-602"
    exit_code = USAGE


class AppNotFound(CommandError):
    """MODULE:APP does not lead to an App."""

    code = "TID-603"
    exit_code = USAGE


class AppBroken(CommandError):
    """The module of the app raised an error while it was imported."""

    code = "TID-604"


class NeedsYes(CommandError):
    """The command changes or destroys something, and nobody is there to confirm it."""

    code = "TID-605"
    exit_code = USAGE


class Exists(CommandError):
    """What should be made is there already; nothing was overwritten."""

    code = "TID-606"
    exit_code = CONFLICT


class OutputLost(CommandError):
    """The output could not be written to the end."""

    code = "TID-607"


class Declined(CommandError):
    """The question whether to go on was answered with no."""

    code = "TID-608"


class Unexpected(CommandError):
    """An error that tidings did not foresee; this is a bug in it."""

    code = "TID-699"


def exit_code(error: TidingsError) -> int:
    """The exit code of an error, by its kind."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, NotFound):
        return NOT_FOUND
    if error.transient and not isinstance(error, Conflict):
        return TRY_AGAIN
    if isinstance(error, Conflict):
        return CONFLICT
    return USAGE if isinstance(error, UsageError) else FAILED


def why(error: TidingsError) -> str:
    """The cause behind an error: what the layer below said, or what this kind of error means."""
    if error.__cause__ is not None and not isinstance(error.__cause__, TidingsError):
        return f"{type(error.__cause__).__name__}: {error.__cause__}"
    return (type(error).__doc__ or "").partition("\n")[0]


def report(error: TidingsError, stream: TextIO | None = None) -> None:
    """Print an error as three lines, below its details."""
    stream = stream or sys.stderr
    if stream is None:  # started with stderr closed
        return
    strong, plain = ("\x1b[1;31m", "\x1b[0m") if has_colour(stream) else ("", "")
    for line in lines(getattr(error, "details", "")):
        print(line, file=stream)
    print(f"{strong}error[{error.code}]{plain}: {one_line(error.what, 1000)}", file=stream)
    print(f"  why: {one_line(why(error), 1000)}", file=stream)
    print(f"  fix: {one_line(error.cure or 'none is known; see `tidings doctor`', 1000)}", file=stream)


def has_colour(stream: TextIO) -> bool:
    """True for a terminal that wants colour (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
