"""The write connection: commits, many operations at once, transactions of others, and checkpoints.

Everything here happens on one thread at a time (the writer sees to that) and inside the turnstile.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tidings.core.operations import Append, Appended, Op, Settle
from tidings.errors import OutcomeUnknown, TidingsError
from tidings.stores.sqlite import held, log
from tidings.stores.sqlite.apply import Outcome, apply_all, apply_carefully, is_durable
from tidings.stores.sqlite.changes import Changes
from tidings.stores.sqlite.connection import BUSY_SECONDS, connect, impatient, leak
from tidings.stores.sqlite.failures import code_of, explain, is_the_store_s
from tidings.stores.sqlite.originals import Nowhere, Originals
from tidings.stores.sqlite.presence import NoPresence
from tidings.stores.sqlite.schema import prepare
from tidings.stores.sqlite.turnstile import Turnstile
from tidings.stores.sqlite.wal import CHANGE, COMMIT, Wal

Committed = tuple[list[Outcome], bool]
"""The outcome of each operation, and whether readers should look."""

_LONE: dict[type, Callable[[Any, Changes], tuple[str, Sequence[Any], int] | None]] = {
    Append: log.lone_insert,
    Settle: held.lone_advance,
}
"""Operations that may be one statement: what gives it, its values, and how many rows it changes."""
_NOTHING = Appended(())
_CAREFUL_BATCHES = 64
_PAUSE = 0.0003
"""Seconds between two looks at a lock that somebody else has."""
QUICK = 0.001
"""Seconds of a commit, as a moving mean, up to which an event loop does a lone one itself."""


class Committer:
    """Owns the write connection of a store."""

    def __init__(self, path: Path, turnstile: Turnstile, clock: Callable[[], float], *, volatile: bool) -> None:
        """Open it, creating the store where there is none."""
        self.path = path
        self._file = str(path)
        self._turnstile = turnstile
        self._volatile = volatile
        turnstile.enter()
        try:
            self.connection = impatient(prepare(path, volatile=volatile))
        finally:
            turnstile.leave()
        self._cursor = self.connection.cursor()
        self.changes = Changes(self.connection, clock, NoPresence())
        self.changes.committed()
        self.changes.volatile = volatile
        self.checked: set[str] = set()  # statements of handlers that were looked at
        self.looked_at: set[str] = set()  # those of which somebody looked at the result; see `Deferring`
        self._durable = True
        self._patience = BUSY_SECONDS  # none while the thread of an event loop commits
        self._pace = QUICK / 2
        self._careful = 0
        self.wal = Wal()
        self._changed_before = 0
        self._originals = Nowhere() if volatile else Originals(self._file)

    # ---- commits -----------------------------------------------------------------------------------------------------

    def commit_all(self, ops: Sequence[Op]) -> Committed:
        """Apply operations in order in one commit."""
        if len(ops) == 1:
            try:
                result, grew = self.commit_one(ops[0])
            except TidingsError as error:
                return [(None, error)], False
            return [(result, None)], grew
        try:
            return self._commit_joined(ops) or self._commit_together(ops)
        except Exception as error:  # noqa: BLE001 - given to each caller
            return [(None, explain(error, self._file)) for _ in ops], False

    def commit_one(self, op: Op) -> tuple[Any, bool]:
        """Apply an operation in a commit of its own.

        Returns:
            Its result, and whether readers should look.

        Raises:
            TidingsError: It, or the store, failed.
        """
        return self.commit_alone(op) or self.commit_closely(op)

    def commit_closely(self, op: Op) -> tuple[Any, bool]:
        """The same in a transaction, for what is more than a statement, or was refused as one."""
        try:
            [(result, error)], grew = self._commit_together((op,))
        except TidingsError:
            raise
        except Exception as error:
            raise explain(error, self._file) from error
        if error is not None:
            raise error
        return result, grew

    def commit_alone(self, op: Op) -> tuple[Any, bool] | None:
        """Commit in the shortest way there is, if there is one: a statement, which SQLite commits by itself.

        A call costs a microsecond after the wait for a flush, so there are few on this way.

        Returns:
            The same as `commit_one`; None when it takes a closer look, and nothing was written.

        Raises:
            TidingsError: The store failed.
        """
        lone = _LONE.get(type(op))
        if lone is None or self._careful or (statement := lone(op, self.changes)) is None:
            return None
        sql, values, count = statement
        durable = type(op) is Append or self._volatile or is_durable(op)
        turnstile = self._turnstile
        try:
            turnstile.enter()
            try:
                if durable:  # else nothing is acknowledged that could be gone with the files
                    self._originals.check(turnstile.entered)
                if durable is not self._durable:
                    self._flush_at_commit(durable=durable)
                cursor: sqlite3.Cursor | None = self._cursor.execute(sql, values)
            except (sqlite3.Error, UnicodeError, OverflowError) as error:
                cursor = self._again(error, sql, values)
            finally:
                turnstile.leave()
        except OSError as error:
            raise explain(error, self._file) from error
        if cursor is None or cursor.rowcount != count:
            return None  # the stream has gone on, or is not that long; or a slot has another epoch
        self.wal.written += COMMIT + CHANGE * count
        if type(op) is Append:
            return self.changes.appended(op, cursor.lastrowid or 0), True
        return _NOTHING, False

    def _again(self, error: Exception, sql: str, values: Sequence[Any]) -> sqlite3.Cursor | None:
        """Execute a lone statement once more where another program was writing; None where it is refused.

        Args: error: What it was answered.

        Raises:
            TidingsError: The store failed.
        """
        if code_of(error) == sqlite3.SQLITE_BUSY:
            try:
                return self._patiently(sql, values)
            except sqlite3.Error as last:
                error = last
        if code_of(error) == sqlite3.SQLITE_IOERR:
            raise self._unknown(error) from error
        if is_the_store_s(error):
            raise explain(error, self._file) from error
        return None

    def commit_timed(self, ops: Sequence[Op]) -> Committed:
        """The same, and see how quick commits are here."""
        began = time.perf_counter()
        done = self.commit_all(ops)
        self._pace += (time.perf_counter() - began - self._pace) / 8
        return done

    def commit_at_once(self, ops: Sequence[Op]) -> Committed | None:
        """Commit operations if that needs no waiting and commits are quick here; None when not."""
        if self._pace > QUICK or not self._turnstile.try_enter():
            return None
        self._patience = 0.0
        try:
            done = self.commit_timed(ops)  # who is inside may enter again: nobody slips in between
        finally:
            self._patience = BUSY_SECONDS
        error = done[0][0][1]
        return None if error is not None and code_of(error.__cause__ or error) == sqlite3.SQLITE_BUSY else done

    def _commit_joined(self, ops: Sequence[Op]) -> Committed | None:
        """Commit what several callers append as if one did, if that is all they do; that takes one statement."""
        joined = log.joined(ops) if not self._careful else None
        if joined is None:
            return None
        append, counts = joined
        done = self.commit_alone(append)
        if done is None:
            return None
        positions = iter(done[0].positions)
        return [(Appended(tuple(islice(positions, count))), None) for count in counts], True

    def _commit_together(self, ops: Sequence[Op]) -> Committed:
        durable = self._volatile or any(map(is_durable, ops))
        self._turnstile.enter()
        try:
            self._begin(durable=durable)
            outcomes = self._apply_all(ops)
            self._commit()
        finally:
            self._leave()
        return outcomes, self.changes.grew

    def begin(self) -> None:
        """Open a transaction for somebody else; `finish` ends it.

        Raises:
            StoreError: The store cannot be written.
        """
        self._turnstile.enter()
        try:
            self._begin(durable=True)
        except BaseException as error:
            self._leave()
            if isinstance(error, sqlite3.Error):
                raise explain(error, self._file) from error
            raise

    def begin_at_once(self) -> bool:
        """Open a transaction for somebody else if that needs no waiting; False when it does.

        Raises:
            StoreGone: The file is not the one that was opened.
        """
        if not self._turnstile.try_enter():
            return False
        try:
            self._patience = 0.0
            self._begin(durable=True)
        except BaseException as error:
            self._leave()
            if isinstance(error, sqlite3.Error):
                return False  # the thread that may wait tries again
            raise
        finally:
            self._patience = BUSY_SECONDS
        return True

    def finish(self, *, commit: bool) -> bool:
        """End the open transaction; returns whether readers should look.

        Raises:
            StoreError: It was not committed.
            OutcomeUnknown: It may or may not have been committed.
        """
        try:
            if commit:
                self._commit()
        except sqlite3.Error as error:
            raise explain(error, self._file) from error
        finally:
            self._leave()
        return commit and self.changes.grew

    def _begin(self, *, durable: bool) -> None:
        """Begin, inside the turnstile."""
        self._originals.check(self._turnstile.entered)
        if durable is not self._durable:
            self._flush_at_commit(durable=durable)
        self._patiently("BEGIN IMMEDIATE")
        self._changed_before = self.connection.total_changes
        changes = self.changes
        changes.forget()
        changes.grew = changes.careful = False

    def _patiently(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute what takes SQLite's write lock, waiting for programs that do not pass the turnstile.

        Their transactions may follow each other without a pause. SQLite's own waiting looks every 100 ms after a while,
        and so may never find the gap.
        """
        end = 0.0
        while True:
            try:
                return self._cursor.execute(sql, values)
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                end = end or now + self._patience
                if code_of(error) != sqlite3.SQLITE_BUSY or now >= end:
                    raise
            time.sleep(_PAUSE)

    def _flush_at_commit(self, *, durable: bool) -> None:
        """Choose whether the next commits wait for the disk."""
        self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._durable = durable

    def _leave(self) -> None:
        """Undo what was not committed, and let the next process in."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
                self.changes.forget()
        except sqlite3.Error:
            self._reopen()
        finally:
            self._turnstile.leave()

    def _commit(self) -> None:
        connection = self.connection
        changes = self.changes
        changes.keep_up()
        try:
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_IOERR:
                raise
            raise self._unknown(error) from error
        self.wal.written += COMMIT + CHANGE * (connection.total_changes - self._changed_before)
        changes.committed()

    def _unknown(self, error: Exception) -> OutcomeUnknown:
        """What to raise when the disk failed between the first and the last byte of a commit."""
        self._reopen()
        return OutcomeUnknown(
            f"{self._file}: the disk failed during a commit: {error}",
            "check the disk; sending the same id again is safe",
            path=self._file,
        )

    def explained(self, error: sqlite3.OperationalError) -> Exception:
        """The error a handler should see: its own mistakes as SQLite says them, the store's troubles as ours."""
        return explain(error, self._file) if is_the_store_s(error) else error

    @property
    def changed(self) -> bool:
        """True when the open transaction changed something."""
        return self.connection.total_changes != self._changed_before

    def _apply_all(self, ops: Sequence[Op]) -> list[Outcome]:
        changes = self.changes
        if self._careful:
            self._careful -= 1
            return apply_carefully(changes, ops, self._file)
        try:
            return apply_all(changes, ops)
        except Exception as error:
            if is_the_store_s(error):
                raise
            if isinstance(error, sqlite3.IntegrityError) and "tidings_id" in str(error):
                self._careful = _CAREFUL_BATCHES  # ids come again: look first for a while
            self.connection.execute("ROLLBACK")
            self._patiently("BEGIN IMMEDIATE")
            changes.forget()
            return apply_carefully(changes, ops, self._file)

    # ---- the files ---------------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        """Replace a connection that cannot go on."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self.connection = impatient(connect(self.path, volatile=self._volatile))
        self._cursor = self.connection.cursor()
        self.changes.connection = self.connection
        self.changes.forget()
        self._durable = True
        self._changed_before = 0
        self._originals.reopened()

    def checkpoint(self) -> None:
        """Make a checkpoint."""
        self._turnstile.enter()
        try:
            self.wal.checkpoint(self.connection)
        finally:
            self._turnstile.leave()

    def close(self) -> None:
        """Close the connection; the last one of all processes writes the WAL back."""
        if self._originals.are_lost:
            self.leak()  # closing would remove the WAL of whatever has taken the file's place
            return
        self._turnstile.enter()
        try:
            self.connection.close()
        finally:
            self._turnstile.leave()
        self._originals.close()

    def leak(self) -> None:
        """Never close the connection, not even when the interpreter ends."""
        self._originals.close()
        leak(self.connection)
