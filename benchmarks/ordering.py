"""`python -m benchmarks.ordering`: which order of a PostgreSQL log loses nothing, and what does it cost?

Sixteen processes write before they append, append somewhere in the middle of their transaction, and roll some of them
back; meanwhile a transaction stays open in another database of the server. A subscriber reads what each recipe lets it.
A second table is about many callers in one process, whose appends share a commit, a third one about many connections.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks import coalescing, contention
from benchmarks.quiet import QUIET, Others
from benchmarks.recipes import CALL, RECIPES, STREAMS, Recipe
from tests.servers.postgres import PostgresServer, PostgresServers

WRITERS = 16
ROLLBACKS = 0.05
POLL = 0.002
"""Seconds that a reader or sequencer sleeps when there was nothing."""
DRAIN = 1.5
"""Seconds that the subscriber goes on after the last writer."""
BODY = b"x" * 345


@dataclass(frozen=True)
class Commit:
    """One transaction that was committed: the ids of its events, and when its append began and its commit returned."""

    ids: range
    began: float
    done: float


@dataclass(frozen=True)
class Seen:
    """One event, as the subscriber met it."""

    place: int
    id: int
    stream: int
    version: int
    when: float


@dataclass(frozen=True)
class Found:
    """What one round of one recipe came to; times in milliseconds."""

    committed: int
    skipped: int
    inverted: int
    holes: int
    rate: float
    commit: float
    commit_slow: float
    readable: float
    readable_slow: float


# ---- the processes ---------------------------------------------------------------------------------------------------


def write(url: str, recipe: Recipe, number: int, work: float, begin: float, end: float) -> list[Commit]:
    """One writer: a row of its own, some work, the append, some work, and the commit."""
    chance, next_id = random.Random(number), number * 10_000_000
    commits = []
    with psycopg.connect(url, autocommit=True) as connection:
        time.sleep(max(0.0, begin - time.monotonic()))
        while time.monotonic() < end:
            stream, count = chance.randrange(STREAMS), chance.randint(1, 3)
            new = range(next_id, next_id + count)
            next_id = new.stop
            values = {"stream": stream, "ids": list(new), "bodies": [BODY] * count}
            before, after = chance.uniform(0, work / 2), chance.uniform(0, work / 2)
            keep = chance.random() >= ROLLBACKS
            connection.execute("BEGIN")
            connection.execute("INSERT INTO business (who) VALUES (%s)", [number])
            time.sleep(before)
            took = 0.0
            if not recipe.late:
                began = time.monotonic()
                connection.execute(CALL, values)
                took = time.monotonic() - began
            time.sleep(after)
            began = time.monotonic() - took  # the work between append and commit is not the recipe's
            if not keep:
                connection.execute("ROLLBACK")
                continue
            if recipe.late:
                with connection.pipeline():  # one round trip: the lock is not held while the network travels
                    for statement in recipe.late:
                        connection.execute(statement, values if statement == CALL else None)
            else:
                connection.execute("COMMIT")
            commits.append(Commit(new, began, time.monotonic()))
    return commits


def subscribe(url: str, recipe: Recipe, end: float) -> list[Seen]:
    """Read as a subscriber does, until the writers have ended and nothing more comes."""
    seen: list[Seen] = []
    after: dict[str, object] = {"xid": "0", "place": 0}
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            rows = connection.execute(recipe.read, after).fetchall()
            now = time.monotonic()
            if rows:
                seen.extend(Seen(*row, now) for _, *row in rows)
                after = {"xid": str(rows[-1][0]), "place": rows[-1][1]}
            elif now > end + DRAIN:
                return seen
            else:
                time.sleep(POLL)


def sequence(url: str, end: float) -> None:
    """Be the sequencer."""
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < end + DRAIN / 2:
            if connection.execute("SELECT number_rows()").fetchone() == (0,):
                time.sleep(POLL)


def disturb(url: str, begin: float, end: float) -> None:
    """Keep a transaction that has written open in another database, for the second quarter of the run."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE elsewhere (n int)")
        connection.commit()
        time.sleep(max(0.0, begin + (end - begin) / 4 - time.monotonic()))
        connection.execute("INSERT INTO elsewhere VALUES (1)")
        time.sleep(max(0.0, begin + (end - begin) / 2 - time.monotonic()))


# ---- one round -------------------------------------------------------------------------------------------------------


