"""What was received and nobody has fetched yet: bounded, filled by the consumer's thread, emptied by the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from tidings.brokers.kafka.future import finish, finished
from tidings.brokers.kafka.share import Share

MOST = 2_000
"""Records that are kept for the next fetch."""

MOST_BYTES = 8_000_000
"""Bytes of their values; the last ones may exceed it."""

Received = tuple[Share, Any]
"""The partition it came from, and the record as the client has it."""

_record = itemgetter(1)


class Buffer:
    """Records in order; one task waits for them at a time.

    Attributes:
        emptied: Set when there may be room again, for whoever cleared it.
    """

    def __init__(self) -> None:
        self.emptied = threading.Event()
        self._lock = threading.Lock()
        self._records: deque[Received] = deque()
        self._bytes = 0
        self._waiting: asyncio.Future[None] | None = None

    @property
    def room(self) -> int:
        """How many more are taken."""
        return 0 if self._bytes >= MOST_BYTES else max(0, MOST - len(self._records))

    def fits(self, size: int) -> int:
        """How many values of so many bytes there is room for."""
        return max(0, MOST_BYTES - self._bytes) // max(1, size)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._records)

    def put(self, records: Sequence[Received]) -> None:
        """Add what was received, and wake whoever waits."""
        more = _bytes_of(records)
        with self._lock:
            self._records.extend(records)
            self._bytes += more
        self.wake()

    def take(self, limit: int) -> deque[Received]:
        """The oldest ones, up to `limit`."""
        with self._lock:
            records = self._records
            taken = deque([records.popleft() for _ in range(min(limit, len(records)))])
            self._bytes -= _bytes_of(taken)
        if not self.emptied.is_set():
            self.emptied.set()
        return taken

    def drop_gone(self) -> None:
        """Forget those of partitions that were taken away."""
        with self._lock:
            self._records = deque(each for each in self._records if not each[0].gone)
            self._bytes = _bytes_of(self._records)
        self.emptied.set()

    async def wait(self, seconds: float) -> None:
        """Return when there are some, when woken, or in the end."""
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        try:
            if not self._records:  # looked at after the future is there to be woken
                await finished(waiting, seconds)
        finally:
            self._waiting = None

    def wake(self) -> None:
        """Make `wait` return now; from any thread, once per batch."""
        waiting = self._waiting
        if waiting is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                waiting.get_loop().call_soon_threadsafe(finish, waiting)


def _bytes_of(records: Iterable[Received]) -> int:
    """Bytes of their values."""
    return sum(map(len, map(_record, records)))
