"""Wires: a connection, on which steps are run. All statements of one step go out together, in one round trip."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import psycopg

from tidings.stores.postgres.connection import TimelyAsyncConnection, TimelyConnection
from tidings.stores.postgres.exchange import exchange
from tidings.stores.postgres.steps import Result, Statement, Steps
from tidings.stores.postgres.terse import shorten

T = TypeVar("T")


class Wire(Protocol):
    """Runs statements on one connection."""

    async def run(self, statements: Sequence[Statement]) -> list[Result]:
        """The results of statements, in order; the first that fails ends it."""


class BlockingWire:
    """On a connection that blocks: its coroutines never suspend."""

    __slots__ = ("connection",)

    def __init__(self, connection: TimelyConnection) -> None:
        """Args: connection: in autocommit mode."""
        self.connection = connection

    async def run(self, statements: Sequence[Statement]) -> list[Result]:
        """See `Wire`."""
        connection = self.connection
        try:
            with connection.lock:
                return connection.wait(exchange(connection, connection.prepared, statements))
        except psycopg.Error as error:
            _explain(error, connection)
            raise


class OwnWire:
    """The same on a connection that suspends, and that nobody else uses meanwhile."""

    __slots__ = ("connection",)

    def __init__(self, connection: TimelyAsyncConnection) -> None:
        """Args: connection: in autocommit mode."""
        self.connection = connection

    async def run(self, statements: Sequence[Statement]) -> list[Result]:
        """See `Wire`."""
        connection = self.connection
        try:
            asking = exchange(connection, connection.prepared, statements)
            try:
                state = connection.ask(asking)
            except StopIteration as stop:
                results: list[Result] = stop.value
                return results
            return await connection.answer(asking, state)
        except psycopg.Error as error:
            _explain(error, connection)
            raise


class AsyncWire(OwnWire):
    """The same where others may use it meanwhile: they take turns."""

    __slots__ = ()

    async def run(self, statements: Sequence[Statement]) -> list[Result]:
        """See `Wire`."""
        async with self.connection.lock:
            results = await super().run(statements)
            await self.connection.take_turns()
            return results


def _explain(error: psycopg.Error, connection: TimelyAsyncConnection | TimelyConnection) -> None:
    """Say it in one line; raises what the server said before it ended the connection, if that is why."""
    shorten(error)
    if isinstance(error, psycopg.OperationalError) and connection.farewells and not error.sqlstate:
        raise connection.farewells[-1] from error


async def drive(steps: Steps[T], wire: Wire) -> T:
    """Run steps to their end; what the database refuses is raised inside them."""
    try:
        wanted = next(steps)
        while True:
            try:
                results = await wire.run(wanted)
            except Exception as error:  # noqa: BLE001 - the steps decide, and mostly let it pass
                wanted = steps.throw(error)
            else:
                wanted = steps.send(results)
    except StopIteration as stop:
        result: T = stop.value
        return result


def drive_now(steps: Steps[T], connection: TimelyConnection) -> T:
    """The same from a thread that may block."""
    return finish(drive(steps, BlockingWire(connection)))


def finish(coroutine: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """The result of a coroutine over connections that block: it never suspends."""
    try:
        coroutine.send(None)  # type: ignore[union-attr]
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("a connection that blocks has suspended")  # pragma: no cover
