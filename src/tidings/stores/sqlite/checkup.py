"""What the doctor asks an SQLite store: its library, its files from outside, its settings from inside."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tidings.core.check import Check, Verdict

MB = 1_000_000
PATIENCE = 2.0
"""Seconds within which the turnstile should open: a commit takes milliseconds."""
FIXED = (3, 51, 3)
BACKPORTS = {(3, 50): 7, (3, 44): 6}
"""First release of SQLite without the WAL-reset bug, and the patch releases of older lines that have the fix."""

Query = Callable[[str], Awaitable[Sequence[tuple[Any, ...]]]]

_INDEXED = "(SELECT CAST(value AS INTEGER) FROM tidings_meta WHERE name = 'indexed')"
_WRONG_IDS = f"""
SELECT one.position FROM tidings_log AS one LEFT JOIN tidings_id AS known USING (id, source)
WHERE known.position <> one.position OR (known.position IS NULL AND one.position <= {_INDEXED})
UNION SELECT max(position) FROM tidings_log WHERE position > {_INDEXED} GROUP BY id, source HAVING count(*) > 1
LIMIT 5
"""


def library() -> Check:
    """The SQLite that this Python brings."""
    return _sqlite(sqlite3.sqlite_version_info)


def _sqlite(version: tuple[int, ...]) -> Check:
    text = ".".join(map(str, version))
    backport = BACKPORTS.get((version[0], version[1]))
    if version >= FIXED or (backport is not None and version[2] >= backport):
        return Check("sqlite", "ok", f"{text}, without the WAL-reset bug")
    return Check(
        "sqlite",
        "warn",
        f"{text} has the WAL-reset bug; tidings avoids it: no checkpoint of its own overlaps a commit",
        "let no other program write to the file, or use a Python with SQLite 3.51.3 or newer",
    )


# ---- from outside ----------------------------------------------------------------------------------------------------


def outside(file: str) -> Iterator[Check]:
    """What can be seen of a store's file ("" in memory) without opening it; the turnstile only where that could be."""
    yield library()
    if not file:
        return
    path = Path(file)
    permissions = _permissions(path)
    yield permissions
    yield _space(path)
    if permissions.verdict != "fail":
        yield turnstile(path)


def _space(path: Path) -> Check:
    """Whether the disk has room for what is to come."""
    free = shutil.disk_usage(path.parent).free
    size = path.stat().st_size
    verdict: Verdict = "fail" if free < 50 * MB else "warn" if free < max(500 * MB, size // 4) else "ok"
    fix = "" if verdict == "ok" else "free some space: a full disk stops all writing, though nothing is lost"
    return Check("disk", verdict, f"{free / MB:,.0f} MB free, the file has {size / MB:,.1f} MB", fix)


def _permissions(path: Path) -> Check:
    found = path.stat()
    shown = f"{stat.filemode(found.st_mode)}, owner {found.st_uid}"
    beside = [Path(f"{path}{suffix}") for suffix in ("-wal", "-shm", "-lock", "-bells")]
    ours = [each for each in [path, path.parent, *beside] if each.exists() or each.is_symlink()]
    closed = [each for each in ours if not os.access(each, os.R_OK | os.W_OK)]
    if closed:
        cure = f"make it readable and writable for user {os.geteuid()}: chown or chmod {closed[0]}"
        return Check("permissions", "fail", f"{shown}; {closed[0].name} is closed to this user", cure)
    strange = [each for each in ours if each.is_symlink() and each not in (path, path.parent)]
    if strange:
        return Check("permissions", "fail", f"{strange[0].name} is a link", "remove it while nothing runs")
    if stat.S_IMODE(found.st_mode) & 0o077:
        return Check("permissions", "warn", f"{shown}: others can read it", f"chmod 600 {path}")
    return Check("permissions", "ok", shown)


def turnstile(path: Path, sleep: Callable[[float], None] = time.sleep) -> Check:
    """Whether commits get through: the lock file beside the store must not stay taken."""
    lock = Path(f"{path}-lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return Check("turnstile", "ok", "no lock file yet; the first process makes it")
    except OSError as error:
        return Check("turnstile", "fail", f"{lock.name} cannot be opened: {error.strerror}", f"check {lock}")
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    return _stuck(fd)
                sleep(0.01)
            else:
                return Check("turnstile", "ok", "commits get through")
    finally:
        os.close(fd)


def _stuck(fd: int) -> Check:
    inode = f":{os.fstat(fd).st_ino} "
    try:
        locks = Path("/proc/locks").read_text("ascii")
    except OSError:
        locks = ""
    holders = [line.split()[4] for line in locks.splitlines() if inode in line and "FLOCK" in line and "->" not in line]
    who = f"process {holders[0]}" if holders else "some process"
    found = f"{who} has held the lock for more than {PATIENCE:g} s; nobody can write"
    return Check("turnstile", "fail", found, f"is it stopped or in a debugger? continue or end {who}")


# ---- from inside -----------------------------------------------------------------------------------------------------


async def inside(query: Query, file: str, *, deep: bool) -> list[Check]:
    """Whether an open store keeps to its settings and is sound; `deep` reads the whole file ("" in memory)."""
    in_memory = Check("flush", "ok", "nothing is flushed: it ends with its process")
    found = await settings(query, Path(file)) if file else [in_memory]
    return [*found, await integrity(query), await ids(query)] if deep else found


async def settings(query: Query, path: Path) -> list[Check]:
    """How SQLite is set up, and the size of its write-ahead log."""
    mode = (await query("PRAGMA journal_mode"))[0][0]
    flush = (await query("PRAGMA synchronous"))[0][0]
    checks = [
        Check("journal", "ok", "WAL")
        if mode == "wal"
        else Check(
            "journal", "fail", f"mode {mode}", "stop every process on the file; tidings sets WAL when it opens it"
        ),
        Check("flush", "ok", "FULL: what is acknowledged survives a power cut")
        if flush >= 2  # noqa: PLR2004 - FULL is 2, EXTRA 3
        else Check("flush", "fail", f"synchronous is {flush}", "do not lower it: the last commits would be lost"),
    ]
    size = wal_bytes(path)
    verdict: Verdict = "fail" if size > 256 * MB else "warn" if size > 64 * MB else "ok"
    fix = "" if verdict == "ok" else "end long reads of other programs: they keep the log from being emptied"
    checks.append(Check("wal", verdict, f"{size / MB:,.1f} MB", fix))
    return checks


def wal_bytes(path: Path) -> int:
    """Size of the write-ahead log beside the file."""
    wal = Path(f"{path}-wal")
    return wal.stat().st_size if wal.exists() else 0


async def integrity(query: Query) -> Check:
    """Whether every page of the file is sound; reads the whole file."""
    found = [row[0] for row in await query("PRAGMA quick_check(5)")]
    if found == ["ok"]:
        return Check("integrity", "ok", "every page is sound")
    return Check("integrity", "fail", "; ".join(found)[:300], "stop every process and restore the file from a backup")


async def ids(query: Query) -> Check:
    """Whether each id is in the log once, and found there; reads the whole log."""
    found = [str(row[0]) for row in await query(_WRONG_IDS)]
    if not found:
        return Check("ids", "ok", "each is in the log once")
    cure = "two events may count as one, or one as two: stop every process and restore the file from a backup"
    return Check("ids", "fail", f"twice in the log, or not found by its id: position {', '.join(found)}", cure)
