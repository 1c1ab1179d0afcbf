"""The doctor: looks at the machine, the file and the groups of a store, and says what is wrong and what to do."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tidings.core.operations import Backlog
from tidings.core.ports import Store
from tidings.ops.survey import members, timers, views, wal_bytes

if TYPE_CHECKING:
    from tidings.runtime.app import App

MB = 1_000_000
LATE = 60.0
"""Seconds an event may wait before somebody should look."""
PATIENCE = 2.0
"""Seconds within which the turnstile should open: a commit takes milliseconds."""
FIXED = (3, 51, 3)
BACKPORTS = {(3, 50): 7, (3, 44): 6}
"""First release of SQLite without the WAL-reset bug, and the patch releases of older lines that have the fix."""

Verdict = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """One finding.

    Attributes:
        name: What was looked at.
        verdict: "ok"; "warn" where something deserves a look; "fail" where a promise does not hold.
        found: What was found.
        fix: What to do; "" where nothing is.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


# ---- the machine -----------------------------------------------------------------------------------------------------


def machine() -> Iterator[Check]:
    """What every store on this machine stands on."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", "ok", f"{version}, {sys.platform}")
    yield _sqlite(sqlite3.sqlite_version_info)
    yield _clock(time.time())


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


def _clock(now: float) -> Check:
    earliest = 1_700_000_000  # November 2023: before this was written
    if now < earliest:
        return Check("clock", "fail", f"it is {time.ctime(now)} here", "set the clock; event times and timers use it")
    return Check("clock", "ok", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))


# ---- the file --------------------------------------------------------------------------------------------------------


def file(path: Path) -> Iterator[Check]:
    """What can be seen of a store's file from outside, without opening it."""
    yield _permissions(path)
    free = shutil.disk_usage(path.parent).free
    size = path.stat().st_size
    verdict: Verdict = "fail" if free < 50 * MB else "warn" if free < max(500 * MB, size // 4) else "ok"
    fix = "" if verdict == "ok" else "free some space: a full disk stops all writing, though nothing is lost"
    yield Check("disk", verdict, f"{free / MB:,.0f} MB free, the file has {size / MB:,.1f} MB", fix)


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


# ---- the store -------------------------------------------------------------------------------------------------------


async def settings(store: Store) -> list[Check]:
    """How SQLite is set up, and the size of its write-ahead log."""
    mode = (await store.query("PRAGMA journal_mode"))[0][0]
    flush = (await store.query("PRAGMA synchronous"))[0][0]
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
    size = wal_bytes(store.url)
    verdict: Verdict = "fail" if size > 256 * MB else "warn" if size > 64 * MB else "ok"
    fix = "" if verdict == "ok" else "end long reads of other programs: they keep the log from being emptied"
    checks.append(Check("wal", verdict, f"{size / MB:,.1f} MB", fix))
    return checks


async def integrity(store: Store) -> Check:
    """Whether every page of the file is sound; reads the whole file."""
    found = [row[0] for row in await store.query("PRAGMA quick_check(5)")]
    if found == ["ok"]:
        return Check("integrity", "ok", "every page is sound")
    return Check("integrity", "fail", "; ".join(found)[:300], "stop every process and restore the file from a backup")


async def log(store: Store) -> list[Check]:
    """The log against the checkpoints and the clock, and what waits for its time."""
    head = await store.head()
    last = await store.read(head - 1, head, 1) if head else []
    ahead = (last[-1].time / MB - time.time()) if last else 0.0
    checks = [
        Check("time", "warn", f"the newest event is {ahead:,.0f} s ahead of this clock", "compare the machines' clocks")
        if ahead > LATE
        else Check("retention", "ok", f"{head:,} events; all are kept")
    ]
    beyond = await store.query(
        "SELECT name, max(checkpoint) FROM tidings_slot GROUP BY name HAVING max(checkpoint) > ?", [head]
    )
    checks += [
        Check(
            "log",
            "fail",
            f"{group} has finished position {checkpoint:,}, but the log ends at {head:,}",
            "the file is older than its groups: restore the whole file from one backup",
        )
        for group, checkpoint in beyond
    ]
    waiting, first = await timers(store)
    late = time.time() - first / MB if first is not None else 0.0
    if late > LATE:
        fix = "start a worker of any app on this store: `tidings run`"
        checks.append(Check("timers", "warn", f"{waiting:,} wait, the first is {late:,.0f} s late", fix))
    else:
        checks.append(Check("timers", "ok", f"{waiting:,} wait"))
    return checks


async def groups(store: Store, app: App | None) -> list[Check]:
    """Workers, and every group that is late, has dead letters, or has lost its handler."""
    workers = await members(store)
    alive = {worker["member"] for worker in workers if worker["alive"]}
    silent = [worker["member"] for worker in workers if not worker["alive"]]
    shown = ", ".join(sorted(alive)) or "none"
    checks = [Check("workers", "ok", f"alive: {shown}" + (f"; gone: {', '.join(silent)}" if silent else ""))]
    backlogs = await store.backlog()
    for backlog in backlogs:
        checks += _group(backlog, alive)
    if len(checks) == 1:
        checks.append(Check("groups", "ok", f"{len(backlogs)} groups, none late, no dead letters"))
    return checks + (await _against(store, app, backlogs) if app is not None else [])


def _group(backlog: Backlog, alive: set[str]) -> Iterator[Check]:
    name = backlog.group
    if backlog.dead:
        fix = f"tidings dead ls --group {name}; correct the handler, then tidings dead redrive --group {name}"
        yield Check("dead letters", "warn", f"{name} has {backlog.dead:,}, {backlog.parked:,} wait behind them", fix)
    waits = f"{name} has {backlog.lag:,} events to handle, the oldest for {backlog.oldest:,.0f} s"
    if backlog.lag and not alive & set(backlog.owners.values()):
        yield Check("lag", "warn", f"{waits}; no worker has it", "tidings run")
    elif backlog.lag and backlog.oldest > LATE:
        yield Check("lag", "warn", waits, "add workers (`tidings run --workers N`), or look why the handler is slow")


async def _against(store: Store, app: App, backlogs: Sequence[Backlog]) -> list[Check]:
    """The groups of the store against the handlers of the app."""
    code: dict[str, Any] = {f"{app.name}.{each.group}": each for each in app.subscriptions()}
    filled = await views(store)
    checks = []
    for backlog in backlogs:
        name = backlog.group
        if not name.startswith(f"{app.name}.") or name == f"{app.name}.quarantine":
            continue
        if name not in code:
            found = f"{name} has no handler in the app any more; it was {backlog.where}"
            fix = "renamed? keep its name with group=; else nothing is needed, it just stays"
            checks.append(Check("handlers", "warn", found, fix))
        elif filled.get(name, (None,))[0] not in (None, code[name].fingerprint):
            found = f"the code of {name} differs from the code that filled its tables"
            checks.append(Check("handlers", "fail", found, f"tidings projection rebuild {code[name].group}"))
    new = sorted(set(code) - {backlog.group for backlog in backlogs})
    if new:
        checks.append(Check("handlers", "ok", f"{', '.join(new)} will start with the next `tidings run`"))
    return checks or [Check("handlers", "ok", f"all {len(code)} have their group")]
