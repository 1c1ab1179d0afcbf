"""SNS and SQS over a network that breaks, and with a server that goes away: what was confirmed arrives, soon after."""

import asyncio
import contextlib
import random
import time

import pytest

from tests.faults.sizes import CUTS, SIDE_BY_SIDE
from tidings.brokers.sqs import SqsBroker
from tidings.core.arrival import DEADLINE, Confirmed
from tidings.errors import BrokerError, BrokerUnavailable
from tidings.testing.conformance.broker.making import envelope, read
from tidings.testing.proxy import BLACK_HOLE, LOST_REPLIES, LOST_REQUESTS, REFUSE, STALL, Fault, Proxy

RESUMED = 10.0
"""Seconds after a fault within which messages flow again."""

KEYS = 5
FAULTS = {
    "refuse": REFUSE,
    "cut": None,
    "stall": STALL,
    "lost replies": LOST_REPLIES,
    "lost requests": LOST_REQUESTS,
    "black hole": BLACK_HOLE,
    "delay": Fault(delay=0.2),
    "slices": Fault(slice=100),
}


class Traffic:
    """A publisher that sends again what was not confirmed, and a worker that settles what arrives."""

    def __init__(self, url):
        self.shop, self.billing = SqsBroker(url, "shop"), SqsBroker(url, "billing")
        self.sent = dict.fromkeys(range(KEYS), 0)
        self.confirmed: set[str] = set()
        self.first: dict[str, list[int]] = {}
        self.seen: set[str] = set()
        self.last = 0.0
        self.longest = 0.0
        self.ending = False

    async def __aenter__(self):
        for broker in (self.shop, self.billing):
            await broker.open()
        await self.billing.subscribe(["orders"])
        self.tasks = [asyncio.create_task(each) for each in (self.receiving(), *map(self.publishing, range(KEYS)))]
        return self

    async def __aexit__(self, *_):
        self.ending = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.gather(self.shop.close(), self.billing.close())

    async def publishing(self, key):
        while not self.ending:
            id = f"{key}-{self.sent[key]}"
            (result,) = await self.timed(self.shop.publish([envelope(key=f"k-{key}", id=id)]))
            if isinstance(result, Confirmed):
                self.confirmed.add(id)
                self.sent[key] += 1
            await asyncio.sleep(0.02)

    async def receiving(self):
        while True:
            try:
                arrivals = await self.timed(self.billing.fetch(50, 0.3))
            except BrokerError:
                await asyncio.sleep(0.05)
                continue
            for each in map(read, arrivals):
                if each.id not in self.seen:
                    self.seen.add(each.id)
                    self.first.setdefault(each.key, []).append(int(each.id.partition("-")[2]))
                    self.last = time.monotonic()
            await self.timed(self.billing.settle(arrivals))

    async def timed(self, call):
        began = time.monotonic()
        try:
            return await call
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    async def flows(self):
        """Seconds until messages that are published from now on arrive of every key."""
        began, marks = time.monotonic(), dict(self.sent)
        while any(max(self.first.get(f"k-{key}", [-1])) <= at for key, at in marks.items()):
            assert time.monotonic() - began < 60.0, "nothing arrives any more"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def all_arrived(self):
        self.ending = True
        end = time.monotonic() + 30.0
        while self.confirmed - self.seen and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return self.confirmed <= self.seen


@contextlib.contextmanager
def network(sqs_server, prefix):
    """A network that can be broken, and the URL of a broker behind it."""
    with Proxy(sqs_server.port) as proxy:
        url = sqs_server.url.replace(str(sqs_server.port), str(proxy.port))
        yield proxy, f"{url}&prefix={prefix}&poll=2&visibility=5&fifo=true"


async def suffer(sqs_server, prefix, chance):
    """Break a network again and again; everything arrives all the same, in order and soon."""
    took = {}
    with network(sqs_server, prefix) as (proxy, url):
        async with Traffic(url) as traffic:
            await traffic.flows()
            for number in range(CUTS // SIDE_BY_SIDE):
                name = list(FAULTS)[number % len(FAULTS)]
                fault = FAULTS[name]
                proxy.suffer(fault) if fault else proxy.cut()
                await asyncio.sleep(chance.uniform(0.3, 1.5))
                proxy.heal()
                took[name] = max(took.get(name, 0.0), await traffic.flows())
            assert await traffic.all_arrived()
            print(f"{len(traffic.seen)} messages; slowest to flow again: {took}; longest call {traffic.longest:.1f} s")
            assert all(numbers == sorted(numbers) for numbers in traffic.first.values())
            assert max(took.values()) < RESUMED
            assert traffic.longest < DEADLINE + 1.0


@pytest.mark.timeout(max(120, 10 * CUTS))
@pytest.mark.proves("G1", "G5", "G9", "G29")
async def test_what_was_confirmed_arrives_in_order_whatever_the_network_does(sqs_server, prefix):
    async with asyncio.TaskGroup() as networks:
        for number in range(SIDE_BY_SIDE):
            networks.create_task(suffer(sqs_server, f"{prefix}{number}-", random.Random(number)))


@pytest.mark.proves("G29")
async def test_a_worker_goes_on_by_itself_with_a_server_that_was_killed_and_forgot_everything(sqs_server, prefix):
    async with Traffic(f"{sqs_server.url}&prefix={prefix}&poll=2&fifo=true") as traffic:
        await traffic.flows()
        await asyncio.to_thread(sqs_server.crash)
        took = await traffic.flows()
        print(f"flows again {took:.1f} s after the start")
        assert took < RESUMED


async def test_no_call_outlasts_its_deadline_where_nothing_answers(sqs_server, prefix):
    with network(sqs_server, prefix) as (proxy, url):
        async with Traffic(url) as traffic:
            await traffic.flows()
            proxy.suffer(BLACK_HOLE)
            began = time.monotonic()
            published = traffic.shop.publish([envelope(key=f"{n}") for n in range(300)])
            results, counted = await asyncio.gather(published, traffic.billing.waiting(), return_exceptions=True)
            assert time.monotonic() - began < DEADLINE
            assert not any(isinstance(each, Confirmed) for each in results)
            assert isinstance(counted, BrokerUnavailable)
