"""Apps without a store at a broker: nothing that was acknowledged is lost, whatever becomes of their memory."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.scenarios.brokers.conftest import Make
from tests.scenarios.brokers.messages import Customer, Noted, OrderPaid, OrderPlaced
from tests.scenarios.brokers.working import at_work, until
from tidings import App
from tidings.core.arrival import Result
from tidings.core.envelope import Envelope
from tidings.errors import BrokerRefused, BrokerUnavailable, UsageError
from tidings.runtime.outbound import Outbound


def listening(make: Make, *kinds: type) -> tuple[App, list[str]]:
    """An app with a store, and the keys it was given, in order."""
    app, seen = make("archive"), list[str]()
    for kind in kinds:

        @app.on(kind, group=kind.__name__.lower())
        async def look(message: kind) -> None:  # type: ignore[valid-type]
            seen.append(message.order_id)

    return app, seen


def plainly(app: App, message: object) -> None:
    """Publish without an event loop."""
    with app.blocking() as plain:
        plain.publish(message)


# ---- publishing ------------------------------------------------------------------------------------------------------


@pytest.mark.proves("G1")
async def test_publish_returns_once_the_broker_has_it_whether_or_not_the_app_runs(make: Make, broker_url: str) -> None:
    archive, seen = listening(make, OrderPlaced)
    await archive.run(until_idle=True)  # declares where messages arrive
    shop = App("sqlite::memory:", broker=broker_url, name="shop")
    async with shop:
        assert await shop.publish(OrderPlaced("o-1", 1), OrderPlaced("o-2", 2)) == 0  # it is in no log of ours
        async with shop.transaction() as tx:
            await tx.publish(OrderPlaced("o-3", 3))
    await asyncio.to_thread(plainly, shop, OrderPlaced("o-4", 4))
    async with at_work(archive):
        await until(lambda: len(seen) == 4)
    assert sorted(seen) == ["o-1", "o-2", "o-3", "o-4"]


PUBLISHER = """
import asyncio, os, sys
from tests.scenarios.brokers.messages import OrderPlaced
from tidings import App

async def main():
    async with App("sqlite::memory:", broker=sys.argv[1], name="shop") as shop:
        await asyncio.gather(*(shop.publish(OrderPlaced(f"o-{n % 10}", n)) for n in range(50)))
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.proves("G1", "G9")
async def test_a_publisher_that_is_killed_has_lost_nothing_that_it_published(make: Make, broker_url: str) -> None:
    archive = make("archive")
    seen: dict[str, list[int]] = {}

    @archive.on(OrderPlaced)
    async def look(order: OrderPlaced) -> None:
        seen.setdefault(order.order_id, []).append(order.total)

    await archive.run(until_idle=True)
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", PUBLISHER, broker_url], check=False)
    assert ended.returncode == -signal.SIGKILL
    async with at_work(archive):
        await until(lambda: sum(map(len, seen.values())) == 50)
    assert seen == {f"o-{n}": list(range(n, 50, 10)) for n in range(10)}


async def test_what_it_publishes_and_handles_itself_comes_back_also_when_it_never_ran_before(broker_url: str) -> None:
    app = App("sqlite::memory:", broker=broker_url, name="billing")
    seen: list[str] = []

    @app.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        seen.append(order.order_id)

    @app.on(Noted)
    async def note(noted: Noted) -> None:
        seen.append(noted.order_id)

    async with app:
        await app.publish(OrderPlaced("o-1", 1), Noted("o-2"))
        async with at_work(app):
            await app.publish(OrderPlaced("o-3", 1))
            await until(lambda: len(seen) == 3)
            await asyncio.sleep(0.3)
    assert sorted(seen) == ["o-1", "o-2", "o-3"]


async def test_a_state_needs_a_store(broker_url: str) -> None:
    async with App("sqlite::memory:", broker=broker_url, name="shop") as shop:
        with pytest.raises(UsageError, match="publishes the state Customer, and its log is in memory"):
            await shop.publish(Customer("c-1", "Ada"))


@pytest.mark.parametrize("url", ["kafka://127.0.0.1:1", "amqp://127.0.0.1:1"])
async def test_a_broker_that_is_away_is_told_to_who_publishes(url: str) -> None:
    async with asyncio.timeout(30), App("sqlite::memory:", broker=url, name="shop") as shop:
        with pytest.raises(BrokerUnavailable, match="Connection refused") as caught:
            await shop.publish(OrderPlaced("o-1", 1))
    assert "nothing was published" in caught.value.cure


