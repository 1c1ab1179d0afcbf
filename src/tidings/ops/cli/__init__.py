"""The command line: `tidings`. Its commands stand in files of their own and are imported when they are called."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from tidings.errors import TidingsError
from tidings.ops.cli.failures import (
    INTERRUPTED,
    TERMINATED,
    USAGE,
    BadCommand,
    OutputLost,
    Unexpected,
    exit_code,
    report,
    why,
)

COMPLETION = "_TIDINGS_COMPLETE"
"""Environment variable that a shell's completion sets (see the documentation of click)."""


def main(arguments: Sequence[str] | None = None, program: Sequence[str] = ("-m", "tidings")) -> None:
    """Run the command line and end the process with its exit code.

    Args:
        arguments: Of it; those of the process if not given.
        program: What Python is to be given to get here again, for the workers that are started.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that the terminal lacks shows as its number
    signal.signal(signal.SIGTERM, _terminate)
    code = _run(sys.argv[1:] if arguments is None else arguments, program)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _forget_stdout()
        if not isinstance(error, BrokenPipeError):
            code = code or _fail(_named(error), {})
    raise SystemExit(code)


def _run(arguments: Sequence[str], program: Sequence[str]) -> int:
    from tidings.ops.cli.face import click
    from tidings.ops.cli.root import tidings

    asked: dict[str, Any] = {"program": program}
    code = 0
    if COMPLETION in os.environ:  # the shell asks what could follow
        tidings.main(prog_name="tidings")
    try:
        with tidings.make_context("tidings", list(arguments), obj=asked) as context:
            result = tidings.invoke(context)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = USAGE
    except (KeyboardInterrupt, click.Abort):
        print("stopped", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read our output has had enough
        _forget_stdout()
    except Exception as error:  # noqa: BLE001 - the last resort: three lines instead of a traceback
        code = _fail(_named(error), asked)
    return code


def _fail(error: TidingsError, asked: dict[str, Any]) -> int:
    report(error)
    if asked.get("form") == "json":
        from tidings.ops.cli.output import Output

        details = {"code": error.code, "what": error.what, "why": why(error), "fix": error.cure}
        Output("json").data(None, ok=False, error=details)
    return exit_code(error)


def _named(error: Exception) -> TidingsError:
    """The error of our own that tells about this one."""
    from tidings.ops.cli.face import click

    if isinstance(error, TidingsError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        cure = f"see `{context.command_path if context else 'tidings'} --help`"
        return BadCommand(error.format_message().rstrip("."), cure)
    if isinstance(error, OSError) and error.filename is None and error.errno in {errno.ENOSPC, errno.EIO, errno.EBADF}:
        lost = OutputLost(
            "the output could not be written to the end", "free space or write elsewhere, then run it again"
        )
        lost.__cause__ = error
        return lost
    unexpected = Unexpected(f"{type(error).__name__}: {error}", "set TIDINGS_DEBUG=1 to see where, and report it")
    if os.environ.get("TIDINGS_DEBUG"):
        import traceback

        unexpected.details = "".join(traceback.format_exception(error))
    return unexpected


def _forget_stdout() -> None:
    """Give the interpreter's own flush at exit a stdout that takes everything."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)  # asyncio lets it through, and what is open gets closed
