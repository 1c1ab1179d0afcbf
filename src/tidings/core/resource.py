"""What an app needs at a broker, as plain values: topics, queues, and what connects them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Resource(NamedTuple):
    """One thing at a broker.

    Attributes:
        kind: What the broker calls such a thing: "topic", "queue", "exchange"...
        name: Its name there; of what connects two things "from -> to".
        settings: Name -> value it is made with.
    """

    kind: str
    name: str
    settings: Mapping[str, str] = {}
