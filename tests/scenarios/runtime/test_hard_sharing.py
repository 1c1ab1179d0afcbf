"""Moments in which slots change hands: nothing is lost, done twice or waited for in vain."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from tests.scenarios.runtime.messages import OrderPlaced
from tests.scenarios.runtime.waiting import until, working
from tidings import Again, App, Dead, Projection, Transaction
from tidings.brokers.embedded import LogConsumer
from tidings.core.envelope import slot_of
from tidings.core.operations import Claim, Rewind, Settle
from tidings.errors import Fenced

EARLY = next(key for key in map(str, range(100)) if slot_of(key) == 0)
"""A key of the first slot, which is the first to be handed on."""


def lose_all_slots(url: str) -> None:
    """Let every slot look as if another worker had taken it and left again."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as raw, raw:
        raw.execute("UPDATE tidings_slot SET epoch = epoch + 1, owner = NULL")


def consumer_of(app: App, member: str) -> LogConsumer:
    """A consumer of an open app's first subscription."""
    subscription = app.subscriptions()[0]
    return LogConsumer(app.store, subscription, f"{app.name}.{subscription.group}", app.name, member, 10.0)


async def settle_all(app: App, consumer: LogConsumer) -> None:
    """Commit how far each feed is."""
    for feed in consumer.feeds:
        at = feed.watermark.position
        await app.store.write(Settle(consumer.group, dict(feed.slots), checkpoint=at, started=feed.cursor))
        feed.flushed = at


async def test_slots_that_are_handed_on_from_different_places_in_the_log_lose_nothing(url: str) -> None:
    app = App(url)
    app.on(OrderPlaced, group="work")(print)
    async with app:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(100)))
        one, two = consumer_of(app, "one"), consumer_of(app, "two")
        await one.join()
        await one.claim(8)
        first = await one.fetch(1000)
        for envelope in first:
            one.feeds[0].watermark.finished(envelope.position)
        await settle_all(app, one)
        await one.claim(16)
        assert len(one.feeds) == 2  # one of them at the end, one at the beginning
        one.split(range(16), [])
        await settle_all(app, one)
        await one.claim(0)
        await two.claim(16)
        second = await two.fetch(1000)
    assert first
    assert sorted(envelope.position for envelope in [*first, *second]) == list(range(1, 101))


async def test_feeds_become_one_even_while_something_of_both_is_unfinished(url: str) -> None:
    app = App(url)
    app.on(OrderPlaced, group="work")(print)
    async with app:
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(100)))
        one = consumer_of(app, "one")
        await one.join()
        await one.claim(8)
        slow, *others = await one.fetch(1000)
        for envelope in others:
            one.feeds[0].watermark.finished(envelope.position)
        await one.claim(16)
        late = await one.fetch(20)
        while len(one.feeds) > 1:
            late += await one.fetch(20)
        (feed,) = one.feeds
        assert feed.watermark.position < slow.position
        for envelope in late:
            feed.watermark.finished(envelope.position)
        assert feed.watermark.position == slow.position - 1
        feed.watermark.finished(slow.position)
        assert feed.watermark.position == feed.cursor == 100


async def test_the_hindmost_slots_are_served_first_however_much_the_others_have(url: str) -> None:
    app = App(url)
    app.on(OrderPlaced, group="work")(print)
    async with app:
        one = consumer_of(app, "one")
        await one.join()
        await one.claim(8)
        await app.publish(*(OrderPlaced(f"k{number}", number) for number in range(100)))
        await one.fetch(10)
        await one.claim(16)
        late = {slot for feed in one.feeds for slot in feed.slots if feed.cursor == 0}
        assert {slot_of(envelope.key) for envelope in await one.fetch(5)} <= late


@pytest.mark.proves("G26")
async def test_what_is_under_way_for_a_feed_that_was_let_go_of_is_refused(url: str) -> None:
    app = App(url)
    app.on(OrderPlaced, group="work")(print)
    async with app:
        await app.publish(OrderPlaced("a", 1))
        one = consumer_of(app, "one")
        await one.join()
        await one.claim(16)
        await one.fetch(10)
        under_way = Settle(one.group, dict(one.feeds[0].slots), marks=[1])
        one.lose(one.feeds[0])
        await one.claim(16)
        with pytest.raises(Fenced):
            await app.store.write(under_way)
        assert [envelope.position for envelope in await one.fetch(10)] == [1]


