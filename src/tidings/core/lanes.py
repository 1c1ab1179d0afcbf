"""Lanes: deliveries of one key one after the other, those of different keys side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """Holds deliveries and gives out the next one whose key is not being handled.

    Keys take turns: a key with many deliveries does not keep the others waiting. A delivery without a key has a lane
    of its own. Every method but `drop` takes constant time.

    Attributes:
        waiting: Number of deliveries not taken yet.
        running: Number of deliveries taken and not finished.
    """

    __slots__ = ("_behind", "_claimed", "_ready", "running", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.running = 0
        self._ready: deque[tuple[str | None, T]] = deque()  # what may be taken, at most one of each key
        self._claimed: set[str] = set()  # keys that are ready or running
        self._behind: dict[str, deque[T]] = {}  # what follows the claiming one of its key, in order

    def __len__(self) -> int:
        """Number of deliveries waiting or running."""
        return self.waiting + self.running

    @property
    def ready(self) -> int:
        """Number of deliveries that may be taken now: those whose key is not being handled."""
        return len(self._ready)

    def claims(self, key: str | None) -> bool:
        """True while a delivery of the key waits or runs."""
        return key in self._claimed

    def add(self, key: str | None, delivery: T) -> None:
        """Put a delivery at the end of the lane of its key."""
        self.waiting += 1
        if key is None:
            self._ready.append((None, delivery))
        elif key not in self._claimed:
            self._claimed.add(key)
            self._ready.append((key, delivery))
        elif (behind := self._behind.get(key)) is not None:
            behind.append(delivery)
        else:
            self._behind[key] = deque((delivery,))

    def take(self) -> T | None:
        """The next delivery whose key is not being handled, or None. Say `finish(key)` when it ended."""
        if not self._ready:
            return None
        self.waiting -= 1
        self.running += 1
        return self._ready.popleft()[1]

    def finish(self, key: str | None) -> None:
        """The delivery taken of this key ended: the next one of the key may be taken."""
        self.running -= 1
        if key is None:
            return
        behind = self._behind.get(key)
        if behind is None:
            self._claimed.discard(key)
            return
        self._ready.append((key, behind.popleft()))
        if not behind:
            del self._behind[key]

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove waiting deliveries; those that run are not touched.

        Args:
            unwanted: Tells which.

        Returns:
            The removed deliveries; those of one key in the order in which they were added.
        """
        dropped: list[T] = []

        def sift(deliveries: list[T]) -> deque[T]:
            kept: deque[T] = deque()
            for delivery in deliveries:
                (dropped if unwanted(delivery) else kept).append(delivery)
            return kept

        ready, behind = self._ready, self._behind
        self._ready, self._behind = deque(), {}
        for key, first in ready:
            kept = sift([first] if key is None else [first, *behind.pop(key, ())])
            if kept:
                self._ready.append((key, kept.popleft()))
            elif key is not None:
                self._claimed.discard(key)
            if kept and key is not None:
                self._behind[key] = kept
        for key, waiting in behind.items():  # of keys that run
            if kept := sift(list(waiting)):
                self._behind[key] = kept
        self.waiting -= len(dropped)
        return dropped
