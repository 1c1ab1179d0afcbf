"""What this process has just appended to the log, so that its groups need not read it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from operator import attrgetter

import msgspec

from tidings.core.envelope import Envelope

MOST = 2_000
"""Envelopes that are kept at most."""

MOST_BYTES = 4_000_000
"""Bytes of their data at most."""

_stream, _data = attrgetter("stream"), attrgetter("data")


class Recent:
    """The end of the log: where it is, and a stretch of it without a gap that moves on with what is appended here.

    Attributes:
        last: Last position of the stretch, 0 while there is none.
        end: Where the log ends; None while nobody here knows.
    """

    def __init__(self) -> None:
        self.last = 0
        self.end: int | None = None
        self._changes = 0
        self._kept: deque[Envelope] = deque()
        self._bytes = 0

    def changed(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """Note that the log may have grown: to where the last of the positions is, or nobody knows how far.

        What is at hand may be told late: then it says nothing of an end that was heard of before, or is unknown by now.
        """
        self._changes += 1
        if not envelopes:
            self.end = positions[-1] if positions else None
        elif self.end is not None:
            self.end = max(self.end, positions[-1])
        if envelopes:
            self.appended(envelopes, positions)

    async def look(self, head: Callable[[], Awaitable[int]]) -> int:
        """Where the log ends. It is asked for only where it may have changed, once somebody says when it does.

        Args: head: asks the store.
        """
        if self.end is not None:
            return self.end
        before = self._changes
        end = await head()
        if before and before == self._changes:
            self.end = end
        return end

    def appended(self, envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
        """Keep what was appended and committed, if it is all that the log has there, and as it was given."""
        first = positions[0] if positions else 0
        if first <= self.last or not in_a_row(positions) or any(map(_stream, envelopes)):
            return  # ids that were known have places of old; streams have versions of their own
        kept = self._kept
        if first != self.last + 1:
            kept.clear()
            self._bytes = 0
        replace = msgspec.structs.replace
        kept.extend([replace(one, position=at) for one, at in zip(envelopes, positions, strict=True)])
        self.last = positions[-1]
        self._bytes += sum(map(len, map(_data, envelopes)))
        while len(kept) > MOST or self._bytes > MOST_BYTES:
            self._bytes -= len(kept.popleft().data)

    def holds(self, after: int, until: int) -> bool:
        """True where all of the log with after < position <= until is here."""
        return self.last - len(self._kept) <= after and until <= self.last

    def read(
        self, after: int, until: int, limit: int, types: Sequence[str] | None, slots: Collection[int] | None, app: str
    ) -> list[Envelope]:
        """Of what it holds, envelopes in order, of these types and slots, None for all; private ones only of `app`."""
        kept, before = self._kept, self.last - len(self._kept)
        found = [kept[at] for at in range(after - before, until - before)]  # at its end, mostly: not by `islice`
        if types is not None:
            found = [one for one in found if one.type in types]
        if slots is not None:
            found = [one for one in found if one.slot in slots]
        return [one for one in found if one.topic is not None or one.source == app][:limit]


def in_a_row(positions: Sequence[int]) -> bool:
    """True where positions follow each other without a gap."""
    first = positions[0]
    return tuple(positions) == tuple(range(first, first + len(positions)))
