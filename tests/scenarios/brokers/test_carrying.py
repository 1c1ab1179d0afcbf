"""Apps with stores of their own meet at a broker, and everything is as on one store."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from tests.scenarios.brokers.conftest import Make
from tests.scenarios.brokers.messages import Customer, Noted, OrderPaid, OrderPlaced
from tests.scenarios.brokers.working import at_work, until
from tidings import App, Dead, Gone, Key, Needs, Replica, Retry, Transaction, command, event
from tidings.brokers.log import LogBroker
from tidings.core.operations import Settle
from tidings.core.ports import Store
from tidings.errors import GroupConflict, NeedsNotMet, PayloadTooLarge
from tidings.runtime.connect import make_broker
from tidings.runtime.outgoing import AROUND
from tidings.runtime.pump import LEISURE


@command(app="shipping")
class Ship:
    order_id: Key[str]


@pytest.mark.proves("G5", "G9")
async def test_what_one_app_publishes_the_other_handles_in_order_and_answers(make: Make) -> None:
    shop, billing = make("shop"), make("billing")
    seen: dict[str, list[int]] = {}
    paid: list[str] = []

    @billing.on(OrderPlaced, needs=Needs(ordered=True))
    async def bill(order: OrderPlaced) -> OrderPaid:
        await asyncio.sleep(0)
        seen.setdefault(order.order_id, []).append(order.total)
        return OrderPaid(order.order_id, order.total)

    @shop.on(OrderPaid)
    async def close(order: OrderPaid) -> None:
        paid.append(order.order_id)

    async with at_work(shop, billing), shop:
        for total in range(20):
            await shop.publish(*(OrderPlaced(f"o-{n}", total) for n in range(10)))
        await until(lambda: len(paid) == 200)
    assert seen == {f"o-{n}": list(range(20)) for n in range(10)}


async def test_what_is_private_stays_at_home(make: Make) -> None:
    shop, billing = make("shop"), make("billing")
    seen: list[object] = []

    @billing.on(Noted)
    async def note(noted: Noted) -> None:
        seen.append(noted)

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        seen.append(order)

    async with at_work(shop, billing), shop:
        await shop.publish(Noted("o-1"), OrderPlaced("o-1", 1))
        await until(lambda: seen)
        await asyncio.sleep(0.2)
    assert seen == [OrderPlaced("o-1", 1)]


@pytest.mark.proves("G7")
async def test_effects_happen_once_whatever_the_broker_delivers_twice(make: Make, broker_url: str) -> None:
    billing = make("billing")

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("INSERT INTO bills VALUES (?, ?)", order.order_id, order.total)

    async with billing, billing.transaction() as tx:
        await tx.execute("CREATE TABLE bills (id TEXT PRIMARY KEY, total INTEGER)")
    # two apps by the same name on stores of their own know nothing of each other: both publish the same ids
    first, second = make("shop"), App("sqlite::memory:", broker=broker_url, name="shop")
    async with at_work(first, second, billing), first, second:
        for number in range(50):
            await first.publish(OrderPlaced(f"o-{number}", number), id=f"id-{number}")
            await second.publish(OrderPlaced(f"o-{number}", number), id=f"id-{number}")
        async with billing:
            await until(lambda: _all_billed(billing.store, 50))
    async with billing:
        assert await billing.store.query("SELECT count(*) FROM tidings_log") == [(50,)]


async def _all_billed(store: Store, count: int) -> bool:
    return await store.query("SELECT count(*) FROM bills") == [(count,)]


@pytest.mark.proves("G20", "G23")
async def test_failures_are_retried_parked_and_redriven_as_on_one_store(make: Make) -> None:
    shop, billing = make("shop"), make("billing")
    seen: list[tuple[str, int]] = []
    broken = True

    @billing.on(OrderPlaced, retry=Retry(attempts=2, initial=0.01))
    async def bill(order: OrderPlaced) -> None:
        if broken and order.order_id == "bad":
            raise Dead("no such customer")
        seen.append((order.order_id, order.total))

    async with at_work(shop, billing), shop, billing:
        await shop.publish(*(OrderPlaced(key, n) for n in range(3) for key in ("good", "bad")))
        await until(lambda: len(seen) == 3)
        await until(lambda: _count(billing.store, "dead", 1))
        await until(lambda: _count(billing.store, "parked", 2))  # they come later where a key waits for its first one
        assert [each.state for each in await billing.store.held(group="billing.bill")] == ["dead", "parked", "parked"]
        broken = False
        from tidings.core.operations import Redrive

        await billing.store.write(Redrive([(await billing.store.held(state="dead"))[0].id]))
        await until(lambda: len(seen) == 6)
    assert [total for key, total in seen if key == "bad"] == [0, 1, 2]


async def _count(store: Store, state: str, count: int) -> bool:
    return len(await store.held(state=state)) == count


@pytest.mark.proves("G18")
async def test_a_replica_of_another_apps_states_follows_and_forgets(make: Make) -> None:
    shop = make("shop")
    customers = Replica(Customer)
    billing = make("billing", customers)
    async with at_work(shop, billing), shop, billing:
        await shop.publish(Customer("c-1", "Ada"), Customer("c-2", "Bob"))
        await shop.publish(Customer("c-1", "Ada L."), Gone(Customer, "c-2"))

        async def is_there() -> bool:
            return (await billing.get(customers, "c-1"), await billing.get(customers, "c-2")) == (
                Customer("c-1", "Ada L."),
                None,
            )

        await until(is_there)


@pytest.mark.proves("G18")
async def test_a_replica_that_starts_late_gets_current_states_from_their_owner(make: Make, forgetful: None) -> None:
    shop = make("shop")
    async with at_work(shop), shop:
        await shop.publish(*(Customer(f"c-{n}", f"name {n}") for n in range(700)), Customer("c-1", "Ada"))
        await shop.publish(Gone(Customer, "c-2"))
        await until(lambda: _carried(shop))
    customers = Replica(Customer)
    latecomer = make("latecomer", customers)
    async with at_work(latecomer, shop), latecomer, shop:

        async def is_seeded() -> bool:
            found = await latecomer.query(customers, "SELECT count(*), min(_version), max(_version) FROM customers")
            return found == [(699, 1, 2)] and await latecomer.get(customers, "c-1") == Customer("c-1", "Ada")

        async with asyncio.timeout(15):
            while not await latecomer.store.backlog("latecomer.customers"):
                await asyncio.sleep(0.05)
        await until(is_seeded)
        await latecomer.rebuild(customers)  # anew, while it is at work
        await until(is_seeded)
        assert await latecomer.get(customers, "c-2") is None


async def test_the_largest_state_that_may_be_published_can_be_sent_again_to_who_starts_late(
    make: Make, forgetful: None
) -> None:
    shop, around = make("shop"), len(b'{"customer_id":"c-1","name":""}')
    most = make_broker(shop.broker or "", "shop").guarantees.max_bytes
    largest = Customer("c-1", "x" * (most - AROUND - around))
    async with at_work(shop), shop:
        with pytest.raises(PayloadTooLarge):
            await shop.publish(dataclasses.replace(largest, name=f"{largest.name}x"))
        await shop.publish(largest)
        await until(lambda: _carried(shop))
    customers = Replica(Customer)
    latecomer = make("latecomer", customers)
    async with at_work(latecomer, shop), latecomer, shop:

        async def is_seeded() -> bool:
            return await latecomer.get(customers, "c-1") == largest

        async with asyncio.timeout(15):
            while not await latecomer.store.backlog("latecomer.customers"):
                await asyncio.sleep(0.05)
        await until(is_seeded)


async def _carried(app: App) -> bool:
    [found] = await app.store.backlog(f"{app.name}.outbound")
    return found.lag == 0


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was published before an app first ran does not reach it, as on brokers without history."""
    subscribe = LogBroker.subscribe

    async def late(self: LogBroker, topics) -> None:
        self._consumer.subscription = dataclasses.replace(self._consumer.subscription, start="latest")
        await subscribe(self, topics)

    monkeypatch.setattr(LogBroker, "subscribe", late)


