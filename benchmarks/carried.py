"""Apps over a broker, the whole way: taken from the broker, kept in the log, handled, settled at the broker.

The app that receives has a store on the disk of the repository, as apps have: what is settled has been flushed there.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

from pydantic import BaseModel

from benchmarks.bare import messages
from benchmarks.handlers import exactly_once
from benchmarks.latency import HELLO, publish_steadily, worker_on
from benchmarks.measure import CPU, Effort, Figure, Round, Sample, Side, Stopwatch, family, latency_of, limit
from benchmarks.ours import opened
from benchmarks.shop import EFFECT, READ_MODEL, OrderPlaced, decode, encode, order
from tidings import App, Transaction
from tidings.core.arrival import Arrival, Confirmed
from tidings.core.cloudevent import from_headers
from tidings.core.envelope import Envelope
from tidings.runtime.connect import make_broker
from tidings.testing.conformance.broker.making import envelope

Corner = Callable[[], AbstractContextManager[str]]
"""A part of a broker of one's own, by its URL: whatever is published to `orders` waits there for the app `billing`."""

BATCH = 100
SHARE, LEAST = 0.2, 5_000
"""Messages of a round: a share of `Effort.events`, but so many at least that most come while others are handled."""
ENOUGH = 5_000
"""Deliveries a second, exactly once, that are enough, however fast the broker is."""
OF_ACKS = 0.8
"""Of the rate at which the broker alone takes acknowledgements, one by one: enough where that is slower."""
CPU_LIMIT = 40e-6
"""Seconds for one delivery, of all threads of the app that receives."""


class PlacedLine(BaseModel):
    """As `shop.Line`, for the peer."""

    sku: str
    name: str
    quantity: int
    price: int


class Placed(BaseModel):
    """As `shop.OrderPlaced`, for the peer: its users give it pydantic's models."""

    order_id: str
    customer_id: str
    email: str
    total: int
    currency: str
    channel: str
    placed_at: int
    lines: list[PlacedLine]


def placed_in(arrival: Arrival) -> OrderPlaced:
    """The order that arrived, as a handler is given it."""
    return decode(from_headers(arrival.headers, arrival.body, encoded=False).data)


def orders(number: int) -> list[Envelope]:
    """As many orders as the log of the app `shop` has them, each with a key and an id of its own."""
    run = uuid.uuid4().hex[:20]
    keys = (f"o-{at:07}" for at in range(number))
    return [envelope("orders", key, id=f"{run}-{key}", data=encode(order(key, at))) for at, key in enumerate(keys)]


async def fill(url: str, sent: list[Envelope]) -> None:
    """Publish, so that it waits at the broker."""
    broker = make_broker(url, "shop")
    await broker.open()
    for start in range(0, len(sent), BATCH):
        assert all(type(each) is Confirmed for each in await broker.publish(sent[start : start + BATCH]))
    await broker.close()


class Counting:
    """Counts deliveries: time runs from the first one on, and the app is stopped by the last one.

    What is in the log by the first delivery has been fetched before, so that it is not counted as an operation.
    """

    def __init__(self, app: App, store: Path, total: int) -> None:
        self.app, self.total, self.seen = app, total, 0
        self.reader = sqlite3.connect(store)
        self.watch: Stopwatch
        self.operations = total
        self.sample = Sample()

    def saw(self) -> None:
        """One more."""
        self.seen += 1
        if self.seen == 1:
            [(there,)] = self.reader.execute("SELECT max(position) FROM tidings_log")
            self.reader.close()
            self.operations -= there
            self.watch = Stopwatch()
        elif self.seen == self.total:
            self.sample = self.watch.sample(self.operations)
            self.app.stop()


def receiving(corner: Corner, *, effect: bool) -> Side:
    """An app that begins with a backlog at the broker.

    Args:
        corner: Of the broker.
        effect: Its handler takes `tx` and runs one statement, exactly once; or it does nothing at all.
    """

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        numbers, total = count(), max(LEAST, round(SHARE * effort.events))

        def run() -> Sample:
            with corner() as url:
                asyncio.run(fill(url, orders(total)))
                store = folder / f"billing-{next(numbers)}.db"
                app = App(f"sqlite:{store}", name="billing", broker=url)
                counting = Counting(app, store, total)

                async def look(placed: OrderPlaced) -> None:
                    counting.saw()

                async def add(placed: OrderPlaced, tx: Transaction) -> None:
                    await tx.execute(EFFECT, placed.customer_id, placed.total)
                    counting.saw()

                app.on(OrderPlaced)(add if effect else look)

                async def create() -> None:
                    async with app.transaction() as tx:
                        await tx.execute(READ_MODEL)

                with opened(app) as runner:
                    runner.run(create())
                    runner.run(app.run())
                    if effect:
                        exactly_once(app, runner, total)
            return counting.sample

        yield run

    return side


def latency(corner: Corner) -> Side:
    """Two apps, each with a store and a process of its own: from a call of `publish` to a handler in the other one.

    The publisher keeps its pace, each message in a task of its own.
    """

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        numbers, total = count(), messages(effort)

        async def carry(shop: App, says: Callable[[], str]) -> Sample:
            async with shop, asyncio.TaskGroup() as group:
                group.create_task(shop.run())
                await shop.publish(HELLO)
                assert await asyncio.to_thread(says) == "ready\n"
                watch = Stopwatch()
                await publish_steadily(shop, total)
                latencies = json.loads(await asyncio.to_thread(says))
                sample = watch.sample(total, latencies)
                shop.stop()
            return sample

        def run() -> Sample:
            stores = [folder / f"{name}-{next(numbers)}.db" for name in ("shop", "billing")]
            with corner() as url, worker_on(stores[1], total, "billing", url) as billing:
                assert billing.stdout is not None
                return asyncio.run(carry(App(f"sqlite:{stores[0]}", name="shop", broker=url), billing.stdout.readline))

        yield run

    return side


def at_most(rate: float, side: Side) -> Side:
    """A side that counts as no faster than this many operations a second."""

    @contextmanager
    def slower(folder: Path, effort: Effort) -> Iterator[Round]:
        with side(folder, effort) as turn:

            def run() -> Sample:
                sample = turn()
                return Sample(sample.operations, max(sample.seconds, sample.operations / rate), sample.cpu)

            yield run

    return slower


def figures(name: str, corner: Corner, acking: Side, raw_latency: Side, client: str) -> tuple[Figure, ...]:
    """What is asked of apps over any broker.

    Args:
        name: Of the broker.
        corner: Of the broker.
        acking: Its raw client, acknowledging one by one.
        raw_latency: Its raw client, from publishing to receiving at the same pace.
        client: Name of the raw client.
    """
    enough = at_most(ENOUGH / OF_ACKS, acking)
    trivial = receiving(corner, effect=False)
    least = f"floor: {client} acking each, or {ENOUGH / OF_ACKS:,.0f} a second if that is less"
    effect = ("app_effect", "app: SQL effect, exactly once", receiving(corner, effect=True), enough, OF_ACKS, least)
    within = ("app_latency", "app: publish to handler, p50", latency(corner), raw_latency, 0.5, f"floor: {client}")
    cpu = ("app_cpu", "app: CPU of a delivery", trivial, limit(Sample(cpu=CPU_LIMIT)), 1.0, "limit: 40 us, all threads")
    return (
        *family(name, effect),
        *family(name, within, **latency_of(0.5)),
        *family(name, cpu, **CPU),
    )
