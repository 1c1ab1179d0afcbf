"""Envelopes and held deliveries for the suite."""

from __future__ import annotations

import itertools
from typing import Any

from tidings.core.envelope import Envelope, slot_of
from tidings.core.operations import Claim, Held, Join, Lease, State
from tidings.core.ports import Store

_count = itertools.count(1)

GROUP = "shop.send_receipt"
NOW = 1_700_000_000_000_000
"""A moment in 2023, microseconds since 1970 UTC."""


def envelope(key: str | None = "k-1", **changes: Any) -> Envelope:
    """An envelope of its own id, not yet stored."""
    number = next(_count)
    fields: dict[str, Any] = {
        "position": 0,
        "id": f"e-{number}",
        "source": "shop",
        "type": "OrderPlaced",
        "schema": 1,
        "topic": "orders",
        "key": key,
        "slot": slot_of(key) if key is not None else number % 16,
        "stream": None,
        "version": None,
        "time": NOW + number,
        "correlation": None,
        "causation": None,
        "traceparent": None,
        "headers": None,
        "data": b'{"order_id":"%d"}' % number,
    }
    return Envelope(**(fields | changes))


def held(position: int, key: str | None = "k-1", state: State = "retry", **changes: Any) -> Held:
    """A held delivery, not yet stored."""
    fields: dict[str, Any] = {
        "id": 0,
        "group": GROUP,
        "position": position,
        "state": state,
        "attempt": 1,
        "due": 0,
        "envelope": envelope(key, position=position),
        "reason": "ValueError: no such order",
        "since": NOW,
    }
    return Held(**(fields | changes))


def joining(group: str = GROUP, **changes: Any) -> Join:
    """The operation by which a handler's group comes into being."""
    fields: dict[str, Any] = {
        "group": group,
        "where": "shop.handlers:send_receipt (handlers.py:10)",
        "types": ["OrderPlaced"],
        "commands": [],
        "slots": 16,
        "start": "earliest",
    }
    return Join(**(fields | changes))


async def claimed(store: Store, group: str = GROUP, member: str = "worker-1", want: int = 16) -> dict[int, int]:
    """Join and claim; returns slot -> epoch."""
    await store.write(joining(group))
    leases: dict[int, Lease] = await store.write(Claim(group, member, want))
    return {slot: lease.epoch for slot, lease in leases.items()}
