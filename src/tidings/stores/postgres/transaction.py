"""A transaction of somebody's own, on a connection of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from tidings.core.operations import Op
from tidings.errors import StoreError, TidingsError, UsageError
from tidings.stores.deferring import MOST, Deferred, Deferring
from tidings.stores.news import News, news_of
from tidings.stores.postgres.apply import APPLY, BEGIN, COMMIT
from tidings.stores.postgres.failures import explain, is_lost, is_the_store_s
from tidings.stores.postgres.placeholders import numbered
from tidings.stores.postgres.reads import LOAD
from tidings.stores.postgres.rows import PostgresRows
from tidings.stores.postgres.steps import Result, Statement
from tidings.stores.postgres.wire import AsyncWire, BlockingWire, drive
from tidings.stores.postgres.writer import last_position
from tidings.stores.words import first_word

_OURS = frozenset(("ABORT", "BEGIN", "COMMIT", "END", "PREPARE", "RELEASE", "ROLLBACK", "SAVEPOINT", "START"))
_SAVE: Statement = ("SAVEPOINT tidings_delivery", ())
_KEEP: Statement = ("RELEASE SAVEPOINT tidings_delivery", ())
_UNDO: Statement = ("ROLLBACK TO SAVEPOINT tidings_delivery", ())
_SAVE_OP: Statement = ("SAVEPOINT tidings_op", ())
_KEEP_OP: Statement = ("RELEASE SAVEPOINT tidings_op", ())
_UNDO_OP: Statement = ("ROLLBACK TO SAVEPOINT tidings_op", ())
_ROLLBACK: Statement = ("ROLLBACK", ())
_HOME: list[Statement] = [("RESET ROLE", ()), ("RESET search_path", ())]
_ASTRAY = (("role", "tidings.role"), ("search_path", "tidings.path"))
_NOTE = ", ".join(f"set_config('{noted}', current_setting('{name}'), true)" for name, noted in _ASTRAY)
_RECALL = ", ".join(f"set_config('{name}', current_setting('{noted}'), true)" for name, noted in _ASTRAY)
_GO_HOME: list[Statement] = [(f"SELECT {_NOTE}", ()), *_HOME]
_RETURN: Statement = (f"SELECT {_RECALL}", ())
"""Ours go to the store's schema by our own role; what follows them goes where, and as whom, the user has set it to."""
_UNTOUCHED = frozenset((TransactionStatus.IDLE, TransactionStatus.INTRANS))
"""Where something fails and the transaction does not, nothing was sent: a value could not be."""


