"""What the client says went wrong, as an error of ours: wait, or mend something."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from tidings.errors import BrokerError, BrokerRefused, BrokerUnavailable

_ACL = "give the user the right with kafka-acls, see docs/kafka.md"
_LOGIN = "check user, password, mechanism= and tls= in the URL and the environment"
_CURES = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _ACL,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _ACL,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _ACL,
    KafkaError.SASL_AUTHENTICATION_FAILED: _LOGIN,
    KafkaError._AUTHENTICATION: _LOGIN,
    KafkaError.INVALID_REPLICATION_FACTOR: "ask for at most as many copies as there are brokers, with replication=",
    KafkaError.INVALID_PARTITIONS: "ask for a number of partitions that the cluster allows, with partitions=",
    KafkaError.POLICY_VIOLATION: "create the topics as the policy of the cluster wants them, and set topology=verify",
    KafkaError.UNSUPPORTED_VERSION: "use Kafka 2.8 or newer, and protocol=classic",
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: "let all workers of the app have the same protocol=, and no other program"
    " the app's name as its group",
    KafkaError._INVALID_ARG: "see docs/kafka.md",
}
"""Where waiting does not help -> what does."""

_HINTS = {KafkaError._SSL: "it is tried again; check tls=, ca=, cert= and certkey= in the URL, and the port"}
_LOUD = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL, KafkaError._RESOLVE}
"""What explains why nobody answers better than that nobody answers."""


def kafka_error(error: BaseException | KafkaError) -> KafkaError | None:
    """What the client reported, in an exception or by itself."""
    if isinstance(error, KafkaException):
        error = error.args[0]
    return error if isinstance(error, KafkaError) else None


def error_of(error: BaseException | KafkaError, what: str, noted: Noted | None = None) -> BrokerError:
    """The error to raise.

    Args:
        error: From the client.
        what: What was being done, as "topic orders" or "connecting".
        noted: Why nobody answers, if that is known.
    """
    cause = kafka_error(error)
    if noted is not None and (cause is None or cause.code() not in _CURES):
        cause = noted.reason() or cause
    if cause is None:
        return BrokerUnavailable(f"Kafka: {what}: {error or type(error).__name__}", "it is tried again")
    cure = _CURES.get(cause.code())
    text = f"Kafka: {what}: {cause.str().strip()} ({cause.name()})"
    if cure is not None:
        return BrokerRefused(text, cure)
    return BrokerUnavailable(text, _HINTS.get(cause.code(), "it is tried again; is the server there?"))


class Noted:
    """What a client said about its connections, outside of any call.

    Args:
        then: Called with every error, on the thread that polls.
    """

    def __init__(self, then: Callable[[KafkaError], None] | None = None) -> None:
        self._then = then
        self._last: tuple[float, KafkaError] | None = None

    def __call__(self, error: Any) -> None:
        """For `error_cb`."""
        fresh = self._last is None or time.monotonic() - self._last[0] > 1.0
        if fresh or self._last is None or self._last[1].code() not in _LOUD or error.code() in _LOUD:
            self._last = (time.monotonic(), error)
        if self._then is not None:
            self._then(error)

    def reason(self, within: float = 15.0) -> KafkaError | None:
        """The error of the last seconds that says most."""
        if self._last is None or time.monotonic() - self._last[0] > within:
            return None
        return self._last[1]
