"""Messages that apps exchange in scenarios with a broker."""

from tidings import Key, event, state


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    total: int


@event(topic="payments")
class OrderPaid:
    order_id: Key[str]
    total: int


@event
class Noted:
    order_id: Key[str]


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str
