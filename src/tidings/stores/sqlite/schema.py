"""The schema of a store in a file: made where there is none, checked, and led to a newer version."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tidings.core.migration import Migration, Schema
from tidings.errors import WrongStore
from tidings.stores import migrate
from tidings.stores.sqlite.connection import bare, check_place, connect
from tidings.stores.sqlite.failures import explain
from tidings.stores.sqlite.turnstile import Turnstile

APPLICATION = 0x74696469  # "tidi"; see schema.sql
_NOTE = "PRAGMA user_version = {};"


def prepare(path: Path, *, volatile: bool = False) -> sqlite3.Connection:
    """Open the write connection, making file and schema where they are missing. Called inside the turnstile.

    Raises:
        StoreUnavailable: The file cannot be opened or written.
        WrongStore: It is no store of ours, or one of another version.
    """
    with contextlib.suppress(FileExistsError):  # never open an existing one: closing it would drop SQLite's own locks
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _opening(path):
        with contextlib.closing(bare(path)) as outside:  # looks without changing anything
            schema = _look(outside, path)
        if schema.version:
            migrate.check(schema, str(path))
        connection = connect(path, volatile=volatile)
        try:
            if not schema.version:
                _take(connection, path, schema.pending[0])
        except BaseException:
            connection.close()
            raise
    return connection


def look(file: str) -> Schema:
    """How the schema in a file stands ("" in memory); makes none."""
    path = Path(file).resolve()
    if not file or not path.exists():
        return migrate.schema_of("sqlite", 0, _NOTE)
    with _alone(path), contextlib.closing(bare(path)) as connection:
        return _look(connection, path)


def migrate_now(file: str, step: Migration) -> None:
    """Take one step, while nobody else is in the file."""
    path = Path(file).resolve()
    if step.since == 0:
        with _alone(path):
            prepare(path).close()
        return
    with _alone(path), contextlib.closing(connect(path)) as connection:
        _take(connection, path, step)


def _look(connection: sqlite3.Connection, path: Path) -> Schema:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION and (application or version or tables):
        raise WrongStore(
            f"{path} is the database of another program (application id {application:#x}, {tables} tables)",
            "give tidings a file of its own; your tables can then be created in it",
            path=str(path),
        )
    return migrate.schema_of("sqlite", version, _NOTE)


def _take(connection: sqlite3.Connection, path: Path, step: Migration) -> None:
    """Take one step in one transaction, unless somebody else was quicker."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        now = _look(connection, path)
        for statement in now.pending[0].statements if now.version == step.since else ():
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Inside the turnstile, for what is done before the store is open."""
    check_place(path)
    try:
        with contextlib.closing(Turnstile(Path(f"{path}-lock"))) as turnstile, _opening(path):
            turnstile.enter()
            yield
    except OSError as error:
        raise explain(error, str(path)) from error


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """What SQLite says about a file that cannot be opened, as an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            wrong = WrongStore(f"{path} is not an SQLite database", "give the path of a new file", path=str(path))
            raise wrong from error
        raise explain(error, str(path)) from error
