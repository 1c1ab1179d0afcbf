"""The store on PostgreSQL: implements `tidings.core.ports.Store` in one schema of one database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import psycopg

from tidings.core.check import Check
from tidings.core.envelope import Envelope, Excerpt
from tidings.core.guarantees import Guarantees
from tidings.core.migration import Migration, Schema
from tidings.core.operations import Backlog, CurrentState, Held, Member, Op, State
from tidings.core.outbox import OutboxTable
from tidings.core.ports import Changed
from tidings.core.url import parse_url
from tidings.errors import NotOpen, TidingsError
from tidings.stores.news import News
from tidings.stores.postgres import checkup, reads
from tidings.stores.postgres.connection import Place, TimelyConnection
from tidings.stores.postgres.failures import explain
from tidings.stores.postgres.in_loop import InLoop
from tidings.stores.postgres.in_threads import InThreads
from tidings.stores.postgres.placeholders import numbered
from tidings.stores.postgres.schema import look, migrate_now, prepare
from tidings.stores.postgres.steps import Steps, rows
from tidings.stores.postgres.transaction import PostgresTransaction
from tidings.stores.postgres.waking import Waker
from tidings.stores.postgres.wire import drive_now
from tidings.stores.waiting import Rooms, running_loop

T = TypeVar("T")

MAX_BYTES = 1_000_000
QUICK, SLOW = 0.02, 1.0
"""Seconds between looks at the log while somebody waits for it to grow, in case a notification was lost."""

_stores: weakref.WeakSet[PostgresStore] = weakref.WeakSet()


def _in_forked_child() -> None:
    for store in list(_stores):
        store._forked()  # noqa: SLF001 - our own class


os.register_at_fork(after_in_child=_in_forked_child)


class PostgresStore:
    """Implements `tidings.core.ports.Store` on PostgreSQL 13 or newer.

    Args:
        url: `postgresql://user:password@host:port/database`, with `?schema=billing` for another schema than public.
            `sslmode`, `sslrootcert` and other options of libpq may follow.

    Raises:
        BadUrl: The URL cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._place = Place(parse_url(url, ("postgresql",)))
        self.url = url
        self.guarantees = Guarantees(
            name="PostgreSQL",
            ordered=True,
            history=True,
            exactly_once=True,
            durable="power",
            max_bytes=MAX_BYTES,
        )
        self._loops: dict[asyncio.AbstractEventLoop, InLoop] = {}
        self._threads: InThreads | None = None  # while it is open
        self._committed = 0  # position up to which this process has seen the log end
        self._waker: Waker | None = None
        self._rooms = Rooms(None, None)
        self._refusal = "not open"
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"PostgresStore({self._place.safe!r})"

    # ---- opening and closing -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open it, creating what is missing.

        Raises:
            StoreUnavailable: The server cannot be reached, or cannot keep what a store promises; says why.
            WrongStore: There is a store of a newer version.
        """
        await asyncio.get_running_loop().run_in_executor(None, self.open_now)

    def open_now(self) -> None:
        """The same from a thread that may block."""
        with self._opening:
            if self._threads is not None:
                return
            with self._briefly() as connection:
                prepare(connection, self._place)
            self._committed = 0  # a backup may have been put back meanwhile
            self._rooms = Rooms(None, None)
            self._waker = Waker(self._place, self._rooms.wake)
            self._threads = InThreads(self._place, self._grew)
            _stores.add(self)

    @contextlib.contextmanager
    def _briefly(self) -> Iterator[TimelyConnection]:
        """A connection for what is done before the store is open; it blocks."""
        try:
            connection = self._place.connect()
            try:
                yield connection
            finally:
                connection.close()
        except (psycopg.Error, TidingsError) as error:
            raise explain(error, self._place.safe) from error.__cause__

    async def close(self) -> None:
        """Finish waiting writes and close. Safe to call twice."""
        self._rooms.close()
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.close()
        await asyncio.get_running_loop().run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        """The same from a thread that may block."""
        with self._opening:
            threads, waker = self._threads, self._waker
            if threads is None or waker is None:
                return
            self._threads = self._waker = None
            self._refusal = "closed"
        _stores.discard(self)
        threads.close()
        waker.close()
        self._rooms.close()
        for each in self._loops.values():
            each.close_soon()
        self._loops.clear()

    def _forked(self) -> None:
        """In a forked child: use nothing; the connections are the parent's."""
        self._threads = self._waker = None
        self._refusal = "not open in a forked child"
        self._loops = {}
        self._rooms = Rooms(None, None)

    def _opened(self) -> InThreads:
        if self._threads is None:
            raise NotOpen(
                f"the store {self._place.safe} is {self._refusal}", "open it in this process: `async with app:`"
            )
        return self._threads

    def _here(self) -> InLoop:
        """What the running loop has."""
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None or self._threads is None:
            self._opened()
            for other in [other for other in self._loops if other.is_closed()]:
                self._loops.pop(other).close_soon()
            here = self._loops[loop] = InLoop(self._place, self._grew, lambda: self._committed)
        return here

    def _grew(self, position: int, news: News) -> None:
        """Somebody here committed what readers should look at; the log goes to this position at least."""
        self._committed = max(self._committed, position)
        self._rooms.wake(*news)
        if (waker := self._waker) is not None:
            waker.ring()

    # ---- writing -----------------------------------------------------------------------------------------------------

    def write(self, op: Op) -> Coroutine[Any, Any, Any]:
        """Apply one operation durably; all that wait share one commit."""
        return self._here().writer.write(op)

    def write_now(self, op: Op) -> Any:
        """The same from a thread that may block."""
        return self._opened().write(op)

    async def begin(self) -> PostgresTransaction:
        """Start a transaction of one's own, beside those of others."""
        return await self._here().begin()

    def begin_now(self) -> PostgresTransaction:
        """The same from a thread that may block; the transaction's awaitables then never suspend."""
        return self._opened().begin()

    # ---- waiting -----------------------------------------------------------------------------------------------------

    async def grown(self, position: int, timeout: float) -> None:
        """Return when the log may have grown beyond `position`, or held deliveries changed, or after `timeout` s."""
        self._opened()
        room = self._rooms.here()
        room.attend()
        until = time.monotonic() + timeout
        pause = QUICK
        while await self.head() <= position and (left := until - time.monotonic()) > 0:
            if await room.wait(min(pause, left)):
                return
            pause = min(SLOW, pause * 2)

    async def watch(self, changed: Changed) -> None:
        """Call `changed` now, and whenever the log may have grown or held deliveries changed, until cancelled."""
        self._opened()
        end, pause = 0, QUICK

        def told(envelopes: Sequence[Envelope], positions: Sequence[int]) -> None:
            nonlocal end, pause
            end, pause = max((end, *positions[-1:])), QUICK
            changed(envelopes, positions)

        with self._rooms.here().listening(told):
            while True:
                position = await self.head()
                if position > end:
                    told((), (position,))
                await asyncio.sleep(pause)
                pause = min(SLOW, pause * 2)

    def poke(self) -> None:
        """Make every `grown` of this process return, and every `watch` call, now."""
        self._opened()
        self._rooms.wake()

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, steps: Steps[T]) -> T:
        """Run steps that only read, where the caller is: on its event loop, or blocking its thread."""
        if running_loop() is not None:
            return await self._here().read(steps)
        return self._opened().read(steps)

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read with SQL, outside any transaction, from what is committed."""
        return await self._read(_reading(numbered(sql), params))

    async def head(self) -> int:
        """The last position of the log, 0 when it is empty."""
        if running_loop() is not None:
            return await self._here().head.get()
        return self._opened().read(reads.head())

    async def read(
        self,
        after: int,
        until: int,
        limit: int,
        *,
        types: Sequence[str] | None = None,
        slots: Sequence[int] | None = None,
        app: str | None = None,
    ) -> Sequence[Envelope]:
        """Envelopes with after < position <= until, in order, filtered; private ones (no topic) only of `app`."""
        return await self._read(reads.read(Envelope, after, until, limit, types, slots, app))

    async def skim(self, after: int, until: int, limit: int, types: Sequence[str] | None, app: str) -> list[Excerpt]:
        """The same of all slots, only what it takes to handle them."""
        return await self._read(reads.read(Excerpt, after, until, limit, types, None, app))

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events after a version, in order."""
        return await self._read(reads.load(stream, after))

    async def find(self, *, id: str | None = None, correlation: str | None = None) -> Sequence[Envelope]:
        """Envelopes by CloudEvents id, or by correlation id, in log order (at most 10,000)."""
        return await self._read(reads.find(id, correlation))

    async def states(self, type: str, after: str = "", limit: int = 1000) -> Sequence[CurrentState]:
        """Current states of a type with key > after, in key order, tombstones included."""
        return await self._read(reads.states(type, after, limit))

    async def due(self, group: str, slots: Sequence[int], now: int, limit: int) -> Sequence[Held]:
        """Held deliveries to try now, by position: of each key the first one, of those without a key all."""
        return await self._read(reads.due(group, slots, now, limit))

    async def first_held(self, group: str, keys: Sequence[str], limit: int) -> Sequence[Held]:
        """The first held deliveries of these keys, due or not, by position; of each key at most `limit`."""
        return await self._read(reads.first_held(group, keys, limit))

    async def next_due(self, group: str, slots: Sequence[int]) -> int | None:
        """Microseconds since 1970 UTC when the next held delivery is due, or None."""
        return await self._read(reads.next_due(group, slots))

    async def blocked(self, group: str, keys: Sequence[str], *, dead: bool = True) -> set[str]:
        """Those of these keys that have held deliveries; dead letters count unless `dead` is False."""
        return await self._read(reads.blocked(group, keys, dead=dead))

    async def held(
        self,
        *,
        ids: Sequence[int] | None = None,
        group: str | None = None,
        key: str | None = None,
        state: State | None = None,
        limit: int = 1000,
    ) -> Sequence[Held]:
        """Held deliveries, by id, newest last; `limit` applies to the newest."""
        return await self._read(reads.held(ids, group, key, state, limit))

    async def next_timer(self) -> int | None:
        """Microseconds since 1970 UTC when the next timer is due, or None."""
        return await self._read(reads.next_timer())

    def outbox(self) -> OutboxTable:
        """Where transactions of others write what they publish."""
        return OutboxTable(f'"{self._place.schema}".tidings_outbox', "postgresql", self._place.safe)

    async def oldest_outgoing(self) -> int | None:
        """When the oldest envelope in the outbox was published, microseconds since 1970 UTC; None when it is empty."""
        return await self._read(reads.oldest_outgoing())

    async def seeding(self, group: str) -> str | None:
        """The cursor of a replica's unfinished bootstrap ("" at its start), or None when there is none."""
        return await self._read(reads.seeding(group))

    async def marks(self, group: str, after: int) -> set[int]:
        """Positions after `after` that were handled out of order."""
        return await self._read(reads.marks(group, after))

    async def backlog(self, group: str | None = None) -> Sequence[Backlog]:
        """How each group (or one) stands."""
        return await self._read(reads.backlog(group))

    async def members(self) -> Sequence[Member]:
        """The workers that said they live, by app and member."""
        return await self._read(reads.members())

    # ---- its schema, and for the doctor ------------------------------------------------------------------------------

    def schema(self) -> Schema:
        """How its schema stands. It need not be open; blocks."""
        with self._briefly() as connection:
            return drive_now(look(self._place), connection)

    def migrate(self, step: Migration) -> None:
        """Take a pending step in one transaction. It need not be open; blocks."""
        with self._briefly() as connection:
            migrate_now(connection, self._place, step)

    def look(self) -> Sequence[Check]:
        """What can be seen before opening it."""
        return list(checkup.outside(self._place))

    async def inspect(self, *, deep: bool = False) -> Sequence[Check]:
        """Whether the server is set up to keep what a store promises; `deep` reads the whole log."""
        return await self._read(checkup.inside(deep=deep))

    async def checkpoint(self, group: str) -> int:
        """Lowest position all slots of the group have finished; NotFound for an unknown group."""
        return await self._read(reads.checkpoint(group))


def _reading(sql: str, params: Sequence[Any]) -> Steps[list[tuple[Any, ...]]]:
    return (yield from rows(sql, *params))
