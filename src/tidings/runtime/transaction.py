"""The transaction a handler or caller works in: statements run where it is, messages leave when it commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tidings.core.envelope import Envelope
from tidings.core.operations import ANY, Append, Appended
from tidings.core.ports import Rows, Store, StoreTransaction
from tidings.core.transaction import Readable
from tidings.errors import NotOpen, UsageError
from tidings.runtime.clock import Clock
from tidings.runtime.outgoing import Direct, Outgoing

R = TypeVar("R")

LONGEST_TRANSACTION = 10.0
"""Seconds a handler may hold the right to write; then its attempt fails, so that others can go on."""

OPEN: ContextVar[OpenTransaction | None] = ContextVar("tidings.open", default=None)
"""The transaction that the running code works in; what else writes to the same store would wait for it."""


class OpenTransaction:
    """Implements `tidings.Transaction`. The store's transaction is begun at the first statement, not before.

    Attributes:
        store: Whose it is.
        outer: The one that the caller of `app.transaction()` works in already.
        raw: The store's transaction, None while nothing was executed.
        touched: True when the current handler executed something.
        published: True when the current handler published something.
        earlier: Envelopes that handlers before the current one published in it; they go first.
        earlier_later: Their appends with a due time.
        outbox: Envelopes to append when it commits.
        later: Appends with a due time, stored when it commits.
    """

    __slots__ = (
        "_begin",
        "_clock",
        "_direct",
        "_limit",
        "_outgoing",
        "_sent",
        "_watch",
        "closed",
        "earlier",
        "earlier_later",
        "expired",
        "later",
        "outbox",
        "outer",
        "published",
        "raw",
        "store",
        "touched",
    )

    def __init__(
        self,
        store: Store,
        begin: Callable[[], Awaitable[StoreTransaction]],
        outgoing: Outgoing,
        clock: Clock,
        limit: float | None = None,
        direct: Direct | None = None,
    ) -> None:
        """Wire the transaction; nothing is begun.

        Args:
            store: Whose it is.
            begin: Opens the store's transaction.
            outgoing: Makes envelopes.
            clock: For due times.
            limit: Seconds after which the task that holds the store's transaction is cancelled; None for no limit.
            direct: Gives a broker what is for it, before this commits; None where the log keeps it for that.
        """
        self.store = store
        self._begin = begin
        self._outgoing = outgoing
        self._clock = clock
        self.outer = OPEN.get() if limit is None else None  # a handler's own has none around it
        self.raw: StoreTransaction | None = None
        self.touched = self.published = False
        self.closed = False
        self.expired = False
        self._limit = limit
        self._direct = direct
        self._watch: asyncio.TimerHandle | None = None
        self.earlier: list[Envelope] = []
        self.earlier_later: list[Append] = []
        self.outbox: list[Envelope] = []
        self.later: list[Append] = []
        self._sent: list[Envelope] = []  # of the earlier ones: appended already, by the current handler

    async def begun(self) -> StoreTransaction:
        """The store's transaction, begun now if it was not."""
        self._check()
        self.touched = True
        if self.raw is None:
            check_free(self.store, "transaction", self.outer)
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

    def execute(self, sql: str, *params: Any) -> Coroutine[Any, Any, Rows]:
        """Run one SQL statement; see `tidings.Transaction.execute`."""
        raw = self.raw
        if raw is None or self.closed:
            return self._begin_and_execute(sql, params)
        self.touched = True
        return raw.execute(sql, params)  # no coroutine around it: this is most of what most handlers do

    async def _begin_and_execute(self, sql: str, params: Sequence[Any]) -> Rows:
        raw = await self.begun()
        return await raw.execute(sql, params)

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one SQL statement for many rows."""
        raw = await self.begun()
        await raw.executemany(sql, rows)

    async def connection(self) -> Any:
        """The driver's own connection, inside this transaction; see `tidings.Transaction.connection`."""
        raw = await self.begun()
        return await raw.connection()

    async def publish(
        self, *messages: object, after: float | timedelta | None = None, at: datetime | None = None
    ) -> None:
        """Publish messages when this transaction commits."""
        self._check()  # nobody commits what is published after the end: it would be lost in silence
        due = self._clock.due(after, at)
        envelopes = self._outgoing.envelopes(messages, id=None, headers=None)
        self.published = True
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
        """Append events to a stream now, behind what was published before; returns the stream's version."""
        raw = await self.begun()
        if self.earlier or self.outbox:
            await raw.apply(Append([*self.earlier, *self.outbox], fresh=self._outgoing.fresh))
            self.published = True
            self._sent.extend(self.earlier)
            self.earlier, self.outbox = [], []
        envelopes = [self._outgoing.envelope(event, stream=stream, key=key) for event in events]
        appended: Appended = await raw.apply(Append(envelopes, expected, fresh=self._outgoing.fresh))
        return appended.version or 0

    # ---- several handlers in one transaction -----------------------------------------------------------------------

    def add(self, envelopes: Sequence[Envelope]) -> None:
        """Have envelopes appended when it commits, behind what the handler published itself."""
        self.published = True
        self.outbox += envelopes

    def kept(self) -> None:
        """A handler ended well: what it published leaves with the others' messages. Another one may begin."""
        self.touched = self.published = False
        self.earlier += self.outbox
        self.earlier_later += self.later
        self.outbox, self.later, self._sent = [], [], []  # lists of the next one's own

    def undone(self) -> None:
        """A handler failed: what it published does not leave; what it appended for the others is theirs again."""
        self.touched = self.published = False
        self.earlier = [*self._sent, *self.earlier]
        self.outbox, self.later, self._sent = [], [], []

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def commit(self) -> int:
        """Append what was published, and commit; returns the last position, 0 if nothing was published."""
        self.closed = True
        if self.outbox and self._direct is not None:
            self.outbox = [*await self._direct(self.outbox)]
        position = 0
        if self.outbox or self.later:
            if self.raw is None:
                self.raw = await self._begin()
            if self.outbox:
                position = (await self.raw.apply(Append(self.outbox, fresh=self._outgoing.fresh))).position
            for append in self.later:
                await self.raw.apply(append)
        await self.end()
        return position

    def reopen(self) -> None:
        """Be a new transaction, begun at its first statement."""
        self.raw = None
        self.closed = self.touched = self.published = self.expired = False
        self.earlier, self.earlier_later, self.outbox, self.later = [], [], [], []

    async def end(self) -> None:
        """Commit what was applied so far; the transaction is over."""
        self.closed = True
        self._unwatch()
        if self.raw is not None:
            await self.raw.commit()

    async def finish(self) -> None:
        """The same, to the end: being cancelled meanwhile must not leave the outcome open, nor undo it."""
        self.closed = True
        self._unwatch()
        ending = asyncio.ensure_future(self.end())
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((ending,))
        ending.result()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def rollback(self) -> None:
        """Undo everything; nothing published in it leaves."""
        self.closed = True
        self._unwatch()
        self.earlier, self.earlier_later, self.outbox, self.later = [], [], [], []
        if self.raw is not None:
            await self.raw.rollback()


def check_free(store: Store, verb: str, tx: OpenTransaction | None) -> None:
    """Refuse what would wait for the transaction of the very code that calls it.

    Args:
        store: What is to be written.
        verb: Which is called.
        tx: What the caller works in; others may be open around it.

    Raises:
        UsageError: One of them is of this store, and has executed something.
    """
    while tx is not None:
        if tx.touched and not tx.closed and tx.store is store:
            msg = f"`app.{verb}` is called inside a transaction that has executed a statement: it would wait for itself"
            raise UsageError(msg, "use `tx.publish`, `tx.send` or `tx.append`; or call it before the first statement")
        tx = tx.outer
