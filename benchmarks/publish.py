"""Durable publish of one event, over raw single-row commits a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bare import single_row_commits
from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch, during, family
from benchmarks.ours import in_file, opened
from benchmarks.shop import order
from tidings import App


def blocking(url: Callable[[Path], str] = in_file) -> Side:
    """One caller without an event loop."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        placed = order("o-0000001")

        def run() -> Sample:
            watch = Stopwatch()
            done = 0
            for number in during(effort.seconds):
                face.publish(placed)
                done = number + 1
            return watch.sample(done)

        with App(url(folder), name="shop").blocking() as face:
            yield run

    return side


def callers(count: int, url: Callable[[Path], str] = in_file) -> Side:
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

        app = App(url(folder), name="shop")
        with opened(app) as runner:
            yield lambda: runner.run(call_all())

    return side


ROUNDS = 25
"""Short ones: the same commit takes half as long again a moment later."""
NOTE = "floor: INSERT of one row, committed"

FIGURES = family(
    "publish",
    ("blocking", "publish, one blocking caller", blocking(), single_row_commits, 0.8, NOTE),
    ("async_1", "publish, one async caller", callers(1), single_row_commits, 0.6, NOTE),
    ("async_8", "publish, 8 async callers", callers(8), single_row_commits, 2.4, NOTE),
    ("async_100", "publish, 100 async callers", callers(100), single_row_commits, 6.0, NOTE),
    rounds=ROUNDS,
)
