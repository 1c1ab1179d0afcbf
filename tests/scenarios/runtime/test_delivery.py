"""What becomes of a delivery: acknowledged, tried again, parked, given up, redriven."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

import pytest

from tests.scenarios.runtime.messages import OrderPlaced, ReceiptSent, Said, Ship
from tests.scenarios.runtime.waiting import until
from tidings import Again, App, Dead, Envelope, Retry, Transaction, errors
from tidings.core.operations import Held, Op, Redrive
from tidings.core.ports import StoreTransaction

QUICK = Retry(attempts=3, initial=0.001, maximum=0.002)


async def held(app: App, **filters: object) -> list[Held]:
    """The held deliveries of an open app."""
    return list(await app.store.held(**filters))  # type: ignore[arg-type]


async def test_a_handler_gets_every_message_of_its_type_once(url: str) -> None:
    app, seen = App(url), list[int]()

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)

    async with app:
        await app.publish(*(OrderPlaced("a", number) for number in range(1000)))
        await app.run(until_idle=True)
        await app.run(until_idle=True)
    assert seen == list(range(1000))


async def test_handlers_that_wait_now_and_then_mix_up_neither_order_nor_causes_nor_timeouts(url: str) -> None:
    app, seen, late = App(url), list[tuple[str, int]](), list[int]()

    @app.on(OrderPlaced, retry=QUICK)
    async def note(order: OrderPlaced, envelope: Envelope) -> ReceiptSent:
        first = (order.order_id, order.number) not in failed
        if order.number % 3 == 0:
            await asyncio.sleep(0)
        if order.number % 10 == 7:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(60)
            late.append(order.number)
        if order.number % 25 == 11 and first:
            failed.add((order.order_id, order.number))
            raise RuntimeError("once")
        seen.append((order.order_id, order.number))
        await app.publish(Said(envelope.id))
        return ReceiptSent(order.order_id, order.number)

    failed = set[tuple[str, int]]()
    async with app:
        await app.publish(*(OrderPlaced(key, number) for number in range(100) for key in "abc"))
        await app.run(until_idle=True)
        log = await app.store.read(0, 10_000, 10_000)
    assert sorted(seen) == sorted((key, number) for number in range(100) for key in "abc")
    for key in "abc":
        assert [number for each, number in seen if each == key] == list(range(100))
    orders = {each.id: each.data for each in log if each.type == "OrderPlaced"}
    assert all(each.causation in orders for each in log if each.type != "OrderPlaced")
    assert all(each.causation in each.data.decode() for each in log if each.type == "Said" and each.causation)
    assert len(late) == 30


@pytest.mark.parametrize("with_tx", [False, True])
async def test_the_first_handler_that_waits_holds_nobody_up_and_its_timeout_is_its_own(url: str, with_tx: bool) -> None:
    app, seen, tasks = App(url), list[int](), dict[int, asyncio.Task[object] | None]()

    async def note(order: OrderPlaced) -> None:
        tasks[order.number] = asyncio.current_task()
        if order.number == 50:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await asyncio.sleep(60)
        assert asyncio.current_task() is tasks[order.number]
        seen.append(order.number)

    async def note_with(order: OrderPlaced, _tx: Transaction) -> None:
        await note(order)

    app.on(OrderPlaced)(note_with if with_tx else note)
    async with app, asyncio.TaskGroup() as group:
        group.create_task(app.run())
        for number in range(100):  # some come while it waits, some with it, and some before
            await app.publish(OrderPlaced(f"o-{number}", number))
            await asyncio.sleep(0.001)
        await until(lambda: len(seen) == 100)
        app.stop()
    assert sorted(seen) == list(range(100))
    assert seen[-1] == 50


async def test_what_a_handler_sets_in_its_context_is_its_own(url: str) -> None:
    app, name, seen = App(url), ContextVar[str | None]("name", default=None), list[tuple[str | None, str | None]]()

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        before = name.get()
        name.set(order.order_id)
        if order.number > 1:
            await asyncio.sleep(0.001)
        seen.append((before, name.get()))

    async with app, asyncio.TaskGroup() as group:
        group.create_task(app.run())
        for number in range(4):
            await app.publish(OrderPlaced(f"o-{number}", number))
            await until(lambda number=number: len(seen) > number)
        app.stop()
    assert seen == [(None, f"o-{number}") for number in range(4)]


@pytest.mark.parametrize("with_tx", [False, True])
async def test_a_handler_that_cancels_the_task_it_runs_in_ends_nothing_else(url: str, with_tx: bool) -> None:
    app, seen = App(url), list[int]()

    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def note_with(order: OrderPlaced, _tx: Transaction) -> None:
        await note(order)

    app.on(OrderPlaced, retry=QUICK)(note_with if with_tx else note)
    async with app, asyncio.timeout(10):
        await app.publish(*(OrderPlaced(f"o-{number}", number) for number in range(3)))
        await app.run(until_idle=True)
        await app.publish(OrderPlaced("o-3", 3))
        await app.run(until_idle=True)
        assert not await held(app)
    assert set(seen) == {0, 1, 2, 3}


async def test_a_plain_function_is_a_handler_too_and_runs_in_a_thread(url: str) -> None:
    app, threads = App(url), set[str]()

    @app.on(OrderPlaced)
    def note(order: OrderPlaced) -> ReceiptSent:
        import threading

        threads.add(threading.current_thread().name)
        return ReceiptSent(order.order_id)

    async with app:
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
        assert len(await app.store.read(0, 10, 10, types=["ReceiptSent"])) == 1
    assert "MainThread" not in threads


async def test_each_handler_is_a_group_of_its_own(url: str) -> None:
    app, seen = App(url), list[str]()

    @app.on(OrderPlaced)
    async def first(_order: OrderPlaced) -> None:
        seen.append("first")

    @app.on(OrderPlaced)
    async def second(_order: OrderPlaced) -> None:
        seen.append("second")

    async with app:
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
        assert {each.group for each in await app.store.backlog()} == {"shop.first", "shop.second"}
    assert sorted(seen) == ["first", "second"]


async def test_two_workers_of_one_group_share_its_messages(url: str) -> None:
    seen: dict[str, list[int]] = {"one": [], "two": []}

    def make(name: str) -> App:
        app = App(url, lease=1.0)

        async def note(order: OrderPlaced) -> None:
            seen[name].append(order.number)
            await asyncio.sleep(0.001)

        app.on(OrderPlaced, group="note")(note)
        return app

    one, two = make("one"), make("two")
    async with one:
        running = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
        while len({owner for each in await one.store.backlog() for owner in each.owners.values()}) < 2:
            await asyncio.sleep(0.02)
        await one.publish(*(OrderPlaced(f"k{number % 40}", number) for number in range(400)))
        while sum(map(len, seen.values())) < 400:
            await asyncio.sleep(0.01)
        one.stop()
        two.stop()
        await asyncio.gather(*running)
    assert sorted(seen["one"] + seen["two"]) == list(range(400))
    assert seen["one"]
    assert seen["two"]


async def test_what_a_handler_returns_is_published_with_its_acknowledgement(url: str) -> None:
    app = App(url)

    @app.on(OrderPlaced)
    async def receipt(order: OrderPlaced) -> list[ReceiptSent]:
        return [ReceiptSent(order.order_id, 1), ReceiptSent(order.order_id, 2)]

    async with app:
        placed = await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
        sent = await app.store.read(placed, 10, 10)
        cause = (await app.store.read(0, placed, 1))[0]
    assert [each.type for each in sent] == ["ReceiptSent", "ReceiptSent"]
    assert {each.causation for each in sent} == {cause.id}
    assert {each.conversation for each in sent} == {cause.id}


async def test_a_trace_is_carried_from_message_to_message(url: str) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    app = App(url)

    @app.on(OrderPlaced)
    async def receipt(order: OrderPlaced) -> ReceiptSent:
        return ReceiptSent(order.order_id)

    async with app:
        await app.publish(OrderPlaced("a"), headers={"traceparent": trace, "tenant": "t1"})
        await app.run(until_idle=True)
        placed, sent = await app.store.read(0, 10, 10)
    assert placed.traceparent == sent.traceparent == trace
    assert placed.headers == b'{"tenant":"t1"}'


async def test_a_failing_delivery_is_tried_again_until_it_succeeds(url: str) -> None:
    app, tries = App(url), list[int]()

    @app.on(OrderPlaced, retry=QUICK)
    async def flaky(_order: OrderPlaced) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("down")

    async with app:
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
        assert await held(app) == []
    assert len(tries) == 3


@pytest.mark.proves("G20")
async def test_when_the_attempts_are_used_up_a_dead_letter_keeps_everything(url: str) -> None:
    app = App(url)

    @app.on(OrderPlaced, retry=QUICK)
    async def broken(_order: OrderPlaced) -> None:
        raise ValueError("no \x1b[31mway")

    async with app:
        await app.publish(OrderPlaced("a", 7), headers={"tenant": "t1"})
        await app.run(until_idle=True)
        (dead,) = await held(app)
    assert (dead.state, dead.attempt, dead.group) == ("dead", 3, "shop.broken")
    assert dead.envelope.data == b'{"order_id":"a","number":7}'
    assert dead.envelope.headers == b'{"tenant":"t1"}'
    assert dead.reason == "ValueError: no \\x1b[31mway"
    assert "raise ValueError" in dead.traceback
    assert [line.split(" at ")[0] for line in dead.history] == ["attempt 1", "attempt 2", "attempt 3"]


async def test_dead_gives_up_at_once_and_again_chooses_its_own_delay(url: str) -> None:
    app, times = App(url), list[float]()

    @app.on(OrderPlaced, retry=Retry(attempts=5, initial=60.0))
    async def picky(order: OrderPlaced) -> None:
        if order.order_id == "dead":
            raise Dead("no such order")
        times.append(asyncio.get_running_loop().time())
        if len(times) < 2:
            raise Again("not yet", after=0.15)

    async with app:
        await app.publish(OrderPlaced("dead"), OrderPlaced("again"))
        await app.run(until_idle=True)
        (dead,) = await held(app)
    assert (dead.attempt, dead.reason) == (1, "Dead: no such order")
    assert 0.15 <= times[1] - times[0] < 1.0


async def test_retries_follow_the_exception_class(url: str) -> None:
    app, tries = App(url), dict[str, int]()
    policy = Retry(
        attempts=4, initial=0.001, per={ConnectionError: Retry(attempts=2, initial=0.001)}, never=(KeyError,)
    )

    @app.on(OrderPlaced, retry=policy)
    async def fails(order: OrderPlaced) -> None:
        tries[order.order_id] = tries.get(order.order_id, 0) + 1
        raise {"net": ConnectionResetError, "key": KeyError, "other": ValueError}[order.order_id]("x")

    async with app:
        await app.publish(OrderPlaced("net"), OrderPlaced("key"), OrderPlaced("other"))
        await app.run(until_idle=True)
    assert tries == {"net": 2, "key": 1, "other": 4}


@pytest.mark.parametrize("with_tx", [False, True], ids=["without tx", "with tx"])
@pytest.mark.proves("G23")
async def test_a_failing_key_parks_its_successors_in_order_while_other_keys_flow(url: str, with_tx: bool) -> None:
    app, seen, broken = App(url), list[tuple[str, int]](), [True]

    async def work(order: OrderPlaced) -> None:
        if order.order_id == "bad" and order.number == 1 and broken[0]:
            raise ValueError("poison")
        seen.append((order.order_id, order.number))

    if with_tx:

        @app.on(OrderPlaced, group="work", retry=QUICK)
        async def in_tx(order: OrderPlaced, tx: Transaction) -> None:
            await tx.execute("SELECT 1")
            await work(order)
    else:
        app.on(OrderPlaced, group="work", retry=QUICK)(work)

    async with app:
        await app.publish(*(OrderPlaced(key, number) for number in range(5) for key in ("bad", "good")))
        await app.run(until_idle=True)
        assert [number for key, number in seen if key == "good"] == [0, 1, 2, 3, 4]
        assert [number for key, number in seen if key == "bad"] == [0]
        assert [each.state for each in await held(app)] == ["dead", "parked", "parked", "parked"]

        broken[0] = False
        (dead,) = await held(app, state="dead")
        assert await app.store.write(Redrive([dead.id])) == 1
        await app.publish(OrderPlaced("bad", 5))
        await app.run(until_idle=True)
        assert await held(app) == []
    assert [number for key, number in seen if key == "bad"] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("with_tx", [False, True], ids=["without tx", "with tx"])
@pytest.mark.proves("G23")
async def test_what_waits_behind_a_failure_is_made_up_for_in_few_commits(
    url: str, with_tx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, seen, failing = App(url), list[int](), {0, 200, 201}

    async def work(order: OrderPlaced) -> None:
        if order.number in failing:
            failing.discard(order.number or -1)
            raise ValueError("once") if order.number else Dead("poison")
        seen.append(order.number)

    if with_tx:

        @app.on(OrderPlaced, group="work", retry=QUICK)
        async def in_tx(order: OrderPlaced, tx: Transaction) -> None:
            await tx.execute("SELECT 1")
            await work(order)
    else:
        app.on(OrderPlaced, group="work", retry=QUICK)(work)

    async with app:
        await app.publish(*(OrderPlaced("bad", number) for number in range(400)))
        await app.run(until_idle=True)
        assert [each.state for each in await held(app)] == ["dead"] + ["parked"] * 399
        failing.discard(0)
        commits, write, begin = 0, app.store.write, app.store.begin

        async def counted_write(op: Op) -> object:
            nonlocal commits
            commits += 1
            return await write(op)

        async def counted_begin() -> StoreTransaction:
            nonlocal commits
            commits += 1
            return await begin()

        monkeypatch.setattr(app.store, "write", counted_write)
        monkeypatch.setattr(app.store, "begin", counted_begin)
        (dead,) = await held(app, state="dead")
        await app.store.write(Redrive([dead.id]))
        await app.run(until_idle=True)
        assert await held(app) == []
    assert seen == list(range(400))
    assert commits < 100, "one or more for each"


async def test_a_discarded_dead_letter_lets_its_successors_run(url: str) -> None:
    app, seen = App(url), list[int]()

    @app.on(OrderPlaced, retry=QUICK)
    async def work(order: OrderPlaced) -> None:
        if order.number == 0:
            raise Dead("poison")
        seen.append(order.number)

    async with app:
        await app.publish(*(OrderPlaced("a", number) for number in range(4)))
        await app.run(until_idle=True)
        assert seen == []
        (dead,) = await held(app, state="dead")
        await app.store.write(Redrive([dead.id], discard=True))
        await app.run(until_idle=True)
        assert await held(app) == []
    assert seen == [1, 2, 3]


async def test_with_on_dead_skip_later_messages_of_the_key_pass(url: str) -> None:
    app, seen = App(url), list[int]()

    @app.on(OrderPlaced, retry=QUICK, on_dead="skip")
    async def work(order: OrderPlaced) -> None:
        if order.number == 0:
            raise Dead("poison")
        seen.append(order.number)

    async with app:
        await app.publish(*(OrderPlaced("a", number) for number in range(3)))
        await app.run(until_idle=True)
        await app.publish(OrderPlaced("a", 3))
        await app.run(until_idle=True)
        assert [each.state for each in await held(app)] == ["dead"]
    assert seen == [1, 2, 3]


async def test_messages_without_a_key_do_not_wait_for_one_another(url: str) -> None:
    app, seen = App(url), list[str]()

    @app.on(Said, retry=QUICK)
    async def hear(said: Said) -> None:
        if said.text == "bad":
            raise Dead("poison")
        seen.append(said.text)

    async with app:
        await app.publish(Said("bad"), Said("one"), Said("two"))
        await app.run(until_idle=True)
    assert sorted(seen) == ["one", "two"]


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), GeneratorExit(), asyncio.CancelledError()], ids=repr
)
@pytest.mark.parametrize("with_tx", [False, True], ids=["without tx", "with tx"])
async def test_whatever_a_handler_raises_is_a_failed_attempt(url: str, error: BaseException, with_tx: bool) -> None:
    app = App(url)
    if with_tx:

        @app.on(OrderPlaced, retry=Retry(attempts=1))
        async def leaps(_order: OrderPlaced, tx: Transaction) -> None:
            await tx.execute("SELECT 1")
            raise error
    else:

        @app.on(OrderPlaced, retry=Retry(attempts=1))
        async def leaps_plainly(_order: OrderPlaced) -> None:
            raise error

    async with app:
        await app.publish(OrderPlaced("a"))
        async with asyncio.timeout(10):
            await app.run(until_idle=True)
        (dead,) = await held(app)
    assert dead.state == "dead"


async def test_an_exception_that_cannot_even_be_shown_is_survived(url: str) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

    app = App(url)

    @app.on(OrderPlaced, retry=Retry(attempts=1))
    async def nasty(_order: OrderPlaced) -> None:
        raise Nasty

    async with app:
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
        (dead,) = await held(app)
    assert "Nasty" in dead.reason


async def test_effects_messages_and_acknowledgement_of_a_handler_with_tx_commit_together(url: str) -> None:
    app, tries = App(url), list[int]()

    @app.on(OrderPlaced, retry=QUICK)
    async def book(order: OrderPlaced, tx: Transaction) -> ReceiptSent:
        await tx.execute("INSERT INTO booked VALUES (?)", order.order_id)
        await tx.publish(ReceiptSent(order.order_id, 1))
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("after the effect")
        return ReceiptSent(order.order_id, 2)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE booked (order_id TEXT)")
        await app.publish(OrderPlaced("a"))
        await app.run(until_idle=True)
        assert await app.store.query("SELECT * FROM booked") == [("a",)]
        sent = await app.store.read(0, 100, 10, types=["ReceiptSent"])
    assert [each.data for each in sent] == [b'{"order_id":"a","number":1}', b'{"order_id":"a","number":2}']
    assert len(tries) == 2


async def test_a_handler_that_awaits_before_its_first_statement_lets_others_write(url: str) -> None:
    app = App(url)
    entered, leave = asyncio.Event(), asyncio.Event()

    @app.on(OrderPlaced)
    async def slow(order: OrderPlaced, tx: Transaction) -> None:
        if order.number == 1:
            entered.set()
            await leave.wait()
        await tx.execute("INSERT INTO booked VALUES (?)", order.number)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE booked (number INTEGER)")
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(4)))
        running = asyncio.create_task(app.run(until_idle=True))
        await entered.wait()
        async with asyncio.timeout(5):
            await app.publish(OrderPlaced("late", 4))  # would hang if the handler held the turn to write
            while len(await app.store.query("SELECT * FROM booked")) < 4:
                await asyncio.sleep(0.005)
        leave.set()
        await running
        rows = await app.store.query("SELECT number FROM booked")
    assert sorted(rows) == [(0,), (1,), (2,), (3,), (4,)]


async def test_a_handler_that_holds_its_transaction_too_long_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings.runtime.pump.LONGEST_TRANSACTION", 0.5)
    app = App(url)

    @app.on(OrderPlaced, retry=Retry(attempts=1))
    async def hog(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("INSERT INTO booked VALUES (?)", order.number)
        if order.number < 2:
            await asyncio.sleep(30)

    async with app:
        async with app.transaction() as tx:
            await tx.execute("CREATE TABLE booked (number INTEGER)")
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(4)))
        async with asyncio.timeout(10):
            await app.run(until_idle=True)
        dead = await held(app)
        rows = await app.store.query("SELECT number FROM booked")
    assert sorted(each.envelope.key or "" for each in dead) == ["k0", "k1"]
    assert all("held its transaction for 0.5 s" in each.reason for each in dead)
    assert sorted(rows) == [(2,), (3,)]


@pytest.mark.proves("G21")
async def test_unreadable_data_becomes_a_dead_letter_with_its_bytes(sqlite_url: str) -> None:
    app, seen = App(sqlite_url), list[int]()

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)

    async with app:
        await app.publish(OrderPlaced("a", 1), OrderPlaced("b", 2))
        path = sqlite_url.removeprefix("sqlite:")
        with sqlite3.connect(path) as raw:
            raw.execute("UPDATE tidings_log SET data = ? WHERE position = 1", (b'{"order_id":"a","number":"x"}',))
        raw.close()
        await app.run(until_idle=True)
        (dead,) = await held(app)
    assert seen == [2]
    assert dead.attempt == 1
    assert "number" in dead.reason
    assert dead.envelope.data == b'{"order_id":"a","number":"x"}'


async def test_a_newer_schema_version_waits_among_the_dead_letters(sqlite_url: str) -> None:
    app, seen = App(sqlite_url), list[int]()

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)

    async with app:
        await app.publish(OrderPlaced("a", 1))
        with sqlite3.connect(sqlite_url.removeprefix("sqlite:")) as raw:
            raw.execute("UPDATE tidings_log SET schema = 2")
        raw.close()
        await app.run(until_idle=True)
        (dead,) = await held(app)
    assert seen == []
    assert "schema version 2" in dead.reason


@pytest.mark.proves("G19")
async def test_delayed_messages_come_when_they_are_due_and_not_before(url: str) -> None:
    app, seen = App(url), dict[str, float]()

    @app.on(OrderPlaced | Ship)
    async def note(message: OrderPlaced | Ship) -> None:
        seen[message.order_id] = asyncio.get_running_loop().time()

    async with app:
        began = asyncio.get_running_loop().time()
        assert await app.publish(OrderPlaced("after"), after=0.3) == 0
        await app.publish(OrderPlaced("at"), at=datetime.now(UTC) + timedelta(seconds=0.2))
        await app.send(Ship("sent"), after=timedelta(seconds=0.1))
        await app.publish(OrderPlaced("now"))
        running = asyncio.create_task(app.run())
        async with asyncio.timeout(5):
            while len(seen) < 4:
                await asyncio.sleep(0.01)
        app.stop()
        await running
    assert list(seen) == ["now", "sent", "at", "after"]
    for key, least in {"sent": 0.1, "at": 0.2, "after": 0.3}.items():
        assert seen[key] - began >= least - 0.01


async def test_a_command_has_one_handler(url: str) -> None:
    app = App(url)

    @app.on(Ship)
    async def ship(_command: Ship) -> None: ...

    other = App(url, name="other")

    @other.on(Ship)
    async def ship_too(_command: Ship) -> None: ...

    async with app:
        await app.run(until_idle=True)
        with pytest.raises(errors.GroupConflict, match="Ship"):
            await other.run(until_idle=True)


async def test_the_handler_may_ask_for_the_envelope(url: str) -> None:
    app, seen = App(url), list[Envelope]()

    @app.on(OrderPlaced)
    async def note(_order: OrderPlaced, envelope: Envelope) -> None:
        seen.append(envelope)

    async with app:
        await app.publish(OrderPlaced("a"), id="my-id")
        await app.run(until_idle=True)
    assert (seen[0].id, seen[0].source, seen[0].key) == ("my-id", "shop", "a")


async def test_only_the_newest_of_a_burst_is_handled_and_fetched(url: str) -> None:
    app, fetched, seen = App(url), list[int](), list[tuple[str, str]]()

    async def current(order: OrderPlaced) -> str:
        fetched.append(order.number)
        return f"state of {order.order_id} at {order.number}"

    @app.on(OrderPlaced, newest=True, fetch=current)
    async def refresh(order: OrderPlaced, now: str) -> None:
        seen.append((order.order_id, now))

    async with app:
        await app.publish(*(OrderPlaced(f"k{number % 2}", number) for number in range(20)))
        await app.run(until_idle=True)
        assert (await app.store.backlog())[0].lag == 0
    assert sorted(fetched) == [18, 19]
    assert sorted(seen) == [("k0", "state of k0 at 18"), ("k1", "state of k1 at 19")]


async def test_a_new_group_may_start_at_the_end(url: str) -> None:
    app, seen = App(url), list[int]()
    async with app:
        await app.publish(OrderPlaced("a", 1))

        @app.on(OrderPlaced, start="latest")
        async def note(order: OrderPlaced) -> None:
            seen.append(order.number)

        await app.run(until_idle=True)
        await app.publish(OrderPlaced("a", 2))
        await app.run(until_idle=True)
    assert seen == [2]


@pytest.mark.parametrize("quick", [0, 1500], ids=["slow from the start", "slow after many quick ones"])
async def test_g27_of_a_long_backlog_only_a_little_is_taken_ahead(url: str, quick: int) -> None:
    app, seen, go_on = App(url), list[int](), asyncio.Event()

    @app.on(OrderPlaced)
    async def note(order: OrderPlaced) -> None:
        seen.append(order.number)
        if order.number >= quick:
            await go_on.wait()

    async with app:
        await app.publish(*(OrderPlaced(f"{number}", number) for number in range(quick + 3000)))
        running = asyncio.create_task(app.run(until_idle=True))
        await until(lambda: len(seen) >= quick + 16)  # as many as are handled at once
        await asyncio.sleep(0.3)
        [(ahead,)] = await app.store.query("SELECT max(started) - min(checkpoint) FROM tidings_slot")
        assert 0 < ahead <= 512 + 16
        go_on.set()
        await running
    assert sorted(seen) == list(range(quick + 3000))
