"""The peer: `eventsourcing` 9.5 on SQLite as it comes. WAL and synchronous=FULL are its own settings.

It is measured at two levels: as its users use it (an `Application` saves and loads aggregates), and one level below, at
its event store, where plain events are put and read; the lower level is the stricter comparison.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, DomainEvent, event
from eventsourcing.persistence import Tracking
from eventsourcing.sqlite import SQLiteDatastore, SQLiteTrackingRecorder

from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch, during
from benchmarks.shop import EFFECT, READ_MODEL, order

STREAMS = 10
"""Streams to load from, in turn."""
PULL = 100
"""Notifications read at once; its own followers read 10."""
FIELDS: dict[str, Any] = msgspec.to_builtins(order("o-0000001"))
"""The order of the other sides, as the peer takes it."""


class Account(Aggregate):
    """What a stream folds into: how many orders it has."""

    def __init__(self) -> None:
        self.orders = 0

    @event("Placed")
    def place(  # noqa: PLR0917 - the peer's events have the parameters of the method
        self,
        order_id: str,
        customer_id: str,
        email: str,
        total: int,
        currency: str,
        channel: str,
        placed_at: int,
        lines: list[dict[str, Any]],
    ) -> None:
        """Count it."""
        self.orders += 1


class Placed(DomainEvent):
    """The same order as a plain event, for the event store."""

    order_id: str
    customer_id: str
    email: str
    total: int
    currency: str
    channel: str
    placed_at: int
    lines: list[dict[str, Any]]


def opened(folder: Path) -> Application[UUID]:
    """An application on a file of its own."""
    return Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "peer.db")})


Append = Callable[[Application[UUID], int], Callable[[], object]]
"""Prepares a stream; what it returns appends so many events to it."""


def by_save(shop: Application[UUID], size: int) -> Callable[[], object]:
    """As its users append: call the aggregate, save it."""
    account = Account()
    shop.save(account)

    def append() -> None:
        for _ in range(size):
            account.place(**FIELDS)
        shop.save(account)

    return append


def by_put(shop: Application[UUID], size: int) -> Callable[[], object]:
    """One level below: put events that are numbered already."""
    stream, versions = uuid4(), count(1)
    timestamp = datetime.now(UTC)

    def append() -> None:
        shop.events.put(
            [
                Placed(originator_id=stream, originator_version=next(versions), timestamp=timestamp, **FIELDS)
                for _ in range(size)
            ]
        )

    return append


def append(prepare: Append, size: int, callers: int = 1, at: Callable[[Path], Application[UUID]] = opened) -> Side:
    """Threads that append so many events at a time, each to a stream of its own."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        with closing(at(folder)) as shop:

            def call(append: Callable[[], object], done: list[int]) -> None:
                done.append(sum(size for _ in during(effort.seconds) if append() is None))

            def run() -> Sample:
                done: list[int] = []
                threads = [
                    threading.Thread(target=call, args=(append, done))
                    for append in [prepare(shop, size) for _ in range(callers)]
                ]
                watch = Stopwatch()
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                return watch.sample(sum(done))

            yield run

    return side


def load(get: Callable[[Application[UUID], UUID], int], at: Callable[[Path], Application[UUID]] = opened) -> Side:
    """Load streams of 1,000 events."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        with closing(at(folder)) as shop:
            accounts = [Account() for _ in range(STREAMS)]
            for account in accounts:
                for _ in range(999):  # its creation is the first event
                    account.place(**FIELDS)
                shop.save(account)

            def run() -> Sample:
                watch = Stopwatch()
                done = sum(get(shop, accounts[number % STREAMS].id) for number in during(effort.seconds))
                return watch.sample(done)

            yield run

    return side


def by_repository(shop: Application[UUID], account: UUID) -> int:
    """As its users load: the aggregate, which is the state that its events fold into."""
    found: Account = shop.repository.get(account)
    return found.version


def by_get(shop: Application[UUID], account: UUID) -> int:
    """One level below: the events, not folded into anything."""
    return sum(1 for _ in shop.events.get(account))


class Revenue(SQLiteTrackingRecorder):
    """Its way to a read model: the view and the position of the event in one transaction, an event each."""

    def construct_create_table_statements(self) -> Sequence[str]:
        """Its own tables and the read model."""
        return [*super().construct_create_table_statements(), READ_MODEL]

    def add(self, placed: Placed, tracking: Tracking) -> None:
        """What one order does to the read model."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(EFFECT, (placed.customer_id, placed.total))


@contextmanager
def project(folder: Path, effort: Effort) -> Iterator[Round]:
    """Follow the log into a fresh read model for so many seconds; each event is a commit, so the rate is steady."""
    with closing(opened(folder)) as shop:
        for _ in range(0, effort.events // 5, 1_000):
            by_put(shop, 1_000)()
        numbers = count()

        def run() -> Sample:
            with closing(SQLiteDatastore(str(folder / f"view-{next(numbers)}.db"))) as datastore:
                view = Revenue(datastore)
                view.create_table()
                watch = Stopwatch()
                done = 0
                for _ in during(3 * effort.seconds):
                    notifications = shop.recorder.select_notifications(done + 1, PULL)
                    for notification in notifications:
                        view.add(shop.mapper.to_domain_event(notification), Tracking("shop", notification.id))
                    done += len(notifications)
                return watch.sample(done)

        yield run
