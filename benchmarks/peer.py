"""The peer: `eventsourcing` 9.5 on SQLite as it comes. WAL and synchronous=FULL are its own settings.

Appends go to its event store (a mapper with the JSON transcoder over a recorder), below its aggregates, which would add
to its times: tidings appends plain events too. Loading is measured at both levels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from eventsourcing.application import Repository
from eventsourcing.domain import Aggregate, DomainEvent, event
from eventsourcing.persistence import (
    DatetimeAsISO,
    DecimalAsStr,
    EventStore,
    JSONTranscoder,
    Mapper,
    Tracking,
    UUIDAsHex,
)
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore, SQLiteTrackingRecorder

from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch, during
from benchmarks.shop import EFFECT, READ_MODEL, order

STREAMS = 10
"""Streams to load from, in turn."""
PULL = 100
"""Notifications read at once; its own followers read 10."""


class Placed(DomainEvent):
    """The order of the other sides, as the peer declares events."""

    order_id: str
    customer_id: str
    email: str
    total: int
    currency: str
    channel: str
    placed_at: int
    lines: list[dict[str, Any]]


class Ledger:
    """An event store on one file."""

    def __init__(self, path: Path) -> None:
        transcoder = JSONTranscoder()
        for transcoding in (UUIDAsHex(), DecimalAsStr(), DatetimeAsISO()):
            transcoder.register(transcoding)
        self.mapper: Mapper[UUID] = Mapper(transcoder)
        self.datastore = SQLiteDatastore(str(path))
        self.recorder = SQLiteApplicationRecorder(self.datastore)
        self.recorder.create_table()
        self.store: EventStore[UUID] = EventStore(self.mapper, self.recorder)

    def close(self) -> None:
        """Close its connections."""
        self.datastore.close()


def order_event(stream: UUID, version: int, customer: int = 0) -> Placed:
    """An order as an event of a stream."""
    fields: dict[str, Any] = msgspec.to_builtins(order("o-0000001", customer=customer))
    return Placed(originator_id=stream, originator_version=version, timestamp=datetime.now().astimezone(), **fields)


def append(size: int, callers: int = 1) -> Side:
    """Threads that append so many events at a time, each to a stream of its own."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        with closing(Ledger(folder / "peer.db")) as ledger:

            def call(done: list[int]) -> None:
                stream, version = uuid4(), 0
                template = order_event(stream, 1).__dict__
                for _ in during(effort.seconds):
                    events = [
                        Placed(**{**template, "originator_version": version + step}) for step in range(1, size + 1)
                    ]
                    ledger.store.put(events)
                    version += size
                done.append(version)

            def run() -> Sample:
                done: list[int] = []
                watch = Stopwatch()
                threads = [threading.Thread(target=call, args=(done,)) for _ in range(callers)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                return watch.sample(sum(done))

            yield run

    return side


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


def _accounts(ledger: Ledger) -> list[UUID]:
    """Fill STREAMS streams of 1,000 events, the one of the account's creation among them."""
    fields: dict[str, Any] = msgspec.to_builtins(order("o-0000001"))
    accounts = [Account() for _ in range(STREAMS)]
    for account in accounts:
        for _ in range(999):
            account.place(**fields)
        ledger.store.put(account.collect_events())
    return [account.id for account in accounts]


@contextmanager
def load(folder: Path, effort: Effort) -> Iterator[Round]:
    """Load aggregates of 1,000 events from its repository: their state, as `App.get` returns it."""
    with closing(Ledger(folder / "peer.db")) as ledger:
        accounts = _accounts(ledger)
        repository = Repository(ledger.store)

        def run() -> Sample:
            watch = Stopwatch()
            done = 0
            for number in during(effort.seconds):
                account: Account = repository.get(accounts[number % STREAMS])
                done += account.version
            return watch.sample(done)

        yield run


@contextmanager
def read(folder: Path, effort: Effort) -> Iterator[Round]:
    """Read the same streams from its event store: events, not folded into anything."""
    with closing(Ledger(folder / "peer.db")) as ledger:
        accounts = _accounts(ledger)

        def run() -> Sample:
            watch = Stopwatch()
            done = 0
            for number in during(effort.seconds):
                done += sum(1 for _ in ledger.store.get(accounts[number % STREAMS]))
            return watch.sample(done)

        yield run


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
    with closing(Ledger(folder / "peer.db")) as ledger:
        for first in range(0, effort.events // 5, 1_000):
            stream = uuid4()
            ledger.store.put([order_event(stream, version, customer=first + version) for version in range(1, 1_001)])
        number = 0

        def run() -> Sample:
            nonlocal number
            number += 1
            with closing(SQLiteDatastore(str(folder / f"view-{number}.db"))) as datastore:
                view = Revenue(datastore)
                view.create_table()
                watch = Stopwatch()
                done = 0
                for _ in during(3 * effort.seconds):
                    notifications = ledger.recorder.select_notifications(done + 1, PULL)
                    for notification in notifications:
                        view.add(ledger.mapper.to_domain_event(notification), Tracking("shop", notification.id))
                    done += len(notifications)
                return watch.sample(done)

        yield run