async def test_a_feed_that_is_let_go_of_during_a_claim_is_not_taken_up_as_it_was(url: str) -> None:
    app = App(url)
    app.on(OrderPlaced, group="work")(print)
    async with app:
        one = consumer_of(app, "one")
        await one.join()
        await one.claim(16)
        before = dict(one.feeds[0].slots)
        async with app.transaction() as tx:
            await tx.execute("SELECT 1")
            claiming = asyncio.create_task(one.claim(16))
            await asyncio.sleep(0.01)  # it waits for its turn to write
            one.lose(one.feeds[0])
        await claiming
        assert one.feeds == []
        await one.claim(16)
        assert one.feeds[0].slots == {slot: epoch + 1 for slot, epoch in before.items()}


async def test_only_the_first_of_each_key_that_a_dead_worker_had_started_is_tried_however_far_apart(url: str) -> None:
    app = App(url)
    app.on(OrderPlaced, group="work")(print)
    async with app:
        await app.publish(*(OrderPlaced("same" if number in {0, 1499} else f"k{number}") for number in range(1500)))
        one, two = consumer_of(app, "one"), consumer_of(app, "two")
        await one.join()
        await one.claim(16)
        await app.store.write(Settle(one.group, dict(one.feeds[0].slots), started=1500))
        await app.store.write(Claim(one.group, "one", 0, range(16)))
        await two.claim(16)
        states = [held.state for held in await app.store.held(key="same")]
    assert states == ["retry", "parked"]


async def test_workers_of_one_app_that_run_different_handlers_share_only_what_they_have_in_common(url: str) -> None:
    one, two = App(url), App(url)
    seen: dict[str, set[int]] = {name: set() for name in ("both", "first", "second")}

    def handle(app: App, name: str) -> None:
        async def note(order: OrderPlaced) -> None:
            seen[name].add(order.number)

        app.on(OrderPlaced, group=name)(note)

    handle(one, "both")
    handle(two, "both")
    handle(one, "first")
    handle(two, "second")
    async with one, two, working(one) as both, working(two):
        await until(lambda: len(both.consumer.slots) == 8)
        await one.publish(*(OrderPlaced(f"k{number}", number) for number in range(100)))
        await until(lambda: all(len(numbers) == 100 for numbers in seen.values()))


async def test_a_slot_whose_held_delivery_runs_is_not_handed_on_before_that_ends(url: str) -> None:
    one, two = App(url, lease=1.0), App(url, lease=1.0)
    attempts, leave = list[str](), asyncio.Event()

    for name, app in {"one": one, "two": two}.items():

        @app.on(OrderPlaced, group="work")
        async def work(_order: OrderPlaced, name: str = name) -> None:
            attempts.append(name)
            if len(attempts) == 1:
                raise Again(after=0.01)
            await leave.wait()

    async with one, two, working(one) as first:
        await one.publish(OrderPlaced(EARLY, 1))
        await until(lambda: len(attempts) == 2)
        async with working(two) as second:
            await until(lambda: len(second.consumer.slots) == 7)
            await until(lambda: not second.intake.look and second._settled)
            assert attempts == ["one", "one"]
            leave.set()
            await until(lambda: len(second.consumer.slots) == 8)
        assert not first.intake.rows
        assert await one.store.held() == []
    assert attempts == ["one", "one"]


async def test_a_retry_that_met_a_lost_slot_is_tried_again_when_the_slot_comes_back(sqlite_url: str) -> None:
    app, seen = App(sqlite_url), list[int]()

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced) -> None:
        seen.append(order.number)
        if seen == [1]:
            raise Again(after=0.2)

    async with app, asyncio.timeout(10):
        await app.publish(OrderPlaced("a", 1))
        async with working(app) as pump:
            while not await app.store.held(state="retry"):
                await asyncio.sleep(0.001)
            lose_all_slots(sqlite_url)
            await until(lambda: len(seen) == 2)
            await until(lambda: pump.idle)
        assert await app.store.held() == []


