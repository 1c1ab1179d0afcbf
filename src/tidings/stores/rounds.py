"""Rounds of an event loop: whether one task alone writes in them, and when the others have their turn."""

from __future__ import annotations

import asyncio
import time
from typing import Any

LONGEST = 0.002
"""Seconds after which the others of the event loop have their turn, however quick the commits of one task are."""


class Rounds:
    """What is known of the rounds of one event loop by those who write in it.

    Attributes:
        loop: Which one.
        crowded: True when several wrote in one round of late, so that the first one of the next waits for the others.
    """

    __slots__ = ("_alone", "_before", "_is_new", "_since", "crowded", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Args: loop: whose."""
        self.loop = loop
        self.crowded = False
        self._alone: asyncio.Task[Any] | None = None  # who wrote first in this round
        self._since = 0.0  # when that was
        self._before = 0  # the id of who did so in the last one
        self._is_new = False  # not the same

    def is_alone(self) -> bool:
        """True where nobody but the running task has written in this round, and that is likely to stay so.

        A task that wrote first in the last round, too, may write again and again; another one once, until the others
        had their turn to show that they want to write.
        """
        if self.crowded:
            return False
        task = asyncio.current_task(self.loop)
        if self._alone is None:
            self._alone = task
            self._since = time.monotonic()
            self._is_new = self._before != id(task)
            self._before = id(task)
            self.loop.call_soon(self._end)
            return True
        self.crowded = self._alone is not task
        return not self.crowded and not self._is_new

    def is_long(self) -> bool:
        """True when the others have waited for their turn long enough."""
        return time.monotonic() - self._since > LONGEST

    def _end(self) -> None:
        self._alone = None
