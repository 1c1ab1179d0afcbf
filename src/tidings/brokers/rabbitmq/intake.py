"""Taking what comes from one queue: one channel, until it ends, then the next one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from tidings.brokers.rabbitmq.connection import Channel, Connection, settle
from tidings.brokers.rabbitmq.link import Pause
from tidings.brokers.rabbitmq.settings import Settings
from tidings.brokers.rabbitmq.topology import Topology
from tidings.brokers.rabbitmq.trouble import Ended, refusal_of
from tidings.brokers.rabbitmq.wire import BINDING, sent_in
from tidings.core.arrival import Arrival
from tidings.errors import BrokerError

WATCH = 10.0
"""Seconds after which a queue that sends nothing is asked whether it has something."""

_log = logging.getLogger("tidings.rabbitmq")


class Taker(Protocol):
    """Who gets what comes."""

    def took(self, arrival: Arrival) -> None:
        """A message came."""

    def note(self) -> None:
        """A queue began to send, or cannot."""


class Receipt:
    """Everything that came from one queue over one channel. Delivery tags mean something to that channel only.

    Attributes:
        came: How many messages came.
    """

    def __init__(self, channel: Channel) -> None:
        self.came = 0
        self._channel = channel
        self._open: deque[int] = deque()
        self._settled: set[int] = set()  # of the open ones

    @property
    def alive(self) -> bool:
        """False once the channel is gone: what came over it comes again, whatever is said about it."""
        return bool(self._channel.raw.is_open)

    @property
    def unsettled(self) -> int:
        """How many messages are not settled."""
        return len(self._open) - len(self._settled)

    def took(self, tag: int) -> None:
        """Note a message that came."""
        self.came += 1
        self._open.append(tag)

    def settle(self, tags: Iterable[int]) -> None:
        """Acknowledge messages: all those at the front in one word, the others one by one."""
        if not self.alive:
            return
        fresh = set(tags)
        self._settled |= fresh
        upto = 0
        while self._open and self._open[0] in self._settled:
            tag = self._open.popleft()
            self._settled.discard(tag)
            if tag in fresh:
                upto = tag
        if upto:
            self._channel.raw.basic_ack(upto, multiple=True)
        for tag in sorted(fresh):
            if tag > upto:
                self._channel.raw.basic_ack(tag)


class Intake:
    """Takes what comes from one queue, and asks for it again whenever that ends.

    Attributes:
        topic: What is published there.
        queue: Its name.
        receipt: Of the channel it takes from at the moment, or None.
        trouble: Why it takes nothing, or None.
    """

    def __init__(self, taker: Taker, topology: Topology, topic: str, queue: str) -> None:
        self.topic = topic
        self.queue = queue
        self.receipt: Receipt | None = None
        self.trouble: BrokerError | None = None
        self._taker = taker
        self._topology = topology
        self._settings: Settings = topology.settings
        self._task: asyncio.Task[None] | None = None
        self._over: asyncio.Future[str] | None = None

    @property
    def busy(self) -> bool:
        """True where the server has chosen this worker: messages come."""
        return self.receipt is not None and self.receipt.came > 0

    def give_way(self) -> None:
        """Let another worker have the queue, and wait in line behind all others.

        What is not settled goes to that worker, in order and before all that follows.
        """
        if self._over is not None:
            settle(self._over, "another worker is to have it")

    def start(self, connection: Connection) -> None:
        """Begin to take, over this connection."""
        self._task = asyncio.create_task(self._run(connection))

    async def stop(self) -> None:
        """Take no more; what is not settled comes again elsewhere."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self, connection: Connection) -> None:
        pause = Pause()
        while not connection.ended.done():
            try:
                why = await self._take(connection, pause)
            except Ended as error:
                self._note(refusal_of(self._settings, error))
            except BrokerError as error:
                self._note(error)
            else:
                if not connection.ended.done():
                    _log.info("RabbitMQ: the queue %s is asked again for messages: %s", self.queue, why)
            await pause.wait()

    def _note(self, trouble: BrokerError | None) -> None:
        if trouble is not None and not trouble.transient and str(trouble) != str(self.trouble):
            _log.warning("%s", trouble)
        self.trouble = trouble
        self._taker.note()

    async def _take(self, connection: Connection, pause: Pause) -> str:
        """Receive until the server or the network ends it; says what ended it."""
        await self._topology.ensure(connection, self._topology.parts([self.topic]))
        channel = await connection.channel()
        await channel.call("basic_qos", prefetch_count=self._settings.prefetch)
        receipt = Receipt(channel)
        self._over = over = connection.loop.create_future()
        channel.raw.add_on_cancel_callback(lambda _: settle(over, "the server has cancelled it"))
        place = f"queue {self.queue}, delivery"

        def arrived(_channel: object, method: Any, properties: Any, body: bytes) -> None:
            tag = method.delivery_tag
            receipt.took(tag)
            sent = sent_in(properties)
            self._taker.took(Arrival(self.topic, body, sent, f"{place} {tag}", None, (receipt, tag), BINDING))

        await channel.call("basic_consume", queue=self.queue, on_message_callback=arrived)
        pause.begin()
        self.receipt = receipt
        self._note(None)
        try:
            return await self._watch(connection, channel, receipt, over)
        finally:
            self.receipt = None
            channel.close()

    async def _watch(
        self, connection: Connection, channel: Channel, receipt: Receipt, over: asyncio.Future[str]
    ) -> str:
        """Wait for the end. Where nothing comes although something waits, a silence is an end as well."""
        came, silent = 0, 0
        while True:
            ends: list[asyncio.Future[Any]] = [channel.ended, over]
            await asyncio.wait(ends, timeout=WATCH, return_when=asyncio.FIRST_COMPLETED)
            if channel.ended.done():
                return channel.ended.result().text
            if over.done():
                return over.result()
            if receipt.came != came or receipt.unsettled:
                came, silent = receipt.came, 0
                continue
            with contextlib.closing(await connection.channel()) as other:
                ready, takers = await depth(other, self.queue)
            silent = silent + 1 if ready and receipt.came == came else 0
            if silent > 1 or (silent and not takers):
                return f"{ready} messages wait there, and none comes"


async def depth(channel: Channel, queue: str) -> tuple[int, int]:
    """How many messages of a queue nobody has taken, and how many take from it."""
    found = (await channel.call("queue_declare", queue=queue, passive=True)).method
    return int(found.message_count), int(found.consumer_count)
