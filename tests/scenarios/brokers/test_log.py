"""What is special about a broker that is the log of a store."""

from pathlib import Path

import pytest

from tests.scenarios.brokers.conftest import Make
from tests.scenarios.brokers.test_carrying import OrderPlaced, at_work, until
from tidings.brokers.log import LogBroker
from tidings.core.operations import Append
from tidings.runtime.connect import make_store
from tidings.testing.conformance.store.making import envelope


@pytest.fixture(params=["sqlite", "postgresql"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store."""
    return (
        f"sqlite:{tmp_path}/broker.db" if request.param == "sqlite" else request.getfixturevalue("newest_postgres_url")
    )


@pytest.mark.proves("G21")
async def test_garbage_is_kept_raw_in_the_quarantine_and_the_rest_goes_on(make: Make, broker_url: str) -> None:
    billing = make("billing")
    seen: list[str] = []

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        seen.append(order.order_id)

    store = make_store(broker_url)
    await store.open()
    good = b'{"order_id":"o-1","total":1}'
    sent = [envelope(data=b"\xff\xfe", source="elsewhere"), envelope(data=good, source="elsewhere")]
    await store.write(Append(sent))
    await store.close()
    async with at_work(billing), billing:
        await until(lambda: seen == ["o-1"])
        [kept] = await billing.store.held(group="billing.quarantine")
        assert kept.envelope.data == b"\xff\xfe"
        assert b"position 1" in (kept.envelope.headers or b"")


def test_where_a_message_was_is_said_without_the_password() -> None:
    broker = LogBroker(make_store("postgresql://ada:s3cr3t@127.0.0.1:1/db"), "billing")
    assert broker.url == "postgresql://ada:***@127.0.0.1:1/db"


async def test_an_id_that_stands_for_something_else_is_kept_in_the_quarantine(make: Make, broker_url: str) -> None:
    billing = make("billing")
    seen: list[str] = []

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        seen.append(order.order_id)

    one, other = (b'{"order_id":"o-%d","total":1}' % n for n in (1, 2))
    async with billing:
        await billing.store.write(Append([envelope(id="a", data=one, source="elsewhere", topic="orders")]))
    store = make_store(broker_url)
    await store.open()
    await store.write(
        Append([envelope(id="a", data=other, source="elsewhere"), envelope(data=other, source="elsewhere")])
    )
    await store.close()
    async with at_work(billing), billing:
        await until(lambda: seen == ["o-1", "o-2"])
        await until(lambda: _is_kept(billing))


async def _is_kept(app) -> bool:
    return [each.reason.split(":")[0] for each in await app.store.held(group="billing.quarantine")] == ["IdConflict"]
