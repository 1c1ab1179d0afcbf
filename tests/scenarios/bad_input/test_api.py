"""Misuse of the app, its handlers and its parts: refused where the mistake is, or survived and told."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any

import pytest

from tests.scenarios.bad_input.telling import Customer, Item, Order, Ship, refusal
from tidings import Again, App, Key, Projection, Replica, Retry, Router, Transaction, errors, event
from tidings.runtime.blocking import Blocking

QUICK = Retry(attempts=2, initial=0.001)


# ---- where the app is used -------------------------------------------------------------------------------------------


@pytest.mark.bad_input(19)
async def test_publishing_into_a_transaction_that_ended_is_refused_and_not_lost_in_silence(url: str) -> None:
    kept: list[Transaction] = []
    app = App(url)

    @app.on(Order)
    async def keep(_order: Order, tx: Transaction) -> None:
        await tx.execute("SELECT 1")
        kept.append(tx)

    async with app:
        async with app.transaction() as tx:
            await tx.publish(Order("a"))
        await app.run(until_idle=True)
        for ended in (tx, *kept):
            uses = {ended.publish: Item(), ended.send: Ship("a"), ended.execute: "SELECT 1"}
            for use, argument in uses.items():
                with refusal("TID-106", "has ended", "inside the handler or the `async with` block"):
                    await use(argument)
        assert await app.store.head() == 1


@pytest.mark.bad_input(19)
def test_a_blocking_transaction_that_ended_takes_no_more(url: str) -> None:
    with App(url).blocking() as b:
        with b.transaction() as tx:
            tx.publish(Order("a"))
        with refusal("TID-106", "has ended", "inside the handler or the `async with` block"):
            tx.publish(Order("b"))


@pytest.mark.bad_input(20)
async def test_every_verb_says_how_to_open_an_app_that_is_not_open(url: str) -> None:
    app = App(url, customers := Replica(Customer))

    async def in_transaction() -> None:
        async with app.transaction():
            pass

    verbs: list[Callable[[], Any]] = [
        lambda: app.publish(Order("a")),
        lambda: app.send(Ship("a")),
        lambda: app.get(customers, "a"),
        lambda: app.query(customers, "SELECT 1"),
        lambda: app.receive(b"{}"),
        lambda: app.staleness(customers),
        in_transaction,
    ]
    for _ in ("before", "after"):
        for verb in verbs:
            with refusal("TID-106", "the app shop is not open", "`async with app:`", "app.blocking()"):
                await verb()
        async with app:
            await app.publish(Order("a"))
    with refusal("TID-106", "inside a running event loop", "await"):
        app.blocking().__enter__()


@pytest.mark.bad_input(20)
async def test_another_loop_and_another_thread_are_told_what_to_use(url: str) -> None:
    app = App(url)

    def elsewhere() -> None:
        with refusal("TID-106", "another event loop", "app.blocking()"):
            asyncio.run(app.publish(Order("a")))
        with app.blocking() as b:
            b.publish(Order("b"))

    async with app:
        await asyncio.to_thread(elsewhere)
        assert await app.store.head() == 1


def _in_child(b: Blocking, answers: SimpleQueue[str]) -> None:
    try:
        b.publish(Order("a"))
        answers.put("published")
    except errors.NotOpen as error:
        answers.put(f"{error.code} {error}")
    os._exit(0)


@pytest.mark.bad_input(20)
def test_a_forked_child_is_told_to_open_the_app_itself(url: str) -> None:
    context = multiprocessing.get_context("fork")
    answers: SimpleQueue[str] = context.SimpleQueue()
    with App(url).blocking() as b:
        child = context.Process(target=_in_child, args=(b, answers))
        child.start()
        answer = answers.get()
        child.join()
        assert answer.startswith("TID-106")
        assert "forked child" in answer
        assert b.publish(Order("a")) == 1


# ---- declarations ----------------------------------------------------------------------------------------------------


async def wrong_second(order: Order, basket: Item) -> None: ...
async def wrong_first(order: int) -> None: ...
async def no_parameters() -> None: ...
async def unknown(order: Order, thing: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the mistake
async def keyword(order: Order, *, tx: Transaction) -> None: ...
def plain_with_tx(order: Order, tx: Transaction) -> None: ...
def yields(order: Order) -> Iterator[Order]:
    yield order


async def yields_too(order: Order) -> AsyncIterator[Order]:
    yield order


@pytest.mark.bad_input(21)
@pytest.mark.parametrize(
    "handler", [wrong_second, wrong_first, no_parameters, unknown, keyword, plain_with_tx, yields, yields_too]
)
async def test_a_handler_that_cannot_be_called_keeps_the_app_from_starting(url: str, handler: Any) -> None:
    app = App(url)
    app.on(Order)(handler)
    async with app:
        await app.publish(Order("a"))
        with refusal("TID-103", handler.__name__, f"test_api.py:{handler.__code__.co_firstlineno}"):
            await app.run(until_idle=True)
        assert await app.store.backlog() == [], "no group was made"


@pytest.mark.bad_input(21)
async def test_two_handlers_of_one_group_or_command_are_both_located(url: str) -> None:
    app, router = App(url), Router("more")
    app.on(Order, group="mail")(one := _handler("one"))
    router.on(Order, group="mail")(two := _handler("two"))
    for handler in (one, two):
        assert handler is not None
    both = App(url, router)
    both.on(Order, group="mail")(one)
    async with both:
        with refusal("TID-103", "two handlers share the group 'mail'", " and ") as told:
            await both.run(until_idle=True)
    assert str(told).count("test_api.py:") == 2
    commands = App(url)
    commands.on(Ship, group="first")(_handler("first", Ship))
    commands.on(Ship, group="second")(_handler("second", Ship))
    async with commands:
        with refusal("TID-103", "the command Ship is handled twice") as told:
            await commands.run(until_idle=True)
    assert str(told).count("test_api.py:") == 2


def _handler(name: str, cls: type = Order) -> Callable[[Any], Any]:
    async def handle(message: Any) -> None: ...

    handle.__annotations__["message"] = cls
    handle.__name__ = name
    return handle


@pytest.mark.bad_input(24)
@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": math.inf},
        {"attempts": "3"},
        {"initial": -1},
        {"initial": math.inf},
        {"initial": 10**400},
        {"initial": "1"},
        {"initial": None},
        {"maximum": 0.1},
        {"maximum": math.nan},
        {"factor": 0},
        {"factor": math.inf},
        {"factor": "2"},
        {"per": {TimeoutError: 3}},
        {"per": {"TimeoutError": Retry()}},
        {"per": [TimeoutError]},
        {"never": TimeoutError},
        {"never": ("TimeoutError",)},
    ],
    ids=str,
)
def test_a_retry_policy_out_of_range_is_refused_where_it_is_made(options: dict[str, Any]) -> None:
    with refusal("TID-107", f"Retry({next(iter(options))}" if "maximum" not in options else "maximum"):
        Retry(**options)
    assert issubclass(errors.BadArgument, ValueError)


@pytest.mark.bad_input(24)
async def test_every_duration_says_its_range(url: str) -> None:
    for wrong in (-1, math.nan, math.inf, "5", None, True, timedelta(seconds=-1)):
        for name in ("lease", "drain"):
            with refusal("TID-107", f"{name} is", "0 or more, or a timedelta"):
                App(url, **{name: wrong})  # type: ignore[arg-type] - the point
        if wrong is not None:
            with refusal("TID-107", "Again(after) is"):
                Again(after=wrong)  # type: ignore[arg-type] - the point
    with refusal("TID-107", "lease=0", "0.1 seconds or more"):
        App(url, lease=0)
    async with App(url) as app:
        for wrong in (-1, math.inf, 10**400, "5"):
            with refusal("TID-107", "after is"):
                await app.publish(Order("a"), after=wrong)  # type: ignore[arg-type] - the point
        for wrong in (1e12, 1e18):
            with refusal("TID-107", "after is", "beyond the year 9999"):
                await app.publish(Order("a"), after=wrong)


@pytest.mark.bad_input(24)
async def test_options_of_a_handler_say_their_range_and_its_place(url: str) -> None:
    options: list[dict[str, Any]] = [
        {"concurrency": 0},
        {"start": "now"},
        {"start": -1},
        {"on_dead": "drop"},
        {"retry": 3},
    ]
    for wrong in options:
        with refusal("TID-103", f"{next(iter(wrong))}=", "test_api.py:"):
            App(url).on(Order, **wrong)(_handler("note"))


# ---- while handlers run ----------------------------------------------------------------------------------------------


@pytest.mark.bad_input(22)
async def test_a_handler_that_will_not_be_cancelled_cannot_hold_up_a_drain(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(url, drain=0.1)
    begun, may_end = asyncio.Event(), False

    @app.on(Order)
    async def stubborn(_order: Order) -> None:
        begun.set()
        while not may_end:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    async with app:
        await app.publish(Order("a"))
        running_app = asyncio.create_task(app.run())
        await begun.wait()
        app.stop()
        try:
            async with asyncio.timeout(8):
                await running_app
        finally:
            may_end = True  # before anything is asserted, or it would go on for ever
        (backlog,) = await app.store.backlog()
        assert backlog.lag + backlog.parked + backlog.retrying == 1, "it is not acknowledged"
        (warning,) = [text for each in caplog.records if "although they were cancelled" in (text := each.getMessage())]
        assert "stubborn (" in warning
        assert "test_api.py:" in warning


class _Unshowable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text either")


class _Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(threading.Lock())


RAISED: list[Callable[[], BaseException]] = [
    lambda: BaseException("base"),
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    lambda: StopIteration(1),
    StopAsyncIteration,
    asyncio.CancelledError,
    lambda: RecursionError("deep"),
    lambda: ExceptionGroup("several", [ValueError("a"), TypeError("b")]),
    lambda: ValueError("\x1b[31m\r\nfake: line\udc80\0" + "x" * 100_000),
    lambda: errors.StoreFull("another app's disk is full"),
    lambda: errors.StoreGone("another app's file is gone"),
    lambda: errors.OutcomeUnknown("another app's disk failed"),
    lambda: errors.Fenced("by somebody else"),
    _Unshowable,
    _Unpicklable,
]


def fail(order: Order) -> None:
    if order.number < len(RAISED):
        error = RAISED[order.number]()
        raise error


@pytest.mark.bad_input(23)
async def test_whatever_any_kind_of_handler_raises_is_a_failed_attempt_and_is_tried_again(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, ended = App(url), list[str]()

    @app.on(Order, retry=QUICK)
    async def suspending(order: Order) -> None:
        await asyncio.sleep(0)
        fail(order)
        ended.append("async")

    @app.on(Order, retry=QUICK)
    def plain(order: Order) -> None:
        fail(order)
        ended.append("plain")

    @app.on(Order, retry=QUICK)
    async def in_tx(order: Order, tx: Transaction) -> None:
        await tx.execute("SELECT 1")
        fail(order)
        ended.append("tx")

    async with app:
        await app.publish(*(Order(f"k{number}", number=number) for number in range(len(RAISED) + 1)))
        await app.run(until_idle=True)
        held = await app.store.held()
        assert {(each.group, each.envelope.key) for each in held} == {
            (f"shop.{name}", f"k{number}") for name in ("suspending", "plain", "in_tx") for number in range(len(RAISED))
        }
        assert {(each.state, each.attempt) for each in held} == {("dead", 2)}
        assert all(each.reason.isprintable() and len(each.reason) <= 2000 for each in held)
    assert sorted(ended) == ["async", "plain", "tx"]
    assert [text for record in caplog.records if not (text := record.getMessage()).isprintable()] == []


# ---- code that changed -----------------------------------------------------------------------------------------------


@pytest.mark.bad_input(26)
async def test_data_of_an_older_schema_that_does_not_fit_is_quarantined_and_so_is_a_newer_one(url: str) -> None:
    def declare(version: int, **fields: type) -> Any:
        return event(topic="t", name="Moved", version=version)(
            type("Moved", (), {"__annotations__": {"place": Key[str], **fields}})
        )

    first, second, third = declare(1), declare(2, floor=int), declare(3, floor=int)
    app = App(url)

    @app.on(second, group="mover")
    async def mover(moved: Any) -> None: ...

    async with app:
        await app.publish(first("old"), third("new", 3), second("now", 2))
        await app.run(until_idle=True)
        held = {each.envelope.key: each for each in await app.store.held(state="dead")}
    assert set(held) == {"old", "new"}
    assert "data.floor" in held["old"].reason
    assert "schema version 3; this code knows 2" in held["new"].reason
    assert held["old"].attempt == held["new"].attempt == 1, "trying again would not help"


@pytest.mark.bad_input(26)
async def test_two_classes_that_read_one_stored_name_are_refused_at_start_up(url: str) -> None:
    @event(topic="t", name="Left", was=("Gone2",))
    class Left:
        place: Key[str]

    @event(topic="t", name="Gone2")
    class Old:
        place: Key[str]

    app = App(url)

    @app.on(Left | Old)
    async def note(_left: Left | Old) -> None: ...

    async with app:
        with refusal("TID-103", "note", "Gone2", "Left", "Old"):
            await app.run(until_idle=True)


@pytest.mark.bad_input(27)
async def test_a_projection_whose_code_changed_is_refused_with_the_command_that_rebuilds_it(url: str) -> None:
    def build(column: str) -> Projection:
        totals = Projection("totals", schema=f"CREATE TABLE totals (id TEXT PRIMARY KEY, {column} INTEGER)")

        @totals.on(Order)
        async def add(order: Order, tx: Transaction) -> None:
            await tx.execute(f"INSERT INTO totals (id, {column}) VALUES (?, ?)", order.order_id, order.number)

        return totals

    async with App(url, build("number")) as app:
        await app.publish(Order("a", number=7))
        await app.run(until_idle=True)
    async with App(url, changed := build("amount")) as app:
        with refusal("TID-505", "totals", "tidings projection rebuild totals"):
            await app.run(until_idle=True)
        assert await app.store.query("SELECT number FROM totals") == [(7,)], "the old table is untouched"
        await app.rebuild(changed)
        await app.run(until_idle=True)
        assert await app.store.query("SELECT amount FROM totals") == [(7,)]
