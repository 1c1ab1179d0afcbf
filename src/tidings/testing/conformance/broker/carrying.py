"""What is published arrives: all of it, as it was, in order, and until it is settled."""

from __future__ import annotations

import asyncio
import time

import pytest

from tidings.core.arrival import Arrival, Rejected
from tidings.testing.conformance.broker.making import Connect, Making, drained, envelope, publish, read


class CarryingTests(Making):
    """One publisher, one app that subscribes."""

    async def test_g3_what_is_published_arrives_as_it_was(self, connect: Connect) -> None:
        sent = [
            envelope(),
            envelope(key=None, schema=3, correlation="c-1", causation="c-0"),
            envelope(key="Zoë € 😀 100%", headers=b'{"tenant":"a=b;c \\"d\\""}', data='{"ü":"€\\u0000"}'.encode()),
            envelope(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            envelope(type="Customer", stream="state:Customer:c-1", key="c-1", version=7, data=b""),
        ]
        receiver = await connect("billing", "orders")
        await publish(await connect("shop"), sent)
        found = {each.id: each for each in map(read, await drained(receiver, len(sent)))}
        assert [found[each.id] for each in sent] == sent

    async def test_nothing_arrives_of_topics_that_were_not_asked_for(self, connect: Connect) -> None:
        receiver = await connect("billing", "orders", "payments")
        shop = await connect("shop")
        await publish(shop, [envelope("mail", id="a"), envelope("payments", id="b"), envelope("orders", id="c")])
        found = await drained(receiver, 2, quiet=0.5)
        assert {(each.topic, read(each).id) for each in found} == {("payments", "b"), ("orders", "c")}

    async def test_a_topic_that_nobody_asked_for_takes_what_is_published(self, connect: Connect) -> None:
        await publish(await connect("shop"), [envelope("nobody-listens")])

    async def test_g9_messages_of_one_key_arrive_in_order(self, connect: Connect) -> None:
        receiver = await connect("billing", "orders")
        if not receiver.guarantees.ordered:
            pytest.skip(f"{receiver.guarantees.name} promises no order")
        shop = await connect("shop")
        sent = [envelope(key=f"k-{n % 7}", id=f"{n}") for n in range(210)]
        arriving = asyncio.ensure_future(drained(receiver, len(sent)))
        await publish(shop, sent)
        order: dict[str | None, list[int]] = {}
        for each in map(read, await arriving):
            order.setdefault(each.key, []).append(int(each.id))
        assert order == {f"k-{at}": list(range(at, 210, 7)) for at in range(7)}

    async def test_g5_what_is_not_settled_comes_again_and_what_is_settled_does_not(self, connect: Connect) -> None:
        first = await connect("billing", "orders")
        await publish(await connect("shop"), [envelope(id=f"{n}") for n in range(10)])
        taken = await drained(first, 10, settle=False)
        assert [read(each).id for each in taken] == [f"{n}" for n in range(10)] or not first.guarantees.ordered
        await first.settle(taken[:4])
        await first.close()
        second = await connect("billing", "orders")
        again = await drained(second, 6, quiet=1.0)
        assert {read(each).id for each in again} >= {read(each).id for each in taken[4:]}
        await second.close()
        assert await drained(await connect("billing", "orders"), 0, quiet=1.0) == []

    async def test_a_fetch_waits_for_the_first_and_no_longer_than_told(self, connect: Connect) -> None:
        receiver = await connect("billing", "orders")
        await publish(await connect("shop"), [envelope()])
        assert len(await drained(receiver, 1)) == 1
        began = time.monotonic()
        assert list(await receiver.fetch(10, 0.3)) == []
        assert 0.2 < time.monotonic() - began < 3.0
        fetching = asyncio.ensure_future(receiver.fetch(10, 10.0))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await publish(await connect("shop"), [envelope()])
        assert len(await fetching) == 1
        assert time.monotonic() - began < 5.0

    async def test_g27_a_fetch_brings_no_more_than_asked_for(self, connect: Connect) -> None:
        receiver = await connect("billing", "orders")
        await publish(await connect("shop"), [envelope(key=f"{n}") for n in range(50)])
        found: list[Arrival] = []
        while len(found) < 50:
            taken = await receiver.fetch(7, 5.0)
            assert 0 < len(taken) <= 7
            await receiver.settle(taken)
            found += taken

    async def test_g4_what_is_too_large_is_refused_by_name_and_the_rest_is_taken(self, connect: Connect) -> None:
        shop = await connect("shop")
        large = b'"' + b"x" * (shop.guarantees.max_bytes + 1) + b'"'
        receiver = await connect("billing", "orders")
        results = await shop.publish([envelope(key="a"), envelope(key="b", data=large), envelope(key="c")])
        assert isinstance(results[1], Rejected), results
        assert "bytes" in results[1].reason
        assert sorted(str(read(each).key) for each in await drained(receiver, 2)) == ["a", "c"]

    async def test_g3_the_largest_message_it_promises_to_take_arrives(self, connect: Connect) -> None:
        shop = await connect("shop")
        data = b'"' + b"x" * (shop.guarantees.max_bytes - 2) + b'"'
        receiver = await connect("billing", "orders")
        await publish(shop, [envelope(data=data)])
        assert [read(each).data for each in await drained(receiver, 1)] == [data]
