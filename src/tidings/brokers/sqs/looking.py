"""What the doctor says of SNS and SQS, over a connection of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tidings.brokers.sqs.connection import Clients, connect, reach, trouble
from tidings.brokers.sqs.names import queue_name, queues_of
from tidings.brokers.sqs.settings import Settings
from tidings.brokers.sqs.topology import RETENTION, queue_differences, subscription_differences
from tidings.core.check import Check
from tidings.errors import BrokerError

_EXPORT = "apply `tidings topology export`"
_DAY = 86_400
_SHORT = 10
"""Seconds of visibility below which a slow append makes messages come twice."""


def look(settings: Settings, app: str) -> list[Check]:
    """How the broker and the queues of an app are set up. Blocks."""
    checks = [_address(settings), _visibility(settings)]
    try:
        clients = connect(settings)
    except BrokerError as error:
        return [*checks, Check("credentials", "fail", error.what, error.cure)]
    try:
        reach(clients, settings, queue_name(app, "anybody-there", prefix=settings.prefix, fifo=settings.fifo))
        checks.append(Check("credentials", "ok", "they are accepted"))
        checks += _queues(clients, settings, app)
    except BrokerError as error:
        checks.append(Check("connection" if error.transient else "credentials", "fail", error.what, error.cure))
    except (ClientError, BotoCoreError) as error:
        meaning = trouble(error, settings, "look at the queues")
        checks.append(Check("queues", "warn", meaning.what, meaning.cure))
    finally:
        clients.close()
    return checks


def _address(settings: Settings) -> Check:
    place = settings.region + (f" at {settings.endpoint}" if settings.endpoint else "")
    kind = "FIFO: messages of one key keep their order" if settings.fifo else "standard: no order is promised"
    if (settings.endpoint or "").startswith("http:") and not settings.is_here:
        return Check("region", "warn", f"{place}: what is sent can be read on the way", "use an https:// endpoint")
    return Check("region", "ok", f"{place}; {kind}")


def _visibility(settings: Settings) -> Check:
    found = f"what a worker took and lost comes again after {settings.visibility} s"
    if settings.visibility < _SHORT:
        fix = f"visibility={_SHORT} or more: it is not how long handlers may take, they run from the log"
        return Check("visibility", "warn", f"{found}, also while a busy store still writes it down", fix)
    return Check("visibility", "ok", found)


def _queues(clients: Clients, settings: Settings, app: str) -> Iterator[Check]:
    pages = clients.sqs.get_paginator("list_queues").paginate(QueueNamePrefix=queues_of(app, prefix=settings.prefix))
    urls = [url for page in pages for url in page.get("QueueUrls", []) if url.endswith(".fifo") is settings.fifo]
    if not urls:
        yield Check("queues", "ok", f"{app} has none here yet")
    for url in urls:
        there = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        yield from _queue(clients, settings, url.rpartition("/")[2], there)


def _queue(clients: Clients, settings: Settings, name: str, there: Mapping[str, str]) -> Iterator[Check]:
    which = f"queue {name}"
    topics = list(_subscribed(clients, there["QueueArn"]))
    if not topics:
        yield Check(which, "fail", "it is subscribed to no topic: nothing arrives", _EXPORT)
        return
    for topic, subscription in topics:
        differences = [*queue_differences(there, topic, fifo=settings.fifo), *subscription_differences(subscription)]
        if differences:
            yield Check(which, "fail", "; ".join(differences), _EXPORT)
            return
        if subscription.get("RawMessageDelivery") != "true":
            fix = f"aws sns set-subscription-attributes --attribute-name RawMessageDelivery ... ; or {_EXPORT}"
            yield Check(which, "warn", "raw delivery is off: messages come in an envelope, larger and slower", fix)
    retention = int(there.get("MessageRetentionPeriod", RETENTION))
    if retention < RETENTION:
        days = f"{retention / _DAY:g} days"
        yield Check(which, "warn", f"what waits longer than {days} is lost", f"MessageRetentionPeriod={RETENTION}")
    yield from _redrive(clients, which, there, retention)
    yield Check(which, "ok", f"{_waiting(there):,} wait")


def _redrive(clients: Clients, which: str, there: Mapping[str, str], retention: int) -> Iterator[Check]:
    if not there.get("RedrivePolicy"):
        return
    redrive: dict[str, Any] = json.loads(there["RedrivePolicy"])
    name = str(redrive.get("deadLetterTargetArn", "")).rpartition(":")[2]
    times = redrive.get("maxReceiveCount")
    found = f"after {times} tries messages go to {name}, where this app does not see them"
    yield Check(which, "warn", found, "remove its RedrivePolicy: all that arrives is kept in the log of the app")
    url = clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    asked = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
    if (kept := int(asked["Attributes"]["MessageRetentionPeriod"])) < retention:
        found = (
            f"{name} keeps {kept / _DAY:g} days, counted from the first sending: less than the {retention / _DAY:g} of"
        )
        yield Check(which, "warn", f"{found} its source", f"MessageRetentionPeriod={RETENTION} on {name}")


def _subscribed(clients: Clients, queue_arn: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    for page in clients.sns.get_paginator("list_subscriptions").paginate():
        for each in page["Subscriptions"]:
            if each["Endpoint"] == queue_arn and each["SubscriptionArn"].startswith("arn:"):
                asked = clients.sns.get_subscription_attributes(SubscriptionArn=each["SubscriptionArn"])
                yield each["TopicArn"], asked["Attributes"]


def _waiting(there: Mapping[str, str]) -> int:
    return sum(int(there.get(f"ApproximateNumberOfMessages{which}", 0)) for which in ("", "NotVisible", "Delayed"))
