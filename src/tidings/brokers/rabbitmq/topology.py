"""What must be there for topics to be carried: exchanges, queues and the bindings between them.

The exchange of a topic takes what anybody publishes. The queue of an app and a topic keeps what that app has not taken
yet. Each queue feeds one worker at a time, so that messages of one key arrive in order however many workers there are;
with shards there are several queues, and a key always goes to the same of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tidings.brokers.rabbitmq.connection import Channel, Connection
from tidings.brokers.rabbitmq.settings import LONGEST_NAME, PREFIX, Settings
from tidings.brokers.rabbitmq.trouble import NOT_FOUND, REFUSED, Ended, refusal_of
from tidings.core.message import addressee
from tidings.core.resource import Resource
from tidings.errors import BrokerRefused

_ROLL: Mapping[str, str | int | bool] = {"x-queue-type": "quorum"}
_QUEUE: Mapping[str, str | int | bool] = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    # RabbitMQ 4 drops what has come back twenty times, unless told otherwise; all versions take a large number.
    "x-delivery-limit": 1_000_000_000,
}


@dataclass(frozen=True)
class Exchange:
    """Where messages are published; it keeps none.

    Attributes:
        name: Its name.
        type: "topic", or "x-consistent-hash".
    """

    name: str
    type: str = "topic"

    @property
    def resource(self) -> Resource:
        """For people."""
        return Resource("exchange", self.name, {"type": self.type})


@dataclass(frozen=True)
class Queue:
    """Where messages wait for an app.

    Attributes:
        name: Its name.
        arguments: What it was declared with.
    """

    name: str
    arguments: Mapping[str, str | int | bool] = field(default_factory=lambda: _QUEUE, hash=False)

    @property
    def resource(self) -> Resource:
        """For people."""
        return Resource("queue", self.name, {name: str(value) for name, value in self.arguments.items()})


@dataclass(frozen=True)
class Binding:
    """What goes from an exchange on to a queue or to another exchange.

    Attributes:
        source: Name of the exchange.
        target: Name of the queue or exchange.
        key: Which messages: "#" for all; at an exchange that hashes, the share of the target.
        to_exchange: True where the target is an exchange.
    """

    source: str
    target: str
    key: str
    to_exchange: bool = False

    @property
    def resource(self) -> Resource:
        """For people."""
        return Resource("binding", f"{self.source} -> {self.target}", {"key": self.key})


Part = Exchange | Queue | Binding


@dataclass(frozen=True)
class Topology:
    """The names of everything, and how to declare it."""

    settings: Settings
    app: str

    def exchange(self, topic: str) -> Exchange:
        """Where messages of a topic are published."""
        return Exchange(f"{self.settings.prefix}{topic}")

    @property
    def _whose(self) -> str:
        """What the names of the app's queues begin with; names have no slash, so that no two apps have one queue."""
        given = "" if self.settings.prefix == PREFIX else f"{self.settings.prefix}/"
        return f"{given}{self.app.replace('.', '/')}"

    def queues(self, topic: str) -> list[str]:
        """The names of the queues where messages of a topic wait for the app."""
        name = f"{self._whose}.{topic}"
        return [name] if self.settings.shards == 1 else [f"{name}/{n}" for n in range(self.settings.shards)]

    @property
    def roll(self) -> str:
        """The name of the queue that tells how many workers share the shards: all of them take from it."""
        return f"{self._whose}/workers"

    def publishing(self, topic: str) -> list[Part]:
        """What must be there before something is published.

        What is for one app alone must not miss it where it never ran yet, so that its queue is declared as well.
        """
        whose = addressee(topic)
        return [self.exchange(topic)] if whose is None else Topology(self.settings, whose).parts([topic])

    def parts(self, topics: Sequence[str]) -> list[Part]:
        """All that must be there for the app to receive these topics, in the order in which it is declared."""
        shared = [Queue(self.roll, _ROLL)] if self.settings.shards > 1 else []
        return [*shared, *(part for topic in topics for part in self._parts(topic))]

    def _parts(self, topic: str) -> Iterator[Part]:
        source = self.exchange(topic)
        queues = self.queues(topic)
        yield source
        if len(queues) > 1:
            shards = Exchange(queues[0].removesuffix("/0"), "x-consistent-hash")
            yield shards
            yield Binding(source.name, shards.name, "#", to_exchange=True)
        for name in queues:
            yield Queue(name)
            yield Binding(source.name, name, "#") if len(queues) == 1 else Binding(shards.name, name, "1")

    def export(self, topics: Sequence[str]) -> str:
        """Commands of `rabbitmqadmin` that declare it all."""
        vhost = "" if self.settings.vhost == "/" else f" --vhost={self.settings.vhost}"
        return "".join(f"rabbitmqadmin{vhost} declare {_command(part)}\n" for part in self.parts(topics))

    async def ensure(self, connection: Connection, parts: Sequence[Part]) -> None:
        """Declare what is missing, or find out what is, as the settings say.

        Raises:
            BrokerRefused: Something is missing, differs, or may not be used; says what.
            BrokerUnavailable: The connection ended.
        """
        if self.settings.mode == "none":
            return
        _check_names(parts)
        if self.settings.mode == "verify":
            await self._verify(connection, parts)
            return
        part = parts[0]
        try:
            with contextlib.closing(await connection.channel()) as channel:
                for part in parts:
                    await declare(channel, part)
        except Ended as error:
            raise refusal_of(self.settings, error, _needed(part)) from error

    async def _verify(self, connection: Connection, parts: Sequence[Part]) -> None:
        """Find everything that is missing, then whether what is there is as it should be, and change nothing."""
        missing = []
        for part in parts:
            if isinstance(part, Binding):
                continue  # nobody can ask for one without making it
            try:
                with contextlib.closing(await connection.channel()) as channel:
                    await declare(channel, part, passive=True)
                    await declare(channel, part)  # it exists: this compares
            except Ended as error:
                if error.ending.code == NOT_FOUND:
                    missing.append(f"{type(part).__name__.lower()} {part.name}")
                elif error.ending.code != REFUSED:  # who may not declare cannot compare
                    raise refusal_of(self.settings, error, _needed(part)) from error
        if missing:
            what = f"RabbitMQ at {self.settings.place} lacks {', '.join(missing)}"
            raise BrokerRefused(what, "declare it: tidings topology export prints the commands; or topology=declare")


