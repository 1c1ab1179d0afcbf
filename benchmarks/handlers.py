"""Handlers and projections with an SQL effect, exactly once, over a bare projection loop; CPU of a trivial handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.bare import projection_loop
from benchmarks.measure import CPU, Effort, Round, Sample, Stopwatch, family, limit
from benchmarks.ours import copied, filled, opened
from benchmarks.shop import EFFECT, READ_MODEL, OrderPlaced
from benchmarks.streams import revenue
from tidings import App, Transaction

SHARE = 0.3
"""Of the longest log: what a round handles."""


def drain(app: App, runner, events: int) -> Sample:
    """Run the app until it is idle, from its start on: joining the group and noticing the end are part of the time."""
    watch = Stopwatch()
    runner.run(app.run(until_idle=True))
    return watch.sample(events)


def exactly_once(app: App, runner, events: int) -> None:
    """Look into the read model: every order is in it once."""
    [(orders,)] = runner.run(app.store.query("SELECT sum(orders) FROM revenue"))
    if orders != events:
        raise AssertionError(f"{orders:,} effects of {events:,} events")


@contextmanager
def effect(folder: Path, effort: Effort) -> Iterator[Round]:
    """A handler that takes `tx` and runs one statement."""
    numbers, events = count(), round(SHARE * effort.events)
    store = filled(folder, events)

    def run() -> Sample:
        app = App(f"sqlite:{copied(store, next(numbers))}")

        @app.on(OrderPlaced)
        async def add(placed: OrderPlaced, tx: Transaction) -> None:
            await tx.execute(EFFECT, placed.customer_id, placed.total)

        async def create() -> None:
            async with app.transaction() as tx:
                await tx.execute(READ_MODEL)

        with opened(app) as runner:
            runner.run(create())
            sample = drain(app, runner, events)
            exactly_once(app, runner, events)
        return sample

    yield run


@contextmanager
def catch_up(folder: Path, effort: Effort) -> Iterator[Round]:
    """A new projection over the whole log."""
    numbers, events = count(), round(SHARE * effort.events)
    store = filled(folder, events)

    def run() -> Sample:
        app = App(f"sqlite:{copied(store, next(numbers))}", revenue)
        with opened(app) as runner:
            sample = drain(app, runner, events)
            exactly_once(app, runner, events)
        return sample

    yield run


@contextmanager
def trivial(folder: Path, effort: Effort) -> Iterator[Round]:
    """A handler that does nothing: what is left is the framework, with its reads, decoding and checkpoints."""
    numbers, events = count(), round(SHARE * effort.events)
    store = filled(folder, events)

    def run() -> Sample:
        app = App(f"sqlite:{copied(store, next(numbers))}")
        seen = 0

        @app.on(OrderPlaced)
        async def look(placed: OrderPlaced) -> None:
            nonlocal seen
            seen += 1

        with opened(app) as runner:
            sample = drain(app, runner, events)
        if seen != events:
            raise AssertionError(f"{seen:,} deliveries of {events:,} events")
        return sample

    yield run


loop = projection_loop(SHARE)

NOTE = "floor: bare projection loop, 100 a commit"
LIMIT = limit(Sample(cpu=25e-6))
FIGURES = (
    *family(
        "handlers",
        ("effect", "handler with an SQL effect, exactly once", effect, loop, 0.3, NOTE),
        ("projection", "projection catching up", catch_up, loop, 0.5, NOTE),
    ),
    *family(
        "handlers",
        ("cpu", "CPU of a delivery to a trivial handler", trivial, LIMIT, 1.0, "limit: 25 us, all threads"),
        **CPU,
    ),
)
