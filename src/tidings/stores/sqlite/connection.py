"""Connections to the database file: settings, and where a file may lie at all."""

from __future__ import annotations

import ctypes
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tidings.errors import StoreUnavailable
from tidings.stores.sqlite.failures import about, cure_for, may

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
    connection = bare(path)
    for setting in _SETTINGS:
        connection.execute(setting)
    if volatile:
        connection.execute("PRAGMA synchronous = OFF")
    return connection


def impatient(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The same connection, which does not wait for SQLite's locks; its owner asks again."""
    connection.execute("PRAGMA busy_timeout = 0")
    return connection


def bare(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing by itself."""
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
