"""The adapter for RabbitMQ: two connections on a thread of their own, one to publish and one to receive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from tidings.brokers.rabbitmq.consumer import Consumer
from tidings.brokers.rabbitmq.publisher import Publisher
from tidings.brokers.rabbitmq.settings import UNVERIFIED, settings_of
from tidings.brokers.rabbitmq.thread import LoopThread
from tidings.brokers.rabbitmq.topology import Topology
from tidings.core.arrival import Arrival, Result, Unknown
from tidings.core.check import Check
from tidings.core.codec import MAX_BYTES
from tidings.core.envelope import Envelope
from tidings.core.guarantees import Guarantees
from tidings.core.resource import Resource
from tidings.errors import BrokerUnavailable

log = logging.getLogger("tidings")

LEISURE, MANY = 0.02, 100
"""Seconds for which acknowledgements are gathered, so that they disturb nobody, and how many wait no longer."""


class RabbitBroker:
    """RabbitMQ as a carrier of envelopes: at least once, in order per key, no history.

    Args:
        url: `amqp://user:password@host:port/vhost`, `amqps://` for TLS; docs/rabbitmq.md has the options.
        app: Name of the app whose queues are read.
    """

    guarantees: ClassVar[Guarantees] = Guarantees(
        "RabbitMQ", ordered=True, history=False, exactly_once=False, durable="replicated", max_bytes=MAX_BYTES
    )

    def __init__(self, url: str, app: str) -> None:
        self._settings = settings_of(url)
        self._topology = Topology(self._settings, app)
        self.url = self._settings.url.safe
        self.app = app
        self._thread: LoopThread | None = None
        self._publisher: Publisher
        self._consumer: Consumer
        self._bell = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._hungry = False
        self._settled: list[Any] = []  # tokens of what is to be acknowledged

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable, or BrokerRefused where waiting will not help."""
        if self._thread is not None:
            return
        if self._settings.trusting:
            log.warning("%s: RabbitMQ at %s: %s", self.app, self._settings.place, UNVERIFIED)
        self._loop = asyncio.get_running_loop()
        self._thread = LoopThread(f"tidings-rabbitmq-{self.app}")
        try:
            await self._thread.run(self._start())
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        self._consumer = Consumer(self._settings, self._topology, self._wake)
        self._publisher = Publisher(self._settings, self._topology, lambda topic: topic in self._consumer.topics)
        await self._publisher.link.start()

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Declare the queues of these topics for this app, and begin to receive.

        Raises:
            BrokerUnavailable: The server cannot be reached.
            BrokerRefused: What is there differs from what is needed, or may not be used; says the difference.
        """
        await self._apart.run(self._consumer.subscribe(topics))

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        """Publish envelopes and wait until the server has confirmed each; results are in the order given."""
        if (thread := self._thread) is None:
            return [Unknown("the broker is not open")] * len(envelopes)
        results: Sequence[Result] = await thread.ask(self._publisher.publish, envelopes)
        return results

    async def fetch(self, limit: int, wait: float) -> Sequence[Arrival]:
        """Up to `limit` messages that arrived; waits up to `wait` s for the first.

        Raises:
            BrokerUnavailable: The server cannot be reached at the moment.
            BrokerRefused: It will not deliver until somebody mends something.
        """
        _ = self._apart
        end = self._loop.time() + wait
        while not (found := self._taken(limit)) and self._loop.time() < end:
            self._bell.clear()
            self._hungry = True
            if found := self._taken(limit):  # what came while the bell was cleared
                break
            self._ring_by(end)
            await self._bell.wait()
        self._hungry = False
        if not found and (trouble := self._consumer.trouble) is not None:
            raise trouble
        return found

    def _ring_by(self, end: float) -> None:
        """Have the bell ring then, or before: a timer for every message would be one too many."""
        if self._timer is not None:
            if self._timer.when() <= end:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(end, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._bell.set()

    def _taken(self, limit: int) -> list[Arrival]:
        buffer = self._consumer.buffer
        found: list[Arrival] = []
        while buffer and len(found) < limit:
            arrival = buffer.popleft()
            if arrival.token[0].alive:  # else it comes again, over another channel
                found.append(arrival)
        return found

    def _wake(self) -> None:
        """On the other thread: messages came."""
        if self._hungry:
            self._hungry = False
            with contextlib.suppress(RuntimeError):  # the app's loop is closed
                self._loop.call_soon_threadsafe(self._bell.set)

    async def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Acknowledge messages. Those of a connection that is gone come again, which is no error."""
        is_first = not self._settled
        self._settled += [arrival.token for arrival in arrivals]
        if len(self._settled) >= min(MANY, self._settings.prefetch / 2):  # the server sends no more than that ahead
            self._acknowledge()
        elif is_first and arrivals:
            self._loop.call_later(LEISURE, self._acknowledge)

    def _acknowledge(self) -> None:
        tokens, self._settled = self._settled, []
        if tokens and self._thread is not None:
            self._thread.send(self._consumer.settle, tokens)

    async def waiting(self) -> int:
        """How many messages wait in the queues of this app.

        What another worker of the app has fetched and not settled is not seen from here.
        """
        self._acknowledge()
        return await self._apart.run(self._consumer.waiting())

    async def close(self) -> None:
        """Disconnect; what is not settled comes again. Safe to call twice."""
        self._acknowledge()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.run(self._stop())
            await thread.close()

    async def _stop(self) -> None:
        self._publisher.stop()
        await asyncio.gather(self._publisher.link.stop(), self._consumer.link.stop())
        self._consumer.buffer.clear()

    def topology(self, topics: Sequence[str]) -> Sequence[Resource]:
        """The exchanges, queues and bindings that must be there for this app to receive these topics."""
        return [each.resource for each in self._topology.parts(topics)]

    def export(self, topics: Sequence[str]) -> str:
        """The same as commands of rabbitmqadmin."""
        return self._topology.export(topics)

    def look(self) -> Sequence[Check]:
        """For the doctor: how the server is set up, over a connection of its own; blocks."""
        from tidings.brokers.rabbitmq.doctor import look

        return look(self._settings, self._topology)

    @property
    def _apart(self) -> LoopThread:
        if self._thread is None:
            raise BrokerUnavailable(f"RabbitMQ at {self._settings.place}: the broker is not open", "open it first")
        return self._thread
