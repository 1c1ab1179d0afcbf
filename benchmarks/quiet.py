"""Quiet moments: whether others slow this machine down, and rounds that wait until they do not.

Other processes are counted by the kernel. Others on the hardware below a virtual machine are not: they share its cores
and caches, and what it does takes twice as long from one second to the next, while the disk stays as fast as it was.
Both sides of a ratio are slowed down, but not equally: the one that computes more, more. So the machine's pace is
measured, too, by a loop that takes half a millisecond.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

QUIET = 0.15
"""Share of the machine that others may use during a round; the kernel's own work on our writes is part of it."""
SLOW = 1.25
"""Times as long as ever in this run that the loop may take."""
_PAUSE = 0.01
"""Seconds from one look at the pace to the next."""


class Others:
    """How much of the machine other processes used since this was made: what makes figures worth less."""

    def __init__(self) -> None:
        self.started, self.busy, self.own = time.perf_counter(), _busy(), _own()

    def share(self) -> float:
        """From 0 to 1, children of this process that have ended not counted; 0 where the system does not tell."""
        elapsed = time.perf_counter() - self.started
        busy = _busy() - self.busy - (_own() - self.own)
        return max(0.0, busy) / elapsed / (os.cpu_count() or 1)


class Patience:
    """Gives rounds quiet moments, as long as it lasts. What a round measured has no say in that."""

    def __init__(self) -> None:
        """See how fast the machine is; it has no patience yet."""
        self._left = 0.0
        self._best = min(_pace() for _ in range(100))

    def last(self, seconds: float) -> None:
        """Have so many from now on, to wait and to repeat rounds that were disturbed, all in all."""
        self._left = seconds

    def give(self, turn: Callable[[], T]) -> T:
        """One round, in a quiet moment if there is one soon enough; repeated where others come back meanwhile."""
        while True:
            began = time.perf_counter()
            while self._left > time.perf_counter() - began and not self._has_pace():
                time.sleep(_PAUSE)
            others = Others()
            done = turn()
            took = time.perf_counter() - began
            if took > self._left or (self._has_pace() and others.share() <= QUIET):
                return done
            self._left -= took

    def _has_pace(self) -> bool:
        pace = _pace()
        self._best = min(self._best, pace)
        return pace <= SLOW * self._best


def _pace() -> float:
    """Seconds of a loop that does nothing."""
    began = time.perf_counter()
    for _ in range(40_000):
        pass
    return time.perf_counter() - began


def _busy() -> float:
    """CPU seconds of all processes since the machine started; the kernel counts in hundredths."""
    try:
        user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + sum(rest)) / 100


def _own() -> float:
    return sum(os.times()[:4])
