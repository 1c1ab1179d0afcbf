"""A request waits for what its handler returns, on one store: in one app and between apps, until its deadline."""

import asyncio
import time
from dataclasses import dataclass

import pytest

from tests.scenarios.runtime.messages import AskPrice, Price
from tests.scenarios.runtime.waiting import until
from tidings import App, Dead, Decider, Key, Retry, Transaction, command, errors, event
from tidings.testing.harness import running


@event(topic="stock")
class SoldOut:
    """There is none left."""

    item: Key[str]


def prices(url: str) -> App:
    """An app that knows what things cost."""
    app = App(url, name="prices")

    @app.on(AskPrice, retry=Retry(attempts=1))
    async def tell(ask: AskPrice, tx: Transaction) -> Price | SoldOut | None:
        match ask.item:
            case "gold":
                return SoldOut("gold")
            case "nothing":
                return None
            case "nonsense":
                raise Dead("no such item")
        await tx.execute("INSERT INTO asked VALUES (?)", ask.item)
        return Price(ask.item, 7)

    return app


async def made(app: App) -> None:
    async with app.transaction() as tx:
        await tx.execute("CREATE TABLE asked (item TEXT)")


async def test_an_app_asks_itself_and_another_on_its_store_for_what_the_handler_returns(url: str) -> None:
    shop = App(url, name="shop")
    async with running(prices(url)) as app, shop:
        await made(app)
        for asking in (app, shop):
            assert await asking.request(AskPrice("tea"), Price) == Price("tea", 7)
            assert await asking.request(AskPrice("gold"), Price | SoldOut) == SoldOut("gold")
            assert await asking.request(AskPrice("nothing"), Price | None) is None
            assert await asking.request(AskPrice("tea"), None) is None
        several = await asyncio.gather(*(shop.request(AskPrice(f"tea {n}"), Price) for n in range(50)))
        assert several == [Price(f"tea {n}", 7) for n in range(50)]
        with pytest.raises(errors.Refused, match=r"prices refused AskPrice .*: Dead: no such item") as refused:
            await shop.request(AskPrice("nonsense"), Price)
        assert (refused.value.data["app"], refused.value.data["reason"]) == ("prices", "Dead: no such item")
        with pytest.raises(errors.BadArgument, match="its handler in prices returned SoldOut, not Price"):
            await shop.request(AskPrice("gold"), Price)


async def test_plain_code_asks_too(url: str) -> None:
    async with running(prices(url)) as app:
        await made(app)

        def ask() -> Price:
            with App(url, name="shop").blocking() as shop:
                return shop.request(AskPrice("tea"), Price)

        assert await asyncio.to_thread(ask) == Price("tea", 7)


async def test_after_its_deadline_a_request_is_not_begun_and_its_key_goes_on(url: str, caplog) -> None:
    shop = App(url, name="shop")
    async with shop:
        with pytest.raises(errors.NoAnswer, match=r"AskPrice .* was not answered within 0.05 s") as late:
            await shop.request(AskPrice("tea"), Price, timeout=0.05)
        assert late.value.transient
        await shop.send(AskPrice("tea"))
    async with running(prices(url)) as app, shop:
        await made(app)
        assert await shop.request(AskPrice("tea"), Price) == Price("tea", 7)
        assert await app.store.query("SELECT count(*) FROM asked") == [(2,)]
        assert await app.store.held() == []
    assert f"AskPrice {late.value.data['id']} is not begun: its deadline passed" in caplog.text


async def test_a_retry_is_not_begun_after_the_deadline_either(url: str) -> None:
    app = App(url, name="prices")
    attempts: list[str] = []

    @app.on(AskPrice, retry=Retry(attempts=50, initial=0.3, factor=1.0))
    async def tell(ask: AskPrice) -> None:
        attempts.append(ask.item)
        raise ConnectionError

    async with running(app):
        with pytest.raises(errors.NoAnswer):
            await app.request(AskPrice("tea"), Price, timeout=1.0)

        async with asyncio.timeout(10):
            while await app.store.held():
                await asyncio.sleep(0.01)
        begun = len(attempts)
        await asyncio.sleep(0.5)
        assert 0 < len(attempts) == begun


async def test_an_answer_that_is_late_does_no_harm(url: str) -> None:
    app = App(url, name="prices")
    begun, go_on = asyncio.Event(), asyncio.Event()

    @app.on(AskPrice)
    async def tell(ask: AskPrice) -> Price:
        if ask.item == "slow":
            begun.set()
            await go_on.wait()
        return Price(ask.item, 7)

    async with running(app):
        asking = asyncio.create_task(app.request(AskPrice("slow"), Price, timeout=0.5))
        await begun.wait()
        with pytest.raises(errors.NoAnswer):
            await asking
        go_on.set()
        assert await app.request(AskPrice("quick"), Price) == Price("quick", 7)
        head = await app.store.head()
        await app.run(until_idle=True)
        published = [each.type for each in await app.store.read(0, head + 10, 10)]
        assert sorted(published) == ["AskPrice", "AskPrice", "Price", "Price", "tidings.answer"]


async def test_a_request_within_a_request_ends_with_the_first_deadline(url: str) -> None:
    shop, app = App(url, name="shop"), App(url, name="prices")
    waited: list[float] = []

    @command(app="shop")
    class Order:
        item: Key[str]

    @shop.on(Order, retry=Retry(attempts=1))
    async def order(order: Order) -> Price:
        began = time.monotonic()
        try:
            return await shop.request(AskPrice(order.item), Price, timeout=60.0)
        finally:
            waited.append(time.monotonic() - began)

    async with running(shop), app:
        with pytest.raises(errors.NoAnswer):
            await shop.request(Order("tea"), Price, timeout=0.5)
        await until(lambda: waited)
    assert waited[0] < 30.0


@dataclass(frozen=True)
class Stock:
    """How much is left."""

    left: int = 10


@command(app="prices")
class Take:
    """Take some of it."""

    item: Key[str]
    count: int


@event
class Taken:
    """Some of it was taken."""

    item: Key[str]
    count: int


def decide(stock: Stock, take: Take) -> Taken:
    if take.count > stock.left:
        raise ValueError(f"only {stock.left} left")
    return Taken(take.item, take.count)


def evolve(stock: Stock, taken: Taken) -> Stock:
    return Stock(stock.left - taken.count)


async def test_what_a_decider_refuses_is_told_to_who_asked(url: str) -> None:
    stock = Decider("stock", initial=Stock(), decide=decide, evolve=evolve)
    app, shop = App(url, stock, name="prices"), App(url, name="shop")
    async with running(app), shop:
        assert await shop.request(Take("tea", 7), None) is None
        assert await app.get(stock, "tea") == Stock(3)
        with pytest.raises(errors.Refused, match="ValueError: only 3 left"):
            await shop.request(Take("tea", 7), None)
        assert await shop.request(Take("tea", 3), None) is None


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5"])
async def test_a_timeout_out_of_its_range_and_what_is_no_command_are_refused(sqlite_url: str, timeout: float) -> None:
    async with App(sqlite_url, name="shop") as shop:
        with pytest.raises(errors.BadArgument, match="timeout is"):
            await shop.request(AskPrice("tea"), Price, timeout=timeout)
        with pytest.raises(errors.NotAMessage):
            await shop.request(Price("tea", 7), Price)
        with pytest.raises(errors.NotAMessage):
            await shop.request(AskPrice("tea"), int)
        assert await shop.store.head() == 0
