"""Many callers in one process, one commit for all that wait: what does each way of ordering leave of that?

Each caller publishes one event of 345 bytes, waits for its answer, and publishes the next one. Whatever has come in
meanwhile goes to the server as one call of one function over arrays, and so into one transaction.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import queue
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.recipes import COALESCED_COUNTER, COALESCED_SEQUENCER
from tests.servers.postgres import PostgresServer

CALLERS = (1, 8, 100)
BODY = b"x" * 345
LARGEST = 1000

Waiting = tuple[int, asyncio.Future[int]]
Publish = Callable[[int], Awaitable[int]]


@dataclass(frozen=True)
class Way:
    """One way to append what waits.

    Attributes:
        name: In words.
        tables: Makes what it needs.
        call: Statements, each a transaction, run one after the other with the ids; the last one returns positions.
        threaded: On a thread with a blocking connection, not on the event loop.
        sequenced: Another process numbers the rows meanwhile, and nobody waits for that.
    """

    name: str
    tables: str
    call: tuple[str, ...]
    threaded: bool = False
    sequenced: bool = False


COUNT = "SELECT append(%(ids)s, %(bodies)s)"
NUMBER = "SELECT given FROM number_rows() WHERE event = ANY (%(ids)s) ORDER BY given"
WAYS = (
    Way("counter, on the loop", COALESCED_COUNTER, (COUNT,)),
    Way("counter, on a thread", COALESCED_COUNTER, (COUNT,), threaded=True),
    Way("sequencer, position later", COALESCED_SEQUENCER, (COUNT,), threaded=True, sequenced=True),
    Way("sequencer, with position", COALESCED_SEQUENCER, (COUNT, NUMBER), threaded=True),
)


def bound(ids: Sequence[int]) -> dict[str, object]:
    """The arguments of a statement."""
    return {"ids": list(ids), "bodies": [BODY] * len(ids)}


def answer(batch: Sequence[Waiting], positions: Sequence[int]) -> None:
    """Tell each caller."""
    for (_, future), position in zip(batch, positions, strict=True):
        future.set_result(position)


def positions(way: Way, rows: Sequence[tuple[int]], count: int) -> Sequence[int]:
    """A function that counts returns the first of a run of positions, a query each of them."""
    return [row[0] for row in rows] if len(way.call) > 1 else range(rows[0][0], rows[0][0] + count)


# ---- on the event loop -----------------------------------------------------------------------------------------------


async def on_the_loop(url: str, way: Way, work: Callable[[Publish], Awaitable[float]]) -> float:
    """Let callers work while a task of the same loop appends."""
    waiting: list[Waiting] = []
    wake = asyncio.Event()

    async def append() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            while True:
                await wake.wait()
                wake.clear()
                while batch := waiting[:LARGEST]:
                    del waiting[: len(batch)]
                    values = bound([id for id, _ in batch])
                    for statement in way.call:
                        cursor = await connection.execute(statement, values, prepare=True)
                    answer(batch, positions(way, await cursor.fetchall(), len(batch)))

    def publish(id: int) -> asyncio.Future[int]:
        future = asyncio.get_running_loop().create_future()
        waiting.append((id, future))
        wake.set()
        return future

    appending = asyncio.ensure_future(append())
    try:
        return await work(publish)
    finally:
        appending.cancel()
        await asyncio.wait([appending])


# ---- on a thread -----------------------------------------------------------------------------------------------------


async def on_a_thread(url: str, way: Way, work: Callable[[Publish], Awaitable[float]]) -> float:
    """Let callers work while a thread appends: one queue in, one wake-up of the loop out."""
    waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
    loop = asyncio.get_running_loop()

    def append() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while True:
                batch = [waiting.get(), *(waiting.get_nowait() for _ in range(min(waiting.qsize(), LARGEST)))]
                if None in batch:
                    return
                values = bound([id for id, _ in batch])
                for statement in way.call:
                    cursor = connection.execute(statement, values, prepare=True)
                loop.call_soon_threadsafe(answer, batch, positions(way, cursor.fetchall(), len(batch)))

    def publish(id: int) -> asyncio.Future[int]:
        future = loop.create_future()
        waiting.put((id, future))
        return future

    thread = threading.Thread(target=append)
    thread.start()
    try:
        return await work(publish)
    finally:
        waiting.put(None)
        await asyncio.to_thread(thread.join)


# ---- measuring -------------------------------------------------------------------------------------------------------


async def callers(count: int, seconds: float, publish: Publish) -> float:
    """Events a second."""
    ids = itertools.count(1)
    begin = time.monotonic()

    async def call() -> None:
        while time.monotonic() < begin + seconds:
            await publish(next(ids))

    await asyncio.gather(*(call() for _ in range(count)))
    return (next(ids) - 1) / (time.monotonic() - begin)


def number_until_killed(url: str) -> None:
    """Be the sequencer."""
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            if not connection.execute("SELECT FROM number_rows()").rowcount:
                time.sleep(0.002)


@contextmanager
def sequencer(url: str) -> Iterator[None]:
    """A process that numbers rows, for the length of a block."""
    process = multiprocessing.get_context("fork").Process(target=number_until_killed, args=(url,))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
        process.close()


def play(server: PostgresServer, way: Way, count: int, seconds: float) -> float:
    """One round on a new database: events a second."""
    with server.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute(way.tables)
        run = on_a_thread if way.threaded else on_the_loop

        def measured() -> float:
            return asyncio.run(run(url, way, lambda publish: callers(count, seconds, publish)))

        if not way.sequenced:
            return measured()
        with sequencer(url):
            return measured()


def bare(server: PostgresServer, count: int, seconds: float) -> float:
    """A blocking loop that inserts this many rows a commit with unnest, in no order: events a second."""
    with server.database() as url, closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("CREATE TABLE log (id bigint PRIMARY KEY, data bytea NOT NULL)")
        insert = "INSERT INTO log SELECT * FROM unnest(%(ids)s::bigint[], %(bodies)s::bytea[])"
        begin, ids = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            connection.execute(insert, bound(range(ids, ids + count)), prepare=True)
            ids += count
        return ids / (time.monotonic() - begin)


def measure(server: PostgresServer, rounds: int, seconds: float) -> Iterator[Sequence[str]]:
    """The lines of the table, its heading first; medians of rounds in turns."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in CALLERS:
            found.setdefault(("bare insert of so many", count), []).append(bare(server, count, seconds))
            for way in WAYS:
                found.setdefault((way.name, count), []).append(play(server, way, count, seconds))
    yield ["events/s of one process", *(f"{count} callers" for count in CALLERS)]
    for name in dict.fromkeys(name for name, _ in found):
        yield [name, *(f"{statistics.median(found[name, count]):,.0f}" for count in CALLERS)]
