"""What a projection's statements fail with, and what they return, whatever is sent to the store when."""

from __future__ import annotations

import asyncio

from tests.scenarios.runtime.messages import OrderPlaced, ReceiptSent
from tidings import App, Dead, Envelope, Projection, Retry, Transaction

SCHEMA = "CREATE TABLE board (number INTEGER PRIMARY KEY)"
INSERT = "INSERT INTO board VALUES (?)"


def orders(count: int) -> list[OrderPlaced]:
    """Orders with keys of their own."""
    return [OrderPlaced(f"o-{number}", number) for number in range(count)]


async def numbers(app: App, board: Projection) -> list[int]:
    """What is on the board."""
    return [number for (number,) in await app.query(board, "SELECT number FROM board ORDER BY number")]


async def test_a_statement_that_fails_is_the_failure_of_its_own_delivery(url: str) -> None:
    board = Projection("board", schema=SCHEMA, retry=Retry(attempts=1))

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(INSERT, order.number)
        if order.number == 20:
            await tx.execute(INSERT, order.number)

    app = App(url, board)
    async with app, asyncio.timeout(20):
        await app.publish(*orders(100))
        await app.run(until_idle=True)
        assert await numbers(app, board) == [number for number in range(100) if number != 20]
        [dead] = await app.store.held(state="dead")
        assert (dead.envelope.key, dead.attempt) == ("o-20", 1)


async def test_a_handler_can_catch_what_its_statement_fails_with(url: str) -> None:
    board = Projection("board", schema=SCHEMA)

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        try:
            await tx.execute(INSERT, order.number % 50)
        except Exception as error:
            raise Dead("it is there already") from error

    app = App(url, board)
    async with app, asyncio.timeout(20):
        await app.publish(*orders(53))
        await app.run(until_idle=True)
        assert await numbers(app, board) == list(range(50))
        dead = await app.store.held(state="dead")
        assert [(each.envelope.key, "there already" in each.reason) for each in dead] == [
            ("o-50", True),
            ("o-51", True),
            ("o-52", True),
        ]


async def test_a_handler_sees_what_its_statement_changed(url: str) -> None:
    board = Projection("board", schema=SCHEMA)
    changed: list[int] = []

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(INSERT, order.number)
        moved = await tx.execute("UPDATE board SET number = number + 1000 WHERE number = ?", order.number)
        changed.append(moved.rowcount)

    app = App(url, board)
    async with app, asyncio.timeout(20):
        await app.publish(*orders(100))
        await app.run(until_idle=True)
        assert await numbers(app, board) == list(range(1000, 1100))
    assert set(changed) == {1}


async def test_what_fails_far_into_a_long_log_is_kept_whole_and_nothing_else_is_touched(url: str) -> None:
    board = Projection("board", schema=SCHEMA, retry=Retry(attempts=1))

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(INSERT, order.number)
        if order.number in {150, 151, 450}:
            raise ValueError(order.number)

    app = App(url, board)
    async with app, asyncio.timeout(20):
        await app.publish(*orders(600))
        await app.run(until_idle=True)
        assert await numbers(app, board) == [number for number in range(600) if number not in {150, 151, 450}]
        dead = await app.store.held(state="dead")
        assert [each.envelope.key for each in dead] == ["o-150", "o-151", "o-450"]
        for each in dead:
            assert [each.envelope] == await app.store.read(each.position - 1, each.position, 1)


async def test_what_a_projection_publishes_is_caused_by_what_it_handles(url: str) -> None:
    board = Projection("board", schema=SCHEMA)

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(INSERT, order.number)
        await tx.publish(ReceiptSent(order.order_id))

    app = App(url, board)
    async with app, asyncio.timeout(20):
        await app.publish(*orders(100))
        await app.run(until_idle=True)
        causes = {each.id: each.key for each in await app.store.read(0, 100, 100)}
        caused = await app.store.read(100, 300, 300)
        assert [causes[each.causation or ""] for each in caused] == [each.key for each in caused]
        assert [each.key for each in caused] == [f"o-{number}" for number in range(100)]
        assert all(each.correlation == each.causation for each in caused)


async def test_a_projection_that_waits_for_something_else_is_not_called_twice_for_it(url: str) -> None:
    board = Projection("board", schema=SCHEMA)
    begun: list[int] = []

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        begun.append(order.number)
        if order.number in {70, 71, 95}:
            await asyncio.sleep(0.001)
        await tx.execute(INSERT, order.number)
        if order.number == 60:
            await asyncio.sleep(0.001)

    app = App(url, board)
    async with app, asyncio.timeout(20):
        await app.publish(*orders(100))
        await app.run(until_idle=True)
        assert begun == list(range(100))
        assert await numbers(app, board) == list(range(100))


async def test_a_projection_that_takes_the_envelope_gets_all_of_it(url: str) -> None:
    board = Projection("board", schema="CREATE TABLE board (number INTEGER PRIMARY KEY, source TEXT, topic TEXT)")

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, envelope: Envelope, tx: Transaction) -> None:
        await tx.execute("INSERT INTO board VALUES (?, ?, ?)", order.number, envelope.source, envelope.topic)

    app = App(url, board, name="shop")
    async with app, asyncio.timeout(20):
        await app.publish(*orders(100))
        await app.run(until_idle=True)
        rows = await app.query(board, "SELECT DISTINCT source, topic, count(*) FROM board GROUP BY source, topic")
        assert rows == [("shop", "orders", 100)]


async def test_what_was_published_before_a_projection_waits_leaves_although_it_fails_then(url: str) -> None:
    board = Projection("board", schema=SCHEMA, retry=Retry(attempts=1))

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        await tx.publish(ReceiptSent(order.order_id), after=0.001 * (order.number % 2))
        if order.number == 50:
            await asyncio.sleep(0.001)
            raise ValueError(order.number)
        await tx.execute(INSERT, order.number)

    app = App(url, board)
    async with app, asyncio.timeout(20):
        await app.publish(*orders(100))
        await app.run(until_idle=True)
        others = [number for number in range(100) if number != 50]
        assert await numbers(app, board) == others
        left = [each.key for each in await app.store.read(100, 300, 300)]
        assert sorted(left) == sorted(f"o-{number}" for number in others)
