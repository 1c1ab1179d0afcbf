"""Wires: a connection, on which steps are run. All statements of one step go out together, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor

from tidings.stores.postgres.steps import Result, Statement, Steps

T = TypeVar("T")


class Wire:
    """Runs statements on a connection that blocks."""

    def __init__(self, connection: Connection[Any]) -> None:
        """Args: connection: in autocommit mode."""
        self.connection = connection

    def run(self, statements: Sequence[Statement]) -> list[Result]:
        """The results of statements, in order; the first that fails ends it."""
        execute = self.connection.execute
        if len(statements) == 1:
            sql, params = statements[0]
            return [_result(execute(sql, params, binary=True))]
        with self.connection.pipeline():
            cursors = [execute(sql, params, binary=True) for sql, params in statements]
        return [_result(cursor) for cursor in cursors]


class AsyncWire:
    """The same on a connection that suspends."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        """Args: connection: in autocommit mode."""
        self.connection = connection

    async def run(self, statements: Sequence[Statement]) -> list[Result]:
        """The results of statements, in order; the first that fails ends it."""
        execute = self.connection.execute
        if len(statements) == 1:
            sql, params = statements[0]
            return [await _result_async(await execute(sql, params, binary=True))]
        async with self.connection.pipeline():
            cursors = [await execute(sql, params, binary=True) for sql, params in statements]
        return [await _result_async(cursor) for cursor in cursors]


def drive(steps: Steps[T], wire: Wire) -> T:
    """Run steps to their end on a connection that blocks; what the database refuses is raised inside them."""
    try:
        wanted = next(steps)
        while True:
            try:
                results = wire.run(wanted)
            except Exception as error:  # noqa: BLE001 - the steps decide, and mostly let it pass
                wanted = steps.throw(error)
            else:
                wanted = steps.send(results)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def drive_async(steps: Steps[T], wire: AsyncWire) -> T:
    """The same on a connection that suspends."""
    try:
        wanted = next(steps)
        while True:
            try:
                results = await wire.run(wanted)
            except Exception as error:  # noqa: BLE001 - as above
                wanted = steps.throw(error)
            else:
                wanted = steps.send(results)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _result(cursor: Cursor[Any]) -> Result:
    rows = cursor.fetchall() if cursor.description else []
    return Result(rows, cursor.rowcount, cursor.statusmessage)


async def _result_async(cursor: AsyncCursor[Any]) -> Result:
    rows = await cursor.fetchall() if cursor.description else []
    return Result(rows, cursor.rowcount, cursor.statusmessage)
