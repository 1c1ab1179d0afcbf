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
    digits = f"{unix_ms << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
