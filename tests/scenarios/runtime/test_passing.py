"""What is not for a group: passed by where it is told of, scanned without rest where it is not, and then forgotten."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.scenarios.runtime.messages import OrderPlaced, ReceiptSent
from tests.scenarios.runtime.waiting import until, working
from tidings import App, Transaction
from tidings.brokers import embedded


async def test_a_group_does_not_stir_for_what_others_want_and_keeps_up_all_the_same(url: str) -> None:
    app, seen, steps = App(url), list[int](), [0]

    @app.on(ReceiptSent, group="mine")
    async def note(receipt: ReceiptSent) -> None:
        seen.append(receipt.number)

    async with app, working(app) as pump:
        await app.publish(ReceiptSent("a", 1))
        await until(lambda: seen == [1] and pump.idle)
        step = pump.step

        async def counted() -> bool:
            steps[0] += 1
            return await step()

        pump.step = counted  # type: ignore[method-assign]
        began = time.monotonic()
        for number in range(100):
            position = await app.publish(OrderPlaced("a", number))
            await asyncio.sleep(0.001)  # so that the group has its turn, as where commits take long
        assert steps[0] < 10 + 20 * (time.monotonic() - began)  # it looks now and then, whatever happens
        await until(lambda: pump.consumer.feeds[0].watermark.position == position, 1.0)
        await app.publish(ReceiptSent("a", 2))
        await until(lambda: seen == [1, 2])


async def test_a_long_stretch_of_the_log_that_others_want_is_scanned_without_rest(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "SCAN", 10)
    app, seen = App(url), list[int]()
    async with app:
        await app.publish(*(OrderPlaced("a", number) for number in range(300)), ReceiptSent("a", 1))

    @app.on(ReceiptSent, group="mine")
    async def note(receipt: ReceiptSent) -> None:
        seen.append(receipt.number)

    async with app, asyncio.timeout(5), working(app):
        await until(lambda: seen == [1], 3.0)


async def test_marks_of_what_was_handled_ahead_are_forgotten_once_all_before_it_is(sqlite_url: str) -> None:
    app, leave = App(sqlite_url), asyncio.Event()

    @app.on(OrderPlaced, group="mine")
    async def work(order: OrderPlaced, tx: Transaction) -> None:
        if order.number == 0:
            await leave.wait()
        await asyncio.sleep(0.001)
        await tx.execute("SELECT 1")

    async def marks() -> int:
        [(count,)] = await app.store.query("SELECT count(*) FROM tidings_mark")
        return int(count)

    async with app, asyncio.timeout(10), working(app) as pump:
        for attempt in range(3):
            leave.clear()
            await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(5)))
            while await marks() < 4:
                await asyncio.sleep(0.01)
            leave.set()
            await until(lambda: pump.idle)
            assert await marks() == 0, attempt
