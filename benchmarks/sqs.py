"""`python -m benchmarks.sqs [--only NAME]... [--quick]`: the adapter for SNS and SQS beside boto3 in batches of ten.

Both sides have one emulator, the same queues, bodies and number of threads. The emulator takes a part of the machine
that AWS would not take, so look at the CPU that a message costs this process as well as at the rates.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import boto3
from botocore.config import Config

from benchmarks.command import command, served
from benchmarks.measure import Effort, Round, Sample, Side, Stopwatch, family
from benchmarks.shop import encode, order
from tests.servers.sqs import CREDENTIALS, REGION, SqsServer
from tidings.brokers.sqs import SqsBroker
from tidings.core.arrival import Confirmed
from tidings.core.cloudevent import to_json
from tidings.testing.conformance.broker.making import envelope

BATCH = 500
"""Envelopes that the runtime hands over, or takes, at once."""
TEN = 10
PUBLISHERS, CONSUMERS = 8, 4
"""Threads, as many as the adapter has."""
SHARE = 0.02
"""Of `Effort.events`: the messages of a round."""

SERVER: list[SqsServer] = []
NUMBERS = count(1)


def envelopes(number: int) -> list:
    """Envelopes of as many keys, each with an id that nobody had before."""
    fresh = [next(NUMBERS) for _ in range(number)]
    return [envelope(key=f"k-{at}", id=f"e-{at}", data=encode(order(f"o-{at:07}"))) for at in fresh]


# ---- ours ------------------------------------------------------------------------------------------------------------


@contextmanager
def brokers() -> Iterator[tuple[asyncio.Runner, SqsBroker, SqsBroker]]:
    """One that publishes and one that receives, in a corner of their own."""
    url = f"{SERVER[0].url}&fifo=true&poll=1&prefix={uuid.uuid4().hex[:8]}-"
    shop, billing = SqsBroker(url, "shop"), SqsBroker(url, "billing")
    with asyncio.Runner() as runner:
        runner.run(shop.open())
        runner.run(billing.open())
        runner.run(billing.subscribe(["orders"]))
        yield runner, shop, billing
        runner.run(shop.close())
        runner.run(billing.close())


async def publish(broker: SqsBroker, sent: list) -> None:
    """Publish in batches, each confirmed before the next."""
    for start in range(0, len(sent), BATCH):
        assert all(isinstance(each, Confirmed) for each in await broker.publish(sent[start : start + BATCH]))


async def drain(broker: SqsBroker, number: int) -> None:
    """Fetch and settle so many."""
    while number > 0:
        arrivals = await broker.fetch(BATCH, 1.0)
        await broker.settle(arrivals)
        number -= len(arrivals)


def publishing(effort: Effort) -> Sample:
    """Publish envelopes."""
    with brokers() as (runner, shop, _):
        sent = envelopes(int(effort.events * SHARE))
        watch = Stopwatch()
        runner.run(publish(shop, sent))
        return watch.sample(len(sent))


def consuming(effort: Effort) -> Sample:
    """Fetch and settle what was published before."""
    with brokers() as (runner, shop, billing):
        sent = envelopes(int(effort.events * SHARE))
        runner.run(publish(shop, sent))
        watch = Stopwatch()
        runner.run(drain(billing, len(sent)))
        return watch.sample(len(sent))


# ---- boto3 -----------------------------------------------------------------------------------------------------------


class Boto:
    """boto3 used well: threads, tens, connections that stay open."""

    def __init__(self) -> None:
        config = Config(max_pool_connections=PUBLISHERS)
        options = {"region_name": REGION, "endpoint_url": SERVER[0].endpoint, "config": config}
        self.sns, self.sqs = boto3.client("sns", **options), boto3.client("sqs", **options)
        name = f"boto-{uuid.uuid4().hex[:8]}.fifo"
        self.topic = self.sns.create_topic(Name=name, Attributes={"FifoTopic": "true"})["TopicArn"]
        self.queue = self.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
        raw = {"RawMessageDelivery": "true"}
        arn = self.topic.replace(":sns:", ":sqs:")
        self.sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn, Attributes=raw)
        self.left = 0

    def publish(self, bodies: list[tuple[str, str]]) -> None:
        """Publish ten."""
        entries = [
            {"Id": str(at), "Message": body, "MessageGroupId": id, "MessageDeduplicationId": id}
            for at, (id, body) in enumerate(bodies)
        ]
        answer = self.sns.publish_batch(TopicArn=self.topic, PublishBatchRequestEntries=entries)
        assert len(answer["Successful"]) == len(bodies)

    def publish_all(self, sent: list[tuple[str, str]]) -> None:
        """Publish all, as many tens at once as there are threads."""
        with ThreadPoolExecutor(PUBLISHERS) as pool:
            list(pool.map(self.publish, [sent[start : start + TEN] for start in range(0, len(sent), TEN)]))

    def consume(self, _: int) -> None:
        """Receive tens and delete them until none is left."""
        while self.left > 0:
            asked = {"MaxNumberOfMessages": TEN, "WaitTimeSeconds": 1, "MessageAttributeNames": ["All"]}
            messages = self.sqs.receive_message(QueueUrl=self.queue, **asked).get("Messages", [])
            if messages:
                entries = [{"Id": str(at), "ReceiptHandle": each["ReceiptHandle"]} for at, each in enumerate(messages)]
                assert not self.sqs.delete_message_batch(QueueUrl=self.queue, Entries=entries).get("Failed")
                self.left -= len(messages)

    def drain(self, number: int) -> None:
        """Consume so many, on as many threads as the adapter has."""
        self.left = number
        with ThreadPoolExecutor(CONSUMERS) as pool:
            list(pool.map(self.consume, range(CONSUMERS)))


def bodies(number: int) -> list[tuple[str, str]]:
    """What the adapter would send, ready before the clock runs."""
    return [(each.id, to_json(each).decode()) for each in envelopes(number)]


def boto_publishing(effort: Effort) -> Sample:
    """Publish with boto3."""
    boto, sent = Boto(), bodies(int(effort.events * SHARE))
    watch = Stopwatch()
    boto.publish_all(sent)
    return watch.sample(len(sent))


def boto_consuming(effort: Effort) -> Sample:
    """Consume with boto3."""
    boto, sent = Boto(), bodies(int(effort.events * SHARE))
    boto.publish_all(sent)
    watch = Stopwatch()
    boto.drain(len(sent))
    return watch.sample(len(sent))


def each_anew(run: Callable[[Effort], Sample]) -> Side:
    """Rounds with topics and queues of their own: the emulator slows down with each message that a queue had."""

    @contextmanager
    def side(_: Path, effort: Effort) -> Iterator[Round]:
        yield lambda: run(effort)

    return side


@contextmanager
def serve(folder: Path) -> Iterator[None]:
    """Start the emulator; clients find their credentials in the environment."""
    os.environ.update(CREDENTIALS)
    with served(SqsServer, SERVER)(folder):
        yield


NOTE = "floor: boto3 in tens, as many threads"
FIGURES = family(
    "sqs",
    ("publish", "publish, FIFO", each_anew(publishing), each_anew(boto_publishing), 0.7, NOTE),
    ("consume", "consume, FIFO", each_anew(consuming), each_anew(boto_consuming), 0.7, NOTE),
)

if __name__ == "__main__":
    sys.exit(command("benchmarks.sqs", __doc__, FIGURES, "sqs", serve))
