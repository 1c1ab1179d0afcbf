"""What a statement gave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidings.stores.postgres.steps import Result


class PostgresRows:
    """Result of a statement, read completely."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, result: Result) -> None:
        self._rows: Iterator[tuple[Any, ...]] = iter(result.rows)
        self.rowcount = result.changed

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rest of the rows."""
        return list(self._rows)
