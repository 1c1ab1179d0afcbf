"""Event-carried state transfer: replicas that follow an owner, however late, and can be seeded anew."""

from __future__ import annotations

import asyncio
import json
import sqlite3

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


@pytest.mark.proves("G18")
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


def foreign(number: int, key: str, name: str | None, version: int | None = None) -> bytes:
    """A state as another service sends it; with its owner's version where that service counts versions."""
    event: dict[str, object] = {"specversion": "1.0", "id": str(number), "source": "/crm", "type": "Customer"}
    event |= {"subject": key, "data": {"customer_id": key, "name": name}}
    event |= {} if name is not None else {"data": None}
    event |= {} if version is None else {"streamid": f"state:Customer:{key}", "streamversion": version}
    return json.dumps(event).encode()


async def names(app: App, customers: Replica[Customer]) -> list[tuple[str, str]]:
    return await app.query(customers, "SELECT customer_id, name FROM customers ORDER BY 1")


@pytest.mark.parametrize("early", range(5), ids="of them {} came before the replica was there".format)
@pytest.mark.parametrize("counts", [False, True], ids=["without versions", "with versions, the newest one first"])
@pytest.mark.proves("G18")
async def test_states_of_another_service_are_kept_whenever_the_replica_starts(
    url: str, early: int, *, counts: bool
) -> None:
    customers = Replica(Customer)
    gateway, billing = App(url, name="gateway"), App(url, customers, name="billing")
    sent = [("a", "Ada", 1), ("b", "Bob", 1), ("a", "Ada L.", 2), ("b", None, 2)]
    async with gateway, billing:
        for number, (key, name, version) in enumerate(reversed(sent) if counts else sent):
            if number == early:
                await billing.run(until_idle=True)
            assert await gateway.receive(foreign(number, key, name, version if counts else None)) == number + 1
        await billing.run(until_idle=True)
        assert await names(billing, customers) == [("a", "Ada L.")]
        await billing.rebuild(customers)
        await billing.run(until_idle=True)
        assert await names(billing, customers) == [("a", "Ada L.")]
        await gateway.receive(foreign(9, "b", "Bob is back", 3 if counts else None))
        await billing.run(until_idle=True)
        assert await names(billing, customers) == [("a", "Ada L."), ("b", "Bob is back")]


async def test_a_stranger_s_version_counts_for_states_of_its_own_key_only(url: str) -> None:
    customers = Replica(Customer)
    app = App(url, customers)
    async with app:
        await app.run(until_idle=True)
        await app.publish(Customer("a", "Ada"))
        event = json.loads(foreign(1, "b", "Bob", 99)) | {"streamid": "state:Customer:a"}
        await app.receive(json.dumps(event).encode())
        await app.publish(Customer("a", "Ada L."))
        await app.run(until_idle=True)
        assert await names(app, customers) == [("a", "Ada L."), ("b", "Bob")]
        versions = [(each.key, each.version) for each in await app.store.states("Customer")]
    assert versions == [("a", 2)]


async def test_an_event_without_a_time_gets_that_of_its_arrival(url: str) -> None:
    app = App(url, Replica(Customer))
    async with app:
        await app.run(until_idle=True)
        await app.receive(foreign(1, "a", "Ada"))
        assert await app.staleness(app.parts[0]) < 60


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


async def test_a_replica_that_has_not_run_says_so(sqlite_url: str) -> None:
    customers = Replica(Customer)
    app = App(sqlite_url, customers, name="billing")

    def ask() -> None:
        with app.blocking() as b:
            b.get(customers, "c-1")

    async with app:
        for asking in (
            app.get(customers, "c-1"),
            app.query(customers, "SELECT * FROM customers"),
            asyncio.to_thread(ask),
        ):
            with pytest.raises(errors.NotFound, match="customers has not run in app billing yet"):
                await asking
        with pytest.raises(errors.BadArgument, match="give the Replica or Decider"):
            await app.get(Customer, "c-1")  # type: ignore[arg-type]
        await app.run(until_idle=True)
        assert await app.get(customers, "c-1") is None
        with pytest.raises(sqlite3.OperationalError, match="no such column"):
            await app.query(customers, "SELECT nope FROM customers")


async def test_only_a_state_can_be_gone(url: str) -> None:
    app = App(url)
    async with app:
        with pytest.raises(errors.NotAMessage, match="no state"):
            await app.publish(Gone(OrderPlaced, "a"))
