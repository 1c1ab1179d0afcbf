"""The app itself: opening, misuse, transactions, the blocking face, messages from outside."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import threading
from contextlib import suppress
from multiprocessing.queues import SimpleQueue

import pytest

from tests.scenarios.runtime.messages import Customer, OrderPlaced, ReceiptSent, Ship
from tidings import App, Replica, Transaction, errors, run
from tidings.runtime.clock import Clock


class Plain:
    """No message."""


async def test_publishing_what_is_no_message_names_the_class_and_the_decorator(url: str) -> None:
    app = App(url)
    async with app:
        for wrong in (Plain(), Plain, "text", {"a": 1}, None):
            with pytest.raises(errors.NotAMessage, match="@event"):
                await app.publish(wrong)
        with pytest.raises(TypeError, match="Plain"):
            await app.publish(OrderPlaced("a"), Plain())
        assert await app.store.head() == 0


async def test_an_app_that_is_not_open_says_how_to_open_it(url: str) -> None:
    app = App(url)
    with pytest.raises(errors.NotOpen, match="async with app"):
        await app.publish(OrderPlaced("a"))
    async with app:
        await app.publish(OrderPlaced("a"))
    with pytest.raises(errors.NotOpen, match="async with app"):
        await app.publish(OrderPlaced("a"))


async def test_an_open_app_is_used_from_its_own_loop_only(url: str) -> None:
    app = App(url)
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(app.publish(OrderPlaced("a")))
        except errors.NotOpen as error:
            caught.append(error)

    async with app:
        await asyncio.to_thread(elsewhere)
    assert "another event loop" in str(caught[0])


def _in_child(app: App, answers: SimpleQueue[str]) -> None:
    try:
        asyncio.run(app.publish(OrderPlaced("a")))
    except errors.NotOpen as error:
        answers.put(str(error))
    os._exit(0)


class Stopped(Clock):
    """A clock that shows one moment, so that nothing but chance tells ids apart."""

    def now(self) -> int:
        return 1_700_000_000_000_000


def _publish_some(app: App) -> None:
    with app.blocking() as b:
        for _ in range(5):
            b.publish(OrderPlaced("a"))


def test_what_forked_children_publish_has_ids_of_its_own_and_is_all_kept(url: str) -> None:
    app = App(url, clock=Stopped())
    children = [multiprocessing.get_context("fork").Process(target=_publish_some, args=(app,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    with app.blocking() as b:
        assert b.publish(OrderPlaced("a")) == 21


async def test_a_forked_child_opens_the_app_itself(url: str) -> None:
    app = App(url)
    context = multiprocessing.get_context("fork")
    answers: SimpleQueue[str] = context.SimpleQueue()
    async with app:
        child = context.Process(target=_in_child, args=(app, answers))
        child.start()
        assert "after the fork" in await asyncio.to_thread(answers.get)
        child.join()


async def test_the_same_id_again_changes_nothing_and_other_content_is_refused(url: str) -> None:
    app = App(url)
    async with app:
        first = await app.publish(OrderPlaced("a", 1), id="order-1")
        assert await app.publish(OrderPlaced("a", 1), id="order-1") == first
        with pytest.raises(errors.IdConflict, match="order-1"):
            await app.publish(OrderPlaced("a", 2), id="order-1")
        assert await app.store.head() == 1
        for wrong in ("", "x" * 201, "a\nb", 7):
            with pytest.raises(errors.BadArgument):
                await app.publish(OrderPlaced("a"), id=wrong)  # type: ignore[arg-type]
        with pytest.raises(errors.BadArgument, match="2 messages"):
            await app.publish(OrderPlaced("a"), OrderPlaced("b"), id="x")


async def test_nothing_is_published_when_one_of_several_cannot_be(url: str) -> None:
    app = App(url)
    async with app:
        with pytest.raises((errors.BadPayload, errors.BadArgument)):
            await app.publish(OrderPlaced("a"), OrderPlaced("b\ud800"))
        assert await app.publish() == 0
        assert await app.store.head() == 0


async def test_a_transaction_commits_rows_and_messages_together_or_not_at_all(url: str) -> None:
    app = App(url)
    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE orders (id TEXT)")
        async with app.transaction() as tx:
            await tx.execute("INSERT INTO orders VALUES (?)", "a")
            await tx.publish(OrderPlaced("a"))
        with suppress(RuntimeError):
            async with app.transaction() as tx:
                await tx.execute("INSERT INTO orders VALUES (?)", "b")
                await tx.publish(OrderPlaced("b"))
                raise RuntimeError
        assert await app.store.query("SELECT id FROM orders") == [("a",)]
        assert [each.key for each in await app.store.read(0, 10, 10)] == ["a"]
        with pytest.raises(errors.UsageError, match="has ended"):
            await tx.execute("SELECT 1")


async def test_only_commands_are_sent(url: str) -> None:
    app = App(url)
    async with app:
        with pytest.raises(errors.NotAMessage, match="publish events"):
            await app.send(OrderPlaced("a"))
        assert await app.send(Ship("a")) == 1


async def test_durations_and_due_times_are_checked(url: str) -> None:
    from datetime import datetime, timedelta

    app = App(url)
    async with app:
        for wrong in (-1, float("nan"), float("inf"), timedelta(seconds=-1)):
            with pytest.raises(errors.BadArgument):
                await app.publish(OrderPlaced("a"), after=wrong)
        with pytest.raises(errors.BadArgument, match="time zone"):
            await app.publish(OrderPlaced("a"), at=datetime(2030, 1, 1))  # noqa: DTZ001 - the point of the test
    with pytest.raises(errors.BadArgument):
        App(url, lease=-1)


def test_the_blocking_face_has_the_same_verbs(url: str) -> None:
    customers = Replica(Customer)
    app = App(url, customers)
    with app.blocking() as b:
        assert b.publish(OrderPlaced("a"), OrderPlaced("b")) == 2
        with b.transaction() as tx:
            tx.execute("CREATE TABLE orders (id TEXT)")
            tx.execute("INSERT INTO orders VALUES (?)", "x")
            tx.publish(OrderPlaced("x"))
        assert b.query(customers, "SELECT * FROM orders") == [("x",)]
        with suppress(RuntimeError), b.transaction() as tx:
            tx.execute("INSERT INTO orders VALUES (?)", "y")
            raise RuntimeError
        assert b.query(customers, "SELECT * FROM orders") == [("x",)]
        assert b.send(Ship("a")) == 4
        event = {"specversion": "1.0", "id": "1", "source": "/else", "type": "OrderPlaced", "data": {"order_id": "z"}}
        assert b.receive(json.dumps(event).encode()) == 5
        assert b.receive(b"garbage") == 0
    with pytest.raises(errors.NotOpen):
        b.publish(OrderPlaced("c"))


def test_a_blocking_transaction_has_the_verbs_of_one_that_is_awaited(url: str) -> None:
    with App(url).blocking() as b, b.transaction() as tx:
        assert [name for name in vars(Transaction) if not name.startswith("_") and not hasattr(tx, name)] == []
        assert tx.append("order-a", "a", [ReceiptSent("a"), ReceiptSent("a", 1)], expected=0) == 2
        assert [version for _, _, version in tx.load("order-a", after=1)] == [2]
        with pytest.raises(errors.WrongVersion):
            tx.append("order-a", "a", [ReceiptSent("a")], expected=1)


def test_the_blocking_face_is_used_from_many_threads_at_once(url: str) -> None:
    app = App(url)
    with app.blocking() as b:

        def work(name: str) -> None:
            for number in range(50):
                b.publish(OrderPlaced(name, number))

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b.publish(OrderPlaced("last")) == 401


async def test_the_blocking_face_refuses_to_block_a_loop(url: str) -> None:
    with pytest.raises(errors.NotOpen, match="running event loop"), App(url).blocking():
        pass


@pytest.mark.proves("G21")
async def test_a_cloudevent_from_outside_is_handled_and_an_unreadable_one_is_kept(url: str) -> None:
    app, seen = App(url), list[tuple[str, int]]()

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        seen.append((order.order_id, order.number))

    event = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "https://other.example/shop",
        "type": "OrderPlaced",
        "subject": "a",
        "topic": "orders",
        "data": {"order_id": "a", "number": 3},
    }
    async with app:
        assert await app.receive(json.dumps(event).encode(), {"content-type": "application/cloudevents+json"}) == 1
        assert await app.receive(json.dumps(event).encode(), {"content-type": "application/cloudevents+json"}) == 1
        for garbage in (b"", b"\xff\xfe{", b'{"specversion": "1.0"', b"\x80\x04\x95pickle"):
            assert await app.receive(garbage, {"content-type": "application/cloudevents+json"}) == 0
        await app.run(until_idle=True)
        kept = await app.store.held(group="shop.quarantine")
    assert seen == [("a", 3)]
    assert [each.envelope.data for each in kept] == [b"", b"\xff\xfe{", b'{"specversion": "1.0"', b"\x80\x04\x95pickle"]
    assert all(each.state == "dead" and each.reason.startswith("Unreadable") for each in kept)


async def test_apps_that_share_a_store_react_to_each_other_until_all_are_idle(url: str) -> None:
    shop, mail, seen = App(url, name="shop"), App(url, name="mail"), list[int]()

    @shop.on(OrderPlaced)
    async def receipt(order: OrderPlaced) -> ReceiptSent:
        return ReceiptSent(order.order_id, order.number)

    @mail.on(ReceiptSent)
    async def again(sent: ReceiptSent) -> OrderPlaced | None:
        seen.append(sent.number)
        return OrderPlaced(sent.order_id, sent.number + 1) if sent.number < 20 else None

    async with shop:
        await shop.publish(OrderPlaced("a", 1))
        await run(shop, mail, until_idle=True)
    assert seen == list(range(1, 21))


async def test_a_store_in_memory_runs_the_same_program() -> None:
    app, seen = App("sqlite::memory:"), list[int]()

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)

    async with app:
        await app.publish(OrderPlaced("a", 1), OrderPlaced("a", 2))
        await app.run(until_idle=True)
    assert seen == [1, 2]


def test_the_name_of_an_app_comes_from_its_file() -> None:
    assert App("sqlite:shop.db").name == "shop"
    assert App("sqlite:///data/my-shop.v2.db").name == "my_shop_v2"
    assert App("sqlite:2nd.db").name == "app_2nd"
    assert App("sqlite::memory:").name == "app"
    with pytest.raises(errors.BadDeclaration):
        App("sqlite:x.db", name="a b")
    with pytest.raises(errors.BadDeclaration, match="part"):
        App("sqlite:x.db", Plain())  # type: ignore[arg-type]
