"""What the tests of the order run: many processes that append to one log at once, and workers that follow it.

Transactions write before they append, take their time before and after it, and are rolled back now and then. Each
leaves a row of its own, so that the database itself says what must be seen; the handler leaves one for each message, in
the order in which they took effect.
"""

import asyncio
import contextlib
import functools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.sizes import LONG
from tidings import App, Envelope, Key, Transaction, event
from tidings.core.url import parse_url
from tidings.stores.postgres.connection import Place, TimelyConnection
from tidings.testing.faults import Child, Ready

TABLES = (
    "CREATE TABLE wrote (id INTEGER)",
    "CREATE TABLE seen (n BIGINT GENERATED ALWAYS AS IDENTITY, id INTEGER, stream TEXT, version BIGINT)",
)
STREAMS = 4
WRITERS = 16


@event(topic="orders")
class Wrote:
    key: Key[str]
    id: int


class Regretted(Exception):
    """A transaction is to be rolled back."""


@dataclass
class Found:
    """What is there in the end.

    Attributes:
        lost: Ids of rows whose message is not in the log.
        invented: Of messages whose row is not there.
        passed: Of messages in the log that no handler has seen.
        doubled: Of messages that took effect twice.
        inverted: Streams, and keys of one writer, that were not seen in order and without a gap.
        holes: True where positions are not 1, 2, 3...
        stuck: True where workers were not done with the log although nobody wrote any more.
        published: Number of messages.
    """

    lost: set[int]
    invented: set[int]
    passed: set[int]
    doubled: set[int]
    inverted: set[str]
    holes: bool
    stuck: bool
    published: int

    @property
    def broken(self) -> set[str]:
        """Names of what is not as promised."""
        names = ("lost", "invented", "passed", "doubled", "inverted", "holes", "stuck")
        return {name for name in names if getattr(self, name)}


