"""The same promises on PostgreSQL: workers, the server and the network between them die at any moment."""

import asyncio
import random
import time
from functools import partial

import pytest

from tests.faults.processes import crew, dismiss, resumed
from tests.faults.sizes import KILLS, SERVER_KILLS, ZOMBIES
from tests.faults.test_kills import campaign
from tests.faults.test_zombies import haunt_all
from tidings.stores.postgres.connection import Place
from tidings.testing.proxy import BLACK_HOLE, LOST_REPLIES, REFUSE, STALL

PROMISES = ("G1", "G2", "G3", "G4", "G5", "G7", "G9", "G12", "G14", "G16", "G20")


@pytest.fixture
def scene(make_scene, durable_postgres_url):
    return make_scene(durable_postgres_url)


def a_while(_say):
    """Handlers take long enough to be killed in the middle."""
    return lambda _group: asyncio.sleep(0.005)


@pytest.mark.timeout(max(300, KILLS))
def test_nothing_is_lost_doubled_or_reordered_by_kills_of_workers_and_publishers(scene):
    scene.options = {"lease": 0.2}  # so that there is work to be taken over before the next one dies
    begin = time.monotonic()
    roles, worker = ("publisher", "worker", "worker", "worker"), partial(scene.worker, a_while)
    killed = campaign(scene, KILLS // 2, crew=roles, counted=("worker",), life=(0.03, 0.4), worker=worker)
    took = time.monotonic() - begin
    scene.heal()
    report = scene.report()
    print(f"{killed} kills of workers in {took:.0f} s ({killed / took:.0f} a second)\n{report}")
    report.require(*PROMISES, "G8", "G26")


@pytest.mark.timeout(max(300, 30 * SERVER_KILLS))
def test_nothing_is_lost_doubled_or_reordered_by_kills_of_the_server(scene, durable_postgres):
    scene.prepare()
    children, chance = crew(scene), random.Random(1)
    for _ in range(SERVER_KILLS):
        time.sleep(chance.uniform(0.3, 1.5))
        scene.history.note("fault", "invoke", target=0, reason="the server is killed")
        durable_postgres.crash()
    took = resumed(scene)
    dismiss(scene, children)
    report = scene.report()
    print(f"{SERVER_KILLS} kills of the server; work went on {took:.1f} s after the last one\n{report}")
    report.require(*PROMISES)


def do_not_flush() -> None:
    """M2: commits are acknowledged before they are on the disk."""
    settings = Place._settings
    Place._settings = lambda self: {**settings(self), "synchronous_commit": "off"}


def test_commits_that_are_not_flushed_are_caught_by_kills_of_the_server(scene, durable_postgres):
    scene.mutant = do_not_flush
    scene.prepare()
    children = crew(scene)
    time.sleep(1.0)
    durable_postgres.crash()
    for child in children:
        child.end()
    assert "G1" in scene.report().broken


@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_reordered_by_a_network_that_breaks(
    make_scene, durable_postgres_url, postgres_proxy
):
    scene = make_scene(postgres_proxy.url(durable_postgres_url))
    scene.prepare()
    children, chance = crew(scene), random.Random(2)
    for number in range(60):
        time.sleep(chance.uniform(0.05, 0.2))
        fault = (None, REFUSE, LOST_REPLIES, STALL, BLACK_HOLE)[number % 5]
        scene.history.note("fault", "invoke", target=0, reason="the network breaks")
        if fault is None:
            postgres_proxy.cut()
            continue
        postgres_proxy.suffer(fault)
        time.sleep(chance.uniform(0.02, 0.3))
        postgres_proxy.heal()
    took = resumed(scene)
    dismiss(scene, children)
    report = scene.report()
    print(f"60 cuts; work went on {took:.1f} s after the last one\n{report}")
    report.require(*PROMISES)


@pytest.mark.alone
@pytest.mark.timeout(max(240, 10 * ZOMBIES))
def test_a_zombie_commits_nothing(make_scene, durable_postgres_url):
    scene = make_scene(durable_postgres_url)
    scene.options = {"lease": 0.5}
    scene.prepare()
    haunt_all(scene, 0.5, ZOMBIES // 2)


@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_reordered_while_workers_come_and_go(scene):
    """From one worker to eight and back, under load."""
    scene.prepare()
    chance = random.Random(3)
    publishers = [scene.publisher(patient=True) for _ in range(2)]
    workers = []
    for wanted in (*range(1, 9), *range(7, 0, -1), *range(2, 9), *range(7, 0, -1), *range(2, 9), *range(7, 2, -1)):
        if len(workers) < wanted:
            workers.append(scene.worker())
            assert workers[-1].wait_ready(), scene.log()
        else:
            assert workers.pop(chance.randrange(len(workers))).terminate() == 0, scene.log()
        time.sleep(chance.uniform(0.05, 0.4))
    for child in publishers:
        child.end()
    for child in workers:
        assert child.terminate() == 0, scene.log()
    scene.heal()
    report = scene.report()
    print(report)
    report.require(*PROMISES, "G8", "G10", "G24")
