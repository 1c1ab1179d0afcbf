"""The peer on PostgreSQL: `eventsourcing` 9.5 as it comes, with a pool for its threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from psycopg.sql import SQL

from benchmarks.measure import Effort, Round, Sample, Stopwatch, during
from benchmarks.peer import PULL, Placed, by_put
from benchmarks.postgres.floors import CREATE, UPSERT
from benchmarks.postgres.server import new
from tidings.core.url import parse_url

THREADS = 8


def _settings() -> dict[str, str]:
    """Where a new database is."""
    url = parse_url(new(), ("postgresql",))
    return {
        "dbname": url.path,
        "host": url.host or "",
        "port": str(url.port),
        "user": url.user or "",
        "password": url.password or "",
    }


def opened(_folder: Path) -> Application[UUID]:
    """An application in a database of its own."""
    settings = {f"POSTGRES_{name.upper()}": value for name, value in _settings().items()}
    env = {"PERSISTENCE_MODULE": "eventsourcing.postgres", "POSTGRES_POOL_SIZE": str(THREADS), **settings}
    return Application(env=env)


class Revenue(PostgresTrackingRecorder):
    """Its way to a read model: the view and the position of the event in one transaction, an event each."""

    def __init__(self, datastore: PostgresDatastore) -> None:
        super().__init__(datastore)
        self.sql_create_statements.append(SQL(CREATE))

    def add(self, placed: Placed, tracking: Tracking) -> None:
        """What one order does to the read model."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(UPSERT, (placed.customer_id, placed.total), prepare=True)


@contextmanager
def project(folder: Path, effort: Effort) -> Iterator[Round]:
    """Follow the log into a fresh read model for so many seconds; each event is a commit, so the rate is steady."""
    with closing(opened(folder)) as shop:
        for _ in range(0, effort.events // 10, 1_000):
            by_put(shop, 1_000)()

        def run() -> Sample:
            with closing(PostgresDatastore(**_settings())) as datastore:
                view = Revenue(datastore)
                view.create_table()
                watch = Stopwatch()
                done = 0
                for _ in during(3 * effort.seconds):
                    notifications: Sequence = shop.recorder.select_notifications(done + 1, PULL)
                    for notification in notifications:
                        view.add(shop.mapper.to_domain_event(notification), Tracking("shop", notification.id))
                    done += len(notifications)
                return watch.sample(done)

        yield run
