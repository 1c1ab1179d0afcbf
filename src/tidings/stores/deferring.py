"""Changes that are deferred: sent in one go with what follows, for most code does not look at what a change returns.

Where it does look, its transaction is spoiled: the result is not there. It is undone and done again, by those who asked
for deferring, and that statement is not deferred any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NoReturn

from tidings.stores.words import first_word

MOST = 64
"""Changes that wait to be sent."""
_CHANGES = frozenset(("INSERT", "UPDATE", "DELETE"))
_MOST_KNOWN = 10_000


class LookedAt(Exception):
    """Somebody looked at the result of a change that was deferred."""


class Deferring:
    """What one transaction may defer."""

    __slots__ = ("_is_spoiled", "_looked_at")

    def __init__(self, looked_at: set[str]) -> None:
        """Args: looked_at: statements whose results somebody looked at before; others are added."""
        self._looked_at = looked_at
        self._is_spoiled = False

    def allows(self, sql: str) -> bool:
        """True of a change whose result nobody has looked at yet."""
        return sql not in self._looked_at and _is_change(sql)

    def look(self, sql: str) -> NoReturn:
        """Somebody looks at the result of a statement."""
        if len(self._looked_at) > _MOST_KNOWN:
            self._looked_at.clear()
        self._looked_at.add(sql)
        self._is_spoiled = True
        self.check()
        raise AssertionError  # pragma: no cover - it is spoiled

    def check(self) -> None:
        """Raises LookedAt: Somebody did, even if that somebody caught it."""
        if self._is_spoiled:
            raise LookedAt


class Deferred:
    """Stands for the result of a change that was deferred; implements `tidings.core.ports.Rows`."""

    __slots__ = ("_deferring", "_sql")

    def __init__(self, deferring: Deferring, sql: str) -> None:
        self._deferring = deferring
        self._sql = sql

    @property
    def rowcount(self) -> int:
        """Not there yet."""
        self._deferring.look(self._sql)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self._deferring.look(self._sql)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Not there yet."""
        self._deferring.look(self._sql)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Not there yet."""
        self._deferring.look(self._sql)


@lru_cache(maxsize=10_000)
def _is_change(sql: str) -> bool:
    return first_word(sql) in _CHANGES and "RETURNING" not in sql.upper()
