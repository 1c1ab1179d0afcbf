"""Wires: a connection, on which steps are run. All statements of one step go out together, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor

from tidings.stores.postgres.steps import Result, Statement, Steps
from tidings.stores.postgres.terse import shorten

T = TypeVar("T")


_FORGET = "DEALLOCATE ALL"
"""psycopg forgets its prepared statements when tables change, and has the server forget them with the next statement,
which it may have prepared by then. So that one must be this."""


_PREPARE = (None, False)
"""Several statements in one go cannot be prepared."""


def _makes_forget(result: Result) -> bool:
    return (result.tag or "").startswith(("DROP", "ALTER"))


class Wire:
    """Runs statements on a connection that blocks."""

    def __init__(self, connection: Connection[Any]) -> None:
        """Args: connection: in autocommit mode."""
        self.connection = connection

    def run(self, statements: Sequence[Statement]) -> list[Result]:
        """The results of statements, in order; the first that fails ends it."""
        try:
            return self._run(statements)
        except psycopg.Error as error:
            shorten(error)
            raise

    def _run(self, statements: Sequence[Statement]) -> list[Result]:
        execute = self.connection.execute
        if len(statements) == 1:
            sql, params = statements[0]
            return [_result(execute(sql, params, binary=params is not None, prepare=_PREPARE[params is None]))]
        with self.connection.pipeline():
            cursors = [execute(sql, params, binary=True) for sql, params in statements]
        results = [_result(cursor) for cursor in cursors]
        if any(map(_makes_forget, results)):
            execute(_FORGET, prepare=False)
        return results


class AsyncWire:
    """The same on a connection that suspends."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        """Args: connection: in autocommit mode."""
        self.connection = connection

    async def run(self, statements: Sequence[Statement]) -> list[Result]:
        """The results of statements, in order; the first that fails ends it."""
        try:
            return await self._run(statements)
        except psycopg.Error as error:
            shorten(error)
            raise

    async def _run(self, statements: Sequence[Statement]) -> list[Result]:
        execute = self.connection.execute
        if len(statements) == 1:
            sql, params = statements[0]
            cursor = await execute(sql, params, binary=params is not None, prepare=_PREPARE[params is None])
            return [await _result_async(cursor)]
        async with self.connection.pipeline():
            cursors = [await execute(sql, params, binary=True) for sql, params in statements]
        results = [await _result_async(cursor) for cursor in cursors]
        if any(map(_makes_forget, results)):
            await execute(_FORGET, prepare=False)
        return results


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
    while cursor.nextset():
        continue
    rows = cursor.fetchall() if cursor.description else []
    return Result(rows, cursor.rowcount, cursor.statusmessage)


async def _result_async(cursor: AsyncCursor[Any]) -> Result:
    while cursor.nextset():
        continue
    rows = await cursor.fetchall() if cursor.description else []
    return Result(rows, cursor.rowcount, cursor.statusmessage)
