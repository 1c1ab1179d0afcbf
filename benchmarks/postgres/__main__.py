"""`python -m benchmarks.postgres [--only NAME]... [--quick]`: tidings on PostgreSQL beside bare loops and peers.

It starts a server of its own, with flushes on, and removes it. All sides have the same server, payload and durability.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.__main__ import RESULTS, say
from benchmarks.measure import QUICK, Effort, Figure, Others, measure
from benchmarks.peer import append as appended
from benchmarks.peer import by_repository, by_save
from benchmarks.peer import load as loaded
from benchmarks.postgres import workers
from benchmarks.postgres.floors import group_commit, projection_loop, single_row_commits
from benchmarks.postgres.ours import callers, fill, handling, rebuild
from benchmarks.postgres.peer import opened, project
from benchmarks.postgres.server import SERVER, new
from benchmarks.streams import append, load
from tests.servers.postgres import PostgresServers

RAW = "floor: INSERT of one row, committed"
LOOP = "floor: bare loop, 100 a commit"
SAVE = "peer: Application.save of eventsourcing"
ONE_WORKER = "floor: one worker"
SLOW = 0.005
"""Seconds that a handler takes where the number of workers is what counts."""


def _url(_folder: Path) -> str:
    return new()


saved = appended(by_save, 1, at=opened)
alone, two, four = (workers.drained(workers.tidings, fill, number, 6_000, SLOW) for number in (1, 2, 4))

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
        note=LOOP,
    ),
    Figure(
        name="postgres.projection",
        title="projection catching up",
        ours=handling(projection=True),
        floor=projection_loop,
        target=0.6,
        note=LOOP,
    ),
    Figure(
        name="postgres.append_one",
        title="append one event",
        ours=append(1, url=_url),
        floor=saved,
        target=2.5,
        note=SAVE,
    ),
    Figure(
        name="postgres.append_ten",
        title="append ten events at once",
        ours=append(10, url=_url),
        floor=appended(by_save, 10, at=opened),
        target=2.5,
        note=f"{SAVE}; counted in events",
    ),
    Figure(
        name="postgres.append_8_callers",
        title="append one event, 8 callers",
        ours=append(1, callers=8, url=_url),
        floor=appended(by_save, 1, callers=8, at=opened),
        target=6.0,
        note=f"{SAVE} in 8 threads",
    ),
    Figure(
        name="postgres.load_1000",
        title="load a stream of 1,000 events",
        ours=load(_url),
        floor=loaded(by_repository, at=opened),
        target=5.0,
        note="peer: Repository.get of eventsourcing; counted in events",
    ),
    Figure(
        name="postgres.rebuild_100k",
        title="rebuild a projection of 100,000 events",
        ours=rebuild,
        floor=project,
        target=8.0,
        note="peer: its view recorder, which commits every event; rate over its first thousands",
        rounds=3,
    ),
    Figure(
        name="postgres.queue_4_workers",
        title="drain a queue with 4 workers",
        ours=workers.drained(workers.tidings, fill, 4, 100_000),
        floor=workers.drained(workers.pgqueuer, workers.enqueued, 4, 20_000),
        target=2.0,
        note="peer: PgQueuer over asyncpg, 4 workers",
        rounds=3,
    ),
    Figure(
        name="postgres.two_workers",
        title="2 workers, a handler of 5 ms",
        ours=two,
        floor=alone,
        target=1.7,
        note=ONE_WORKER,
        rounds=3,
    ),
    Figure(
        name="postgres.four_workers",
        title="4 workers, a handler of 5 ms",
        ours=four,
        floor=alone,
        target=2.5,
        note=ONE_WORKER,
        rounds=3,
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
