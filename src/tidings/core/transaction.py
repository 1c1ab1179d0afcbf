"""What a handler may do in its transaction: effects, messages and the acknowledgement commit together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from tidings.core.operations import ANY
from tidings.core.ports import Rows

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Readable(Protocol[R_co]):
    """A part whose record of one key can be read inside a transaction: a replica or a decider."""

    async def read(self, key: str, tx: Transaction) -> R_co:
        """The record of a key as this transaction sees it."""


class Transaction(Protocol):
    """One atomic change: your rows, the messages you publish, and the acknowledgement of what you handle.

    A handler that takes `tx: Transaction` gets one; `async with app.transaction() as tx` opens one elsewhere.
    Do network calls before the first statement: from then on nobody else can write to the same SQLite file.
    """

    async def execute(self, sql: str, *params: Any) -> Rows:
        """Run one SQL statement. Placeholders are `?` on every store.

        Args:
            sql: One statement.
            params: One value for each placeholder.

        Returns:
            The rows (tuples); `rowcount` for a change.
        """

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one SQL statement once for each row of values."""

    async def connection(self) -> Any:
        """The driver's own connection, inside this transaction: for libraries that bring their own SQL.

        Ask for it anew in each handler, and leave beginning, committing and rolling back to tidings.

        Returns:
            On SQLite a `sqlite3.Connection`. On PostgreSQL a `psycopg.AsyncConnection` (in `app.blocking()` a
            `psycopg.Connection`) whose cursors take $1, $2...; make `psycopg.AsyncCursor(connection)` for %s.
        """

    async def publish(
        self, *messages: object, after: float | timedelta | None = None, at: datetime | None = None
    ) -> None:
        """Publish messages when, and only when, this transaction commits."""

    async def send(
        self, command: object, *, after: float | timedelta | None = None, at: datetime | None = None
    ) -> None:
        """Send a command when, and only when, this transaction commits."""

    async def get(self, part: Readable[R], key: object) -> R:
        """The record of a key: a replica's row (None if absent) or a decider's folded state."""

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events, as this transaction sees them."""

    async def append(self, stream: str, key: str, events: Sequence[object], expected: int = ANY) -> int:
        """Append events to a stream; returns the stream's version after it. Raises WrongVersion."""
