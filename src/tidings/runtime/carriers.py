"""Carriers: connections and sessions of the user's, whose transaction carries our rows.

Which library one is from is told by the names of its classes, so that nothing is imported that the user has not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tidings.core.outbox import COLUMNS, OutboxTable, Row
from tidings.errors import UsageError

POSTGRESQL, SQLITE = "postgresql", "sqlite"


class Carrier(Protocol):
    """Writes rows through a connection of the user's.

    Attributes:
        is_awaited: True where `carry` is to be awaited.
    """

    is_awaited: bool

    def carry(self, table: OutboxTable, rows: Sequence[Row]) -> Any:
        """Write rows as part of the transaction that is open.

        Raises:
            UsageError: None is open, or the connection leads elsewhere.
        """


def carrier_of(connection: object) -> Carrier:
    """The carrier for a connection or session.

    Raises:
        UsageError: It is of no library that is known here.
    """
    for cls in type(connection).__mro__:
        make = _CARRIERS.get(f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}")
        if make is not None:
            return make(connection)
    raise UsageError(
        f"app.outbox.add was given {type(connection).__module__}.{type(connection).__qualname__} as the connection",
        "give a connection of sqlite3 or psycopg, a session or connection of SQLAlchemy, or Django's `connection`",
    )


def _insert(table: OutboxTable, marks: Sequence[str]) -> str:
    return f"INSERT INTO {table.name} ({', '.join(COLUMNS)}) VALUES ({', '.join(marks)})"


def _check_dialect(table: OutboxTable, dialect: str) -> None:
    if dialect != table.dialect:
        raise UsageError(
            f"the store of the app is {table.place}, and the connection leads to a database of {dialect}",
            "a message can only be committed together with what is in the same database",
        )


# ---- sqlite3 ---------------------------------------------------------------------------------------------------------


class SqliteCarrier:
    """A connection of the standard library."""

    is_awaited = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Args: connection: whichever way it begins transactions."""
        self._connection = connection

    def carry(self, table: OutboxTable, rows: Sequence[Row]) -> None:
        """Write rows."""
        _check_dialect(table, SQLITE)
        cursor = self._connection.cursor()
        cursor.row_factory = None  # whatever rows the user wants
        _check_file(table, lambda sql: cursor.execute(sql).fetchall())
        _check_sqlite_begun(self._connection, 'connection.execute("BEGIN IMMEDIATE")')
        cursor.executemany(_insert(table, "?????"), rows)


def _check_file(table: OutboxTable, read: Callable[[str], Sequence[Any]]) -> None:
    """Refuse another file; and keep the connection from making checkpoints, which are the writer's own.

    Up to SQLite 3.51.2 a checkpoint that overlaps a commit of another connection can damage the file.
    """
    files = {row[1]: row[2] for row in read("PRAGMA database_list")}
    given = files["main"]
    file = Path(table.file or "")
    if not given or not file.exists() or not file.samefile(given):
        raise UsageError(
            f"the connection leads to {given or 'a database in memory'}, and the store of the app is {file}",
            "give a connection to the app's own file; if the file is missing, open the app once, which makes it",
        )
    read("PRAGMA wal_autocheckpoint = 0")


def _check_sqlite_begun(connection: Any, cure: str) -> None:
    """Refuse where an INSERT would be committed by itself."""
    if connection.in_transaction:
        return
    if getattr(connection, "autocommit", -1) is True or connection.isolation_level is None:
        raise _not_begun(cure)


def _not_begun(cure: str) -> UsageError:
    return UsageError(
        "app.outbox.add was given a connection that is in no transaction: the message could not be rolled back",
        f"begin one first: `{cure}`",
    )


# ---- psycopg ---------------------------------------------------------------------------------------------------------


class PsycopgCarrier:
    """A connection of psycopg that blocks."""

    is_awaited = False

    def __init__(self, connection: Any) -> None:
        """Args: connection: whatever cursors it makes."""
        self._connection = connection

    def carry(self, table: OutboxTable, rows: Sequence[Row]) -> None:
        """Write rows."""
        from psycopg import Cursor

        _check_dialect(table, POSTGRESQL)
        if _is_unheard(self._connection):
            with self._connection.pipeline():
                pass
        _check_psycopg_begun(self._connection, "with connection.transaction():")
        Cursor(self._connection).executemany(_insert(table, ["%s"] * 5), rows)


