"""Event-carried state transfer: the owner publishes whole records, and whoever needs them keeps a copy.

Billing reads its own table, in the transaction of its own work, whether or not the owner of the customers is there.

It prints:

    o-1: Ada Lovelace pays 30
    o-2: Ada King pays 12
    o-3: nobody pays 99
    [('o-1', 30), ('o-2', 12)]
"""

import asyncio

from tidings import App, Gone, Key, Replica, Transaction, event, state


@state(topic="customers")
class Customer:
    customer_id: Key[str]
    name: str


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    customer_id: str
    total: int


crm = App("sqlite:shop.db", name="crm")  # the owner of the customers

customers = Replica(Customer)  # the copy: a table named after the topic
billing = App("sqlite:shop.db", customers, name="billing")


@billing.on(OrderPlaced)
async def invoice(order: OrderPlaced, tx: Transaction) -> None:
    customer = await tx.get(customers, order.customer_id)
    print(f"{order.order_id}: {customer.name if customer else 'nobody'} pays {order.total}")
    if customer:
        await tx.execute("INSERT INTO invoice VALUES (?, ?)", order.order_id, order.total)


async def main() -> None:
    async with crm, billing:
        async with billing.transaction() as tx:
            await tx.execute("CREATE TABLE IF NOT EXISTS invoice (order_id TEXT PRIMARY KEY, total INTEGER)")
        for customer, order in (
            (Customer("c-1", "Ada Lovelace"), OrderPlaced("o-1", "c-1", 30)),
            (Customer("c-1", "Ada King"), OrderPlaced("o-2", "c-1", 12)),
            (Gone(Customer, "c-1"), OrderPlaced("o-3", "c-1", 99)),
        ):
            await crm.publish(customer)
            await billing.run(until_idle=True)
            await crm.publish(order, id=order.order_id)  # publishing it again changes nothing
            await billing.run(until_idle=True)
        print(await billing.store.query("SELECT * FROM invoice ORDER BY order_id"))


if __name__ == "__main__":
    asyncio.run(main())
