"""What the fault tests of brokers run: apps that share nothing but a broker, in processes that are killed.

Processes of the app "shop" publish numbered events of their own keys into its store, and note each one that was
acknowledged. Workers of "shop" carry them to the broker; workers of "billing" take them into its store and note the
effect of each in the transaction of its delivery. In the end the two stores are compared.
"""

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.numbered import Found, Numbered, compare
from tidings import App, Key, Transaction, event
from tidings.testing.faults import Child, Ready

SETTLED = 30.0
"""Seconds after which everything must have arrived, once nobody is killed any more; far more than it takes."""


@event(topic="crossing")
class Sent:
    key: Key[str]
    number: int


@dataclass
class Crossing:
    """One run.

    Args:
        broker: URL of the broker, in which nobody else uses the topic.
        folder: For the stores.
        mutant: Breaks the product on purpose, inside every process that runs a worker.
        ordered: False where the broker promises no order.
        pace: Seconds between two publications of one process.

    Attributes:
        seconds: From the last kill until everything had arrived.
    """

    broker: str
    folder: Path
    mutant: Callable[[], object] | None = None
    ordered: bool = True
    pace: float = 0.002
    children: list[Child] = field(default_factory=list)
    seconds: float = field(default=0.0, init=False)

    def url(self, app: str) -> str:
        return f"sqlite:{self.folder}/{app}.db"

    def app(self, name: str) -> App:
        app = App(self.url(name), broker=self.broker, name=name, lease=2.0)
        if name == "billing":

            @app.on(Sent)
            async def note(sent: Sent, tx: Transaction) -> None:
                await tx.execute("INSERT INTO effects (key, number) VALUES (?, ?)", sent.key, sent.number)

        return app

    def child(self, main: Callable[[Ready], object]) -> Child:
        child = Child(main)
        self.children.append(child)
        return child

    def prepare(self) -> None:
        """Make the stores, and see that messages for billing are kept from now on."""

        async def main() -> None:
            async with self.app("shop"):
                pass
            billing = self.app("billing")
            async with billing, billing.transaction() as tx:
                await tx.execute(
                    "CREATE TABLE effects (at INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, number INTEGER)"
                )
            await billing.run(until_idle=True)

        assert self.child(lambda _: asyncio.run(main())).wait() == 0

    def publisher(self, name: str) -> Child:
        """A process that publishes until it is killed."""

        async def main(ready: Ready) -> None:
            async with self.app("shop") as app:
                numbers: Counter[str] = Counter()
                for at in count():
                    keys = [f"{name}-{at % 5}", f"{name}-{(at + 1) % 5}"]
                    numbers.update(keys)
                    await app.publish(*(Sent(key, numbers[key]) for key in keys))
                    if at == 0:
                        ready()
                    await asyncio.sleep(self.pace)

        return self.child(lambda ready: asyncio.run(main(ready)))

    def worker(self, app: str) -> Child:
        """A worker of one of the apps."""

        async def main(ready: Ready) -> None:
            if self.mutant is not None:
                self.mutant()
            asyncio.get_running_loop().call_later(0.01, ready)
            await self.app(app).run()

        return self.child(lambda ready: asyncio.run(main(ready)))

    def found(self, within: float = SETTLED) -> Found:
        """Let what was published arrive, then end everybody and compare."""
        began = time.monotonic()
        for app in ("shop", "billing"):  # those that are there may have been about to be killed
            self.worker(app)
        while self.published() - set(self.effects()) and time.monotonic() < began + within:
            time.sleep(0.05)
        self.seconds = time.monotonic() - began
        time.sleep(0.3)  # what comes twice comes now
        self.close()
        return compare(self.published(), self.effects(), lambda _: self.ordered)

    def published(self) -> set[Numbered]:
        """What is in the log of the shop, acknowledged or not: it must arrive."""
        sql = "SELECT key, CAST(data AS TEXT) ->> 'number' FROM tidings_log WHERE type = 'Sent'"
        with contextlib.closing(sqlite3.connect(self.folder / "shop.db", timeout=30.0)) as connection:
            return set(connection.execute(sql))

    def effects(self) -> list[Numbered]:
        """What billing did, in order."""
        with contextlib.closing(sqlite3.connect(self.folder / "billing.db", timeout=30.0)) as connection:
            return connection.execute("SELECT key, number FROM effects ORDER BY at").fetchall()

    def held(self) -> int:
        """How many messages of the shop wait behind an earlier one of their key that is not carried yet."""
        with contextlib.closing(sqlite3.connect(self.folder / "shop.db", timeout=30.0)) as connection:
            return int(connection.execute("SELECT count(*) FROM tidings_held").fetchone()[0])

    def close(self) -> None:
        """End what is left."""
        for child in self.children:
            child.end()


def live(crossing: Crossing, kills: int, seed: int = 1, publishers: int = 2, workers: int = 2) -> int:
    """Let processes publish and work, and kill one of them every few milliseconds; returns how many were killed."""
    chance, serial = random.Random(seed), count(1)
    crossing.prepare()
    starts: list[Callable[[], Child]] = [
        *[lambda: crossing.publisher(f"p{next(serial)}")] * publishers,
        *[lambda: crossing.worker("shop")] * workers,
        *[lambda: crossing.worker("billing")] * workers,
    ]
    for child in kill_at_random(starts, kills, chance, crossing.children)[:publishers]:
        child.end()
    return kills


def kill_at_random(
    starts: list[Callable[[], Child]], kills: int, chance: random.Random, children: list[Child]
) -> list[Child]:
    """Kill a process every few milliseconds, and start another one in its place.

    Args:
        starts: Each starts a process.
        kills: How many.
        chance: Says which, and when.
        children: What was started and not killed; kept up to date.

    Returns:
        Those that run in the end, one for each of `starts`.
    """
    running = [start() for start in starts]
    for _ in range(kills):
        at = chance.randrange(len(running))
        assert running[at].wait_ready(), "a process ended by itself (see above)"
        time.sleep(chance.uniform(0.0, 0.2))
        running[at].kill()
        children.remove(running[at])
        running[at] = starts[at]()
    return running
