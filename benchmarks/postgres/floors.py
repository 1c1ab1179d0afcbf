"""What tidings is compared with on PostgreSQL: bare loops over psycopg that do the same durable work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.measure import Effort, Round, Sample, Stopwatch, during
from benchmarks.postgres.server import new
from benchmarks.shop import EFFECT, READ_MODEL, decode, encode, order

BATCH = 100
SHARE = 0.1
"""Of `Effort.events`: what a round of handlers or projections has to handle."""
LOG = "CREATE TABLE log (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, type text, key text, data bytea)"
INSERT = "INSERT INTO log (type, key, data) VALUES ('OrderPlaced', %s, %s)"
SPREAD = "INSERT INTO log (type, key, data) SELECT 'OrderPlaced', * FROM unnest(%s::text[], %s::bytea[])"
UPSERT = EFFECT.replace("?", "%s")
CREATE = READ_MODEL.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS").replace("INTEGER", "bigint")


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
