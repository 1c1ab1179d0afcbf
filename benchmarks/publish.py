"""Durable publish of one event, over raw single-row commits a second."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bare import single_row_commits
from benchmarks.measure import Effort, Figure, Round, Sample, Side, Stopwatch, during
from benchmarks.ours import opened
from benchmarks.shop import order
from tidings import App


@contextmanager
def blocking(folder: Path, effort: Effort) -> Iterator[Round]:
    """One caller without an event loop."""
    placed = order("o-0000001")

    def run() -> Sample:
        watch = Stopwatch()
        done = 0
        for number in during(effort.seconds):
            face.publish(placed)
            done = number + 1
        return watch.sample(done)

    with App(f"sqlite:{folder / 'shop.db'}").blocking() as face:
        yield run


def callers(count: int) -> Side:
    """So many tasks of one event loop, each waiting for its event to be durable before it publishes the next."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        async def call(key: str) -> int:
            placed = order(key)
            done = 0
            for number in during(effort.seconds):
                await app.publish(placed)
                done = number + 1
            return done

        async def call_all() -> Sample:
            watch = Stopwatch()
            done = await asyncio.gather(*(call(f"o-{number:07}") for number in range(count)))
            return watch.sample(sum(done))

        app = App(f"sqlite:{folder / 'shop.db'}")
        with opened(app) as runner:
            yield lambda: runner.run(call_all())

    return side


NOTE = "floor: INSERT of one row, committed"

FIGURES = (
    Figure(
        name="publish.blocking",
        title="publish, one blocking caller",
        ours=blocking,
        floor=single_row_commits,
        target=0.8,
        note=NOTE,
    ),
    Figure(
        name="publish.async_1",
        title="publish, one async caller",
        ours=callers(1),
        floor=single_row_commits,
        target=0.6,
        note=NOTE,
    ),
    Figure(
        name="publish.async_8",
        title="publish, 8 async callers",
        ours=callers(8),
        floor=single_row_commits,
        target=2.4,
        note=NOTE,
    ),
    Figure(
        name="publish.async_100",
        title="publish, 100 async callers",
        ours=callers(100),
        floor=single_row_commits,
        target=6.0,
        note=NOTE,
    ),
)
