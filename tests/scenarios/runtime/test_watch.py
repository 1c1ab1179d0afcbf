"""What the runtime warns of: a blocked loop, a clock that jumps back, a misspelt name, a value nobody wants."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.scenarios.runtime.messages import OrderPlaced
from tidings import App, Key, event
from tidings.runtime.clock import Clock


@pytest.mark.bad_input(22)
async def test_a_handler_that_blocks_the_loop_is_shown_with_its_stack(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(url)

    @app.on(OrderPlaced)
    async def hog(_order: OrderPlaced) -> None:
        time.sleep(1.8)  # noqa: ASYNC251 - the mistake under test

    async with app:
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
    (warning,) = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert "in hog" in warning


@pytest.mark.bad_input(29)
@pytest.mark.proves("G30")
async def test_a_wall_clock_that_moves_back_is_reported_once_and_changes_no_order(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Jumpy(Clock):
        shift = 0

        def now(self) -> int:
            return super().now() + self.shift

    clock, seen = Jumpy(), list[int]()
    app = App(url, clock=clock)

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)

    async with app:
        running = asyncio.create_task(app.run())
        for number in range(6):
            await app.publish(OrderPlaced("a", number))
            await asyncio.sleep(0.3)
            if number in {2, 4}:
                clock.shift -= 3_600_000_000
        while len(seen) < 6:
            await asyncio.sleep(0.01)
        app.stop()
        await running
    assert seen == list(range(6))
    assert len([record for record in caplog.records if "moved back" in record.getMessage()]) == 1


@pytest.mark.bad_input(25)
async def test_a_subscription_to_a_name_nobody_publishes_suggests_the_nearest(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @event(topic="orders", name="OrderPlacd")
    class Misspelt:
        order_id: Key[str]

    app = App(url)

    @app.on(Misspelt)
    async def note(_order: Misspelt) -> None: ...

    async with app:
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
    assert "nobody published OrderPlacd lately; did you mean OrderPlaced?" in caplog.text


@pytest.mark.bad_input(22)
async def test_a_returned_value_that_is_no_message_is_reported_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App(url)

    @app.on(OrderPlaced)
    async def chatty(_order: OrderPlaced) -> str:
        return "done"

    async with app:
        await app.publish(OrderPlaced("a"), OrderPlaced("b"))
        await app.run(until_idle=True)
        assert await app.store.held() == []
    assert len([record for record in caplog.records if "which is no message" in record.getMessage()]) == 1
