"""What the fault tests of the outbox run: processes with transactions of their own, and processes that relay.

Whoever writes leaves a row of its own in the same transaction, so that the database itself says what must be published.
Order is promised for keys whose transactions do not overlap: those of one process, and those that processes hand over
from one to the other. Keys that everybody writes at once have none.
"""

import asyncio
import contextlib
import fcntl
import itertools
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from tests.faults.numbered import Found, Numbered, compare
from tidings import App, Key, event
from tidings.core.url import parse_url
from tidings.testing.faults import Child, Ready

TABLE = "CREATE TABLE wrote (key TEXT, number BIGINT, writer INTEGER)"


@event(topic="orders")
class Wrote:
    key: Key[str]
    number: int
    writer: int


@dataclass
class Post:
    """One run.

    Args:
        url: Of a store that does not exist yet.
        folder: For locks.
        mutant: Breaks the product on purpose, inside every process that relays.
        hold: Seconds that a transaction may stay open, at most.
    """

    url: str
    folder: Path
    mutant: Callable[[], object] | None = None
    hold: float = 0.02
    children: list[Child] = field(default_factory=list)
    serial: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def child(self, main: Callable[[Ready], object]) -> Child:
        child = Child(main)
        self.children.append(child)
        return child

    def prepare(self) -> None:
        """Make the store and the table, in a process of its own: nothing is opened before a fork."""

        async def main() -> None:
            async with App(self.url, name="shop") as app, app.transaction() as tx:
                await tx.execute(TABLE)

        assert self.child(lambda _: asyncio.run(main())).wait() == 0

    # ---- writing -----------------------------------------------------------------------------------------------------

    def writer(self, seconds: float = 3600.0) -> Child:
        """A process that writes until it is killed, or for some seconds."""
        me = next(self.serial)
        return self.child(lambda ready: self._write(ready, me, seconds))

    def _write(self, ready: Ready, me: int, seconds: float) -> None:
        chance = random.Random(me)
        app = App(self.url, name="shop")
        end = time.monotonic() + seconds
        is_file = parse_url(self.url).scheme == "sqlite"
        with contextlib.closing(connect(self.url)) as connection:
            said = False
            while time.monotonic() < end:
                key = chance.choice([f"own-{me}", f"baton-{chance.randrange(3)}", f"hot-{chance.randrange(3)}"])
                with self._order(key) if key.startswith("baton") else contextlib.nullcontext():
                    if is_file:
                        begin(connection)
                    self._write_one(app, connection, key, me, chance)
                if not said:
                    ready()
                    said = True

    def _write_one(self, app: App, connection, key: str, me: int, chance: random.Random) -> None:
        """One transaction: it waits before it writes, or after, or both; and sometimes it is rolled back."""
        linger = chance.random() < 0.3
        if linger:
            time.sleep(chance.random() * self.hold)
        if key.startswith("hot"):
            number = chance.getrandbits(50)
        else:
            [(last,)] = connection.execute(f"SELECT max(number) FROM wrote WHERE key = '{key}'").fetchall()
            number = (last or 0) + 1
        connection.execute(f"INSERT INTO wrote VALUES ('{key}', {number}, {me})")
        app.outbox.add(connection, Wrote(key, number, me))
        if chance.random() < 0.3:
            connection.execute(f"INSERT INTO wrote VALUES ('{key}', {number + 1}, {me})")
            app.outbox.add(connection, Wrote(key, number + 1, me))
        if linger:
            time.sleep(chance.random() * self.hold)
        connection.execute("ROLLBACK" if chance.random() < 0.2 else "COMMIT")

    @contextlib.contextmanager
    def _order(self, key: str) -> Iterator[None]:
        """Transactions on this key follow each other, whoever dies: the kernel drops the lock."""
        with (self.folder / key).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # ---- relaying ----------------------------------------------------------------------------------------------------

    def relay(self, *, until_idle: bool = False) -> Child:
        """A worker process, which relays; it may be told to end once nothing is left."""

        async def main(ready: Ready) -> None:
            if self.mutant is not None:
                self.mutant()
            app = App(self.url, name="shop")
            async with app:
                asyncio.get_running_loop().call_later(0.01, ready)
                await app.run(until_idle=until_idle)

        return self.child(lambda ready: asyncio.run(main(ready)))

    def settle(self) -> bool:
        """With all writers gone, let one more relay empty the outbox; True where it does not come to that."""
        worker = self.relay(until_idle=True)
        with contextlib.suppress(TimeoutError):
            worker.wait(5.0)
        return worker.code != 0

    # ---- the verdict -------------------------------------------------------------------------------------------------

    def found(self) -> Found:
        """End what still runs, settle, and compare."""
        for child in self.children:
            child.end()
        stuck = self.settle()
        for child in self.children:
            child.end()
        with contextlib.closing(connect(self.url)) as connection:
            wrote = set(connection.execute("SELECT key, number FROM wrote").fetchall())
        return replace(compare(wrote, self.published(), lambda key: not key.startswith("hot")), stuck=stuck)

    def published(self) -> list[Numbered]:
        """What is in the log, in order."""
        with contextlib.closing(connect(self.url)) as connection:
            rows = connection.execute("SELECT data FROM tidings_log ORDER BY position").fetchall()
        return [(each["key"], each["number"]) for each in (json.loads(bytes(data)) for (data,) in rows)]

    def close(self) -> None:
        """End what is left."""
        for child in self.children:
            child.end()


def connect(url: str, patience: float = 0.005):
    """A connection of the user's own, which commits what it is told to. Args: patience: seconds, for a locked file."""
    if parse_url(url).scheme == "sqlite":
        return sqlite3.connect(parse_url(url).path, isolation_level=None, timeout=patience)
    return psycopg.connect(url, autocommit=False)


def begin(connection: sqlite3.Connection) -> None:
    """Begin as docs/outbox.md says: SQLite's own waiting is unfair, and some of many writers starve."""
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
        else:
            return


def live(post: Post, kills: int, seed: int = 1, writers: int = 4, relays: int = 2, pause: float = 0.03) -> int:
    """Let processes write and relay, and kill one after each pause of up to so many seconds; returns how many."""
    chance = random.Random(seed)
    post.prepare()
    running = [(post.writer, post.writer()) for _ in range(writers)] + [
        (post.relay, post.relay()) for _ in range(relays)
    ]
    for _ in range(kills):
        at = chance.randrange(len(running))
        start, child = running[at]
        assert child.wait_ready(), "a process ended by itself (see above)"
        time.sleep(chance.uniform(0.0, pause))
        child.kill()
        post.children.remove(child)
        running[at] = (start, start())
    return kills
