"""Connections to the database: where it is, with which settings and deadlines, and what may be opened at all."""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, Connection, RawCursor
from psycopg.abc import PQGen
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready, Wait

from tidings.core.url import Url
from tidings.errors import BadUrl, StoreUnavailable
from tidings.stores.postgres.prepared import Prepared
from tidings.stores.postgres.steps import Steps, rows
from tidings.stores.postgres.terse import shorten

T = TypeVar("T")

OLDEST_SERVER = 13
DEADLINE = 30.0
"""Seconds that one round trip may take; then the connection is given up."""
_SERVER_DEADLINE = 25.0
"""Seconds after which the server itself ends a statement, or a wait for a lock."""
_IDLE = 60.0
"""Seconds that a transaction may do nothing; then the server ends it, so that its locks hold nobody up."""
_PROBES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""Seconds of silence before the other end is asked whether it is there, between questions, and how many there are."""
_UNHEARD = 10.0
"""Seconds after which it is not, whether it was asked or told something."""

BRIEFLY = 0.00015
"""Seconds that an answer is waited for on the spot."""
_READ, _WRITE, _READY_R, _READY_W = int(Wait.R), int(Wait.W), int(Ready.R), int(Ready.W)
_MILLISECOND = 0.001
_SELECTABLE = 1024
"""Descriptors below this can be waited for in less: `poll` counts in milliseconds."""
MISSES, REST = 3, 100
"""After so many answers in a row that took longer, so many are not waited for on the spot."""
CANCELLING = 5.0
"""Seconds that the server may take to end a statement whose caller was cancelled."""
TURN = 0.005
"""Seconds after which others of the event loop have their turn, however quick the answers are."""

PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
"""Settings of connections on which nothing of users runs: planning for each call takes longer than what is planned, and
a plan that is made while the log is empty is used when it is long."""

OPTIONS = ("schema", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "host", "channel_binding")
"""Options of a URL; all but `schema` are libpq's own."""
_NAME = re.compile(r"(?!pg_|information_schema$)[a-z_][a-z0-9_]{0,40}")
_VALUES = {
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "channel_binding": "disable|prefer|require",
    "connect_timeout": "[0-9]{1,4}",
}


def farewells(connection: Connection[Any] | AsyncConnection[Any]) -> list[psycopg.Error]:
    """What the server will say before it ends a connection on which nothing runs; libpq takes that for a notice."""
    heard: list[psycopg.Error] = []

    def hear(said: Diagnostic) -> None:
        if said.severity_nonlocalized == "FATAL" and said.sqlstate:
            heard.append(psycopg.errors.lookup(said.sqlstate)(f"{said.severity}: {said.message_primary}"))

    connection.add_notice_handler(hear)
    return heard