def _check_names(parts: Sequence[Part]) -> None:
    for part in parts:
        if not isinstance(part, Binding) and len(part.name.encode()) > LONGEST_NAME:
            what = f"RabbitMQ: the name {part.name[:60]}... is longer than {LONGEST_NAME} bytes"
            raise BrokerRefused(what, "shorten the name of the app or of the topic")


async def declare(channel: Channel, part: Part, *, passive: bool = False) -> None:
    """Declare a part; where it exists, find out whether it is the same. Raises Ended where it is not.

    Args:
        channel: It ends if this fails.
        part: What is to be there.
        passive: True only asks whether something of that name exists.
    """
    match part:
        case Exchange(name, kind):
            await channel.call("exchange_declare", exchange=name, exchange_type=kind, durable=True, passive=passive)
        case Queue(name, arguments):
            await channel.call("queue_declare", queue=name, durable=True, arguments=dict(arguments), passive=passive)
        case Binding(source, target, key, to_exchange=True):
            await channel.call("exchange_bind", destination=target, source=source, routing_key=key)
        case Binding(source, target, key):
            await channel.call("queue_bind", queue=target, exchange=source, routing_key=key)


def _needed(part: Part) -> str:
    """The arguments of a queue, for people."""
    arguments = part.arguments if isinstance(part, Queue) else {}
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())


def _command(part: Part) -> str:
    match part:
        case Exchange(name, kind):
            return f"exchange name='{name}' type={kind} durable=true"
        case Queue(name, arguments):
            return f"queue name='{name}' durable=true arguments='{json.dumps(dict(arguments))}'"
        case Binding(source, target, key, to_exchange):
            kind = "exchange" if to_exchange else "queue"
            return f"binding source='{source}' destination='{target}' destination_type={kind} routing_key='{key}'"
