"""Transactions that meet themselves, one another, or the end of their worker."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.scenarios.runtime.messages import OrderPlaced, ReceiptSent, Said, Ship
from tests.scenarios.runtime.waiting import until, working
from tests.servers.postgres import PostgresServers
from tidings import App, Dead, Decider, Retry, Transaction, errors, event
from tidings.runtime import batch

ONCE = Retry(attempts=1)


@event
class Shipped:
    """An order was shipped."""

    order_id: str


def ship(_state: int, command: Ship) -> list[Shipped]:
    """Every order can be shipped."""
    return [Shipped(command.order_id)]


def shipped(state: int, _event: Shipped) -> int:
    """Count."""
    return state + 1


shipments: Decider[int, Ship, Shipped] = Decider("shipment", initial=0, decide=ship, evolve=shipped)

VERBS: dict[str, Callable[[App], Awaitable[object]]] = {
    "publish": lambda app: app.publish(ReceiptSent("a")),
    "send": lambda app: app.send(Ship("a")),
    "execute": lambda app: app.execute(shipments, Ship("a")),
    "append": lambda app: app.append(shipments, "a", Shipped("a")),
    "receive": lambda app: app.receive(b"not a CloudEvent"),
}


# ---- a transaction that would wait for itself ------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_of_the_app_inside_an_open_transaction_is_refused_at_once(url: str, verb: str) -> None:
    app = App(url, shipments)

    @app.on(OrderPlaced, retry=ONCE)
    async def work(_order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("SELECT 1")
        await VERBS[verb](app)

    async with app, asyncio.timeout(5):
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
        (dead,) = await app.store.held()
        async with app.transaction() as tx:
            await tx.execute("SELECT 1")
            with pytest.raises(errors.UsageError, match=f"app.{verb}.*tx.publish"):
                await VERBS[verb](app)
        await VERBS[verb](app)
    assert dead.reason.startswith(f"UsageError: `app.{verb}` is called inside a transaction")


async def test_a_transaction_inside_one_that_executed_something_is_refused_at_once(url: str) -> None:
    app = App(url)
    async with app, asyncio.timeout(5):
        async with app.transaction() as outer, app.transaction() as inner:
            await outer.execute("SELECT 1")
            with pytest.raises(errors.UsageError, match="wait for itself"):
                await inner.execute("SELECT 1")
        async with app.transaction() as outer:
            await outer.execute("SELECT 1")
            with pytest.raises(errors.UsageError, match="wait for itself"):
                async with app.transaction() as inner:
                    await inner.execute("SELECT 1")
        async with app.transaction() as again:
            await again.execute("SELECT 1")


async def test_a_thread_that_a_transaction_waits_for_is_refused_too(url: str) -> None:
    app = App(url)

    def elsewhere() -> None:
        with app.blocking() as plain:
            plain.publish(ReceiptSent("a"))

    async with app, asyncio.timeout(5):
        async with app.transaction() as tx:
            await tx.execute("SELECT 1")
            with pytest.raises(errors.UsageError, match=r"app\.publish"):
                await asyncio.to_thread(elsewhere)
        await asyncio.to_thread(elsewhere)


def test_plain_code_is_refused_in_the_same_way(url: str) -> None:
    with App(url).blocking() as plain:
        with plain.transaction() as tx:
            tx.execute("SELECT 1")
            with pytest.raises(errors.UsageError, match=r"tx\.publish"):
                plain.publish(ReceiptSent("a"))
            tx.publish(ReceiptSent("a"))
        assert plain.publish(ReceiptSent("b")) == 2


async def test_before_the_first_statement_and_to_another_store_the_app_publishes_as_ever(
    sqlite_url: str, tmp_path: object
) -> None:
    app, other = App(sqlite_url), App(f"sqlite:{tmp_path}/other.db")

    @app.on(OrderPlaced, retry=ONCE)
    async def work(order: OrderPlaced, tx: Transaction) -> None:
        if order.number % 2:
            await app.publish(ReceiptSent(order.order_id, order.number))
        await tx.execute("SELECT 1")
        await other.publish(ReceiptSent(order.order_id, order.number))

    async with app, other, asyncio.timeout(10):
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(6)))
        await app.run(until_idle=True)
        assert await app.store.held() == []
        assert len(await app.store.read(0, 100, 100, types=["ReceiptSent"])) == 3
        assert len(await other.store.read(0, 100, 100, types=["ReceiptSent"])) == 6


# ---- a statement that fails, and a handler that says nothing of it ---------------------------------------------------


async def test_a_handler_that_hides_a_failed_statement_is_done_whole_or_not_at_all_and_harms_no_other(url: str) -> None:
    """PostgreSQL undoes what came before it in the handler, SQLite does not."""
    app = App(url)

    @app.on(OrderPlaced, retry=ONCE)
    async def work(order: OrderPlaced, tx: Transaction) -> ReceiptSent:
        await tx.execute("INSERT INTO shelf VALUES (?)", order.number)
        if order.number == 1:
            with contextlib.suppress(Exception):
                await tx.execute("SELECT nothing FROM nowhere")
        return ReceiptSent(order.order_id, order.number)

    async with app, asyncio.timeout(20):
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE shelf (number INTEGER)")
        await app.publish(*[OrderPlaced(f"o-{number}", number) for number in range(4)])
        await app.run(until_idle=True)
        kept = sorted(number for (number,) in await app.store.query("SELECT number FROM shelf"))
        receipts = [each.key for each in await app.store.read(4, 9, 9) if each.type == "ReceiptSent"]
        given_up = [each.envelope.key for each in await app.store.held()]
    assert kept == ([0, 1, 2, 3] if url.startswith("sqlite") else [0, 2, 3])
    assert receipts == [f"o-{number}" for number in kept]
    assert given_up == [f"o-{number}" for number in range(4) if number not in kept]


# ---- what is published and what is appended --------------------------------------------------------------------------


async def names(app: App) -> list[str]:
    """What the log has, in order."""
    return [f"{each.type} {each.key}" for each in await app.store.read(0, 100, 100)]


async def test_what_one_publishes_stands_before_what_one_appends_later(url: str) -> None:
    app = App(url, shipments)
    async with app:
        async with app.transaction() as tx:
            await tx.publish(ReceiptSent("1"))
            await tx.append("shipment:2", "2", [Shipped("2")])
            await tx.publish(ReceiptSent("3"))
        assert await names(app) == ["ReceiptSent 1", "Shipped 2", "ReceiptSent 3"]


async def test_messages_of_a_batch_leave_in_the_order_of_its_deliveries_and_those_of_a_failed_one_do_not(
    url: str,
) -> None:
    app = App(url, shipments)

    @app.on(OrderPlaced, retry=ONCE)
    async def work(order: OrderPlaced, tx: Transaction) -> ReceiptSent | None:
        if order.number % 2:
            return ReceiptSent(str(order.number))
        await tx.append(f"shipment:{order.number}", str(order.number), [Shipped(str(order.number))])
        if order.number == 4:
            raise Dead("takes its own back, not what the others published")
        return None

    async with app, asyncio.timeout(10):
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(1, 7)))
        await app.run(until_idle=True)
        assert (await names(app))[6:] == ["ReceiptSent 1", "Shipped 2", "ReceiptSent 3", "ReceiptSent 5", "Shipped 6"]


async def test_what_the_last_of_a_batch_appended_before_it_failed_was_never_in_the_log(url: str) -> None:
    app = App(url, shipments)

    @app.on(OrderPlaced, retry=ONCE)
    async def work(order: OrderPlaced, tx: Transaction) -> None:
        await tx.append(f"shipment:{order.number}", str(order.number), [Shipped(str(order.number))])
        if order.number == 2:
            raise Dead("the place it was given is that of the next one")

    seen: list[int] = []

    @app.on(ReceiptSent)
    async def note(receipt: ReceiptSent) -> None:
        seen.append(receipt.number)

    async with app, asyncio.timeout(10), working(app):
        await app.publish(OrderPlaced("a", 1), OrderPlaced("b", 2))
        while not await app.store.held():
            await asyncio.sleep(0.001)
        for number in range(3):
            await app.publish(ReceiptSent("c", number))
            await asyncio.sleep(0.01)
        await until(lambda: seen == [0, 1, 2])
        assert (await names(app))[2:] == ["Shipped 1", "ReceiptSent c", "ReceiptSent c", "ReceiptSent c"]


async def test_a_command_that_meets_another_version_in_a_batch_is_decided_anew(url: str) -> None:
    app, tries = App(url), list[int]()

    @app.on(OrderPlaced, retry=Retry(attempts=3, initial=0.001))
    async def work(order: OrderPlaced, tx: Transaction) -> None:
        tries.append(order.number)
        version = 7 if tries == [1, 2] else len(await tx.load("shipment:a"))
        await tx.append("shipment:a", "a", [Shipped(str(order.number))], version)

    async with app, asyncio.timeout(10):
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in (1, 2, 3)))
        await app.run(until_idle=True)
        events = await app.store.load("shipment:a")
        assert await app.store.held() == []
    assert tries == [1, 2, 3, 2]
    assert [version for _, _, version in events] == [1, 2, 3]


# ---- draining --------------------------------------------------------------------------------------------------------


async def test_what_ended_is_committed_while_a_drain_waits_for_the_rest(url: str) -> None:
    app, entered, quick, slow = App(url), list[int](), asyncio.Event(), asyncio.Event()

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced) -> ReceiptSent:
        entered.append(order.number)
        await (slow if order.number else quick).wait()
        return ReceiptSent(order.order_id)

    async with app:
        await app.publish(OrderPlaced("quick", 0), OrderPlaced("slow", 1))
        running = asyncio.create_task(app.run())
        await until(lambda: len(entered) == 2)
        app.stop()
        quick.set()
        async with asyncio.timeout(5):
            while len(await names(app)) < 3:
                await asyncio.sleep(0.001)
        assert not running.done()
        slow.set()
        await running
        assert await names(app) == ["OrderPlaced quick", "OrderPlaced slow", "ReceiptSent quick", "ReceiptSent slow"]


async def test_a_handler_that_ends_well_although_it_was_cancelled_is_not_handled_again(url: str) -> None:
    app, entered, effects = (
        App(url, drain=0.05),
        list[int](),
        "SELECT number, count(*) FROM effects GROUP BY 1 ORDER BY 1",
    )

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced, tx: Transaction) -> None:
        entered.append(order.number)
        try:
            await asyncio.sleep(60 if len(entered) <= 3 else 0)
        except asyncio.CancelledError:
            if order.number == 2:
                raise
        await tx.execute("INSERT INTO effects VALUES (?)", order.number)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE effects (number INTEGER)")
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(3)))
        running = asyncio.create_task(app.run())
        await until(lambda: len(entered) == 3)
        app.stop()
        await asyncio.wait_for(running, 10)
        assert await app.store.query(effects) == [(0, 1), (1, 1)]
        await app.run(until_idle=True)
        assert await app.store.query(effects) == [(0, 1), (1, 1), (2, 1)]
        assert await app.store.held() == []


async def test_a_commit_that_is_under_way_at_the_deadline_is_not_released_as_well(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, entered = App(sqlite_url), list[int]()

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced, tx: Transaction) -> None:
        entered.append(order.number)
        await asyncio.sleep(0)
        await tx.execute("INSERT INTO effects VALUES (?)", order.number)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE effects (number INTEGER)")
        committer = app.store._committer  # type: ignore[attr-defined]
        finish, reached, go_on = committer.finish, asyncio.Event(), __import__("threading").Event()
        loop = asyncio.get_running_loop()

        def slow_disk(*, commit: bool) -> bool:
            if commit and entered:
                loop.call_soon_threadsafe(reached.set)
                go_on.wait(10)
            return bool(finish(commit=commit))

        monkeypatch.setattr(committer, "finish", slow_disk)
        worker = app.worker()
        await worker.start()
        await app.publish(OrderPlaced("a", 1))
        await reached.wait()
        draining = asyncio.create_task(worker.drain(0.0))
        await until(lambda: worker.pumps[0].cutting)
        go_on.set()
        await draining
        await app.run(until_idle=True)
        assert await app.store.query("SELECT number FROM effects") == [(1,)]
        assert await app.store.held() == []
    assert entered == [1]


async def test_a_full_disk_does_not_keep_a_worker_from_stopping_and_loses_nothing(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.runtime.drain.LAST", 0.1)
    monkeypatch.setattr("tidings.runtime.worker.LAST", 0.1)
    app, seen, entered = App(sqlite_url), list[int](), asyncio.Event()
    go_on = asyncio.Event()

    @app.on(OrderPlaced, retry=ONCE)
    async def work(order: OrderPlaced) -> Said:
        entered.set()
        await go_on.wait()
        seen.append(order.number)
        return Said("x" * 100_000)

    async with app:
        await app.publish(OrderPlaced("a", 1), OrderPlaced("b", 2))
        worker = app.worker()
        await worker.start()
        await entered.wait()
        connection: sqlite3.Connection = app.store._committer.connection  # type: ignore[attr-defined]
        connection.execute("PRAGMA max_page_count = 1")  # no page may be added from now on
        go_on.set()
        await until(lambda: len(seen) == 2)
        async with asyncio.timeout(5):
            await worker.drain(0.1)
        connection.execute("PRAGMA max_page_count = 1000000")
        await app.run(until_idle=True)
        said = await app.store.read(0, 100, 100, types=["Said"])
        assert await app.store.held() == []
    assert len(said) == 2
    assert sorted(seen) == [1, 1, 2, 2]


async def test_a_handler_that_ignores_being_cancelled_may_not_commit_any_more(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.runtime.drain.LAST", 0.1)
    app, entered, go_on = App(url), list[int](), asyncio.Event()

    @app.on(OrderPlaced)
    async def stubborn(order: OrderPlaced, tx: Transaction) -> None:
        entered.append(order.number)
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        await tx.execute("INSERT INTO effects VALUES (?)", order.number)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE effects (number INTEGER)")
        await app.publish(OrderPlaced("a", 1))
        worker = app.worker()
        await worker.start()
        await until(lambda: entered)
        try:
            cut_short = await worker.drain(0.0)
        finally:
            go_on.set()  # before anything is asserted, or it would go on for ever
        assert cut_short == 1
        await app.run(until_idle=True)
        await until(lambda: not worker.pumps[0].running)
        assert await app.store.query("SELECT number FROM effects") == [(1,)]
        assert await app.store.held() == []
    assert entered == [1, 1]


async def test_a_handler_that_is_cut_short_while_it_gets_a_task_of_its_own_counts_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.runtime.drain.LAST", 0.1)
    app, entered, go_on, commit = App(url), asyncio.Event(), asyncio.Event(), batch.commit

    async def slow(*arguments: Any, **more: Any) -> None:
        committing = asyncio.create_task(commit(*arguments, **more))
        ending = asyncio.create_task(asyncio.sleep(0.05))
        while not (ending.done() and committing.done()):  # as long as a server may take, whoever cancels
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((ending, committing))

    monkeypatch.setattr("tidings.runtime.batch.commit", slow)

    @app.on(OrderPlaced)
    async def stubborn(order: OrderPlaced, tx: Transaction) -> None:
        entered.set()
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()

    async with app:
        await app.publish(OrderPlaced("a", 1))
        worker = app.worker()
        await worker.start()
        await entered.wait()
        try:
            cut_short = await worker.drain(0.0)
        finally:
            go_on.set()
        await until(lambda: not worker.pumps[0].running)
    assert cut_short == 1


async def test_what_a_failed_handler_delayed_does_not_leave_with_those_before_it_in_the_batch(url: str) -> None:
    app = App(url)

    @app.on(OrderPlaced, retry=ONCE)
    async def work(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("SELECT 1")
        await tx.publish(ReceiptSent(order.order_id), after=0.01)
        if order.order_id == "bad":
            raise Dead("no")

    seen: list[str] = []

    @app.on(ReceiptSent)
    async def note(receipt: ReceiptSent) -> None:
        seen.append(receipt.order_id)

    async with app, asyncio.timeout(5):
        await app.publish(OrderPlaced("good"), OrderPlaced("bad"), OrderPlaced("fine"))
        running = asyncio.create_task(app.run())
        await until(lambda: len(seen) >= 2)
        await asyncio.sleep(0.1)
        app.stop()
        await running
    assert sorted(seen) == ["fine", "good"]


@pytest.mark.parametrize("by", ["tx", "connection"])
@pytest.mark.parametrize("words", ["SET LOCAL search_path TO tenant", "SET search_path TO tenant"])
async def test_a_search_path_of_ones_own_leads_no_message_into_the_store_of_another_schema(
    newest_postgres_url: str, by: str, words: str
) -> None:
    shop = App(newest_postgres_url, name="shop")

    async def move(tx: Transaction) -> None:
        await ((await tx.connection()).execute(words) if by == "connection" else tx.execute(words))

    @shop.on(OrderPlaced, retry=ONCE)
    async def keep(order: OrderPlaced, tx: Transaction) -> ReceiptSent:
        await move(tx)
        await tx.append(f"shipment:{order.order_id}", order.order_id, [Shipped(order.order_id)], 0)
        await tx.execute("INSERT INTO kept VALUES (?)", order.order_id)
        return ReceiptSent(order.order_id)

    async with shop, App(f"{newest_postgres_url}?schema=tenant", name="tenant") as tenant:
        async with tenant.transaction() as tx:
            await tx.execute("CREATE TABLE kept (id TEXT)")
        await shop.publish(OrderPlaced("a"), OrderPlaced("b"))
        await shop.run(until_idle=True)
        async with shop.transaction() as tx:
            await move(tx)
            await tx.publish(ReceiptSent("c"))
        async with shop.transaction() as tx:  # on the same connection
            [(path,)] = await tx.execute("SHOW search_path")
        assert path == "public"
        assert await tenant.store.head() == 0
        assert await shop.store.head() == 7
        assert await tenant.store.query("SELECT id FROM kept ORDER BY id") == [("a",), ("b",)]
        assert await shop.store.held() == []


@pytest.mark.parametrize(
    "words", ["SET LOCAL ROLE pg_read_all_stats", "SELECT set_config('role', 'pg_read_all_stats', false)"]
)
async def test_a_role_of_ones_own_is_that_of_ones_own_statements(
    newest_postgres_url: str, postgres_servers: PostgresServers, words: str
) -> None:
    postgres_servers.shared().execute("GRANT pg_read_all_stats TO tidings")
    shop = App(newest_postgres_url, name="shop")
    roles: list[object] = []

    async def role(tx: Transaction) -> None:
        roles.append(*await tx.execute("SELECT current_user"))

    @shop.on(OrderPlaced, retry=ONCE)
    async def keep(order: OrderPlaced, tx: Transaction) -> ReceiptSent:
        if order.order_id == "a":
            await tx.execute(words)
        await tx.append(f"shipment:{order.order_id}", order.order_id, [Shipped(order.order_id)], 0)
        await role(tx)
        return ReceiptSent(order.order_id)

    async with shop:
        await shop.publish(OrderPlaced("a"), OrderPlaced("b"))
        await shop.run(until_idle=True)
        async with shop.transaction() as tx:  # on the same connection
            await role(tx)
        assert roles == [("pg_read_all_stats",), ("tidings",), ("tidings",)]
        assert await shop.store.head() == 6
        assert await shop.store.held() == []


async def test_a_question_mark_in_a_text_is_no_placeholder(newest_postgres_url: str) -> None:
    async with App(newest_postgres_url, name="shop") as shop, shop.transaction() as tx:
        found = await tx.execute(
            r"SELECT E'it\'s ?', e'\\', 'a''?', $a$ ? $a$, '?\', '[4]'::jsonb ?? 'a', ?::text", "b"
        )
    assert list(found) == [("it's ?", "\\", "a'?", " ? ", "?\\", False, "b")]
