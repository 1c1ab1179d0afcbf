"""Time, randomness and ids: the one place the runtime takes them from, so that a simulation can bring its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from datetime import UTC, datetime, timedelta
from weakref import WeakSet

from tidings.core.ids import uuid7
from tidings.core.retry import seconds
from tidings.errors import BadArgument

MICROSECONDS = 1_000_000

_END = 253_402_300_800 * MICROSECONDS  # the year 10000, which no datetime can show

_unseeded: WeakSet[Clock] = WeakSet()


def _in_forked_child() -> None:
    for clock in list(_unseeded):
        clock.shuffle()


os.register_at_fork(after_in_child=_in_forked_child)


class Clock:
    """Wall time, random numbers and ids.

    Attributes:
        unseeded: True when nobody else can give the same ids: the machine chose where the random numbers begin.
    """

    def __init__(self, seed: int | None = None) -> None:
        """Use the machine's clock; `seed` makes the random numbers repeatable."""
        self._random = random.Random(seed)  # noqa: S311 - jitter and ids, no secrets
        self.draw = self._random.random
        self._begin_ids()
        self.unseeded = seed is None
        if self.unseeded:
            _unseeded.add(self)

    def shuffle(self) -> None:
        """Begin with other random numbers: a forked child must not give the ids that its parent and siblings give."""
        self._random.seed()
        self._begin_ids()

    def _begin_ids(self) -> None:
        self._middle = uuid7(0, self._random.getrandbits(74))[14:-12]
        self._numbers = itertools.count(self._random.getrandbits(47))  # which threads may share
        self._head = (-1, "")  # of the last id, with the millisecond that it is for

    def now(self) -> int:
        """Wall time, microseconds since 1970 UTC. Shown and used for due times, never for order or leases."""
        return time.time_ns() // 1000

    def id(self, now: int | None = None) -> str:
        """A new UUIDv7. Args: now: what `now` has just said, where it was asked already.

        All share 26 random bits; the other 48 are counted up from a random number (RFC 9562, section 6.2). To draw them
        anew each time takes longer than all the rest, most of all where the caches are cold.
        """
        unix_ms = (self.now() if now is None else now) // 1000
        made_for, head = self._head
        if made_for != unix_ms:
            head = f"{unix_ms >> 16:08x}-{unix_ms & 0xFFFF:04x}-{self._middle}"
            self._head = (unix_ms, head)
        return head + next(self._numbers).to_bytes(6).hex()

    def due(self, after: float | timedelta | None, at: datetime | None) -> int | None:
        """The wall time meant by `after` (seconds from now) or `at` (an aware datetime); None when neither is given.

        Raises:
            BadArgument: Both are given, `after` is negative or too long, or `at` has no time zone.
        """
        if after is None and at is None:
            return None
        if after is not None and at is not None:
            msg = "both after= and at= are given"
            raise BadArgument(msg, "give one of them")
        if after is not None:
            due = self.now() + int(seconds(after, "after") * MICROSECONDS)
            if due >= _END:
                msg = f"after is {after!r}, which leads beyond the year 9999"
                raise BadArgument(msg, "give seconds from now, or at=")
            return due
        given: object = at  # a caller without a type checker may give anything
        if not isinstance(given, datetime) or given.tzinfo is None:
            msg = f"at={at!r} is no datetime with a time zone"
            raise BadArgument(msg, "use an aware datetime: datetime.now(UTC) + timedelta(minutes=5)")
        return int(given.timestamp() * MICROSECONDS)


def as_datetime(microseconds: int) -> datetime:
    """Microseconds since 1970 UTC as an aware datetime."""
    return datetime.fromtimestamp(microseconds / MICROSECONDS, UTC)


def loop_time() -> float:
    """Seconds of the running event loop's clock, which never goes back: for pauses and deadlines of this process.

    Who asks often keeps the loop: to find it, Python 3.11 asks the system for the number of the process each time.
    """
    return asyncio.get_running_loop().time()