class TimelyConnection(Connection[tuple[Any, ...]]):
    """A connection on which no round trip outlasts its deadline, in seconds.

    Attributes:
        prepared: The statements that are prepared on it.
        farewells: Why the server ended it, if it said so while nobody had asked for anything.
    """

    deadline = DEADLINE

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """As psycopg."""
        super().__init__(*arguments, **more)
        self.prepared = Prepared()
        self.farewells = farewells(self)

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As psycopg, with a deadline."""
        return super().wait(gen, interval, timeout or self.deadline)


class TimelyAsyncConnection(AsyncConnection[tuple[Any, ...]]):
    """The same for an event loop.

    A server nearby answers within a tenth of a millisecond, and going through the event loop takes about as long. So an
    answer is waited for on the spot for a moment, as if the statement ran here; not where it mostly takes longer.

    Attributes:
        prepared: The statements that are prepared on it.
        farewells: Why the server ended it, if it said so while nobody had asked for anything.
        patience: Seconds that an answer is waited for on the spot.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """As psycopg."""
        super().__init__(*arguments, **more)
        self.prepared = Prepared()
        self.farewells = farewells(self)
        self.patience = BRIEFLY
        self._answers = select.poll()  # quicker than `select`
        self._answers.register(self.pgconn.socket, select.POLLIN)
        self._misses = 0  # in a row
        self._rest = 0  # waits left in which nothing is waited for on the spot
        self._yielded = 0.0  # when others of the event loop last had their turn

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:  # noqa: ARG002
        """As psycopg, with a deadline."""
        try:
            state = self.ask(gen)
        except StopIteration as stop:
            found: T = stop.value
        else:
            found = await self.answer(gen, state, timeout or DEADLINE)
        await self.take_turns()
        return found

    async def take_turns(self) -> None:
        """Let others of the event loop have their turn, if they had none for a while."""
        if time.monotonic() - self._yielded > TURN:
            await asyncio.sleep(0)
            self._yielded = time.monotonic()

    def ask(self, gen: PQGen[Any]) -> Wait:
        """Go on with a generator of psycopg's while the server answers at once; returns what it waits for then.

        Raises:
            StopIteration: It has ended; `value` is its result.
        """
        if self._rest:
            self._rest -= 1
            patience = 0.0
        else:
            patience = self.patience
        state = next(gen)
        while patience:
            if not (ready := self._ready(state, patience)):
                self._misses += 1
                if self._misses == MISSES:
                    self._misses, self._rest = 0, REST
                break
            try:
                state = gen.send(ready)
            except StopIteration:
                self._misses = 0
                raise
        return state

    def _ready(self, state: int, patience: float) -> int:
        """What the server is ready for within so many seconds, of what is waited for; 0 for nothing."""
        if state == _READ and patience >= _MILLISECOND:
            return _READY_R if self._answers.poll(1000 * patience) else 0
        descriptor = self.pgconn.socket
        if descriptor >= _SELECTABLE:
            return 0
        asked = [descriptor] if state & _READ else [], [descriptor] if state & _WRITE else []
        readable, writable, _ = select.select(*asked, [], patience)
        return (_READY_R if readable else 0) | (_READY_W if writable else 0)

    async def answer(self, gen: PQGen[T], state: Wait, timeout: float = DEADLINE) -> T:
        """Go on with it to its end, while others of the event loop have their turn."""
        self._yielded = time.monotonic()
        descriptor = self.pgconn.socket
        try:
            return await wait_in_loop(gen, state, descriptor, timeout)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                with contextlib.suppress(Exception):
                    await self.cancel_safe(timeout=CANCELLING)
                with contextlib.suppress(psycopg.errors.QueryCanceled):
                    await wait_in_loop(gen, Wait.R, descriptor, CANCELLING)
            raise


