"""The watermark: up to where everything is finished, when things finish out of order."""

from __future__ import annotations

from collections import deque


class Watermark:
    """Follows deliveries that are taken in order of position and finish in any order.

    Attributes:
        position: Everything up to here is finished: what was taken, and what was scanned and not wanted. Never moves
            backwards. Read it, do not set it.
    """

    __slots__ = ("_finished", "_seen", "_taken", "position")

    def __init__(self, start: int) -> None:
        """Args: start: position up to which everything is finished already."""
        self.position = start
        self._seen = start
        self._taken: deque[int] = deque()  # taken, from the first unfinished one on
        self._finished: set[int] = set()  # finished beyond the first unfinished one

    def took(self, position: int) -> None:
        """A delivery was taken.

        Raises:
            ValueError: A later one was taken before; the watermark may have passed this one already.
        """
        if position <= self._seen:
            msg = f"position {position} is taken after position {self._seen}"
            raise ValueError(msg)
        if not self._taken:
            self.position = position - 1
        self._seen = position
        self._taken.append(position)

    def finished(self, position: int) -> None:
        """The delivery at this position ended. One that was never taken is ignored."""
        taken, finished = self._taken, self._finished
        if not taken or not taken[0] <= position <= self._seen:
            return
        finished.add(position)
        if position != taken[0]:
            return
        while taken and taken[0] in finished:
            finished.discard(taken.popleft())
        if taken:
            self.position = taken[0] - 1
        else:
            self.position = self._seen
            finished.clear()

    def advance_to(self, position: int) -> None:
        """Everything up to here was scanned: what was not taken is not wanted."""
        if position > self._seen:
            self._seen = position
            if not self._taken:
                self.position = position
