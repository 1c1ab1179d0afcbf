"""`python -m benchmarks.kafka [--only NAME]... [--quick]`: tidings on Kafka beside confluent-kafka and FastStream.

It starts a server of its own, and removes it. Both sides have the same server, records, settings and durability.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from faststream import AckPolicy
from faststream import confluent as fast

from benchmarks import carried
from benchmarks.bare import Log, messages
from benchmarks.carried import Placed, placed_in, steadily
from benchmarks.command import command, served
from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch, during, family
from benchmarks.shop import encode, order
from tests.servers.kafka import KafkaServer
from tidings.brokers.kafka import KafkaBroker
from tidings.brokers.kafka.wire import headers_of
from tidings.core.arrival import Arrival, Confirmed
from tidings.core.envelope import Envelope
from tidings.testing.conformance.broker.making import envelope

BATCH = 100
PARTITIONS = 6

SERVER: list[KafkaServer] = []
IDS = itertools.count()
ENVELOPES = [envelope("orders", f"o-{n:07}", data=encode(order(f"o-{n:07}"))) for n in range(BATCH)]
CLIENT = {"acks": "all", "enable.idempotence": True, "linger.ms": 0, "compression.type": "lz4"}
GROUP = {"enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 100}


def batch() -> list[Envelope]:
    """A hundred messages of a hundred keys."""
    return [envelope("orders", each.key, id=f"{next(IDS)}", data=each.data) for each in ENVELOPES]


def address() -> str:
    [server] = SERVER
    return server.address


def new_prefix() -> str:
    """Of a new topic "orders" that is there."""
    prefix, asking = f"b{uuid.uuid4().hex[:8]}-", AdminClient({"bootstrap.servers": address()})
    asking.create_topics([NewTopic(f"{prefix}orders", PARTITIONS, 1)])[f"{prefix}orders"].result()
    time.sleep(0.5)
    return prefix


def fill(prefix: str, messages: int) -> None:
    """Publish messages to be read."""
    producer = Producer({"bootstrap.servers": address(), **CLIENT, "linger.ms": 50})
    for _ in range(messages // BATCH):
        for each in batch():
            producer.produce(f"{prefix}orders", each.data, each.key, headers=headers_of(each))
        producer.poll(0)
        while len(producer) > 50_000:
            producer.poll(0.1)
    producer.flush()


def using(prefix: str, *topics: str) -> Callable[[asyncio.Runner, str], KafkaBroker]:
    """Opens an adapter in a runner."""

    def connect(runner: asyncio.Runner, app: str) -> KafkaBroker:
        broker = KafkaBroker(f"kafka://{address()}?prefix={prefix}", app)
        runner.run(broker.open())
        if topics:
            runner.run(broker.subscribe(topics))
        return broker

    return connect


# ---- publish ---------------------------------------------------------------------------------------------------------


@contextmanager
def bare_publish(folder: Path, effort: Effort) -> Iterator[Round]:
    """Hand over a hundred records, poll until all are confirmed, and again."""
    topic, producer = f"{new_prefix()}orders", Producer({"bootstrap.servers": address(), **CLIENT})

    def run() -> Sample:
        left = 0

        def delivered(error: object, _: object) -> None:
            nonlocal left
            assert error is None
            left -= 1

        watch = Stopwatch()
        for number in during(effort.seconds):
            left = BATCH
            for each in batch():
                producer.produce(topic, each.data, each.key, headers=headers_of(each), on_delivery=delivered)
            while left:
                producer.poll(1)
            done = (number + 1) * BATCH
        return watch.sample(done)

    yield run


@contextmanager
def publish(folder: Path, effort: Effort) -> Iterator[Round]:
    """`publish` of a hundred, and again."""

    async def run(broker: KafkaBroker) -> Sample:
        watch = Stopwatch()
        for number in during(effort.seconds):
            results = await broker.publish(batch())
            assert all(each == Confirmed() for each in results)
            done = (number + 1) * BATCH
        return watch.sample(done)

    with asyncio.Runner() as runner:
        broker = using(new_prefix())(runner, "shop")
        yield lambda: runner.run(run(broker))
        runner.run(broker.close())


# ---- consume ---------------------------------------------------------------------------------------------------------


def bare_consume(each: int) -> Side:
    """`consume` and a commit for so many, from the beginning of the topic on; one by one, each is waited for."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        prefix = new_prefix()
        fill(prefix, effort.events)

        def run() -> Sample:
            consumer = Consumer({"bootstrap.servers": address(), "group.id": uuid.uuid4().hex, **GROUP})
            consumer.subscribe([f"{prefix}orders"])
            while not consumer.assignment():
                consumer.poll(0.1)
            done, watch = 0, Stopwatch()
            most = effort.events * (0.9 if each > 1 else 0.02)  # what came while it joined is not counted
            while done < most:
                found = consumer.consume(each, 1.0)
                for record in found:
                    record.value(), record.key(), record.headers(), record.offset()
                done += len(found)
                if found:
                    consumer.commit(asynchronous=each > 1)
            sample = watch.sample(done)
            consumer.close()
            return sample

        yield run

    return side


