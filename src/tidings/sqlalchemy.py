"""Sessions of SQLAlchemy in a handler's own transaction: its rows, its messages and its acknowledgement are one.

What a session commits is a savepoint; the transaction itself ends with the handler's others, as always. Needs the extra
`tidings[sqlalchemy]`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from tidings.core.transaction import Transaction
from tidings.errors import UsageError

_lent: ContextVar[Any] = ContextVar("tidings.lent")


@asynccontextmanager
async def async_session(tx: Transaction, **options: Any) -> AsyncIterator[AsyncSession]:
    """An AsyncSession in the transaction of a handler, on PostgreSQL.

    Args:
        tx: What the handler took.
        options: Of the session.

    Yields:
        The session. At the end of the block it is flushed; where the block raises, what it did is undone.

    Raises:
        UsageError: The store is no PostgreSQL.
    """
    connection = await tx.connection()
    if isinstance(connection, sqlite3.Connection):
        raise UsageError("async_session is used on SQLite, where nothing is awaited", "use `session(tx)`")
    token = _lent.set(_AsyncLoan(connection))
    try:
        async with _async_engine().connect() as lent:
            await lent.begin()
            options.setdefault("expire_on_commit", False)
            async with (
                AsyncSession(lent, join_transaction_mode="create_savepoint", **options) as session,
                session.begin(),
            ):
                yield session
    finally:
        _lent.reset(token)


@asynccontextmanager
async def session(tx: Transaction, **options: Any) -> AsyncIterator[Session]:
    """A Session in the transaction of a handler, on SQLite, where statements run at once.

    Args:
        tx: What the handler took.
        options: Of the session.

    Yields:
        The session. At the end of the block it is flushed; where the block raises, what it did is undone.

    Raises:
        UsageError: The store is no SQLite.
    """
    connection = await tx.connection()
    if not isinstance(connection, sqlite3.Connection):
        raise UsageError("session is used on PostgreSQL, where statements are awaited", "use `async_session(tx)`")
    token = _lent.set(_Loan(connection))
    try:
        with _engine().connect() as lent:
            lent.begin()
            options.setdefault("expire_on_commit", False)
            with Session(lent, join_transaction_mode="create_savepoint", **options) as session, session.begin():
                yield session
    finally:
        _lent.reset(token)


@cache
def _async_engine() -> AsyncEngine:
    async def take() -> Any:
        return _lent.get()

    # What is looked up when connecting, for types of an extension, takes a connection of its own.
    return create_async_engine("postgresql+psycopg://", async_creator=take, poolclass=NullPool, use_native_hstore=False)


@cache
def _engine() -> Engine:
    return create_engine("sqlite://", creator=_lent.get, poolclass=NullPool)


class _Loan:
    """A connection of `sqlite3`, as far as somebody may have it who does not own its transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave it to tidings."""

    def rollback(self) -> None:
        """Leave it to tidings."""

    def close(self) -> None:
        """Leave it to tidings."""


class _AsyncLoan:
    """A connection of psycopg, likewise; its cursors take the placeholders that SQLAlchemy writes."""

    autocommit = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """A cursor that takes %s."""
        from psycopg import AsyncCursor, AsyncServerCursor

        return (AsyncServerCursor if arguments or "name" in options else AsyncCursor)(
            self._connection, *arguments, **options
        )

    def add_notice_handler(self, _handler: object) -> None:
        """Add none: the connection outlives the session, and would have one more each time."""

    async def set_autocommit(self, _value: object) -> None:
        """Leave it to tidings."""

    async def commit(self) -> None:
        """Leave it to tidings."""

    async def rollback(self) -> None:
        """Leave it to tidings."""

    async def close(self) -> None:
        """Leave it to tidings."""
