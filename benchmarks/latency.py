"""From the call of publish to the handler, 500 a second, durable at both ends, beside a bare log.

The publisher keeps its pace whatever becomes of the messages before: a slow one delays nothing but itself.
`python -m benchmarks.latency STORE COUNT [APP BROKER]` is the worker of the figures across processes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.bare import RATE, log_latency, messages
from benchmarks.measure import Effort, Round, Sample, Stopwatch, family, latency_of, limit
from benchmarks.ours import opened
from benchmarks.shop import OrderPlaced, order
from tidings import App

KEYS = 100


async def publish_steadily(app: App, total: int) -> None:
    """Publish so many orders at RATE, each in a task of its own, stamped right before the call."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(total):
            await asyncio.sleep(max(0.0, start + number / RATE - loop.time()))
            group.create_task(app.publish(order(f"o-{number % KEYS:07}", placed_at=time.monotonic_ns())))


HELLO = order("o-0000000", placed_at=0)
"""Published before a worker starts: when it is handled, the worker runs."""


def watching(app: App, total: int, ready: Callable[[], object]) -> list[float]:
    """Give the app a handler that notes how long each order took, and stops the app after the last."""
    latencies: list[float] = []

    @app.on(OrderPlaced)
    async def note(placed: OrderPlaced) -> None:
        if placed.placed_at == 0:
            ready()
            return
        latencies.append((time.monotonic_ns() - placed.placed_at) / 1e9)
        if len(latencies) == total:
            app.stop()

    return latencies


@contextmanager
def one_process(folder: Path, effort: Effort) -> Iterator[Round]:
    """Publisher and handler share an event loop."""
    numbers, total = count(), messages(effort)

    def run() -> Sample:
        app = App(f"sqlite:{folder / f'shop-{next(numbers)}.db'}", name="shop")
        ready = asyncio.Event()
        latencies = watching(app, total, ready.set)

        async def both() -> Sample:
            await app.publish(HELLO)
            async with asyncio.TaskGroup() as group:
                group.create_task(app.run())
                await ready.wait()
                watch = Stopwatch()
                group.create_task(publish_steadily(app, total))
            return watch.sample(total, latencies)

        with opened(app) as runner:
            return runner.run(both())

    yield run


@contextmanager
def two_processes(folder: Path, effort: Effort) -> Iterator[Round]:
    """The handler is a worker in another process."""
    numbers, total = count(), messages(effort)

    def run() -> Sample:
        path = folder / f"shop-{next(numbers)}.db"
        app = App(f"sqlite:{path}", name="shop")
        with opened(app) as runner:
            runner.run(app.publish(HELLO))
            with worker_on(path, total) as worker:
                if worker.stdout is None or worker.stdout.readline() != "ready\n":
                    raise RuntimeError("the worker did not start")
                watch = Stopwatch()
                runner.run(publish_steadily(app, total))
                latencies = json.loads(worker.stdout.readline())
                return watch.sample(total, latencies)

    yield run


def worker_on(store: Path | str, total: int, *app: str) -> subprocess.Popen[str]:
    """Start that worker. It says when it is ready, and what it noted. Args: app: its name and its broker, if any."""
    command = [sys.executable, "-m", "benchmarks.latency", str(store), str(total), *app]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def work(store: str, total: str, name: str = "shop", broker: str | None = None) -> None:
    """Be the other process."""
    app = App(f"sqlite:{store}", name=name, broker=broker)
    latencies = watching(app, int(total), lambda: print("ready", flush=True))

    async def main() -> None:
        async with app:
            await app.run()
        print(json.dumps(latencies), flush=True)

    asyncio.run(main())


FIGURES = (
    *family(
        "latency",
        (
            "p50",
            "publish to handler, half are faster than",
            one_process,
            log_latency,
            0.5,
            "floor: a bare log with two threads; at most twice its latency",
        ),
        **latency_of(0.5),
    ),
    *family(
        "latency",
        (
            "p99",
            "publish to handler, 99 % are faster than",
            one_process,
            limit(Sample(latencies=[0.020])),
            1.0,
            "limit: 20 ms",
        ),
        **latency_of(0.99),
    ),
    *family(
        "latency",
        (
            "processes_p50",
            "publish to handler in another process, half are faster than",
            two_processes,
            limit(Sample(latencies=[0.010])),
            1.0,
            "limit: 10 ms",
        ),
        **latency_of(0.5),
    ),
)

if __name__ == "__main__":
    work(*sys.argv[1:])
