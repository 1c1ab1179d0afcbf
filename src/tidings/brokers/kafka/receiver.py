"""The consumer, and the one thread that touches it.

The client serves everything from within a call of `poll`, and lets no second thread in. So one thread polls without
end, decides where to begin when partitions come, and commits; others leave what they want done in queues.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from tidings.brokers.kafka.buffer import Buffer
from tidings.brokers.kafka.cluster import Cluster, Place
from tidings.brokers.kafka.settings import Settings
from tidings.brokers.kafka.share import Share, Spot
from tidings.brokers.kafka.standing import Standing, check, standings
from tidings.brokers.kafka.topology import Topics
from tidings.brokers.kafka.trouble import Noted, error_of
from tidings.brokers.kafka.wire import BINDING, key_from
from tidings.core.arrival import Arrival
from tidings.errors import BrokerError, BrokerRefused, BrokerUnavailable

POLL = 0.1
"""Seconds that one poll waits for messages: how soon the thread sees what others want of it."""

MORE = 500
"""Messages that are taken over at once."""

TEND = 0.05
"""Seconds at least between looks at what was settled, is to be committed, or seems wrong."""

COMMIT = 0.2
"""Seconds between commits."""

LOST = 30.0
"""Seconds after which a commit that nobody answered counts as lost."""

PAUSE = 1.0
"""Seconds that nobody fetched after which partitions are paused: pausing throws away what was read ahead."""

SILENCE = 10.0
"""Seconds without a message after which it is looked whether there are some."""

LOOK = 1.0
"""Seconds between two looks where something seems wrong."""

LEAVE = 5.0
"""Seconds for the last commit."""

_LOST = {KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE}
_SLOWEST = 5.0


class Receiver:
    """Receives topics for a group, from its start until `close`.

    Args:
        settings: Of the URL.
        cluster: Answers where the group stands.
        topics: What the topics are called.
        wanted: Name in Kafka -> topic.
    """

    def __init__(self, settings: Settings, cluster: Cluster, topics: Topics, wanted: Mapping[str, str]) -> None:
        self.buffer = Buffer()
        self.shares: dict[Place, Share] = {}
        self.silence = SILENCE
        self._settings = settings
        self._cluster = cluster
        self._topics = topics
        self._wanted = wanted
        self._settled: deque[Sequence[Arrival]] = deque()
        self._noted = Noted(self._hear)
        self._trouble: BrokerError | None = None
        self._failed: BrokerError | None = None
        self._closing = threading.Event()
        self._committing = False
        self._committed_at = 0.0
        self._heard_at = 0.0
        self._looked_at = 0.0
        self._behind: set[tuple[Place, int]] = set()
        self._paused = False
        self._member = False
        self._thread = threading.Thread(target=self._run, name=f"kafka {settings.group}", daemon=True)
        self._thread.start()

    # ---- for others ------------------------------------------------------------------------------------------------

    async def fetch(self, limit: int, wait: float) -> list[Arrival]:
        """See `tidings.core.ports.Broker.fetch`."""
        taken = self.buffer.take(limit)
        if not taken:
            if not isinstance(self._trouble, BrokerRefused):
                await self.buffer.wait(wait)
                taken = self.buffer.take(limit)
            if not taken and (trouble := self._trouble) is not None:
                raise type(trouble)(trouble.what, trouble.cure, **trouble.data)  # a traceback of its own each time
        wanted, arrivals = self._wanted, []
        while taken:  # and let go of: a record keeps its headers in many small objects, all of which the collector sees
            # Read here and not on the other thread, for which the event loop would have to wait.
            share, record = taken.popleft()
            sent, spot = dict(record.headers() or ()), Spot(share, record.offset())
            body, key = record.value() or b"", key_from(record.key())
            arrivals.append(Arrival(wanted[share.topic], body, sent, spot, key, spot, BINDING))
        return arrivals

    def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Note that these are safe here; they are committed soon."""
        self._settled.append(arrivals)

    def position(self, place: Place) -> int | None:
        """Up to where this worker has settled a partition; None where it is not its own."""
        share = self.shares.get(place)
        return None if share is None else share.position

    def close(self, timeout: float) -> None:
        """Commit what is settled and leave the group; blocks."""
        self._closing.set()
        self.buffer.emptied.set()
        self._thread.join(timeout)

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            self._failed, begun = None, time.monotonic()
            try:
                if isinstance(self._trouble, BrokerRefused):
                    self._look_again()
                self._receive()
            except Exception as error:  # noqa: BLE001 - whatever it is: say it, and try again
                self._trouble = error if isinstance(error, BrokerError) else error_of(error, "receiving", self._noted)
                self.buffer.wake()
                failures = 0 if time.monotonic() - begun > _SLOWEST else failures + 1
                most = _SLOWEST if isinstance(self._trouble, BrokerRefused) else min(_SLOWEST, 0.2 * 2**failures)
                self._closing.wait(random.uniform(0.5, 1.0) * most)  # noqa: S311 - jitter

    def _look_again(self) -> dict[Place, Standing]:
        """Where the group stands, if it may go on. Asked from outside: tools that mend want a group that is empty."""
        found = self._cluster.describe(self._wanted)
        if missing := self._wanted.keys() - found.keys():
            raise BrokerRefused(f"Kafka: topic {min(missing)} is gone", "make it anew, or take it out of the app")
        there = standings(self._cluster, found)
        check(self._settings, there, self._acknowledged)
        return there

    @property
    def _acknowledged(self) -> dict[str, int | None]:
        return {name: self._topics.asked(topic) for name, topic in self._wanted.items()}

    def _receive(self) -> None:
        """Be a member of the group until that ends."""
        consumer = Consumer(self._settings.consumer(self._noted, self._on_commit))
        self._committing = self._paused = self._member = False
        self._behind = set()
        self._heard_at = time.monotonic()
        try:
            consumer.subscribe(
                list(self._wanted), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            tended = 0.0
            while not self._closing.is_set():
                self._take(consumer)
                if (now := time.monotonic()) - tended > TEND:
                    tended = now
                    self._settle()
                    self._commit(consumer)
                    self._watch()
                if self._failed is not None:
                    raise self._failed
        finally:
            self._leave(consumer)

    def _take(self, consumer: Any) -> None:
        """Receive what there is room for, and serve the client's callbacks."""
        room = self.buffer.room
        if room:
            if self._paused:
                consumer.resume(consumer.assignment())
                self._paused = False
            if (first := consumer.poll(POLL)) is not None:
                share = self._share_of(first)
                count = min(room, MORE, self.buffer.fits(len(first.value() or b"")))
                more = consumer.consume(count, 0)  # which may also take partitions away, and bring them back
                self._received([first, *more] if self._share_of(first) is share else more)
        elif self._paused:
            if (late := consumer.poll(POLL)) is not None:
                self._received([late])
        else:
            self.buffer.emptied.clear()
            if not self.buffer.room and not self.buffer.emptied.wait(PAUSE):
                # Nobody fetches. The group must not wait for us, nor drop us: go on to serve it, without messages.
                consumer.pause(consumer.assignment())
                self._paused = True
            self._heard_at = time.monotonic()

    def _share_of(self, message: Any) -> Share | None:
        return self.shares.get((message.topic(), message.partition()))

    def _received(self, messages: Iterable[Any]) -> None:
        records = []
        shares = self.shares
        for message in messages:
            if (error := message.error()) is not None:
                self._report(error, message)
            elif (share := shares.get((message.topic(), message.partition()))) is not None:  # else it was taken away
                share.took(message.offset())
                records.append((share, message))
        self._heard_at = time.monotonic()
        if records:
            self._trouble = None
            self.buffer.put(records)

    def _report(self, error: KafkaError, message: Any) -> None:
        code, place = error.code(), (message.topic(), message.partition())
        if code == KafkaError._PARTITION_EOF:
            self._trouble = None
            if share := self._share_of(message):
                share.reached(message.offset())
        elif code in _LOST:
            self._look_again()  # names the offsets
            what = f"Kafka: topic {place[0]}, partition {place[1]}: {error.str()}"
            raise BrokerRefused(what, "say where the group is to go on: kafka-consumer-groups --reset-offsets")
        elif code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._look_again()
        elif code not in {KafkaError._MAX_POLL_EXCEEDED, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT}:
            found = error_of(error, f"topic {place[0]}" if place[0] else "receiving")
            if isinstance(found, BrokerRefused):
                raise found

    def _hear(self, error: KafkaError) -> None:
        """What the client says outside of messages, from within a poll."""
        if error.fatal():
            self._failed = error_of(error, "receiving")
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._trouble = error_of(error, "receiving", self._noted)
        elif isinstance(found := error_of(error, "receiving"), BrokerRefused):
            self._trouble = found
            self.buffer.wake()

    def _settle(self) -> None:
        while self._settled:
            for each in self._settled.popleft():
                spot: Spot = each.token
                spot.share.settled(spot.offset)

    def _commit(self, consumer: Any) -> None:
        """Commit where things stand, if it is time and no commit is under way."""
        now = time.monotonic()
        if now - self._committed_at < (LOST if self._committing else COMMIT):
            return
        if offsets := self._offsets(self.shares.values()):
            self._committing, self._committed_at = True, now
            consumer.commit(offsets=offsets, asynchronous=True)

    def _offsets(self, shares: Iterable[Share]) -> list[TopicPartition]:
        found = []
        for each in shares:
            if each.advance():
                each.dirty = False
                found.append(TopicPartition(each.topic, each.partition, each.position, metadata=each.known.text()))
        return found

    def _on_commit(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        self._committing = False
        for each in offsets:
            share = self.shares.get((each.topic, each.partition))
            if share is not None and (error or each.error) is not None:
                share.dirty = True
        refused = error_of(error, f"committing for group {self._settings.group}") if error is not None else None
        if isinstance(refused, BrokerRefused):
            self._failed = refused

    def _watch(self) -> None:
        """Notice that nothing comes although there is something, and begin anew then.

        Pausing throws away what the client has read, and with it an error that may be there; so errors are not enough.
        """
        now = time.monotonic()
        if isinstance(self._trouble, BrokerUnavailable) and now - self._looked_at > LOOK:
            self._looked_at = now
            if self._cluster.answers():
                self._trouble, self._heard_at = None, now
        if now - self._heard_at < self.silence or self._trouble is not None:
            return
        self._heard_at = now
        if not self._member:
            what = f"Kafka: group {self._settings.group} does not take this worker in"
            if self._settings.protocol == "consumer":
                raise BrokerRefused(what, "brokers before Kafka 4.0 do not speak protocol=consumer: leave it out")
            self._trouble = BrokerUnavailable(what, "another worker may be busy: it has five minutes to let it in")
            return
        try:
            there = self._look_again()
        except BrokerUnavailable as error:  # the client goes on trying, as a member of the group
            self._trouble = error
            return
        stands = {place: share.next for place, share in list(self.shares.items())}
        behind = {(place, at) for place, at in stands.items() if place in there and there[place].high > at}
        stuck, self._behind = behind & self._behind, behind
        if stuck:
            (topic, partition), _ = min(stuck)
            what = f"Kafka: nothing arrives from {topic}[{partition}], and there is something"
            raise BrokerUnavailable(what, "it connects anew")

    # ---- partitions come and go, from within a poll ----------------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._heard_at = time.monotonic()
        self._member = True
        if not partitions:
            return
        try:
            found = self._cluster.describe({each.topic for each in partitions})
            there = standings(self._cluster, found)
            check(self._settings, there, self._acknowledged)
            starts = [self._begin(each.topic, each.partition, there) for each in partitions]
        except Exception as error:  # noqa: BLE001 - nothing may be raised through the client
            self._failed = error if isinstance(error, BrokerError) else error_of(error, "receiving", self._noted)
            starts = partitions
        consumer.incremental_assign(starts)
        if self._paused or self._failed is not None:
            consumer.pause(starts)
        self._trouble = None

    def _begin(self, topic: str, partition: int, there: Mapping[Place, Standing]) -> TopicPartition:
        found = there[topic, partition]
        # Committed at once: from now on the group has a place here, and nothing after it can go by unnoticed.
        share = Share(topic, partition, found.start, found.now, dirty=found.changed)
        self.shares[topic, partition] = share
        return TopicPartition(topic, partition, OFFSET_BEGINNING if found.committed is None else found.start)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._settle()
        places = [(each.topic, each.partition) for each in partitions]
        shares = [share for place in places if (share := self.shares.get(place)) is not None]
        if not self._closing.is_set() and (offsets := self._offsets(shares)):
            with contextlib.suppress(KafkaException):  # they come again, and are known
                consumer.commit(offsets=offsets, asynchronous=False)
        self._forget(places)

    def _on_lost(self, _: Any, partitions: list[TopicPartition]) -> None:
        self._forget([(each.topic, each.partition) for each in partitions])

    def _forget(self, places: Iterable[Place]) -> None:
        for place in places:
            if (share := self.shares.pop(place, None)) is not None:
                share.gone = True
        self.buffer.drop_gone()

    def _leave(self, consumer: Any) -> None:
        """Commit once more, without waiting for long, and leave."""
        end = time.monotonic() + LEAVE
        try:
            with contextlib.suppress(KafkaException):  # what is not committed comes again, and is known
                self._settle()
                self._wait_for_commit(consumer, end)
                self._committed_at = 0.0
                self._commit(consumer)
                self._wait_for_commit(consumer, end)
        finally:
            self._forget(list(self.shares))
            consumer.close()

    def _wait_for_commit(self, consumer: Any, end: float) -> None:
        while self._committing and time.monotonic() < end:
            consumer.poll(0.05)  # messages that come with it come again
