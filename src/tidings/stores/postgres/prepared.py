"""What one connection has prepared: its statements by text and types of their values."""

from __future__ import annotations

from collections import OrderedDict

MOST = 200
"""Statements that one connection keeps prepared."""

Key = tuple[str, tuple[int, ...]]


class Prepared:
    """Names of prepared statements; those that were not used for the longest time go first."""

    def __init__(self) -> None:
        self._names: OrderedDict[Key, bytes] = OrderedDict()
        self._number = 0

    def name(self, key: Key) -> bytes | None:
        """The name of a statement, None where it is not prepared."""
        name = self._names.get(key)
        if name is not None:
            self._names.move_to_end(key)
        return name

    def new_name(self) -> bytes:
        """A name that no statement has."""
        self._number += 1
        return b"tidings_%d" % self._number

    def keep(self, key: Key, name: bytes) -> None:
        """It is prepared now."""
        self._names[key] = name

    def surplus(self) -> list[bytes]:
        """Names to give up, because there are too many."""
        return [self._names.popitem(last=False)[1] for _ in range(len(self._names) - MOST)]

    def forget(self) -> list[bytes]:
        """Names to give up: all."""
        names = list(self._names.values())
        self._names.clear()
        return names