async def test_a_failure_that_met_a_lost_slot_leaves_its_key_as_good_as_any_other(sqlite_url: str) -> None:
    app, seen, leave = App(sqlite_url), list[int](), asyncio.Event()

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced) -> None:
        seen.append(order.number)
        if seen == [1]:
            await leave.wait()
            raise Dead("nobody will know")

    async with app, working(app) as pump:
        await app.publish(OrderPlaced("a", 1))
        await until(lambda: seen)
        lose_all_slots(sqlite_url)
        leave.set()
        await until(lambda: len(seen) == 2)  # the result was refused, so it is handled again
        await until(lambda: pump.idle)
        assert not pump.intake.failing
        assert await app.store.held() == []


async def test_a_handler_whose_slot_was_lost_does_not_keep_the_others_from_being_handed_on(sqlite_url: str) -> None:
    one, two = App(sqlite_url, lease=1.0), App(sqlite_url, lease=1.0)
    started, leave = list[str](), asyncio.Event()

    for app in (one, two):

        @app.on(OrderPlaced, group="work")
        async def work(order: OrderPlaced) -> None:
            started.append(order.order_id)
            if order.order_id == EARLY:
                await leave.wait()

    async with one, two, working(one) as first:
        await one.publish(OrderPlaced(EARLY, 1))
        await until(lambda: started)
        lose_all_slots(sqlite_url)
        await one.publish(OrderPlaced("other", 2))  # makes it notice; then it takes the slots again
        await until(lambda: first.void and len(first.consumer.slots) == 16)
        async with working(two) as second:
            await until(lambda: len(second.consumer.slots) == 7)
            leave.set()
            await until(lambda: len(second.consumer.slots) == 8)
            await until(lambda: first.idle and second.idle)
        assert await one.store.held() == []
    assert started.count(EARLY) == 2


async def test_what_is_remembered_about_slots_that_came_and_went_does_not_grow(sqlite_url: str) -> None:
    app, leave, count = App(sqlite_url), asyncio.Event(), [0]

    @app.on(OrderPlaced)
    async def work(order: OrderPlaced) -> None:
        count[0] += 1
        if order.number == 0:
            await leave.wait()

    async with app, working(app) as pump:
        consumer = pump.consumer
        await app.publish(OrderPlaced("slow", 0))
        for turn in range(10):
            before = count[0]
            await app.publish(*(OrderPlaced(f"k{number}", turn + 1) for number in range(20)))
            await until(lambda before=before: count[0] >= before + 20)
            if turn == 5:
                lose_all_slots(sqlite_url)
        leave.set()
        await until(lambda: pump.idle and not pump.running)
        await app.publish(OrderPlaced("k", 9))
        await until(lambda: pump.idle and not pump.running and consumer.feeds[0].cursor == 202)
        assert consumer._skip == set()  # type: ignore[attr-defined]
        assert not pump.void
        assert not pump.intake.rows
        assert len(consumer.feeds) == 1


async def test_an_idle_worker_notices_that_its_slots_were_taken_from_it(url: str) -> None:
    board = Projection("board", schema="CREATE TABLE board (number INTEGER)")

    @board.on(OrderPlaced)
    async def put(order: OrderPlaced, tx: Transaction) -> None:
        await tx.execute("INSERT INTO board VALUES (?)", order.number)

    app, count = App(url, board, name="shop", lease=0.6), "SELECT count(*) FROM board"
    async with app, asyncio.timeout(10):
        position = await app.publish(*(OrderPlaced("a", number) for number in range(3)))
        async with working(app):
            assert await app.query(board, count, after=position) == [(3,)]
            await app.store.write(Rewind("shop.board", "CREATE TABLE board (number INTEGER)"))
            while await app.store.query(count) != [(3,)]:
                await asyncio.sleep(0.02)
