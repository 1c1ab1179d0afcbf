"""What the scenarios of the outbox publish."""

from __future__ import annotations

from tidings import Key, event, state


@event(topic="orders")
class Placed:
    order_id: Key[str]
    number: int = 0


@event(topic="orders")
class Unkeyed:
    number: int


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str
