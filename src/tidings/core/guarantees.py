"""Needs against guarantees: what a handler wants, what a store or broker gives, checked when the app starts."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tidings.errors import NeedsNotMet


@dataclass(frozen=True)
class Guarantees:
    """What a broker gives. The start-up check, the conformance tests, the documentation and `doctor` read this value.

    Attributes:
        name: How the broker is called in messages: "SQLite", "Kafka".
        ordered: Deliveries of one key come in the order in which they were published.
        history: A new group can start at the earliest retained message.
        exactly_once: Effects of handlers that take `tx` happen once.
        durable: What an acknowledged publish survives: "process", "power" or "replicated".
        max_bytes: Largest message, bytes.
    """

    name: str
    ordered: bool
    history: bool
    exactly_once: bool
    durable: str
    max_bytes: int


@dataclass(frozen=True)
class Needs:
    """What a handler needs of the broker. An app refuses to start on a broker that cannot give it.

    Args:
        ordered: Messages of one key in the order of publication.
        history: Messages published before the group existed.
    """

    ordered: bool = False
    history: bool = False

    def check(self, given: Guarantees, where: str) -> None:
        """Do nothing when every need is met.

        Raises:
            NeedsNotMet: The broker lacks something; names the handler, the need and the brokers that have it.
        """
        known = {
            "ordered": ("messages of one key in order", "SQLite, PostgreSQL, Kafka, RabbitMQ, SQS FIFO"),
            "history": ("what was published before it first ran", "SQLite, PostgreSQL, Kafka"),
        }
        for need in fields(self):
            if getattr(self, need.name) and not getattr(given, need.name):
                wanted, brokers = known[need.name]
                msg = f"{where} needs {wanted}, which {given.name} does not give"
                raise NeedsNotMet(msg, f"use one of {brokers}, or drop Needs({need.name}=True)")
