"""Where a group stands in its topics, and whether it may go on from there.

An offset is committed together with what the topic was then. So it is noticed, and said, when a topic was made anew,
when it has other partitions than before, and when what was not yet read is gone; nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tidings.brokers.kafka.cluster import Cluster, Described, Place
from tidings.brokers.kafka.settings import Settings
from tidings.brokers.kafka.share import Known
from tidings.errors import BrokerRefused


class Standing(msgspec.Struct, frozen=True):
    """A group's place in one partition.

    Attributes:
        low: First offset that is still there.
        high: The one after the last that may be read.
        committed: Where the group goes on, or None.
        known: What is remembered beside that, or None.
        now: What the topic is now.
    """

    low: int
    high: int
    committed: int | None
    known: Known | None
    now: Known

    @property
    def start(self) -> int:
        """The first offset to read."""
        return self.low if self.committed is None else self.committed

    @property
    def changed(self) -> bool:
        """True where what is committed does not say what the topic is now."""
        return self.committed is None or self.known != self.now


def standings(cluster: Cluster, topics: Mapping[str, Described]) -> dict[Place, Standing]:
    """Where a group stands in all partitions of topics; blocks."""
    places = [(name, number) for name, each in topics.items() for number in range(each.partitions)]
    if not places:
        return {}
    committed, found = cluster.committed(places), {}
    for place, (low, high) in cluster.bounds(places).items():
        offset, known = committed.get(place, (None, None))
        found[place] = Standing(low, high, offset, known, topics[place[0]].known)
    return found


def check(settings: Settings, found: Mapping[Place, Standing], acknowledged: Mapping[str, int | None]) -> None:
    """Refuse to go on where something would be skipped or the order of keys be broken.

    Args:
        settings: Of the URL.
        found: Where the group stands, in all partitions of its topics.
        acknowledged: Name of a topic in Kafka -> partitions that the URL asks for, which is how one says that a change
            of their number is known.

    Raises:
        BrokerRefused: Says which topic and partition, the offsets, and the cure.
    """
    for (topic, partition), each in found.items():
        if each.committed is None:
            continue
        if (gone := _gone(each)) is not None:
            where = f"topic {topic}, partition {partition}: group {settings.group} is at offset {each.committed}"
            cure = (
                "stop the app, then say where it is to go on: kafka-consumer-groups --bootstrap-server "
                f"{settings.servers} --group {settings.group} --topic {topic} --reset-offsets --to-earliest --execute"
            )
            offsets = {"committed": each.committed, "low": each.low, "high": each.high}
            raise BrokerRefused(f"Kafka: {where}, {gone}", cure, topic=topic, partition=partition, **offsets)
        before, now = each.known and each.known.partitions, each.now.partitions
        if before is not None and before != now != acknowledged.get(topic):
            what = (
                f"Kafka: topic {topic} has {now} partitions, and {before} when group {settings.group} read it last: "
                "older and newer messages of a key lie in different ones, and may arrive in the wrong order"
            )
            cure = f"if that is known, say so in the URL: partitions={topic.removeprefix(settings.prefix)}:{now}"
            raise BrokerRefused(what, cure, topic=topic, now=now, before=before)


def _gone(each: Standing) -> str | None:
    """Why what comes next cannot be what came next when the offset was committed; None where it is."""
    committed = each.start
    if each.known is not None and each.known.topic and each.now.topic and each.known.topic != each.now.topic:
        return "which was in another topic of that name: it was made anew"
    if committed < each.low:
        return f"and the {each.low - committed} messages before {each.low} are gone unread (retention or deletion)"
    if committed > each.high:
        return f"and the topic ends at {each.high}: it was made anew or cut off"
    return None


def unread(found: Iterable[tuple[Standing, int]]) -> int:
    """How many messages lie between positions and ends; an upper bound where offsets have gaps."""
    return sum(max(0, each.high - max(position, each.low)) for each, position in found)
