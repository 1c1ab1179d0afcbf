"""Event-sourced streams, beside `eventsourcing` 9.5 on SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks import peer
from benchmarks.measure import Effort, Figure, Round, Sample, Side, Stopwatch, during
from benchmarks.ours import copied, filled, in_file, opened
from benchmarks.shop import EFFECT, READ_MODEL, OrderPlaced, ledger, order
from tidings import App, Projection, Transaction


def append(size: int, callers: int = 1, url: Callable[[Path], str] = in_file) -> Side:
    """Tasks that append so many events at a time, each to a stream of its own, at the version they know."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        numbers = count()

        async def call(key: str) -> int:
            events = [order(key)] * size
            version = 0
            for _ in during(effort.seconds):
                version = await app.append(ledger, key, *events, expected=version)
            return version

        async def call_all() -> Sample:
            watch = Stopwatch()
            done = await asyncio.gather(*(call(f"o-{next(numbers):07}") for _ in range(callers)))
            return watch.sample(sum(done))

        app = App(url(folder), ledger)
        with opened(app) as runner:
            yield lambda: runner.run(call_all())

    return side


@contextmanager
def append_blocking(folder: Path, effort: Effort) -> Iterator[Round]:
    """One caller without an event loop, one event at a time."""
    numbers = count()

    def run() -> Sample:
        key = f"o-{next(numbers):07}"
        placed = order(key)
        version = 0
        watch = Stopwatch()
        for _ in during(effort.seconds):
            version = face.append(ledger, key, placed, expected=version)
        return watch.sample(version)

    with App(f"sqlite:{folder / 'shop.db'}", ledger).blocking() as face:
        yield run


def load(url: Callable[[Path], str] = in_file) -> Side:
    """Fold streams of 1,000 events into their state."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        keys = [f"o-{number:07}" for number in range(peer.STREAMS)]

        async def fill() -> None:
            for key in keys:
                await app.append(ledger, key, *([order(key)] * 1_000), expected=0)

        async def load_all() -> Sample:
            watch = Stopwatch()
            done = 0
            for number in during(effort.seconds):
                done += await app.get(ledger, keys[number % peer.STREAMS])
            return watch.sample(done)

        app = App(url(folder), ledger)
        with opened(app) as runner:
            runner.run(fill())
            yield lambda: runner.run(load_all())

    return side


revenue = Projection("revenue", schema=READ_MODEL)


@revenue.on(OrderPlaced)
async def add(placed: OrderPlaced, tx: Transaction) -> None:
    """What one order does to the read model: the statement of the bare loop."""
    await tx.execute(EFFECT, placed.customer_id, placed.total)


@contextmanager
def rebuild(folder: Path, effort: Effort) -> Iterator[Round]:
    """Drop a read model that is up to date, and replay the whole log into a fresh one."""
    numbers = count()
    store = filled(folder, effort.events)
    built = App(f"sqlite:{store}", revenue, name="shop")
    with opened(built) as runner:
        runner.run(built.run(until_idle=True))

    def run() -> Sample:
        app = App(f"sqlite:{copied(store, next(numbers))}", revenue)
        with opened(app) as runner:
            watch = Stopwatch()
            runner.run(app.rebuild("revenue"))
            sample = watch.sample(effort.events)
            [(orders,)] = runner.run(app.query(revenue, "SELECT sum(orders) FROM revenue"))
            if orders != effort.events:
                raise AssertionError(f"{orders:,} of {effort.events:,} events in the read model")
        return sample

    yield run


append_one, append_ten, append_together = append(1), append(10), append(1, callers=8)
load_1000 = load()
saved = peer.append(peer.by_save, 1)
SAVE, PUT = "peer: Application.save", "peer: EventStore.put, below its aggregates"
PARITY = 1.0
"""One level below what the peer's users use, nothing more is promised than to be no slower."""

FIGURES = (
    Figure(
        name="streams.append_one",
        title="append one event, async",
        ours=append_one,
        floor=saved,
        target=1.2,
        note=SAVE,
    ),
    Figure(
        name="streams.append_one_blocking",
        title="append one event, blocking",
        ours=append_blocking,
        floor=saved,
        target=1.5,
        note=SAVE,
    ),
    Figure(
        name="streams.append_one.event_store",
        title="append one event, async, beside its event store",
        ours=append_one,
        floor=peer.append(peer.by_put, 1),
        target=PARITY,
        note=PUT,
    ),
    Figure(
        name="streams.append_ten",
        title="append ten events at once",
        ours=append_ten,
        floor=peer.append(peer.by_save, 10),
        target=1.7,
        note=f"{SAVE}; counted in events",
    ),
    Figure(
        name="streams.append_ten.event_store",
        title="append ten events at once, beside its event store",
        ours=append_ten,
        floor=peer.append(peer.by_put, 10),
        target=PARITY,
        note=f"{PUT}; counted in events",
    ),
    Figure(
        name="streams.append_8_callers",
        title="append one event, 8 callers",
        ours=append_together,
        floor=peer.append(peer.by_save, 1, callers=8),
        target=5.0,
        note=f"{SAVE} in 8 threads",
    ),
    Figure(
        name="streams.append_8_callers.event_store",
        title="append one event, 8 callers, beside its event store",
        ours=append_together,
        floor=peer.append(peer.by_put, 1, callers=8),
        target=PARITY,
        note=f"{PUT}, in 8 threads",
    ),
    Figure(
        name="streams.load_1000",
        title="load a stream of 1,000 events",
        ours=load_1000,
        floor=peer.load(peer.by_repository),
        target=5.0,
        note="peer: Repository.get, folded as ours; counted in events",
    ),
    Figure(
        name="streams.load_1000.event_store",
        title="load a stream of 1,000 events, beside its event store",
        ours=load_1000,
        floor=peer.load(peer.by_get),
        target=PARITY,
        note="peer: EventStore.get, events that nothing is folded into; counted in events",
    ),
    Figure(
        name="streams.rebuild_100k",
        title="rebuild a projection of 100,000 events",
        ours=rebuild,
        floor=peer.project,
        target=12.0,
        note="peer: its view recorder, which commits every event; rate over its first thousands",
    ),
)
