"""The side with tidings on PostgreSQL: publishing, handling, projecting, event-sourced streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.handlers import drain, exactly_once
from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch
from benchmarks.ours import opened
from benchmarks.postgres.floors import CREATE, SHARE
from benchmarks.postgres.server import new
from benchmarks.shop import EFFECT, OrderPlaced, order
from benchmarks.streams import revenue
from tidings import App, Transaction


def fill(events: int) -> str:
    """The URL of a store whose log holds so many orders."""
    url = new()
    app = App(url, name="shop")
    with opened(app) as runner:
        for first in range(0, events, 1000):
            numbers = range(first, min(first + 1000, events))
            runner.run(app.publish(*(order(f"o-{number:07}", customer=number) for number in numbers)))
    return url


def handling(*, projection: bool) -> Side:
    """A projection, or a handler that takes `tx` and runs one statement; each round starts a new group."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        events, numbers = round(SHARE * effort.events), count()
        url = fill(events)

        def run() -> Sample:
            app = App(url, *([revenue] if projection else ()), name=f"shop{next(numbers)}")
            if not projection:

                @app.on(OrderPlaced)
                async def add(placed: OrderPlaced, tx: Transaction) -> None:
                    await tx.execute(EFFECT, placed.customer_id, placed.total)

            async def start() -> None:
                async with app.transaction() as tx:
                    await tx.execute("DROP TABLE IF EXISTS revenue")
                    if not projection:
                        await tx.execute(CREATE)

            with opened(app) as runner:
                runner.run(start())
                sample = drain(app, runner, events)
                exactly_once(app, runner, events)
            return sample

        yield run

    return side


@contextmanager
def rebuild(folder: Path, effort: Effort) -> Iterator[Round]:
    """Drop a read model that is up to date, and replay the whole log into a fresh one."""
    url = fill(effort.events)
    app = App(url, revenue, name="shop")

    def run() -> Sample:
        watch = Stopwatch()
        runner.run(app.rebuild("revenue"))
        sample = watch.sample(effort.events)
        exactly_once(app, runner, effort.events)
        return sample

    with opened(app) as runner:
        runner.run(app.run(until_idle=True))
        yield run
