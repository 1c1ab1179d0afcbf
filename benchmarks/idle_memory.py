"""What a worker costs when nothing happens, and what a long backlog costs in memory.

`python -m benchmarks.idle_memory idle STORE SECONDS` and `... drain STORE` are the workers that are looked at.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Effort, Figure, Round, Sample, Stopwatch, idleness, limit, thrift
from benchmarks.ours import filled
from benchmarks.shop import EFFECT, OrderPlaced
from benchmarks.streams import revenue
from tidings import App, Transaction

SETTLE = 2.0
"""Seconds until a worker that found nothing to do counts as idle."""


@contextmanager
def idle(folder: Path, effort: Effort) -> Iterator[Round]:
    """A worker with three handlers and a projection on a store where nothing happens any more."""
    store = filled(folder, 1_000)
    seconds = 4 * effort.seconds
    command = [sys.executable, "-m", __spec__.name, "idle", str(store), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:

        def run() -> Sample:
            print(file=worker.stdin, flush=True)
            if worker.stdout is None or not (line := worker.stdout.readline()):
                raise RuntimeError("the worker ended")
            wall, cpu = json.loads(line)
            return Sample(1, wall, cpu)

        yield run


async def be_idle(store: str, seconds: float) -> None:
    """Be that worker: for each line that it reads, report wall and CPU seconds of a round."""
    app = App(f"sqlite:{store}", revenue, name="shop")

    @app.on(OrderPlaced)
    async def first(placed: OrderPlaced) -> None: ...

    @app.on(OrderPlaced)
    async def second(placed: OrderPlaced) -> None: ...

    @app.on(OrderPlaced)
    async def third(placed: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(EFFECT, placed.customer_id, placed.total)

    async def report() -> None:
        await asyncio.sleep(SETTLE)
        while await asyncio.to_thread(sys.stdin.readline):
            watch = Stopwatch()
            await asyncio.sleep(seconds)
            sample = watch.sample(1)
            print(json.dumps([sample.seconds, sample.cpu]), flush=True)
        app.stop()

    async with app, asyncio.TaskGroup() as group:
        group.create_task(app.run())
        group.create_task(report())


@contextmanager
def backlog(folder: Path, effort: Effort) -> Iterator[Round]:
    """Peak memory of a worker that finds a million waiting, beyond that of one that finds ten thousand."""
    short, long = folder / "short", folder / "long"
    short.mkdir()
    long.mkdir()
    little, much = filled(short, effort.events // 10), filled(long, effort.events * 10)

    def peak(store: Path) -> float:
        command = [sys.executable, "-m", __spec__.name, "drain", str(store)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def run() -> Sample:
        base = peak(little)
        watch = Stopwatch()
        growth = peak(much) - base
        return Sample(effort.events * 10, time.perf_counter() - watch.started, mebibytes=growth)

    yield run


async def drain(store: str) -> None:
    """Be that worker: handle everything."""
    app = App(f"sqlite:{store}", name="shop")

    @app.on(OrderPlaced)
    async def look(placed: OrderPlaced) -> None: ...

    async with app:
        await app.run(until_idle=True)


def peak_of_this_process() -> float:
    """The most memory it ever had resident, MiB. `ru_maxrss` will not do: it is inherited from the parent."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


FIGURES = (
    Figure(
        name="idle.worker",
        title="an idle worker's share of a core",
        ours=idle,
        floor=limit(Sample(seconds=1.0, cpu=0.01)),
        target=1.0,
        score=idleness,
        shown=lambda score: f"{100 / score:.2f} %",
        unit="seconds a CPU second",
        note="limit: 1 %; three handlers and a projection",
    ),
    Figure(
        name="memory.backlog",
        title="memory for 1,000,000 waiting beyond that for 10,000",
        ours=backlog,
        floor=limit(Sample(mebibytes=30.0)),
        target=1.0,
        rounds=1,
        score=thrift,
        shown=lambda score: f"{1 / score:.1f} MiB",
        unit="1/MiB",
        note="limit: 30 MiB; the peak over a million deliveries",
    ),
)

if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "idle":
        asyncio.run(be_idle(arguments[0], float(arguments[1])))
    else:
        asyncio.run(drain(arguments[0]))
        print(peak_of_this_process())
