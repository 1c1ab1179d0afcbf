"""A shop whose handlers fail, dawdle or crash while a file of that name lies in the folder."""

import asyncio
import os
from pathlib import Path

from tidings import App, Key, Projection, Retry, Transaction, event


def lies_here(name: str) -> bool:
    return Path(name).exists()


@event(topic="orders")
class OrderPlaced:
    order_id: Key[str]
    email: str
    total: int


@event(topic="receipts")
class ReceiptSent:
    order_id: Key[str]


@event(topic="parcels")
class ParcelSent:
    order_id: Key[str]


revenue = Projection("revenue", schema="CREATE TABLE revenue (email TEXT PRIMARY KEY, total INTEGER NOT NULL)")


@revenue.on(OrderPlaced)
async def add(order: OrderPlaced, tx: Transaction) -> None:
    await tx.execute(
        "INSERT INTO revenue VALUES (?, ?) ON CONFLICT (email) DO UPDATE SET total = revenue.total + excluded.total",
        order.email,
        order.total,
    )


app = App("sqlite:shop.db", revenue, name="shop", lease=2.0)


@app.on(OrderPlaced, retry=Retry(attempts=2, initial=0.01))
async def send_receipt(order: OrderPlaced) -> ReceiptSent:
    if lies_here("broken") and order.email.startswith("bad"):
        raise ValueError(f"no such mailbox: {order.email}")
    if lies_here("slow"):
        await asyncio.sleep(600)
    if lies_here("crash") and order.email.startswith("bad"):
        os._exit(9)
    return ReceiptSent(order.order_id)


@app.on(ReceiptSent)
async def send_parcel(receipt: ReceiptSent) -> ParcelSent:
    return ParcelSent(receipt.order_id)
