"""What a projection's statements fail with, and what they return, whatever is sent to the store when."""

from __future__ import annotations

import asyncio

from tests.scenarios.runtime.messages import OrderPlaced
from tidings import App, Dead, Projection, Retry, Transaction

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
