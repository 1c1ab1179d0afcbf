"""Before something is changed or destroyed: say what will happen, and ask; `--yes` answers, `--dry-run` stops there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tidings.ops.cli.face import click
from tidings.ops.cli.failures import Declined, NeedsYes
from tidings.ops.cli.text import one_line

F = TypeVar("F", bound=Callable[..., Any])


def mutation_options(command: F) -> F:
    """Give a command `--yes` and `--dry-run`."""
    yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    dry_run = click.option("--dry-run", is_flag=True, help="Only say what would happen.")
    return yes(dry_run(command))


def announce(plan: Iterable[str]) -> None:
    """Say on stderr what will happen."""
    for line in plan:
        print(one_line(line, 1000), file=sys.stderr)


def confirm(question: str, *, yes: bool) -> None:
    """Go on when the user agrees.

    Raises:
        NeedsYes: Nobody is at a terminal to ask.
        Declined: The user said no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        msg = f"not confirmed: {question}"
        raise NeedsYes(msg, "add --yes to do it, or --dry-run to see what would happen")
    if not click.confirm(question, err=True):
        msg = f"declined: {question}"
        raise Declined(msg, "nothing was changed, and nothing needs to be done")
