"""Connections to the database file: settings, schema, and what may be opened at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import uuid
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from tidings.errors import StoreUnavailable, TidingsError, WrongStore
from tidings.stores.sqlite.failures import about, cure_for, explain, may

APPLICATION = 0x74696469  # "tidi", so that `file shop.db` and we ourselves know it
SCHEMA_VERSION = 1
BUSY_SECONDS = 10.0

_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",  # only the writer checkpoints, inside the turnstile
    "PRAGMA busy_timeout = 10000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA mmap_size = 0",
    "PRAGMA cache_size = -16000",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA fullfsync = ON",  # macOS; elsewhere it means nothing
    "PRAGMA checkpoint_fullfsync = ON",
)
_NETWORKS = frozenset({"9p", "afs", "ceph", "cifs", "fuse.sshfs", "nfs", "nfs4", "smb3", "smbfs"})


def connect(path: Path, *, volatile: bool = False) -> sqlite3.Connection:
    """A connection with our settings; transactions are begun and ended by explicit statements.

    Args:
        path: The database file.
        volatile: True for a store that ends with the process: nothing is flushed to a disk.
    """
    connection = _bare(path)
    for setting in _SETTINGS:
        connection.execute(setting)
    if volatile:
        connection.execute("PRAGMA synchronous = OFF")
    return connection


def _bare(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
    )


def check_place(path: Path) -> None:
    """Refuse what cannot hold a store, before SQLite says so in its own words.

    Raises:
        StoreUnavailable: The path is a directory, its folder is missing or on a network, or one of them cannot be
            written.
    """
    network = network_of(path.parent)
    if network:
        raise StoreUnavailable(
            f"{path} is on a network file system ({network}), where SQLite's locks cannot be trusted",
            "use a local disk, or a PostgreSQL store",
            path=str(path),
        )
    folder = path.parent
    is_other = path.exists() and not path.is_file()
    place_is_fine = not is_other and folder.is_dir() and may(folder, os.W_OK | os.X_OK)
    if not place_is_fine or (path.exists() and not may(path, os.R_OK | os.W_OK)):
        what = "is a directory" if path.is_dir() else "is no file" if is_other else "cannot be opened: "
        if not is_other:
            what += "its directory does not exist" if not folder.is_dir() else "permission denied"
        raise StoreUnavailable(f"{path} {what}{about(str(path))}", cure_for(str(path)), path=str(path))


def prepare(path: Path, *, volatile: bool = False) -> sqlite3.Connection:
    """Open the write connection, creating file and schema where they are missing. Called inside the turnstile.

    Raises:
        StoreUnavailable: The file cannot be opened or written.
        WrongStore: It is no store of ours, or one of a newer version.
    """
    with contextlib.suppress(FileExistsError):  # never open an existing one: closing it would drop SQLite's own locks
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        is_new = _is_new(path)
        connection = connect(path, volatile=volatile)
        try:
            if is_new:
                _create(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise _opening(error, path) from error
    return connection


def _opening(error: sqlite3.Error, path: Path) -> TidingsError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
        return WrongStore(f"{path} is not an SQLite database", "give the path of a new file", path=str(path))
    return explain(error, str(path))


def _is_new(path: Path) -> bool:
    """True for an empty database, False for a store of ours; looks without changing anything.

    Raises:
        WrongStore: It is neither.
    """
    with contextlib.closing(_bare(path)) as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application == APPLICATION:
        if version > SCHEMA_VERSION:
            raise WrongStore(
                f"{path} was written by a newer tidings (schema {version}, this one knows {SCHEMA_VERSION})",
                "upgrade tidings: pip install --upgrade tidings",
                path=str(path),
                schema=version,
            )
        return False
    if application or version or tables:
        raise WrongStore(
            f"{path} is the database of another program (application id {application:#x}, {tables} tables)",
            "give tidings a file of its own; your tables can then be created in it",
            path=str(path),
        )
    return True


def _create(connection: sqlite3.Connection) -> None:
    schema = (files("tidings.stores") / "sql" / "sqlite" / "schema.sql").read_text("utf-8")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(schema):
            connection.execute(statement)
        connection.execute("INSERT INTO tidings_meta VALUES ('store', ?)", (str(uuid.uuid4()),))
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one (executescript would commit first)."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \t\r\n;"):
                yield statement
            statement = ""
    if statement.strip(" \t\r\n;"):
        yield statement


def leak(connection: sqlite3.Connection) -> None:
    """Keep a connection from ever being closed: its close would harm a file that is not ours any more."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def network_of(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Name of the network file system a folder is on; None for a local one, or where that cannot be told."""
    try:
        lines = [line.split(" ") for line in mounts.read_text("utf-8", "surrogateescape").splitlines()]
    except OSError:
        return None
    real = f"{folder.resolve()}/"
    best, kind = "", ""
    for _, where, name, *_ in lines:
        place = where.replace("\\040", " ").rstrip("/") + "/"
        if real.startswith(place) and len(place) >= len(best):
            best, kind = place, name
    return kind if kind in _NETWORKS else None
