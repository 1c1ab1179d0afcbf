"""Several workers that drain one queue, each a process of its own: tidings, and PgQueuer as it comes, over asyncpg."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Effort, Round, Sample, Side
from benchmarks.postgres.server import new
from benchmarks.shop import OrderPlaced, decode, encode, order
from tidings import App
from tidings.core.subscription import Subscription

CHUNK = 1_000
BATCH = 100
"""Jobs that the peer takes at once; its own default, 10, is slower."""
SLOW_AT_ONCE = 4
"""Items that one worker does at once where they take long: few, so that workers are what there is too few of."""
PATIENCE = 30.0
"""Seconds until every worker has something to do, and then until the queue is drained."""

_processes = multiprocessing.get_context("spawn")


class Board:
    """What workers tell who watches them.

    Attributes:
        done: Items, by worker.
        start: Where they wait for each other, so that none empties the queue while others start.
    """

    def __init__(self, workers: int) -> None:
        """Args: workers: how many."""
        self.done = _processes.Array("q", workers, lock=False)
        self.start = _processes.Barrier(workers)

    async def work(self, worker: int, pause: float) -> None:
        """Do one item. Args: pause: seconds that it takes."""
        if pause:
            await asyncio.sleep(pause)
        self.done[worker] += 1


Work = Callable[[str, Board, int, float], None]
"""Works on the queue at a URL until it is ended: as which worker, and seconds that each item takes."""


def tidings(url: str, board: Board, worker: int, pause: float) -> None:
    """A worker of ours."""
    app = App(url, name="shop", lease=1.0)  # they share as soon as they know of each other: after a third of it

    @app.on(OrderPlaced, group="work", concurrency=SLOW_AT_ONCE if pause else Subscription.concurrency)
    async def work(placed: OrderPlaced) -> None:
        await board.work(worker, pause)

    board.start.wait()
    asyncio.run(app.run())


def pgqueuer(url: str, board: Board, worker: int, pause: float) -> None:
    """A worker of the peer."""
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.models import Job
    from pgqueuer.qm import QueueManager
    from pgqueuer.queries import Queries

    async def run() -> None:
        manager = QueueManager(Queries(AsyncpgDriver(await asyncpg.connect(url))))

        @manager.entrypoint("work")
        async def work(job: Job) -> None:
            decode(job.payload or b"")
            await board.work(worker, pause)

        await manager.run(batch_size=BATCH)

    board.start.wait()
    asyncio.run(run())


def enqueued(items: int) -> str:
    """The URL of a queue of the peer that holds so many items."""
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    async def enqueue() -> None:
        connection = await asyncpg.connect(url)
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        for first in range(0, items, CHUNK):
            bodies = [encode(order(f"o-{number:07}")) for number in range(first, min(first + CHUNK, items))]
            await queries.enqueue(["work"] * len(bodies), bodies, [0] * len(bodies))
        await connection.close()

    url = new()
    asyncio.run(enqueue())
    return url


def drained(work: Work, filled: Callable[[int], str], workers: int, items: int, pause: float = 0.0) -> Side:
    """So many workers on one queue; what they do together in a time in which all of them work.

    Args:
        work: What a worker does.
        filled: Makes a queue of so many items.
        workers: How many.
        items: How many there are in a full run; half of them in a quick one.
        pause: Seconds that each item takes.
    """

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        backlog = items if effort.events >= Effort.events else items // 2

        def run() -> Sample:
            board = Board(workers)
            url = filled(backlog)
            crew = [
                _processes.Process(target=work, args=(url, board, worker, pause), daemon=True)
                for worker in range(workers)
            ]
            for each in crew:
                each.start()
            try:
                return _watch(board, backlog)
            finally:
                for each in crew:
                    each.terminate()
                for each in crew:
                    each.join(PATIENCE)

        yield run

    return side


def _watch(board: Board, backlog: int) -> Sample:
    """What is done between the moment in which all have begun and the one in which a tenth of the queue is left."""
    _wait(lambda: all(board.done), "not every worker found something to do")
    began, before = time.perf_counter(), sum(board.done)
    _wait(lambda: sum(board.done) >= 0.9 * backlog, "the queue was not drained")
    return Sample(sum(board.done) - before, time.perf_counter() - began)


def _wait(until: Callable[[], bool], trouble: str) -> None:
    deadline = time.perf_counter() + PATIENCE
    while not until():
        if time.perf_counter() > deadline:
            raise AssertionError(trouble)
        time.sleep(0.001)
