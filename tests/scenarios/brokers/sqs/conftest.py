"""Brokers for the hard cases, and the tools of others beside them."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import boto3
import pytest

from tests.scenarios.brokers.sqs.meddler import Meddler
from tidings.brokers.sqs import SqsBroker
from tidings.core.url import parse_url


@pytest.fixture
async def connect(sqs_url, prefix) -> AsyncIterator:
    """Makes brokers of SNS and SQS, and closes them in the end."""
    opened = []

    async def connect(app, *topics, at=sqs_url, **options):
        url = "&".join([at, *(f"{name}={value}" for name, value in {"prefix": prefix, "poll": 1, **options}.items())])
        broker = SqsBroker(url, app)
        opened.append(broker)
        await broker.open()
        await broker.subscribe(topics)
        return broker

    yield connect
    await asyncio.gather(*(broker.close() for broker in opened))


FIFO = {"FifoTopic": "true", "FifoThroughputScope": "MessageGroup"}


class Aws:
    """The tools of AWS itself, as anybody has them."""

    def __init__(self, url):
        parsed = parse_url(url)
        region, endpoint = parsed.host, parsed.options["endpoint"]
        self.sns = boto3.client("sns", region_name=region, endpoint_url=endpoint)
        self.sqs = boto3.client("sqs", region_name=region, endpoint_url=endpoint)

    def queue(self, name):
        return self.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def attributes(self, name):
        return self.sqs.get_queue_attributes(QueueUrl=self.queue(name), AttributeNames=["All"])["Attributes"]

    def topic(self, name):
        return self.sns.create_topic(Name=name, Attributes=FIFO if name.endswith(".fifo") else {})["TopicArn"]

    def topics(self):
        return [
            each["TopicArn"] for page in self.sns.get_paginator("list_topics").paginate() for each in page["Topics"]
        ]

    def subscription(self, name):
        arn = self.attributes(name)["QueueArn"]
        pages = self.sns.get_paginator("list_subscriptions").paginate()
        found = [each for page in pages for each in page["Subscriptions"] if each["Endpoint"] == arn]
        return found[0]["SubscriptionArn"]

    def close(self):
        self.sns.close()
        self.sqs.close()


@pytest.fixture
def aws(sqs_url) -> Iterator[Aws]:
    aws = Aws(sqs_url)
    yield aws
    aws.close()


@pytest.fixture
def meddler(sqs) -> Iterator[Meddler]:
    """Changes what the server answers; brokers reach it `at=meddled`."""
    with Meddler(sqs.endpoint) as meddler:
        yield meddler


@pytest.fixture
def meddled(meddler, sqs_url, sqs) -> str:
    return sqs_url.replace(sqs.endpoint, meddler.endpoint)
