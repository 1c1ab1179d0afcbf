"""Apps over a broker, the whole way: taken from the broker, kept in the log, handled, settled at the broker.

The app that receives has a store on the disk of the repository, as apps have: what is settled has been flushed there.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import msgspec
from pydantic import BaseModel

from benchmarks.bare import RATE, messages
from benchmarks.handlers import exactly_once
from benchmarks.latency import HELLO, publish_steadily, worker_on
from benchmarks.measure import CPU, Effort, Figure, Round, Sample, Side, Stopwatch, family, latency_of
from benchmarks.ours import opened
from benchmarks.shop import EFFECT, READ_MODEL, OrderPlaced, decode, encode, order
from tidings import App, Transaction
from tidings.core.arrival import Arrival, Confirmed
from tidings.core.envelope import Envelope
from tidings.core.ports import Broker
from tidings.runtime.connect import make_broker
from tidings.testing.conformance.broker.making import envelope

Corner = Callable[[], AbstractContextManager[str]]
"""A part of a broker of one's own, by its URL: whatever is published to `orders` waits there for the app `billing`."""

BATCH = 100
SHARE, LEAST = 0.3, 10_000
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
    return decode(arrival.read().data)


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


def latency(corner: Corner, *, kept: bool) -> Side:
    """Two apps, each with a process of its own: from a call of `publish` to a handler in the other one.

    The publisher keeps its pace, each message in a task of its own.

    Args:
        corner: Of the broker.
        kept: Each has a store of its own, in a file; or none at all.
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
            names = [f"{name}-{next(numbers)}.db" for name in ("shop", "billing")]
            stores = [str(folder / name) if kept else ":memory:" for name in names]
            with corner() as url, worker_on(stores[1], total, "billing", url) as billing:
                assert billing.stdout is not None
                return asyncio.run(carry(App(f"sqlite:{stores[0]}", name="shop", broker=url), billing.stdout.readline))

        yield run

    return side


async def steadily(send: Callable[[], object], total: int) -> None:
    """Call so many times at RATE."""
    began = time.monotonic()
    for number in range(total):
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        send()


def adapter_latency(corner: Corner) -> Side:
    """The adapter alone: publish at a steady rate, each in a task of its own; fetch and settle what arrives."""

    async def receive(broker: Broker, total: int) -> list[float]:
        found: list[float] = []
        while len(found) < total:
            taken = await broker.fetch(BATCH, 5.0)
            found += [time.monotonic() - float(each.headers["ce-id"]) for each in taken]
            await broker.settle(taken)
        return found

    async def run(url: str, total: int) -> Sample:
        shop, billing, tasks = make_broker(url, "shop"), make_broker(url, "billing"), []
        await shop.open()
        await billing.open()
        await billing.subscribe(["orders"])
        [each] = orders(1)

        def send() -> None:
            now = f"{time.monotonic()}"
            tasks.append(asyncio.create_task(shop.publish([msgspec.structs.replace(each, id=now, key=now)])))

        send()  # the first one finds out where to go
        await receive(billing, 1)
        receiving = asyncio.create_task(receive(billing, total))
        watch = Stopwatch()
        await steadily(send, total)
        latencies = await receiving
        sample = watch.sample(len(latencies), latencies)
        await asyncio.gather(*tasks)
        await shop.close()
        await billing.close()
        return sample

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        def once() -> Sample:
            with corner() as url:
                return asyncio.run(run(url, messages(effort)))

        yield once

    return side


def at_most(rate: float, side: Side) -> Side:
    """A side that counts as no faster than this many operations a second."""

    def slower(sample: Sample) -> Sample:
        return Sample(sample.operations, max(sample.seconds, sample.operations / rate), sample.cpu)

    return _each(side, slower)


def with_client(seconds: float, side: Side) -> Side:
    """A limit: so much CPU time an operation, beside what the raw client takes in this very run, which is `side`."""

    def limited(sample: Sample) -> Sample:
        return Sample(sample.operations, sample.seconds, sample.cpu + sample.operations * seconds)

    return _each(side, limited)


def _each(side: Side, change: Callable[[Sample], Sample]) -> Side:
    """A side of which every sample is changed."""

    @contextmanager
    def changed(folder: Path, effort: Effort) -> Iterator[Round]:
        with side(folder, effort) as turn:
            yield lambda: change(turn())

    return changed


def figures(
    name: str, corner: Corner, client: str, acking: Side, acking_many: Side, raw_latency: Callable[..., Side]
) -> tuple[Figure, ...]:
    """What is asked of apps over any broker.

    Args:
        name: Of the broker.
        corner: Of the broker.
        client: Name of its raw client.
        acking: The raw client, acknowledging one by one.
        acking_many: The same, a hundred at once.
        raw_latency: Makes the same, from publishing to receiving at a steady pace, `kept` in a log at either end.
    """
    enough, within = at_most(ENOUGH / OF_ACKS, acking), with_client(CPU_LIMIT, acking_many)
    bare, durable = (raw_latency(kept=kept) for kept in (False, True))
    stateless, stateful = (latency(corner, kept=kept) for kept in (False, True))
    trivial, effect = (receiving(corner, effect=effect) for effect in (False, True))
    floor = f"floor: {client}"
    logs = f"{floor}, a bare log at both ends"
    least = f"{floor} acking each, or {ENOUGH / OF_ACKS:,.0f} a second if that is less"
    return (
        *family(name, ("app_effect", "app: SQL effect, exactly once", effect, enough, OF_ACKS, least)),
        *family(
            name,
            ("latency", f"{RATE} a second, p50", adapter_latency(corner), bare, 0.5, floor),
            ("stateless_latency", "apps without stores: publish to handler", stateless, bare, 0.5, floor),
            ("app_latency", "apps: from publish to handler", stateful, durable, 0.5, logs),
            **latency_of(0.5),
        ),
        *family(
            name,
            ("app_cpu", "app: CPU of a delivery", trivial, within, 1.0, f"limit: 40 us and what {client} takes"),
            **CPU,
        ),
    )
