"""What a `kafka:` URL and the environment say, and the client's settings that follow from it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tidings.core.url import Url, parse_url
from tidings.errors import BadUrl

Topology = Literal["declare", "verify", "none"]

PARTITIONS = 6
"""Partitions of a topic that is declared: so many workers of an app can share it."""

REPLICAS = 3
"""Copies of a topic that is declared, where the cluster has as many brokers."""

OPTIONS = (
    *("servers", "prefix", "topology", "partitions", "replication", "protocol", "session"),
    *("tls", "ca", "cert", "certkey", "mechanism", "region"),
)
"""What may follow the `?` of the URL."""

_DOCS = "see docs/kafka.md"
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM")
_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:,\s]+)(?::[0-9]{1,5})?")
_log = logging.getLogger("tidings.kafka")


@dataclass(frozen=True)
class Settings:
    """What one app asks of one cluster.

    Attributes:
        url: As given; its text form hides the password.
        servers: Brokers to ask first, "host:port,host:port".
        prefix: Before the names of topics and of the group.
        group: The consumer group: the app.
        topology: "declare" what is missing, "verify" that it is there, or take it as it is ("none").
        partitions: Partitions that were asked for, by topic; under "" those of every other topic. Where there are some,
            they are what a topic has to have.
        replication: Copies that were asked for, or None.
        protocol: "classic", or "consumer" for the rebalance protocol of KIP-848.
        session: Seconds without a sign of life after which a worker's partitions go to others.
        secure: True where the connection is encrypted.
        mechanism: How it logs in, or None.
        common: Settings that every client takes.
    """

    url: Url
    servers: str
    prefix: str
    group: str
    topology: Topology
    partitions: Mapping[str, int]
    replication: int | None
    protocol: str
    session: float
    secure: bool
    mechanism: str | None
    common: Mapping[str, Any] = field(repr=False)  # the password is one of them

    @classmethod
    def of(cls, text: str, app: str) -> Settings:
        """Read the URL.

        Raises:
            BadUrl: It cannot be read, or an option has a value that it does not take; names the option.
        """
        url = parse_url(text, ("kafka",), OPTIONS)
        option = url.options.get
        if url.path:
            raise BadUrl(f"kafka: the URL names {url.path[:40]!r} after the host", "topics are named by the messages")
        prefix = option("prefix", "")
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,49}", prefix):
            raise _bad("prefix", prefix, "use at most 49 letters, digits, dots, dashes and underscores")
        servers = ",".join([_server(url.host or "", url.port), *_servers(option("servers", ""))])
        secure = _truth("tls", option("tls", "false"))
        mechanism = _mechanism(url)
        return cls(
            url=url,
            servers=servers,
            prefix=prefix,
            group=f"{prefix}{app}",
            topology=cast(
                "Topology", _choice("topology", option("topology", "declare"), ("declare", "verify", "none"))
            ),
            partitions=_partitions(option("partitions", "")),
            replication=_number("replication", value, 1, 100) if (value := option("replication")) else None,
            protocol=_choice("protocol", option("protocol", "classic"), ("classic", "consumer")),
            session=_number("session", option("session", "6"), 1, 1800),
            secure=secure,
            mechanism=mechanism,
            common={
                "bootstrap.servers": servers,
                "client.id": f"tidings-{app}",
                # A broker that says nothing is given up early: a request is repeated, and nothing is lost by that.
                "socket.timeout.ms": 10_000,
                "socket.connection.setup.timeout.ms": 5_000,
                "socket.keepalive.enable": True,
                "socket.nagle.disable": True,  # each request matters to somebody, and most are small
                "reconnect.backoff.ms": 100,  # doubled each time, with jitter
                "reconnect.backoff.max.ms": 1_000,
                "logger": _Log(),
                **_security(url, secure=secure, mechanism=mechanism),
            },
        )

    def admin(self, on_error: Callable[[Any], None]) -> dict[str, Any]:
        """Settings of the client that asks and declares."""
        return {**self.common, "error_cb": on_error}

    def producer(self, on_error: Callable[[Any], None], *, timeout: float) -> dict[str, Any]:
        """Settings of the producer; a message that nobody confirmed within `timeout` seconds is given up."""
        return {
            **self.common,
            "error_cb": on_error,
            "acks": "all",
            "enable.idempotence": True,  # within a session, retries neither double nor reorder
            "max.in.flight.requests.per.connection": 5,
            "partitioner": "murmur2_random",  # as Java's clients do, so that a key lies in one partition for everybody
            "compression.type": "lz4",
            # Batches form while requests are under way. Waiting for more would only delay the next message of a key.
            "linger.ms": 0,
            "message.timeout.ms": int(timeout * 1000),
            "request.timeout.ms": int(timeout * 500),
            "message.max.bytes": 2_000_000,  # the limit is ours, and the broker's
            "queue.buffering.max.kbytes": 65_536,
        }

    def consumer(self, on_error: Callable[[Any], None], on_commit: Callable[[Any, Any], None]) -> dict[str, Any]:
        """Settings of the consumer."""
        session = int(self.session * 1000)
        balance = (
            {"group.protocol": "consumer"}  # there the broker decides on the rest
            if self.protocol == "consumer"
            else {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": session,
                "heartbeat.interval.ms": session // 3,
            }
        )
        return {
            **self.common,
            **balance,
            "error_cb": on_error,
            "on_commit": on_commit,
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # where to begin is decided when a partition is assigned, never by a jump
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "max.poll.interval.ms": max(300_000, session),
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 1_000,
            "queued.max.messages.kbytes": 16_384,
            "topic.metadata.refresh.interval.ms": 30_000,
        }


class _Log:
    """What the client says of itself; errors that matter come to us by other ways, and are raised."""

    def log(self, _level: int, text: str, *values: object) -> None:
        _log.debug(text, *values)


def _security(url: Url, *, secure: bool, mechanism: str | None) -> dict[str, Any]:
    option, environment = url.options.get, os.environ.get
    protocol = {(False, False): "PLAINTEXT", (True, False): "SSL", (False, True): "SASL_PLAINTEXT"}
    found: dict[str, Any] = {"security.protocol": protocol.get((secure, mechanism is not None), "SASL_SSL")}
    files = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "certkey": "ssl.key.location"}
    for name, setting in files.items():
        if (path := option(name)) is not None:
            if not secure:
                raise BadUrl(f"kafka: {name}= is given, and the connection is not encrypted", "add tls=true")
            if not os.access(path, os.R_OK):
                raise _bad(name, path, "name a file in PEM format that can be read")
            found[setting] = path
    if password := environment("TIDINGS_KAFKA_CERTKEY_PASSWORD"):
        found["ssl.key.password"] = password
    if mechanism == "AWS_MSK_IAM":
        found |= {"sasl.mechanisms": "OAUTHBEARER", "oauth_cb": _aws_token(option("region"))}
    elif mechanism is not None:
        user, password = url.user or environment("TIDINGS_KAFKA_USER"), url.password
        password = environment("TIDINGS_KAFKA_PASSWORD") if password is None else password
        if not user or password is None:
            cure = "write user:password@ before the host, or set TIDINGS_KAFKA_USER and TIDINGS_KAFKA_PASSWORD"
            raise BadUrl(f"kafka: {mechanism} needs a user and a password", cure)
        found |= {"sasl.mechanisms": mechanism, "sasl.username": user, "sasl.password": password}
    return found


def _mechanism(url: Url) -> str | None:
    given = url.options.get("mechanism")
    if given is not None:
        return _choice("mechanism", given.upper(), _MECHANISMS)
    return "PLAIN" if url.user is not None or os.environ.get("TIDINGS_KAFKA_USER") else None


def _aws_token(region: str | None) -> Callable[[Any], tuple[str, float]]:
    if region is None:
        raise BadUrl("kafka: AWS_MSK_IAM needs the region of the cluster", "add region=, as in region=eu-central-1")
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        cure = "pip install aws-msk-iam-sasl-signer-python"
        raise BadUrl("kafka: AWS_MSK_IAM needs a package that is not installed", cure) from error

    def token(_: Any) -> tuple[str, float]:
        found, expires = MSKAuthTokenProvider.generate_auth_token(region)
        return found, expires / 1000

    return token


def _servers(text: str) -> list[str]:
    found = [each for each in text.split(",") if each]
    for each in found:
        if not _SERVER.fullmatch(each):
            raise _bad("servers", each, "write servers=b:9092,c:9092 for further brokers")
    return [each if re.search(r"[^:\]]:[0-9]+$|\]:[0-9]+$", each) else f"{each}:9092" for each in found]


def _server(host: str, port: int | None) -> str:
    return f"[{host}]:{port or 9092}" if ":" in host else f"{host}:{port or 9092}"


def _partitions(text: str) -> dict[str, int]:
    """`12`, or `orders:12,payments:3`, or both: `12,payments:3`."""
    found: dict[str, int] = {}
    for each in filter(None, text.split(",")):
        topic, _, number = each.rpartition(":")
        if topic in found:
            raise _bad("partitions", text, "name each topic once")
        found[topic] = _number("partitions", number, 1, 100_000)
    return found


def _number(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):  # noqa: PLR2004
        raise _bad(name, text, f"give a whole number from {least} to {most}")
    return int(text)


def _truth(name: str, text: str) -> bool:
    return _choice(name, text, ("true", "false")) == "true"


def _choice(name: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise _bad(name, text, f"choose {' or '.join(choices)}")
    return text


def _bad(name: str, value: str, cure: str) -> BadUrl:
    return BadUrl(f"kafka: {name}={value[:40]!r} cannot be used", f"{cure}; {_DOCS}")