class PostgresTransaction:
    """Borrows a connection until it ends.

    What begins the transaction, and what marks and keeps savepoints, goes out in one go with the next statement; where
    there is none, it costs nothing.
    """

    def __init__(
        self,
        wire: AsyncWire | BlockingWire,
        give: Callable[[], None],
        grew: Callable[[int, News], None],
        looked_at: set[str],
        place: str,
    ) -> None:
        """Wire it; nothing is sent.

        Args:
            wire: The connection.
            give: Takes it back.
            grew: Called after a commit of operations.
            looked_at: Statements that must not be deferred; see `Deferring`.
            place: The store, for messages.
        """
        self._wire = wire
        self._connection = wire.connection
        self._give = give
        self._grew = grew
        self._place = place
        self._looked_at = looked_at
        self._deferring: Deferring | None = None
        self._pending = [BEGIN]
        self.waiting = False
        self._open = True
        self._begun = False
        self._astray = False  # the user may have set another search path, or role
        self._applied: list[tuple[Op, Any]] = []  # operations, with their results
        self._saved = 0  # how many of them there were at the savepoint

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> PostgresRows | Deferred:
        """Run one statement."""
        self._check(sql)
        statement = numbered(sql), params
        if self._deferring is not None and self._deferring.allows(sql):
            self._pending.append(statement)
            if len(self._pending) > MOST:
                await self.flush()
            return Deferred(self._deferring, sql)
        return PostgresRows((await self._send(statement))[-1])

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for many rows, in one round trip."""
        self._check(sql)
        text = numbered(sql)
        statements = [(text, row) for row in rows]
        if self._deferring is not None:
            self._pending += statements
            if len(self._pending) > MOST:
                await self.flush()
        elif rows:
            await self._send(*statements)

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events, as this transaction sees them."""
        self._check("")
        if self._astray:
            self._pending += _GO_HOME
        found = (await self._send((LOAD, (stream, after))))[-1].rows
        if self._astray:
            self._pending.append(_RETURN)
        return found

    async def apply(self, op: Op) -> Any:
        """Apply an operation as part of this transaction; one that is refused leaves nothing behind."""
        self._check("")
        self._check_sound()
        ahead = [_SAVE_OP, *(_GO_HOME if self._astray else ())]
        self._pending += ahead
        try:
            result = await drive(APPLY[type(op)](op), self)
        except (psycopg.Error, TidingsError) as error:
            if self._pending[-len(ahead) :] == ahead:  # refused before anything was sent
                del self._pending[-len(ahead) :]
            else:
                await self._go_back(_UNDO_OP, _KEEP_OP)
            raise explain(error, self._place, op) from error.__cause__
        if self._pending[-len(ahead) :] == ahead:
            del self._pending[-len(ahead) :]
        else:
            self._pending += [_KEEP_OP, _RETURN] if self._astray else [_KEEP_OP]
        self._applied.append((op, result))
        return result

    async def connection(self) -> Connection[Any] | AsyncConnection[Any]:
        """The connection, once what is pending was sent."""
        self._check("")
        if self._pending:
            await self._send()
        self._astray = True
        return self._connection

    async def savepoint(self) -> None:
        """Mark a place to come back to."""
        self._check("")
        self._pending.append(_SAVE)
        self._saved = len(self._applied)

    async def keep(self) -> None:
        """Keep what was done since the savepoint. Raises StoreError: One of its statements failed, which undid it."""
        self._check("")
        self._check_sound()
        if self._pending and self._pending[-1] == _SAVE:
            self._pending.pop()
        else:
            self._pending.append(_KEEP)
            if self._astray:  # the next delivery of the batch starts at home
                self._pending += _HOME
                self._astray = False

    async def undo(self) -> None:
        """Undo what was done since the savepoint."""
        self._check("")
        del self._applied[self._saved :]
        if self._pending and self._pending[-1] == _SAVE:
            self._pending.pop()
        else:
            await self._go_back(_UNDO, _KEEP)

    async def _go_back(self, undo: Statement, keep: Statement) -> None:
        """Undo at once: what failed leaves its transaction unusable."""
        if not self._connection.closed:
            self._pending = []
            await self._send(undo)
            self._pending = [keep]

    def defer(self) -> None:
        """From now on, send changes of which nobody looks at the result in one go with what follows them."""
        self._deferring = Deferring(self._looked_at)

    async def flush(self) -> None:
        """Have done what was deferred. Raises what it fails with, also if somebody did look at a result."""
        self._check("")
        if self._deferring is not None:
            self._deferring.check()
        if self._pending and not self._is_idle():
            try:
                await self._run(())
            except psycopg.Error as error:
                if is_lost(error):
                    raise explain(error, self._place) from error
                raise

    async def commit(self) -> None:
        """Make it durable.

        Raises:
            StoreError: A statement failed before, so that the database undid everything.
            StoreUnavailable: The connection had broken before; nothing was committed.
            OutcomeUnknown: It broke before the answer came.
        """
        self._check("")
        if self._is_idle():
            self._end()
            return
        is_there = not self._connection.closed  # else it broke before, and nobody is asked to commit
        if self._astray and self._connection.pgconn.transaction_status == TransactionStatus.INTRANS:
            self._pending += _HOME  # the next one who has this connection starts there
        try:
            result = (await self._run((COMMIT,)))[-1]
        except BaseException as error:
            self._abandon()
            if isinstance(error, Exception):
                raise explain(error, self._place, committing=is_there and is_lost(error)) from error.__cause__
            raise
        self._end()
        if result.tag != "COMMIT":
            raise self._undone()
        news = news_of([op for op, _ in self._applied], [(result, None) for _, result in self._applied])
        if news is not None:
            self._grew(last_position(result for _, result in self._applied), news)

    async def rollback(self) -> None:
        """Undo it all. Safe to call twice."""
        if not self._open:
            return
        status = self._connection.pgconn.transaction_status
        if status == TransactionStatus.ACTIVE:  # no answer came in time, and to this none would come either
            self._abandon()
            return
        if self._begun and status != TransactionStatus.IDLE:
            self._pending = []
            try:
                await self._send(_ROLLBACK)
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

    def _is_idle(self) -> bool:
        """True where nothing was done, and nothing is to be done."""
        return not self._begun and len(self._pending) == 1

    async def run(self, statements: Sequence[Statement]) -> list[Result]:
        """Run the statements of an operation; makes this a `Wire`."""
        return await self._run(statements)

    async def _send(self, *statements: Statement) -> list[Result]:
        try:
            return await self._run(statements)
        except psycopg.Error as error:
            if is_the_store_s(error):
                raise explain(error, self._place) from error
            raise

    async def _run(self, statements: Sequence[Statement]) -> list[Result]:
        """Run statements behind what is pending; returns their results."""
        if pending := self._pending:
            self._pending = []
            self._begun = True
        self.waiting = True
        try:
            results = await self._wire.run([*pending, *statements] if pending else statements)
        except Exception:
            if self._connection.pgconn.transaction_status in _UNTOUCHED:
                self._pending = pending
            raise
        finally:
            self.waiting = False
        return results[len(pending) :] if pending else results

    def _check(self, sql: str) -> None:
        if not self._open:
            raise UsageError("this transaction has ended", "use it only where it was given, before commit and rollback")
        if sql and (word := first_word(sql)) in _OURS:
            raise UsageError(f"{word} inside a transaction", "tidings begins and ends transactions")
        if sql and (word == "SET" or "set_config" in sql):
            self._astray = True

    def _check_sound(self) -> None:
        """Refuse to go on where somebody caught the error of a statement that failed: none is taken any more."""
        if self._connection.pgconn.transaction_status == TransactionStatus.INERROR:
            raise self._undone()

    def _undone(self) -> StoreError:
        return StoreError(
            f"{self._place}: the transaction was undone, for a statement in it had failed",
            "let the error of a failed statement end the handler",
        )

    def _end(self) -> None:
        self._open = False
        self._give()

    def _abandon(self) -> None:
        self._open = False
        self._connection.pgconn.finish()
        self._give()
