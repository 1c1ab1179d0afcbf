"""Event-carried state transfer: replicas that follow an owner, however late, and can be seeded anew."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.runtime.messages import Customer, OrderPlaced
from tidings import App, Gone, Replica, Transaction, errors


async def test_a_replica_follows_its_owner_with_versions_and_tombstones(url: str) -> None:
    customers = Replica(Customer)
    owner, billing = App(url, name="crm"), App(url, customers, name="billing")
    async with owner, billing:
        await owner.publish(Customer("c-1", "Ada"), Customer("c-2", "Bob"))
        await billing.run(until_idle=True)
        assert await billing.get(customers, "c-1") == Customer("c-1", "Ada")
        await owner.publish(Customer("c-1", "Ada L."), Gone(Customer, "c-2"))
        await billing.run(until_idle=True)
        assert await billing.query(customers, "SELECT customer_id, name FROM customers") == [("c-1", "Ada L.")]
        assert await billing.get(customers, "c-2") is None
        await owner.publish(Customer("c-2", "Bob is back"))
        await billing.run(until_idle=True)
        assert await billing.get(customers, "c-2") == Customer("c-2", "Bob is back")
        versions = await billing.query(customers, "SELECT customer_id, _version FROM customers ORDER BY 1")
    assert versions == [("c-1", 2), ("c-2", 3)]


async def test_a_replica_that_starts_late_is_seeded_with_the_current_states(url: str) -> None:
    customers = Replica(Customer)
    owner = App(url, name="crm")
    async with owner:
        for number in range(3):
            await owner.publish(*(Customer(f"c-{key}", f"name {number}") for key in range(2500)))
        await owner.publish(Gone(Customer, "c-7"))
        billing = App(url, customers, name="billing")
        async with billing:
            await billing.run(until_idle=True)
            rows = await billing.query(customers, "SELECT count(*), count(DISTINCT name), max(name) FROM customers")
            assert await billing.get(customers, "c-7") is None
            (group,) = await billing.store.backlog("billing.customers")
    assert rows == [(2499, 1, "name 2")]
    assert group.lag == 0


async def test_a_replica_is_seeded_anew_while_its_owner_goes_on(url: str) -> None:
    customers = Replica(Customer)
    app = App(url, customers, name="billing")
    owner = App(url, name="crm")
    async with owner, app:
        await owner.publish(*(Customer(f"c-{key}", "old") for key in range(3000)))
        await app.run(until_idle=True)
        async with app.transaction() as tx:  # damage: a stray row, a lost row
            await tx.execute("INSERT INTO customers VALUES ('stray', 'x', 1, 0, 0)")
            await tx.execute("DELETE FROM customers WHERE customer_id = 'c-5'")
        rebuilding = asyncio.create_task(app.rebuild(customers))
        for key in range(0, 3000, 10):
            await owner.publish(Customer(f"c-{key}", "new"))
        await rebuilding
        await app.run(until_idle=True)
        found = await app.query(customers, "SELECT name, count(*) FROM customers GROUP BY 1 ORDER BY 1")
        truth = [(state.key, state.version) for state in await app.store.states("Customer", limit=5000)]
        copied = await app.query(customers, "SELECT customer_id, _version FROM customers ORDER BY 1")
    assert found == [("new", 300), ("old", 2700)]
    assert copied == truth


async def test_a_handler_reads_the_replica_in_its_own_transaction(url: str) -> None:
    customers = Replica(Customer)
    app, invoices = App(url, customers, name="billing"), list[str]()

    @app.on(OrderPlaced)
    async def invoice(order: OrderPlaced, tx: Transaction) -> None:
        customer = await tx.get(customers, order.order_id)
        invoices.append(customer.name if customer else "nobody")

    async with app:
        await app.publish(Customer("c-1", "Ada"))
        await app.run(until_idle=True)
        await app.publish(OrderPlaced("c-1"), OrderPlaced("c-2"))
        await app.run(until_idle=True)
    assert sorted(invoices) == ["Ada", "nobody"]


async def test_staleness_is_the_age_of_what_was_not_taken_over(url: str) -> None:
    customers = Replica(Customer)
    app = App(url, customers, name="billing")
    async with app:
        with pytest.raises(errors.NotFound):
            await app.staleness(customers)
        await app.run(until_idle=True)
        assert await app.staleness(customers) == 0.0
        await app.publish(Customer("c-1", "Ada"))
        await asyncio.sleep(0.05)
        assert 0.05 <= await app.staleness(customers) < 5
        await app.run(until_idle=True)
        assert await app.staleness(customers) == 0.0


async def test_only_a_state_can_be_gone(url: str) -> None:
    app = App(url)
    async with app:
        with pytest.raises(errors.NotAMessage, match="no state"):
            await app.publish(Gone(OrderPlaced, "a"))
