"""Strict JSON: what comes from outside is read only if every reader would read the same.

Names that stand twice in an object, numbers that no float holds, lone surrogates and deep nesting are refused, because
readers differ in what they make of them.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from tidings.errors import Unreadable

MAX_DEPTH = 100
"""Levels of nesting that are written and read, the outermost object included."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_SIGNATURES = {
    b"\x1f\x8b": "is compressed with gzip",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd",
    b"\xef\xbb\xbf": "begins with a byte order mark",
    b"\xff\xfe": "is UTF-16, not UTF-8",
    b"\xfe\xff": "is UTF-16, not UTF-8",
    b"\x00": "is UTF-16 or UTF-32, not UTF-8",
    b"{\x00": "is UTF-16 or UTF-32, not UTF-8",
}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def read_json(body: bytes, what: str) -> Any:
    """The value that these bytes hold.

    Args:
        body: JSON in UTF-8, as it came.
        what: How it is called in messages: "the body", "data".

    Raises:
        Unreadable: Not JSON, or JSON that readers may take differently; says why.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        try:
            value = _decode(body)
            if _encode(value) == body:  # as we write it: no name repeats, and nothing is odd
                return value
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # what is wrong with it is found out below
    return _read_closely(body, what)


def _read_closely(body: bytes, what: str) -> Any:
    if not body:
        raise _unreadable(f"{what} is empty")
    for signature, meaning in _SIGNATURES.items():
        if body.startswith(signature):
            raise _unreadable(f"{what} {meaning}")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(f"{what} is not UTF-8: byte {error.start + 1} is 0x{body[error.start]:02x}") from error
    try:
        value = _decode(body)
    except RecursionError:
        raise too_deep(what) from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise _unreadable(f"{what} is not JSON: {error}") from error
    if is_deep(body):
        raise too_deep(what)

    def once(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise _unreadable(f"{what} has the name {twice[:40]!r} twice in one object")

    json.loads(text, object_pairs_hook=once, parse_int=str, parse_float=str)  # msgspec does not see names that repeat
    return value


def place_of(error: Exception, root: str) -> tuple[str, str]:
    """Where a decoder of msgspec stumbled, as a path such as `data.items[3].x`, and why.

    Args:
        error: What it raised.
        root: How the outermost object is called: "data", or "".
    """
    reason, _, place = str(error).partition(" - at ")
    path = root + place.replace("`key` in ", "").strip("`").removeprefix("$")
    missing = re.match(r"Object missing required field `([^`]+)`", reason)
    return (f"{path}.{missing[1]}", "it is missing") if missing else (path, reason)


def is_deep(data: bytes) -> bool:
    """True where well-formed JSON nests deeper than MAX_DEPTH."""
    if len(data) <= 2 * MAX_DEPTH or data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for char in re.findall(rb"[\[\]{}]", _STRING.sub(b"", data)):
        depth += 1 if char in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def too_deep(what: str) -> Unreadable:
    """The error for nesting beyond MAX_DEPTH."""
    return _unreadable(f"{what} nests deeper than {MAX_DEPTH} levels")


def _unreadable(what: str) -> Unreadable:
    return Unreadable(what, "send JSON as RFC 8259 asks, in UTF-8")