async def test_a_command_waits_for_an_app_that_never_ran(make: Make) -> None:
    """Also where the broker keeps no history: it is that app's, and nobody else will do it."""
    shop, shipping = make("shop"), make("shipping")
    shipped: list[str] = []

    @shipping.on(Ship)
    async def ship(order: Ship) -> None:
        shipped.append(order.order_id)

    async with shop:
        await shop.send(Ship("o-1"))
        await shop.send(Ship("o-2"))
        async with at_work(shop):
            await until(lambda: _carried(shop))
    async with at_work(shipping):
        await until(lambda: sorted(shipped) == ["o-1", "o-2"])


async def test_a_command_reaches_the_app_that_handles_it(make: Make) -> None:
    shop, shipping = make("shop"), make("shipping")
    shipped: list[str] = []

    @shipping.on(Ship)
    async def ship(order: Ship) -> None:
        shipped.append(order.order_id)

    async with at_work(shop, shipping), shop:
        await shop.send(Ship("o-1"))
        await shop.send(Ship("o-2"), after=0.05)
        await until(lambda: sorted(shipped) == ["o-1", "o-2"])  # keys of their own: in either order


@event(topic="shipping")
class Shipped:
    order_id: Key[str]


@pytest.mark.bad_input(36)
async def test_a_command_is_handled_by_the_app_it_belongs_to_and_no_other_ever_gets_it(make: Make) -> None:
    shop, shipping, rival, watcher = make("shop"), make("shipping"), make("rival"), make("watcher")
    handled: list[tuple[str, str]] = []

    for app in (shipping, rival):

        @app.on(Ship, group="ship")
        async def ship(order: Ship, app: App = app) -> Shipped:
            handled.append((app.name, order.order_id))
            return Shipped(order.order_id)

    seen: list[str] = []

    @watcher.on(Shipped)
    async def watch(shipped: Shipped) -> None:
        seen.append(shipped.order_id)

    names = [f"o-{n}" for n in range(20)]
    refusal = "the app rival handles the command Ship, which belongs to the app shipping"
    starting = asyncio.create_task(rival.run())  # at the same moment
    async with at_work(shop, shipping, watcher), shop:
        async with asyncio.timeout(30):
            with pytest.raises(GroupConflict, match=refusal) as caught:
                await starting
        assert '@command(app="rival")' in caught.value.cure
        for name in names:
            await shop.send(Ship(name))
        await until(lambda: len(seen) == len(names))
    assert sorted(handled) == sorted(("shipping", name) for name in names)
    async with watcher:
        log = await watcher.store.read(0, await watcher.store.head(), 100)
        assert {each.type for each in log} == {"Shipped"}


