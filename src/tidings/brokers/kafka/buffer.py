"""What was received and nobody has fetched yet: bounded, filled by the consumer's thread, emptied by the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from tidings.core.arrival import Arrival

MOST = 2_000
"""Arrivals that are kept for the next fetch."""

MOST_BYTES = 8_000_000
"""Bytes of their bodies; the last one may exceed it."""


class Buffer:
    """Arrivals in order; one task waits for them at a time.

    Attributes:
        emptied: Set when there may be room again.
    """

    def __init__(self) -> None:
        self.emptied = threading.Event()
        self._lock = threading.Lock()
        self._arrivals: deque[Arrival] = deque()
        self._bytes = 0
        self._waiting: asyncio.Future[None] | None = None

    @property
    def room(self) -> int:
        """How many more are taken."""
        return 0 if self._bytes >= MOST_BYTES else max(0, MOST - len(self._arrivals))

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._arrivals)

    def put(self, arrivals: Sequence[Arrival]) -> None:
        """Add what was received, and wake whoever waits."""
        with self._lock:
            self._arrivals.extend(arrivals)
            self._bytes += sum(len(each.body) for each in arrivals)
        self.wake()

    def take(self, limit: int) -> list[Arrival]:
        """The oldest ones, up to `limit`."""
        with self._lock:
            arrivals = self._arrivals
            taken = [arrivals.popleft() for _ in range(min(limit, len(arrivals)))]
            self._bytes -= sum(len(each.body) for each in taken)
        self.emptied.set()
        return taken

    def drop(self, unwanted: Callable[[Arrival], bool]) -> None:
        """Forget some."""
        with self._lock:
            self._arrivals = deque(each for each in self._arrivals if not unwanted(each))
            self._bytes = sum(len(each.body) for each in self._arrivals)
        self.emptied.set()

    async def wait(self, seconds: float) -> None:
        """Return when there are some, when woken, or in the end."""
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        try:
            if not self._arrivals:  # looked at after the future is there to be woken
                await asyncio.wait([waiting], timeout=seconds)
        finally:
            self._waiting = None

    def wake(self) -> None:
        """Make `wait` return now; from any thread, once per batch."""
        waiting = self._waiting
        if waiting is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                waiting.get_loop().call_soon_threadsafe(_finish, waiting)


def _finish(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
