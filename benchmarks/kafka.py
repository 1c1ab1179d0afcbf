"""`python -m benchmarks.kafka [--only NAME]... [--quick]`: the Kafka adapter beside bare loops over confluent-kafka.

It starts a server of its own, and removes it. Both sides have the same server, records, settings and durability.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks import report
from benchmarks.__main__ import RESULTS, say
from benchmarks.measure import (
    QUICK,
    Effort,
    Figure,
    Others,
    Round,
    Sample,
    Side,
    Stopwatch,
    during,
    measure,
    promptness,
)
from benchmarks.shop import encode, order
from tests.servers.kafka import KafkaServer
from tests.servers.servers import Servers
from tidings.brokers.kafka import KafkaBroker
from tidings.brokers.kafka.wire import headers_of
from tidings.core.arrival import Confirmed
from tidings.core.envelope import Envelope
from tidings.testing.conformance.broker.making import envelope

BATCH = 100
PARTITIONS = 6
RATE = 500
"""Messages a second, where latency is measured."""

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


@contextmanager
def bare_consume(folder: Path, effort: Effort) -> Iterator[Round]:
    """`consume(100)` and a commit, from the beginning to the end of the topic."""
    prefix = new_prefix()
    fill(prefix, effort.events)

    def run() -> Sample:
        consumer = Consumer({"bootstrap.servers": address(), "group.id": uuid.uuid4().hex, **GROUP})
        consumer.subscribe([f"{prefix}orders"])
        while not consumer.assignment():
            consumer.poll(0.1)
        done, watch = 0, Stopwatch()
        while done < effort.events * 0.9:  # what came while it joined is not counted
            found = consumer.consume(BATCH, 1.0)
            for each in found:
                each.value(), each.key(), each.headers(), each.offset()
            done += len(found)
            if found:
                consumer.commit(asynchronous=True)
        sample = watch.sample(done)
        consumer.close()
        return sample

    yield run


@contextmanager
def consume(folder: Path, effort: Effort) -> Iterator[Round]:
    """`fetch(100)` and `settle`, from the beginning to the end of the topic."""
    prefix = new_prefix()
    fill(prefix, effort.events)

    async def run(broker: KafkaBroker) -> Sample:
        await broker.settle(await broker.fetch(1, 10.0))
        done, watch = 0, Stopwatch()
        while done < effort.events * 0.9:
            found = await broker.fetch(BATCH, 1.0)
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


# ---- latency ---------------------------------------------------------------------------------------------------------


async def steadily(send: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Call at a steady rate."""
    began = time.monotonic()
    for number in range(int(RATE * seconds)):
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        await send()


@contextmanager
def bare_latency(folder: Path, effort: Effort) -> Iterator[Round]:
    """Produce at a steady rate; a thread polls for what arrives."""
    topic = f"{new_prefix()}orders"
    producer = Producer({"bootstrap.servers": address(), **CLIENT})
    consumer = Consumer({"bootstrap.servers": address(), "group.id": uuid.uuid4().hex, **GROUP})
    consumer.subscribe([topic])
    while not consumer.assignment():
        consumer.poll(0.1)
    [each, *_] = ENVELOPES

    def receive(count: int) -> list[float]:
        found: list[float] = []
        while len(found) < count:
            message = consumer.poll(5)
            assert message is not None
            found.append(time.monotonic() - float(message.key()))
        return found

    async def run() -> Sample:
        receiving = asyncio.create_task(asyncio.to_thread(receive, int(RATE * effort.seconds)))

        async def send() -> None:
            producer.produce(topic, each.data, str(time.monotonic()), headers=headers_of(each))
            producer.poll(0)

        watch = Stopwatch()
        await steadily(send, effort.seconds)
        latencies = await receiving
        return watch.sample(len(latencies), latencies)

    with asyncio.Runner() as runner:
        yield lambda: runner.run(run())
    consumer.close()


@contextmanager
def latency(folder: Path, effort: Effort) -> Iterator[Round]:
    """Publish at a steady rate, each in a task of its own; fetch and settle what arrives."""

    async def run(shop: KafkaBroker, billing: KafkaBroker) -> Sample:
        async def receive(count: int) -> list[float]:
            found: list[float] = []
            while len(found) < count:
                taken = await billing.fetch(BATCH, 5.0)
                found += [time.monotonic() - float(each.key or 0) for each in taken]
                await billing.settle(taken)
            return found

        tasks = []

        async def send() -> None:
            now = str(time.monotonic())
            tasks.append(asyncio.create_task(shop.publish([envelope("orders", now, data=ENVELOPES[0].data)])))

        receiving = asyncio.create_task(receive(int(RATE * effort.seconds)))
        watch = Stopwatch()
        await steadily(send, effort.seconds)
        latencies = await receiving
        sample = watch.sample(len(latencies), latencies)
        await asyncio.gather(*tasks)
        return sample

    with asyncio.Runner() as runner:
        prefix = new_prefix()
        shop, billing = using(prefix)(runner, "shop"), using(prefix, "orders")(runner, "billing")
        runner.run(shop.publish(ENVELOPES[:1]))
        taken = runner.run(billing.fetch(1, 10.0))
        runner.run(billing.settle(taken))
        yield lambda: runner.run(run(shop, billing))
        runner.run(shop.close())
        runner.run(billing.close())


def milliseconds(score: float) -> str:
    return f"{1000 / score:.2f} ms"


def figure(name: str, title: str, ours: Side, floor: Side, target: float, note: str) -> Figure:
    return Figure(name=f"kafka.{name}", title=title, ours=ours, floor=floor, target=target, note=note)


FIGURES = (
    figure("publish", "publish, 100 in flight", publish, bare_publish, 0.7, "floor: confluent-kafka, 100 in flight"),
    figure("consume", "fetch and settle", consume, bare_consume, 0.2, "floor: confluent-kafka, a commit each 100"),
    Figure(
        name="kafka.latency",
        title=f"end to end at {RATE} a second, p50",
        ours=latency,
        floor=bare_latency,
        target=0.5,
        score=promptness(0.5),
        shown=milliseconds,
        unit="ms",
        note="floor: confluent-kafka on a thread",
    ),
)


def main() -> int:
    """Measure what was asked for; 0 unless a figure could not be measured at all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kafka", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="figures whose name contains this")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it run, not how fast")
    asked = parser.parse_args()
    figures = [each for each in FIGURES if not asked.only or any(name in each.name for name in asked.only)]
    RESULTS.mkdir(exist_ok=True)
    servers = Servers()
    try:
        SERVER.append(servers.shared(KafkaServer))
        with tempfile.TemporaryDirectory(prefix="run-", dir=RESULTS) as folder:
            others = Others()
            results = list(measure(figures, Path(folder), QUICK if asked.quick else Effort(), say))
    finally:
        servers.close()
    say("")
    report.show(results, others.share())
    report.write(results, RESULTS / "kafka.jsonl", others.share())
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
