"""Moments in which order, attempts or memory could slip: what fails while something else is being committed."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.runtime.messages import OrderPlaced
from tests.scenarios.runtime.waiting import nobody_commits, until, working
from tidings import Again, App, Dead, Projection, Retry, Transaction, errors
from tidings.core.operations import CRASHED, Held, Redrive, Settle

QUICK = Retry(attempts=3, initial=0.001, maximum=0.002)


# ---- order -----------------------------------------------------------------------------------------------------------


async def test_the_next_of_a_key_follows_a_handler_that_awaited_first(url: str) -> None:
    app, seen = App(url), list[int]()

    @app.on(OrderPlaced)
    async def slow(order: OrderPlaced, tx: Transaction) -> None:
        await asyncio.sleep(0.001)
        await tx.execute("SELECT 1")
        seen.append(order.number)

    async with app, asyncio.timeout(10):
        await app.publish(*(OrderPlaced("a", number) for number in range(3)))
        await app.run(until_idle=True)
    assert seen == [0, 1, 2]


async def test_what_was_taken_while_its_key_failed_waits_for_the_retry(sqlite_url: str) -> None:
    app, seen, leave = App(sqlite_url), list[int](), asyncio.Event()

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced) -> None:
        seen.append(order.number)
        if order.number == 1 and seen.count(1) == 1:
            await leave.wait()
            raise Again(after=0.05)

    async with app, working(app) as pump:
        await app.publish(OrderPlaced("a", 1))
        await until(lambda: seen)
        async with nobody_commits(app):
            publishing = asyncio.create_task(app.publish(OrderPlaced("a", 2)))
            await asyncio.sleep(0)
            again = asyncio.create_task(app.store.begin())  # its turn comes right after the message is published
            await asyncio.sleep(0)
        turn, position = await again, await publishing
        await until(lambda: pump.consumer.feeds[0].cursor == position)  # taken; its start waits to be committed
        leave.set()
        await until(lambda: pump.ended)
        await turn.rollback()
        await until(lambda: len(seen) == 3)
    assert seen == [1, 1, 2]


async def test_a_dead_letter_that_is_skipped_does_not_let_others_pass_a_failure_behind_it(sqlite_url: str) -> None:
    app, seen, leave, fail = App(sqlite_url), list[int](), asyncio.Event(), asyncio.Event()

    @app.on(OrderPlaced, on_dead="skip")
    async def work(order: OrderPlaced) -> None:
        seen.append(order.number)
        if order.number == 1:
            await leave.wait()
            raise Dead("skip me")
        if order.number == 2 and seen.count(2) == 1:
            await fail.wait()
            raise Again(after=0.05)

    async with app, working(app) as pump:
        await app.publish(OrderPlaced("a", 1), OrderPlaced("a", 2))
        await until(lambda: seen and pump._settled)
        async with nobody_commits(app):
            leave.set()
            await until(lambda: seen == [1, 2] and not pump.ended)  # the dead letter waits to be committed
            fail.set()
            await until(lambda: pump.ended)
            publishing = asyncio.create_task(app.publish(OrderPlaced("a", 3)))
            await asyncio.sleep(0)
        await publishing
        await until(lambda: len(seen) == 4)
    assert seen == [1, 2, 2, 3]


async def test_a_projection_whose_handler_awaits_keeps_the_order_of_the_log_over_all_keys(url: str) -> None:
    seen = list[int]()
    board = Projection("board", schema="CREATE TABLE board (number INTEGER)")

    @board.on(OrderPlaced)
    async def note(order: OrderPlaced, tx: Transaction) -> None:
        await asyncio.sleep(0)
        await tx.execute("INSERT INTO board VALUES (?)", order.number)
        seen.append(order.number)

    app = App(url, board)
    async with app, asyncio.timeout(10):
        await app.publish(*(OrderPlaced(key, number) for number, key in enumerate("aaabbcab")))
        await app.run(until_idle=True)
    assert seen == list(range(8))


async def test_a_redriven_message_is_handled_beside_those_that_passed_it_but_not_at_the_same_time(url: str) -> None:
    app, seen, active = App(url), list[int](), list[int]()
    broken, leave = [True], asyncio.Event()

    @app.on(OrderPlaced, on_dead="skip")
    async def work(order: OrderPlaced) -> None:
        if order.number == 1 and broken[0]:
            raise Dead("not yet")
        active.append(order.number)
        assert len(active) == 1
        if order.number == 2:
            await leave.wait()
        active.remove(order.number)
        seen.append(order.number)

    async with app, working(app) as pump:
        await app.publish(OrderPlaced("a", 1), OrderPlaced("a", 2))
        await until(lambda: active)
        broken[0] = False
        while not (dead := await app.store.held(state="dead")):
            await asyncio.sleep(0.001)
        await app.store.write(Redrive([dead[0].id]))
        await until(lambda: pump.intake.rows or pump.intake.passed)
        leave.set()
        await until(lambda: len(seen) == 2)
        await until(lambda: pump.idle)
        assert await app.store.held() == []
    assert seen == [2, 1]


# ---- handlers that do what they should not ---------------------------------------------------------------------------


@pytest.mark.parametrize("with_tx", [False, True], ids=["without tx", "with tx"])
async def test_a_handler_that_cancels_its_own_task_fails_and_nothing_else_stops(url: str, with_tx: bool) -> None:
    app, seen = App(url), list[int]()

    async def work(order: OrderPlaced) -> None:
        seen.append(order.number)
        if order.number == 1:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(0)

    async def in_tx(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("SELECT 1")
        await work(order)

    app.on(OrderPlaced, group="work", retry=QUICK)(in_tx if with_tx else work)
    async with app, asyncio.timeout(10):
        await app.publish(OrderPlaced("a", 1), OrderPlaced("b", 2), OrderPlaced("c", 3))
        await app.run(until_idle=True)
        (dead,) = await app.store.held()
    assert sorted(seen) == [1, 1, 1, 2, 3]
    assert (dead.state, dead.attempt, dead.reason) == ("dead", 3, "CancelledError")


@pytest.mark.parametrize("cause", [errors.StoreFull, errors.Fenced, errors.OutcomeUnknown])
@pytest.mark.parametrize("with_tx", [False, True], ids=["without tx", "with tx"])
async def test_what_a_handler_meets_at_another_store_is_its_own_failed_attempt(
    url: str, with_tx: bool, cause: type[errors.TidingsError]
) -> None:
    app, seen = App(url), list[int]()

    async def work(order: OrderPlaced) -> None:
        seen.append(order.number)
        if order.number == 1:
            raise cause("elsewhere", "look there")

    async def in_tx(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("SELECT 1")
        await work(order)

    app.on(OrderPlaced, group="work", retry=QUICK)(in_tx if with_tx else work)
    async with app, asyncio.timeout(10):
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(5)))
        await app.run(until_idle=True)
        (dead,) = await app.store.held()
    assert sorted(seen) == [0, 1, 1, 1, 2, 3, 4]  # nobody else was handled twice
    assert (dead.attempt, dead.reason) == (3, f"{cause.__name__}: elsewhere. look there")


async def test_a_constraint_that_only_the_commit_checks_is_a_failed_attempt(sqlite_url: str) -> None:
    app, seen = App(sqlite_url), list[int]()

    @app.on(OrderPlaced, retry=QUICK)
    async def book(order: OrderPlaced, tx: Transaction) -> None:
        seen.append(order.number)
        await asyncio.sleep(0)  # so that each has a transaction of its own
        await tx.execute("INSERT INTO line VALUES (?)", order.number)

    async with app, asyncio.timeout(10):
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY)")
            await tx.execute(
                "CREATE TABLE line (number INTEGER REFERENCES orders (number) DEFERRABLE INITIALLY DEFERRED)"
            )
            await tx.execute("INSERT INTO orders VALUES (1)")
        app.store._committer.connection.execute("PRAGMA foreign_keys = ON")  # type: ignore[attr-defined]
        await app.publish(OrderPlaced("a", 1), OrderPlaced("b", 2))
        await app.run(until_idle=True)
        (dead,) = await app.store.held()
        assert await app.store.query("SELECT number FROM line") == [(1,)]
    assert sorted(seen) == [1, 2, 2, 2]
    assert "FOREIGN KEY" in dead.reason


# ---- held deliveries -------------------------------------------------------------------------------------------------


def suspect(number: int, position: int, envelope: object) -> Held:
    """A delivery that two workers did not survive."""
    return Held(0, "shop.work", position, "retry", 2, 0, envelope, CRASHED)  # type: ignore[arg-type]


async def test_a_suspect_runs_alone_and_gets_its_turn_however_busy_the_others_are(url: str) -> None:
    app, active, alone, ended = App(url), list[int](), list[bool](), list[int]()
    app.on(OrderPlaced, group="work")(lambda order: None)
    async with app:
        await app.publish(OrderPlaced("bad", -1))
        (envelope,) = await app.store.read(0, 1, 1)
        await app.run(until_idle=True)
        await app.store.write(Settle("shop.work", {}, hold=[suspect(-1, 1, envelope)]))

    busy = App(url)

    @busy.on(OrderPlaced, group="work")
    async def work(order: OrderPlaced) -> None:
        active.append(order.number)
        if order.number < 0:
            alone.append(active == [-1])
            await asyncio.sleep(0.02)
            alone.append(active == [-1])
        else:
            await asyncio.sleep(0.005)
            await busy.publish(OrderPlaced(order.order_id, order.number + 1))  # there is always something to do
        active.remove(order.number)
        ended.append(order.number)

    async with busy:
        await busy.publish(*(OrderPlaced(f"k{number}", number * 1000) for number in range(8)))
        running = asyncio.create_task(busy.run())
        await until(lambda: len(alone) == 2)
        count = len(ended)
        await until(lambda: len(ended) > count + 8)  # and the others go on
        busy.stop()
        await running
        assert await busy.store.held(state="retry") == []
    assert alone == [True, True]


async def test_a_due_retry_without_room_in_memory_does_not_spin(url: str) -> None:
    app, leave = App(url), asyncio.Event()

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced) -> None:
        if order.number == 0 and not leave.is_set():
            raise Again(after=0.05)
        await leave.wait()

    async with app, working(app) as pump:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(100)))
        await until(lambda: pump.in_memory >= pump.ahead.room)
        steps, step = [0], pump.step

        async def counted() -> bool:
            steps[0] += 1
            return await step()

        pump.step = counted  # type: ignore[method-assign]
        await asyncio.sleep(0.3)
        assert steps[0] < 10
        leave.set()


async def test_more_held_deliveries_than_fit_are_all_handled_while_some_are_slow(url: str) -> None:
    app, seen, leave = App(url), set[int](), asyncio.Event()
    first = [True]

    @app.on(OrderPlaced, concurrency=50)
    async def work(order: OrderPlaced) -> None:
        if first[0]:
            raise Again(after=0.1)
        if order.number < 20:
            await leave.wait()
        seen.add(order.number)

    async with app, working(app) as pump:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(40)))
        while len(await app.store.held(state="retry", limit=100)) < 40:
            await asyncio.sleep(0.001)
        first[0] = False
        await until(lambda: len(seen) == 20)  # 20 slow ones hold most of the 32 places
        leave.set()
        await until(lambda: len(seen) == 40)
        await until(lambda: not pump.intake.rows)


async def test_memory_does_not_grow_with_what_passes_one_slow_delivery(url: str) -> None:
    app, leave, count = App(url), asyncio.Event(), [0]

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced) -> None:
        count[0] += 1
        if order.number == 0:
            await leave.wait()

    async with app, working(app) as pump:
        await app.publish(*(OrderPlaced(f"k{number % 50}", number) for number in range(3000)))
        await until(lambda: count[0] >= 2900, 30)  # all but those behind the slow one
        (feed,) = pump.consumer.feeds
        assert len(feed.watermark._unfinished) < 600  # type: ignore[attr-defined]
        leave.set()
        await until(lambda: count[0] == 3000)


async def test_what_another_process_redrives_is_taken_however_often_others_publish(url: str) -> None:
    app, other, tried = App(url), App(url), list[int]()

    @app.on(OrderPlaced, retry=Retry(attempts=1))
    async def work(order: OrderPlaced) -> None:
        if order.number < 0:
            tried.append(order.number)
            raise ValueError

    async with app, other, working(app):
        await app.publish(OrderPlaced("bad", -1))
        await until(lambda: tried)
        async with asyncio.timeout(10):
            while not (dead := await other.store.held(state="dead")):
                await asyncio.sleep(0.01)
        await other.store.write(Redrive([dead[0].id]))
        async with asyncio.timeout(10):
            while len(tried) < 2:
                await other.publish(OrderPlaced("good", 1))
                await asyncio.sleep(0.05)
