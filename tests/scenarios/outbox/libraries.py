"""Each library that people reach a database with: a transaction of theirs, in which a row and messages are written.

Every way is the same context manager: it begins a transaction, gives what `app.outbox.add` takes and a function that
runs SQL of the user's own, commits at the end and rolls back where the block raises.
"""

import contextlib
import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable

import django
import psycopg
import sqlalchemy
import sqlmodel
from django.conf import settings
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tidings import App
from tidings.core.url import parse_url

INSERT = "INSERT INTO shelf (name) VALUES ('book')"
Own = Callable[[], Awaitable[None]]
Way = Callable[[str], contextlib.AbstractAsyncContextManager[tuple[object, Own]]]


def file_of(url: str) -> str:
    return parse_url(url).path


def alchemy_url(url: str) -> str:
    return (
        url.replace("postgresql:", "postgresql+psycopg:")
        if url.startswith("postgresql")
        else f"sqlite:///{file_of(url)}"
    )


def now(function: Callable[[], object]) -> Own:
    """A call, or something awaited, as something awaited."""

    async def run() -> None:
        result = function()
        if inspect.isawaitable(result):
            await result

    return run


@contextlib.asynccontextmanager
async def plain_sqlite3(url: str) -> AsyncIterator[tuple[object, Own]]:
    with contextlib.closing(sqlite3.connect(file_of(url))) as connection, connection:
        yield connection, now(lambda: connection.execute(INSERT))


@contextlib.asynccontextmanager
async def sqlite3_with_begin(url: str) -> AsyncIterator[tuple[object, Own]]:
    with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            yield connection, now(lambda: connection.execute(INSERT))


@contextlib.asynccontextmanager
async def plain_psycopg(url: str) -> AsyncIterator[tuple[object, Own]]:
    with psycopg.connect(url) as connection:
        yield connection, now(lambda: connection.execute(INSERT))


@contextlib.asynccontextmanager
async def psycopg_autocommit(url: str) -> AsyncIterator[tuple[object, Own]]:
    made = psycopg.connect(url, autocommit=True, row_factory=psycopg.rows.dict_row)
    with made as connection, connection.transaction():
        yield connection, now(lambda: connection.execute(INSERT))


@contextlib.asynccontextmanager
async def psycopg_pipeline(url: str) -> AsyncIterator[tuple[object, Own]]:
    with psycopg.connect(url, autocommit=True) as connection, connection.pipeline(), connection.transaction():
        connection.execute("SELECT 1")  # is under way
        yield connection, now(lambda: connection.execute(INSERT))


@contextlib.asynccontextmanager
async def async_psycopg(url: str) -> AsyncIterator[tuple[object, Own]]:
    async with await psycopg.AsyncConnection.connect(url, cursor_factory=psycopg.AsyncRawCursor) as connection:
        yield connection, now(lambda: connection.execute(INSERT))


@contextlib.contextmanager
def engine(url: str):
    engine = sqlalchemy.create_engine(alchemy_url(url))
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.asynccontextmanager
async def async_engine(url: str):
    engine = create_async_engine(alchemy_url(url))
    try:
        yield engine
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def alchemy_connection(url: str) -> AsyncIterator[tuple[object, Own]]:
    with engine(url) as made, made.begin() as connection:
        yield connection, now(lambda: connection.execute(sqlalchemy.text(INSERT)))


@contextlib.asynccontextmanager
async def alchemy_session(url: str) -> AsyncIterator[tuple[object, Own]]:
    with engine(url) as made, Session(made) as session, session.begin():
        yield session, now(lambda: session.execute(sqlalchemy.text(INSERT)))


@contextlib.asynccontextmanager
async def alchemy_scoped_session(url: str) -> AsyncIterator[tuple[object, Own]]:
    with engine(url) as made:
        session = scoped_session(sessionmaker(made))
        with session.begin():
            yield session, now(lambda: session.execute(sqlalchemy.text(INSERT)))
        session.remove()


@contextlib.asynccontextmanager
async def sqlmodel_session(url: str) -> AsyncIterator[tuple[object, Own]]:
    with engine(url) as made, sqlmodel.Session(made) as session:
        yield session, now(lambda: session.exec(sqlalchemy.text(INSERT)))
        session.commit()


@contextlib.asynccontextmanager
async def alchemy_async_session(url: str) -> AsyncIterator[tuple[object, Own]]:
    async with async_engine(url) as made, AsyncSession(made) as session, session.begin():
        yield session, now(lambda: session.execute(sqlalchemy.text(INSERT)))


@contextlib.asynccontextmanager
async def django_atomic(url: str) -> AsyncIterator[tuple[object, Own]]:
    connection = django_connection(url)
    try:
        with transaction.atomic("shop"), connection.cursor() as cursor:
            yield connection, now(lambda: cursor.execute(INSERT))
    finally:
        connection.close()


def django_connection(url: str) -> BaseDatabaseWrapper:
    """Django's connection with the alias "shop", in the calling thread."""
    if not settings.configured:
        settings.configure()
        django.setup()
    parsed = parse_url(url)
    made = {"ENGINE": "django.db.backends.sqlite3", "NAME": parsed.path}
    if parsed.scheme != "sqlite":
        made = {"ENGINE": "django.db.backends.postgresql", "NAME": parsed.path, "HOST": parsed.host}
        made |= {"PORT": parsed.port, "USER": parsed.user, "PASSWORD": parsed.password}
    connections.settings = connections.configure_settings({"default": {}, "shop": made})
    if hasattr(connections._connections, "shop"):
        del connections["shop"]
    return connections["shop"]


@contextlib.asynccontextmanager
async def alchemy_async_connection(url: str) -> AsyncIterator[tuple[object, Own]]:
    async with async_engine(url) as made, made.begin() as connection:
        yield connection, now(lambda: connection.execute(sqlalchemy.text(INSERT)))


EVERYWHERE = [django_atomic, alchemy_connection, alchemy_session, alchemy_scoped_session, sqlmodel_session]
WAYS: dict[str, list[Way]] = {
    "sqlite": [plain_sqlite3, sqlite3_with_begin, *EVERYWHERE],
    "postgresql": [
        plain_psycopg,
        psycopg_autocommit,
        psycopg_pipeline,
        async_psycopg,
        alchemy_async_session,
        alchemy_async_connection,
        *EVERYWHERE,
    ],
}


async def add(app: App, connection: object, *messages: object, **options: object) -> None:
    """Add messages, awaiting it where the connection is awaited."""
    adding = app.outbox.add(connection, *messages, **options)  # type: ignore[call-overload]
    if adding is not None:
        await adding
