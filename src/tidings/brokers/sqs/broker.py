"""The adapter for AWS SNS and SQS."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tidings.brokers.sqs import looking
from tidings.brokers.sqs.connection import CALLS, Clients, connect, reach, trouble
from tidings.brokers.sqs.declaring import Declaring, Place, Queue
from tidings.brokers.sqs.intake import Intake
from tidings.brokers.sqs.names import queue_name
from tidings.brokers.sqs.publishing import MAX_DATA, Numbered, Publishing, TopicGone, batches, too_large
from tidings.brokers.sqs.settings import read_settings
from tidings.brokers.sqs.settling import lanes, settle
from tidings.brokers.sqs.topology import cloudformation, topology
from tidings.brokers.sqs.wire import Receipt, entry_of
from tidings.core.arrival import DEADLINE, Arrival, Result, Unknown
from tidings.core.check import Check
from tidings.core.envelope import Envelope
from tidings.core.guarantees import Guarantees
from tidings.core.message import addressee
from tidings.core.resource import Resource
from tidings.errors import BrokerError, BrokerUnavailable

T = TypeVar("T")

_PUBLISHING = 8
"""Batches of one publication that are under way at once."""

_MARGIN = 2.0  # seconds of the deadline that are left to tell how it ended


class SqsBroker:
    """Topics of SNS, each fanned out to a queue of SQS for every app that subscribes.

    Args:
        url: `sqs://eu-central-1?fifo=true&prefix=shop-&endpoint=http://127.0.0.1:4566`; see docs/sqs.md.
        app: Whose queues these are.

    Raises:
        BadUrl: The URL says what cannot be.
    """

    def __init__(self, url: str, app: str) -> None:
        self._settings = read_settings(url)
        self._app = app
        self.url = self._settings.shown
        self.guarantees = Guarantees(
            name="SQS FIFO" if self._settings.fifo else "SQS",
            ordered=self._settings.fifo,
            history=False,
            exactly_once=True,
            durable="replicated",
            max_bytes=MAX_DATA,
        )
        self._clients: Clients | None = None
        self._intake: Intake | None = None
        self._calls: ThreadPoolExecutor | None = None
        self._places: dict[str, Place] = {}
        self._placing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # held by who makes one
        self._queues: dict[str, Queue] = {}

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable, or BrokerRefused where waiting will not help."""
        self._calls = ThreadPoolExecutor(CALLS, thread_name_prefix="tidings-sqs")
        try:
            self._clients = await self._call(connect, self._settings)
            name = queue_name(self._app, "anybody-there", prefix=self._settings.prefix, fifo=self._settings.fifo)
            await self._call(reach, self._clients, self._settings, name)
        except BaseException:
            await self.close()
            raise
        self._intake = Intake(self._clients, self._settings, self._redeclare)

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Make or compare the queues of these topics, and begin to receive from them.

        Raises:
            BrokerUnavailable: It cannot be reached.
            BrokerRefused: What is there differs from what is needed, or may not be used; says the difference.
        """
        declaring = self._declaring
        for topic in topics:
            if topic not in self._queues:
                self._queues[topic] = await self._call(declaring.queue, topic)
                self._open_intake.receive(self._queues[topic])

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        """Publish envelopes; returns what became of each, in the order given, within `DEADLINE` seconds."""
        deadline = time.monotonic() + DEADLINE - _MARGIN
        results: list[Result] = [Unknown(f"no answer within {DEADLINE:.0f} s")] * len(envelopes)
        by_topic: dict[str, list[int]] = {}
        for at, envelope in enumerate(envelopes):
            by_topic.setdefault(envelope.topic or "", []).append(at)
        topics = (self._publish(topic, envelopes, places, results, deadline) for topic, places in by_topic.items())
        await asyncio.gather(*topics)
        return list(results)  # a thread that is late still writes into the other one

    async def fetch(self, limit: int, wait: float) -> Sequence[Arrival]:
        """Up to `limit` messages that arrived; waits up to `wait` seconds for the first.

        Raises:
            BrokerUnavailable: It cannot be reached at the moment; nothing is lost by that.
            BrokerRefused: It will not deliver until somebody mends something; says what.
        """
        return await self._open_intake.fetch(limit, wait)

    async def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Delete messages that are safe here; those that cannot be deleted come again."""
        receipts: list[Receipt] = [arrival.token for arrival in arrivals]
        deadline = time.monotonic() + DEADLINE - _MARGIN
        found = lanes(receipts)
        calls = [self._start(settle, self._open, self._settings, lane, deadline) for lane in found]
        if calls:
            await asyncio.wait(calls, timeout=DEADLINE)
        self._open_intake.settled(receipts)
        for lane, call in zip(found, calls, strict=True):
            if call.done() and (refused := call.result()) is not None:
                self._open_intake.note(lane[0].queue, refused)

    async def waiting(self) -> int:
        """About how many messages wait for this app, those included that are fetched and not settled.

        Raises:
            BrokerError: It cannot be asked.
        """
        counts = [self._start(self._count, queue) for queue in self._queues.values()]
        return sum(await asyncio.gather(*counts))

    async def close(self) -> None:
        """Stop receiving and give back what is not settled; others get it at once. Safe to call twice."""
        calls, clients, intake = self._calls, self._clients, self._intake
        self._calls = self._clients = self._intake = None
        self._queues, self._places = {}, {}
        self._placing.clear()  # locks are of one event loop
        if calls is None:
            return
        if intake is not None:
            await asyncio.wait([asyncio.get_running_loop().run_in_executor(calls, intake.close)], timeout=DEADLINE)
        if clients is not None:
            clients.close()
        calls.shutdown(wait=False, cancel_futures=True)

    def look(self) -> Sequence[Check]:
        """For the doctor: how it is set up, over a connection of its own; blocks."""
        return looking.look(self._settings, self._app)

    def topology(self, topics: Sequence[str]) -> Sequence[Resource]:
        """What is needed to receive these topics."""
        return topology(self._settings, self._app, topics)

    def export(self, topics: Sequence[str]) -> str:
        """The same as a CloudFormation template, in JSON."""
        return cloudformation(self._settings, self._app, topics)

    # ---- inside ------------------------------------------------------------------------------------------------------

    @property
    def _open(self) -> Clients:
        if self._clients is None:
            raise BrokerUnavailable(f"SQS in {self._settings.region}: not connected", "open it first")
        return self._clients

    @property
    def _open_intake(self) -> Intake:
        if self._intake is None:
            raise BrokerUnavailable(f"SQS in {self._settings.region}: not connected", "open it first")
        return self._intake

    @property
    def _declaring(self) -> Declaring:
        return Declaring(self._open, self._settings, self._app)

    def _start(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        if self._calls is None:
            raise BrokerUnavailable(f"SQS in {self._settings.region}: not connected", "open it first")
        return asyncio.get_running_loop().run_in_executor(self._calls, function, *arguments)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._start(function, *arguments)

    async def _publish(
        self, topic: str, envelopes: Sequence[Envelope], places: Sequence[int], results: list[Result], deadline: float
    ) -> None:
        try:
            place = await self._place(topic, deadline)
        except (BrokerError, TimeoutError) as error:
            for at in places:
                results[at] = Unknown(str(error) or f"the topic {topic} did not answer")
            return
        entries: list[Numbered] = []
        for at in places:
            entry = entry_of(envelopes[at], fifo=self._settings.fifo)
            refused = too_large(envelopes[at], entry, place)
            if refused is None:
                entries.append((at, entry))
            else:
                results[at] = refused
        waiting = deque(batches(entries, place.limit))
        publishing = Publishing(self._open, self._settings)
        calls = [
            self._start(publishing.publish, place, waiting, results, deadline)
            for _ in range(min(_PUBLISHING, len(waiting)))
        ]
        if not calls:
            return
        done, _ = await asyncio.wait(calls, timeout=max(0.0, deadline - time.monotonic()) + _MARGIN / 2)
        if any(isinstance(call.exception(), TopicGone) for call in done):
            self._places.pop(topic, None)  # looked up, or declared, again when it is published again

    async def _place(self, topic: str, deadline: float) -> Place:
        if topic in self._places:
            return self._places[topic]
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())), self._placing[topic]:
            if topic not in self._places:  # who came first has not made it meanwhile
                if (whose := addressee(topic)) is not None:  # it may never have run, and must not miss it
                    await self._call(Declaring(self._open, self._settings, whose).queue, topic)
                self._places[topic] = await self._call(self._declaring.topic, topic)
            return self._places[topic]

    def _redeclare(self, queue: Queue) -> Queue:
        self._places.pop(queue.topic, None)
        made = self._declaring.queue(queue.topic)
        self._queues[queue.topic] = made
        return made

    def _count(self, queue: Queue) -> int:
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        try:
            counted = self._open.sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)
        except Exception as error:
            raise trouble(error, self._settings, f"count what waits in {queue.name}") from error
        return sum(int(counted["Attributes"].get(name, 0)) for name in names)