async def test_what_the_broker_never_takes_is_told_to_who_publishes(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings.brokers.rabbitmq.publisher.MAX_HEADER", 4_000)
    archive = App("sqlite::memory:", broker=rabbitmq_url, name="archive")
    seen: list[str] = []

    @archive.on(OrderPlaced)
    async def look(order: OrderPlaced) -> None:
        seen.append(order.order_id)

    async with at_work(archive), App("sqlite::memory:", broker=rabbitmq_url, name="shop") as shop:
        with pytest.raises(BrokerRefused, match="its headers have"):
            await shop.publish(OrderPlaced("o-1", 1), headers={"note": "x" * 8_000})
        await shop.publish(OrderPlaced("o-2", 1))
        await until(lambda: seen == ["o-2"])


# ---- handling --------------------------------------------------------------------------------------------------------


@pytest.mark.proves("G5")
async def test_what_was_handled_comes_again_if_what_handlers_made_of_it_was_not_confirmed(
    make: Make, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, seen = listening(make, OrderPaid)
    shop, noted = make("shop"), asyncio.Event()

    def stateless() -> App:
        app = App("sqlite::memory:", broker=broker_url, name="billing", drain=0.1)

        @app.on(OrderPlaced)
        async def note(order: OrderPlaced) -> Noted:
            return Noted(order.order_id)

        @app.on(Noted)
        async def bill(order: Noted) -> OrderPaid:
            noted.set()
            return OrderPaid(order.order_id, 1)

        return app

    hand_over = Outbound._hand_over

    async def deaf(self: Outbound, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        if self._app == "billing":
            await asyncio.Event().wait()
        return await hand_over(self, envelopes)

    async with at_work(archive), at_work(shop), shop:
        with monkeypatch.context() as patch:
            patch.setattr(Outbound, "_hand_over", deaf)
            async with at_work(stateless()):
                await shop.publish(OrderPlaced("o-1", 1))
                await noted.wait()
                await asyncio.sleep(0.5)
        assert not seen
        async with at_work(stateless()):
            await until(lambda: seen == ["o-1"])


@pytest.mark.proves("G5")
async def test_all_of_a_stream_of_messages_is_settled_while_handlers_publish(make: Make, broker_url: str) -> None:
    archive, seen = listening(make, OrderPaid)
    app, handled = App("sqlite::memory:", broker=broker_url, name="billing"), 0

    @app.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> OrderPaid:
        nonlocal handled
        handled += 1
        return OrderPaid(order.order_id, order.total)

    shop = make("shop")
    async with at_work(archive, app, shop), shop, app:
        for number in range(300):
            await shop.publish(OrderPlaced(f"o-{number}", number))
        await until(lambda: len(seen) == 300)
        [worker] = app._workers
        await until(lambda: not worker.link.inbound.busy)
    assert handled == 300


@pytest.mark.proves("G5")
async def test_an_app_whose_log_is_in_memory_takes_again_what_it_had_not_handled_when_it_ended(
    make: Make, broker_url: str
) -> None:
    shop = make("shop")
    seen: list[str] = []
    stuck = asyncio.Event()

    def stateless(name: str) -> App:
        app = App("sqlite::memory:", broker=broker_url, name="billing", drain=0.1)

        @app.on(OrderPlaced, group="bill")
        async def bill(order: OrderPlaced) -> None:
            if name == "first" and order.order_id == "o-2":
                stuck.set()
                await asyncio.Event().wait()
            seen.append(f"{name} {order.order_id}")

        return app

    async with at_work(stateless("first"), shop), shop:
        await shop.publish(OrderPlaced("o-1", 1))
        await until(lambda: seen == ["first o-1"])
        await asyncio.sleep(0.5)
        await shop.publish(OrderPlaced("o-2", 2), OrderPlaced("o-3", 3))
        await stuck.wait()
    async with at_work(stateless("second")):
        await until(lambda: "second o-2" in seen)
        assert "second o-1" not in seen


@pytest.mark.proves("G5")
async def test_an_app_whose_log_is_in_memory_goes_on_while_one_of_its_handlers_takes_long(
    make: Make, broker_url: str
) -> None:
    shop, leave = make("shop"), asyncio.Event()
    seen: list[str] = []

    def stateless() -> App:
        app = App("sqlite::memory:", broker=broker_url, name="billing")

        @app.on(OrderPlaced, group="bill")
        async def bill(order: OrderPlaced) -> None:
            if order.order_id == "slow":
                await leave.wait()
            seen.append(order.order_id)

        return app

    async with at_work(stateless(), shop), shop:
        for name in ("slow", "o-1", "o-2"):
            await shop.publish(OrderPlaced(name, 1))
            await asyncio.sleep(0.1)
        await until(lambda: seen == ["o-1", "o-2"])
        leave.set()
        await until(lambda: "slow" in seen)
    async with at_work(stateless(), shop), shop:  # all was settled, with the last one that was slow
        await shop.publish(OrderPlaced("o-3", 1))
        await until(lambda: "o-3" in seen)
    assert seen == ["o-1", "o-2", "slow", "o-3"]
