"""AWS SNS and SQS: a topic fans out to a queue for each app."""

from tidings.brokers.sqs.broker import SqsBroker

__all__ = ["SqsBroker"]
