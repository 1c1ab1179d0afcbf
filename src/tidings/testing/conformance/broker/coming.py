"""Those who publish and those who receive come and go; what was confirmed arrives all the same."""

from __future__ import annotations

import asyncio

from tidings.core.arrival import Confirmed
from tidings.core.ports import Broker
from tidings.testing.conformance.broker.making import Connect, Making, drained, envelope, publish, read

OFTEN = 4
"""Times that something opens and closes again."""


class ComingTests(Making):
    """Opening and closing while messages are on their way."""

    async def test_closing_twice_is_fine(self, connect: Connect) -> None:
        broker = await connect("shop", "orders")
        await broker.close()
        await broker.close()

    async def test_g5_workers_that_close_with_half_of_it_done_lose_nothing(self, connect: Connect) -> None:
        shop, seen = await connect("shop"), set[str]()
        worker = await connect("billing", "orders")
        for at in range(OFTEN):
            await publish(shop, [envelope(key=f"{n}", id=f"{at}-{n}") for n in range(25)])
            taken = await drained(worker, 10, settle=False)
            await worker.settle(taken[::2])
            seen.update(read(each).id for each in taken[::2])
            await worker.close()
            worker = await connect("billing", "orders")
        sent = {f"{at}-{n}" for at in range(OFTEN) for n in range(25)}
        assert await _completed(worker, seen, sent) == sent

    async def test_g5_what_is_never_settled_never_stops_coming(self, connect: Connect) -> None:
        worker = await connect("billing", "orders")
        await publish(await connect("shop"), [envelope(key=f"{n}", id=f"{n}") for n in range(20)])
        for _ in range(OFTEN):
            assert {read(each).id for each in await drained(worker, 20, settle=False)} == {f"{n}" for n in range(20)}
            await worker.close()
            worker = await connect("billing", "orders")
        assert {read(each).id for each in await drained(worker, 20)} == {f"{n}" for n in range(20)}

    async def test_g5_many_open_and_close_at_once_and_the_rest_goes_on(self, connect: Connect) -> None:
        worker, shop = await connect("billing", "orders"), await connect("shop")

        async def visit(app: str) -> None:
            await (await connect(app, "orders")).close()

        sent = [envelope(key=f"{n}") for n in range(50)]
        visits = asyncio.gather(*(visit(f"visitor-{n}") for n in range(6)))
        await publish(shop, sent)
        await visits
        assert {read(each).id for each in await drained(worker, len(sent))} == {each.id for each in sent}

    async def test_g1_what_was_confirmed_arrives_however_its_publisher_ends(self, connect: Connect) -> None:
        worker, confirmed = await connect("billing", "orders"), set[str]()

        async def keep_publishing(shop: Broker, name: str) -> None:
            for at in range(1000):
                batch = [envelope(key=f"{name}-{n}", id=f"{name}-{at}-{n}") for n in range(10)]
                results = await shop.publish(batch)
                confirmed.update(
                    each.id for each, result in zip(batch, results, strict=True) if isinstance(result, Confirmed)
                )
                if not all(isinstance(result, Confirmed) for result in results):
                    return

        shops = [await connect(f"shop-{n}") for n in range(OFTEN)]
        publishing = [asyncio.create_task(keep_publishing(shop, f"{n}")) for n, shop in enumerate(shops)]
        found = {read(each).id for each in await drained(worker, 200)}
        for shop in shops:
            await shop.close()
        await asyncio.gather(*publishing, return_exceptions=True)
        assert confirmed <= await _completed(worker, found, confirmed)

    async def test_g5_every_one_of_many_topics_is_complete(self, connect: Connect) -> None:
        topics = [f"topic-{n}" for n in range(8)]
        worker, shop = await connect("billing", *topics), await connect("shop")
        sent = [envelope(topic, key=f"{n}", id=f"{topic}-{n}") for topic in topics for n in range(10)]
        await publish(shop, sent)
        found = {(each.topic, read(each).id) for each in await drained(worker, len(sent))}
        assert found == {(each.topic, each.id) for each in sent}


async def _completed(worker: Broker, seen: set[str], sent: set[str]) -> set[str]:
    """The ids that were seen, with those that still come; some may come again."""
    while sent - seen and (more := await drained(worker, 1)):
        seen.update(read(each).id for each in more)
    return seen
