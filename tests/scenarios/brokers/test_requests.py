"""A request over a broker is answered to the app that asked alone, until its deadline, whoever is killed meanwhile."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.scenarios.brokers.answering import prices
from tests.scenarios.brokers.conftest import Make
from tests.scenarios.brokers.working import at_work, until
from tests.scenarios.runtime.messages import AskPrice, Price
from tidings import App, Dead, Retry, errors
from tidings.core.ports import Store


async def types(store: Store) -> list[str]:
    """Types of the messages in a log."""
    return sorted(each.type for each in await store.read(0, await store.head(), 1000))


async def test_the_answer_reaches_the_app_that_asked_and_no_other(make: Make, broker_url: str, tmp_path: Path) -> None:
    app = prices(f"sqlite:{tmp_path}/prices.db", broker_url)
    shop, rival = make("shop"), make("rival")
    async with at_work(app, shop, rival), shop, rival, app:
        assert await shop.request(AskPrice("tea"), Price, timeout=30.0) == Price("tea", 7)
        assert await rival.request(AskPrice("rice"), Price | None, timeout=30.0) == Price("rice", 7)
        several = await asyncio.gather(*(shop.request(AskPrice(f"{n}"), Price, timeout=30.0) for n in range(20)))
        assert several == [Price(f"{n}", 7) for n in range(20)]
        blocking = App(f"sqlite:{tmp_path}/shop.db", broker=broker_url, name="shop").blocking()
        with_threads = await asyncio.to_thread(_ask_plainly, blocking)
        assert with_threads == Price("tea", 7)
        assert await app.request(AskPrice("own"), Price, timeout=30.0) == Price("own", 7)
        assert await types(shop.store) == ["AskPrice"] * 22 + ["tidings.answer"] * 22
        assert await types(rival.store) == ["AskPrice", "tidings.answer"]


def _ask_plainly(blocking) -> Price:
    with blocking as shop:
        return shop.request(AskPrice("tea"), Price, timeout=30.0)


async def test_what_is_refused_is_told_at_once(make: Make) -> None:
    shop, app = make("shop"), make("prices")

    @app.on(AskPrice, retry=Retry(attempts=1))
    async def tell(ask: AskPrice) -> Price:
        raise Dead("no such item")

    async with at_work(app, shop), shop:
        with pytest.raises(errors.Refused, match="no such item"):
            await shop.request(AskPrice("tea"), Price, timeout=60.0)


async def test_who_gets_no_answer_in_time_is_told_and_the_request_is_not_begun_later(
    make: Make, broker_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = prices(f"sqlite:{tmp_path}/prices.db", broker_url)
    shop = make("shop")
    await app.run(until_idle=True)  # declares where messages arrive
    async with at_work(shop), shop:
        with pytest.raises(errors.NoAnswer, match=r"AskPrice .* was not answered within 0.2 s") as late:
            await shop.request(AskPrice("tea"), Price, timeout=0.2)
    async with at_work(shop, app), shop, app:
        assert await shop.request(AskPrice("tea"), Price, timeout=30.0) == Price("tea", 7)
        await until(lambda: f"{late.value.data['id']} is not begun" in caplog.text)
        assert await app.store.query("SELECT count(*) FROM asked") == [(1,)]
        assert await app.store.held() == []


@pytest.mark.parametrize("when", ["during", "after"])
async def test_a_process_that_is_killed_answers_once_it_runs_again(
    make: Make, broker_url: str, tmp_path: Path, when: str
) -> None:
    store = f"sqlite:{tmp_path}/prices.db"
    await prices(store, broker_url).run(until_idle=True)  # declares where messages arrive
    shop = make("shop")

    async def process(when: str) -> asyncio.subprocess.Process:
        program = [sys.executable, "-m", "tests.scenarios.brokers.answering", store, broker_url, when]
        return await asyncio.create_subprocess_exec(*program)

    async with at_work(shop), shop:
        first = await process(when)
        asking = asyncio.create_task(shop.request(AskPrice("tea"), Price, timeout=60.0))
        assert await first.wait() == -signal.SIGKILL
        assert not asking.done()
        second = await process("never")
        try:
            assert await asking == Price("tea", 7)
        finally:
            second.terminate()
            await second.wait()
    async with prices(store, broker_url) as app:
        assert await app.store.query("SELECT count(*) FROM asked") == [(1,)]
