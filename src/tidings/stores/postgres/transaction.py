"""A transaction of somebody's own, on a connection of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from tidings.core.operations import Appended, Op
from tidings.errors import StoreError, TidingsError, UsageError
from tidings.stores.postgres.apply import APPLY, BEGIN, COMMIT
from tidings.stores.postgres.failures import explain, is_lost
from tidings.stores.postgres.placeholders import numbered
from tidings.stores.postgres.reads import LOAD
from tidings.stores.postgres.steps import Result, Statement, Steps
from tidings.stores.words import first_word

T = TypeVar("T")

_OURS = frozenset(("ABORT", "BEGIN", "COMMIT", "END", "PREPARE", "RELEASE", "ROLLBACK", "SAVEPOINT", "START"))
_SAVE, _KEEP = "SAVEPOINT tidings_delivery", "RELEASE SAVEPOINT tidings_delivery"
_SAVE_OP, _KEEP_OP = "SAVEPOINT tidings_op", "RELEASE SAVEPOINT tidings_op"
_UNDO: Statement = ("ROLLBACK TO SAVEPOINT tidings_delivery", ())
_UNDO_OP: Statement = ("ROLLBACK TO SAVEPOINT tidings_op", ())


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


class PostgresTransaction:
    """Borrows a connection until it ends.

    What begins the transaction, and what marks and keeps savepoints, goes out in one go just before the next statement;
    where there is none, it costs nothing.
    """

    def __init__(
        self,
        connection: Connection[Any] | AsyncConnection[Any],
        drive: Callable[[Steps[Any]], Awaitable[Any]],
        give: Callable[[], None],
        grew: Callable[[int], None],
        place: str,
    ) -> None:
        """Args: drive: runs steps on the connection. give: takes it back. grew: called after a commit of operations."""
        self._connection = connection
        self._drive = drive
        self._give = give
        self._grew = grew
        self._place = place
        self._pending = [BEGIN[0]]
        self.waiting = False
        self._open = True
        self._begun = False
        self._appended: int | None = None  # the last position, once an operation was applied

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> PostgresRows:
        """Run one statement."""
        self._check(sql)
        return PostgresRows(await self._send((numbered(sql), params)))

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows, in one round trip."""
        self._check(sql)
        text = numbered(sql)
        if rows:
            await self._run(_all([(text, row) for row in rows]))

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events, as this transaction sees them."""
        self._check("")
        return (await self._send((LOAD, (stream, after)))).rows

    async def apply(self, op: Op) -> Any:
        """Apply an operation as part of this transaction; one that is refused leaves nothing behind."""
        self._check("")
        self._pending.append(_SAVE_OP)
        try:
            result = await self._run(APPLY[type(op)](op))
        except (psycopg.Error, TidingsError) as error:
            if self._pending and self._pending[-1] == _SAVE_OP:  # refused before anything was sent
                self._pending.pop()
            else:
                await self._go_back(_UNDO_OP, _KEEP_OP)
            raise explain(error, self._place, op) from error.__cause__
        if self._pending and self._pending[-1] == _SAVE_OP:
            self._pending.pop()
        else:
            self._pending.append(_KEEP_OP)
        self._appended = max(self._appended or 0, result.position if isinstance(result, Appended) else 0)
        return result

    async def connection(self) -> Connection[Any] | AsyncConnection[Any]:
        """The connection, once what is pending was sent."""
        self._check("")
        if self._pending:
            await self._run(_all([]))
        return self._connection

    async def savepoint(self) -> None:
        """Mark a place to come back to."""
        self._check("")
        self._pending.append(_SAVE)

    async def keep(self) -> None:
        """Keep what was done since the savepoint."""
        self._check("")
        if self._pending and self._pending[-1] == _SAVE:
            self._pending.pop()
        else:
            self._pending.append(_KEEP)

    async def undo(self) -> None:
        """Undo what was done since the savepoint."""
        self._check("")
        if self._pending and self._pending[-1] == _SAVE:
            self._pending.pop()
        else:
            await self._go_back(_UNDO, _KEEP)

    async def _go_back(self, undo: Statement, keep: str) -> None:
        """Undo at once, and by itself: the driver forgets its prepared statements then, which it must not do midway."""
        if not self._connection.closed:
            self._pending = []
            await self._send(undo)
            self._pending = [keep]

    async def commit(self) -> None:
        """Make it durable.

        Raises:
            StoreError: A statement failed before, so that the database undid everything.
            OutcomeUnknown: The connection broke before the answer came.
        """
        self._check("")
        if not self._begun:
            self._end()
            return
        try:
            self._pending.append(COMMIT[0])
            [result] = await self._run(_all([]))
        except BaseException as error:
            self._abandon()
            if isinstance(error, Exception):
                raise explain(error, self._place, committing=is_lost(error)) from error.__cause__
            raise
        self._end()
        if result.tag != "COMMIT":
            raise StoreError(
                f"{self._place}: the transaction was undone, for a statement in it had failed",
                "let the error of a failed statement end the handler",
            )
        if self._appended is not None:
            self._grew(self._appended)

    async def rollback(self) -> None:
        """Undo it all. Safe to call twice."""
        if not self._open:
            return
        if self._begun and self._connection.pgconn.transaction_status != TransactionStatus.IDLE:
            self._pending = []
            try:
                await self._send(("ROLLBACK", ()))
            except BaseException as error:
                self._abandon()
                if not isinstance(error, Exception):
                    raise
                return
        self._end()

    def abandon(self) -> None:
        """Give it up without waiting: the server undoes it when the connection closes."""
        if self._open:
            self._abandon()

    def interrupt(self) -> None:
        """Make the statement that runs now fail, from any thread."""
        if self._open:
            self._connection.cancel()

    def __del__(self) -> None:
        self.abandon()

    # ---- inside ------------------------------------------------------------------------------------------------------

    async def _send(self, statement: Statement) -> Result:
        try:
            [result] = await self._run(_all([statement]))
        except psycopg.Error as error:
            if is_lost(error):
                raise explain(error, self._place) from error
            raise
        return result

    async def _run(self, steps: Steps[T]) -> T:
        self.waiting = True
        try:
            result: T = await self._drive(self._with_pending(steps))
        finally:
            self.waiting = False
        return result

    def _with_pending(self, steps: Steps[T]) -> Steps[T]:
        """Steps whose statements are preceded by what is pending."""
        try:
            wanted = next(steps)
            while True:
                pending, self._pending = "; ".join(self._pending), []
                self._begun = True
                try:
                    results: Sequence[Result] = (yield [(pending, None)]) if pending else ()
                    if wanted:
                        results = yield wanted
                except Exception as error:  # noqa: BLE001 - theirs to handle
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(results)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _check(self, sql: str) -> None:
        if not self._open:
            raise UsageError("this transaction has ended", "use it only where it was given, before commit and rollback")
        if sql and (word := first_word(sql)) in _OURS:
            raise UsageError(f"{word} inside a transaction", "tidings begins and ends transactions")

    def _end(self) -> None:
        self._open = False
        self._give()

    def _abandon(self) -> None:
        self._open = False
        self._connection.pgconn.finish()
        self._give()


def _all(statements: Sequence[Statement]) -> Steps[Sequence[Result]]:
    return (yield statements)
