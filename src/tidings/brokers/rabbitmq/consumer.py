"""Receiving: a channel for each queue, a buffer that all of them fill, and settlement in as few words as possible."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

from tidings.brokers.rabbitmq.connection import Connection
from tidings.brokers.rabbitmq.intake import Intake, Receipt, depth
from tidings.brokers.rabbitmq.link import Link
from tidings.brokers.rabbitmq.settings import Settings
from tidings.brokers.rabbitmq.sharing import share
from tidings.brokers.rabbitmq.topology import Topology
from tidings.brokers.rabbitmq.trouble import Ended, refusal_of
from tidings.core.arrival import Arrival
from tidings.errors import BrokerError, BrokerUnavailable

PATIENCE = 30.0
"""Seconds that subscribing may take."""


class Consumer:
    """Receives what waits for an app, over a connection of its own.

    Args:
        settings: Of the server.
        topology: The names.
        wake: Called after messages came, once for many.
    """

    def __init__(self, settings: Settings, topology: Topology, wake: Callable[[], None]) -> None:
        self.link = Link(settings, "receive", self._serve)
        self.buffer: deque[Arrival] = deque()
        self._settings = settings
        self._topology = topology
        self._wake = wake
        self._came = False
        self._intakes: dict[str, Intake] = {}
        self._changed = asyncio.Event()

    @property
    def topics(self) -> set[str]:
        """What was subscribed to."""
        return {intake.topic for intake in self._intakes.values()}

    @property
    def trouble(self) -> BrokerError | None:
        """Why nothing comes at the moment, where that is known."""
        refused = [each.trouble for each in self._intakes.values() if each.trouble is not None]
        return next((each for each in refused if not each.transient), self.link.trouble)

    async def subscribe(self, topics: Sequence[str]) -> None:
        """See `Broker.subscribe`."""
        await self.link.start()
        fresh = []
        for topic in topics:
            for queue in self._topology.queues(topic):
                if queue not in self._intakes:
                    self._intakes[queue] = Intake(self, self._topology, topic, queue)
                    fresh.append(self._intakes[queue])
        if (connection := self.link.connection) is not None:
            for intake in fresh:
                intake.start(connection)
        asked = [intake for intake in self._intakes.values() if intake.topic in set(topics)]
        try:
            async with asyncio.timeout(PATIENCE):
                while not all(intake.receipt is not None for intake in asked):
                    if self.trouble is not None:
                        raise self.trouble
                    await self._changed.wait()
        except TimeoutError:
            what = f"RabbitMQ at {self._settings.place} sends nothing of {', '.join(topics)} yet"
            raise BrokerUnavailable(what, "it is tried again") from None

    async def waiting(self) -> int:
        """See `Broker.waiting`."""
        if not self._intakes:
            return 0
        if (connection := self.link.connection) is None:
            raise self.trouble or BrokerUnavailable(f"RabbitMQ at {self._settings.place} is not connected")
        found = 0
        try:
            with contextlib.closing(await connection.channel()) as channel:
                for queue, intake in self._intakes.items():
                    found += (await depth(channel, queue))[0]
                    found += intake.receipt.unsettled if intake.receipt is not None else 0
        except Ended as error:
            raise refusal_of(self._settings, error) from error
        return found

    def settle(self, tokens: Sequence[tuple[Receipt, int]]) -> None:
        """Acknowledge messages, those of each channel together."""
        found: dict[Receipt, list[int]] = {}
        for receipt, tag in tokens:
            found.setdefault(receipt, []).append(tag)
        for receipt, tags in found.items():
            receipt.settle(tags)

    def took(self, arrival: Arrival) -> None:
        """A message came: whoever fetches is woken, once for all that were read together."""
        self.buffer.append(arrival)
        self._came = True

    def _ring(self) -> None:
        if self._came:
            self._came = False
            self._wake()

    def note(self) -> None:
        """Something changed for those who subscribe."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _serve(self, connection: Connection) -> None:
        connection.on_read(self._ring)
        for intake in self._intakes.values():
            intake.start(connection)
        sharing = asyncio.create_task(share(connection, self._topology, self._intakes))
        try:
            await connection.end()
        finally:
            sharing.cancel()
            await asyncio.gather(*(intake.stop() for intake in self._intakes.values()))
