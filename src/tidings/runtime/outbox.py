"""The outbox of an app: what is published by a transaction that the user began, on a connection of the user's.

The transaction carries it as rows; the relay moves them to the log once it is committed. Rolled back, they were never
there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload

from tidings.core.outbox import OutboxTable, Row, row_of
from tidings.errors import UsageError
from tidings.runtime.carriers import Carrier, carrier_of
from tidings.runtime.connect import make_store
from tidings.runtime.relay import Relay

if TYPE_CHECKING:
    from tidings.runtime.app import App


class Blocking(Protocol):
    """What a call commits: `sqlite3` and `psycopg` connections, SQLAlchemy's Session and Connection, Django's."""

    def commit(self) -> None:
        """Commit."""


class Awaited(Protocol):
    """What is awaited to commit: `psycopg.AsyncConnection`, SQLAlchemy's AsyncSession and AsyncConnection."""

    def commit(self) -> Coroutine[Any, Any, None]:
        """Commit."""


class Outbox:
    """Publishes in transactions of the user's own."""

    def __init__(self, app: App) -> None:
        """Args: app: whose messages; it need not be open."""
        self._app = app
        self._table: OutboxTable | None = None

    @overload
    def add(
        self, connection: Blocking, *messages: object, id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None: ...

    @overload
    def add(
        self, connection: Awaited, *messages: object, id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Coroutine[Any, Any, None]: ...

    def add(
        self, connection: Any, *messages: object, id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Coroutine[Any, Any, None] | None:
        """Publish messages when, and only when, the transaction that is open on a connection commits.

        Await it where the connection itself is awaited; elsewhere it is a plain call. It opens nothing, commits nothing
        and locks nothing that others wait for. A worker of the app must run somewhere, to move them to the log.

        Messages of one key are published in the order in which they were added, by one transaction or by one after
        another. Two transactions that overlap have no order.

        Args:
            connection: On the app's own database, inside a transaction: of sqlite3 or psycopg, a Session, Connection,
                AsyncSession or AsyncConnection of SQLAlchemy, or Django's `connection`.
            messages: Instances of message classes, or `Gone(State, key)`.
            id: CloudEvents id of a single message. The same id with the same content again changes nothing.
            headers: CloudEvents extension attributes, for instance `traceparent`.

        Raises:
            UsageError: The connection is none of these, leads elsewhere, or is in no transaction; nothing was written.
            NotAMessage: An object is no message.
            BadPayload: A message cannot be written as JSON.
        """
        rows = [row_of(envelope) for envelope in self._app.outgoing.envelopes(messages, id=id, headers=headers)]
        table = self._table = self._table or self._find()
        carrier = carrier_of(connection)
        if carrier.is_awaited:
            return self._add(carrier, table, rows)
        with _explained(table):
            carrier.carry(table, rows)
        self._expect()
        return None

    async def _add(self, carrier: Carrier, table: OutboxTable, rows: Sequence[Row]) -> None:
        with _explained(table):
            await carrier.carry(table, rows)
        self._expect()

    def _find(self) -> OutboxTable:
        given = self._app._given  # noqa: SLF001 - a part of the app
        return (make_store(given) if isinstance(given, str) else given).outbox()

    def _expect(self) -> None:
        for worker in list(self._app._workers):  # noqa: SLF001 - a part of the app
            worker.relay.expect()

    async def ship(self) -> int:
        """Move everything that is committed now to the log; returns how many messages. The app must be open.

        Workers do it by themselves. This is for a program without one, and for tests.
        """
        return await Relay(self._app.store).empty()

    async def relay(self) -> None:
        """Move what is committed to the log, as it is committed, until cancelled. The app must be open."""
        await Relay(self._app.store).run()


@contextlib.contextmanager
def _explained(table: OutboxTable) -> Iterator[None]:
    """Say what drivers say in words that mean little to who has never seen the table."""
    try:
        yield
    except UsageError:
        raise
    except UnicodeEncodeError as error:  # before anything was sent
        raise UsageError(
            f"the connection speaks {error.encoding}, which has no {error.object[error.start : error.end]!r}",
            "connect with client_encoding=utf8",
        ) from error
    except Exception as error:
        if "no such table: tidings_outbox" not in str(error) and _code_of(error) not in _MISSING:
            raise
        raise UsageError(
            f"there is no outbox of {table.place} where this connection leads",
            "give a connection to the app's own database; if it is one, open the app once, which makes the tables",
        ) from error


_MISSING = ("42P01", "3F000")
"""What PostgreSQL calls a table or schema that is not there, in whatever language it speaks."""


def _code_of(error: BaseException) -> str | None:
    """SQLSTATE of an error, or of the driver's own that SQLAlchemy or Django tells in its stead."""
    for each in (error, getattr(error, "orig", None), error.__cause__):
        code: str | None = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
        if code is not None:
            return code
    return None
