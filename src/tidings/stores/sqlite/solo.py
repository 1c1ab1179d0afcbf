"""A writer without a thread, for simulations: several stores of one process take turns on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from weakref import WeakValueDictionary

from tidings.core.operations import Op
from tidings.core.ports import Changed
from tidings.errors import NotOpen, StoreUnavailable
from tidings.stores.news import UNKNOWN, News
from tidings.stores.sqlite.committer import Committer
from tidings.stores.sqlite.transaction import SqliteTransaction


class _Turn:
    """Whose turn it is on one file, and who wants to know about commits."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.listeners: list[Changed] = []


_turns: WeakValueDictionary[tuple[str, asyncio.AbstractEventLoop], _Turn] = WeakValueDictionary()


class Solo:
    """Does what `Writer` does, on the thread of the event loop; nothing happens at the same time as anything else."""

    def __init__(self, committer: Committer, committed: Changed) -> None:
        """Args: committed: called after every commit on this file by any store of this loop."""
        self._committer = committer
        self._committed = committed
        key = (str(committer.path), asyncio.get_running_loop())
        self._turn = _turns.get(key) or _Turn()
        _turns[key] = self._turn
        self._turn.listeners.append(committed)
        self._number = 0
        self.lent = 0
        self._closed = False

    async def write(self, op: Op) -> Any:
        """Commit an operation."""
        self._check()
        async with self._turn.lock:
            return self._write(op)

    def write_now(self, op: Op) -> Any:
        """Commit an operation; refused while a transaction is open, since nobody else could end it."""
        self._check()
        if self._turn.lock.locked():
            raise StoreUnavailable("a transaction is open on this thread", "use `await write(...)`")
        return self._write(op)

    def _write(self, op: Op) -> Any:
        result, grew = self._committer.commit_one(op)
        if grew:
            self._tell(self._committer.changes.news((op,), ((result, None),)))
        if self._committer.wal.is_due:
            self._committer.checkpoint()
        return result

    async def begin(self) -> SqliteTransaction:
        """Begin a transaction when it is its turn."""
        self._check()
        await self._turn.lock.acquire()
        return self._begin()

    def begin_now(self) -> SqliteTransaction:
        """Begin a transaction, if nobody has one."""
        self._check()
        if self._turn.lock.locked():
            raise StoreUnavailable("a transaction is open on this thread", "use `await begin()`")
        with contextlib.suppress(StopIteration):  # it is free, so this does not suspend
            self._turn.lock.acquire().send(None)
        return self._begin()

    def _begin(self) -> SqliteTransaction:
        try:
            self._committer.begin()
        except BaseException:
            self._turn.lock.release()
            raise
        self._number += 1
        self.lent = self._number
        return SqliteTransaction(self, self._committer, self._number, blocking=True)

    def end(self, number: int, future: asyncio.Future[Any] | None, *, commit: bool) -> None:  # noqa: ARG002 - as Writer
        """End a transaction; only `abandon` comes here."""
        self.end_now(number, commit=commit)

    def end_now(self, number: int, *, commit: bool) -> None:
        """End a transaction."""
        if not number or self.lent != number:
            return
        self.lent = 0
        try:
            grew = self._committer.finish(commit=commit)
        finally:
            self._turn.lock.release()
        if grew:
            self._tell(UNKNOWN)

    def _tell(self, news: News) -> None:
        for listener in list(self._turn.listeners):
            listener(*news)

    def close(self) -> None:
        """End an open transaction and forget the others."""
        self.end_now(self.lent, commit=False)
        self._closed = True
        if self._committed in self._turn.listeners:
            self._turn.listeners.remove(self._committed)

    def _check(self) -> None:
        if self._closed:
            raise NotOpen("the store is closed", "open it first: `async with app:`")