@dataclass
class Crowd:
    """One run.

    Args:
        url: Of a store that does not exist yet.
        mutant: Breaks the product on purpose, inside every worker.
        linger: Seconds that a transaction may stay open after an append, at most; others wait for it.
        plainly: Writers publish without a transaction, and leave their rows when they are done.
    """

    url: str
    mutant: Callable[[], object] | None = None
    linger: float = 0.005
    plainly: bool = False
    children: list[Child] = field(default_factory=list)
    serial: int = 0

    def child(self, main: Callable[[Ready], object]) -> Child:
        child = Child(main)
        self.children.append(child)
        return child

    def connect(self) -> TimelyConnection:
        """A connection that commits every statement."""
        return Place(parse_url(self.url)).connect()

    def app(self) -> App:
        app = App(self.url, name="shop")

        @app.on(Wrote)
        async def see(wrote: Wrote, tx: Transaction, envelope: Envelope) -> None:
            sql = "INSERT INTO seen (id, stream, version) VALUES (?, ?, ?)"
            await tx.execute(sql, wrote.id, envelope.stream, envelope.version)

        return app

    def prepare(self, plant: str = "") -> None:
        """Make store, tables and group, in a process of its own: nothing is opened before a fork.

        Args:
            plant: SQL that breaks the store on purpose.
        """

        async def main() -> None:
            async with self.app() as app:
                async with app.transaction() as tx:
                    for table in TABLES:
                        await tx.execute(table)
                await app.run(until_idle=True)

        assert self.child(lambda _: asyncio.run(main())).wait() == 0
        with contextlib.closing(self.connect()) as connection:
            connection.execute(plant, prepare=False)

    # ---- writing -----------------------------------------------------------------------------------------------------

    def write(self, seconds: float, writers: int = WRITERS) -> None:
        """Let so many processes write for so long; the first of them is one transaction from beginning to end."""
        begun = []
        for _ in range(writers):
            self.serial += 1
            lasts = seconds if not begun else 0.0
            begun.append(self.child(functools.partial(self._start, me=self.serial, seconds=seconds, lasts=lasts)))
        assert all(child.wait_ready() for child in begun)
        assert [child.wait(seconds + 60) for child in begun] == [0] * writers, "an error reached a writer (see above)"

    def _start(self, ready: Ready, **how: float) -> None:
        asyncio.run(self._write(ready, **how))

    async def _write(self, ready: Ready, me: int, seconds: float, lasts: float) -> None:
        chance, id_ = random.Random(me), me * 1_000_000
        async with self.app() as app:
            ready()
            end = time.monotonic() + seconds
            if self.plainly:
                await self._publish(app, me, id_, chance, end)
            while time.monotonic() < end:
                id_ += 1
                with contextlib.suppress(Regretted):
                    async with app.transaction() as tx:
                        await self._one(tx, me, id_, chance, lasts)

    async def _publish(self, app: App, me: int, id_: int, chance: random.Random, end: float) -> None:
        """Publish one or several at a time; now and then others have time to come between."""
        first = id_
        while time.monotonic() < end:
            ids = range(id_ + 1, id_ + chance.choice((2, 2, 4)))
            await app.publish(*[Wrote(f"own-{me}", each) for each in ids])
            id_ = ids[-1]
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01)))
        async with app.transaction() as tx:
            await tx.execute("INSERT INTO wrote SELECT generate_series(?, ?)", first + 1, id_)

    async def _one(self, tx: Transaction, me: int, id_: int, chance: random.Random, lasts: float) -> None:
        """One transaction: it has a number of the server's from its first row on, long before it has a position."""
        await tx.execute("INSERT INTO wrote VALUES (?)", id_)
        await asyncio.sleep(lasts or chance.random() * (0.1 if chance.random() < 0.2 else 0.005))
        if chance.random() < 0.5:
            await tx.publish(Wrote(f"own-{me}", id_))
        else:
            stream = f"stream-{chance.randrange(STREAMS)}"
            await tx.append(stream, stream, [Wrote(stream, id_)])
            await asyncio.sleep(chance.random() * self.linger)
        if not lasts and chance.random() < 0.2:
            raise Regretted

    # ---- following ---------------------------------------------------------------------------------------------------

    def worker(self, *, until_idle: bool = False) -> Child:
        """A worker process; it may be told to end once nothing is left."""

        async def main(ready: Ready) -> None:
            if self.mutant is not None:
                self.mutant()
            async with self.app() as app:
                asyncio.get_running_loop().call_later(0.01, ready)
                await app.run(until_idle=until_idle)

        return self.child(lambda ready: asyncio.run(main(ready)))

    def workers(self, number: int = 2) -> list[Child]:
        """So many workers, at work."""
        begun = [self.worker() for _ in range(number)]
        assert all(child.wait_ready() for child in begun)
        return begun

    # ---- the verdict -------------------------------------------------------------------------------------------------

    def found(self) -> Found:
        """Stop the workers, let one more finish the log, and compare."""
        for child in self.children:
            child.terminate()
        last = self.worker(until_idle=True)
        with contextlib.suppress(TimeoutError):
            last.wait(60.0 if LONG else 10.0)
        stuck = last.code != 0
        self.close()
        with contextlib.closing(self.connect()) as connection:
            wrote = {id_ for (id_,) in connection.execute("SELECT id FROM wrote")}
            rows = connection.execute("SELECT position, data FROM tidings_log ORDER BY position").fetchall()
            seen = connection.execute("SELECT id, stream, version FROM seen ORDER BY n").fetchall()
        log = {json.loads(data)["id"] for _, data in rows}
        ids = [id_ for id_, _, _ in seen]
        return Found(
            lost=wrote - log,
            invented=log - wrote,
            passed=log - set(ids),
            doubled={id_ for id_ in set(ids) if ids.count(id_) > 1} if len(ids) > len(set(ids)) else set(),
            inverted=_inverted(seen),
            holes=[position for position, _ in rows] != list(range(1, len(rows) + 1)),
            stuck=stuck,
            published=len(rows),
        )

    def close(self) -> None:
        """End what is left."""
        for child in self.children:
            child.end()


def _inverted(seen: list[tuple[int, str | None, int | None]]) -> set[str]:
    """Streams whose versions were not seen as 1, 2, 3..., and writers whose own key was not seen as it wrote."""
    last: dict[str, int] = {}
    found = set()
    for id_, stream, version in seen:
        name, now = (f"own-{id_ // 1_000_000}", id_) if stream is None else (stream, version or 0)
        before = last.get(name, 0)
        if now <= before or (stream is not None and now != before + 1):
            found.add(name)
        last[name] = max(now, before)
    return found
