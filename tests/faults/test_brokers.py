"""Whoever is killed between two apps and their broker: nothing is lost, nothing happens twice, each key is in order."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.faults.crossing import APPS, PUBLISHERS, Crossing, crew, live
from tests.faults.sizes import BROKER_KILLS, KILLS
from tests.servers.postgres import PostgresServer
from tidings.core.arrival import Arrival, Result
from tidings.core.claim import claim_of, referring
from tidings.core.envelope import Envelope
from tidings.core.ports import ClaimPlace
from tidings.runtime.ahead import Ahead
from tidings.runtime.claims import Claims
from tidings.runtime.inbound import Inbound
from tidings.runtime.outbound import KEYS, Outbound


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """App -> the URL of its store, which does not exist yet."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield {app: f"sqlite:{tmp_path}/{app}.db" for app in APPS}
        return
    server = request.getfixturevalue("durable_postgres")
    with contextlib.ExitStack() as databases:
        yield {app: databases.enter_context(server.database()) for app in APPS}


@pytest.fixture
def crossing(broker: str, stores: dict[str, str]) -> Iterator[Crossing]:
    pace = 0.1 if broker.startswith("sqs:") else 0.002  # emulators are slow
    if broker.startswith("amqp:") and not stores["shop"].startswith("sqlite:"):
        pace = 0.005  # two servers beside a dozen processes: each key goes as fast as the broker confirms
    crossing = Crossing(broker, stores, pace=pace)
    yield crossing
    crossing.close()


@pytest.mark.timeout(max(240, KILLS // 4))
@pytest.mark.parametrize(
    ("broker", "stores"),
    [(broker, "sqlite") for broker in ("sqlite", "kafka", "rabbitmq", "sqs-fifo")] + [("rabbitmq", "postgresql")],
    indirect=True,
)
@pytest.mark.proves("G1", "G5", "G7", "G9")
def test_kills_of_publishers_and_workers_lose_nothing_double_nothing_and_keep_the_order(crossing: Crossing) -> None:
    killed = live(crossing, KILLS // (6 if crossing.stores["shop"].startswith("sqlite:") else 12))
    found = crossing.found()
    published = len(crossing.published())
    print(f"{killed} kills, {published} messages, all there after {crossing.seconds:.1f} s")
    assert published > killed
    assert found.broken == set(), found
    # Kafka gives up dead members one after the other, each after its session of six seconds; a hundred died here.
    assert crossing.seconds < (25.0 if crossing.broker.startswith("kafka:") else 10.0)


@pytest.mark.timeout(120 * BROKER_KILLS)
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
@pytest.mark.parametrize("stores", ["postgresql"], indirect=True)
@pytest.mark.proves("G1", "G5", "G7", "G9")
def test_kills_of_the_database_of_both_apps_lose_nothing_double_nothing_and_keep_the_order(
    crossing: Crossing, durable_postgres: PostgresServer
) -> None:
    crossing.patient = True
    children, chance = [start() for start in crew(crossing)], random.Random(1)
    assert all(child.wait_ready() for child in children)
    for _ in range(BROKER_KILLS):
        crossing.flows()
        time.sleep(chance.uniform(0.0, 1.0))
        durable_postgres.crash()
        crossing.flows()
    for child in children[:PUBLISHERS]:
        child.end()
    assert all(child.terminate() == 0 for child in children[PUBLISHERS:]), "one ended by itself (see above)"
    found = crossing.found()
    print(f"{BROKER_KILLS} kills of the database, {len(crossing.published())} messages, all there")
    assert found.broken == set(), found


@pytest.mark.parametrize("broker", ["sqlite-claims"], indirect=True)
@pytest.mark.proves("G1", "G3", "G5", "G7", "G9")
def test_kills_in_the_middle_of_leaving_and_fetching_claims_lose_nothing_and_leave_nothing_torn(
    crossing: Crossing, tmp_path: Path
) -> None:
    live(crossing, KILLS // 12)
    found = crossing.found()
    assert found.broken == set(), found
    files = list((tmp_path / "claims").iterdir())
    whole = [file for file in files if not file.name.startswith(".")]
    assert len(whole) == len(crossing.published())
    assert all(file.name.partition("-")[2] == sha256(file.read_bytes()).hexdigest() for file in whole)
    assert len(files) > len(whole), "nobody was killed in the middle of leaving a claim"


def confirm_nothing() -> None:
    """The broker is away."""

    async def publish(self: Outbound, envelope: Envelope) -> Result:
        return await asyncio.get_running_loop().create_future()

    Outbound._publish = publish


@pytest.mark.proves("G5", "G9")
def test_a_worker_that_is_killed_while_the_broker_is_away_leaves_each_key_in_order(crossing: Crossing) -> None:
    crossing.prepare()
    publisher = crossing.publisher("p")
    while len(crossing.published()) <= 1.2 * Ahead(KEYS).room:  # more than fits into the memory of a worker
        time.sleep(0.1)
    publisher.kill()
    crossing.mutant = confirm_nothing
    away = crossing.worker("shop")
    end = time.monotonic() + 20.0
    while not crossing.held():
        assert time.monotonic() < end, "nothing is held behind what the broker does not confirm"
        time.sleep(0.05)
    away.kill()
    crossing.mutant = None
    found = crossing.found()
    assert found.broken == set(), found


# ---- the proof can fail: planted bugs --------------------------------------------------------------------------------


def settle_first() -> None:
    """What a broker brought is settled there before it is durable here."""
    keep = Inbound._keep

    async def settled_first(self: Inbound, arrivals: list[Arrival]) -> object:
        await self._broker.settle(arrivals)
        await asyncio.sleep(0.01)
        return await keep(self, arrivals)

    Inbound._keep = settled_first


def confirm_at_once() -> None:
    """What is about to be handed to the broker counts as carried."""
    under_way = set()

    async def publish(self: Outbound, envelope: Envelope) -> None:
        await asyncio.sleep(0.1)  # longer than it takes to note at leisure what was carried
        await self._publish(envelope)

    async def carry(self: Outbound, envelope: Envelope) -> None:
        under_way.add(asyncio.create_task(publish(self, envelope)))

    Outbound.carry = carry


def refer_first() -> None:
    """What refers to data goes out before they are left."""
    leaving = set()

    async def leave(self: Claims, envelope: Envelope) -> Envelope:
        claim = claim_of(envelope)
        leaving.add(asyncio.get_running_loop().run_in_executor(None, _put_later, self.place, claim.name, envelope.data))
        return referring(envelope, claim, self.place.url)

    Claims.leave = leave


def _put_later(place: ClaimPlace, name: str, data: bytes) -> None:
    time.sleep(0.1)
    place.put(name, data)


@pytest.mark.parametrize("broker", ["sqlite-claims"], indirect=True)
def test_what_refers_to_data_that_are_not_there_yet_is_found_to_be_lost(crossing: Crossing) -> None:
    crossing.mutant = refer_first
    live(crossing, 30)
    assert "lost" in crossing.found(within=3.0).broken


@pytest.mark.parametrize("mutant", [settle_first, confirm_at_once])
def test_what_is_acknowledged_too_early_is_found_to_be_lost(crossing: Crossing, mutant) -> None:
    crossing.mutant = mutant
    live(crossing, 30)
    assert "lost" in crossing.found(within=3.0).broken
