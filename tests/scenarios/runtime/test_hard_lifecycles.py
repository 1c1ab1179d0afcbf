"""Apps that start, stop and share in unusual ways."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from tests.scenarios.runtime.messages import Customer, OrderPlaced
from tests.scenarios.runtime.waiting import until, working
from tidings import App, Key, Projection, Replica, Retry, Transaction, errors, state
from tidings.core.operations import Fire, Op, Rewind
from tidings.runtime.connect import make_store


def noting(app: App, seen: list[int], group: str = "note") -> None:
    """Give an app a handler that notes what it gets."""

    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)

    app.on(OrderPlaced, group=group)(note)


# ---- stopping and running again --------------------------------------------------------------------------------------


async def test_stop_reaches_every_run_of_an_app_and_leaves_a_rebuild_alone(url: str) -> None:
    board = Projection("board", schema="CREATE TABLE board (number INTEGER)")

    @board.on(OrderPlaced)
    async def put(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("INSERT INTO board VALUES (?)", order.number)

    app = App(url, board)
    async with app, asyncio.timeout(10):
        position = await app.publish(*(OrderPlaced("a", number) for number in range(100)))
        running = [asyncio.create_task(app.run()) for _ in range(2)]
        await until(lambda: len(app._workers) == 2)
        await app.query(board, "SELECT count(*) FROM board", after=position)
        await app.rebuild(board)
        app.stop()
        await asyncio.gather(*running)
        assert await app.store.query("SELECT count(*) FROM board") == [(100,)]


async def test_an_app_that_was_told_to_stop_before_it_ran_runs(url: str) -> None:
    app, seen = App(url), list[int]()
    noting(app, seen)
    app.stop()
    async with app, asyncio.timeout(10):
        await app.publish(OrderPlaced("a", 1))
        await app.run(until_idle=True)
        app.stop()
        await app.publish(OrderPlaced("a", 2))
        await app.run(until_idle=True)
    assert seen == [1, 2]


async def test_one_signal_stops_every_run_of_the_process_and_later_ones_find_the_old_handler(url: str) -> None:
    one, two = App(url), App(url, name="two")
    noting(one, [])
    noting(two, [])
    before = signal.getsignal(signal.SIGTERM)
    async with one, two, asyncio.timeout(10):
        first = asyncio.create_task(one.run())
        await until(lambda: any(worker._tasks for worker in one._workers))
        await two.run(until_idle=True)  # comes and goes; the first one is still stopped by a signal
        second = asyncio.create_task(two.run())
        await until(lambda: any(worker._tasks and not worker._stop.is_set() for worker in two._workers))
        os.kill(os.getpid(), signal.SIGTERM)
        assert await first == await second == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_app_runs_in_a_thread_that_gets_no_signals(url: str) -> None:
    app, seen = App(url), list[int]()
    noting(app, seen)

    async def work() -> None:
        async with app:
            await app.publish(OrderPlaced("a", 1))
            await app.run(until_idle=True)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    thread.join(10)
    assert seen == [1]


async def test_the_watchdog_and_the_threads_of_plain_handlers_end_with_their_worker(url: str) -> None:
    app = App(url)
    app.on(OrderPlaced, group="plain")(lambda _order: time.sleep(0.001))
    before = set(threading.enumerate())
    async with app:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(50)))
        await app.run(until_idle=True)
    await until(lambda: set(threading.enumerate()) <= before | set(asyncio_threads()))


def asyncio_threads() -> list[threading.Thread]:
    """Those of the event loop's own pool."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("asyncio_")]


async def test_a_pump_that_fails_goes_on_and_nothing_is_lost(url: str, caplog: pytest.LogCaptureFixture) -> None:
    app, seen = App(url), list[int]()
    noting(app, seen)
    async with app, working(app) as pump:
        fetch, failures = pump.consumer.fetch, [RuntimeError("once"), RuntimeError("twice")]

        async def flaky(limit: int) -> list[object]:
            found = await fetch(limit)
            if found and failures:
                raise failures.pop()
            return list(found)

        pump.consumer.fetch = flaky  # type: ignore[assignment, method-assign]
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(20)))
        await until(lambda: len(seen) == 20)
        await until(lambda: pump.idle)
    assert sorted(seen) == list(range(20))
    assert sum("the subscription failed" in record.message for record in caplog.records) == 2


