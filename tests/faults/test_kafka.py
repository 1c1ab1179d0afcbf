"""Kafka under faults: workers, the server and the network between them die at any moment; workers come and go."""

import asyncio
import contextlib
import random
import re
import time
from functools import partial

import pytest

from tests.conftest import had
from tests.faults.carrying import Killable, Shop, Workers, complete, grown
from tests.faults.sizes import BROKER_KILLS, BROKER_WORKERS, CHANGES, CUTS, SIDE_BY_SIDE
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
    """A server, and networks that can be broken before it: Kafka itself names the addresses where clients go on."""
    server = had(lambda: servers.make(KafkaServer))
    with contextlib.ExitStack() as opened:
        behind = free_ports(SIDE_BY_SIDE)
        proxies = [opened.enter_context(Proxy(port)) for port in behind]
        listeners = "".join(f",BEHIND{n}://127.0.0.1:{port}" for n, port in enumerate(behind))
        addresses = "".join(f",BEHIND{n}://127.0.0.1:{proxy.port}" for n, proxy in enumerate(proxies))
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT" + "".join(
            f",BEHIND{n}:PLAINTEXT" for n in range(SIDE_BY_SIDE)
        )
        properties = server.folder / "server.properties"
        told = re.sub(r"(?m)^listeners=.*", rf"\g<0>{listeners}", properties.read_text())
        told = re.sub(r"(?m)^advertised.listeners=.*", rf"\g<0>{addresses}", told)
        more = f"listener.security.protocol.map={protocols}\ninter.broker.listener.name=PLAINTEXT\n"
        properties.write_text(told + more)
        server.start()
        yield server, proxies
        server.kill()


@pytest.fixture
def networks(kafka_behind, prefix):
    """Networks to one server that break apart from each other, each with what makes brokers behind it."""
    server, proxies = kafka_behind
    yield [
        (proxy, partial(KafkaBroker, f"{proxy.url(server.url)}?prefix={prefix}{number}-"))
        for number, proxy in enumerate(proxies)
    ]
    for proxy in proxies:
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
async def test_nothing_is_lost_or_reordered_by_a_network_that_breaks(networks, tmp_path):
    async with asyncio.TaskGroup() as tasks:
        for number, (proxy, make) in enumerate(networks):
            tasks.create_task(suffer(proxy, make, tmp_path / f"{number}", random.Random(3 + number)))


FAULTS = (None, REFUSE, LOST_REPLIES, STALL, BLACK_HOLE, Fault(delay=0.2), Fault(slice=100))


async def suffer(proxy, make, log, chance):
    """Break a network again and again; everything arrives all the same, in order and soon."""
    resumed = []
    async with Shop(make) as shop, Workers(make, log) as workers:
        workers.add()
        await grown(log, RESUMED)
        for number in range(CUTS // SIDE_BY_SIDE):
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            fault = FAULTS[number % len(FAULTS)]
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
async def test_a_server_that_says_nothing_makes_no_call_hang(networks, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    monkeypatch.setattr(cluster, "QUESTION", 1.0)
    (proxy, make), *_ = networks
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
