"""The transaction a handler or caller works in: statements run where it is, messages leave when it commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tidings.core.envelope import Envelope
from tidings.core.operations import ANY, Append, Appended
from tidings.core.ports import Rows, StoreTransaction
from tidings.core.transaction import Readable
from tidings.errors import NotOpen
from tidings.runtime.clock import Clock
from tidings.runtime.outgoing import Outgoing

R = TypeVar("R")


class OpenTransaction:
    """Implements `tidings.Transaction`. The store's transaction is begun at the first statement, not before.

    Attributes:
        raw: The store's transaction, None while nothing was executed.
        touched: True when the current handler executed something.
        outbox: Envelopes to append when it commits.
        later: Appends with a due time, stored when it commits.
    """

    __slots__ = (
        "_begin",
        "_clock",
        "_limit",
        "_outgoing",
        "_watch",
        "closed",
        "expired",
        "later",
        "outbox",
        "raw",
        "touched",
    )

    def __init__(
        self,
        begin: Callable[[], Awaitable[StoreTransaction]],
        outgoing: Outgoing,
        clock: Clock,
        limit: float | None = None,
    ) -> None:
        """Wire the transaction; nothing is begun.

        Args:
            begin: Opens the store's transaction.
            outgoing: Makes envelopes.
            clock: For due times.
            limit: Seconds after which the task that holds the store's transaction is cancelled; None for no limit.
        """
        self._begin = begin
        self._outgoing = outgoing
        self._clock = clock
        self.raw: StoreTransaction | None = None
        self.touched = False
        self.closed = False
        self.expired = False
        self._limit = limit
        self._watch: asyncio.TimerHandle | None = None
        self.outbox: list[Envelope] = []
        self.later: list[Append] = []

    async def begun(self) -> StoreTransaction:
        """The store's transaction, begun now if it was not."""
        self._check()
        self.touched = True
        if self.raw is None:
            self.raw = await self._begin()
            if self._limit is not None:
                loop = asyncio.get_running_loop()
                self._watch = loop.call_later(self._limit, self._expire, asyncio.current_task())
        return self.raw

    def _check(self) -> None:
        if self.closed:
            msg = "this transaction has ended"
            raise NotOpen(msg, "use tx only inside the handler or the `async with` block that gave it")

    def _expire(self, task: asyncio.Task[Any] | None) -> None:
        self.expired = True
        if task is not None:
            task.cancel(f"held its transaction for {self._limit} s; do network calls before the first statement")

    async def execute(self, sql: str, *params: Any) -> Rows:
        """Run one SQL statement; see `tidings.Transaction.execute`."""
        raw = self.raw
        if raw is None or self.closed:
            raw = await self.begun()
        self.touched = True
        return await raw.execute(sql, params)

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one SQL statement for many rows."""
        raw = await self.begun()
        await raw.executemany(sql, rows)

    async def publish(
        self, *messages: object, after: float | timedelta | None = None, at: datetime | None = None
    ) -> None:
        """Publish messages when this transaction commits."""
        self._check()  # nobody commits what is published after the end: it would be lost in silence
        due = self._clock.due(after, at)
        envelopes = self._outgoing.envelopes(messages, id=None, headers=None)
        if due is None:
            self.outbox.extend(envelopes)
        else:
            self.later.append(Append(envelopes, ANY, due))

    async def send(
        self, command: object, *, after: float | timedelta | None = None, at: datetime | None = None
    ) -> None:
        """Send a command when this transaction commits."""
        await self.publish(command, after=after, at=at)

    async def get(self, part: Readable[R], key: object) -> R:
        """The record of a key as this transaction sees it."""
        await self.begun()
        return await part.read(str(key), self)

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events, as this transaction sees them."""
        raw = await self.begun()
        return await raw.load(stream, after)

    async def append(self, stream: str, key: str, events: Sequence[object], expected: int = ANY) -> int:
        """Append events to a stream now, inside this transaction; returns the stream's version."""
        raw = await self.begun()
        envelopes = [self._outgoing.envelope(event, stream=stream, key=key) for event in events]
        appended: Appended = await raw.apply(Append(envelopes, expected))
        return appended.version or 0

    async def commit(self) -> int:
        """Append what was published, and commit; returns the last position, 0 if nothing was published."""
        self.closed = True
        position = 0
        if self.outbox or self.later:
            if self.raw is None:
                self.raw = await self._begin()
            position = (await self.raw.apply(Append(self.outbox))).position if self.outbox else 0
            for append in self.later:
                await self.raw.apply(append)
        await self.end()
        return position

    def reopen(self) -> None:
        """Be a new transaction, begun at its first statement."""
        self.raw = None
        self.closed = self.touched = self.expired = False
        self.outbox, self.later = [], []

    async def end(self) -> None:
        """Commit what was applied so far; the transaction is over."""
        self.closed = True
        self._unwatch()
        if self.raw is not None:
            await self.raw.commit()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def rollback(self) -> None:
        """Undo everything; nothing published in it leaves."""
        self.closed = True
        self._unwatch()
        self.outbox.clear()
        self.later.clear()
        if self.raw is not None:
            await self.raw.rollback()


def drained(error: BaseException, tx: OpenTransaction | None) -> bool:
    """True when a handler was cancelled because its worker stops, not by itself and not for holding `tx` too long."""
    task = asyncio.current_task()
    if not isinstance(error, asyncio.CancelledError) or task is None:
        return False
    if tx is not None and tx.expired:
        task.uncancel()
    return task.cancelling() > 0