async def test_trouble_that_passes_stops_no_loop_of_a_worker(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    app, seen = App(url, lease=0.3), list[int]()
    noting(app, seen)
    async with app, working(app):
        write, busy = app.store.write, [True]

        async def sometimes(op: Op) -> object:
            if busy[0]:
                raise errors.Overloaded("too much", "later")
            return await write(op)

        monkeypatch.setattr(app.store, "write", sometimes)
        await until(lambda: any("too much" in record.message for record in caplog.records))
        busy[0] = False
        await app.publish(OrderPlaced("a", 1), after=0.01)
        await until(lambda: seen == [1])


# ---- sharing a store -------------------------------------------------------------------------------------------------


async def test_apps_on_one_store_object_close_it_when_the_last_one_leaves(url: str) -> None:
    store = make_store(url)
    one, two = App(store), App(store, name="two")
    async with one:
        async with two:
            await two.publish(OrderPlaced("a"))
        await one.publish(OrderPlaced("a"))
        assert await one.store.head() == 2
    with pytest.raises(errors.NotOpen):
        await store.head()
    async with two:
        assert await two.store.head() == 2


async def test_apps_on_one_file_share_its_store_however_they_spell_it(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two, other = App(sqlite_url), App("sqlite:shop.db"), App("sqlite::memory:")
    async with one, two, other, App("sqlite::memory:") as another:
        assert one.store is two.store
        assert other.store is not another.store
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        async with App("sqlite:shop.db") as third:
            assert third.store is not one.store


def test_threads_that_open_one_app_at_the_same_time_close_it_once_all_are_done(url: str) -> None:
    app, errors_ = App(url), list[Exception]()
    together = threading.Barrier(8)

    def work() -> None:
        try:
            for _ in range(10):
                together.wait(10)
                with app.blocking() as plain:
                    plain.publish(OrderPlaced("a"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test has failed
            errors_.append(error)
            together.abort()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors_ == []
    with app.blocking() as plain:
        assert plain.publish(OrderPlaced("a")) == 81
    assert app._store is None


def _publish_in_child(app: App, answers: SimpleQueue[object]) -> None:
    async def publish() -> int:
        async with app:
            return await app.publish(OrderPlaced("child"))

    answers.put(asyncio.run(publish()))
    os._exit(0)


async def test_a_forked_child_can_open_what_its_parent_has_open(url: str) -> None:
    app = App(url)
    context = multiprocessing.get_context("fork")
    answers: SimpleQueue[object] = context.SimpleQueue()
    async with app:
        await app.publish(OrderPlaced("parent"))
        child = context.Process(target=_publish_in_child, args=(app, answers))
        child.start()
        assert await asyncio.to_thread(answers.get) == 2
        child.join()
        assert await app.publish(OrderPlaced("parent")) == 3


# ---- timers, plain handlers, replicas --------------------------------------------------------------------------------


async def test_timers_that_several_workers_see_at_once_fire_once(url: str) -> None:
    apps, seen = [App(url, name=f"app{number}") for number in range(3)], list[int]()
    noting(apps[0], seen)
    async with apps[0], apps[1], apps[2]:
        await apps[0].publish(*(OrderPlaced(f"k{number}", number) for number in range(200)), after=0.05)
        await asyncio.sleep(0.06)
        now = apps[0].clock.now()
        await asyncio.gather(*(app.store.write(Fire(now, 50)) for app in apps for _ in range(4)))
        await apps[0].run(until_idle=True)
        assert await apps[0].store.head() == 200
    assert sorted(seen) == list(range(200))


async def test_slow_plain_handlers_of_one_group_keep_no_other_one_waiting(url: str) -> None:
    app, leave, seen, active = App(url), threading.Event(), list[int](), list[int]()

    @app.on(OrderPlaced, concurrency=40)
    def slow(order: OrderPlaced) -> None:
        active.append(order.number)
        leave.wait(20)

    @app.on(OrderPlaced)
    def quick(order: OrderPlaced) -> None:
        seen.append(order.number)

    async with app, working(app):
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(100)))
        await until(lambda: len(seen) == 100)
        await until(lambda: len(active) == 40)  # as many as it asked for
        leave.set()
        await until(lambda: len(active) == 100)


async def test_a_state_that_cannot_be_read_keeps_neither_a_replica_nor_its_app_from_working(sqlite_url: str) -> None:
    customers = Replica(Customer)
    owner, app = App(sqlite_url, name="owner"), App(sqlite_url, customers, name="copy")
    async with owner, app, asyncio.timeout(20):
        await owner.publish(Customer("bad", "x"), *(Customer(f"c{number}", "Ada") for number in range(5)))
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:"))) as raw, raw:
            unreadable = b'{"customer_id":"bad","name":7}'
            raw.execute("UPDATE tidings_state SET data = ? WHERE key = 'bad'", (unreadable,))
        await app.run(until_idle=True)
        assert (await app.get(customers, "c4")) == Customer("c4", "Ada")
        assert await app.get(customers, "bad") is None
        (dead,) = await app.store.held(state="dead")
        assert dead.envelope.key == "bad"
        await owner.publish(Customer("bad", "good again"))
        await app.run(until_idle=True)


@state(topic="gates")
class Gate:
    """A state whose key is a number."""

    number: Key[int]
    passengers: int = 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "east", "data": None},
        {"subject": "2", "data": {"number": 2, "passengers": 2**70}},
        {"subject": "east", "data": {"number": "east"}},
    ],
    ids=["a key that is no number", "a number that no column holds", "data of another kind"],
)
async def test_a_state_that_a_table_cannot_hold_is_a_dead_letter_and_the_others_are_seeded(
    url: str, wrong: dict[str, object]
) -> None:
    gates = Replica(Gate, retry=Retry(attempts=1))
    event = {"specversion": "1.0", "id": "1", "source": "/airport", "type": "Gate"} | wrong
    owner, app = App(url, name="owner"), App(url, gates, name="copy")
    async with owner, app, asyncio.timeout(20):
        await owner.publish(*(Gate(number) for number in range(5)))
        await owner.receive(json.dumps(event).encode())
        for _ in range(2):
            await app.run(until_idle=True)
            assert await app.query(gates, "SELECT number FROM gates WHERE number <> 2") == [(0,), (1,), (3,), (4,)]
            (dead,) = await app.store.held(state="dead")
            assert dead.envelope.id == "1"
            await app.rebuild(gates)


