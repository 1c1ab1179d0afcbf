"""Workers on separate hosts share one PostgreSQL; one of the hosts is cut off, and comes back."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.hosts import NETWORK, Host, Hosts
from tests.servers.postgres import PostgresServer, PostgresServers
from tidings import App, Envelope, Key, Transaction, event
from tidings.testing.faults import Child, Ready

LEASE = 1.0
SILENCE = 11.0
"""Seconds after which either end of a connection takes the other one for gone."""
KEYS = [f"k{number}" for number in range(40)]
"""Enough for every slot."""

Hold = Callable[[Transaction], Awaitable[None]]


@event(topic="orders")
class Counted:
    key: Key[str]


@dataclass
class Network:
    """A server in the middle, and workers on hosts around it.

    Attributes:
        log: What the processes logged.
    """

    hosts: Hosts
    server: PostgresServer
    log: Path
    children: list[Child] = field(default_factory=list)

    def app(self, hold: Hold | None = None) -> App:
        """Args: hold: awaited by the first handler that this process calls, in its transaction."""
        url = self.server.url("shop").replace("127.0.0.1", self.hosts.hub.address)
        app = App(url, name="shop", lease=LEASE)
        holds = [hold] if hold else []

        @app.on(Counted)
        async def count(_counted: Counted, tx: Transaction, envelope: Envelope) -> None:
            await tx.execute("INSERT INTO counted VALUES (?, ?)", envelope.id, os.getpid())
            if holds:
                await holds.pop()(tx)

        return app

    def start(self, host: Host, main: Callable[[Ready], object]) -> Child:
        """A process on a host."""

        def run(ready: Ready) -> None:
            logging.basicConfig(filename=self.log, level="INFO", force=True)
            asyncio.run(main(ready))

        with host.entered():
            self.children.append(Child(run))
        return self.children[-1]

    def worker(self, host: Host, hold: Callable[[Ready], Hold] | None = None) -> Child:
        async def main(ready: Ready) -> None:
            await self.app(hold and hold(ready)).run()

        return self.start(host, main)

    def publish(self) -> None:
        """One message of each key, from the middle."""

        async def main(_ready: Ready) -> None:
            async with self.app() as app:
                await app.publish(*map(Counted, KEYS))

        assert self.start(self.hosts.hub, main).wait() == 0

    def prepare(self) -> None:
        async def main(_ready: Ready) -> None:
            async with self.app() as app:
                async with app.transaction() as tx:
                    await tx.execute("CREATE TABLE counted (id TEXT, pid INTEGER)")
                await app.run(until_idle=True)

        assert self.start(self.hosts.hub, main).wait() == 0

    def ask(self, sql: str) -> list[tuple]:
        """Rows, whatever the network is like."""
        return self.server.execute(sql, database="shop")

    def wait(self, sql: str, wanted: object, seconds: float) -> float:
        """Wait until a query gives this value; returns how long that took."""
        began = time.monotonic()
        while (found := self.ask(sql)[0][0]) != wanted:
            assert time.monotonic() < began + seconds, f"{sql} gives {found} after {seconds} s, not {wanted}"
            time.sleep(0.01)
        return time.monotonic() - began


SHARED = "SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM tidings_slot GROUP BY owner) AS of_each"
UNSEEN = "SELECT count(*) FROM tidings_log WHERE id NOT IN (SELECT id FROM counted)"
DOUBLED = "SELECT count(*) - count(DISTINCT id) FROM counted"


@pytest.fixture
def network(postgres_servers: PostgresServers, tmp_path: Path) -> Iterator[Network]:
    try:
        hosts = Hosts(["one", "two"])
    except OSError as error:
        pytest.skip(str(error))
    server = postgres_servers.make(durable=False, settings={"listen_addresses": "*"})
    with (server.data / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {NETWORK} scram-sha-256\n")
    with hosts.hub.entered():
        server.start()
    server.create_database(name="shop")
    network = Network(hosts, server, tmp_path / "log.txt")
    network.prepare()
    yield network
    for child in network.children:
        child.end()
    server.kill()
    hosts.close()


def cut_off(network: Network) -> None:
    """Cut a worker off in a handler, until others have its keys and it is too late; then let it come back."""
    one, two = network.hosts.others

    def hold(ready: Ready) -> Hold:
        async def until_it_is_late(_tx: Transaction) -> None:
            ready()
            await asyncio.sleep(LEASE + 2.5)

        return until_it_is_late

    doomed = network.worker(one, hold)
    network.worker(two)
    network.wait(SHARED, "8 8", 10)
    network.publish()
    assert doomed.wait_ready()
    network.hosts.pull(one)
    moved = network.wait(UNSEEN, 0, LEASE + 2)
    time.sleep(LEASE)
    network.hosts.plug(one)
    back = network.wait(SHARED, "8 8", 10)
    network.publish()
    network.wait(UNSEEN, 0, 5)
    network.wait(f"SELECT count(*) > 0 FROM counted WHERE pid = {doomed.pid}", wanted=True, seconds=5)
    print(f"its keys moved after {moved:.1f} s; {back:.1f} s after the cable was back it had some again")


@pytest.mark.proves("G7", "G25", "G26")
def test_the_keys_of_a_host_that_is_cut_off_move_and_its_late_commit_is_refused(network: Network) -> None:
    cut_off(network)
    assert network.ask(DOUBLED) == [(0,)]
    assert "another worker owns it" in network.log.read_text()


def test_an_epoch_that_is_not_looked_at_is_caught_to_double_the_effect(network: Network) -> None:
    network.ask("ALTER FUNCTION tidings_fence RENAME TO fence")
    arguments = "group_name text, slots integer[], epochs bigint[], moving boolean"
    network.ask(f"CREATE FUNCTION tidings_fence({arguments}) RETURNS integer LANGUAGE sql AS 'SELECT 16'")
    cut_off(network)
    assert network.ask(DOUBLED) != [(0,)]


def test_a_host_that_is_cut_off_while_it_holds_all_others_up_is_given_up(network: Network) -> None:
    one, two = network.hosts.others

    def hold(ready: Ready) -> Hold:
        async def with_the_log(tx: Transaction) -> None:
            await tx.append("audit", "audit", [Counted("audit")])
            ready()
            await asyncio.sleep(5)

        return with_the_log

    doomed = network.worker(one, hold)
    network.worker(two)
    network.wait(SHARED, "8 8", 10)
    network.publish()
    assert doomed.wait_ready()
    network.hosts.pull(one)
    began = time.monotonic()
    network.publish()
    network.wait(UNSEEN, 0, 5)
    held = time.monotonic() - began
    network.hosts.plug(one)
    back = network.wait(SHARED, "8 8", 10)
    print(f"it held the others up for {held:.1f} s; {back:.1f} s after the cable was back it had keys again")
    assert held < SILENCE + 3
    assert network.ask(DOUBLED) == [(0,)]
