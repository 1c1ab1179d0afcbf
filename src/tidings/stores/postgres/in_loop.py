"""What a store has in one event loop: its connections, its writer, and what is known of the log's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import psycopg

from tidings.errors import TidingsError
from tidings.stores.news import News
from tidings.stores.postgres import reads
from tidings.stores.postgres.committer import Committer
from tidings.stores.postgres.connection import PLANNED_ONCE, Place
from tidings.stores.postgres.failures import explain
from tidings.stores.postgres.head import Head
from tidings.stores.postgres.pool import MOST, READING, Pool
from tidings.stores.postgres.steps import Steps
from tidings.stores.postgres.transaction import PostgresTransaction
from tidings.stores.postgres.turns import PATIENCE, LoopWriter
from tidings.stores.postgres.wire import AsyncWire, OwnWire, drive

T = TypeVar("T")


class InLoop:
    """Reads, writes and begins transactions in the running loop. Transactions may last, and keep nobody from reading.

    Attributes:
        head: The end of the log.
        writer: Commits.
    """

    def __init__(self, place: Place, grew: Callable[[int, News], None], floor: Callable[[], int]) -> None:
        """Nothing is connected yet.

        Args:
            place: Where the store is.
            grew: Called after commits with the last position, and with what readers should know.
            floor: A position that this process has committed itself.
        """
        self._place = place
        self._grew = grew
        self._looked_at: set[str] = set()
        self._reading = Pool(place, READING)
        self._transactions = Pool(place, MOST)
        self.head = Head(lambda: self.read(reads.head()), floor)
        self.writer = LoopWriter(Committer(self._connect, place.safe), grew)

    async def _connect(self) -> OwnWire:
        # In a task of its own, for timeouts are bound to tasks, and commits are begun in that of their caller.
        connecting = self._place.connect_async(**PLANNED_ONCE)
        connection = await asyncio.get_running_loop().create_task(connecting)
        connection.patience = PATIENCE
        return OwnWire(connection)

    async def read(self, steps: Steps[T]) -> T:
        """Run steps that only read."""
        try:
            connection = await self._reading.take()
            try:
                return await drive(steps, AsyncWire(connection))
            finally:
                self._reading.give(connection)
        except (psycopg.Error, TidingsError) as error:
            raise explain(error, self._place.safe) from error.__cause__

    async def begin(self) -> PostgresTransaction:
        """Start a transaction of one's own, beside those of others."""
        pool = self._transactions
        try:
            connection = await pool.take()
        except (psycopg.Error, TidingsError) as error:
            raise explain(error, self._place.safe) from error.__cause__
        return PostgresTransaction(
            AsyncWire(connection), lambda: pool.give(connection), self._grew, self._looked_at, self._place.safe
        )

    async def close(self) -> None:
        """Finish waiting writes, and close."""
        await self.writer.close()
        self.close_soon()

    def close_soon(self) -> None:
        """Close what is at rest; what is in use closes when it is done. From any thread."""
        self.writer.close_soon()
        self._reading.close()
        self._transactions.close()
