"""A store in memory forgets what all groups have finished, and nothing that somebody reads again."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.runtime.messages import OrderPlaced, ReceiptSent, Ship
from tests.scenarios.runtime.test_hard_transactions import Shipped, shipments
from tests.scenarios.runtime.waiting import working
from tidings import App, Dead, Projection, Transaction
from tidings.core.operations import Beat
from tidings.stores.sqlite import forgetting

KEPT = 20


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "KEPT", KEPT)


async def count(app: App, table: str) -> int:
    [(rows,)] = await app.store.query(f"SELECT count(*) FROM {table}")
    return int(rows)


async def test_its_log_stays_short_and_streams_and_dead_letters_stay_whole() -> None:
    app = App("sqlite::memory:", shipments, name="shop", lease=0.3)
    leave = asyncio.Event()

    @app.on(OrderPlaced, concurrency=200)
    async def work(order: OrderPlaced) -> None:
        if order.number == 150:
            await leave.wait()
        if order.number == 3:
            raise Dead("no such customer")

    @app.on(ReceiptSent)
    async def never(_receipt: ReceiptSent) -> None:
        """Nothing of this comes, and nobody waits for it."""

    async with app:
        await app.append(shipments, "a", Shipped("a"), Shipped("a"))
        for number in range(300):
            await app.publish(OrderPlaced(f"k{number}", number))
        async with working(app):
            async with asyncio.timeout(30):
                while await count(app, "tidings_log") > 302 - 140:
                    await asyncio.sleep(0.02)
            assert await count(app, "tidings_log") >= 150  # from the one on that is not finished
            leave.set()
            async with asyncio.timeout(30):
                while await count(app, "tidings_log") > KEPT + 2:
                    await asyncio.sleep(0.02)
        assert await count(app, "tidings_id") <= KEPT + 2
        assert await app.get(shipments, "a") == 2
        assert [held.envelope.key for held in await app.store.held(state="dead")] == ["k3"]
        await app.publish(OrderPlaced("later", 1000))
        assert await app.execute(shipments, Ship("a")) == await app.store.head() == 304


async def test_everything_stays_where_a_projection_may_be_rebuilt() -> None:
    totals = Projection("totals", schema="CREATE TABLE totals (key TEXT PRIMARY KEY, orders INTEGER NOT NULL)")

    @totals.on(OrderPlaced)
    async def add(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(
            "INSERT INTO totals VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET orders = orders + 1", order.order_id
        )

    app = App("sqlite::memory:", totals, name="shop", lease=0.3)
    async with app:
        await app.publish(*(OrderPlaced("a", number) for number in range(100)))
        await app.run(until_idle=True)
        await app.store.write(Beat("shop", "another worker", 1.0))
        assert await count(app, "tidings_log") == 100
        await app.rebuild("totals")
        assert await app.query(totals, "SELECT orders FROM totals") == [(100,)]
