"""How far everything is: live bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text


@dataclass(frozen=True)
class Status:
    """How far everything is at one moment.

    Attributes:
        lines: Lines in the file.
        fed: Lines the feed is through with.
        decided: Those of them that flights is through with.
        shown: Those of them that the board is through with.
        mails: Mails sent.
        retrying: Mails that failed and will be tried again.
        dead: Dead letters.
        time: Time of the newest line.
    """

    lines: int
    fed: int
    decided: int
    shown: int
    mails: int
    retrying: int
    dead: int
    time: datetime | None

    def __str__(self) -> str:
        return (
            f"fed {self.fed:,} of {self.lines:,}, decided {self.decided:,}, on the board {self.shown:,}, "
            f"{self.mails:,} mails sent, {self.retrying:,} to be tried again, {self.dead:,} dead letters"
        )


class Show(Protocol):
    """Shows a status."""

    def __call__(self, status: Status) -> None:
        """Show it."""


@contextmanager
def progress(console: Console, lines: int) -> Iterator[Show]:
    """Something that shows the status while the block runs: on a terminal in place, elsewhere about every 10 %."""
    if console.is_terminal:
        bars = Bars(lines)
        with Live(bars.picture, console=console, refresh_per_second=10, transient=True):
            yield bars.show
    else:
        yield Lines(console).show


class Lines:
    """A line for each tenth of the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenth = 0

    def show(self, status: Status) -> None:
        """Print the status if another tenth is done."""
        tenth = 10 * status.shown // status.lines
        if tenth > self._tenth:
            self._tenth = tenth
            self._console.print(str(status))


class Bars:
    """Three bars and a line of counts."""

    def __init__(self, lines: int) -> None:
        self._bars = Progress(TextColumn("{task.description:8}"), BarColumn(40), MofNCompleteColumn())
        self._fed, self._decided, self._shown = (self._add(name, lines) for name in ("feed", "flights", "board"))
        self._mail = Text()
        self.picture = Group(self._bars, self._mail)

    def _add(self, name: str, lines: int) -> TaskID:
        return self._bars.add_task(name, total=lines)

    def show(self, status: Status) -> None:
        """Move the bars."""
        self._bars.update(self._fed, completed=status.fed)
        self._bars.update(self._decided, completed=status.decided)
        self._bars.update(self._shown, completed=status.shown)
        when = f"   {status.time:%d %B %Y, %H:%M} UTC" if status.time else ""
        counts = f"mail     {status.mails:,} sent · {status.retrying:,} to be tried again · {status.dead:,} dead{when}"
        self._mail.plain = counts
