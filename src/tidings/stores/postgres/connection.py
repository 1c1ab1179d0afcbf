"""Connections to the database: where it is, with which settings and deadlines, and what may be opened at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncRawCursor, Connection, RawCursor
from psycopg.abc import PQGen

from tidings.core.url import Url
from tidings.errors import BadUrl, StoreUnavailable, WrongStore
from tidings.stores.postgres.steps import Steps, rows, value
from tidings.stores.postgres.wire import Wire, drive

T = TypeVar("T")

SCHEMA_VERSION = 1
OLDEST_SERVER = 13
DEADLINE = 30.0
"""Seconds that one round trip may take; then the connection is given up."""
_SERVER_DEADLINE = 25.0
"""Seconds after which the server itself ends a statement, or a wait for a lock."""
_IDLE = 60.0
"""Seconds that a transaction may do nothing; then the server ends it, so that its locks hold nobody up."""

OPTIONS = ("schema", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "host", "channel_binding")
"""Options of a URL; all but `schema` are libpq's own."""
_EXISTS = (
    "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'tidings_meta' AND relnamespace::regnamespace::text = $1)"
)
"""Asked of the table itself: names that were looked up before are remembered as missing until the transaction ends."""
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")


class TimelyConnection(Connection[tuple[Any, ...]]):
    """A connection on which no round trip outlasts its deadline."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As psycopg, with a deadline."""
        return super().wait(gen, interval, timeout or DEADLINE)


class TimelyAsyncConnection(AsyncConnection[tuple[Any, ...]]):
    """The same for an event loop."""

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As psycopg, with a deadline."""
        return await super().wait(gen, interval, timeout or DEADLINE)


class Place:
    """A database and the schema in it that holds the store.

    Args:
        url: `postgresql://user:password@host:port/database?schema=billing`.

    Raises:
        BadUrl: It names no database, or an option cannot be used.
    """

    def __init__(self, url: Url) -> None:
        self.safe = url.safe
        unknown = [name for name in url.options if name not in OPTIONS]
        if unknown:
            raise BadUrl(f"postgresql: the option {unknown[0][:40]!r} is not known", f"known: {', '.join(OPTIONS)}")
        if not url.path:
            raise BadUrl(f"{url.safe} names no database", "write postgresql://user@host/database")
        self.schema = url.options.get("schema", "public")
        if not _NAME.fullmatch(self.schema):
            cure = "use small letters, digits and _, at most 41, not starting with a digit"
            raise BadUrl(f"postgresql: the schema {self.schema[:40]!r} cannot be used", cure)
        given = {name: value for name, value in url.options.items() if name != "schema"}
        self.arguments: dict[str, Any] = {
            "host": url.host,
            "port": url.port,
            "user": url.user,
            "password": url.password,
            "dbname": url.path,
            "connect_timeout": "10",
            "application_name": "tidings",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": int(DEADLINE * 1000),
            "options": " ".join(f"-c {name}={value}" for name, value in self._settings().items()),
            **given,
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "search_path": self.schema,
            "statement_timeout": int(_SERVER_DEADLINE * 1000),
            "lock_timeout": int(_SERVER_DEADLINE * 1000),
            "idle_in_transaction_session_timeout": int(_IDLE * 1000),
            "timezone": "UTC",
            "client_min_messages": "warning",
        }

    def connect(self) -> TimelyConnection:
        """A connection for callers that may block; transactions are begun and ended by explicit statements."""
        return TimelyConnection.connect(
            **self.arguments, autocommit=True, prepare_threshold=0, cursor_factory=RawCursor
        )

    async def connect_async(self) -> TimelyAsyncConnection:
        """A connection for the running event loop."""
        return await TimelyAsyncConnection.connect(
            **self.arguments, autocommit=True, prepare_threshold=0, cursor_factory=AsyncRawCursor
        )


def prepare(connection: Connection[Any], place: Place) -> None:
    """Check the server, and create the store where there is none.

    Raises:
        StoreUnavailable: The server cannot keep what a store promises.
        WrongStore: There is a store of another version.
    """
    wire = Wire(connection)
    drive(_check_server(place, connection.info.server_version, connection.info.backend_pid), wire)
    drive(_create(place), wire)


def _check_server(place: Place, version: int, pid: int) -> Steps[None]:
    if version < OLDEST_SERVER * 10_000:
        raise StoreUnavailable(
            f"{place.safe} is PostgreSQL {version // 10_000}", f"tidings needs {OLDEST_SERVER} or newer"
        )
    [(actual, recovering, synchronous, fsync)] = yield from rows(
        "SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('synchronous_commit'), current_setting('fsync')"
    )
    if actual != pid:
        raise StoreUnavailable(
            f"{place.safe} is a connection pooler (PgBouncer?), which tidings cannot use: it keeps settings, prepared "
            "statements and LISTEN in sessions",
            "connect to PostgreSQL itself",
        )
    if recovering:
        raise StoreUnavailable(f"{place.safe} is a replica, which cannot be written", "give the URL of the primary")
    _ = synchronous, fsync  # what they void is said by `tidings doctor`


def _create(place: Place) -> Steps[None]:
    if place.schema != "public":
        yield from rows(f'CREATE SCHEMA IF NOT EXISTS "{place.schema}"')
    found = yield from value(_EXISTS, place.schema)
    if not found:
        yield [("BEGIN", ()), ("SELECT pg_advisory_xact_lock(1953063785, hashtext($1))", (place.schema,))]
        if not (yield from value(_EXISTS, place.schema)):  # nobody was quicker
            for script in ("schema.sql", "functions.sql"):
                for statement in statements((files("tidings.stores") / "sql" / "postgres" / script).read_text("utf-8")):
                    yield from rows(statement)
            yield [
                ("INSERT INTO tidings_meta VALUES ('store', gen_random_uuid()::text)", ()),
                ("INSERT INTO tidings_meta VALUES ('schema', $1)", (str(SCHEMA_VERSION),)),
            ]
        yield [("COMMIT", ())]
    version = int((yield from value("SELECT value FROM tidings_meta WHERE name = 'schema'")) or 0)
    if version > SCHEMA_VERSION:
        raise WrongStore(
            f"{place.safe} was written by a newer tidings (schema {version}, this one knows {SCHEMA_VERSION})",
            "upgrade tidings: pip install --upgrade tidings",
            schema=version,
        )


def statements(script: str) -> Sequence[str]:
    """The statements of a script of ours: each ends with a semicolon at the end of a line, outside $$."""
    found: list[str] = []
    current: list[str] = []
    inside = False
    for line in script.splitlines():
        code = line.partition("--")[0].rstrip()
        inside ^= code.count("$$") % 2 == 1
        current.append(code)
        if code.endswith(";") and not inside:
            found.append("\n".join(current).strip())
            current = []
    return found
