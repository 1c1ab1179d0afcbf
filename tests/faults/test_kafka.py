"""Kafka under faults: workers, the server and the network between them die at any moment; workers come and go."""

import asyncio
import random
import re
import time
from functools import partial

import pytest

from tests.conftest import had
from tests.faults.carrying import Killable, Shop, Workers, complete, grown
from tests.faults.sizes import BROKER_KILLS, BROKER_WORKERS, CHANGES, CUTS
from tests.servers.kafka import KafkaServer
from tests.servers.server import free_ports
from tidings.brokers.kafka import KafkaBroker, cluster
from tidings.core.arrival import DEADLINE
from tidings.testing.proxy import BLACK_HOLE, LOST_REPLIES, REFUSE, STALL, Fault, Proxy

RESUMED = 10.0
"""Seconds after the end of a fault in which messages arrive again."""
TWICE = 30.0
"""The same where the next one dies before the group has found itself without the last."""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture(scope="module")
def kafka_behind(servers):
    """A server, and a network that can be broken before it: Kafka itself names the address where clients go on."""
    server = had(lambda: servers.make(KafkaServer))
    (behind,) = free_ports(1)
    with Proxy(behind) as proxy:
        properties = server.folder / "server.properties"
        told = re.sub(r"(?m)^listeners=.*", rf"\g<0>,PROXIED://127.0.0.1:{behind}", properties.read_text())
        told = re.sub(r"(?m)^advertised.listeners=.*", rf"\g<0>,PROXIED://127.0.0.1:{proxy.port}", told)
        named = "PROXIED:PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
        properties.write_text(f"{told}listener.security.protocol.map={named}\ninter.broker.listener.name=PLAINTEXT\n")
        server.start()
        yield server, proxy
        server.kill()


@pytest.fixture
def make_proxied(kafka_behind, prefix):
    server, proxy = kafka_behind
    yield proxy, partial(KafkaBroker, f"{proxy.url(server.url)}?prefix={prefix}")
    proxy.heal()


@pytest.mark.timeout(max(180, 60 * BROKER_KILLS))
@pytest.mark.proves("G1", "G5", "G9", "G29")
async def test_nothing_is_lost_or_reordered_by_kills_of_the_server(kafka_behind, prefix, log):
    kafka_server, _ = kafka_behind
    make = partial(KafkaBroker, f"{kafka_server.url}?prefix={prefix}")
    chance, resumed = random.Random(1), []
    async with Shop(make) as shop, Workers(make, log) as workers:
        workers.add()
        workers.add()
        await grown(log, RESUMED)
        for _ in range(BROKER_KILLS):
            await asyncio.sleep(chance.uniform(1.0, 2.0))
            await asyncio.to_thread(kafka_server.crash)
            resumed.append(await grown(log, RESUMED))
        await shop.stop()
        print(await complete(shop, log), [f"{each:.1f}" for each in resumed])
    assert shop.longest < DEADLINE


@pytest.mark.timeout(max(180, 10 * BROKER_WORKERS))
@pytest.mark.proves("G5", "G9")
async def test_nothing_is_lost_or_reordered_by_kills_of_workers(kafka_url, prefix, log):
    url, chance = f"{kafka_url}?prefix={prefix}", random.Random(2)
    workers = [Killable(url, log) for _ in range(3)]
    try:
        async with Shop(partial(KafkaBroker, url)) as shop:
            await grown(log, RESUMED)
            for _ in range(BROKER_WORKERS):
                await asyncio.sleep(chance.uniform(0.5, 4.0))
                await grown(log, TWICE)
                workers.pop(chance.randrange(len(workers))).kill()
                workers.append(Killable(url, log))
            await shop.stop()
            print(await complete(shop, log))
    finally:
        for each in workers:
            each.kill()


@pytest.mark.timeout(max(240, 15 * CUTS))
@pytest.mark.proves("G1", "G5", "G9", "G29")
async def test_nothing_is_lost_or_reordered_by_a_network_that_breaks(make_proxied, log):
    proxy, make = make_proxied
    chance, resumed = random.Random(3), []
    async with Shop(make) as shop, Workers(make, log) as workers:
        workers.add()
        await grown(log, RESUMED)
        for number in range(CUTS):
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            fault = (None, REFUSE, LOST_REPLIES, STALL, BLACK_HOLE, Fault(delay=0.2), Fault(slice=100))[number % 7]
            if fault is None:
                await asyncio.to_thread(proxy.cut)
            else:
                await asyncio.to_thread(proxy.suffer, fault)
                await asyncio.sleep(chance.uniform(0.05, 1.0))
                await asyncio.to_thread(proxy.heal)
            resumed.append(await grown(log, RESUMED))
        await shop.stop()
        print(await complete(shop, log), f"resumed after at most {max(resumed):.1f} s")
    assert shop.longest < DEADLINE


@pytest.mark.timeout(300)
async def test_a_server_that_says_nothing_makes_no_call_hang(make_proxied, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    monkeypatch.setattr(cluster, "QUESTION", 1.0)
    proxy, make = make_proxied
    shop, billing = make("shop"), make("billing")
    await shop.open()
    await billing.open()
    await billing.subscribe(["orders"])
    await billing.fetch(1, 2.0)
    proxy.suffer(BLACK_HOLE)
    longest = {}
    for name, call in {
        "fetch": lambda: billing.fetch(1, 1.0),
        "waiting": billing.waiting,
        "subscribe": lambda: billing.subscribe(["orders", "payments"]),
        "open": make("other").open,
        "close": billing.close,
    }.items():
        began = time.monotonic()
        await asyncio.gather(call(), return_exceptions=True)
        longest[name] = round(time.monotonic() - began, 1)
    await shop.close()
    print(longest)
    assert max(longest.values()) < DEADLINE


@pytest.mark.timeout(300)
@pytest.mark.proves("G5", "G9")
async def test_nothing_is_lost_or_reordered_while_workers_come_and_go(kafka_url, prefix, log):
    """From one worker to eight and back."""
    make = partial(KafkaBroker, f"{kafka_url}?prefix={prefix}")
    chance, wanted = random.Random(4), [*range(1, 9), *range(7, 0, -1)] * 8
    async with Shop(make) as shop, Workers(make, log) as workers:
        for number in wanted[:CHANGES]:
            if len(workers) < number:
                workers.add()
            else:
                await workers.drop(chance.randrange(len(workers)))
            await asyncio.sleep(chance.uniform(0.1, 0.6))
        await shop.stop()
        print(await complete(shop, log))