class AsyncPsycopgCarrier:
    """A connection of psycopg that is awaited."""

    is_awaited = True

    def __init__(self, connection: Any) -> None:
        """Args: connection: whatever cursors it makes."""
        self._connection = connection

    async def carry(self, table: OutboxTable, rows: Sequence[Row]) -> None:
        """Write rows."""
        from psycopg import AsyncCursor

        _check_dialect(table, POSTGRESQL)
        if _is_unheard(self._connection):
            async with self._connection.pipeline():
                pass
        _check_psycopg_begun(self._connection, "async with connection.transaction():")
        await AsyncCursor(self._connection).executemany(_insert(table, ["%s"] * 5), rows)


def _is_unheard(connection: Any) -> bool:
    """True where only the answers to what is under way in a pipeline, which another one inside waits for, will tell."""
    from psycopg.pq import PipelineStatus, TransactionStatus

    info = connection.info
    is_piped = info.pipeline_status != PipelineStatus.OFF and info.transaction_status == TransactionStatus.ACTIVE
    return bool(connection.autocommit and is_piped)


def _check_psycopg_begun(connection: Any, cure: str) -> None:
    from psycopg.pq import TransactionStatus

    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise _not_begun(cure)


# ---- SQLAlchemy ------------------------------------------------------------------------------------------------------


class AlchemyCarrier:
    """A Session or Connection of SQLAlchemy, whatever driver is below."""

    is_awaited = False

    def __init__(self, session: Any) -> None:
        """Args: session: or a scoped one, or a connection."""
        self._session = session

    def carry(self, table: OutboxTable, rows: Sequence[Row]) -> None:
        """Write rows."""
        session = self._session
        _carry_by_alchemy(session.connection() if hasattr(session, "get_bind") else session, table, rows)


class AsyncAlchemyCarrier:
    """An AsyncSession or AsyncConnection of SQLAlchemy."""

    is_awaited = True

    def __init__(self, session: Any) -> None:
        """Args: session: or a scoped one, or a connection."""
        self._session = session

    async def carry(self, table: OutboxTable, rows: Sequence[Row]) -> None:
        """Write rows."""
        session = self._session
        connection = await session.connection() if hasattr(session, "get_bind") else session
        await connection.run_sync(_carry_by_alchemy, table, rows)


_NO_AUTOCOMMIT = "with engine.begin() as connection:` on an engine without `isolation_level=AUTOCOMMIT"


def _carry_by_alchemy(connection: Any, table: OutboxTable, rows: Sequence[Row]) -> None:
    from sqlalchemy import text

    _check_dialect(table, connection.dialect.name)
    pooled = connection.connection
    if table.dialect == SQLITE:
        _check_file(table, lambda sql: _rows_of(connection.exec_driver_sql(sql)))
        _check_sqlite_begun(pooled.driver_connection, _NO_AUTOCOMMIT)
    elif getattr(pooled.dbapi_connection, "autocommit", False):
        raise _not_begun(_NO_AUTOCOMMIT)
    if rows:
        marks = [f":{name}" for name in COLUMNS]
        connection.execute(text(_insert(table, marks)), [dict(zip(COLUMNS, row, strict=True)) for row in rows])


def _rows_of(result: Any) -> Sequence[Any]:
    rows: Sequence[Any] = result.fetchall() if result.returns_rows else ()
    return rows


# ---- Django ----------------------------------------------------------------------------------------------------------


class DjangoCarrier:
    """A connection of Django, by its alias or itself."""

    is_awaited = False

    def __init__(self, connection: Any) -> None:
        """Args: connection: `django.db.connection`, or one of `django.db.connections`."""
        self._connection = connection

    def carry(self, table: OutboxTable, rows: Sequence[Row]) -> None:
        """Write rows."""
        connection = self._connection
        _check_dialect(table, connection.vendor)
        if connection.get_autocommit() and not connection.in_atomic_block:
            raise _not_begun("with transaction.atomic():")
        with connection.cursor() as cursor:
            if table.dialect == SQLITE:
                SqliteCarrier(connection.connection).carry(table, ())  # only looks
            cursor.executemany(_insert(table, ["%s"] * 5), rows)


_CARRIERS: Mapping[str, Callable[[Any], Carrier]] = {
    "sqlite3.Connection": SqliteCarrier,
    "psycopg.Connection": PsycopgCarrier,
    "psycopg.AsyncConnection": AsyncPsycopgCarrier,
    "sqlalchemy.Session": AlchemyCarrier,
    "sqlalchemy.scoped_session": AlchemyCarrier,
    "sqlalchemy.Connection": AlchemyCarrier,
    "sqlalchemy.AsyncSession": AsyncAlchemyCarrier,
    "sqlalchemy.async_scoped_session": AsyncAlchemyCarrier,
    "sqlalchemy.AsyncConnection": AsyncAlchemyCarrier,
    "django.BaseDatabaseWrapper": DjangoCarrier,
    "django.ConnectionProxy": DjangoCarrier,
}
"""By library and class."""
