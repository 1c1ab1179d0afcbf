"""The topics of an app on Kafka: what they are called, how they are made, and how what is there differs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec
from confluent_kafka.admin import NewTopic

from tidings.brokers.kafka.cluster import Cluster, Described
from tidings.brokers.kafka.settings import PARTITIONS, REPLICAS, Settings
from tidings.errors import BrokerRefused

RECORD_BYTES = 1_048_588
"""Largest record batch of a topic that is declared, and Kafka's own default: room for our largest event and headers."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Topic(msgspec.Struct, frozen=True):
    """A topic as it should be.

    Attributes:
        name: In Kafka.
        partitions: How many workers of an app can share it.
        replication: Copies.
        settings: Name and value, in order.
    """

    name: str
    partitions: int
    replication: int
    settings: tuple[tuple[str, str], ...]


def topic_name(topic: str, prefix: str = "") -> str | None:
    """What Kafka calls a topic; None where Kafka has no such names."""
    name = prefix + topic
    return name if _NAME.fullmatch(name) else None


def name_refused(topic: str) -> str:
    """Why a topic cannot be had, in one line."""
    return f"Kafka has no topic {topic[:80]!r}: only letters, digits, dots, dashes and underscores, at most 249"


class Topics:
    """The topics of an app: planned, compared, declared.

    Args:
        settings: Of the URL.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.brokers = REPLICAS

    def names(self, topics: Iterable[str]) -> dict[str, str]:
        """Name in Kafka -> topic.

        Raises:
            BrokerRefused: Kafka does not have such names.
        """
        found: dict[str, str] = {}
        for topic in topics:
            name = topic_name(topic, self._settings.prefix)
            if name is None:
                raise BrokerRefused(name_refused(topic), "rename the topic, or use another broker")
            found[name] = topic
        return found

    def plan(self, topics: Iterable[str]) -> list[Topic]:
        """The topics as they are declared where they are missing."""
        replication = self._settings.replication or min(REPLICAS, self.brokers)
        settings = {"max.message.bytes": RECORD_BYTES, "min.insync.replicas": max(1, replication - 1)}
        return [
            Topic(
                name,
                self.asked(topic) or PARTITIONS,
                replication,
                tuple((key, str(value)) for key, value in settings.items()),
            )
            for name, topic in self.names(topics).items()
        ]

    def asked(self, topic: str) -> int | None:
        """How many partitions the URL asks for."""
        wanted = self._settings.partitions
        return wanted.get(topic, wanted.get(""))

    def settle(self, cluster: Cluster, topics: Sequence[str]) -> dict[str, Described]:
        """Declare or verify topics, as the URL says; blocks. Returns those that are there, by their names in Kafka.

        Raises:
            BrokerUnavailable: Nobody answers.
            BrokerRefused: Topics are missing and may not be made, or differ from what was asked for; says how.
        """
        plan = self.plan(topics)
        found = cluster.describe(each.name for each in plan)
        missing = [each for each in plan if each.name not in found]
        if missing and self._settings.topology == "declare":
            found |= cluster.create(
                [NewTopic(each.name, each.partitions, each.replication, config=dict(each.settings)) for each in missing]
            )
            missing = []
        if missing:
            names = ", ".join(each.name for each in missing)
            cure = f"create them, as with:\n{export(missing, self._settings.servers)}"
            raise BrokerRefused(f"Kafka: topics are missing: {names}", cure)
        if self._settings.topology != "none" and (differing := self._differing(cluster, plan, found)):
            cure = "nothing that is there is changed: change the URL, or the topics with kafka-topics and kafka-configs"
            raise BrokerRefused(f"Kafka: topics differ from what is needed: {'; '.join(differing)}", cure)
        return found

    def _differing(self, cluster: Cluster, plan: Iterable[Topic], found: dict[str, Described]) -> list[str]:
        differing = []
        settings = cluster.settings(found)
        for wanted, topic in zip(plan, self.names_of(plan), strict=True):
            if (there := found.get(wanted.name)) is None:
                continue
            if self.asked(topic) not in {None, there.partitions}:
                differing.append(f"{wanted.name} has {there.partitions} partitions, not {wanted.partitions}")
            if self._settings.replication not in {None, there.replication}:
                differing.append(f"{wanted.name} has {there.replication} copies, not {wanted.replication}")
            limit = settings[wanted.name].get("max.message.bytes", str(RECORD_BYTES))
            if int(limit) < RECORD_BYTES:
                differing.append(f"{wanted.name} has max.message.bytes={limit}, not {RECORD_BYTES} or more")
        return differing

    def names_of(self, plan: Iterable[Topic]) -> list[str]:
        """The topics of a plan, without the prefix."""
        return [each.name.removeprefix(self._settings.prefix) for each in plan]


def export(topics: Iterable[Topic], servers: str) -> str:
    """Commands that make these topics."""
    return "\n".join(
        " ".join(
            [
                f"kafka-topics --bootstrap-server {servers} --create --if-not-exists --topic {each.name}",
                f"--partitions {each.partitions} --replication-factor {each.replication}",
                *(f"--config {name}={value}" for name, value in each.settings),
            ]
        )
        for each in topics
    )
