"""`python -m benchmarks.postgres [--only NAME]... [--quick]`: tidings on PostgreSQL beside bare loops and peers.

It starts a server of its own, with flushes on, and removes it. All sides have the same server, payload and durability.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.command import command
from benchmarks.measure import family
from benchmarks.peer import append as appended
from benchmarks.peer import by_repository, by_save
from benchmarks.peer import load as loaded
from benchmarks.postgres import workers
from benchmarks.postgres.floors import group_commit, projection_loop, single_row_commits
from benchmarks.postgres.ours import fill, handling, rebuild
from benchmarks.postgres.peer import opened, project
from benchmarks.postgres.server import SERVER, new
from benchmarks.publish import ROUNDS, blocking, callers
from benchmarks.streams import append, load
from tests.servers.postgres import PostgresServers

RAW = "floor: INSERT of one row, committed"
LOOP = "floor: bare loop, 100 a commit"
SAVE = "peer: Application.save of eventsourcing"
UNNEST = "floor: group commit over unnest, 100 callers"
GET = "peer: Repository.get of eventsourcing; counted in events"
VIEW = "peer: its view recorder, which commits every event; rate over its first thousands"
PGQUEUER = "peer: PgQueuer over asyncpg, 4 workers"
ONE_WORKER = "floor: one worker"
SLOW = 0.005
"""Seconds that a handler takes where the number of workers is what counts."""


def _url(_folder: Path) -> str:
    return new()


saved, saved_ten = appended(by_save, 1, at=opened), appended(by_save, 10, at=opened)
append_8, saved_8 = append(1, callers=8, url=_url), appended(by_save, 1, callers=8, at=opened)
drained = workers.drained(workers.tidings, fill, 4, 100_000)
drained_peer = workers.drained(workers.pgqueuer, workers.enqueued, 4, 20_000)
alone, two, four = (workers.drained(workers.tidings, fill, number, 6_000, SLOW) for number in (1, 2, 4))

FIGURES = (
    *family(
        "postgres",
        ("publish_blocking", "publish, one blocking caller", blocking(_url), single_row_commits, 0.75, RAW),
        ("publish_1", "publish, one async caller", callers(1, _url), single_row_commits, 0.75, RAW),
        ("publish_8", "publish, 8 async callers", callers(8, _url), single_row_commits, 2.0, RAW),
        ("publish_100", "publish, 100 async callers", callers(100, _url), group_commit, 0.55, UNNEST),
        rounds=ROUNDS,
    ),
    *family(
        "postgres",
        ("effect", "handler with an SQL effect, exactly once", handling(projection=False), projection_loop, 0.3, LOOP),
        ("projection", "projection catching up", handling(projection=True), projection_loop, 0.6, LOOP),
        ("append_one", "append one event", append(1, url=_url), saved, 2.5, SAVE),
        ("append_ten", "append ten events at once", append(10, url=_url), saved_ten, 2.5, f"{SAVE}; counted in events"),
        ("append_8_callers", "append one event, 8 callers", append_8, saved_8, 6.0, f"{SAVE} in 8 threads"),
        ("load_1000", "load a stream of 1,000 events", load(_url), loaded(by_repository, at=opened), 5.0, GET),
    ),
    *family(
        "postgres",
        ("rebuild_100k", "rebuild a projection of 100,000 events", rebuild, project, 8.0, VIEW),
        ("queue_4_workers", "drain a queue with 4 workers", drained, drained_peer, 2.0, PGQUEUER),
        ("two_workers", "2 workers, a handler of 5 ms", two, alone, 1.7, ONE_WORKER),
        ("four_workers", "4 workers, a handler of 5 ms", four, alone, 2.5, ONE_WORKER),
        rounds=3,
    ),
)


@contextmanager
def serve(_folder: Path) -> Iterator[None]:
    """Start the server; not in the folder of the run, as the name of its socket must be short."""
    with closing(PostgresServers()) as servers:
        SERVER.append(servers.shared(durable=True))
        yield


if __name__ == "__main__":
    sys.exit(command("benchmarks.postgres", __doc__, FIGURES, "postgres", serve))
