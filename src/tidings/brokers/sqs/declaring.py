"""Makes the topology of an app, or compares it with what is there. What is there is never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tidings.brokers.sqs.connection import Clients, code_of, is_missing, trouble
from tidings.brokers.sqs.names import queue_name, topic_name
from tidings.brokers.sqs.settings import Settings
from tidings.brokers.sqs.topology import (
    policy,
    queue_attributes,
    queue_differences,
    subscription_differences,
    topic_attributes,
)
from tidings.errors import BrokerRefused

MAX_TOPIC_BYTES = 262_144
"""Bytes that a topic takes in one message, and in one batch, unless its MaximumMessageSize says otherwise."""


@dataclass(frozen=True)
class Place:
    """A topic as publishing needs it.

    Attributes:
        name: Its name at AWS.
        arn: Its address.
        limit: Bytes that it takes in one message, and in one batch.
    """

    name: str
    arn: str
    limit: int


@dataclass(frozen=True)
class Queue:
    """Where messages of a topic arrive for an app.

    Attributes:
        topic: The topic, as tidings calls it.
        name: Its name at AWS.
        url: Its address.
    """

    topic: str
    name: str
    url: str


class Declaring:
    """Topics and queues of one app. Every method blocks."""

    def __init__(self, clients: Clients, settings: Settings, app: str) -> None:
        self._clients = clients
        self._settings = settings
        self._app = app

    def topic(self, topic: str) -> Place:
        """The topic, made where it is missing and may be.

        Raises:
            BrokerError: It cannot be reached, is missing or is another one.
        """
        name = topic_name(topic, prefix=self._settings.prefix, fifo=self._settings.fifo)
        try:
            arn = self._made(name) if self._settings.topology == "declare" else self._found(name)
            limit = MAX_TOPIC_BYTES
            if self._settings.topology != "none":
                there = self._clients.sns.get_topic_attributes(TopicArn=arn)["Attributes"]
                limit = int(there.get("MaximumMessageSize", MAX_TOPIC_BYTES))
        except (ClientError, BotoCoreError) as error:
            raise trouble(error, self._settings, f"use the topic {name}") from error
        return Place(name, arn, limit)

    def queue(self, topic: str) -> Queue:
        """The queue of a topic, subscribed to it; made where it is missing and may be.

        Raises:
            BrokerError: It cannot be reached, is missing, or differs; says the difference.
        """
        name = queue_name(self._app, topic, prefix=self._settings.prefix, fifo=self._settings.fifo)
        try:
            url = self._url(name)
            if self._settings.topology == "none":
                if url is None:
                    raise self._differs(f"the queue {name}", ["it is missing"])
                return Queue(topic, name, url)
            place = self.topic(topic)
            arn = place.arn.replace(":sns:", ":sqs:").removesuffix(place.name) + name
            url = self._kept(name, arn, place, url)
            self._subscribe(place, arn, name)
        except (ClientError, BotoCoreError) as error:
            raise trouble(error, self._settings, f"use the queue {name}") from error
        return Queue(topic, name, url)

    def subscription(self, topic_arn: str, queue_arn: str) -> dict[str, str] | None:
        """Attributes of the subscription of a queue to a topic, None where there is none."""
        pages = self._clients.sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic_arn)
        for page in pages:
            for each in page["Subscriptions"]:
                if each["Endpoint"] == queue_arn and each["SubscriptionArn"].startswith("arn:"):
                    asked = self._clients.sns.get_subscription_attributes(SubscriptionArn=each["SubscriptionArn"])
                    return dict(asked["Attributes"])
        return None

    def _made(self, name: str) -> str:
        try:
            attributes = topic_attributes(fifo=self._settings.fifo)
            return str(self._clients.sns.create_topic(Name=name, Attributes=attributes)["TopicArn"])
        except ClientError as error:
            if code_of(error) != "InvalidParameter" or "already exists" not in str(error):
                raise
        return self._found(name)  # with other attributes, which are its owner's affair

    def _found(self, name: str) -> str:
        clients = self._clients
        if clients.account is not None:
            return f"arn:{clients.partition}:sns:{self._settings.region}:{clients.account}:{name}"
        for page in clients.sns.get_paginator("list_topics").paginate():
            for each in page["Topics"]:
                if each["TopicArn"].endswith(f":{name}"):
                    return str(each["TopicArn"])
        raise self._differs(f"the topic {name}", ["it is missing"])

    def _url(self, name: str) -> str | None:
        try:
            return str(self._clients.sqs.get_queue_url(QueueName=name)["QueueUrl"])
        except ClientError as error:
            if not is_missing(error):
                raise
        return None

    def _kept(self, name: str, arn: str, place: Place, url: str | None) -> str:
        sqs, declare = self._clients.sqs, self._settings.topology == "declare"
        if url is None:
            if not declare:
                raise self._differs(f"the queue {name}", ["it is missing"])
            attributes = queue_attributes(fifo=self._settings.fifo) | {"Policy": policy(arn, place.arn)}
            return str(sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])
        there: dict[str, Any] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        if declare and not there.get("Policy"):
            there["Policy"] = policy(arn, place.arn)
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": there["Policy"]})
        if found := list(queue_differences(there, place.arn, fifo=self._settings.fifo)):
            raise self._differs(f"the queue {name}", found)
        return url

    def _subscribe(self, place: Place, queue_arn: str, name: str) -> None:
        there = self.subscription(place.arn, queue_arn)
        if there is None:
            if self._settings.topology != "declare":
                raise self._differs(f"the queue {name}", [f"it is not subscribed to the topic {place.name}"])
            self._clients.sns.subscribe(
                TopicArn=place.arn,
                Protocol="sqs",
                Endpoint=queue_arn,
                Attributes={"RawMessageDelivery": "true"},
                ReturnSubscriptionArn=True,
            )
        elif found := list(subscription_differences(there)):
            raise self._differs(f"the subscription of {name} to {place.name}", found)

    def _differs(self, which: str, differences: Sequence[str]) -> BrokerRefused:
        cure = "leave out topology= once to declare it" if differences == ["it is missing"] else "change it"
        return BrokerRefused(
            f"SQS in {self._settings.region}: {which} is not as needed: {'; '.join(differences)}",
            f"{cure}, or apply `tidings topology export`",
            differences=list(differences),
        )
