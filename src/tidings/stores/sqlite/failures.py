"""What SQLite's errors mean to a caller: the path, what is wrong with it, and the cure."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path

from tidings.errors import StoreError, StoreFull, StoreGone, StoreUnavailable, TidingsError, WrongStore

_FULL = sqlite3.SQLITE_FULL
_SCARCE = 1 << 16
_GONE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CLOSED = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH})


def code_of(error: BaseException) -> int:
    """SQLite's primary result code of an error, 0 when it has none."""
    code = getattr(error, "sqlite_errorcode", None)
    return int(code) & 0xFF if code is not None else 0


def is_the_store_s(error: BaseException) -> bool:
    """True where the file or machine is to blame, so that everybody in the same commit fails with it."""
    code = code_of(error)
    return code in {_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM} | _GONE | _LOCKED | _CLOSED


def explain(error: BaseException, path: str) -> TidingsError:
    """The error to raise for one of SQLite's about the store at this path; nothing was written."""
    if isinstance(error, TidingsError):
        return type(error)(error.what, error.cure, **error.data)
    code = code_of(error)
    if code == _FULL or _no_space(error, path):
        result: TidingsError = StoreFull(
            f"no space left for {path} ({free_bytes(path):,} bytes free); nothing was written",
            "free some space; writing goes on by itself",
            path=path,
            free=free_bytes(path),
        )
    elif code in _GONE:
        result = StoreGone(
            f"{path} is damaged: {error}",
            "stop every process that uses it and restore it from a backup",
            path=path,
        )
    elif code in _LOCKED:
        result = StoreUnavailable(
            f"{path} was locked by another program for more than 10 seconds",
            "end the long transaction of that program; tidings itself never holds a lock that long",
            path=path,
        )
    elif code in _CLOSED:
        result = StoreUnavailable(f"{path} cannot be written: {error}{about(path)}", cure_for(path), path=path)
    elif isinstance(error, OSError):
        result = StoreUnavailable(f"{path}: {error.strerror}{about(path)}", cure_for(path), path=path)
    elif isinstance(error, sqlite3.Error):
        result = StoreError(f"{path}: {error}", "nothing was written", path=path)
    else:
        result = StoreError(f"{path}: {type(error).__name__}: {error}", "nothing was written", path=path)
    result.__cause__ = error
    return result


def _no_space(error: BaseException, path: str) -> bool:
    """True where another error than SQLITE_FULL comes from a full disk: a side file that could not grow."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return code_of(error) == sqlite3.SQLITE_IOERR and free_bytes(path) < _SCARCE


def free_bytes(path: str) -> int:
    """Bytes that can still be written where the path is; 0 when that cannot be told."""
    try:
        where = os.statvfs(Path(path).parent)
    except OSError:
        return 0
    return where.f_bavail * where.f_frsize


def about(path: str) -> str:
    """Mode and owner of what is at the path, or of its folder, in parentheses."""
    here = Path(path)
    shown = here if here.exists() else here.parent
    try:
        found = shown.stat()
    except OSError:
        return ""
    return f" ({shown}: mode {stat.filemode(found.st_mode)}, owner {found.st_uid}; this process is {os.geteuid()})"


def may(path: Path, how: int) -> bool:
    """True where this process may use a path so; `how` as for os.access."""
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def cure_for(path: str) -> str:
    """What to do when the path cannot be opened or written."""
    here = Path(path)
    if here.is_dir():
        return "give the path of a file, not of a directory"
    if here.exists() and not here.is_file():
        return "give the path of a file, existing or new"
    if not here.parent.exists():
        return f"create the directory first: mkdir -p {here.parent}"
    if not here.parent.is_dir():
        return f"{here.parent} is a file: give a path in a directory"
    if not may(here.parent, os.W_OK | os.X_OK):
        return f"make the directory {here.parent} writable for this user: SQLite keeps files beside the database"
    return "make the file writable for this user, or use another path"


def wrong(path: str, what: str, cure: str) -> WrongStore:
    """A file that is no store of ours."""
    return WrongStore(f"{path} {what}", cure, path=path)
