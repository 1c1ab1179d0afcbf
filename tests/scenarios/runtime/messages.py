"""The messages that the scenarios publish."""

from __future__ import annotations

from tidings import Key, command, event, state


@event(topic="orders")
class OrderPlaced:
    """An order was placed."""

    order_id: Key[str]
    number: int = 0


@event(topic="mail")
class ReceiptSent:
    """A receipt left."""

    order_id: Key[str]
    number: int = 0


@event(topic="chatter")
class Said:
    """Something without a key."""

    text: str


@state(topic="customers")
class Customer:
    """A customer's whole record."""

    customer_id: Key[str]
    name: str


@command
class Ship:
    """Ask for an order to be shipped."""

    order_id: Key[str]


@command(app="prices")
class AskPrice:
    """What does it cost?"""

    item: Key[str]


@event
class Price:
    """It costs so much."""

    item: Key[str]
    amount: int
