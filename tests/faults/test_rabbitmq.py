"""The server and the network between it and an app die at any moment: what was confirmed arrives, in order per key."""

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.faults.sizes import BROKER_KILLS, CHANGES, CUTS, SIDE_BY_SIDE
from tests.servers.rabbitmq import RabbitmqServer
from tidings.brokers.rabbitmq import RabbitBroker
from tidings.brokers.rabbitmq.connection import Channel
from tidings.brokers.rabbitmq.publisher import Publisher
from tidings.core.arrival import DEADLINE, Confirmed, Rejected
from tidings.errors import BrokerError
from tidings.testing.conformance.broker.making import envelope, read
from tidings.testing.proxy import BLACK_HOLE, LOST_REPLIES, LOST_REQUESTS, REFUSE, STALL, Fault, Proxy

KEYS = 8
RESUMED = 10.0
"""Seconds after the end of a fault within which messages flow again."""


@pytest.fixture
def url(rabbitmq_server: RabbitmqServer) -> Iterator[str]:
    with rabbitmq_server.vhost() as url:
        yield url


@pytest.fixture
def proxy(rabbitmq_server: RabbitmqServer) -> Iterator[Proxy]:
    with Proxy(rabbitmq_server.port) as proxy:
        yield proxy


class Traffic:
    """A publisher that sends each key's messages one after the other, as a relay does, and an app's log."""

    def __init__(self, url: str, receiving: str) -> None:
        self.shop = RabbitBroker(url, "shop")
        self.receiving = receiving
        self.workers: dict[RabbitBroker, asyncio.Task] = {}
        self.confirmed: dict[str, list[str]] = defaultdict(list)
        self.logged: dict[str, list[str]] = defaultdict(list)
        self.slowest = 0.0
        self._known: set[str] = set()
        self._flowed = asyncio.Event()
        self._publishing = True

    async def __aenter__(self):
        await self.shop.open()
        for _ in range(2):
            await self.join()
        self._task = asyncio.create_task(self._publish())
        return self

    async def __aexit__(self, *_):
        for task in (self._task, *self.workers.values()):
            task.cancel()
        await asyncio.gather(self._task, *self.workers.values(), return_exceptions=True)
        await asyncio.gather(*(broker.close() for broker in (self.shop, *self.workers)))

    async def join(self):
        """One more worker."""
        worker = RabbitBroker(self.receiving, "billing")
        await worker.open()
        await worker.subscribe(["orders"])
        self.workers[worker] = asyncio.create_task(self._receive(worker))

    async def leave(self, worker):
        """One worker less; what it has fetched and not settled comes back to others."""
        task = self.workers.pop(worker)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await worker.close()

    async def _publish(self):
        sent = [0] * KEYS
        while self._publishing:
            batch = [envelope(key=f"{key}", id=f"{key}/{sent[key]}") for key in range(KEYS)]
            began = time.monotonic()
            results = await self.shop.publish(batch)
            self.slowest = max(self.slowest, time.monotonic() - began)
            for key, (each, result) in enumerate(zip(batch, results, strict=True)):
                assert not isinstance(result, Rejected), result
                if result == Confirmed():
                    self.confirmed[str(each.key)].append(each.id)
                    sent[key] += 1
            await asyncio.sleep(0.002)

    async def _receive(self, worker):
        while True:
            began = time.monotonic()
            try:
                taken = await worker.fetch(100, 0.2)
            except BrokerError:
                taken = []
                await asyncio.sleep(0.05)
            self.slowest = max(self.slowest, time.monotonic() - began)
            for each in map(read, taken):  # as a log: what is known is not taken again
                if each.id not in self._known:
                    self._known.add(each.id)
                    self.logged[str(each.key)].append(each.id)
                    self._flowed.set()
            await worker.settle(taken)

    async def flows(self) -> float:
        """Seconds until something new that was published has arrived."""
        began = time.monotonic()
        confirmed = sum(map(len, self.confirmed.values()))
        while sum(map(len, self.confirmed.values())) < confirmed + KEYS:
            assert time.monotonic() < began + 3 * RESUMED, "nothing is confirmed any more"
            await asyncio.sleep(0.01)
        self._flowed.clear()
        async with asyncio.timeout(3 * RESUMED):
            await self._flowed.wait()
        return time.monotonic() - began

    async def judged(self, within: float = RESUMED):
        """Everything that was confirmed has arrived, each key in order; no call took longer than it may."""
        self._publishing = False
        await self._task
        wanted = {key: len(ids) for key, ids in self.confirmed.items()}
        end = time.monotonic() + within
        while any(len(self.logged[key]) < count for key, count in wanted.items()) and time.monotonic() < end:
            await asyncio.sleep(0.05)
        for key, ids in self.confirmed.items():
            # The last one may have arrived without a confirmation.
            assert self.logged[key][: len(ids)] == ids, f"key {key}"
            assert len(self.logged[key]) <= len(ids) + 1
        assert self.slowest < DEADLINE
        return sum(wanted.values())


