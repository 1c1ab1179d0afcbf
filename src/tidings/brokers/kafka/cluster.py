"""Questions to a cluster, and topics made on it. All of it blocks; every question has a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from tidings.brokers.kafka.settings import Settings
from tidings.brokers.kafka.share import Known
from tidings.brokers.kafka.trouble import Noted, error_of, kafka_error
from tidings.errors import BrokerError, BrokerUnavailable

PATIENCE = 6.0
"""Seconds for which a question is asked again."""

QUESTION = 3.0
"""Seconds for one answer."""

T = TypeVar("T")

Place = tuple[str, int]
"""Topic and partition."""


class Described:
    """A topic as it stands.

    Attributes:
        id: Its id, "" where the broker knows none.
        partitions: How many it has.
        replication: Copies of its first partition.
    """

    __slots__ = ("id", "partitions", "replication")

    def __init__(self, description: Any) -> None:
        found = str(description.topic_id or "")
        self.id = "" if set(found) <= {"A"} else found  # the zero of old brokers
        self.partitions = len(description.partitions)
        self.replication = len(description.partitions[0].replicas)

    @property
    def known(self) -> Known:
        """What is remembered of it beside an offset."""
        return Known(self.partitions, self.id)


class Cluster:
    """The clients that ask. Any thread may use them.

    What a group's coordinator is to answer is asked by a consumer that never joins: the client's own calls for that end
    the whole process when the connection breaks meanwhile (librdkafka 4605, 5397).

    Args:
        settings: Of the URL.
    """

    def __init__(self, settings: Settings) -> None:
        self._noted = Noted()
        self._client = AdminClient(settings.admin(self._noted))
        self._reader = Consumer(settings.consumer(self._noted, lambda *_: None))
        self._reading = threading.Lock()

    def brokers(self) -> int:
        """How many brokers there are.

        Raises:
            BrokerError: None answers.
        """

        def ask() -> int:
            try:
                return len(self._client.list_topics(timeout=1.0).brokers)
            except Exception as error:
                raise self._error(error, "connecting") from error

        return _patiently(ask)

    def answers(self) -> bool:
        """Whether anybody is there now."""
        try:
            return bool(self._client.list_topics(timeout=0.5).brokers)
        except KafkaException:
            return False

    def describe(self, topics: Iterable[str]) -> dict[str, Described]:
        """Those of these topics that are there."""
        names = list(topics)

        def ask() -> dict[str, Described]:
            asked = self._client.describe_topics(TopicCollection(names), request_timeout=QUESTION)
            answers = {
                name: self._answer(future, f"topic {name}", KafkaError.UNKNOWN_TOPIC_OR_PART)
                for name, future in asked.items()
            }
            return {name: Described(answer) for name, answer in answers.items() if answer and answer.partitions}

        return _patiently(ask) if names else {}

    def create(self, topics: Sequence[NewTopic]) -> dict[str, Described]:
        """Create topics and wait until they are there; it is fine when somebody else was quicker."""

        def ask() -> None:
            asked = self._client.create_topics(list(topics), request_timeout=QUESTION, operation_timeout=QUESTION)
            for name, future in asked.items():
                self._answer(future, f"creating topic {name}", KafkaError.TOPIC_ALREADY_EXISTS)

        def look() -> dict[str, Described]:
            found = self.describe(each.topic for each in topics)
            if len(found) < len(topics):
                raise BrokerUnavailable("Kafka: topics that were created do not show up yet", "it is tried again")
            return found

        _patiently(ask)
        return _patiently(look)

    def settings(self, topics: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """Settings of topics, by topic and name; without those that may not be seen."""
        wanted = [ConfigResource(ResourceType.TOPIC, name) for name in topics]

        def ask() -> dict[str, Mapping[str, str]]:
            found: dict[str, Mapping[str, str]] = {}
            for resource, future in self._client.describe_configs(wanted, request_timeout=QUESTION).items():
                answer = self._answer(future, "settings of topics", KafkaError.TOPIC_AUTHORIZATION_FAILED)
                found[resource.name] = {name: entry.value for name, entry in (answer or {}).items()}
            return found

        return _patiently(ask) if wanted else {}

    def committed(self, places: Sequence[Place]) -> dict[Place, tuple[int, Known | None]]:
        """The committed offsets of the group, and what is remembered beside them; not of places without one."""

        def ask() -> dict[Place, tuple[int, Known | None]]:
            wanted = [TopicPartition(*place) for place in places]
            answers = self._read(lambda: self._reader.committed(wanted, timeout=QUESTION), "committed offsets")
            return {
                (each.topic, each.partition): (each.offset, Known.read(each.metadata))
                for each in answers
                if each.offset >= 0
            }

        return _patiently(ask)

    def bounds(self, places: Sequence[Place]) -> dict[Place, tuple[int, int]]:
        """The first offset that is still there, and the one after the last that may be read."""

        def ask(which: int) -> dict[Place, int]:
            # A time that stands for an end, as in the protocol: one question for all partitions of a broker.
            wanted = [TopicPartition(*place, which) for place in places]
            answers = self._read(lambda: self._reader.offsets_for_times(wanted, timeout=QUESTION), "offsets")
            return {(each.topic, each.partition): each.offset for each in answers}

        low = _patiently(lambda: ask(OFFSET_BEGINNING))
        high = _patiently(lambda: ask(OFFSET_END))
        return {place: (low[place], high[place]) for place in places}

    def close(self) -> None:
        """Disconnect; blocks."""
        with self._reading:
            self._reader.close()

    def _read(self, ask: Callable[[], list[TopicPartition]], what: str) -> list[TopicPartition]:
        try:
            with self._reading:
                answers = ask()
        except Exception as error:
            raise self._error(error, what) from error
        for each in answers:
            if each.error is not None:
                raise self._error(each.error, f"{what} of {each.topic}[{each.partition}]")
        return answers

    def _answer(self, future: Future[Any], what: str, fine: int | None = None) -> Any:
        """The answer, or None where it is an error that is fine."""
        try:
            return future.result(QUESTION + 1.0)
        except Exception as error:
            cause = kafka_error(error)
            if cause is not None and cause.code() == fine:
                return None
            raise self._error(error, what) from error

    def _error(self, error: BaseException | KafkaError, what: str) -> BrokerError:
        self._client.poll(0)  # it then says why nobody answers
        return error_of(error, what, self._noted)


def _patiently(ask: Callable[[], T]) -> T:
    """Ask until there is an answer: leaders move, and what was just made is not known everywhere."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except BrokerUnavailable:
            if time.monotonic() >= end:
                raise
            time.sleep(0.05)