def consume(look: Callable[[Arrival], object] = bool) -> Side:
    """`fetch(100)` and `settle`, from the beginning to the end of the topic. Args: look: at each, in between."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        prefix = new_prefix()
        fill(prefix, effort.events)

        async def run(broker: KafkaBroker) -> Sample:
            await broker.settle(await broker.fetch(1, 10.0))
            done, watch = 0, Stopwatch()
            while done < effort.events * 0.9:
                found = await broker.fetch(BATCH, 1.0)
                for each in found:
                    look(each)
                await broker.settle(found)
                done += len(found)
            return watch.sample(done)

        def once() -> Sample:
            with asyncio.Runner() as runner:
                broker = using(prefix, "orders")(runner, f"a{uuid.uuid4().hex[:8]}")
                sample = runner.run(run(broker))
                runner.run(broker.close())
                return sample

        yield once

    return side


handle = consume(placed_in)


# ---- latency ---------------------------------------------------------------------------------------------------------


def bare_latency(*, kept: bool) -> Side:
    """Produce at a steady rate; a thread polls for what arrives. Args: kept: with a bare log at either end."""

    @contextmanager
    def side(folder: Path, effort: Effort) -> Iterator[Round]:
        outbox, inbox = (Log(folder if kept else None, name) for name in ("outbox", "inbox"))
        with _bare_latency(messages(effort), outbox, inbox) as turn:
            yield turn
        outbox.close()
        inbox.close()

    return side


@contextmanager
def _bare_latency(total: int, outbox: Log, inbox: Log) -> Iterator[Round]:
    topic = f"{new_prefix()}orders"
    producer = Producer({"bootstrap.servers": address(), **CLIENT})
    consumer = Consumer({"bootstrap.servers": address(), "group.id": uuid.uuid4().hex, **GROUP})
    consumer.subscribe([topic])
    while not consumer.assignment():
        consumer.poll(0.1)
    each = ENVELOPES[0]

    def receive(count: int) -> list[float]:
        found: list[float] = []
        while len(found) < count:
            message = consumer.poll(5)
            assert message is not None
            inbox.keep(message.value())
            found.append(time.monotonic() - float(message.key()))
            inbox.handled(len(found))
        return found

    async def run() -> Sample:
        receiving = asyncio.create_task(asyncio.to_thread(receive, total))

        def send() -> None:
            began = time.monotonic()
            outbox.keep(each.data)
            producer.produce(topic, each.data, str(began), headers=headers_of(each))
            producer.poll(0)

        watch = Stopwatch()
        await steadily(send, total)
        latencies = await receiving
        return watch.sample(len(latencies), latencies)

    with asyncio.Runner() as runner:
        yield lambda: runner.run(run())
    consumer.close()


# ---- FastStream ------------------------------------------------------------------------------------------------------


def faststream() -> fast.KafkaBroker:
    """It as it comes, over the same client with the same settings; it does not log each message."""
    settings = {"allow_auto_create_topics": False, "acks": "all", "enable_idempotence": True, "linger_ms": 0}
    return fast.KafkaBroker(address(), compression_type="lz4", logger=None, **settings)


@contextmanager
def faststream_publish(folder: Path, effort: Effort) -> Iterator[Round]:
    """A hundred calls of `publish` at once, all confirmed, and again."""

    async def run(topic: str) -> Sample:
        async with faststream() as broker:
            await broker.publish(ENVELOPES[0].data, topic)
            watch = Stopwatch()
            for number in during(effort.seconds):
                sending = (
                    broker.publish(each.data, topic, key=each.key, headers=dict(headers_of(each))) for each in batch()
                )
                await asyncio.gather(*sending)
                done = (number + 1) * BATCH
            return watch.sample(done)

    yield lambda: asyncio.run(run(f"{new_prefix()}orders"))


@contextmanager
def faststream_consume(folder: Path, effort: Effort) -> Iterator[Round]:
    """A handler that is given orders, each committed after it; its first seconds of the topic."""
    prefix = new_prefix()
    fill(prefix, effort.events)

    async def run() -> Sample:
        broker, seen, enough = faststream(), 0, asyncio.Event()

        @broker.subscriber(
            f"{prefix}orders",
            group_id=uuid.uuid4().hex,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        async def handle(placed: Placed) -> None:
            nonlocal seen, watch
            if not seen:
                watch = Stopwatch()
            seen += 1
            if time.perf_counter() > watch.started + 3 * effort.seconds:
                enough.set()

        watch = Stopwatch()
        async with broker:
            await broker.start()
            await enough.wait()
            return watch.sample(seen)

    yield lambda: asyncio.run(run())


# ---- apps ------------------------------------------------------------------------------------------------------------


@contextmanager
def corner() -> Iterator[str]:
    """Topics of one's own; they keep what is published for every group."""
    yield f"kafka://{address()}?prefix={new_prefix()}"


CLIENT_100, COMMIT_100 = "floor: confluent-kafka, 100 in flight", "floor: confluent-kafka, a commit each 100"
PEER = "peer: FastStream over confluent-kafka"

FIGURES = (
    *family(
        "kafka",
        ("publish", "publish, 100 in flight", publish, bare_publish, 0.7, CLIENT_100),
        ("publish.faststream", "the same", publish, faststream_publish, 1.2, PEER),
        ("consume", "fetch and settle", consume(), bare_consume(BATCH), 0.2, COMMIT_100),
        (
            "handle.faststream",
            "fetch, decode and settle",
            handle,
            faststream_consume,
            10.0,
            f"{PEER}, ack after success",
        ),
    ),
    *carried.figures("kafka", corner, "confluent-kafka", bare_consume(1), bare_consume(BATCH), bare_latency),
)

if __name__ == "__main__":
    sys.exit(command("benchmarks.kafka", __doc__, FIGURES, "kafka", served(KafkaServer, SERVER)))