@pytest.mark.timeout(120 * BROKER_KILLS)
@pytest.mark.proves("G1", "G5", "G9", "G29")
async def test_kills_of_the_server_lose_nothing_and_keep_the_order(rabbitmq_server, url) -> None:
    async with Traffic(url, url) as traffic:
        slowest = 0.0
        await asyncio.sleep(2.0)  # a quorum queue that is killed in its first second may never find a leader again
        for _ in range(BROKER_KILLS):
            await traffic.flows()
            await asyncio.sleep(random.uniform(0.1, 0.5))
            await asyncio.to_thread(rabbitmq_server.crash)
            slowest = max(slowest, await traffic.flows())
        count = await traffic.judged()
    print(f"{BROKER_KILLS} kills of the server: {count} confirmed, all there; flowing again after {slowest:.1f} s")
    assert slowest < RESUMED


FAULTS = (None, REFUSE, STALL, BLACK_HOLE, LOST_REPLIES, LOST_REQUESTS, Fault(delay=0.05), Fault(slice=100))


@pytest.mark.timeout(30 + 30 * CUTS)
@pytest.mark.proves("G1", "G5", "G9", "G29")
async def test_faults_of_the_network_lose_nothing_and_keep_the_order(rabbitmq_server) -> None:
    async with asyncio.TaskGroup() as networks:
        for number in range(SIDE_BY_SIDE):
            networks.create_task(suffer(rabbitmq_server, random.Random(4 + number)))


async def suffer(server: RabbitmqServer, chance: random.Random) -> None:
    """Break a network again and again; everything arrives all the same, in order and soon."""
    with server.vhost() as url, Proxy(server.port) as proxy:
        through = proxy.url(url)
        async with Traffic(through, through) as traffic:
            slowest = 0.0
            for number in range(CUTS // SIDE_BY_SIDE):
                fault = FAULTS[number % len(FAULTS)]
                await asyncio.sleep(chance.uniform(0.05, 0.2))
                if fault is None:
                    proxy.cut()
                else:
                    proxy.suffer(fault)
                    await asyncio.sleep(chance.uniform(0.1, 0.6))
                    proxy.heal()
                slowest = max(slowest, await traffic.flows())
            count = await traffic.judged()
    print(f"{CUTS // SIDE_BY_SIDE} faults: {count} confirmed, all there; flowing again after {slowest:.1f} s")
    assert slowest < RESUMED


@pytest.mark.proves("G5", "G9")
async def test_workers_that_come_and_go_keep_each_key_in_order(url) -> None:
    """From one worker to eight and back."""
    url += "?shards=8"
    chance, wanted = random.Random(5), itertools.cycle([*range(1, 9), *range(7, 1, -1)])
    async with Traffic(url, url) as traffic:
        for number in itertools.islice(wanted, CHANGES):
            if len(traffic.workers) < number:
                await traffic.join()
            else:
                await traffic.leave(chance.choice(list(traffic.workers)))
            await asyncio.sleep(chance.uniform(0.1, 0.4))
        print(f"{await traffic.judged()} confirmed, all there")


# ---- the proof can fail: planted bugs --------------------------------------------------------------------------------


def confirm_at_once(monkeypatch):
    """M11: what was handed to the client counts as published; nobody waits for a confirmation."""
    send = Publisher._send

    def sent(self):
        send(self)
        for attempt in self._under_way.values():
            attempt.batch.note(attempt.at, Confirmed())

    monkeypatch.setattr(Publisher, "_send", sent)


def connect_without_consuming(monkeypatch):
    """M20: connects again, and asks for no messages."""
    call = Channel.call

    async def forgetful(self, method, **arguments):
        if method == "basic_consume" and getattr(forgetful, "consumed", 0) >= 2:
            return None
        forgetful.consumed = getattr(forgetful, "consumed", 0) + (method == "basic_consume")
        return await call(self, method, **arguments)

    monkeypatch.setattr(Channel, "call", forgetful)


@pytest.mark.parametrize("mutant", [confirm_at_once, connect_without_consuming])
async def test_a_broker_that_does_not_wait_or_does_not_ask_again_is_found_out(url, proxy, mutant, monkeypatch) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError)):
        await break_and_judge(proxy.url(url), proxy)


async def break_and_judge(url: str, proxy: Proxy) -> None:
    async with Traffic(url, url) as traffic:
        for _ in range(4):
            await asyncio.sleep(0.2)
            proxy.suffer(LOST_REQUESTS)
            await asyncio.sleep(0.1)
            proxy.heal()
            proxy.cut()
            async with asyncio.timeout(5.0):
                await traffic.flows()
        await traffic.judged(within=3.0)
