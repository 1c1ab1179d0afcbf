"""How many deliveries a pump takes ahead: many while handlers keep up, few while they are slow.

A crash makes all of it suspect, and what is far ahead waits long. But a large batch has one commit for many.
"""

from __future__ import annotations

MOST = 512
"""Deliveries in memory per subscription at most."""

LEAST = 32
"""As many at least, and twice as many as are handled at once."""

QUICK, SLOW = 0.1, 0.25
"""Seconds. What was handed over and ended within the first is a reason for more; what takes the second, for less."""


class Ahead:
    """Follows how quickly what is handed over ends.

    Attributes:
        room: Deliveries in memory at most, for now.
    """

    def __init__(self, concurrency: int) -> None:
        """Args: concurrency: deliveries handled at once."""
        self._least = max(LEAST, 2 * concurrency)
        self._most = max(MOST, self._least)
        self._handed = 0.0  # when; 0.0 when all of it ended
        self.room = self._least

    def handed(self, now: float, *, anew: bool = False) -> None:
        """Deliveries are handed over. Args: now: loop time. anew: True when everything before has ended."""
        if anew or not self._handed:
            self._handed = now

    def adapt(self, now: float, *, busy: bool) -> None:
        """Take more or less ahead. Args: now: loop time. busy: True while some of it has not ended."""
        if not self._handed:
            return
        took = now - self._handed
        if not busy:
            if took < QUICK:
                self.room = min(self._most, self.room * 2)
            self._handed = 0.0
        elif took > SLOW:
            self.room = max(self._least, self.room // 2)
            self._handed += took
