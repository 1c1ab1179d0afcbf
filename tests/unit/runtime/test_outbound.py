"""What is ready at the same time goes to the broker in one call, whatever becomes of the call and of who made it."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tidings.brokers.log import LogBroker
from tidings.core.arrival import Result
from tidings.core.envelope import Envelope
from tidings.core.ports import Store
from tidings.runtime import outbound
from tidings.runtime.clock import Clock
from tidings.runtime.outbound import Outbound
from tidings.stores.sqlite import SqliteStore
from tidings.testing.conformance.broker.making import envelope


class Slow(LogBroker):
    """Counts calls, waits in each of them, and fails where it is told to."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "shop")
        self.calls: list[list[str]] = []
        self.failures = 0
        self.may_go_on = asyncio.Event()

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[Result]:
        self.calls.append([each.id for each in envelopes])
        await self.may_go_on.wait()
        if self.failures:
            self.failures -= 1
            raise ValueError("out of order")
        return await super().publish(envelopes)


@pytest.fixture
async def broker(tmp_path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slow]:
    monkeypatch.setattr(outbound, "SHORTEST", 0.01)
    broker = Slow(SqliteStore(f"sqlite:{tmp_path}/broker.db"))
    await broker.open()
    yield broker
    await broker.close()


def carrier_of(broker: Slow) -> Outbound:
    opened = asyncio.Event()
    opened.set()
    return Outbound("shop", broker, opened, Clock())


def carrying(broker: Slow, count: int) -> tuple[list[str], list[asyncio.Task[None]]]:
    """The ids of so many messages, and the tasks that carry them."""
    carrier, sent = carrier_of(broker), [envelope("orders", f"k-{at}") for at in range(count)]
    return [each.id for each in sent], [asyncio.ensure_future(carrier.carry(each)) for each in sent]


async def test_what_is_ready_goes_out_together(broker: Slow) -> None:
    ids, tasks = carrying(broker, 5)
    broker.may_go_on.set()
    await asyncio.gather(*tasks)
    assert broker.calls == [ids]


async def test_what_is_carried_at_once_goes_out_together_though_nothing_else_is_about_to_be_carried(
    broker: Slow,
) -> None:
    carrier, sent = carrier_of(broker), [envelope("orders", f"k-{at}") for at in range(5)]
    carrier.alone = lambda: True
    broker.may_go_on.set()
    await carrier.carry_all(sent)
    assert broker.calls == [[each.id for each in sent]]


async def test_a_call_that_fails_is_made_again_for_all(broker: Slow) -> None:
    ids, tasks = carrying(broker, 5)
    broker.failures = 2
    broker.may_go_on.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks)
    assert broker.calls[0] == ids
    assert {id for call in broker.calls[1:] for id in call} == set(ids)


@pytest.mark.parametrize("has_begun", [False, True])
async def test_others_are_carried_though_who_made_the_call_for_all_was_cancelled(broker: Slow, has_begun: bool) -> None:
    ids, [first, *others] = carrying(broker, 3)
    await asyncio.sleep(0)
    while has_begun and not broker.calls:
        await asyncio.sleep(0)
    first.cancel()
    broker.may_go_on.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*others)
    assert first.cancelled()
    assert {id for call in broker.calls[has_begun:] for id in call} == set(ids[1:])
