"""What this process has just appended to the log, so that its groups need not read it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from tidings.core.envelope import Envelope

MOST = 2_000
"""Envelopes that are kept at most."""

MOST_BYTES = 4_000_000
"""Bytes of their data at most."""


class Recent:
    """A stretch of the log without a gap, of which the end moves on with every append and the beginning follows.

    Attributes:
        last: Its last position, 0 while there is none.
    """

    def __init__(self) -> None:
        self.last = 0
        self._kept: deque[Envelope] = deque()
        self._bytes = 0

    def appended(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """Note what was appended and committed, if it is all that the log has there, and as it was given."""
        first = positions[0] if positions else 0
        in_a_row = all(at == position for at, position in enumerate(positions, first))
        if first <= self.last or not in_a_row or any(each.stream for each in envelopes):
            return  # ids that were known have places of old; streams have versions of their own
        kept = self._kept
        if first != self.last + 1:
            kept.clear()
            self._bytes = 0
        replace = msgspec.structs.replace
        kept.extend([replace(one, position=at) for one, at in zip(envelopes, positions, strict=True)])
        self.last = positions[-1]
        self._bytes += sum(len(each.data) for each in envelopes)
        while len(kept) > MOST or self._bytes > MOST_BYTES:
            self._bytes -= len(kept.popleft().data)

    def holds(self, position: int) -> bool:
        """True where all of the log from this position to `last` is here."""
        return self.last - len(self._kept) < position <= self.last

    def read(
        self, after: int, until: int, limit: int, types: Sequence[str] | None, slots: set[int] | None
    ) -> list[Envelope]:
        """Envelopes with after < position <= until, in order, of these types and slots, None for all of them."""
        found: list[Envelope] = []
        kept, before = self._kept, self.last - len(self._kept)
        for at in range(max(after, before), min(until, self.last)):
            one = kept[at - before]
            if (types is None or one.type in types) and (slots is None or one.slot in slots):
                found.append(one)
                if len(found) == limit:
                    break
        return found
