"""What a store has for threads that block: its connections and its writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg

from tidings.core.operations import Op
from tidings.errors import TidingsError
from tidings.stores.news import News
from tidings.stores.postgres.committer import Committer
from tidings.stores.postgres.connection import PLANNED_ONCE, Place
from tidings.stores.postgres.failures import explain
from tidings.stores.postgres.pool import MOST, READING, BlockingPool
from tidings.stores.postgres.steps import Steps
from tidings.stores.postgres.transaction import PostgresTransaction
from tidings.stores.postgres.wire import BlockingWire, drive_now
from tidings.stores.postgres.writer import Writer

T = TypeVar("T")


class InThreads:
    """Reads, writes and begins transactions on the thread of its caller."""

    def __init__(self, place: Place, grew: Callable[[int, News], None]) -> None:
        """Nothing is connected yet. Args: grew: called with the last position, and with what readers should know."""
        self._place = place
        self._grew = grew
        self._looked_at: set[str] = set()
        self._reading = BlockingPool(place, READING)
        self._transactions = BlockingPool(place, MOST)
        self._writer = Writer(Committer(self._connect, place.safe), grew)

    async def _connect(self) -> BlockingWire:
        return BlockingWire(self._place.connect(**PLANNED_ONCE))

    def write(self, op: Op) -> object:
        """Commit an operation; all that wait share one commit."""
        return self._writer.write(op)

    def read(self, steps: Steps[T]) -> T:
        """Run steps that only read."""
        try:
            connection = self._reading.take()
            try:
                return drive_now(steps, connection)
            finally:
                self._reading.give(connection)
        except (psycopg.Error, TidingsError) as error:
            raise explain(error, self._place.safe) from error.__cause__

    def begin(self) -> PostgresTransaction:
        """Start a transaction of one's own; its awaitables never suspend."""
        pool = self._transactions
        try:
            connection = pool.take()
        except (psycopg.Error, TidingsError) as error:
            raise explain(error, self._place.safe) from error.__cause__
        return PostgresTransaction(
            BlockingWire(connection), lambda: pool.give(connection), self._grew, self._looked_at, self._place.safe
        )

    def close(self) -> None:
        """Finish waiting writes and close."""
        self._writer.close()
        self._reading.close()
        self._transactions.close()
