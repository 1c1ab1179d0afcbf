"""An alarm clock of the event loop that is set often and rings seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings by the time it is set to, or before: where it is to ring sooner anyway, setting it costs nothing."""

    def __init__(self, ring: Callable[[], object]) -> None:
        """Args: ring: called when it rings."""
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, by: float) -> None:
        """Have it ring. Args: by: loop time."""
        if self._timer is not None:
            if self._timer.when() <= by:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(by, self._go_off)

    def stop(self) -> None:
        """It does not ring any more, and keeps nobody in memory."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        self._ring()
