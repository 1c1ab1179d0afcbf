"""Text that is safe to show: what a stranger stored must not move the cursor, colour the screen or reverse a line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# DEL and the 8-bit controls; invisible, line-breaking and direction-changing characters; lone surrogates.
_BEYOND = "\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
_UNSAFE = re.compile(f"[\x00-\x1f{_BEYOND}]")
_UNSAFE_IN_JSON = re.compile(f"[{_BEYOND}]")  # JSON escapes those below space by itself
_NOT_ASCII = re.compile("[^\x00-\x7f]")
_NAMED = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}

CELL = 200
"""Longest text in one cell of a table, characters."""
LINE = 10_000
"""Longest line of a longer text, characters."""


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    code = ord(char)
    return _NAMED.get(char) or (f"\\u{code:04x}" if code >> 8 else f"\\x{code:02x}")


def _escape_json(found: re.Match[str]) -> str:
    code = ord(found.group())
    if not code >> 16:
        return f"\\u{code:04x}"
    code -= 1 << 16  # beyond the first 65,536 characters JSON writes two halves, as UTF-16 does
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def one_line(value: object, limit: int = CELL) -> str:
    """The value as one line of visible characters, cut at `limit` characters with a note of how many are missing."""
    text = value if isinstance(value, str) else str(value)
    missing = len(text) - limit
    shown = _UNSAFE.sub(_escape, text[:limit])
    return shown if missing <= 0 else f"{shown}... (+{missing:,} characters)"


def lines(text: str) -> list[str]:
    """A longer text line by line, each of visible characters and cut at LINE characters."""
    return [one_line(line.replace("\t", "    "), LINE) for line in text.splitlines()]


def safe_json(text: str, *, ascii_only: bool = False) -> str:
    r"""JSON of the same meaning whose strings hold no unsafe character.

    Outside strings valid JSON has ASCII only, and inside them `\uXXXX` (RFC 8259, section 7) means the same as the
    character, so replacing characters in the text is enough. Line breaks between tokens stay.

    Args:
        text: Valid JSON.
        ascii_only: Escape everything beyond ASCII, for streams of another encoding than UTF-8.
    """
    text = _UNSAFE_IN_JSON.sub(_escape_json, text)
    return _NOT_ASCII.sub(_escape_json, text) if ascii_only else text


def iso(microseconds: int) -> str:
    """Microseconds since 1970 UTC as ISO 8601 in UTC, or the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(microseconds / 1_000_000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    except (ValueError, OverflowError, OSError):
        return str(microseconds)


def plural(count: int, word: str, many: str = "") -> str:
    """A count with its word: `1 event`, `2,000 events`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"
