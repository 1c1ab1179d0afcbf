"""A write connection: commits, many operations at once. One batch at a time.

It is written once: for connections of an event loop, and for those that block, with which it never suspends.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from tidings.core.operations import Append, Appended, Op
from tidings.errors import StoreUnavailable, TidingsError
from tidings.stores.news import News, news_of
from tidings.stores.postgres.apply import alone, is_shared, together
from tidings.stores.postgres.failures import explain, is_lost, is_refusal, is_transient
from tidings.stores.postgres.fresh import following, placed
from tidings.stores.postgres.pool import is_usable
from tidings.stores.postgres.steps import Result, Statement, Steps
from tidings.stores.postgres.wire import BlockingWire, OwnWire, drive

T = TypeVar("T")
Outcome = tuple[Any, BaseException | None]
Committed = tuple[list[Outcome], News | None]
"""What became of each operation, and what there is to tell readers."""
Connected = OwnWire | BlockingWire

TRIES = 5
"""Times an operation is tried that others were in the way of; nothing of it was done."""
KNOWN = 0.01
"""Seconds for which a connection that worked is not looked at."""
LOOK = 0.1
"""Seconds for which the end of the log is not looked for where nobody else appends."""


class Committer:
    """Owns a connection on which its process writes."""

    def __init__(self, connect: Callable[[], Awaitable[Connected]], place: str) -> None:
        """Args: connect: makes the connection, at the first commit. place: the store, for messages."""
        self._connect = connect
        self._place = place
        self._wire: Connected | None = None
        self._worked = 0.0  # when the connection last did
        self._last = 0  # position of what was appended here last
        self._looked = 0.0  # when that was last seen to be there
        self._is_alone = False  # it was on this connection, and nobody else had appended since the one before it

    async def commit_one(self, op: Op) -> Committed:
        """Apply one operation: by a single statement where it appends behind what was appended here last."""
        lost = None
        if type(op) is Append:
            try:
                if (ready := self._ready_to_follow((op,))) is not None:
                    wire, statement = ready
                    [result] = await wire.run((statement,))
                    if (outcomes := self._followed((op,), result)) is not None:
                        return outcomes, news_of((op,), outcomes)
            except Exception as error:  # noqa: BLE001 - given to the caller
                if not await self._may_try_again(error, 0):
                    return [(None, explain(error, self._place, op, committing=is_lost(error)))], None
                lost = error if is_lost(error) else None
        return await self.commit_all((op,), lost)

    async def commit_all(self, ops: Sequence[Op], lost: Exception | None = None) -> Committed:
        """Apply operations in order.

        Args:
            ops: What to apply.
            lost: What broke the connection on which they were tried before; they may have been committed.
        """
        outcomes: list[Outcome] = []
        if all(map(is_shared, ops)):
            outcomes = await self._commit_batch(ops, lost)
        else:
            batch: list[Op] = []
            for op in ops:
                if is_shared(op):
                    batch.append(op)
                    continue
                outcomes += await self._commit_batch(batch)
                batch = []
                outcomes.append(await self._commit_alone(op))
            outcomes += await self._commit_batch(batch)
        return outcomes, news_of(ops, outcomes)

    async def _commit_batch(self, ops: Sequence[Op], lost: Exception | None = None) -> list[Outcome]:
        if not ops:
            return []
        try:
            return await self._apply(ops, lost)
        except TidingsError as error:
            if len(ops) == 1 or isinstance(error, StoreUnavailable):
                return [(None, error) for _ in ops]
        except Exception as error:  # noqa: BLE001 - given to each caller
            if len(ops) == 1 or not (is_refusal(error) or is_transient(error)):
                return [(None, explain(error, self._place, ops[0], committing=is_lost(error))) for _ in ops]
        return [outcome for op in ops for outcome in await self._commit_batch([op])]  # one was refused: find which

    async def _apply(self, ops: Sequence[Op], lost: Exception | None) -> list[Outcome]:
        """Apply operations together; once more when the connection broke, for doing it again changes nothing."""
        for tries in range(TRIES):
            try:
                if tries == 0 and (ready := self._ready_to_follow(ops)) is not None:
                    wire, statement = ready
                    [result] = await wire.run((statement,))
                    if (outcomes := self._followed(ops, result)) is not None:
                        return outcomes
                return self._seen(await self._drive(together(ops)))
            except Exception as error:
                if not await self._may_try_again(error, tries):
                    if lost is not None and isinstance(error, StoreUnavailable):
                        raise lost from error  # what was tried before may have been committed
                    raise
                if is_lost(error):
                    lost = error
        raise AssertionError  # pragma: no cover - the loop returns or raises

    async def _may_try_again(self, error: Exception, tries: int) -> bool:
        """True where another try may succeed; what was begun is undone. Args: tries: before the one that failed."""
        await self._undo()
        if tries == TRIES - 1:
            return False
        return is_transient(error) or (is_lost(error) and tries == 0 and await self._can_connect())

    def _ready_to_follow(self, ops: Sequence[Op]) -> tuple[Connected, Statement] | None:
        """What appends behind what was appended here last, and where to run it; None where that cannot be."""
        if not self._is_alone or (wire := self._at_hand()) is None:
            return None
        now = time.monotonic()
        look = now > self._looked + LOOK
        if (statement := following(ops, self._last, look=look)) is None:
            return None
        if look:
            self._looked = now
        self._is_alone = False  # until it is there: what may have been applied before is looked at with care
        return wire, statement

    def _followed(self, ops: Sequence[Op], result: Result) -> list[Outcome] | None:
        """What became of appends; None where nothing was appended, for it was not the end of the log any more."""
        self._worked = time.monotonic()
        if not result.changed:
            return None
        self._is_alone = True
        return [(self._placed(op), None) for op in ops if type(op) is Append]

    def _placed(self, op: Append) -> Appended:
        """What became of an append behind what was the last one so far."""
        first = self._last + 1
        self._last += len(op.envelopes)
        return placed(op, range(first, self._last + 1))

    def _seen(self, done: list[Any]) -> list[Outcome]:
        if appended := [each.positions for each in done if type(each) is Appended and each.positions]:
            self._is_alone = appended[0][0] == self._last + 1
            self._last = appended[-1][-1]
        return [(None, each) if isinstance(each, TidingsError) else (each, None) for each in done]

    async def _commit_alone(self, op: Op) -> Outcome:
        for tries in range(TRIES):
            try:
                return await self._drive(alone(op)), None
            except Exception as error:  # noqa: BLE001 - given to the caller
                await self._undo()
                if not is_transient(error) or tries == TRIES - 1:
                    return None, explain(error, self._place, op, committing=is_lost(error))
        raise AssertionError  # pragma: no cover - the loop returns

    # ---- the connection ----------------------------------------------------------------------------------------------

    async def _drive(self, steps: Steps[T]) -> T:
        result = await drive(steps, self._at_hand() or await self._connect_anew())
        self._worked = time.monotonic()
        return result

    def _at_hand(self) -> Connected | None:
        """The connection, None where there is none or it is not fit for use."""
        wire = self._wire
        if wire is None or (time.monotonic() > self._worked + KNOWN and not is_usable(wire.connection)):
            return None
        self._worked = 0.0  # until it has: whatever happens meanwhile
        return wire

    async def _connect_anew(self) -> Connected:
        """Connect. Raises StoreUnavailable: It cannot be; nothing was sent."""
        self.close()
        self._is_alone = False  # the server may be another one, put in place of one that broke
        try:
            wire = self._wire = await self._connect()
        except psycopg.Error as error:
            raise explain(error, self._place) from error
        return wire

    async def _can_connect(self) -> bool:
        try:
            await self._connect_anew()
        except Exception:  # noqa: BLE001 - the first error says more
            return False
        return True

    async def _undo(self) -> None:
        """End what was begun, and let go of a connection that cannot go on."""
        wire = self._wire
        if wire is None:
            return
        connection = wire.connection
        try:
            if connection.pgconn.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                await wire.run([("ROLLBACK", None)])
        except Exception:  # noqa: BLE001 - the server ends what its client left
            self.close()
        if not is_usable(connection):
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._wire is not None:
            self._wire.connection.pgconn.finish()
            self._wire = None
