"""The adapter: what Kafka promises, and the two clients that keep it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from tidings.brokers.kafka.cluster import Cluster
from tidings.brokers.kafka.doctor import look
from tidings.brokers.kafka.receiver import Receiver
from tidings.brokers.kafka.sender import Sender
from tidings.brokers.kafka.settings import Settings
from tidings.brokers.kafka.standing import check, standings, unread
from tidings.brokers.kafka.topology import Topics, export, name_refused, topic_name
from tidings.core.arrival import DEADLINE, Arrival, Rejected, Result, Unknown
from tidings.core.check import Check
from tidings.core.codec import MAX_BYTES
from tidings.core.envelope import Envelope
from tidings.core.guarantees import Guarantees
from tidings.core.resource import Resource
from tidings.errors import BrokerError, NotOpen

GUARANTEES = Guarantees(
    name="Kafka", ordered=True, history=True, exactly_once=False, durable="replicated", max_bytes=MAX_BYTES
)

_CLOSE = 12.0
_SPARE = 1.0
"""Seconds before the deadline at which an answer is given without knowing more."""


class KafkaBroker:
    """Kafka as a broker.

    Args:
        url: `kafka://host:port?option=value`, see docs/kafka.md.
        app: Name of the app, which is the consumer group.

    Raises:
        BadUrl: The URL or one of its options cannot be read.
    """

    guarantees = GUARANTEES

    def __init__(self, url: str, app: str) -> None:
        self._settings = Settings.of(url, app)
        self.url = self._settings.url.safe
        self._topics = Topics(self._settings)
        self._cluster: Cluster | None = None
        self._sender: Sender | None = None
        self._receiver: Receiver | None = None
        self._wanted: dict[str, str] = {}
        self._declared: dict[str, str] = {}  # topic -> name in Kafka
        self._declaring = asyncio.Lock()

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable, or BrokerRefused where waiting will not help."""
        if self._cluster is None:
            cluster = Cluster(self._settings)
            self._topics.brokers = await asyncio.to_thread(cluster.brokers)
            if self._topics.brokers == 1:
                self.guarantees = replace(GUARANTEES, durable="process")  # one copy, which is flushed at leisure
            self._cluster = cluster
            self._sender = Sender(self._settings)

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Declare topics, and begin to receive them. See `tidings.core.ports.Broker.subscribe`."""
        cluster = self._opened()
        wanted = self._topics.names(topics)
        if wanted == self._wanted:
            return
        found = await asyncio.to_thread(self._topics.settle, cluster, list(topics))
        acknowledged = {name: self._topics.asked(topic) for name, topic in wanted.items()}
        check(self._settings, await asyncio.to_thread(standings, cluster, found), acknowledged)
        if self._receiver is not None:
            await asyncio.to_thread(self._receiver.close, _CLOSE)
        self._declared |= {topic: name for name, topic in wanted.items()}
        self._wanted = wanted
        self._receiver = Receiver(self._settings, cluster, self._topics, wanted)

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        """Publish envelopes. See `tidings.core.ports.Broker.publish`."""
        deadline = time.monotonic() + DEADLINE - _SPARE
        sender = self._sender
        if sender is None:
            raise NotOpen("the broker is not open", "open it first")
        results: list[Result | None] = [self._refused(each) for each in envelopes]
        topics = {each.topic for each, result in zip(envelopes, results, strict=True) if result is None}
        problem = ""
        if new := [topic for topic in topics if topic and topic not in self._declared]:
            try:
                problem = await asyncio.wait_for(self._declare(new), DEADLINE / 2)
            except TimeoutError:
                problem = "Kafka does not answer"
        sent = []
        for at, each in enumerate(envelopes):
            if results[at] is None:
                name = self._declared.get(each.topic or "")
                if name is None:
                    results[at] = Unknown(problem or f"topic {each.topic} is not there")
                else:
                    sent.append((at, (name, each)))
        if sent:
            found = await sender.send([each for _, each in sent], deadline)
            for (at, _), result in zip(sent, found, strict=True):
                results[at] = result
            while sender.missing:  # if somebody deleted them, they are declared anew before the next attempt
                gone = sender.missing.pop()
                self._declared = {topic: name for topic, name in self._declared.items() if name != gone}
        return [each or Unknown("it was not sent") for each in results]

    async def fetch(self, limit: int, wait: float) -> Sequence[Arrival]:
        """Messages that arrived. See `tidings.core.ports.Broker.fetch`."""
        if self._receiver is None:
            raise NotOpen("the broker receives nothing", "subscribe first")
        return await self._receiver.fetch(limit, wait)

    async def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Messages are safe here. See `tidings.core.ports.Broker.settle`."""
        if self._receiver is not None and arrivals:
            self._receiver.settle(arrivals)

    async def waiting(self) -> int:
        """How many messages wait for this app, at all its workers. See `tidings.core.ports.Broker.waiting`."""
        cluster, receiver = self._opened(), self._receiver
        found = await asyncio.to_thread(cluster.describe, list(self._wanted))
        there = await asyncio.to_thread(standings, cluster, found)
        own = {place: None if receiver is None else receiver.position(place) for place in there}
        return unread((each, each.start if (at := own[place]) is None else at) for place, each in there.items())

    async def close(self) -> None:
        """Commit, leave the group and disconnect; what is not settled comes again. Safe to call twice."""
        receiver, self._receiver = self._receiver, None
        sender, self._sender = self._sender, None
        cluster, self._cluster, self._wanted = self._cluster, None, {}
        ending = [asyncio.to_thread(each.close, _CLOSE) for each in (receiver, sender) if each is not None]
        await asyncio.gather(*ending)
        if cluster is not None:
            await asyncio.to_thread(cluster.close)

    def look(self) -> Sequence[Check]:
        """For the doctor: how it is set up, over a connection of its own; blocks."""
        return look(self._settings)

    def topology(self, topics: Sequence[str]) -> Sequence[Resource]:
        """The topics in Kafka that an app with these topics has.

        Raises:
            BrokerRefused: Kafka does not have such names.
        """
        return [
            Resource(
                "topic",
                each.name,
                {"partitions": str(each.partitions), "replication": str(each.replication), **dict(each.settings)},
            )
            for each in self._topics.plan(topics)
        ]

    def export(self, topics: Sequence[str]) -> str:
        """The same as commands of `kafka-topics`."""
        return export(self._topics.plan(topics), self._settings.servers)

    def _opened(self) -> Cluster:
        if self._cluster is None:
            raise NotOpen("the broker is not open", "open it first")
        return self._cluster

    def _refused(self, envelope: Envelope) -> Rejected | None:
        topic, most = envelope.topic or "", self.guarantees.max_bytes
        if topic_name(topic, self._settings.prefix) is None:
            return Rejected(name_refused(topic))
        if len(envelope.data) > most:
            return Rejected(f"its data has {len(envelope.data):,} bytes, and Kafka takes {most:,} here", too_large=True)
        return None

    async def _declare(self, topics: list[str]) -> str:
        """See to it that topics are there before anything is sent to them; says why they are not."""
        async with self._declaring:
            problem = ""
            for topic in topics:
                if topic in self._declared:
                    continue
                try:
                    found = await asyncio.to_thread(self._topics.settle, self._opened(), [topic])
                except BrokerError as error:
                    problem = error.what
                else:
                    (self._declared[topic],) = found
            return problem
