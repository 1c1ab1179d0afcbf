"""Floors: the same work as a plain loop over sqlite3, as somebody would write it who needs nothing else.

Same durability (WAL, synchronous=FULL: a commit is on the disk when it returns), same payload, same SQL effect, same
number of events to a commit where the figure names one. Orders come encoded, so that the floors are as low as can be.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch, during
from benchmarks.shop import EFFECT, READ_MODEL, decode, encode, order

BATCH = 100
"""Events to a commit of the bare projection loop."""
RATE = 500
"""Messages a second of the latency figures."""

INSERT = "INSERT INTO log (type, key, data) VALUES (?, ?, ?)"
READ = "SELECT position, data FROM log WHERE position > ? ORDER BY position LIMIT ?"
ADVANCE = "UPDATE checkpoint SET position = ?"


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode: BEGIN is written where it is meant."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS log (position INTEGER PRIMARY KEY, type TEXT, key TEXT, data BLOB)")
    connection.execute("CREATE TABLE IF NOT EXISTS checkpoint (position INTEGER NOT NULL)")
    return connection


@contextmanager
def single_row_commits(folder: Path, effort: Effort) -> Iterator[Round]:
    """One caller, one row, one commit."""
    data = encode(order("o-0000001"))

    def run() -> Sample:
        watch = Stopwatch()
        done = 0
        for number in during(effort.seconds):
            connection.execute(INSERT, ("OrderPlaced", "o-0000001", data))
            done = number + 1
        return watch.sample(done)

    with closing(connect(folder / "bare.db")) as connection:
        yield run


def projection_loop(share: float) -> Side:
    """Read 100, decode, one upsert each, move the checkpoint, commit; until the log ends.

    Args:
        share: Of `effort.events`, how many the log has.
    """

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        with closing(connect(folder / "bare.db")) as connection:
            connection.execute("BEGIN")
            for number in range(round(share * effort.events)):
                key = f"o-{number:07}"
                connection.execute(INSERT, ("OrderPlaced", key, encode(order(key, customer=number))))
            connection.execute("COMMIT")

            def run() -> Sample:
                connection.execute("DROP TABLE IF EXISTS revenue")
                connection.execute(READ_MODEL)
                connection.execute("DELETE FROM checkpoint")
                connection.execute("INSERT INTO checkpoint VALUES (0)")
                watch = Stopwatch()
                return watch.sample(_project(connection))

            yield run

    return side


def _project(connection: sqlite3.Connection) -> int:
    position = done = 0
    while rows := connection.execute(READ, (position, BATCH)).fetchall():
        connection.execute("BEGIN IMMEDIATE")
        for _, data in rows:
            placed = decode(data)
            connection.execute(EFFECT, (placed.customer_id, placed.total))
        position = rows[-1][0]
        connection.execute(ADVANCE, (position,))
        connection.execute("COMMIT")
        done += len(rows)
    return done


@contextmanager
def log_latency(folder: Path, effort: Effort) -> Iterator[Round]:
    """One thread commits rows at a steady rate, another one is woken, reads, handles and commits its checkpoint.

    A lock keeps the two from meeting SQLite's busy handler, which sleeps for milliseconds.
    """
    count = messages(effort)

    def run() -> Sample:
        writing, bell, latencies = threading.Lock(), threading.Event(), []
        start = reader.execute("SELECT ifnull(max(position), 0) FROM log").fetchone()[0]

        def consume() -> None:
            position = start
            while len(latencies) < count:
                bell.wait()
                bell.clear()
                while rows := reader.execute(READ, (position, BATCH)).fetchall():
                    for _, data in rows:
                        latencies.append((time.monotonic_ns() - decode(data).placed_at) / 1e9)
                    position = rows[-1][0]
                    with writing:
                        reader.execute(ADVANCE, (position,))

        consumer = threading.Thread(target=consume)
        consumer.start()
        watch = Stopwatch()
        for number in range(count):
            time.sleep(max(0.0, watch.started + number / RATE - time.perf_counter()))
            data = encode(order("o-0000001", placed_at=time.monotonic_ns()))
            with writing:
                writer.execute(INSERT, ("OrderPlaced", "o-0000001", data))
            bell.set()
        consumer.join()
        return watch.sample(count, latencies)

    with closing(connect(folder / "bare.db")) as writer, closing(connect(folder / "bare.db")) as reader:
        reader.execute("INSERT INTO checkpoint VALUES (0)")
        yield run


class Log:
    """A log of one's own at one end of a broker: what goes out is committed before, what came in before it is handled.

    Without a folder nothing is kept.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._connection = connect(folder / f"{name}.db") if folder is not None else None
        if self._connection is not None:
            self._connection.execute("INSERT INTO checkpoint VALUES (0)")

    def keep(self, data: bytes) -> None:
        """Commit a message."""
        if self._connection is not None:
            self._connection.execute(INSERT, ("OrderPlaced", "o-0000001", data))

    def handled(self, position: int) -> None:
        """Commit that all up to this one were handled."""
        if self._connection is not None:
            self._connection.execute(ADVANCE, (position,))

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()


def messages(effort: Effort) -> int:
    """Messages of a latency round: 1,500, which is three seconds; fewer in a quick run."""
    return min(1_500, effort.events // 50)