def play(server: PostgresServer, recipe: Recipe, work: float, seconds: float) -> Found:
    """Let them all work on a new database, and compare what was committed with what was seen."""
    fork = multiprocessing.get_context("fork")
    with server.database() as url, server.database() as other:
        with psycopg.connect(url) as connection:
            connection.execute(recipe.tables)
        with ProcessPoolExecutor(WRITERS + 3, mp_context=fork) as pool:
            begin = time.monotonic() + 1.0
            end = begin + seconds
            subscriber = pool.submit(subscribe, url, recipe, end)
            helpers: list[Future[None]] = [pool.submit(disturb, other, begin, end)]
            if recipe.sequenced:
                helpers.append(pool.submit(sequence, url, end))
            writers = [pool.submit(write, url, recipe, each + 1, work, begin, end) for each in range(WRITERS)]
            commits = [commit for writer in writers for commit in writer.result()]
            for helper in helpers:
                helper.result()
            return judge(recipe, commits, subscriber.result(), seconds)


def judge(recipe: Recipe, commits: Sequence[Commit], seen: Sequence[Seen], seconds: float) -> Found:
    """Count what went wrong, and how long things took."""
    done = {id: commit.done for commit in commits for id in commit.ids}
    last: dict[int, int] = {}
    inverted = 0
    for event in seen:
        inverted += event.version <= last.get(event.stream, 0)
        last[event.stream] = max(event.version, last.get(event.stream, 0))
    commit_times = [commit.done - commit.began for commit in commits]
    waits = [max(0.0, event.when - done[event.id]) for event in seen if event.id in done]
    return Found(
        committed=len(done),
        skipped=len(done.keys() - {event.id for event in seen}),
        inverted=inverted,
        holes=max(event.place for event in seen) - len(done),
        rate=len(done) / seconds,
        commit=share(commit_times, 0.5),
        commit_slow=share(commit_times, 0.99),
        readable=share(waits, 0.5),
        readable_slow=share(waits, 0.99),
    )


def share(seconds: Sequence[float], part: float) -> float:
    """Milliseconds that this part of them stayed under."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


# ---- the table -------------------------------------------------------------------------------------------------------

HEADINGS = "recipe committed skipped inverted holes events/s commit_p50 commit_p99 readable_p50 readable_p99".split()


def cells(recipe: Recipe, rounds: Sequence[Found]) -> Iterator[str]:
    """One line: sums of what was counted, medians of what was measured."""
    yield recipe.name
    for name in ("committed", "skipped", "inverted", "holes"):
        yield f"{sum(getattr(found, name) for found in rounds):,}"
    yield f"{statistics.median(found.rate for found in rounds):,.0f}"
    for name in ("commit", "commit_slow", "readable", "readable_slow"):
        yield f"{statistics.median(getattr(found, name) for found in rounds):,.1f}"


def show(lines: Sequence[Sequence[str]]) -> None:
    """Print columns; the first one is words."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print(first.strip().ljust(widths[0]), *others, sep="  ")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ordering", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="recipes with this name; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="of each recipe, in turns")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a round")
    parser.add_argument(
        "--work", type=float, default=0.010, help="seconds of a transaction beside its statements, at most"
    )
    parser.add_argument("--major", type=int, help="of PostgreSQL; the newest one there is, if not said")
    parser.add_argument("--folder", type=Path, help="for the server's data; on a disk, or a flush costs nothing")
    asked = parser.parse_args()
    recipes = [recipe for recipe in RECIPES if not asked.only or recipe.name in asked.only]
    servers = PostgresServers(asked.folder)
    others = Others()
    try:
        server = servers.shared(asked.major, durable=True)
        print(
            f"PostgreSQL {server.major}, {WRITERS} writers whose transactions take up to {1000 * asked.work:g} ms, "
            f"{asked.rounds} rounds of {asked.seconds:g} s; times in ms"
        )
        rounds: dict[str, list[Found]] = {recipe.name: [] for recipe in recipes}
        for _ in range(asked.rounds):
            for recipe in recipes:
                rounds[recipe.name].append(play(server, recipe, asked.work, asked.seconds))
        show([HEADINGS, *(list(cells(recipe, rounds[recipe.name])) for recipe in recipes)])
        if not asked.only:
            print()
            show(list(coalescing.measure(server, asked.rounds, asked.seconds / 3)))
            print()
            show(list(contention.measure(server, asked.rounds, asked.seconds / 3)))
    finally:
        servers.close()
    if others.share() > QUIET:
        print(f"Other processes used {others.share():.0%} of this machine meanwhile: run it again when it is quiet.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
