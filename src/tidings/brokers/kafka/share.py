"""One worker's share of a topic: a partition, from the moment it was assigned until it is taken away."""

from __future__ import annotations

import re

import msgspec

_METADATA = re.compile(r"tidings/1 partitions=([0-9]{1,9})(?: topic=(\S{1,64}))?")


class Known(msgspec.Struct, frozen=True):
    """What is remembered beside a committed offset: to which topic it belongs.

    Attributes:
        partitions: How many partitions the topic had.
        topic: Its id, which another topic of the same name does not have; "" where the broker knows none.
    """

    partitions: int
    topic: str = ""

    def text(self) -> str:
        """As it is committed."""
        return f"tidings/1 partitions={self.partitions}" + (f" topic={self.topic}" if self.topic else "")

    @classmethod
    def read(cls, text: str | None) -> Known | None:
        """Of what was committed; None where it is not by us, as when offsets were set by a tool."""
        found = _METADATA.fullmatch(text or "")
        return cls(int(found[1]), found[2] or "") if found else None


class Share:
    """A partition that this worker has, and how far it is.

    A new one is made whenever a partition is assigned: what is settled for an earlier one no longer counts. Offsets
    have gaps (markers of transactions, compaction); what lies in a gap needs no settling.

    Attributes:
        topic: Name in Kafka.
        partition: Number.
        known: What is committed beside the offset.
        position: Everything before this offset is settled.
        dirty: True while `position` is ahead of what was committed.
        gone: True when the partition was taken away.
    """

    __slots__ = ("_next", "_taken", "dirty", "gone", "known", "partition", "position", "topic")

    def __init__(self, topic: str, partition: int, position: int, known: Known, *, dirty: bool) -> None:
        """Args: position: first offset to come. dirty: whether it is yet to be committed."""
        self.topic = topic
        self.partition = partition
        self.known = known
        self.position = position
        self.dirty = dirty
        self.gone = False
        self._next = position
        self._taken: dict[int, None] = {}

    @property
    def next(self) -> int:
        """The offset after the last one that came."""
        return self._next

    def took(self, offset: int) -> None:
        """Note that a message was received."""
        self._taken[offset] = None
        self._next = offset + 1

    def reached(self, offset: int) -> None:
        """Note that there is nothing before this offset which has not come."""
        self._next = max(self._next, offset)

    def settled(self, offset: int) -> None:
        """Note that a message is safe."""
        self._taken.pop(offset, None)

    def advance(self) -> bool:
        """Move the position as far as everything is settled; True when there is something to commit."""
        position = next(iter(self._taken), self._next)
        if position > self.position:
            self.position = position
            self.dirty = True
        return self.dirty


class Spot(msgspec.Struct, frozen=True, gc=False):
    """Where a message lies, for as long as its partition is this worker's.

    Attributes:
        share: The partition.
        offset: In it.
    """

    share: Share
    offset: int

    def __str__(self) -> str:
        return f"{self.share.topic}[{self.share.partition}] at offset {self.offset}"
