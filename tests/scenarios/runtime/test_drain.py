"""Stopping: what runs ends, what waits is released, nothing is acknowledged that was cancelled."""

from __future__ import annotations

import asyncio

from tests.scenarios.runtime.messages import OrderPlaced
from tests.scenarios.runtime.waiting import nobody_commits, until
from tidings import App, Transaction


async def test_a_stopping_worker_lets_running_handlers_end_and_releases_the_rest(url: str) -> None:
    app, done = App(url), list[int]()
    started = asyncio.Event()

    @app.on(OrderPlaced, concurrency=4)
    async def work(order: OrderPlaced) -> None:
        started.set()
        await asyncio.sleep(0.1)
        done.append(order.number)

    async with app:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(50)))
        running = asyncio.create_task(app.run())
        await started.wait()
        app.stop()
        await running
        first = list(done)
        assert 1 <= len(first) <= 8
        await app.run(until_idle=True)
    assert sorted(done) == list(range(50))
    assert len(set(first)) == len(first)


async def test_a_handler_cut_short_at_the_deadline_is_not_acknowledged(url: str) -> None:
    app, done = App(url, drain=0.1), list[int]()
    started = asyncio.Event()
    patient = [False]

    @app.on(OrderPlaced)
    async def slow(order: OrderPlaced) -> None:
        started.set()
        if order.number == 0 and not patient[0]:
            await asyncio.sleep(60)
        done.append(order.number)

    async with app:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(10)))
        running = asyncio.create_task(app.run())
        await started.wait()
        while len(done) < 9:
            await asyncio.sleep(0.01)
        app.stop()
        await asyncio.wait_for(running, 5)
        patient[0] = True
        await app.run(until_idle=True)
        held = await app.store.held()
    assert sorted(done) == list(range(10))  # each once: what had ended after the slow one does not come again
    assert held == []


async def test_a_handler_with_tx_that_is_cut_short_leaves_no_effect(url: str) -> None:
    app = App(url, drain=0.1)
    started = asyncio.Event()
    patient = [False]

    @app.on(OrderPlaced)
    async def slow(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("INSERT INTO effects VALUES (?)", order.number)
        if order.number == 3 and not patient[0]:
            started.set()
            await asyncio.sleep(60)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE effects (number INTEGER)")
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(8)))
        running = asyncio.create_task(app.run())
        await started.wait()
        app.stop()
        await asyncio.wait_for(running, 5)
        assert (3,) not in await app.store.query("SELECT number FROM effects")
        patient[0] = True
        await app.run(until_idle=True)
        effects = await app.store.query("SELECT number, count(*) FROM effects GROUP BY 1 ORDER BY 1")
    assert effects == [(number, 1) for number in range(8)]


async def test_handlers_that_wait_before_their_transaction_are_released_by_a_drain(url: str) -> None:
    app = App(url, drain=0.1)
    started = asyncio.Event()
    patient = [False]

    @app.on(OrderPlaced)
    async def slow(order: OrderPlaced, tx: Transaction) -> None:
        if order.number % 2 and not patient[0]:
            started.set()
            await asyncio.sleep(60)
        await tx.execute("INSERT INTO effects VALUES (?)", order.number)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE effects (number INTEGER)")
        await app.publish(*(OrderPlaced(f"k{number % 6}", number) for number in range(30)))
        running = asyncio.create_task(app.run())
        await started.wait()
        await asyncio.sleep(0.05)
        app.stop()
        await asyncio.wait_for(running, 5)
        patient[0] = True
        await app.run(until_idle=True)
        effects = await app.store.query("SELECT number, count(*) FROM effects GROUP BY 1 ORDER BY 1")
        order = [number for (number,) in await app.store.query("SELECT number FROM effects")]
        assert await app.store.held() == []
    assert effects == [(number, 1) for number in range(30)]
    for key in range(6):
        own = [number for number in order if number % 6 == key]
        assert own == sorted(own)


async def test_a_worker_that_comes_and_goes_under_load_loses_and_doubles_nothing(sqlite_url: str) -> None:
    apps = []
    for _ in range(3):
        app = App(sqlite_url, lease=1.0)

        async def work(order: OrderPlaced, tx: Transaction) -> None:
            await tx.execute("INSERT INTO effects (key, number) VALUES (?, ?)", order.order_id, order.number)

        app.on(OrderPlaced, group="work")(work)
        apps.append(app)
    publisher = App(sqlite_url, name="publisher")
    async with publisher:
        async with publisher.transaction() as tx:
            await tx.execute("CREATE TABLE effects (key TEXT, number INTEGER)")
        running: dict[int, asyncio.Task[None]] = {}
        count = 0
        for turn in range(60):
            which = turn % 3
            if which in running:
                apps[which].stop()
                await running.pop(which)
            else:
                running[which] = asyncio.create_task(apps[which].run())
            for _ in range(5):
                await publisher.publish(*(OrderPlaced(f"k{n % 20}", n) for n in range(count, count + 20)))
                count += 20
                await asyncio.sleep(0.002)
        for which, task in running.items():
            apps[which].stop()
            await task
        await apps[0].run(until_idle=True)
        rows = await publisher.store.query("SELECT key, number FROM effects ORDER BY rowid")
        assert await publisher.store.held() == []
    assert sorted(number for _, number in rows) == list(range(count))
    for key in range(20):
        own = [number for name, number in rows if name == f"k{key}"]
        assert own == sorted(own)


async def test_nothing_begins_once_a_stop_was_asked_for_however_long_commits_take(sqlite_url: str) -> None:
    app, entered = App(sqlite_url), list[int]()

    @app.on(OrderPlaced, concurrency=1)
    async def work(order: OrderPlaced) -> None:
        entered.append(order.number)
        await asyncio.sleep(0.02)

    async with app:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(20)))
        running = asyncio.create_task(app.run())
        await until(lambda: entered)
        async with nobody_commits(app):
            await until(lambda: len(entered) > 3)  # by now the pump waits to commit what ended
            app.stop()
            begun = len(entered)
            await asyncio.sleep(0.2)
            assert len(entered) == begun
        await running
        assert await app.store.backlog("shop.work") != []
        await app.run(until_idle=True)
    assert sorted(entered) == list(range(20))
