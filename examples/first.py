"""The first program: an event is published, and handled until it worked; python first.py, or tidings run first:app."""

import asyncio

from tidings import App, Key, Retry, event


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    email: str


app = App("sqlite:shop.db")


@app.on(OrderPlaced, retry=Retry(attempts=8))  # then it is a dead letter: tidings dead ls
async def send_receipt(order: OrderPlaced) -> None:
    print(f"receipt for {order.order_id} to {order.email}")


if __name__ == "__main__":
    with app.blocking() as shop:
        shop.publish(OrderPlaced("o-1", "ada@example.com"))
    asyncio.run(app.run(until_idle=True))
