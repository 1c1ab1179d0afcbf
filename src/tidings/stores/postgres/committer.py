"""The write connection: commits, many operations at once. Everything here happens on one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.pq import TransactionStatus

from tidings.core.operations import Append, Beat, Claim, Op, Settle
from tidings.errors import TidingsError
from tidings.stores.postgres.apply import alone, is_shared, together
from tidings.stores.postgres.connection import Place, TimelyConnection
from tidings.stores.postgres.failures import explain, is_lost, is_refusal, is_transient
from tidings.stores.postgres.pool import is_usable
from tidings.stores.postgres.wire import Wire, drive

Outcome = tuple[Any, BaseException | None]

TRIES = 5
"""Times an operation is tried that others were in the way of; nothing of it was done."""


class Committer:
    """Owns the connection on which a process writes."""

    def __init__(self, place: Place) -> None:
        """Args: place: where it leads; connects at the first commit."""
        self._place = place
        self._connection: TimelyConnection | None = None

    def commit_all(self, ops: Sequence[Op]) -> tuple[list[Outcome], bool]:
        """Apply operations in order. Returns (result, error) of each, and whether readers should look."""
        outcomes: list[Outcome] = []
        batch: list[Op] = []
        for op in ops:
            if is_shared(op):
                batch.append(op)
                continue
            outcomes += self._commit_batch(batch)
            batch = []
            outcomes.append(self._commit_alone(op))
        outcomes += self._commit_batch(batch)
        grew = any(error is None and _grows(op) for op, (_, error) in zip(ops, outcomes, strict=True))
        return outcomes, grew

    def _commit_batch(self, ops: Sequence[Op]) -> list[Outcome]:
        if not ops:
            return []
        try:
            return [_outcome(result) for result in self._drive_again(ops)]
        except TidingsError as error:
            if len(ops) == 1:
                return [(None, error)]
        except Exception as error:  # noqa: BLE001 - given to each caller
            if len(ops) == 1 or not (is_refusal(error) or is_transient(error)):
                return [(None, explain(error, self._place.safe, ops[0], committing=is_lost(error))) for _ in ops]
        return [outcome for op in ops for outcome in self._commit_batch([op])]  # one of them was refused: find which

    def _drive_again(self, ops: Sequence[Op]) -> list[Any]:
        """Apply operations together; once more when the connection broke, for doing it again changes nothing."""
        for tries in range(TRIES):
            try:
                return drive(together(ops), self._wire())
            except Exception as error:
                self._undo()
                again = is_transient(error) or (is_lost(error) and tries == 0 and self._can_connect())
                if not again or tries == TRIES - 1:
                    raise
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _commit_alone(self, op: Op) -> Outcome:
        for tries in range(TRIES):
            try:
                return drive(alone(op), self._wire()), None
            except Exception as error:  # noqa: BLE001 - given to the caller
                self._undo()
                if not is_transient(error) or tries == TRIES - 1:
                    return None, explain(error, self._place.safe, op, committing=is_lost(error))
        raise AssertionError  # pragma: no cover - the loop returns

    # ---- the connection ----------------------------------------------------------------------------------------------

    def _wire(self) -> Wire:
        if self._connection is None or not is_usable(self._connection):
            self.close()
            self._connection = self._place.connect()
        return Wire(self._connection)

    def _can_connect(self) -> bool:
        try:
            self._wire()
        except Exception:  # noqa: BLE001 - the first error says more
            return False
        return True

    def _undo(self) -> None:
        """End what was begun, and let go of a connection that cannot go on."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.pgconn.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - the server ends what its client left
            self.close()
        if not is_usable(connection):
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None


def _outcome(result: Any) -> Outcome:
    return (None, result) if isinstance(result, TidingsError) else (result, None)


def _grows(op: Op) -> bool:
    """True where waiting readers have a reason to look: the log grew, or what is held changed."""
    if type(op) is Append:
        return bool(op.envelopes)
    if type(op) is Settle:
        return bool(op.append or op.later or op.hold or op.done)
    if type(op) is Claim:
        return bool(op.give)
    return op.leaving if type(op) is Beat else True
