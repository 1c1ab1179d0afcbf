"""What the fault tests of brokers run: apps that share nothing but a broker, in processes that are killed.

Processes of the app "shop" publish numbered events of their own keys into its store, and note each one that was
acknowledged. Workers of "shop" carry them to the broker; workers of "billing" take them into its store and note the
effect of each in the transaction of its delivery. In the end the two stores are compared.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from tests.faults.numbered import Found, Numbered, compare
from tests.faults.outbox import connect
from tidings import App, Key, Transaction, event
from tidings.core.url import parse_url
from tidings.errors import OutcomeUnknown, StoreUnavailable
from tidings.testing.faults import Child, Ready

APPS = ("shop", "billing")
PUBLISHERS = 2
AT = {"sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT", "postgresql": "BIGINT GENERATED ALWAYS AS IDENTITY"}
"""How the two kinds of stores number rows."""
RESUMED = 10.0
"""Seconds after the end of a fault within which messages flow again."""
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
        stores: App -> the URL of its store, which does not exist yet.
        mutant: Breaks the product on purpose, inside every process that runs a worker.
        ordered: False where the broker promises no order.
        pace: Seconds between two publications of one process.
        patient: True where publishers wait out what befalls their store; otherwise it ends them.

    Attributes:
        seconds: From the last kill until everything had arrived.
    """

    broker: str
    stores: dict[str, str]
    mutant: Callable[[], object] | None = None
    ordered: bool = True
    pace: float = 0.002
    patient: bool = False
    children: list[Child] = field(default_factory=list)
    seconds: float = field(default=0.0, init=False)

    def app(self, name: str) -> App:
        app = App(self.stores[name], broker=self.broker, name=name, lease=2.0)
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
                at = AT[parse_url(self.stores["billing"]).scheme]
                await tx.execute(f"CREATE TABLE effects (at {at}, key TEXT, number INTEGER)")
            await billing.run(until_idle=True)

        assert self.child(lambda _: asyncio.run(main())).wait() == 0

    def publisher(self, name: str) -> Child:
        """A process that publishes until it is killed."""

        async def main(ready: Ready) -> None:
            async with self.app("shop") as app:
                numbers: Counter[str] = Counter()
                lives = count()
                life = next(lives)
                for at in count():
                    keys = [f"{name}-{life}-{at % 5}", f"{name}-{life}-{(at + 1) % 5}"]
                    numbers.update(keys)
                    try:
                        await app.publish(*(Sent(key, numbers[key]) for key in keys))
                    except (StoreUnavailable, OutcomeUnknown):
                        if not self.patient:
                            raise
                        life = next(lives)  # nobody knows what became of those: whatever follows has other keys
                        await asyncio.sleep(0.05)
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
        for app in APPS:  # those that are there may have been about to be killed
            self.worker(app)
        while self.published() - set(self.effects()) and time.monotonic() < began + within:
            time.sleep(0.05)
        self.seconds = time.monotonic() - began
        time.sleep(0.3)  # what comes twice comes now
        self.close()
        return compare(self.published(), self.effects(), lambda _: self.ordered)

    def published(self) -> set[Numbered]:
        """What is in the log of the shop, acknowledged or not: it must arrive."""
        rows = self._select("shop", "SELECT key, data FROM tidings_log WHERE type = 'Sent'")
        return {(key, json.loads(bytes(data))["number"]) for key, data in rows}

    def effects(self) -> list[Numbered]:
        """What billing did, in order."""
        return self._select("billing", "SELECT key, number FROM effects ORDER BY at")

    def flows(self) -> None:
        """Return once effects come."""
        began, before = time.monotonic(), len(self.effects())
        while len(self.effects()) <= before:
            assert time.monotonic() < began + RESUMED, "nothing arrives any more"
            time.sleep(0.05)

    def held(self) -> int:
        """How many messages of the shop wait behind an earlier one of their key that is not carried yet."""
        [(count,)] = self._select("shop", "SELECT count(*) FROM tidings_held")
        return int(count)

    def _select(self, app: str, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(connect(self.stores[app], patience=30.0)) as connection:
            return connection.execute(sql).fetchall()

    def close(self) -> None:
        """End what is left."""
        for child in self.children:
            child.end()


def live(crossing: Crossing, kills: int, seed: int = 1) -> int:
    """Let processes publish and work, and kill one of them every few milliseconds; returns how many were killed."""
    for child in kill_at_random(crew(crossing), kills, random.Random(seed), crossing.children)[:PUBLISHERS]:
        child.end()
    return kills


def crew(crossing: Crossing) -> list[Callable[[], Child]]:
    """What starts each of the processes of a run that is prepared: publishers first, then workers of both apps."""
    serial = count(1)
    crossing.prepare()
    publishers: list[Callable[[], Child]] = [lambda: crossing.publisher(f"p{next(serial)}")] * PUBLISHERS
    return publishers + [partial(crossing.worker, app) for app in APPS for _ in range(2)]


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
