"""The envelope: a message with its CloudEvents attributes, as stored and sent."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec

SLOTS = 16
"""Keys are spread over this many slots; workers of one group share the slots by leases."""


STATES = "state:"
"""Streams of states are named `state:TYPE:KEY`; a store keeps the newest record of each in a table of its own."""


TOMBSTONES = (b"", b"null")
"""Data of a state that says its record is gone; null is how others write it."""


def slot_of(key: str) -> int:
    """The slot (0 to SLOTS - 1) of a key. CRC-32 is stable across processes, versions and machines."""
    return zlib.crc32(key.encode()) % SLOTS


def share(group: str, slots: int, member: str, members: Sequence[str]) -> int:
    """How many slots of a group a worker should hold: an even share; a single slot goes to one worker by name.

    Args:
        group: Full name.
        slots: How many the group has.
        member: The worker.
        members: All that run the group; the worker itself need not be among them.
    """
    known = sorted({*members, member})
    first = zlib.crc32(group.encode()) % len(known)
    turn = (known.index(member) - first) % len(known)  # so that remainders do not all go to the same worker
    return slots // len(known) + (1 if turn < slots % len(known) else 0)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One message as stored: CloudEvents 1.0 attributes, routing, place in the log, and the encoded data.

    The field order is the column order of the log, so that a row becomes an envelope without naming columns.

    Attributes:
        position: Place in the log, from 1; 0 while not yet stored.
        id: CloudEvents `id` (UUIDv7 unless given). `(source, id)` is unique in a store.
        source: CloudEvents `source`: the name of the app that published it.
        type: CloudEvents `type`: the stable message name, never an import path.
        schema: Version of the message type's schema, from 1.
        topic: Where it is published; None keeps it private to its app.
        key: Orders, partitions and names the stream; None means unordered. CloudEvents `subject`.
        slot: Lease slot of the key, 0 to SLOTS - 1.
        stream: Stream it belongs to, or None.
        version: Place in that stream, from 1, or None.
        time: Publication time, microseconds since 1970 UTC. Shown, never used for order.
        correlation: Id of the message that started the whole conversation; None means its own id.
        causation: Id of the message whose handling published this one, or None.
        traceparent: W3C trace context, carried along unchanged, or None.
        headers: Other CloudEvents extension attributes as a JSON object, or None.
        data: The message as JSON (UTF-8); empty for the tombstone of a state.
    """

    position: int
    id: str
    source: str
    type: str
    schema: int
    topic: str | None
    key: str | None
    slot: int
    stream: str | None
    version: int | None
    time: int
    correlation: str | None
    causation: str | None
    traceparent: str | None
    headers: bytes | None
    data: bytes

    @property
    def conversation(self) -> str:
        """The correlation id: that of the first message of the conversation."""
        return self.correlation or self.id


class Excerpt(msgspec.Struct, frozen=True, gc=False):
    """What of an envelope it takes to handle it, and to publish what it causes; reading the rest takes as long again.

    Attributes:
        position: As in `Envelope`, like all others.
        id: See there.
        type: See there.
        schema: See there.
        key: See there.
        slot: See there.
        correlation: See there.
        traceparent: See there.
        headers: See there.
        data: See there.
    """

    position: int
    id: str
    type: str
    schema: int
    key: str | None
    slot: int
    correlation: str | None
    traceparent: str | None
    headers: bytes | None
    data: bytes

    @property
    def conversation(self) -> str:
        """The correlation id: that of the first message of the conversation."""
        return self.correlation or self.id


Seen = Envelope | Excerpt
"""What is handled."""
