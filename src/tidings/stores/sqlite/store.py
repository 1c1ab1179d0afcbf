"""The SQLite store: one file is log, streams, held deliveries, timers, leases, current states and read models."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tidings.core.check import Check
from tidings.core.envelope import Envelope, Excerpt
from tidings.core.guarantees import Guarantees
from tidings.core.migration import Migration, Schema
from tidings.core.operations import Backlog, CurrentState, Held, Member, Op, State
from tidings.core.outbox import OutboxTable
from tidings.core.ports import Changed
from tidings.core.url import parse_url
from tidings.errors import NotOpen
from tidings.stores.sqlite import checkup, outbox, reads, schema
from tidings.stores.sqlite.committer import Committer
from tidings.stores.sqlite.connection import check_place, connect
from tidings.stores.sqlite.doorbell import Doorbell
from tidings.stores.sqlite.failures import explain
from tidings.stores.sqlite.presence import NoPresence, Presence
from tidings.stores.sqlite.solo import Solo
from tidings.stores.sqlite.transaction import SqliteTransaction
from tidings.stores.sqlite.turnstile import OpenTurnstile, Turnstile
from tidings.stores.sqlite.writer import Writer
from tidings.stores.waiting import Rooms, running_loop

E = TypeVar("E", Envelope, Excerpt)
T = TypeVar("T")

MAX_BYTES = 1_000_000
_READ_HERE = 2_000
"""Positions a read may look at on the event loop's own thread; a longer one goes to a reader thread."""

_FEW = 100
"""Held deliveries to read on the event loop's own thread."""

_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


def _in_forked_child() -> None:
    for store in list(_stores):
        store._forked()  # noqa: SLF001 - our own class


os.register_at_fork(after_in_child=_in_forked_child)


