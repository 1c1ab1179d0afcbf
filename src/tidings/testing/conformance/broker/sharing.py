"""Several apps each get everything; the workers of one app share it."""

from __future__ import annotations

import asyncio

import pytest

from tidings.core.ports import Broker
from tidings.testing.conformance.broker.making import PATIENCE, Connect, Making, drained, envelope, publish, read


class SharingTests(Making):
    """Several that publish, several that subscribe."""

    async def test_g5_each_app_gets_everything(self, connect: Connect) -> None:
        apps = [await connect(app, "orders") for app in ("billing", "mail", "stock")]
        sent = [envelope(key=f"{n}") for n in range(50)]
        await publish(await connect("shop"), sent)
        for app in apps:
            found = await drained(app, len(sent), quiet=0.3)
            assert sorted(read(each).id for each in found) == sorted(each.id for each in sent)

    async def test_g5_the_workers_of_an_app_share_and_leave_nothing_out(self, connect: Connect) -> None:
        workers = [await connect("billing", "orders") for _ in range(3)]
        shop = await connect("shop")
        sent = [envelope(key=f"{n}") for n in range(300)]
        missing = {each.id for each in sent}

        async def work(worker: Broker) -> None:
            while missing:
                taken = await worker.fetch(10, 0.5)
                await worker.settle(taken)
                missing.difference_update(read(each).id for each in taken)

        working = [asyncio.create_task(work(worker)) for worker in workers]
        await publish(shop, sent)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*working)

    async def test_g5_many_publish_at_once_and_everything_arrives(self, connect: Connect) -> None:
        receiver = await connect("billing", "orders", "payments")
        shops = [await connect(f"shop-{n}") for n in range(5)]
        sent = [
            [envelope("orders" if n % 2 else "payments", key=f"{at}-{n}") for n in range(100)]
            for at in range(len(shops))
        ]
        arriving = asyncio.ensure_future(drained(receiver, 500))
        await asyncio.gather(*(publish(shop, batch) for shop, batch in zip(shops, sent, strict=True)))
        assert {read(each).id for each in await arriving} == {each.id for batch in sent for each in batch}

    async def test_g5_what_was_published_while_no_worker_ran_waits(self, connect: Connect) -> None:
        worker = await connect("billing", "orders")
        shop = await connect("shop")
        await publish(shop, [envelope(id="before")])
        assert len(await drained(worker, 1)) == 1
        await worker.close()
        await publish(shop, [envelope(id="meanwhile")])
        found = await drained(await connect("billing", "orders"), 1)
        assert [read(each).id for each in found] == ["meanwhile"]

    async def test_g11_a_new_app_gets_history_where_that_is_promised(self, connect: Connect) -> None:
        shop = await connect("shop")
        if not shop.guarantees.history:
            pytest.skip(f"{shop.guarantees.name} keeps no history")
        sent = [envelope(id=f"{n}") for n in range(20)]
        await publish(shop, sent)
        found = await drained(await connect("latecomer", "orders"), 20)
        assert {read(each).id for each in found} == {each.id for each in sent}

    async def test_g33_what_waits_is_counted(self, connect: Connect) -> None:
        receiver = await connect("billing", "orders")
        shop = await connect("shop")
        await publish(shop, [envelope(key=f"{n}") for n in range(10)])
        taken = await drained(receiver, 10, settle=False)
        assert await receiver.waiting() == 10
        await receiver.settle(taken)
        for _ in range(50):
            if await receiver.waiting() == 0:
                break
            await asyncio.sleep(0.1)
        assert await receiver.waiting() == 0
