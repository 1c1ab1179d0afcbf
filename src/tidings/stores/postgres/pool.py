"""Connections at rest: borrowed by whoever reads or begins a transaction, and given back."""

from __future__ import annotations

import asyncio
import select
import threading
from collections import deque
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.pq import ConnStatus, TransactionStatus

from tidings.errors import StoreUnavailable
from tidings.stores.postgres.connection import DEADLINE, Place, TimelyAsyncConnection, TimelyConnection

READING = 5
"""Connections on which one event loop reads, or all threads, at most. No code of users runs while one is borrowed."""
MOST = 20
"""Transactions that are open in one event loop at most, and in all threads of a process together."""


def is_usable(connection: Connection[Any] | AsyncConnection[Any]) -> bool:
    """True where nothing speaks against a connection that was idle; asks the kernel, not the server."""
    pgconn = connection.pgconn
    if pgconn.status != ConnStatus.OK or pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    if poll.poll(0):  # the server said something unasked: most likely good-bye
        try:
            pgconn.consume_input()
        except Exception:  # noqa: BLE001 - whatever it is, this connection is not usable
            return False
        return bool(pgconn.status == ConnStatus.OK) and not poll.poll(0)
    return True


class Pool:
    """The connections of one event loop."""

    def __init__(self, place: Place, most: int) -> None:
        """Args: place: where they lead; nothing is connected yet. most: so many at once."""
        self._place = place
        self._most = most
        self._idle: list[TimelyAsyncConnection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._count = 0
        self._closed = False

    async def take(self) -> TimelyAsyncConnection:
        """A connection; waits while all are in use.

        Raises:
            StoreUnavailable: None became free in time.
            psycopg.OperationalError: The server cannot be reached.
        """
        while True:
            while self._idle:
                connection = self._idle.pop()
                if is_usable(connection):
                    return connection
                self.drop(connection)
            if self._count < self._most:
                break
            await self._wait()
        self._count += 1
        try:
            return await self._place.connect_async()
        except BaseException:
            self._let_go()
            raise

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(DEADLINE):
                await waiter
        except TimeoutError:
            raise StoreUnavailable(
                f"{self._place.safe}: all {self._most} connections were in use for {DEADLINE:.0f} s",
                "end transactions sooner, or lower the concurrency of the handlers that take `tx`",
            ) from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # it was our turn: let somebody else have it
            raise

    def give(self, connection: TimelyAsyncConnection) -> None:
        """Have it back."""
        if self._closed or not is_usable(connection):
            self.drop(connection)
        else:
            self._idle.append(connection)
            self._wake()

    def drop(self, connection: TimelyAsyncConnection) -> None:
        """Close a connection at once; the server undoes what it had begun."""
        connection.pgconn.finish()
        self._let_go()

    def _let_go(self) -> None:
        self._count -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        """Close those at rest; those in use close when they are given back."""
        self._closed = True
        while self._idle:
            self.drop(self._idle.pop())


class BlockingPool:
    """The connections that threads use."""

    def __init__(self, place: Place, most: int) -> None:
        """Args: place: where they lead; nothing is connected yet. most: so many at once."""
        self._place = place
        self._most = most
        self._idle: list[TimelyConnection] = []
        self._free = threading.Semaphore(most)
        self._closed = False

    def take(self) -> TimelyConnection:
        """A connection; waits while all are in use.

        Raises:
            StoreUnavailable: None became free in time.
            psycopg.OperationalError: The server cannot be reached.
        """
        if not self._free.acquire(timeout=DEADLINE):
            raise StoreUnavailable(
                f"{self._place.safe}: all {self._most} connections were in use for {DEADLINE:.0f} s",
                "end transactions sooner, or use fewer threads",
            )
        try:
            while self._idle:
                connection = self._idle.pop()
                if is_usable(connection):
                    return connection
                connection.pgconn.finish()
            return self._place.connect()
        except BaseException:
            self._free.release()
            raise

    def give(self, connection: TimelyConnection) -> None:
        """Have it back."""
        if self._closed or not is_usable(connection):
            self.drop(connection)
        else:
            self._idle.append(connection)
            self._free.release()

    def drop(self, connection: TimelyConnection) -> None:
        """Close a connection at once."""
        connection.pgconn.finish()
        self._free.release()

    def close(self) -> None:
        """Close those at rest; those in use close when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
