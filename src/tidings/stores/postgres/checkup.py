"""What the doctor asks a store on PostgreSQL: its server, its settings, its log."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tidings.core.check import Check
from tidings.stores.postgres.connection import OLDEST_SERVER, Place
from tidings.stores.postgres.steps import Steps, rows, value

LONG = 60.0
"""Seconds after which an open transaction of this database deserves a look."""


def outside(place: Place) -> Iterator[Check]:
    """What can be seen without connecting."""
    yield Check("driver", "ok", f"psycopg {version('psycopg')}")
    home = Path("~").expanduser()
    passwords = Path(os.environ.get("PGPASSFILE") or home / ".pgpass")
    key = Path(place.arguments.get("sslkey") or os.environ.get("PGSSLKEY") or home / ".postgresql" / "postgresql.key")
    open_ones = [each for each in (passwords, key) if each.is_file() and each.stat().st_mode & 0o077]
    for each in open_ones:
        found = f"{each} is {stat.filemode(each.stat().st_mode)}: others can read it, and libpq does not use it"
        yield Check("secrets", "warn", found, f"chmod 600 {each}, and change what others may have read")
    if not open_ones:
        yield Check("secrets", "ok", "no file with a password or key is open to others")


def inside(*, deep: bool) -> Steps[list[Check]]:
    """Whether the server is set up to keep what a store promises; `deep` reads the whole log."""
    [(server, number, fsync, synchronous, full_pages, size, database, role, source)] = yield from rows(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::integer, "
        "current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'), "
        "pg_database_size(current_database()), current_database(), current_user, "
        "(SELECT source FROM pg_settings WHERE name = 'synchronous_commit')"
    )
    found = [
        Check("postgresql", "ok" if number >= OLDEST_SERVER * 10_000 else "fail", f"{server}, {size / 1e6:,.1f} MB")
    ]
    found.append(_setting("fsync", fsync, "off" not in fsync, "what was acknowledged survives a power cut (G1)"))
    whose = {
        "user": f"ROLE {role}",
        "database": f"DATABASE {database}",
        "database user": f"ROLE {role} IN DATABASE {database}",
    }
    commits = _setting(
        "synchronous_commit", synchronous, synchronous != "off", "what was acknowledged survives a crash (G1)"
    )
    if commits.verdict != "ok" and source in whose:  # which the server's own setting would not change
        commits = commits._replace(fix=f"ALTER {whose[source]} RESET synchronous_commit")
    found.append(commits)
    found.append(_setting("full_page_writes", full_pages, full_pages == "on", "the files survive a power cut (G1)"))
    oldest = yield from value(
        "SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    found.append(
        Check(
            "transactions",
            "warn",
            f"one has been open for {oldest:,.0f} s",
            "end it: it keeps old rows from being removed",
        )
        if oldest and oldest > LONG
        else Check("transactions", "ok", "none is open for long")
    )
    if deep:
        found.append((yield from _gapless()))
    return found


def _setting(name: str, actual: str, is_fine: bool, promise: str) -> Check:  # noqa: FBT001 - what was found
    if is_fine:
        return Check(name, "ok", actual)
    return Check(name, "fail", f"{actual}: it is not true here that {promise}", f"ALTER SYSTEM SET {name} = on")


def _gapless() -> Steps[Check]:
    """Whether positions have no holes, and versions of streams neither."""
    [(count, head)] = yield from rows("SELECT count(*), coalesce(max(position), 0) FROM tidings_log")
    if count != head:
        return Check("log", "fail", f"{head - count:,} positions are missing", "restore the database from a backup")
    broken = yield from value(
        "SELECT stream FROM tidings_log WHERE stream IS NOT NULL AND NOT starts_with(stream, 'state:') "
        "GROUP BY stream HAVING count(*) <> max(version) LIMIT 1"
    )
    if broken is not None:
        return Check("log", "fail", f"the stream {broken} has a hole", "restore the database from a backup")
    return Check("log", "ok", f"{head:,} events without a hole")
