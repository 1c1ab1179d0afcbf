"""Progress of long work on stderr: a bar or a spinner on a terminal, elsewhere one line for every tenth."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


@contextmanager
def busy(with_what: str) -> Iterator[None]:
    """Show on a terminal that work goes on, and for how long, where nobody can say how far it is.

    Args:
        with_what: What is being done.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as spinner:
        spinner.add_task(with_what, total=None)
        yield


class Progress:
    """Shows how far some work is, as a context manager.

    Args:
        title: What is done, one word.
        total: How many there are.
        unit: Of what.
    """

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title = title
        self._total = total
        self._unit = unit
        self._started = time.monotonic()
        self._tenths = 0
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self.done = 0

    def __enter__(self) -> Self:
        if sys.stderr is not None and sys.stderr.isatty() and self._total:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(show_speed=True),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None = None) -> None:
        """Say that `done` of `total` are done now."""
        self.done = done
        self._total = self._total if total is None else total
        rate = f"{done / max(time.monotonic() - self._started, 0.001):,.0f} {self._unit}s/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self._total, rate=rate)
            return
        tenths = 10 * done // self._total if self._total else 10
        if tenths > self._tenths and sys.stderr is not None:
            self._tenths = tenths
            print(f"{self._title} {tenths * 10} % {done:,}/{self._total:,} {rate}", file=sys.stderr, flush=True)
