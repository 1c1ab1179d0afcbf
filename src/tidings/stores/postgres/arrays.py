"""Arrays in PostgreSQL's own forms of them, which are quicker to write than what the driver makes of lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

_HEAD, _LENGTH = Struct(">iiiii"), Struct(">i")
_NULL = _LENGTH.pack(-1)
_BYTEA = 17


def integers(values: Iterable[int | None]) -> str:
    """An integer[] or bigint[]."""
    return f"{{{','.join(['NULL' if value is None else str(value) for value in values])}}}"


def texts(values: Sequence[str | None]) -> str:
    """A text[]."""
    if None not in values:
        joined = '","'.join(values)  # type: ignore[arg-type]
        if joined.count('"') == 2 * (len(values) - 1) and "\\" not in joined:  # nothing needs a backslash
            return f'{{"{joined}"}}'
    return f"{{{','.join(['NULL' if value is None else _quoted(value) for value in values])}}}"


def blobs(values: Sequence[bytes | None]) -> bytes:
    """A bytea[] in its binary form, which is quicker to read for the server too.

    Its head are the number of dimensions, whether NULL occurs, the type, and the length and first index of the one
    dimension; -1 is the length of NULL (PostgreSQL, src/backend/utils/adt/arrayfuncs.c, array_recv).
    """
    parts = [_HEAD.pack(1, None in values, _BYTEA, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (_LENGTH.pack(len(value)), value)
    return b"".join(parts)


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
