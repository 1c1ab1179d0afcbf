"""The watermark: up to where everything is finished, when things finish out of order."""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import pairwise, repeat
from operator import ge


class Watermark:
    """Follows deliveries that are taken in order of position and finish in any order.

    It remembers what is unfinished, and nothing else: one slow delivery costs no memory for all that pass it.

    Attributes:
        position: Everything up to here is finished: what was taken, and what was scanned and not wanted. Only `join`
            moves it backwards. Read it, do not set it.
    """

    __slots__ = ("_seen", "_unfinished", "position")

    def __init__(self, start: int) -> None:
        """Args: start: position up to which everything is finished already."""
        self.position = start
        self._seen = start
        self._unfinished: OrderedDict[int, None] = OrderedDict()  # ascending; its first key is found at once

    def took(self, *positions: int) -> None:
        """Deliveries were taken, in this order.

        Raises:
            ValueError: A later one was taken before; the watermark may have passed this one already.
        """
        if not positions:
            return
        in_order = (self._seen, *positions)
        if any(map(ge, in_order, positions)):
            before, position = next(pair for pair in pairwise(in_order) if pair[0] >= pair[1])
            msg = f"position {position} is taken after position {before}"
            raise ValueError(msg)
        if not self._unfinished:
            self.position = positions[0] - 1
        self._unfinished.update(dict.fromkeys(positions))
        self._seen = positions[-1]

    def finished(self, *positions: int) -> None:
        """The deliveries at these positions ended. One that was never taken is ignored."""
        unfinished = self._unfinished
        if not unfinished:
            return
        deque(map(unfinished.pop, positions, repeat(None)), maxlen=0)  # a loop takes three times as long
        self.position = next(iter(unfinished)) - 1 if unfinished else self._seen

    def advance_to(self, position: int) -> None:
        """Everything up to here was scanned: what was not taken is not wanted."""
        if position > self._seen:
            self._seen = position
            if not self._unfinished:
                self.position = position

    def join(self, other: Watermark) -> None:
        """Follow from now on what another one follows, too, which has seen as much."""
        self._seen = max(self._seen, other._seen)
        self._unfinished = OrderedDict.fromkeys(sorted([*self._unfinished, *other._unfinished]))
        self.position = next(iter(self._unfinished)) - 1 if self._unfinished else self._seen
