"""What every side works on: an order of 345 bytes of JSON, and what one order does to a read model."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tidings import Decider, Key, event


@dataclass(frozen=True)
class Line:
    """One line of an order."""

    sku: str
    name: str
    quantity: int
    price: int


@event(topic="orders")
class OrderPlaced:
    """An order as a shop would publish it."""

    order_id: Key[str]
    customer_id: str
    email: str
    total: int
    currency: str
    channel: str
    placed_at: int
    """Nanoseconds of the monotonic clock, which all processes of a machine share: latency is read from it."""
    lines: list[Line]


LINES = [
    Line("WM-1043-BLK", "Walnut desk organiser, large", 1, 4900),
    Line("PN-0077-BLU", "Gel pens, blue, box of 12", 2, 1350),
]
SIZE = 345
CUSTOMERS = 1_000

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(OrderPlaced).decode


def order(key: str, customer: int = 0, placed_at: int = 1_760_000_000_000_000_000) -> OrderPlaced:
    """An order; with a key of nine characters its JSON has SIZE bytes."""
    number = f"{customer % CUSTOMERS:04}"
    return OrderPlaced(key, f"c-{number}", f"customer-{number}@example.com", 7600, "EUR", "web-shop", placed_at, LINES)


READ_MODEL = "CREATE TABLE revenue (customer_id TEXT PRIMARY KEY, orders INTEGER NOT NULL, total INTEGER NOT NULL)"
EFFECT = (
    "INSERT INTO revenue (customer_id, orders, total) VALUES (?, 1, ?) "
    "ON CONFLICT (customer_id) DO UPDATE SET orders = revenue.orders + 1, total = revenue.total + excluded.total"
)


def decide(_count: int, _command: object) -> list[OrderPlaced]:
    """Nothing is decided here: the figures append what they are given."""
    return []


def evolve(count: int, _event: OrderPlaced) -> int:
    """The state is how many orders a stream has, so that folding costs next to nothing on either side."""
    return count + 1


ledger = Decider("ledger", initial=0, decide=decide, evolve=evolve)
