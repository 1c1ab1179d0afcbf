"""A clock that a test owns: virtual time, seeded randomness, repeatable ids."""

from __future__ import annotations

from collections.abc import Callable

from tidings.runtime.clock import MICROSECONDS, Clock

EPOCH = 1_735_689_600 * MICROSECONDS
"""1 January 2025, midnight UTC: where virtual time begins."""


class VirtualClock(Clock):
    """Stands still until it is told otherwise; timers are due when the test says so.

    Args:
        seed: Of the random numbers, and so of jitter and ids.
        time: Seconds since the beginning, where a simulation has time of its own; else only `advance` moves it.
    """

    def __init__(self, seed: int = 0, time: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(seed)
        self._time = time
        self._moved = 0

    def now(self) -> int:
        """Virtual wall time, microseconds since 1970 UTC."""
        return EPOCH + int(self._time() * MICROSECONDS) + self._moved

    def advance(self, seconds: float) -> None:
        """Move the wall clock; a negative number sets it back, as an administrator might."""
        self._moved += int(seconds * MICROSECONDS)
