"""Parts: values declared without I/O in domain modules, handed to an app by whoever starts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tidings.core.message import MessageType
from tidings.core.subscription import Subscription


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
