"""`python -m benchmarks.postgres [--only NAME]... [--quick]`: tidings on PostgreSQL beside bare loops over psycopg.

It starts a server of its own, with flushes on, and removes it. Both sides have the same server, payload and durability.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from benchmarks import report
from benchmarks.__main__ import RESULTS, say
from benchmarks.handlers import drain, exactly_once
from benchmarks.measure import QUICK, Effort, Figure, Others, Round, Sample, Side, Stopwatch, during, measure
from benchmarks.ours import opened
from benchmarks.shop import EFFECT, READ_MODEL, OrderPlaced, decode, encode, order
from benchmarks.streams import revenue
from tests.servers.postgres import PostgresServer, PostgresServers
from tidings import App, Transaction

BATCH = 100
SHARE = 0.1
"""Of `Effort.events`: what a round of handlers or projections has to handle."""
LOG = "CREATE TABLE log (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, type text, key text, data bytea)"
INSERT = "INSERT INTO log (type, key, data) VALUES ('OrderPlaced', %s, %s)"
SPREAD = "INSERT INTO log (type, key, data) SELECT 'OrderPlaced', * FROM unnest(%s::text[], %s::bytea[])"
UPSERT = EFFECT.replace("?", "%s")
CREATE = READ_MODEL.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS").replace("INTEGER", "bigint")

SERVER: list[PostgresServer] = []


def new() -> str:
    """The URL of a new database."""
    [server] = SERVER
    return server.url(server.create_database())


# ---- floors ----------------------------------------------------------------------------------------------------------


@contextmanager
def single_row_commits(folder: Path, effort: Effort) -> Iterator[Round]:
    """One caller, one row, one commit."""
    with psycopg.connect(new(), autocommit=True, prepare_threshold=0) as connection:
        connection.execute(LOG)
        data = encode(order("o-0000001"))

        def run() -> Sample:
            watch = Stopwatch()
            done = 0
            for number in during(effort.seconds):
                connection.execute(INSERT, ("o-0000001", data))
                done = number + 1
            return watch.sample(done)

        yield run


@contextmanager
def group_commit(folder: Path, effort: Effort) -> Iterator[Round]:
    """A hundred tasks of one event loop; whatever waits goes out as one INSERT over arrays."""

    async def call_all(connection: psycopg.AsyncConnection) -> Sample:
        waiting: list[tuple[str, bytes, asyncio.Future[None]]] = []
        data = encode(order("o-0000001"))
        bell = asyncio.Event()

        async def commit() -> None:
            while True:
                await bell.wait()
                bell.clear()
                while waiting:
                    batch = waiting.copy()
                    waiting.clear()
                    await connection.execute(SPREAD, ([key for key, _, _ in batch], [body for _, body, _ in batch]))
                    for _, _, future in batch:
                        future.set_result(None)

        async def call(key: str) -> int:
            done = 0
            for number in during(effort.seconds):
                future = asyncio.get_running_loop().create_future()
                waiting.append((key, data, future))
                bell.set()
                await future
                done = number + 1
            return done

        committing = asyncio.create_task(commit())
        watch = Stopwatch()
        done = await asyncio.gather(*(call(f"o-{number:07}") for number in range(100)))
        sample = watch.sample(sum(done))
        committing.cancel()
        return sample

    with asyncio.Runner() as runner:
        connection = runner.run(psycopg.AsyncConnection.connect(new(), autocommit=True, prepare_threshold=0))
        runner.run(connection.execute(LOG))
        yield lambda: runner.run(call_all(connection))
        runner.run(connection.close())


@contextmanager
def projection_loop(folder: Path, effort: Effort) -> Iterator[Round]:
    """Read 100, decode, one upsert each, move the checkpoint, commit; until the log ends."""
    events = round(SHARE * effort.events)
    with psycopg.connect(new(), autocommit=True, prepare_threshold=0) as connection:
        connection.execute(LOG)
        keys = [f"o-{number:07}" for number in range(events)]
        bodies = [encode(order(key, customer=number)) for number, key in enumerate(keys)]
        connection.execute(SPREAD, (keys, bodies))
        connection.execute("CREATE TABLE checkpoint AS SELECT 0::bigint AS position")

        def run() -> Sample:
            connection.execute("DROP TABLE IF EXISTS revenue")
            connection.execute(CREATE)
            position = done = 0
            read = "SELECT position, data FROM log WHERE position > %s ORDER BY position LIMIT %s"
            watch = Stopwatch()
            while rows := connection.execute(read, (position, BATCH), binary=True).fetchall():
                connection.execute("BEGIN")
                for _, data in rows:
                    placed = decode(data)
                    connection.execute(UPSERT, (placed.customer_id, placed.total))
                position = rows[-1][0]
                connection.execute("UPDATE checkpoint SET position = %s", (position,))
                connection.execute("COMMIT")
                done += len(rows)
            return watch.sample(done)

        yield run


# ---- ours ------------------------------------------------------------------------------------------------------------


def callers(number: int) -> Side:
    """So many tasks of one event loop, each waiting for its event to be durable before it publishes the next."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        async def call(key: str) -> int:
            placed = order(key)
            done = 0
            for turn in during(effort.seconds):
                await app.publish(placed)
                done = turn + 1
            return done

        async def call_all() -> Sample:
            watch = Stopwatch()
            done = await asyncio.gather(*(call(f"o-{each:07}") for each in range(number)))
            return watch.sample(sum(done))

        app = App(new(), name="shop")
        with opened(app) as runner:
            yield lambda: runner.run(call_all())

    return side


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


RAW = "floor: INSERT of one row, committed"
FIGURES = (
    Figure(
        name="postgres.publish_1",
        title="publish, one async caller",
        ours=callers(1),
        floor=single_row_commits,
        target=0.75,
        note=RAW,
    ),
    Figure(
        name="postgres.publish_8",
        title="publish, 8 async callers",
        ours=callers(8),
        floor=single_row_commits,
        target=2.0,
        note=RAW,
    ),
    Figure(
        name="postgres.publish_100",
        title="publish, 100 async callers",
        ours=callers(100),
        floor=group_commit,
        target=0.55,
        note="floor: group commit over unnest, 100 callers",
    ),
    Figure(
        name="postgres.effect",
        title="handler with an SQL effect, exactly once",
        ours=handling(projection=False),
        floor=projection_loop,
        target=0.3,
        note="floor: bare loop, 100 a commit",
    ),
    Figure(
        name="postgres.projection",
        title="projection catching up",
        ours=handling(projection=True),
        floor=projection_loop,
        target=0.6,
        note="floor: bare loop, 100 a commit",
    ),
)


def main() -> int:
    """Measure what was asked for; 0 unless a figure could not be measured at all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="figures whose name contains this")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it run, not how fast")
    asked = parser.parse_args()
    figures = [figure for figure in FIGURES if not asked.only or any(name in figure.name for name in asked.only)]
    RESULTS.mkdir(exist_ok=True)
    servers = PostgresServers()
    try:
        SERVER.append(servers.shared(durable=True))
        with tempfile.TemporaryDirectory(prefix="run-", dir=RESULTS) as folder:
            others = Others()
            results = list(measure(figures, Path(folder), QUICK if asked.quick else Effort(), say))
    finally:
        servers.close()
    say("")
    report.show(results, others.share())
    report.write(results, RESULTS / "postgres.jsonl", others.share())
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
