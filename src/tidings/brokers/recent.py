"""What this process has just appended to the log, so that its groups need not read it again."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from tidings.core.envelope import Envelope

MOST = 2_000
"""Envelopes that are kept at most."""

MOST_BYTES = 4_000_000
"""Bytes of their data at most."""

_position = attrgetter("position")


class Recent:
    """A stretch of the log without a gap, of which the end moves on with every append and the beginning follows.

    Attributes:
        last: Its last position, 0 while there is none.
    """

    def __init__(self) -> None:
        self.last = 0
        self._batches: deque[list[Envelope]] = deque()
        self._count = self._bytes = 0

    def appended(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """Note what was appended and committed, if it is all that the log has there, and as it was given."""
        first = positions[0] if positions else 0
        in_a_row = all(at == position for at, position in enumerate(positions, first))
        if not first or not in_a_row or any(each.stream for each in envelopes):
            return  # ids that were known have places of old; streams have versions of their own
        if first != self.last + 1:
            self._batches.clear()
            self._count = self._bytes = 0
        replace = msgspec.structs.replace
        self._batches.append([replace(one, position=at) for one, at in zip(envelopes, positions, strict=True)])
        self.last = positions[-1]
        self._count += len(envelopes)
        self._bytes += sum(len(each.data) for each in envelopes)
        while self._count > MOST or self._bytes > MOST_BYTES:
            gone = self._batches.popleft()
            self._count -= len(gone)
            self._bytes -= sum(len(each.data) for each in gone)

    def holds(self, position: int) -> bool:
        """True where all of the log from this position to `last` is here."""
        return bool(self._batches) and self._batches[0][0].position <= position <= self.last

    def read(
        self, after: int, until: int, limit: int, types: Sequence[str] | None, slots: set[int] | None
    ) -> list[Envelope]:
        """Envelopes with after < position <= until, in order, of these types and slots, None for all of them."""
        found: list[Envelope] = []
        for batch in self._batches:
            if batch[-1].position <= after:
                continue
            for one in batch[bisect_right(batch, after, key=_position) :]:
                if one.position > until or len(found) == limit:
                    return found
                if (types is None or one.type in types) and (slots is None or one.slot in slots):
                    found.append(one)
        return found
