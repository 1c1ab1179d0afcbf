"""Parts: values declared without I/O in domain modules, handed to an app by whoever starts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tidings.core.message import MessageType
from tidings.core.subscription import Subscription
from tidings.errors import BadDeclaration


@runtime_checkable
class Part(Protocol):
    """What an app asks of a Router, Replica, Decider, Projection or Process.

    Attributes:
        name: Unique among the parts of one app; names its groups, streams or tables.
    """

    @property
    def name(self) -> str:
        """Unique among the parts of one app."""

    def subscriptions(self) -> Sequence[Subscription]:
        """The handlers this part brings, each with its group."""

    def message_types(self) -> Sequence[MessageType]:
        """Every message type the part reads or writes."""


def check_parts(parts: tuple[Part, ...], app: str) -> tuple[Part, ...]:
    """The parts that an app was given.

    Raises:
        BadDeclaration: One of them is none.
    """
    given: tuple[object, ...] = parts  # a caller without a type checker may give anything
    for part in given:
        if not isinstance(part, Part):
            msg = f"the app {app} was given {part!r} as a part"
            raise BadDeclaration(msg, "parts are Router, Decider, Projection and Replica values")
    return parts