async def wait_in_loop(gen: PQGen[T], state: Wait, descriptor: int, timeout: float) -> T:
    """Go on with a generator of psycopg's to its end, while others of the event loop have their turn.

    Raises:
        psycopg.OperationalError: It took longer than `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    try:
        while True:
            ready: asyncio.Future[Ready] = loop.create_future()
            timer = loop.call_at(until, _settle, ready, Ready.NONE)
            if state & Wait.R:
                loop.add_reader(descriptor, _settle, ready, Ready.R)
            if state & Wait.W:
                loop.add_writer(descriptor, _settle, ready, Ready.W)
            try:
                found = await ready
            finally:
                timer.cancel()
                if state & Wait.R:
                    loop.remove_reader(descriptor)
                if state & Wait.W:
                    loop.remove_writer(descriptor)
            if found == Ready.NONE:
                raise psycopg.OperationalError(f"no answer within {timeout:.0f} s")
            state = gen.send(found)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _settle(future: asyncio.Future[Ready], ready: Ready) -> None:
    if not future.done():
        future.set_result(ready)


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
        if "," in (url.host or ""):
            raise BadUrl(f"{url.safe} names several hosts", "name the one that takes writes")
        self.schema = url.options.get("schema", "public")
        if not _NAME.fullmatch(self.schema):
            cure = "use small letters, digits and _, at most 41, not starting with a digit or pg_"
            raise BadUrl(f"postgresql: the schema {self.schema[:40]!r} cannot be used", cure)
        given = {name: value for name, value in url.options.items() if name != "schema"}
        for name, accepted in _VALUES.items():
            if name in given and not re.fullmatch(accepted, given[name]):
                cure = f"use {accepted.replace('|', ', ')}" if "|" in accepted else "give whole seconds"
                raise BadUrl(f"postgresql: {name} is {given[name][:40]!r}", cure)
        self.arguments: dict[str, Any] = {
            "host": url.host,
            "port": url.port,
            "user": url.user,
            "password": url.password,
            "dbname": url.path,
            "connect_timeout": "10",
            "application_name": "tidings",
            "client_encoding": "UTF8",  # whatever the role, the database or PGCLIENTENCODING say
            **_PROBES,
            "tcp_user_timeout": int(_UNHEARD * 1000),
            "options": _options(self._settings()),
            **given,
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "search_path": self.schema,
            "statement_timeout": int(_SERVER_DEADLINE * 1000),
            "lock_timeout": int(_SERVER_DEADLINE * 1000),
            "idle_in_transaction_session_timeout": int(_IDLE * 1000),
            # The server's end looks too: a host that was cut off holds its locks no longer than that.
            **{f"tcp_{name}": value for name, value in _PROBES.items()},
            "tcp_user_timeout": int(_UNHEARD * 1000),
            "default_transaction_isolation": r"read\ committed",  # whoever gets the lock of the log sees what is before
            "array_nulls": "on",  # where it is off, what is nothing becomes the text NULL
            "timezone": "UTC",
            "client_min_messages": "warning",
        }

    def connect(self, **settings: str) -> TimelyConnection:
        """A connection for callers that may block; transactions are begun and ended by explicit statements.

        Args:
            settings: Of the server, for this connection, beside those of all.
        """
        try:
            return TimelyConnection.connect(
                **self._with(settings), autocommit=True, prepare_threshold=None, cursor_factory=RawCursor
            )
        except psycopg.Error as error:
            shorten(error)
            raise

    async def connect_async(self, **settings: str) -> TimelyAsyncConnection:
        """A connection for the running event loop. Args: as of `connect`."""
        try:
            return await TimelyAsyncConnection.connect(
                **self._with(settings), autocommit=True, prepare_threshold=None, cursor_factory=AsyncRawCursor
            )
        except psycopg.Error as error:
            shorten(error)
            raise

    def _with(self, settings: Mapping[str, str]) -> dict[str, Any]:
        return {**self.arguments, "options": f"{self.arguments['options']} {_options(settings)}"}


def _options(settings: Mapping[str, Any]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


_ASKED = "SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('server_encoding')"


def check_server(place: Place, version: int, pid: int) -> Steps[None]:
    """Refuse a server that cannot keep what a store promises.

    Args:
        place: The database.
        version: Of the server, as libpq tells it: 150004.
        pid: Of the process that serves the connection, as it said when it began.

    Raises:
        StoreUnavailable: It is too old, a replica, or a pooler that hands the connection to several servers; or the
            database cannot hold every text.
    """
    if version < OLDEST_SERVER * 10_000:
        raise StoreUnavailable(
            f"{place.safe} is PostgreSQL {version // 10_000}", f"tidings needs {OLDEST_SERVER} or newer"
        )
    [(actual, recovering, encoding)] = yield from rows(_ASKED)
    if actual != pid:
        raise StoreUnavailable(
            f"{place.safe} is a connection pooler (PgBouncer?), which tidings cannot use: it keeps settings, prepared "
            "statements and LISTEN in sessions",
            "connect to PostgreSQL itself",
        )
    if recovering:
        raise StoreUnavailable(f"{place.safe} is a replica, which cannot be written", "give the URL of the primary")
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"{place.safe} is a database of encoding {encoding}, which does not hold every text",
            "make one for it: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )
