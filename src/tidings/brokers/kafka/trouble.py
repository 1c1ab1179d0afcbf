"""What the client says went wrong, as an error of ours: wait, or mend something."""

from __future__ import annotations

import re
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

_TLS_CURES = (
    (
        re.compile("certificate verify failed"),
        "name who signed its certificate, with ca=/path/to/ca.pem, and the host as the certificate does",
    ),
    (
        re.compile(r"alert (?:bad certificate|unknown ca|(?:unsupported |unknown )?certificate)"),
        "it wants a certificate of ours that it trusts: cert= and certkey= in the URL",
    ),
)
"""What is said when the two ends do not trust each other, under several codes -> the cure."""

_HINTS = {
    KafkaError._SSL: "it is tried again; check tls=, ca=, cert= and certkey= in the URL, and the port",
    KafkaError._ALL_BROKERS_DOWN: "it is tried again; is the server there? "
    "Where it speaks TLS, add tls=true to the URL; where it wants a login, a user and a password",
}
_PLAINTEXT = "it is tried again; where the server does not speak TLS on this port, leave out tls=true"
_LOUD = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL, KafkaError._RESOLVE}
"""What explains why nobody answers better than that nobody answers."""

_STALE = 3.0
"""Seconds after which any error replaces one that says more: connections are tried again each second."""


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
    if noted is not None and (cause is None or cause.code() not in _CURES):  # what it was told says more
        cause = noted.reason() or cause
    if cause is None:
        return BrokerUnavailable(f"Kafka: {what}: {error or type(error).__name__}", "it is tried again")
    said = cause.str().strip()
    cure = _CURES.get(cause.code()) or _tls_cure(said)
    if cause.code() == KafkaError._ALL_BROKERS_DOWN:
        said = "no broker answers"  # where it says "1/1 brokers are down", it means that
    text = f"Kafka: {what}: {said} ({cause.name()})"
    if cure is not None:
        return BrokerRefused(text, cure)
    hint = _PLAINTEXT if "SSL_HANDSHAKE" in said else _HINTS.get(cause.code())
    return BrokerUnavailable(text, hint or "it is tried again; is the server there?")


def _tls_cure(said: str) -> str | None:
    return next((cure for pattern, cure in _TLS_CURES if pattern.search(said)), None)


def _says(error: KafkaError) -> int:
    """How much an error says about why nobody answers."""
    if error.code() in _LOUD or _tls_cure(error.str()) is not None:
        return 2
    return int(error.code() != KafkaError._ALL_BROKERS_DOWN)


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
        if self._last is None or time.monotonic() - self._last[0] > _STALE or _says(error) >= _says(self._last[1]):
            self._last = (time.monotonic(), error)
        if self._then is not None:
            self._then(error)

    def reason(self, within: float = 15.0) -> KafkaError | None:
        """The error of the last seconds that says most."""
        if self._last is None or time.monotonic() - self._last[0] > within:
            return None
        return self._last[1]
