"""The topics, queues and subscriptions that an app needs, as plain values; and how far what is there fits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tidings.brokers.sqs.names import queue_name, topic_name
from tidings.brokers.sqs.settings import Settings
from tidings.core.resource import Resource

RETENTION = 1_209_600
"""Seconds that a queue keeps what nobody takes: the most that SQS allows, 14 days."""

_FIFO_TOPIC = {"FifoTopic": "true", "FifoThroughputScope": "MessageGroup"}
_FIFO_QUEUE = {"FifoQueue": "true", "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}


def topology(settings: Settings, app: str, topics: Sequence[str]) -> list[Resource]:
    """What an app needs to receive these topics."""
    found: list[Resource] = []
    for each in topics:
        topic = topic_name(each, prefix=settings.prefix, fifo=settings.fifo)
        queue = queue_name(app, each, prefix=settings.prefix, fifo=settings.fifo)
        found += [
            Resource("topic", topic, topic_attributes(fifo=settings.fifo)),
            Resource("queue", queue, queue_attributes(fifo=settings.fifo)),
            Resource("subscription", f"{topic} -> {queue}", {"RawMessageDelivery": "true"}),
        ]
    return found


def topic_attributes(*, fifo: bool) -> dict[str, str]:
    """Attributes of a topic."""
    return dict(_FIFO_TOPIC) if fifo else {}


def queue_attributes(*, fifo: bool) -> dict[str, str]:
    """Attributes of a queue, but for its policy."""
    return {"MessageRetentionPeriod": str(RETENTION), **(_FIFO_QUEUE if fifo else {})}


def policy(queue_arn: str, topic_arn: str) -> str:
    """Lets a topic, and nothing else of SNS, send to a queue. Without it SNS drops what it has, without a word."""
    statement = {
        "Sid": "tidings",
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def queue_differences(attributes: Mapping[str, str], topic_arn: str, *, fifo: bool) -> Iterator[str]:
    """Why a queue cannot keep what is promised; nothing where it can."""
    if (attributes.get("FifoQueue") == "true") is not fifo:
        yield f"FifoQueue is {attributes.get('FifoQueue', 'false')}, not {str(fifo).lower()}"
    if not allows(attributes.get("Policy", ""), topic_arn):
        yield f"Policy has no statement that lets sns.amazonaws.com send what comes from {topic_arn}"


def subscription_differences(attributes: Mapping[str, str]) -> Iterator[str]:
    """Why a subscription does not pass on everything. Raw delivery may be off: its envelope is understood."""
    if attributes.get("FilterPolicy", "{}") not in {"", "{}"}:
        yield f"FilterPolicy keeps messages away: {attributes['FilterPolicy'][:200]}"


def allows(text: str, topic_arn: str) -> bool:
    """Does a queue's policy let SNS send what comes from a topic? Conditions that we do not know count as met."""
    try:
        statements = json.loads(text or "{}").get("Statement", [])
    except (ValueError, AttributeError):
        return False
    known = [each for each in _listed(statements) if isinstance(each, dict) and _is_about_sending(each)]
    fitting = [each for each in known if _comes_from(each, topic_arn)]
    return any(each.get("Effect") == "Allow" for each in fitting) and not any(
        each.get("Effect") == "Deny" and not each.get("Condition") for each in fitting
    )


def cloudformation(settings: Settings, app: str, topics: Sequence[str]) -> str:
    """The topology as a CloudFormation template."""
    found: dict[str, Any] = {}
    for number, topic in enumerate(topics, 1):
        name = topic_name(topic, prefix=settings.prefix, fifo=settings.fifo)
        queue = queue_name(app, topic, prefix=settings.prefix, fifo=settings.fifo)
        made = (f"Topic{number}", f"Queue{number}")
        typed = {key: _typed(value) for key, value in topic_attributes(fifo=settings.fifo).items()}
        found[made[0]] = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name, **typed}}
        typed = {key: _typed(value) for key, value in queue_attributes(fifo=settings.fifo).items()}
        found[made[1]] = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": queue, **typed}}
        arns = {"Q": {"Fn::GetAtt": [made[1], "Arn"]}, "T": {"Ref": made[0]}}
        document = json.loads(policy("Q", "T"))
        document["Statement"][0]["Resource"] = arns["Q"]
        document["Statement"][0]["Condition"]["ArnEquals"]["aws:SourceArn"] = arns["T"]
        found[f"Policy{number}"] = {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {"Queues": [{"Ref": made[1]}], "PolicyDocument": document},
        }
        found[f"Subscription{number}"] = {
            "Type": "AWS::SNS::Subscription",
            "DependsOn": f"Policy{number}",
            "Properties": {
                "TopicArn": arns["T"],
                "Protocol": "sqs",
                "Endpoint": arns["Q"],
                "RawMessageDelivery": True,
            },
        }
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": found}, indent=2) + "\n"


def _is_about_sending(statement: Mapping[str, Any]) -> bool:
    principal = statement.get("Principal")
    who = (
        [each for kind in principal.values() for each in _listed(kind)] if isinstance(principal, dict) else [principal]
    )
    actions = [str(each).lower() for each in _listed(statement.get("Action", []))]
    return bool({"*", "sns.amazonaws.com"} & set(map(str, who))) and any(
        fnmatchcase("sqs:sendmessage", each) for each in actions
    )


def _comes_from(statement: Mapping[str, Any], topic_arn: str) -> bool:
    conditions = statement.get("Condition")
    for tests in conditions.values() if isinstance(conditions, dict) else ():
        for name, patterns in tests.items() if isinstance(tests, dict) else ():
            if name.lower() == "aws:sourcearn" and not any(fnmatchcase(topic_arn, str(p)) for p in _listed(patterns)):
                return False
    return True


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _typed(value: str) -> str | int | bool:
    return value == "true" if value in {"true", "false"} else int(value) if value.isdecimal() else value