class SqliteStore:
    """Implements `tidings.core.ports.Store` on one SQLite file.

    Args:
        url: `sqlite:shop.db`, `sqlite:///abs/shop.db`, or `sqlite::memory:` for one that ends with the process.
        threads: False runs everything on the caller's thread, for simulations with several stores on one event loop.
        clock: Seconds that all processes on the file share and that never go back, for leases.
        wall: Seconds since 1970 UTC, for ages that are shown.
    """

    def __init__(
        self,
        url: str,
        *,
        threads: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        parsed = parse_url(url, ("sqlite",), options=())
        self.url = parsed.safe
        self._path_text = parsed.path
        self._in_memory = not parsed.path
        self.guarantees = Guarantees(
            name="SQLite",
            ordered=True,
            history=True,
            exactly_once=True,
            durable="process" if self._in_memory else "power",
            max_bytes=MAX_BYTES,
        )
        self._threads = threads
        self._clock = clock
        self._wall = wall
        self._writer: Writer | Solo | None = None
        self._committer: Committer | None = None
        self._folder: Path | None = None
        self._refusal = "not open"
        self._opening = threading.Lock()

    # ---- opening and closing -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open it, creating what is missing.

        Raises:
            StoreUnavailable: The file cannot be opened or created; says why, and the cure.
            WrongStore: The file is no tidings store, or one of a newer version.
        """
        loop = running_loop()
        if loop is not None and self._threads:
            await loop.run_in_executor(None, self.open_now)
        else:
            self.open_now()

    def open_now(self) -> None:
        """The same from a thread that may block."""
        with self._opening:
            if self._writer is not None:
                return
            path = self._make_folder() if self._in_memory else Path(self._path_text).resolve()
            check_place(path)
            try:
                self._open_files(path)
            except OSError as error:
                raise explain(error, str(path)) from error
            _stores.add(self)

    def _make_folder(self) -> Path:
        """A private place for a store in memory, where the machine has memory for files."""
        shared = "/dev/shm"  # noqa: S108 - a private folder is made in it
        self._folder = Path(tempfile.mkdtemp(prefix="tidings-", dir=shared if os.access(shared, os.W_OK) else None))
        return self._folder / "memory.db"

    def _open_files(self, path: Path) -> None:
        alone = self._in_memory or not self._threads
        with contextlib.ExitStack() as undo:
            self._turnstile: Turnstile = OpenTurnstile() if alone else Turnstile(Path(f"{path}-lock"))
            undo.callback(self._turnstile.close)
            self._doorbell: Doorbell | None = None
            self._presence: Presence = NoPresence()
            committer = Committer(path, self._turnstile, self._clock, volatile=self._in_memory)
            undo.callback(committer.close)
            if not alone:
                bells = Path(f"{path}-bells")
                bells.mkdir(mode=0o700, exist_ok=True)
                self._doorbell = Doorbell(bells)
                committer.changes.presence = self._presence = Presence(bells)
            undo.pop_all()
        self._committer = committer
        self._readers = reads.Readers(lambda: connect(path, volatile=self._in_memory), str(path))
        self._rooms = Rooms(self._doorbell, None if alone else self._data_version)
        self._executor = ThreadPoolExecutor(4, thread_name_prefix="tidings-reader") if self._threads else None
        if self._threads:
            self._writer = Writer(committer, self._rooms, self._doorbell.ring if self._doorbell else lambda: None)
        else:
            self._writer = Solo(committer, self._rooms.wake)

    async def close(self) -> None:
        """Finish waiting writes and close. Safe to call twice."""
        if self._writer is None:
            return
        loop = running_loop()
        if loop is not None and self._threads:
            self._rooms.close()
            await loop.run_in_executor(None, self.close_now)
        else:
            self.close_now()

    def close_now(self) -> None:
        """The same from a thread that may block."""
        writer, committer = self._writer, self._committer
        if writer is None or committer is None:
            return
        self._writer = None
        self._refusal = "closed"
        _stores.discard(self)
        writer.close()
        self._rooms.close()
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        self._readers.close()
        committer.close()
        self._presence.close()
        if self._doorbell is not None:
            self._doorbell.close()
        self._turnstile.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _forked(self) -> None:
        """In a forked child: use nothing, and let go of the locks without touching SQLite's."""
        if self._committer is not None:
            self._committer.leak()
        self._readers.leak()
        self._writer = None
        self._refusal = "not open in a forked child"
        self._turnstile.close()
        self._presence.let_go()

    @property
    def _reading(self) -> reads.Readers:
        """Connections that read, of a store that is open."""
        self._is_open()
        return self._readers

    def _is_open(self) -> Writer | Solo:
        if self._writer is None:
            raise NotOpen(f"the store {self.url} is {self._refusal}", "open it in this process: `async with app:`")
        return self._writer

    # ---- writing -----------------------------------------------------------------------------------------------------

    def write(self, op: Op) -> Coroutine[Any, Any, Any]:
        """Apply one operation durably; all that wait share one commit."""
        return (self._writer or self._is_open()).write(op)

    def write_now(self, op: Op) -> Any:
        """The same from a thread that may block."""
        return (self._writer or self._is_open()).write_now(op)

    async def begin(self) -> SqliteTransaction:
        """Start a transaction of one's own; waits for its turn to write."""
        writer = self._is_open()
        if isinstance(writer, Solo):
            return await writer.begin()
        transaction = writer.begin_at_once()
        if transaction is not None:
            return transaction
        future: asyncio.Future[SqliteTransaction] = asyncio.get_running_loop().create_future()
        writer.begin(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().abandon()
            raise

    def begin_now(self) -> SqliteTransaction:
        """The same from a thread that may block; the transaction's awaitables then never suspend."""
        return self._is_open().begin_now()

    # ---- waiting -----------------------------------------------------------------------------------------------------

    async def grown(self, position: int, timeout: float) -> None:
        """Return when the log may have grown beyond `position`, or held deliveries changed, or after `timeout` s."""
        self._is_open()
        room = self._rooms.here()
        if reads.head(self._readers) <= position:
            await room.wait(timeout)

    async def watch(self, changed: Changed) -> None:
        """Call `changed` now, and whenever the log may have grown or held deliveries changed, until cancelled."""
        self._is_open()
        with self._rooms.here().listening(changed):
            await asyncio.get_running_loop().create_future()

    def poke(self) -> None:
        """Make every `grown` of this process return, and every `watch` call, now."""
        self._is_open()
        self._rooms.wake()

    def _data_version(self) -> int:
        with contextlib.suppress(Exception):
            return int(self._readers.version())
        return 0

    # ---- for the doctor ----------------------------------------------------------------------------------------------

    def schema(self) -> Schema:
        """How its schema stands. It need not be open; blocks."""
        return schema.look(self._path_text)

    def migrate(self, step: Migration) -> None:
        """Take a pending step in one transaction. It need not be open; blocks."""
        schema.migrate_now(self._path_text, step)

    def look(self) -> Sequence[Check]:
        """What can be seen from outside, before opening it; a failed check advises against that."""
        return list(checkup.outside(self._path_text))

    async def inspect(self, *, deep: bool = False) -> Sequence[Check]:
        """Whether it is set up to keep its promises; `deep` reads every page."""
        return await checkup.inside(self.query, self._path_text, deep=deep)

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def _aside(self, function: Callable[..., T], *args: Any, here: bool = False) -> T:
        """Run a read that may take long on a reader thread, unless it is done `here`."""
        if here or self._executor is None or running_loop() is None:
            return function(self._readers, *args)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, self._readers, *args)

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read with SQL, outside any transaction, from what is committed."""
        self._is_open()
        return await self._aside(reads.Readers.rows, sql, params)

    async def head(self) -> int:
        """The last position of the log, 0 when it is empty."""
        return reads.head(self._reading)

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
        return await self._read(Envelope, after, until, limit, types, slots, app)

    async def skim(self, after: int, until: int, limit: int, types: Sequence[str] | None, app: str) -> list[Excerpt]:
        """The same of all slots, only what it takes to handle them."""
        return await self._read(Excerpt, after, until, limit, types, None, app)

    async def _read(self, kind: type[E], after: int, until: int, limit: int, types: Any, *more: Any) -> list[E]:
        self._is_open()
        here = min(until - after, limit if types is None else until - after) <= _READ_HERE
        return await self._aside(reads.read, kind, after, until, limit, types, *more, here=here)

    async def load(self, stream: str, after: int = 0) -> Sequence[tuple[str, bytes, int]]:
        """(type, data, version) of a stream's events after a version, in order."""
        return reads.load(self._reading, stream, after)

    async def find(self, *, id: str | None = None, correlation: str | None = None) -> Sequence[Envelope]:
        """Envelopes by CloudEvents id, or by correlation id, in log order (at most 10,000)."""
        self._is_open()
        return await self._aside(reads.find, id, correlation)

    async def states(self, type: str, after: str = "", limit: int = 1000) -> Sequence[CurrentState]:
        """Current states of a type with key > after, in key order, tombstones included."""
        return reads.states(self._reading, type, after, limit)

    async def due(self, group: str, slots: Sequence[int], now: int, limit: int) -> Sequence[Held]:
        """Held deliveries to try now, by position: of each key the first one, of those without a key all."""
        return reads.due(self._reading, group, slots, now, limit)

    async def first_held(self, group: str, keys: Sequence[str], limit: int) -> Sequence[Held]:
        """The first held deliveries of these keys, due or not, by position; of each key at most `limit`."""
        return reads.first_held(self._reading, group, keys, limit)

    async def next_due(self, group: str, slots: Sequence[int]) -> int | None:
        """Microseconds since 1970 UTC when the next held delivery is due, or None."""
        return reads.next_due(self._reading, group, slots)

    async def blocked(self, group: str, keys: Sequence[str], *, dead: bool = True) -> set[str]:
        """Those of these keys that have held deliveries; dead letters count unless `dead` is False."""
        return reads.blocked(self._reading, group, keys, dead=dead)

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
        self._is_open()
        return await self._aside(reads.held, ids, group, key, state, limit, here=limit <= _FEW)

    async def next_timer(self) -> int | None:
        """Microseconds since 1970 UTC when the next timer is due, or None."""
        return reads.next_timer(self._reading)

    def outbox(self) -> OutboxTable:
        """Where transactions of others write what they publish; none can where the store is in memory."""
        return outbox.table(self._path_text)

    async def oldest_outgoing(self) -> int | None:
        """When the oldest envelope in the outbox was published, microseconds since 1970 UTC; None when it is empty."""
        return reads.oldest_outgoing(self._reading)

    async def seeding(self, group: str) -> str | None:
        """The cursor of a replica's unfinished bootstrap ("" at its start), or None when there is none."""
        return reads.seeding(self._reading, group)

    async def marks(self, group: str, after: int) -> set[int]:
        """Positions after `after` that were handled out of order."""
        return reads.marks(self._reading, group, after)

    async def backlog(self, group: str | None = None) -> Sequence[Backlog]:
        """How each group (or one) stands."""
        self._is_open()
        return await self._aside(reads.backlog, group, self._wall() * 1e6)

    async def members(self) -> Sequence[Member]:
        """The workers that said they live, by app and member."""
        return reads.members(self._reading, self._clock())

    async def checkpoint(self, group: str) -> int:
        """Lowest position all slots of the group have finished; NotFound for an unknown group."""
        return reads.checkpoint(self._reading, group)