@pytest.mark.proves("G5")
async def test_two_workers_of_one_app_on_one_store_share_what_arrives(make: Make) -> None:
    shop, one, two = make("shop"), make("billing"), make("billing")
    seen: list[tuple[int, str, int]] = []
    for which, app in enumerate((one, two)):

        @app.on(OrderPlaced, group="bill")
        async def bill(order: OrderPlaced, which: int = which) -> None:
            seen.append((which, order.order_id, order.total))

    totals = 0
    async with at_work(shop, one, two), shop:
        async with asyncio.timeout(20):
            while {which for which, _, _ in seen} != {0, 1} or totals < 10:
                await shop.publish(*(OrderPlaced(f"o-{n}", totals) for n in range(50)))
                totals += 1
                await asyncio.sleep(0.05)
        await until(lambda: len(seen) == 50 * totals)
    for number in range(50):
        assert [total for _, key, total in seen if key == f"o-{number}"] == list(range(totals))


async def test_until_idle_waits_for_what_is_on_its_way(make: Make) -> None:
    shop, billing = make("shop"), make("billing")
    seen: list[str] = []

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        seen.append(order.order_id)

    await billing.run(until_idle=True)  # declares where messages arrive
    async with shop:
        await shop.publish(*(OrderPlaced(f"o-{n}", 1) for n in range(100)))
    await shop.run(until_idle=True)
    await billing.run(until_idle=True)
    assert len(seen) == 100
    assert await _outbound_is_empty(shop)