async def test_a_page_that_was_read_before_a_rebuild_began_does_not_hide_the_pages_before_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.runtime.seeding.PAGE", 2)
    customers = Replica(Customer)
    owner, app = App(url, name="owner"), App(url, customers, name="copy")
    async with owner, app, asyncio.timeout(20):
        await owner.publish(*(Customer(f"c{number}", "Ada") for number in range(9)))
        states, count = app.store.states, [0]
        subscription = customers.subscriptions()[0]

        async def rewound(*arguments: object) -> object:
            page = await states(*arguments)  # type: ignore[arg-type]
            count[0] += 1
            if count[0] == 3:  # the third page is read, and not yet written
                group, schema = f"copy.{subscription.group}", subscription.schema or ""
                await app.store.write(Rewind(group, schema, subscription.fingerprint, seed=True))
            return page

        monkeypatch.setattr(app.store, "states", rewound)
        await app.run(until_idle=True)
        assert await app.store.query(f'SELECT count(*) FROM "{customers.table}"') == [(9,)]


async def test_a_rebuild_whose_worker_fails_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Projection("board", schema="CREATE TABLE board (number INTEGER)")

    @board.on(OrderPlaced)
    async def put(order: OrderPlaced, tx: Transaction) -> None:
        raise errors.StoreGone("the disk went away", "bring it back")

    async def gone(_pump: object) -> None:
        raise errors.StoreGone("the disk went away", "bring it back")

    app = App(url, board)
    async with app, asyncio.timeout(10):
        await app.publish(OrderPlaced("a", 1))
        monkeypatch.setattr("tidings.runtime.pump.Pump.run", gone)
        with pytest.raises(errors.NotFound):
            await app.rebuild("bored")
        with pytest.raises(errors.StoreGone):
            await app.run()
        with pytest.raises(errors.StoreGone):
            await app.rebuild(board)


async def test_what_is_told_to_stop_is_collected(url: str) -> None:
    app = App(url)
    noting(app, [])
    async with app:
        for _ in range(3):
            await app.run(until_idle=True)
    gc.collect()
    assert len(app._workers) == 0
