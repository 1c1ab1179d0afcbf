"""Arrays as PostgreSQL's text form of them, which is quicker to write than what the driver makes of lists."""

from __future__ import annotations

from collections.abc import Iterable


def integers(values: Iterable[int | None]) -> str:
    """An integer[] or bigint[]."""
    return f"{{{','.join(['NULL' if value is None else str(value) for value in values])}}}"


def texts(values: Iterable[str | None]) -> str:
    """A text[]."""
    return f"{{{','.join(['NULL' if value is None else _quoted(value) for value in values])}}}"


def blobs(values: Iterable[bytes | None]) -> str:
    r"""A bytea[]; each element is written as \x and its bytes in hexadecimal."""
    return f"{{{','.join(['NULL' if value is None else _blob(value) for value in values])}}}"


def _blob(value: bytes) -> str:
    return f'"\\\\x{value.hex()}"'


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