async def _outbound_is_empty(shop: App) -> bool:
    async with shop:
        return await shop.store.checkpoint("shop.outbound") == await shop.store.head()


@pytest.mark.parametrize("url", ["kafak://localhost", "amqp:localhost"])
def test_a_broker_url_that_cannot_be_read_is_refused_when_the_app_is_made(url: str) -> None:
    from tidings.errors import BadUrl

    with pytest.raises(BadUrl):
        App("sqlite::memory:", broker=url)


# ---- what carrying costs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "needs", "others"),
    [
        ("sqs://eu-central-1", Needs(ordered=True), "SQLite, PostgreSQL, Kafka, RabbitMQ, SQS FIFO"),
        ("sqs://eu-central-1?fifo=true", Needs(history=True), "SQLite, PostgreSQL, Kafka"),
        ("amqp://127.0.0.1:1", Needs(history=True), "SQLite, PostgreSQL, Kafka"),
    ],
)
async def test_a_handler_that_needs_what_a_broker_cannot_give_does_not_start(
    url: str, needs: Needs, others: str, tmp_path: Path
) -> None:
    app = App(f"sqlite:{tmp_path}/billing.db", broker=url, name="billing")

    @app.on(OrderPlaced, needs=needs)
    async def bill(order: OrderPlaced) -> None: ...

    wanted = "messages of one key in order" if needs.ordered else "what was published before it first ran"
    with pytest.raises(NeedsNotMet, match=rf"bill .* needs {wanted}, which (SQS|RabbitMQ).* use one of {others}, or"):
        await app.run()


async def test_what_was_carried_is_noted_at_leisure_and_not_flushed(tmp_path, monkeypatch) -> None:
    shop = App(f"sqlite:{tmp_path}/shop.db", name="shop", broker=f"sqlite:{tmp_path}/broker.db")
    carried: list[Settle] = []
    async with at_work(shop), shop:
        write, began = shop.store.write, asyncio.get_running_loop().time()

        def noting(op):
            if isinstance(op, Settle) and op.group == "shop.outbound":
                carried.append(op)
            return write(op)

        monkeypatch.setattr(shop.store, "write", noting)
        for total in range(100):
            await shop.publish(OrderPlaced("o-1", total))
            await asyncio.sleep(0.002)
        [worker] = shop._workers
        [outbound] = [pump for pump in worker.pumps if pump.group == "shop.outbound"]
        await until(lambda: outbound.handled == 100)
        elapsed = asyncio.get_running_loop().time() - began
    assert len(carried) <= elapsed / LEISURE + 2
    assert not any(op.durable for op in carried if op.checkpoint)


async def test_what_arrives_is_handled_without_being_read_again(tmp_path, monkeypatch) -> None:
    broker = f"sqlite:{tmp_path}/broker.db"
    shop, billing = (App(f"sqlite:{tmp_path}/{name}.db", name=name, broker=broker) for name in ("shop", "billing"))
    seen: list[int] = []
    read: list[int] = []

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        seen.append(order.total)

    async with at_work(shop, billing), shop, billing:
        from_log = billing.store.read

        async def reading(*args, **options):
            rows = await from_log(*args, **options)
            read.extend(row.position for row in rows)
            return rows

        monkeypatch.setattr(billing.store, "read", reading)
        for total in range(30):
            await shop.publish(OrderPlaced("o-1", total))
            await until(lambda total=total: len(seen) > total)
    assert seen == list(range(30))
    assert len(read) < 15
