"""Event notification: say what happened, and let whoever cares react. Who places orders knows nothing of mail.

It prints:

    the mail server is busy
    receipt for o-1 to ada@example.com
    parcel for o-1
    dead letter: o-2, after 1 attempt: Dead: there is no @ in bob
"""

import asyncio

from tidings import App, Dead, Key, Retry, event


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    email: str


@event(topic="orders")
class ReceiptSent:
    order_id: Key[str]


app = App("sqlite:shop.db")


class Mail:
    """Takes a mail at the second try."""

    tried = 0

    async def send(self, email: str) -> None:
        self.tried += 1
        if self.tried == 1:
            raise TimeoutError("the mail server is busy")


mail = Mail()


# Each handler is a group of its own, with its own retries. What it returns is published together with its
# acknowledgement: there is no moment at which one of them is kept and the other is lost.
@app.on(OrderPlaced, retry=Retry(attempts=5, initial=0.01))
async def send_receipt(order: OrderPlaced) -> ReceiptSent:
    if "@" not in order.email:
        raise Dead(f"there is no @ in {order.email}")  # another try would not help
    try:
        await mail.send(order.email)
    except TimeoutError as error:
        print(error)
        raise
    print(f"receipt for {order.order_id} to {order.email}")
    return ReceiptSent(order.order_id)


@app.on(ReceiptSent)
def pack(receipt: ReceiptSent) -> None:  # a plain function runs in a thread, so that it may block
    print(f"parcel for {receipt.order_id}")


async def main() -> None:
    async with app:
        await app.publish(OrderPlaced("o-1", "ada@example.com"))
        await app.run(until_idle=True)
        await app.publish(OrderPlaced("o-2", "bob"))
        await app.run(until_idle=True)
        for letter in await app.store.held(state="dead"):
            print(f"dead letter: {letter.envelope.key}, after {letter.attempt} attempt: {letter.reason}")


if __name__ == "__main__":
    asyncio.run(main())
