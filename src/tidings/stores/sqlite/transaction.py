"""A transaction of somebody's own on the write connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from tidings.core.operations import Op
from tidings.errors import NotOpen, UsageError
from tidings.stores.deferring import Deferred, Deferring
from tidings.stores.sqlite.apply import apply_alone
from tidings.stores.sqlite.committer import Committer
from tidings.stores.words import first_word

_OURS = ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "PRAGMA", "VACUUM")
_REMEMBERED = 10_000
_NONE: Iterator[tuple[Any, ...]] = iter(())
_LOAD = "SELECT type, data, version FROM tidings_log WHERE stream = ? AND version > ? ORDER BY version"


class Lender(Protocol):
    """Who lends the write connection to transactions, and takes it back.

    Attributes:
        lent: Number of the transaction that has it, or 0.
    """

    lent: int

    def end(self, number: int, future: asyncio.Future[Any] | None, *, commit: bool) -> None:
        """On the writer's thread."""

    def end_now(self, number: int, *, commit: bool) -> None:
        """On this thread."""


class SqliteRows(msgspec.Struct, gc=False):
    """Result of a statement, read completely, so that no open cursor keeps an old snapshot alive."""

    _rows: Iterator[tuple[Any, ...]]
    rowcount: int

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rest of the rows."""
        return list(self._rows)


class SqliteTransaction:
    """Borrows the write connection until it ends; statements run on the caller's own thread, without suspending."""

    waiting = False  # nothing here suspends
    __slots__ = (
        "_blocking",
        "_checked",
        "_committer",
        "_connection",
        "_cursor",
        "_deferred",
        "_deferring",
        "_number",
        "_open",
        "_pending",
        "_same",
        "_writer",
    )

    def __init__(self, writer: Lender, committer: Committer, number: int, *, blocking: bool) -> None:
        self._writer = writer
        self._committer = committer
        self._connection = committer.connection
        self._cursor = self._connection.cursor()  # one for all: results are read before the next statement
        self._number = number
        self._blocking = blocking
        self._open = True
        self._checked = committer.checked
        self._deferring: Deferring | None = None
        self._same = ""  # the statement that is pending, for these rows
        self._pending: list[Sequence[Any]] = []
        self._deferred: Deferred | None = None  # what stands for its result

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> SqliteRows | Deferred:
        """Run one statement here and now, unless it is a change that may be deferred."""
        if self._deferred is not None and sql == self._same:  # if the store was closed, the commit says so
            self._pending.append(params)
            return self._deferred
        if self._writer.lent != self._number or sql not in self._checked:
            self._check(sql)
        if self._deferring is not None:
            self._catch_up()
            if self._deferring.allows(sql):
                self._same, self._deferred = sql, Deferred(self._deferring, sql)
                self._pending.append(params)
                return self._deferred
        try:
            cursor = self._cursor.execute(sql, params)
            if cursor.description is None:
                return SqliteRows(_NONE, cursor.rowcount)
            return SqliteRows(iter(cursor.fetchall()), cursor.rowcount)
        except sqlite3.OperationalError as error:
            raise self._committer.explained(error) from error

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows."""
        self._check(sql)
        self._catch_up()
        self._run(sql, rows)

    def _run(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.OperationalError as error:
            raise self._committer.explained(error) from error

    def _catch_up(self) -> None:
        """Run what was deferred; what comes now may see it."""
        if self._pending:
            rows, self._pending, self._deferred = self._pending, [], None
            self._run(self._same, rows)

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events, as this transaction sees them."""
        self._check("")
        self._catch_up()
        return self._connection.execute(_LOAD, (stream, after)).fetchall()

    async def apply(self, op: Op) -> Any:
        """Apply an operation as part of this transaction; one that is refused leaves nothing behind."""
        self._check("")
        self._catch_up()
        return apply_alone(self._committer.changes, op)

    async def connection(self) -> sqlite3.Connection:
        """The write connection."""
        self._check("")
        self._catch_up()
        return self._connection

    async def savepoint(self) -> None:
        """Mark a place to come back to."""
        if self._writer.lent != self._number:
            self._check("")
        self._catch_up()
        self._cursor.execute("SAVEPOINT tidings_delivery")

    async def keep(self) -> None:
        """Keep what was done since the savepoint."""
        if self._writer.lent != self._number:
            self._check("")
        self._cursor.execute("RELEASE tidings_delivery")

    async def undo(self) -> None:
        """Undo what was done since the savepoint."""
        self._check("")
        self._connection.execute("ROLLBACK TO tidings_delivery")
        self._connection.execute("RELEASE tidings_delivery")
        self._committer.changes.forget()

    def defer(self) -> None:
        """From now on, run changes of which nobody looks at the result together with their like."""
        self._deferring = Deferring(self._committer.looked_at)

    async def flush(self) -> None:
        """Have done what was deferred. Raises what it fails with, also if somebody did look at a result."""
        self._check("")
        if self._deferring is not None:
            self._deferring.check()
            self._catch_up()

    async def commit(self) -> None:
        """Make it durable. A transaction that changed nothing ends without touching the disk."""
        self._check("")
        self._catch_up()
        if not self._connection.in_transaction:
            await self.rollback()
            raise UsageError("the transaction ended before its commit", "leave COMMIT and ROLLBACK to tidings")
        self._open = False
        if self._blocking or not self._committer.changed:
            self._writer.end_now(self._number, commit=True)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer.end(self._number, future, commit=True)
        await future

    async def rollback(self) -> None:
        """Undo it all. Safe to call twice."""
        if self._open:
            self._open = False
            self._writer.end_now(self._number, commit=False)

    def abandon(self) -> None:
        """Have it rolled back by the writer: nobody will end it."""
        if self._open:
            self._open = False
            self._writer.end(self._number, None, commit=False)

    def interrupt(self) -> None:
        """Make the statement that runs now fail, from any thread."""
        if self._open:
            self._connection.interrupt()

    def __del__(self) -> None:
        self.abandon()

    def _check(self, sql: str) -> None:
        if self._writer.lent != self._number:
            if self._open:
                raise NotOpen("the store was closed before this transaction ended", "commit before closing")
            raise UsageError("this transaction has ended", "use it only where it was given, before commit and rollback")
        if sql and sql not in self._checked:
            word = first_word(sql)
            if word in _OURS:
                raise UsageError(
                    f"{word} inside a transaction", "tidings begins and ends transactions and owns the settings"
                )
            if len(self._checked) > _REMEMBERED:
                self._checked.clear()
            self._checked.add(sql)
