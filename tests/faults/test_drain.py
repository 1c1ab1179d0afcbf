"""SIGTERM under load: what was begun is finished or released, nothing new is begun, and the process ends with 0."""

import asyncio
import random
import time

import pytest

from tests.faults.sizes import DRAINS


def dawdling(seconds):
    """Handlers take up to this long."""

    def make(_say):
        async def pause(_group):
            await asyncio.sleep(random.uniform(0, seconds))

        return pause

    return make


@pytest.mark.timeout(max(120, DRAINS))
def test_nothing_is_lost_doubled_or_begun_by_draining(scene):
    scene.prepare()
    publisher = scene.publisher()
    workers = [scene.worker(dawdling(0.01)) for _ in range(2)]
    for number in range(DRAINS):
        worker = workers.pop(0)
        assert worker.wait_ready(), scene.log()
        time.sleep(random.uniform(0.005, 0.05))
        workers.append(scene.worker(dawdling(0.01) if number % 2 else None))
        assert worker.terminate() == 0, scene.log()
        scene.children.remove(worker)
    publisher.kill()
    for worker in workers:
        worker.wait_ready()
        worker.terminate()
    scene.heal()
    report = scene.report()
    print(report)
    report.require("G1", "G5", "G7", "G8", "G9", "G16", "G20", "G24")


def test_what_a_drain_cuts_short_comes_again(scene):
    """Handlers that take longer than the drain may are cancelled: cancelled is not acknowledged."""
    scene.options = {"drain": 0.2}
    scene.prepare()
    assert scene.publisher(30, wishes=[""]).wait() == 0
    worker = scene.worker(lambda say: lambda _group: slow(say))
    for _ in range(5):  # several handlers have begun
        worker.wait_ready()
    begin = time.monotonic()
    assert worker.terminate() == 0, scene.log()
    assert time.monotonic() - begin < 2
    scene.heal()
    report = scene.report(deadline=2.0)
    assert report.verdicts["G24"].checked > 2
    report.require("G5", "G7", "G8", "G9", "G24")


async def slow(say):
    say()
    await asyncio.sleep(30)
